//! The stream between a relay and an owner: `Noise_IK_25519_ChaChaPoly_BLAKE2s` with both node keys.
//!
//! Owns its handshake and the sealing of frames; bytes travel elsewhere. Must never count a caller as there before
//! a frame of its opened: message 1 can be replayed by anybody, what follows cannot.
//!
//! ```text
//! relay: Caller::new ── call ──► answer: owner, who looks the relay's key up      both: Link, frames in order
//! ```

use super::Entropy;
use super::noise::{self, NoiseError, OVERHEAD_1, OVERHEAD_2};
use crate::secret::{PrivateKey, PublicKey};
use core::fmt;
use snow::{HandshakeState, TransportState};

/// The pattern and its primitives: those of the client's handshake, without a preshared key.
pub const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// Both sides hash this first, so that a client's handshake is never one of these.
pub const PROLOGUE: &[u8] = b"jvp/1 relay";
/// Bytes of a frame before it is sealed. The longest is one session with six locators, below 400.
pub const FRAME_MAX: usize = 1_024;
/// Bytes sealing adds.
pub const SEALED_BY: usize = 16;

/// The relay's side of the handshake.
#[derive(Debug)]
pub struct Caller(HandshakeState);

impl Caller {
    /// A call to the owner of `remote`.
    ///
    /// # Errors
    /// [`NoiseError::Order`] if snow does not know the pattern: a build without its primitives.
    pub fn new(private: &PrivateKey, remote: &PublicKey, entropy: &mut dyn Entropy) -> Result<Self, NoiseError> {
        let state = noise::builder_of(PATTERN, private, entropy)?
            .remote_public_key(remote.as_bytes())?
            .prologue(PROLOGUE)?
            .build_initiator()?;
        Ok(Self(state))
    }

    /// The first message.
    ///
    /// # Errors
    /// [`NoiseError::Order`] the second time.
    pub fn call(&mut self) -> Result<Vec<u8>, NoiseError> {
        noise::write(&mut self.0, &[], OVERHEAD_1)
    }

    /// The link, once the owner answered.
    ///
    /// # Errors
    /// Every [`NoiseError`].
    pub fn answered(mut self, message: &[u8]) -> Result<Link, NoiseError> {
        noise::read(&mut self.0, message, OVERHEAD_2)?;
        Ok(Link(self.0.into_transport_mode()?))
    }
}

/// The owner's side: who calls, the answer, and the link.
///
/// # Errors
/// Every [`NoiseError`]; [`NoiseError::Refused`] also for a caller that `knows` does not know.
pub fn answer(
    private: &PrivateKey,
    message: &[u8],
    entropy: &mut dyn Entropy,
    knows: impl Fn(&PublicKey) -> bool,
) -> Result<(PublicKey, Vec<u8>, Link), NoiseError> {
    let mut state = noise::builder_of(PATTERN, private, entropy)?.prologue(PROLOGUE)?.build_responder()?;
    noise::read(&mut state, message, OVERHEAD_1)?;
    let remote: [u8; 32] = state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Order)?;
    let remote = PublicKey::from_bytes(remote).map_err(|_| NoiseError::WeakKey)?;
    if !knows(&remote) {
        return Err(NoiseError::Refused);
    }
    let answer = noise::write(&mut state, &[], OVERHEAD_2)?;
    Ok((remote, answer, Link(state.into_transport_mode()?)))
}

/// Both directions of a stream.
pub struct Link(TransportState);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(..)")
    }
}

impl Link {
    /// Seals the next frame.
    ///
    /// # Errors
    /// [`NoiseError::Length`] for one longer than [`FRAME_MAX`].
    pub fn seal(&mut self, frame: &[u8]) -> Result<Vec<u8>, NoiseError> {
        if frame.len() > FRAME_MAX {
            return Err(NoiseError::Length);
        }
        let mut sealed = vec![0; frame.len() + SEALED_BY];
        let len = self.0.write_message(frame, &mut sealed)?;
        sealed.truncate(len);
        Ok(sealed)
    }

    /// Opens the next frame. After a refusal the stream is of no use any more.
    ///
    /// # Errors
    /// [`NoiseError::Refused`] for anything that is not the other side's next frame.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, NoiseError> {
        if sealed.len() > FRAME_MAX + SEALED_BY {
            return Err(NoiseError::Length);
        }
        let mut frame = vec![0; sealed.len()];
        let len = self.0.read_message(sealed, &mut frame)?;
        frame.truncate(len);
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::test_entropy::Fixed;

    fn linked() -> (Link, Link) {
        let (relay, owner) = (PrivateKey::generate(&mut Fixed::new(1)), PrivateKey::generate(&mut Fixed::new(2)));
        let mut caller = Caller::new(&relay, &owner.public(), &mut Fixed::new(3)).unwrap();
        let call = caller.call().unwrap();
        let (who, answer, link) = answer(&owner, &call, &mut Fixed::new(4), |_| true).unwrap();
        assert_eq!(who, relay.public());
        (caller.answered(&answer).unwrap(), link)
    }

    #[test]
    fn frames_travel_both_ways_in_order_and_each_once() {
        let (mut relay, mut owner) = linked();
        let (first, second) = (relay.seal(b"one").unwrap(), relay.seal(b"two").unwrap());
        assert_eq!(owner.open(&second), Err(NoiseError::Refused), "out of order");
        assert_eq!(owner.open(&first).unwrap(), b"one");
        assert_eq!(owner.open(&first), Err(NoiseError::Refused), "again");
        let back = owner.seal(b"back").unwrap();
        assert_eq!(relay.open(&back).unwrap(), b"back");
    }

    #[test]
    fn a_caller_nobody_knows_and_a_changed_call_get_no_answer() {
        let (relay, owner) = (PrivateKey::generate(&mut Fixed::new(1)), PrivateKey::generate(&mut Fixed::new(2)));
        let mut caller = Caller::new(&relay, &owner.public(), &mut Fixed::new(3)).unwrap();
        let mut call = caller.call().unwrap();
        let refused = answer(&owner, &call, &mut Fixed::new(4), |_| false);
        assert_eq!(refused.map(|_| ()).unwrap_err(), NoiseError::Refused);
        *call.last_mut().unwrap() ^= 1;
        let refused = answer(&owner, &call, &mut Fixed::new(4), |_| true);
        assert_eq!(refused.map(|_| ()).unwrap_err(), NoiseError::Refused);
    }

    #[test]
    fn a_frame_longer_than_any_is_not_sealed() {
        let (mut relay, _) = linked();
        assert_eq!(relay.seal(&[0; FRAME_MAX + 1]), Err(NoiseError::Length));
    }
}
