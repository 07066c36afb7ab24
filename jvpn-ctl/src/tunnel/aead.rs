//! The AEAD of inner packets: seal and open in place with the platform's fastest code.
//!
//! Owns the choice of cipher, and when a key is expanded. Must never choose or check a nonce: the sealing and the opening key do.

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use jvpn_common::crypto::seal::{Aead, NonceBytes};
use jvpn_common::crypto::suite::Suite;
use jvpn_common::limits::TAG_LEN;
use jvpn_common::secret::Secret;

/// One data key, one direction. It is expanded when it is used first: an idle session has 32 bytes of it instead of 600.
pub struct DataAead {
    /// None for no cipher.
    key: Option<(Suite, Secret<32>)>,
    expanded: OnceLock<Box<LessSafeKey>>,
}

impl fmt::Debug for DataAead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataAead(..)")
    }
}

impl DataAead {
    /// Takes a key over; its bytes are wiped with this.
    #[must_use]
    pub fn new(suite: Suite, key: Secret<32>) -> Self {
        Self { key: Some((suite, key)), expanded: OnceLock::new() }
    }

    /// No cipher and a zero tag: the ceiling that benches compare with. Nothing in the product makes one.
    #[doc(hidden)]
    #[must_use]
    pub fn null() -> Self {
        Self { key: None, expanded: OnceLock::new() }
    }

    fn expanded(&self) -> Option<&LessSafeKey> {
        let (suite, key) = self.key.as_ref()?;
        let expanded = self.expanded.get_or_init(|| {
            let algorithm = match suite {
                Suite::Aes256Gcm => &AES_256_GCM,
                Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            };
            let key = UnboundKey::new(algorithm, key.expose()).expect("both suites take keys of 32 bytes");
            Box::new(LessSafeKey::new(key))
        });
        Some(expanded)
    }
}

impl Aead for DataAead {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let Some(key) = self.expanded() else { return [0; TAG_LEN] };
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text)
            .expect("a datagram is far below the 64 GiB of one nonce");
        tag.as_ref().try_into().expect("both suites have tags of 16 bytes")
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        match self.expanded() {
            Some(key) => {
                let text = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), sealed).ok()?;
                Some(text.len())
            }
            None => sealed.len().checked_sub(TAG_LEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use jvpn_common::crypto::seal::ChaCha;

    use super::*;

    const NONCE: NonceBytes = [1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];

    fn secret() -> Secret<32> {
        Secret::take(&mut [7; 32])
    }

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let key = DataAead::new(suite, secret());
            let mut text = b"inner packet".to_vec();
            let tag = key.seal_in_place(&NONCE, b"header", &mut text);
            text.extend_from_slice(&tag);
            let mut other = NONCE;
            other[0] = 2;
            assert_eq!(key.open_in_place(&other, b"header", &mut text.clone()), None);
            assert_eq!(key.open_in_place(&NONCE, b"Header", &mut text.clone()), None);
            let mut damaged = text.clone();
            damaged[0] ^= 1;
            assert_eq!(key.open_in_place(&NONCE, b"header", &mut damaged), None);
            assert_eq!(key.open_in_place(&NONCE, b"header", &mut text), Some(12));
            assert_eq!(&text[..12], b"inner packet");
        }
    }

    #[test]
    fn it_seals_as_the_other_implementation_does() {
        let (mut ours, mut theirs) = (*b"one text", *b"one text");
        let tag = DataAead::new(Suite::ChaCha20Poly1305, secret()).seal_in_place(&NONCE, b"header", &mut ours);
        assert_eq!(tag, ChaCha::new(secret()).seal_in_place(&NONCE, b"header", &mut theirs));
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_key_never_prints() {
        assert_eq!(format!("{:?}", DataAead::new(Suite::Aes256Gcm, secret())), "DataAead(..)");
    }
}
