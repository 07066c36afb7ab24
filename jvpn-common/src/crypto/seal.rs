//! Sealing and opening: one key, its own counters, its own windows.
//!
//! Owns the AEAD's shape and the nonce (`k as u32 ‖ counter as u64`, little-endian); [`SealingKey`] owns who
//! may use a nonce (once), [`OpeningKey`] the order in which an incoming datagram is judged. Must never let
//! a second counter for a key exist.

mod opening;
mod sealing;

pub use opening::{OpenError, OpeningKey};
pub use sealing::{Reservation, SealError, Sealed, SealingKey};

use super::suite::Suite;
use crate::limits::TAG_LEN;
use crate::secret::Secret;
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use core::fmt;

/// A nonce: transport index and counter.
pub type NonceBytes = [u8; 12];

/// An AEAD under one key. Implementations wipe the key on drop and keep no counter.
pub trait Aead: Send + Sync {
    /// Encrypts `text` in place; gives the tag.
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN];

    /// Decrypts `sealed` (text, then tag) in place; gives the length of the text. After a failure the bytes
    /// mean nothing.
    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize>;
}

impl<T: Aead + ?Sized> Aead for Box<T> {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        (**self).seal_in_place(nonce, aad, text)
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        (**self).open_in_place(nonce, aad, sealed)
    }
}

/// ChaCha20-Poly1305, used for control always and for data where AES has no instructions.
pub struct ChaCha(ChaCha20Poly1305);

impl ChaCha {
    /// Takes the key over.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "the key is used up: its bytes are wiped here")]
    pub fn new(key: Secret<32>) -> Self {
        Self(ChaCha20Poly1305::new(key.expose().into()))
    }
}

impl Aead for ChaCha {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_in_place_detached(nonce.into(), aad, text)
            .expect("ChaCha20 seals up to 256 GiB and a datagram has at most 64 KiB")
            .into()
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>()?;
        self.0.decrypt_in_place_detached(nonce.into(), aad, text, (&*tag).into()).ok()?;
        Some(text.len())
    }
}

/// Nonce of a packet.
#[must_use]
pub fn nonce(k: u16, counter: u64) -> NonceBytes {
    let [k0, k1] = k.to_le_bytes();
    let [c0, c1, c2, c3, c4, c5, c6, c7] = counter.to_le_bytes();
    [k0, k1, 0, 0, c0, c1, c2, c3, c4, c5, c6, c7]
}

impl fmt::Debug for ChaCha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChaCha(..)")
    }
}

/// Seals control messages of one direction and epoch.
pub type ControlSealer = SealingKey<ChaCha>;
/// Opens control messages of one direction and epoch.
pub type ControlOpener = OpeningKey<ChaCha>;

/// Sealer of control messages.
#[must_use]
pub fn control_sealer(key: Secret<32>) -> ControlSealer {
    SealingKey::new(ChaCha::new(key), Suite::ChaCha20Poly1305.limits())
}

/// Opener of control messages.
#[must_use]
pub fn control_opener(key: Secret<32>) -> ControlOpener {
    OpeningKey::new(ChaCha::new(key), Suite::ChaCha20Poly1305.limits())
}

#[cfg(test)]
mod tests;
