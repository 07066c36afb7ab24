//! The AEAD of inner packets: seal and open in place with the platform's fastest code.
//!
//! Owns the choice of cipher and the nonce layout. Must never choose a nonce: the key's number space does.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use jvpn_common::limits::{HEADER_LEN, TAG_LEN};

/// Cipher of a session's data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSuite {
    /// AES-256-GCM: the faster one where both ends have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: everywhere else.
    ChaCha20Poly1305,
    /// No cipher and a zero tag: the ceiling that benches compare with. Only inside tests and benches.
    #[doc(hidden)]
    Null,
}

/// One data key, one direction.
pub struct DataAead(Option<LessSafeKey>);

impl fmt::Debug for DataAead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataAead(..)")
    }
}

impl DataAead {
    /// A key of 32 bytes under `suite`. The caller wipes its copy.
    #[must_use]
    pub fn new(suite: DataSuite, key: &[u8; 32]) -> Self {
        let algorithm = match suite {
            DataSuite::Aes256Gcm => &AES_256_GCM,
            DataSuite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            DataSuite::Null => return Self(None),
        };
        Self(UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new))
    }

    /// Seals `plain` in place under the header; the tag comes back to be placed behind it.
    #[must_use]
    pub fn seal(&self, k: u16, counter: u64, header: &[u8; HEADER_LEN], plain: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let Some(key) = &self.0 else { return Some([0; TAG_LEN]) };
        let tag = key.seal_in_place_separate_tag(nonce(k, counter), Aad::from(header), plain).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Opens ciphertext and tag in place; the plaintext stands at the same offset, 16 bytes shorter.
    #[must_use]
    pub fn open<'a>(
        &self,
        k: u16,
        counter: u64,
        header: &[u8; HEADER_LEN],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        match &self.0 {
            Some(key) => key.open_in_place(nonce(k, counter), Aad::from(header), sealed).ok(),
            None => {
                let plain = sealed.len().checked_sub(TAG_LEN)?;
                sealed.get_mut(..plain)
            }
        }
    }
}

/// `k (u32) ‖ counter (u64)`, little-endian: each transport has a number space of its own under a key.
fn nonce(k: u16, counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    let (head, tail) = bytes.split_at_mut(4);
    head.copy_from_slice(&u32::from(k).to_le_bytes());
    tail.copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for suite in [DataSuite::Aes256Gcm, DataSuite::ChaCha20Poly1305] {
            let key = DataAead::new(suite, &[7; 32]);
            let header = [3; HEADER_LEN];
            let mut text = b"inner packet".to_vec();
            let tag = key.seal(1, 9, &header, &mut text).unwrap();
            text.extend_from_slice(&tag);
            for (k, counter, first) in [(2, 9, 3), (1, 8, 3), (1, 9, 4)] {
                let mut other = header;
                other[0] = first;
                assert!(key.open(k, counter, &other, &mut text.clone()).is_none());
            }
            let mut damaged = text.clone();
            damaged[0] ^= 1;
            assert!(key.open(1, 9, &header, &mut damaged).is_none());
            assert_eq!(key.open(1, 9, &header, &mut text).unwrap(), b"inner packet");
        }
    }

    #[test]
    fn a_key_never_prints() {
        assert_eq!(format!("{:?}", DataAead::new(DataSuite::Aes256Gcm, &[7; 32])), "DataAead(..)");
    }
}
