//! What the maps cost, and on which kernels they are known to work; said before anything is loaded.
//!
//! Owns the arithmetic of the kernel's own accounting, and the proven floor. Must never ask the kernel: both are pure
//! functions, so that they can be compared with it.

use jvpn_common::abi::{
    BUCKETS_PER_SESSION, LocatorBucket, PATHS_PER_SLOT, PathCounters, SessionEntry, SessionInfo, SteeringKeys, Traffic,
};

/// The oldest kernel on which every test of the program passes: Debian 12's.
pub const FLOOR: (u32, u32) = (6, 1);

/// Rounded up as the kernel rounds keys and values.
const fn in_words(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(8)
}

/// Bytes of kernel memory of all maps that grow with `max_sessions`. Nothing of it is per processor.
#[must_use]
pub fn memory(max_sessions: u32) -> u64 {
    let values = [
        in_words(size_of::<LocatorBucket>()) * u64::from(BUCKETS_PER_SESSION),
        in_words(size_of::<SessionEntry>()),
        in_words(size_of::<SteeringKeys>()),
        in_words(size_of::<SessionInfo>()),
        in_words(size_of::<PathCounters>()) * u64::from(PATHS_PER_SLOT),
        in_words(size_of::<Traffic>()),
    ];
    u64::from(max_sessions) * values.iter().sum::<u64>()
}

/// Bytes a session, rounded up.
#[must_use]
pub fn per_session(max_sessions: u32) -> u64 {
    memory(max_sessions).div_ceil(u64::from(max_sessions.max(1)))
}

/// Whether a kernel is at or above the proven floor, by what `uname -r` says; none when that begins with no version.
#[must_use]
pub fn is_proven(release: &str) -> Option<bool> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().ok());
    Some((numbers.next()??, numbers.next()??) >= FLOOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_below_the_floor_is_told_from_one_above_it_by_its_release() {
        let table = [
            ("6.1.0-38-cloud-amd64", Some(true)),
            ("6.1", Some(true)),
            ("6.12.38+deb13-amd64", Some(true)),
            ("6.18.44-fc-v657", Some(true)),
            ("7.0.0-rc1", Some(true)),
            ("10.0", Some(true)),
            ("6.0.19", Some(false)),
            ("6.0.1-1", Some(false)),
            ("5.15.0-139-generic", Some(false)),
            ("5.100.1", Some(false)),
            ("4.18.0-553.el8.x86_64", Some(false)),
            ("", None),
            ("6", None),
            ("custom", None),
            ("6.x", None),
            ("99999999999.1", None),
        ];
        for (release, proven) in table {
            assert_eq!(is_proven(release), proven, "{release}");
        }
    }

    #[test]
    fn a_session_takes_less_than_a_kibibyte_whatever_their_number() {
        for size in [1, 1_000, 4_096, 5_461, 5_462, 100_000, 1 << 20] {
            assert_eq!(per_session(size), 712, "{size}");
        }
    }
}
