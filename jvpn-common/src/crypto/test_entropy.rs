//! Randomness for tests: a stream anybody can recompute.
//!
//! Owns the stream `BLAKE2s(seed ‖ block number)`. Must never leave the tests.

use super::Entropy;
use blake2::{Blake2s256, Digest};

/// Blocks of 32 bytes, each the hash of the seed and its number; same in the second implementation.
#[derive(Debug)]
pub(crate) struct Fixed {
    seed: u8,
    block: u32,
}

impl Fixed {
    pub(crate) const fn new(seed: u8) -> Self {
        Self { seed, block: 0 }
    }
}

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let mut hash = Blake2s256::new();
            hash.update([self.seed]);
            hash.update(self.block.to_le_bytes());
            self.block += 1;
            chunk.copy_from_slice(&hash.finalize()[..chunk.len()]);
        }
    }
}
