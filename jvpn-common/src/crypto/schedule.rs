//! From one handshake to the keys of one epoch.
//!
//! Owns THE table of labels and outputs: no other file derives a session key. Must never derive from the
//! handshake hash alone: the hash is public, the secret is the split.
//!
//! ```text
//! PRK = HKDF-Extract(salt = handshake hash, IKM = k1 ‖ k2)          HKDF over HMAC-BLAKE2s-256
//!
//!  label                     bytes   direction            life
//!  "jvp/1 data up"              32   client → gateway     one epoch
//!  "jvp/1 data down"            32   gateway → client     one epoch
//!  "jvp/1 control up"           32   client → gateway     one epoch
//!  "jvp/1 control down"         32   gateway → client     one epoch
//!  "jvp/1 steering up"          16   client → gateway     BIRTH or RESUME to the next one
//!  "jvp/1 steering down"        16   gateway → client     BIRTH or RESUME to the next one
//! ```

use super::noise::Split;
use crate::abi::SteeringKeys;
use crate::secret::Secret;
use blake2::Blake2s256;
use hkdf::SimpleHkdf;

/// One of something for each direction.
#[derive(Debug)]
pub struct Directions<T> {
    /// Client to gateway.
    pub up: T,
    /// Gateway to client.
    pub down: T,
}

/// All keys of one handshake. Each is moved into the one place that uses it; none is ever copied.
#[derive(Debug)]
pub struct EpochKeys {
    /// For type 4, under the suite the gateway chose.
    pub data: Directions<Secret<32>>,
    /// For type 5, ChaCha20-Poly1305.
    pub control: Directions<Secret<32>>,
    /// For the tag; of a REKEY they are dropped unused.
    pub steering: Directions<Secret<16>>,
}

impl EpochKeys {
    /// The keys of this handshake; the split is used up.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a split gives its keys once and is wiped here")]
    pub fn derive(split: Split) -> Self {
        let mut ikm = Secret::<64>::zeroed();
        let (first, second) = ikm.expose_mut().split_at_mut(32);
        first.copy_from_slice(split.k1.expose());
        second.copy_from_slice(split.k2.expose());
        let prk = SimpleHkdf::<Blake2s256>::new(Some(&split.hash), ikm.expose());
        Self {
            data: Directions { up: expand(&prk, "jvp/1 data up"), down: expand(&prk, "jvp/1 data down") },
            control: Directions { up: expand(&prk, "jvp/1 control up"), down: expand(&prk, "jvp/1 control down") },
            steering: Directions { up: expand(&prk, "jvp/1 steering up"), down: expand(&prk, "jvp/1 steering down") },
        }
    }

    /// The steering keys as the map holds them: two little-endian words each.
    #[must_use]
    pub fn steering_words(&self) -> SteeringKeys {
        SteeringKeys { up: words(&self.steering.up), down: words(&self.steering.down) }
    }
}

fn expand<const N: usize>(prk: &SimpleHkdf<Blake2s256>, label: &str) -> Secret<N> {
    let mut key = Secret::zeroed();
    prk.expand(label.as_bytes(), key.expose_mut()).expect("HKDF gives up to 255 × 32 bytes; a key is at most 32");
    key
}

fn words(key: &Secret<16>) -> [u64; 2] {
    let value = u128::from_le_bytes(*key.expose());
    [value as u64, (value >> 64) as u64]
}

#[cfg(test)]
mod tests;
