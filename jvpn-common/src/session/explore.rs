//! What an explorer of the session core needs and no product may have: evidence that is supposed, and sessions that
//! are equal when nothing but time, or a number nobody looks at, tells them apart.
//!
//! Owns what of a session can still decide something. Must never exist without the feature `sabotage`, nor change
//! what the machine does.

use super::Session;
use super::flap::Meter;
use super::input::Request;
use super::policy::Policy;
use super::proof::{Confirmed, Switch};
use super::state::{Keys, Path, State, Transport};
use crate::ids::Version;
use crate::time::{Duration, Instant};

impl Switch {
    /// A switch whose evidence is supposed.
    #[must_use]
    pub const fn supposed(request: Request, transport: Transport) -> Self {
        Self::recorded(request, transport)
    }
}

impl Confirmed {
    /// A confirmation whose evidence is supposed.
    #[must_use]
    pub const fn supposed(transport: Transport) -> Self {
        Self::recorded(transport)
    }
}

/// How a session is told anew.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The policy it lives under.
    pub policy: &'a Policy,
    /// The present.
    pub now: Instant,
    /// What the present shall be called; a whole number of meter buckets away from it.
    pub at: Instant,
    /// Its version anew, once it has one.
    pub version: Version,
    /// Its highest nonce anew.
    pub nonce: u64,
    /// Whether it counts as just born, because its own end lies beyond what is explored.
    pub endless: bool,
}

impl Session {
    /// The same session, told in another frame and without what cannot decide anything any more: statistics, times
    /// that are over, counts above their limit.
    #[must_use]
    pub fn told(&self, frame: Frame<'_>) -> Self {
        let Frame { policy, now, at, .. } = frame;
        let moved = |then: Instant| if then >= now { at + then.since(now) } else { at.before(now.since(then)) };
        let floor = |then: Instant, window: Duration| moved(then).max(at.before(window));
        let mut told = self.clone();
        told.version = if self.state == State::Birth { Version(0) } else { frame.version };
        (told.moves, told.unbound) = (0, Duration::ZERO);
        told.created_at = if frame.endless && self.is_live() { at } else { moved(self.created_at) };
        told.expires_at = if frame.endless { told.created_at + policy.session_ttl } else { moved(self.expires_at) };
        told.state_since = if self.state == State::Volatile { moved(self.state_since) } else { at };
        told.lost_at = self.lost_at.map(moved);
        told.nonce = frame.nonce;
        told.reject_after = if self.is_live() && self.keys == Keys::Live { moved(self.reject_after) } else { at };
        told.requests = counted(self.requests, policy.max_requests_per_min, now, at);
        told.switches = counted(self.switches, policy.max_switches_per_min, now, at);
        told.recoveries = self.recoveries.min(policy.max_recoveries_degraded);
        told.attempts =
            if self.state == State::Recovering { self.attempts.min(policy.max_recovery_attempts + 1) } else { 0 };
        told.last_switch = self.last_switch.filter(|&then| then + policy.cooldown > now).map(moved);
        told.quality.last = None;
        // Good quality keeps an ATTACHED session where it is, bad quality any other.
        if self.state == State::Attached {
            told.quality.good_since = self.quality.good_since.map(|_| at);
            told.quality.bad_since = self.quality.bad_since.map(|then| floor(then, policy.volatility_hold));
        } else {
            let window = policy.degraded_stability_window.max(policy.stability_window);
            told.quality.good_since = self.quality.good_since.map(|then| floor(then, window));
            (told.quality.bad_since, told.quality.floor) = (None, 0);
        }
        if let Some(transport) = &mut told.transport {
            transport.since = at;
        }
        if self.state == State::Terminated {
            told.forget(at);
        }
        told
    }

    /// The same session with its transports under other names.
    #[must_use]
    pub fn renamed_paths(&self, name: impl Fn(Transport) -> Transport, path: impl Fn(Path) -> Path) -> Self {
        let nonce_path = self.nonce_path.map(path);
        Self { transport: self.transport.map(name), nonce_path, ..self.clone() }
    }

    /// Where the last accepted request came from.
    #[must_use]
    pub const fn nonce_path(&self) -> Option<Path> {
        self.nonce_path
    }

    /// Nothing of a session that is over decides anything.
    fn forget(&mut self, at: Instant) {
        (self.created_at, self.expires_at, self.nonce, self.nonce_path) = (at, at, 0, None);
        (self.requests, self.switches) = (counted(Meter::default(), 0, at, at), counted(Meter::default(), 0, at, at));
        (self.spent, self.recoveries, self.attempts, self.last_switch) = (false, 0, 0, None);
        (self.quality, self.version) = (super::quality::Quality::default(), Version(1));
        self.lost_before = Duration::ZERO;
    }
}

/// A meter as of `at`, without what is older than the newest `limit`: with or without it, the limit is reached.
fn counted(meter: Meter, limit: u32, now: Instant, at: Instant) -> Meter {
    let meter = meter.rebased(now, at);
    let (newest, counts) = meter.parts();
    let mut left = u16::try_from(limit).unwrap_or(u16::MAX);
    let mut newest_first = counts.iter().map(|&count| {
        let kept = count.min(left);
        left -= kept;
        kept
    });
    Meter::from_parts(newest, || newest_first.next()).unwrap_or(meter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{Story, any_story};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_session_told_anew_moves_as_the_whole_one_does(story in any_story(), ahead in 0..40_u64) {
            let policy = Story::policy();
            for (transition, now) in story.transitions() {
                // A whole number of buckets: a meter looks at nothing finer.
                let at = now + Duration::from_secs(5 * ahead);
                let before = &transition.before;
                let frame = Frame { policy: &policy, now, at, version: before.version, nonce: before.nonce, endless: false };
                let told = before.told(frame);
                let moved = |then: Instant| at + then.since(now);
                let input = transition.input.told(moved);
                let step = told.step(&input, &policy, at);
                let row = step.as_ref().map(|step| (step.transitions[0].row, step.transitions[0].details.clone()));
                prop_assert_eq!(row, Ok((transition.row, transition.details.clone())), "{:#?}", told);
                let again = step.map(|step| step.session.told(Frame { now: at, version: transition.version, nonce: transition.after.nonce, ..frame }));
                let after = transition.after.told(Frame { version: transition.version, nonce: transition.after.nonce, ..frame });
                prop_assert_eq!(again, Ok(after));
            }
        }
    }

    impl crate::session::Input {
        /// The same input with its instants moved.
        fn told(self, moved: impl Fn(Instant) -> Instant) -> Self {
            match self {
                Self::Confirm { confirmed, reject_after } => {
                    Self::Confirm { confirmed, reject_after: moved(reject_after) }
                }
                Self::Resume(resume) => {
                    Self::Resume(crate::session::Resume { reject_after: moved(resume.reject_after), ..resume })
                }
                Self::Rekeyed { reject_after } => Self::Rekeyed { reject_after: moved(reject_after) },
                other => other,
            }
        }
    }
}
