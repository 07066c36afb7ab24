//! Which AEAD seals data, and how much one key may do under it.
//!
//! Owns the suite numbers of the wire and the limits of a key. Must never choose by the client's order:
//! the gateway's own decides, and the list travels inside the transcript, so nobody in between does.

use crate::time::Duration;

/// AEAD of the data keys. Control is always ChaCha20-Poly1305.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM, where both ends have AES instructions.
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305, everywhere else.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305 = 2,
}

/// Number kept for a post-quantum hybrid; offered by nobody and chosen by nobody in this version.
pub const SUITE_RESERVED_HYBRID: u8 = 3;

/// Age at which the client rekeys. Half of it doubles the handshakes, twice of it outlives [`REJECT_AFTER`].
pub const REKEY_AFTER: Duration = Duration::from_secs(120);
/// Age at which a key is dead. The minute in between is for a gateway that is away for a moment.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);

/// How much one key may do, over all its transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets sealed after which a rekey is due.
    pub rekey_after: u64,
    /// Packets sealed after which nothing more is sealed.
    pub reject_after: u64,
    /// Failed opens after which a rekey is due.
    pub failures: u64,
}

impl Suite {
    /// The suite of a number, if this version speaks it.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The first suite of `ours` that the client offers. Unknown numbers are passed over.
    #[must_use]
    pub fn choose(ours: &[Self], offered: &[u8]) -> Option<Self> {
        ours.iter().copied().find(|suite| offered.contains(&(*suite as u8)))
    }

    /// What a key of this suite may do.
    ///
    /// GCM: RFC 9001 B.1.1 for packets of at most 2 KiB, so that a distinguisher's advantage stays below
    /// 2^-57. ChaCha20-Poly1305 has no such bound below its 2^64 nonces; the numbers keep far away from it.
    #[must_use]
    pub const fn limits(self) -> &'static Limits {
        match self {
            Self::Aes256Gcm => &Limits { rekey_after: 1 << 27, reject_after: 1 << 28, failures: 1 << 51 },
            Self::ChaCha20Poly1305 => &Limits { rekey_after: 1 << 60, reject_after: 1 << 61, failures: 1 << 35 },
        }
    }
}

impl core::fmt::Display for Suite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::SUITE_RESERVED_HYBRID;
    use super::Suite::{self, Aes256Gcm, ChaCha20Poly1305};

    #[test]
    fn the_gateways_order_decides_whatever_the_clients_is() {
        assert_eq!(Suite::choose(&[ChaCha20Poly1305, Aes256Gcm], &[1, 2]), Some(ChaCha20Poly1305));
        assert_eq!(Suite::choose(&[Aes256Gcm, ChaCha20Poly1305], &[2, 1]), Some(Aes256Gcm));
        assert_eq!(Suite::choose(&[Aes256Gcm, ChaCha20Poly1305], &[9, 2]), Some(ChaCha20Poly1305));
    }

    #[test]
    fn without_a_common_suite_there_is_none() {
        assert_eq!(Suite::choose(&[Aes256Gcm], &[2]), None);
        assert_eq!(Suite::choose(&[Aes256Gcm], &[]), None);
        assert_eq!(Suite::choose(&[], &[1, 2]), None);
        assert_eq!(Suite::choose(&[Aes256Gcm, ChaCha20Poly1305], &[SUITE_RESERVED_HYBRID, 0]), None);
    }

    #[test]
    fn only_two_numbers_are_suites_and_each_reads_back() {
        let known: Vec<u8> =
            (0..=255).filter(|&byte| Suite::from_byte(byte).is_some_and(|s| s as u8 == byte)).collect();
        assert_eq!(known, [1, 2]);
    }

    #[test]
    fn a_rekey_is_due_before_the_key_is_dead() {
        for suite in [Aes256Gcm, ChaCha20Poly1305] {
            assert!(suite.limits().rekey_after < suite.limits().reject_after);
        }
        assert!(super::REKEY_AFTER < super::REJECT_AFTER);
    }
}
