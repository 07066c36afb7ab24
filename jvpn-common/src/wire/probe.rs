//! Probe, echo, notice: what the kernel answers by itself.
//!
//! ```text
//! after the header:
//!  0             8              16            24       28      32       36          48
//! ┌─────────────┬──────────────┬─────────────┬────────┬───────┬────────┬───────────┬──────────
//! │ client time │ gateway time │ incarnation │ probes │ data  │ status │ reserved  │ padding
//! └─────────────┴──────────────┴─────────────┴────────┴───────┴────────┴───────────┴──────────
//! ```
//!
//! A probe carries its client time and zeros; an echo is the same datagram filled in, so that it is never
//! larger. A notice has the same body. Owns the 48 bytes. An echo or notice is a hint: it must never move
//! anything.

/// Bytes of the fixed body, all of them under the steering tag.
pub const BODY_LEN: usize = 48;

/// Status bit: this source is the session's active binding.
pub const STATUS_BOUND: u32 = 1;
/// Status bit: this source is the draining binding.
pub const STATUS_DRAINING: u32 = 2;
/// Status bit: the worker behind this locator is alive.
pub const STATUS_ALIVE: u32 = 4;

/// The fixed body of types 6 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Body {
    /// Client's clock plus an offset of this transport; comes back unread.
    pub client_time: u64,
    /// Gateway's boot clock; quoted in a reattach.
    pub gateway_time: u64,
    /// Which start of the gateway answers.
    pub incarnation: u64,
    /// New probes of this transport seen by the gateway.
    pub probes: u32,
    /// Data packets of this transport seen by the gateway.
    pub data: u32,
    /// `STATUS_…`.
    pub status: u32,
}

impl Body {
    /// The body as the six words the steering tag covers, which are also its bytes in little-endian.
    #[must_use]
    pub const fn words(&self) -> [u64; 6] {
        [
            self.client_time,
            self.gateway_time,
            self.incarnation,
            self.probes as u64 | (self.data as u64) << 32,
            self.status as u64,
            0,
        ]
    }

    /// The body of six words. Reserved bits are dropped here; the tag is verified over the words as received.
    #[must_use]
    pub const fn from_words(words: &[u64; 6]) -> Self {
        let [client_time, gateway_time, incarnation, counts, status, _] = *words;
        Self {
            client_time,
            gateway_time,
            incarnation,
            probes: counts as u32,
            data: (counts >> 32) as u32,
            status: status as u32,
        }
    }
}

/// Six little-endian words of 48 bytes.
#[must_use]
#[inline(always)]
pub const fn words(bytes: &[u8; BODY_LEN]) -> [u64; 6] {
    let mut words = [0; 6];
    let mut i = 0;
    while i < 6 {
        let at = i * 8;
        words[i] = u64::from_le_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
            bytes[at + 4],
            bytes[at + 5],
            bytes[at + 6],
            bytes[at + 7],
        ]);
        i += 1;
    }
    words
}

/// 48 bytes of six little-endian words.
#[must_use]
pub const fn bytes(words: &[u64; 6]) -> [u8; BODY_LEN] {
    let mut bytes = [0; BODY_LEN];
    let mut i = 0;
    while i < BODY_LEN {
        bytes[i] = (words[i / 8] >> (i % 8 * 8)) as u8;
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_back_what_it_wrote() {
        let body = Body { client_time: 1, gateway_time: 2, incarnation: 3, probes: 4, data: 5, status: 7 };
        assert_eq!(Body::from_words(&words(&bytes(&body.words()))), body);
    }
}
