//! The one handshake: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, prologue `jvp/1`.
//!
//! Owns the use of snow and what snow leaves to its user: injected randomness, refused weak keys, wiped
//! private keys. Must never parse a payload, and never let garbage advance or end a handshake under way.
//! (snow keeps its chaining key in memory it does not wipe; a state therefore lives for one handshake only.)
//!
//! ```text
//! Initiator::new ─ message1 ──▶ Responder::read1        (static key known, payload open, nothing answered)
//!           read2 ◀── answer ── Responder               both sides: Split
//! ```

use super::Entropy;
use super::curve::{Curve, Ready};
use crate::secret::{PresharedKey, PrivateKey, PublicKey, Secret};
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use std::sync::Arc;
use zeroize::Zeroize;

/// The pattern and its primitives.
pub const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// Both sides hash this first: another protocol's handshake never completes with ours.
pub const PROLOGUE: &[u8] = b"jvp/1";
/// Bytes of a public key at the front of both messages.
pub const EPHEMERAL_LEN: usize = 32;
/// What message 1 adds to its payload: ephemeral, sealed static key, tag.
pub const OVERHEAD_1: usize = 32 + 48 + 16;
/// What message 2 adds to its payload: ephemeral, tag.
pub const OVERHEAD_2: usize = 32 + 16;
/// Where the pattern mixes the preshared key in (psk2).
const PSK_AT: usize = 2;
/// No message is longer than a datagram of the handshake; snow's own bound is 65,535.
const MESSAGE_MAX: usize = 1_500;

/// Why a handshake message was refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// Shorter than any message of this kind, or longer than a datagram.
    #[error("handshake message of a length that cannot be")]
    Length,
    /// Does not open: garbage, another gateway's, a wrong preshared key, or changed under way.
    #[error("handshake message does not open")]
    Refused,
    /// A public key in it is non-canonical or of low order.
    #[error("handshake message with a weak public key")]
    WeakKey,
    /// Called out of order.
    #[error("handshake step out of order")]
    Order,
}

impl From<snow::Error> for NoiseError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Dh => Self::WeakKey,
            snow::Error::Decrypt => Self::Refused,
            snow::Error::Input => Self::Length,
            _ => Self::Order,
        }
    }
}

/// What both sides have after message 2. The hash is public; the two keys are the secret.
#[derive(Debug)]
pub struct Split {
    /// Hash over the whole transcript.
    pub hash: [u8; 32],
    /// First key of Noise's split.
    pub k1: Secret<32>,
    /// Second key of Noise's split.
    pub k2: Secret<32>,
}

impl Split {
    fn of(state: &mut HandshakeState) -> Result<Self, NoiseError> {
        let hash = state.get_handshake_hash().try_into().map_err(|_| NoiseError::Order)?;
        let (mut k1, mut k2) = state.dangerously_get_raw_split();
        Ok(Self { hash, k1: Secret::take(&mut k1), k2: Secret::take(&mut k2) })
    }
}

/// Ephemeral key of a message 1, to know a repeated one again before any Diffie-Hellman.
#[must_use]
pub fn ephemeral(message: &[u8]) -> Option<&[u8; EPHEMERAL_LEN]> {
    message.first_chunk()
}

/// The client's side.
#[derive(Debug)]
pub struct Initiator(HandshakeState);

impl Initiator {
    /// A handshake with the gateway that owns `remote`. The ephemeral key is drawn now.
    ///
    /// # Errors
    /// [`NoiseError::Order`] if snow does not know the pattern: a build without its primitives.
    pub fn new(
        private: &PrivateKey,
        remote: &PublicKey,
        psk: &PresharedKey,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, NoiseError> {
        let state = builder_of(PATTERN, private, entropy)?
            .remote_public_key(remote.as_bytes())?
            .psk(PSK_AT as u8, psk.expose())?
            .prologue(PROLOGUE)?
            .build_initiator()?;
        Ok(Self(state))
    }

    /// Message 1 with this payload, once.
    ///
    /// # Errors
    /// [`NoiseError::Order`] the second time, [`NoiseError::Length`] for a payload no datagram holds.
    pub fn message1(&mut self, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
        write(&mut self.0, payload, OVERHEAD_1)
    }

    /// Opens message 2. A refused one changes nothing: the real one still opens.
    ///
    /// # Errors
    /// Every [`NoiseError`].
    pub fn read2(&mut self, message: &[u8]) -> Result<(Vec<u8>, Split), NoiseError> {
        let payload = read(&mut self.0, message, OVERHEAD_2)?;
        let split = Split::of(&mut self.0)?;
        Ok((payload, split))
    }
}

/// The gateway's side, after message 1 has opened.
#[derive(Debug)]
pub struct Responder(HandshakeState);

impl Responder {
    /// Opens message 1: who asks, what for, and the state an answer needs.
    ///
    /// # Errors
    /// Every [`NoiseError`]; nothing is kept then.
    pub fn read1(
        private: &PrivateKey,
        message: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(PublicKey, Vec<u8>, Self), NoiseError> {
        let mut state = builder_of(PATTERN, private, entropy)?.prologue(PROLOGUE)?.build_responder()?;
        let payload = read(&mut state, message, OVERHEAD_1)?;
        let remote: [u8; 32] =
            state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(NoiseError::Order)?;
        let remote = PublicKey::from_bytes(remote).map_err(|_| NoiseError::WeakKey)?;
        Ok((remote, payload, Self(state)))
    }

    /// Message 2 with this payload, under this peer's preshared key.
    ///
    /// # Errors
    /// [`NoiseError::Length`] for a payload no datagram holds.
    pub fn answer(mut self, psk: &PresharedKey, payload: &[u8]) -> Result<(Vec<u8>, Split), NoiseError> {
        self.0.set_psk(PSK_AT, psk.expose())?;
        let message = write(&mut self.0, payload, OVERHEAD_2)?;
        let split = Split::of(&mut self.0)?;
        Ok((message, split))
    }
}

/// A builder of any pattern over our primitives, for the owner of a static key.
pub(super) fn builder_of<'a>(
    pattern: &str,
    private: &'a PrivateKey,
    entropy: &mut dyn Entropy,
) -> Result<Builder<'a>, NoiseError> {
    let params: NoiseParams = pattern.parse()?;
    let (seed, curve) = (Secret::generate(entropy), entropy.curve());
    let identity = Identity { private: private.duplicate(), ready: private.ready(curve) };
    let resolver = Resolver { seed, curve, identity: Arc::new(identity) };
    Ok(Builder::with_resolver(params, Box::new(resolver)).local_private_key(private.expose())?)
}

