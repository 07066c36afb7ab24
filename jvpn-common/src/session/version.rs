//! The number of a session's transitions, across restarts and restored backups.
//!
//! Owns ceilings, gaps and leaps. Must never give a number twice or take one back.

use crate::ids::Version;
use crate::limits::VERSION_LEAP_MAX;

/// Versions reserved at once in the store, so that only every 1,024th transition waits for it.
pub const BLOCK: u64 = 1_024;

/// Numbers that were skipped and are therefore no loss: first and last one missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First missing number.
    pub first: Version,
    /// Last missing number.
    pub last: Version,
}

/// The ceiling to have on disk before `version` is used, when `reserved` is what is there.
#[must_use]
pub fn ceiling(version: Version, reserved: Version) -> Option<Version> {
    (version > reserved).then(|| Version((version.0 / BLOCK + 1).saturating_mul(BLOCK)))
}

/// Where to go on after a restart: from the last recorded version when every committed one is in the
/// record, from the ceiling when it may not be. The gap names what was skipped.
#[must_use]
pub fn continued(recorded: Version, ceiling: Version, record_is_whole: bool) -> (Version, Option<Gap>) {
    if record_is_whole || ceiling <= recorded {
        return (recorded, None);
    }
    (ceiling, Some(Gap { first: recorded.next(), last: ceiling }))
}

/// Where to go on when a client has seen more than we know (a restored backup): above its claim, unless
/// the claim is beyond belief.
#[must_use]
pub fn leap(ours: Version, claimed: Version) -> Option<(Version, Option<Gap>)> {
    if claimed <= ours {
        return Some((ours, None));
    }
    let believable = claimed.0 - ours.0 <= VERSION_LEAP_MAX;
    believable.then_some((claimed, Some(Gap { first: ours.next(), last: claimed })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_is_raised_only_when_it_is_reached_and_lies_above() {
        assert_eq!(ceiling(Version(5), Version(1_024)), None);
        assert_eq!(ceiling(Version(1_024), Version(1_024)), None);
        assert_eq!(ceiling(Version(1_025), Version(1_024)), Some(Version(2_048)));
        assert_eq!(ceiling(Version(1), Version(0)), Some(Version(1_024)));
    }

    #[test]
    fn a_whole_record_goes_on_without_a_gap_and_another_names_it() {
        assert_eq!(continued(Version(7), Version(1_024), true), (Version(7), None));
        let gap = Gap { first: Version(8), last: Version(1_024) };
        assert_eq!(continued(Version(7), Version(1_024), false), (Version(1_024), Some(gap)));
    }

    #[test]
    fn a_claim_is_followed_up_to_the_leap_and_refused_beyond() {
        assert_eq!(leap(Version(9), Version(9)), Some((Version(9), None)));
        let gap = Gap { first: Version(10), last: Version(12) };
        assert_eq!(leap(Version(9), Version(12)), Some((Version(12), Some(gap))));
        assert!(leap(Version(9), Version(9 + VERSION_LEAP_MAX)).is_some());
        assert_eq!(leap(Version(9), Version(10 + VERSION_LEAP_MAX)), None);
    }
}
