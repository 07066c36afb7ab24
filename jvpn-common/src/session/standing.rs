//! Where a session stands: what is seen of it at a time, and each bound of its policy that holds it back.
//!
//! Owns which bounds those are for a live session. Must never decide: the comparisons are those of `account`, which agree with
//! the guards.

use super::Session;
use super::account::{Bound, at_least, at_most, below, budget, length};
use super::policy::Policy;
use crate::time::Instant;

impl Session {
    /// Each bound that a report, a request or a failed attempt meets now. One that does not hold is what the session is
    /// held back by, or what is about to move it.
    #[must_use]
    pub fn standing(&self, policy: &Policy, now: Instant) -> Vec<Bound> {
        let mut bounds = Vec::new();
        if !self.is_live() {
            return bounds;
        }
        if let Some(report) = self.quality.last.filter(|_| self.is_bound()) {
            let permille = |value: u16| value.to_string();
            let (rtt, jitter) = (policy.rtt_threshold, policy.jitter_threshold);
            bounds.push(at_most("loss_threshold (permille lost)", report.loss, policy.loss_threshold.0, permille));
            bounds.push(at_most("rtt_threshold", report.rtt, rtt, length));
            bounds.push(at_most("jitter_threshold", report.jitter, jitter, length));
        }
        if let Some(last) = self.last_switch {
            bounds.push(at_least("cooldown", now.since(last), policy.cooldown));
        }
        bounds.push(below("max_switches_per_min", self.switches.count(now), policy.max_switches_per_min));
        bounds.push(below("max_requests_per_min", self.requests.count(now), policy.max_requests_per_min));
        if self.spent || self.recoveries > 0 {
            bounds.push(below("max_recoveries_degraded", self.recoveries, policy.max_recoveries_degraded));
            bounds.push(budget(self.spent));
        }
        if self.attempts > 0 {
            let count = |value: u32| value.to_string();
            bounds.push(at_most("max_recovery_attempts", self.attempts, policy.max_recovery_attempts, count));
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::session::Class;
    use crate::session::tests::{at, attached, everywhere, quality, reattach, recovering, terminated, transport};

    fn failing(session: &Session, now: Instant) -> Vec<&'static str> {
        let standing = session.standing(&Policy::field(), now);
        standing.into_iter().filter(|bound| !bound.holds).map(|bound| bound.name).collect()
    }

    #[test]
    fn a_quiet_session_is_held_back_by_nothing_and_an_ended_one_has_no_bounds() {
        assert_eq!(failing(&attached(), at(60_000)), Vec::<&str>::new());
        assert_eq!(failing(&recovering(), at(60_000)), Vec::<&str>::new());
        assert_eq!(terminated().standing(&Policy::field(), at(60_000)), []);
        let bounded =
            everywhere().iter().filter(|session| !session.standing(&Policy::field(), at(90_000)).is_empty()).count();
        assert_eq!(bounded, 5, "every live one has some");
    }

    #[test]
    fn bad_quality_is_named_by_its_measure_with_both_numbers() {
        let session = attached().after(quality(120), at(1_000));
        assert_eq!(failing(&session, at(1_000)), ["loss_threshold (permille lost)"]);
        let standing = session.standing(&Policy::field(), at(1_000));
        assert_eq!(standing[0].to_string(), "loss_threshold (permille lost): 120 is not at most 50");
        assert_eq!(standing[1].to_string(), "rtt_threshold: 20.000ms at most 400.000ms");
    }

    #[test]
    fn what_the_core_refuses_is_named_and_what_it_takes_is_not() {
        let policy = Policy::field();
        let mut session = attached();
        let mut now = at(1_000);
        let mut nonce = 0;
        let mut better = |session: &Session, now: Instant| {
            nonce += 1;
            session.step(&reattach(Class::Better, nonce, transport(nonce as u16, nonce as u8)), &policy, now)
        };
        for _ in 0..2 * policy.max_switches_per_min {
            let named = failing(&session, now);
            match better(&session, now) {
                Ok(step) => {
                    assert_eq!(named, Vec::<&str>::new());
                    session = step.session;
                    assert_eq!(failing(&session, now)[0], "cooldown");
                    let refused = better(&session, now).expect_err("at once");
                    assert_eq!(refused.detail, Some(Reason::CooldownActive));
                }
                Err(refused) => {
                    assert_eq!(
                        (refused.detail, named),
                        (Some(Reason::SwitchRateLimited), vec!["max_switches_per_min"])
                    );
                }
            }
            now = now + policy.cooldown;
        }
        assert_eq!(failing(&session, now), ["max_switches_per_min"]);
    }
}