pub(super) fn write(state: &mut HandshakeState, payload: &[u8], overhead: usize) -> Result<Vec<u8>, NoiseError> {
    if payload.len() + overhead > MESSAGE_MAX {
        return Err(NoiseError::Length);
    }
    let mut message = vec![0; payload.len() + overhead];
    let len = state.write_message(payload, &mut message)?;
    message.truncate(len);
    Ok(message)
}

pub(super) fn read(state: &mut HandshakeState, message: &[u8], overhead: usize) -> Result<Vec<u8>, NoiseError> {
    if message.len() > MESSAGE_MAX {
        return Err(NoiseError::Length);
    }
    let len = message.len().checked_sub(overhead).ok_or(NoiseError::Length)?;
    let mut payload = vec![0; len];
    let len = state.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

/// Gives snow our Diffie-Hellman, our cipher, and exactly one ephemeral's worth of randomness.
struct Resolver {
    seed: Secret<32>,
    curve: &'static dyn Curve,
    identity: Arc<Identity>,
}

/// The static key as snow will hand it over, and what was made of it before.
struct Identity {
    private: PrivateKey,
    ready: Arc<dyn Ready>,
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.seed.duplicate()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| {
            let (curve, identity) = (self.curve, Arc::clone(&self.identity));
            Box::new(X25519 { curve, identity, ready: None, public: [0; 32] }) as Box<dyn Dh>
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(Secret::zeroed())) as Box<dyn Cipher>)
    }
}

/// The ephemeral's randomness, drawn beforehand; a second draw is an error, never a repeated key.
struct OneDraw(Option<Secret<32>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != seed.expose().len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(seed.expose());
        Ok(())
    }
}

/// X25519 that refuses non-canonical and low-order keys and wipes its own.
struct X25519 {
    curve: &'static dyn Curve,
    identity: Arc<Identity>,
    /// None until a key was set: every agreement fails until then.
    ready: Option<Arc<dyn Ready>>,
    public: [u8; 32],
}

impl X25519 {
    fn install(&mut self, bytes: Secret<32>) -> Result<(), snow::Error> {
        let key = PrivateKey::from_secret(bytes).map_err(|_| snow::Error::Rng)?;
        let known = self.identity.private.same(&key);
        let ready = if known { Arc::clone(&self.identity.ready) } else { key.ready(self.curve) };
        self.public = ready.public();
        self.ready = Some(ready);
        Ok(())
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, private: &[u8]) {
        let mut bytes = Secret::zeroed();
        if private.len() == bytes.expose().len() {
            bytes.expose_mut().copy_from_slice(private);
        }
        // Only a key of zeros is refused, and then there is none: every agreement below fails.
        let _ = self.install(bytes);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut bytes = Secret::zeroed();
        rng.try_fill_bytes(bytes.expose_mut())?;
        self.install(bytes)
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    /// snow asks for it only where it makes key pairs for its user, who has a type for them here.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public = public.first_chunk::<32>().ok_or(snow::Error::Dh)?;
        let public = PublicKey::from_bytes(*public).map_err(|_| snow::Error::Dh)?;
        let ready = self.ready.as_ref().ok_or(snow::Error::Dh)?;
        let shared = ready.agree(&public).map_err(|_| snow::Error::Dh)?;
        out.first_chunk_mut::<32>().ok_or(snow::Error::Dh)?.copy_from_slice(shared.expose());
        Ok(())
    }
}

/// ChaCha20-Poly1305 as Noise numbers it, with a key that is wiped.
struct ChaChaPoly(Secret<32>);

impl ChaChaPoly {
    fn nonce(n: u64) -> [u8; 12] {
        (u128::from(n) << 32).to_le_bytes()[..12].try_into().unwrap_or([0; 12])
    }
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0.expose_mut().copy_from_slice(key);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = ChaCha20Poly1305::new(self.0.expose().into())
            .encrypt_in_place_detached(&Self::nonce(nonce).into(), authtext, text)
            .expect("ChaCha20 seals up to 256 GiB and a message has at most 1,500 bytes");
        rest[..16].copy_from_slice(&tag);
        plaintext.len() + 16
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, snow::Error> {
        let (text, tag) = ciphertext.split_last_chunk::<16>().ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(snow::Error::Decrypt)?;
        out.copy_from_slice(text);
        let opened = ChaCha20Poly1305::new(self.0.expose().into()).decrypt_in_place_detached(
            &Self::nonce(nonce).into(),
            authtext,
            out,
            tag.into(),
        );
        opened.map_err(|_| {
            out.zeroize();
            snow::Error::Decrypt
        })?;
        Ok(text.len())
    }
}

#[cfg(test)]
mod tests;
