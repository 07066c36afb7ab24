//! The tunnel workers of both ends, without a tunnel.
//!
//! Owns data keys with their real counters and windows, under an AEAD that only detects the wrong key: the
//! simulation is about who may seal and open, not about ciphers.

use jvpn_common::crypto::seal::{Aead, NonceBytes};
use jvpn_common::crypto::{OpeningKey, SealingKey, Suite};
use jvpn_common::ids::{Epoch, Locator, TransportIndex};
use jvpn_common::secret::Secret;
use jvpn_common::tag::steering_tag;
use jvpn_common::wire::{Header, Kind};

/// A tag that depends on key, nonce, header and text, and protects nothing.
#[derive(Debug)]
pub struct NullAead(u64);

impl NullAead {
    fn tag(&self, nonce: &NonceBytes, aad: &[u8], text: &[u8]) -> [u8; 16] {
        let mut hash = self.0;
        for &byte in nonce.iter().chain(aad).chain(text) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
        }
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&hash.to_le_bytes());
        tag
    }
}

impl Aead for NullAead {
    fn seal_in_place(&self, nonce: &NonceBytes, aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        self.tag(nonce, aad, text)
    }

    fn open_in_place(&self, nonce: &NonceBytes, aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let (text, tag) = sealed.split_last_chunk::<16>()?;
        (self.tag(nonce, aad, text) == *tag).then_some(text.len())
    }
}

/// Data keys of one epoch at one end.
#[derive(Debug)]
pub struct EpochKeys {
    /// Which.
    pub epoch: Epoch,
    seal: SealingKey<NullAead>,
    open: OpeningKey<NullAead>,
}

fn aead(key: &Secret<32>) -> NullAead {
    let words = key.expose().first_chunk::<8>().copied().unwrap_or_default();
    NullAead(u64::from_le_bytes(words))
}

impl EpochKeys {
    /// Keys that seal under the first and open under the second.
    #[must_use]
    pub fn new(epoch: Epoch, seal: &Secret<32>, open: &Secret<32>) -> Self {
        let limits = Suite::ChaCha20Poly1305.limits();
        Self { epoch, seal: SealingKey::new(aead(seal), limits), open: OpeningKey::new(aead(open), limits) }
    }

    /// Seals an inner packet.
    pub fn seal(
        &self,
        key: [u64; 2],
        flags: u16,
        k: TransportIndex,
        locator: Locator,
        inner: &[u8],
    ) -> Option<Vec<u8>> {
        let (kind, epoch) = (Kind::Data as u8, self.epoch.wire());
        let header = |counter| {
            let tag = steering_tag(key, counter, kind, epoch, flags, k.0, None);
            Header { kind, epoch, flags, tag, locator: locator.0, counter }.to_bytes()
        };
        self.seal.seal(k.0, header, inner).ok()
    }

    /// Opens a datagram; gives the inner packet.
    pub fn open(&mut self, k: TransportIndex, bytes: &mut [u8]) -> Option<Vec<u8>> {
        let (head, sealed) = bytes.split_first_chunk_mut::<24>()?;
        let len = self.open.open_exclusive(k.0, head, sealed).ok()?;
        sealed.get(..len).map(<[u8]>::to_vec)
    }

    /// Next data counter of a transport.
    pub fn next_counter(&self, k: TransportIndex) -> u64 {
        self.seal.next_counter(k.0)
    }
}
