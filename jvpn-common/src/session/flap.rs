//! Anti-flap: how often and how soon a session may move.
//!
//! Owns the meters of switches and requests. Must never bound LOST or REBIND by anything but the abuse
//! limit: a limit on necessary moves would strand a session.

use crate::time::{Duration, Instant};

/// Buckets of a minute. Twelve: a meter forgets in steps of 5 s and costs 32 bytes in every record.
const BUCKETS: usize = 12;
/// Length of a bucket.
const BUCKET: Duration = Duration::from_secs(5);

/// Counts what happened in the last minute. It errs to the strict side: something is forgotten 60 to 65 s
/// after it happened, so in no minute more than the limit passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meter {
    /// Number of the newest bucket since boot.
    newest: u64,
    /// The newest bucket first, then twelve complete ones.
    counts: [u16; BUCKETS + 1],
}

impl Meter {
    /// Number of the bucket of an instant.
    fn bucket(now: Instant) -> u64 {
        now.0 / crate::time::nanos(BUCKET)
    }

    /// The meter with its buckets moved up to `now`.
    fn at(mut self, now: Instant) -> Self {
        let bucket = Self::bucket(now);
        let passed = usize::try_from(bucket.saturating_sub(self.newest)).unwrap_or(usize::MAX);
        if passed > BUCKETS {
            self.counts = [0; BUCKETS + 1];
        } else {
            self.counts.rotate_right(passed);
            self.counts.iter_mut().take(passed).for_each(|count| *count = 0);
        }
        self.newest = self.newest.max(bucket);
        self
    }

    /// How much happened in the last minute.
    #[must_use]
    pub fn count(&self, now: Instant) -> u32 {
        self.at(now).counts.iter().map(|&count| u32::from(count)).sum()
    }

    /// Counts one.
    pub fn add(&mut self, now: Instant) {
        *self = self.at(now);
        let [newest, ..] = &mut self.counts;
        *newest = newest.saturating_add(1);
    }

    /// Counts one if fewer than `limit` happened in the last minute; says whether it did.
    pub fn admit(&mut self, limit: u32, now: Instant) -> bool {
        let below = self.count(now) < limit;
        if below {
            self.add(now);
        }
        below
    }

    pub(super) const fn parts(&self) -> (u64, &[u16]) {
        (self.newest, &self.counts)
    }

    pub(super) fn from_parts(newest: u64, mut next: impl FnMut() -> Option<u16>) -> Option<Self> {
        let mut counts = [0; BUCKETS + 1];
        for count in &mut counts {
            *count = next()?;
        }
        Some(Self { newest, counts })
    }

    /// The meter of another boot clock, on which `now` is what `then` was.
    pub(super) fn rebased(self, then: Instant, now: Instant) -> Self {
        Self { newest: Self::bucket(now), counts: self.at(then).counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn no_minute_sees_more_than_the_limit() {
        let mut meter = Meter::default();
        let passed: Vec<u64> = (0..600).filter(|&second| meter.admit(4, at(second))).collect();
        for window in passed.windows(5) {
            assert!(window[4] - window[0] >= 60, "five within a minute: {window:?}");
        }
        assert!(passed.len() >= 4 * 9, "a limit that never lets go: {passed:?}");
    }

    #[test]
    fn what_happened_late_in_a_bucket_counts_for_a_whole_minute_and_no_longer_than_its_bucket() {
        let mut meter = Meter::default();
        meter.add(at(4));
        assert_eq!((meter.count(at(64)), meter.count(at(65))), (1, 0));
        meter.add(at(34));
        let counts = [at(64), at(65), at(94), at(95)].map(|now| meter.count(now));
        assert_eq!(counts, [2, 1, 1, 0], "each goes in its own time");
    }

    #[test]
    fn what_was_refused_is_not_counted() {
        let mut meter = Meter::default();
        assert!(meter.admit(1, at(1)));
        let before = meter;
        assert!(!meter.admit(1, at(1)));
        assert_eq!(meter, before);
        assert!(meter.admit(1, at(70)));
    }

    #[test]
    fn a_clock_that_is_asked_about_the_past_forgets_nothing() {
        let mut meter = Meter::default();
        meter.add(at(100));
        assert_eq!(meter.count(at(10)), 1);
    }
}
