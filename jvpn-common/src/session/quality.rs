//! Quality of the active transport, with hysteresis in both directions.
//!
//! Owns what "bad", "held" and "good for" mean. Must never be moved by one report: one spike or one late
//! packet changes nothing.

use super::input::Report;
use super::policy::Policy;
use crate::reason::Reason;
use crate::time::Instant;

/// Consecutive reports below the floor that count. Two: one may be a burst.
const FLOOR_REPORTS: u8 = 2;

/// What is remembered of the reports since the binding was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quality {
    /// Since when every report was good; a new binding was just proven to deliver, so it starts good.
    pub good_since: Option<Instant>,
    /// Since when every report was bad.
    pub bad_since: Option<Instant>,
    /// Consecutive reports below the floor.
    pub floor: u8,
    /// The last report.
    pub last: Option<Report>,
}

impl Quality {
    /// Windows restart with every change of binding.
    #[must_use]
    pub fn restarted(now: Instant) -> Self {
        Self { good_since: Some(now), ..Self::default() }
    }

    /// The memory after one more report.
    #[must_use]
    pub fn with(self, report: Report, policy: &Policy, now: Instant) -> Self {
        let last = Some(report);
        if worst(&report, policy).is_none() {
            return Self { good_since: self.good_since.or(Some(now)), bad_since: None, floor: 0, last };
        }
        let floor = if report.loss > policy.loss_floor.0 { self.floor.saturating_add(1).min(FLOOR_REPORTS) } else { 0 };
        Self { good_since: None, bad_since: self.bad_since.or(Some(now)), floor, last }
    }

    /// Whether two reports in a row were below the floor.
    #[must_use]
    pub const fn below_floor(&self) -> bool {
        self.floor >= FLOOR_REPORTS
    }

    /// Whether quality has been bad for `volatility_hold`. The report that says so is not the first one.
    #[must_use]
    pub fn held_bad(&self, policy: &Policy, now: Instant) -> bool {
        self.bad_since.is_some_and(|since| now > since && now.since(since) >= policy.volatility_hold)
    }

    /// What the last report was worst in.
    #[must_use]
    pub fn worst(&self, policy: &Policy) -> Option<Reason> {
        self.last.and_then(|report| worst(&report, policy))
    }
}

/// The first measure beyond its threshold.
fn worst(report: &Report, policy: &Policy) -> Option<Reason> {
    if report.delivered == 0 && report.loss > 0 {
        Some(Reason::NoDelivery)
    } else if report.loss > policy.loss_threshold.0 {
        Some(Reason::Loss)
    } else if report.rtt > policy.rtt_threshold {
        Some(Reason::Rtt)
    } else if report.jitter > policy.jitter_threshold {
        Some(Reason::Jitter)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::units::Permille;
    use crate::time::Duration;

    /// A report that is good in everything.
    fn good() -> Report {
        Report { loss: 0, rtt: Duration::from_millis(20), jitter: Duration::from_millis(2), delivered: 100 }
    }

    #[test]
    fn a_measure_at_its_threshold_is_good_and_beyond_it_bad() {
        let policy = Policy::field();
        let (one, Permille(loss)) = (Duration::from_nanos(1), policy.loss_threshold);
        for (report, beyond, reason) in [
            (Report { loss, ..good() }, Report { loss: loss + 1, ..good() }, Reason::Loss),
            (
                Report { rtt: policy.rtt_threshold, ..good() },
                Report { rtt: policy.rtt_threshold + one, ..good() },
                Reason::Rtt,
            ),
            (
                Report { jitter: policy.jitter_threshold, ..good() },
                Report { jitter: policy.jitter_threshold + one, ..good() },
                Reason::Jitter,
            ),
        ] {
            assert_eq!((worst(&report, &policy), worst(&beyond, &policy)), (None, Some(reason)));
        }
        // Far beyond as well, and the first of several counts.
        let slow = Report { rtt: policy.rtt_threshold * 9, jitter: policy.jitter_threshold * 9, ..good() };
        assert_eq!(worst(&slow, &policy), Some(Reason::Rtt));
        assert_eq!(worst(&Report { jitter: policy.jitter_threshold * 9, ..good() }, &policy), Some(Reason::Jitter));
    }

    #[test]
    fn nothing_delivered_and_something_lost_is_no_delivery_and_nothing_at_all_is_no_evidence() {
        let policy = Policy::field();
        let of = |loss, delivered| worst(&Report { loss, delivered, ..good() }, &policy);
        assert_eq!(of(1, 0), Some(Reason::NoDelivery));
        assert_eq!(of(1_000, 0), Some(Reason::NoDelivery));
        assert_eq!(of(0, 0), None);
        assert_eq!(of(1_000, 1), Some(Reason::Loss));
    }

    #[test]
    fn bad_counts_from_the_second_report_on_and_only_after_the_hold() {
        let mut policy = Policy::field();
        let (begun, bad) = (Instant(1_000_000_000), Report { loss: policy.loss_threshold.0 + 1, ..good() });
        let quality = Quality::default().with(bad, &policy, begun);
        let (before, after) =
            (begun + policy.volatility_hold.saturating_sub(Duration::from_nanos(1)), begun + policy.volatility_hold);
        assert!(!quality.held_bad(&policy, begun) && !quality.held_bad(&policy, before));
        assert!(quality.held_bad(&policy, after));
        policy.volatility_hold = Duration::ZERO;
        assert!(!quality.held_bad(&policy, begun), "the report that says so is not the first one");
        assert!(quality.held_bad(&policy, begun + Duration::from_nanos(1)));
    }

    #[test]
    fn loss_at_the_floor_is_not_below_it() {
        let (policy, now) = (Policy::field(), Instant(1_000_000_000));
        let after = |loss| {
            let report = Report { loss, ..good() };
            Quality::default().with(report, &policy, now).with(report, &policy, now)
        };
        assert!(!after(policy.loss_floor.0).below_floor());
        assert!(after(policy.loss_floor.0 + 1).below_floor());
    }
}
