//! X25519 as a handshake asks for it: a key made ready, its public half, a shared secret.
//!
//! Owns that shape, so that a runtime can lend a faster implementation through [`Entropy::curve`](super::Entropy::curve), and the
//! portable one. Every implementation gives the same bytes; which keys are refused is `secret`'s to say.

use crate::secret::{KeyError, PublicKey, Secret};
use std::sync::Arc;

/// An implementation of X25519.
pub trait Curve: Send + Sync {
    /// Makes a private key ready; its bytes are clamped. What costs something once is done here.
    fn ready(&self, private: &Secret<32>) -> Arc<dyn Ready>;
}

/// A private key that is ready. It wipes what it holds when it goes.
pub trait Ready: Send + Sync {
    /// Its public half.
    fn public(&self) -> [u8; 32];

    /// The secret shared with the owner of `public`.
    ///
    /// # Errors
    /// [`KeyError::LowOrder`] when that is all zeros.
    fn agree(&self, public: &PublicKey) -> Result<Secret<32>, KeyError>;
}

/// The implementation that runs everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

struct PortableKey {
    private: Secret<32>,
    public: [u8; 32],
}

impl Curve for Portable {
    fn ready(&self, private: &Secret<32>) -> Arc<dyn Ready> {
        Arc::new(PortableKey { private: private.duplicate(), public: public(private) })
    }
}

impl Ready for PortableKey {
    fn public(&self) -> [u8; 32] {
        self.public
    }

    fn agree(&self, public: &PublicKey) -> Result<Secret<32>, KeyError> {
        agree(&self.private, public)
    }
}

/// The public half of a clamped private key.
pub(crate) fn public(private: &Secret<32>) -> [u8; 32] {
    let private = x25519_dalek::StaticSecret::from(*private.expose());
    x25519_dalek::PublicKey::from(&private).to_bytes()
}

/// The secret that a clamped private key shares with the owner of a public one.
pub(crate) fn agree(private: &Secret<32>, public: &PublicKey) -> Result<Secret<32>, KeyError> {
    let shared = Secret::take(&mut x25519_dalek::x25519(*private.expose(), *public.as_bytes()));
    if shared.same(&Secret::zeroed()) { Err(KeyError::LowOrder) } else { Ok(shared) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::test_entropy::Fixed;
    use crate::secret::PrivateKey;

    #[test]
    fn a_ready_key_says_what_the_key_says() {
        let [ours, theirs] = [1, 2].map(|seed| PrivateKey::generate(&mut Fixed::new(seed)));
        let ready = ours.ready(&Portable);
        assert_eq!(&ready.public(), ours.public().as_bytes());
        assert!(ready.agree(&theirs.public()).unwrap().same(&theirs.agree(&ours.public()).unwrap()));
        assert!(Arc::ptr_eq(&ready, &ours.ready(&Portable)), "it is made ready once");
    }

    #[test]
    fn the_base_point_s_table_gives_what_the_ladder_gives() {
        for seed in 0..=u8::MAX {
            let private = Secret::generate(&mut Fixed::new(seed));
            let ladder = x25519_dalek::x25519(*private.expose(), x25519_dalek::X25519_BASEPOINT_BYTES);
            assert_eq!(public(&private), ladder, "seed {seed}");
        }
    }
}
