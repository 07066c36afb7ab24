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
