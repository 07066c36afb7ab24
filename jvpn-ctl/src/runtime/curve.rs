//! X25519 of aws-lc, lent to the handshakes: with a key made ready once it takes half as long as the portable one.
//!
//! Owns the use of `aws_lc_rs::agreement`. Must never give other bytes than the portable implementation, and leaves to it
//! whatever the library refuses.

use std::sync::Arc;

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use jvpn_common::crypto::Curve;
use jvpn_common::crypto::curve::{Portable, Ready};
use jvpn_common::secret::{KeyError, PublicKey, Secret};

/// The implementation.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

struct Key {
    private: PrivateKey,
    public: [u8; 32],
}

impl Curve for AwsLc {
    fn ready(&self, private: &Secret<32>) -> Arc<dyn Ready> {
        match key(private) {
            Some(key) => Arc::new(key),
            None => Portable.ready(private),
        }
    }
}

fn key(private: &Secret<32>) -> Option<Key> {
    let private = PrivateKey::from_private_key(&X25519, private.expose()).ok()?;
    let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
    Some(Key { private, public })
}

impl Ready for Key {
    fn public(&self) -> [u8; 32] {
        self.public
    }

    fn agree(&self, public: &PublicKey) -> Result<Secret<32>, KeyError> {
        let theirs = UnparsedPublicKey::new(&X25519, public.as_bytes());
        // The library refuses one thing only: a shared secret of zeros.
        agree(&self.private, theirs, KeyError::LowOrder, |shared| {
            let mut secret = Secret::zeroed();
            secret.expose_mut().copy_from_slice(shared.get(..32).ok_or(KeyError::Length(shared.len()))?);
            Ok(secret)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::entropy::System;
    use jvpn_common::secret::PrivateKey as Private;

    #[test]
    fn both_implementations_give_the_same_bytes() {
        for _ in 0..200 {
            let private = Secret::generate(&mut System);
            let theirs = Private::generate(&mut System).public();
            let (fast, slow) = (AwsLc.ready(&private), Portable.ready(&private));
            assert_eq!(fast.public(), slow.public());
            assert!(fast.agree(&theirs).unwrap().same(&slow.agree(&theirs).unwrap()));
        }
    }

    #[test]
    fn both_give_the_vector_of_rfc_7748() {
        let private = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        let theirs = PublicKey::from_bytes(bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        for curve in [&AwsLc as &dyn Curve, &Portable] {
            let ready = curve.ready(&Secret::take(&mut bytes(private)));
            assert_eq!(ready.public(), bytes(public));
            assert_eq!(ready.agree(theirs.as_ref().unwrap()).unwrap().expose(), &shared);
        }
    }

    fn bytes(text: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }
}
