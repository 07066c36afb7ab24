//! An account of one transition: which rows were asked, what each guard wanted, and the numbers it saw.
//!
//! Owns the words for inputs, guards and bounds. Must never decide: `holds` here and in `guard` must agree, and a test
//! asks both about every transition of every story.

use super::guard::View;
use super::input::{Cause, Ender, Input, Side};
use super::policy::{BetterSwitching, Policy};
use super::transition::{Guard, On, TABLE, TIMERS};
use super::units::Unit as _;
use super::{Session, Transition, Transport};
use crate::limits::PENDING_TIMEOUT;
use crate::reason::Reason;
use crate::time::{Duration, Instant};

/// One comparison a guard made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The policy's key, or what was looked at.
    pub name: &'static str,
    /// What was seen.
    pub observed: String,
    /// How it had to be.
    pub relation: &'static str,
    /// The bound.
    pub limit: String,
    /// Whether it was so.
    pub holds: bool,
}

impl core::fmt::Display for Bound {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { name, observed, relation, limit, holds } = self;
        write!(f, "{name}: {observed} {}{relation} {limit}", if *holds { "" } else { "is not " })
    }
}

/// A row of the table that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its number, as in the table of `docs/lifecycle.md`.
    pub row: usize,
    /// What it answers to.
    pub on: &'static str,
    /// What it wants, in words; empty: nothing more.
    pub guard: &'static str,
    /// The comparisons; it applies when all of them hold.
    pub bounds: Vec<Bound>,
}

impl Asked {
    /// Whether the row applied.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.bounds.iter().all(|bound| bound.holds)
    }
}

/// A timer that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which one.
    pub timer: &'static str,
    /// The policy's key that says how long; empty when none does.
    pub key: &'static str,
    /// How long that is.
    pub limit: String,
    /// When it fires.
    pub at: Instant,
}

/// Length of time, to microseconds below a second and to milliseconds above.
#[must_use]
pub fn length(duration: Duration) -> String {
    let (seconds, micros) = (duration.as_secs(), duration.subsec_micros());
    match seconds {
        0 => format!("{}.{:03}ms", micros / 1_000, micros % 1_000),
        _ => format!("{seconds}.{:03}s", micros / 1_000),
    }
}

/// Whether something is within its bound, shown in its own way.
pub(super) fn at_most<T: PartialOrd + Copy>(
    name: &'static str,
    observed: T,
    limit: T,
    show: impl Fn(T) -> String,
) -> Bound {
    Bound { name, observed: show(observed), relation: "at most", limit: show(limit), holds: observed <= limit }
}

pub(super) fn budget(spent: bool) -> Bound {
    let observed = if spent { "spent" } else { "left" };
    Bound { name: "switch budget", observed: observed.into(), relation: "", limit: "left".into(), holds: !spent }
}

pub(super) fn at_least(name: &'static str, observed: Duration, limit: Duration) -> Bound {
    let holds = observed >= limit;
    Bound { name, observed: length(observed), relation: "at least", limit: limit.show(), holds }
}

pub(super) fn below(name: &'static str, observed: u32, limit: u32) -> Bound {
    Bound { name, observed: observed.to_string(), relation: "below", limit: limit.to_string(), holds: observed < limit }
}

fn above(name: &'static str, observed: u64, limit: u64) -> Bound {
    Bound { name, observed: observed.to_string(), relation: "above", limit: limit.to_string(), holds: observed > limit }
}

/// How long a timer may run, and the policy's key for it.
fn limit(timer: On, session: &Session, policy: &Policy) -> (&'static str, Duration) {
    match timer {
        On::SessionTtl => ("session_ttl", session.expires_at.since(session.created_at)),
        On::LossTtl => ("transport_loss_ttl", policy.transport_loss_ttl),
        On::RecoveryWindow => ("max_recovery_window", policy.max_recovery_window),
        On::VolatileMax => ("volatile_max", policy.volatile_max),
        On::Stable if session.state == super::State::Volatile => ("stability_window", policy.stability_window),
        On::Stable => ("degraded_stability_window", policy.degraded_stability_window),
        On::BirthTimeout => ("", PENDING_TIMEOUT),
        _ => ("", Duration::ZERO),
    }
}

impl View<'_> {
    /// The comparisons of a guard.
    fn bounds(&self, guard: Guard, on: On) -> Vec<Bound> {
        let (session, policy, now) = (self.session, self.policy, self.now);
        let recoveries = || below("max_recoveries_degraded", session.recoveries, policy.max_recoveries_degraded);
        let switches = || below("max_switches_per_min", session.switches.count(now), policy.max_switches_per_min);
        let spent = || budget(session.spent);
        match guard {
            Guard::Always => Vec::new(),
            Guard::Due => vec![self.due(on)],
            Guard::TwoReports => {
                let mut bounds = vec![Bound {
                    name: "reports in a row below the floor",
                    observed: session.quality.floor.to_string(),
                    relation: "at least",
                    limit: "2".into(),
                    holds: session.quality.below_floor(),
                }];
                if let (true, Some(last)) = (session.quality.below_floor(), session.quality.last) {
                    bounds.push(above("loss_floor (permille lost)", last.loss.into(), policy.loss_floor.0.into()));
                }
                bounds
            }
            Guard::Held => {
                let bad = session.quality.bad_since.map_or(Duration::ZERO, |since| now.since(since));
                let held = session.quality.held_bad(policy, now);
                let mut bounds =
                    vec![Bound { holds: held, ..at_least("volatility_hold", bad, policy.volatility_hold) }];
                bounds.extend(self.beyond().filter(|_| held));
                bounds
            }
            Guard::BetterBounds => self.better_bounds(),
            Guard::RecoveriesLeft => vec![recoveries()],
            Guard::BudgetLeft => vec![spent(), switches()],
            Guard::BothLeft => vec![recoveries(), spent(), switches()],
            Guard::AttemptsSpent => {
                vec![above("max_recovery_attempts", session.attempts.into(), policy.max_recovery_attempts.into())]
            }
            Guard::EpochAbove => match self.input {
                Input::NewerOwner { epoch } => vec![above("owner_epoch", epoch.0, session.owner_epoch.0)],
                _ => vec![above("owner_epoch", 0, session.owner_epoch.0)],
            },
        }
    }

    /// A timer's instant against now.
    fn due(&self, timer: On) -> Bound {
        let (session, policy, now) = (self.session, self.policy, self.now);
        let (key, allowed) = limit(timer, session, policy);
        let Some(at) = session.deadline(timer, policy) else {
            let name = timer.name();
            return Bound { name, observed: "not running".into(), relation: "", limit: "due".into(), holds: false };
        };
        if timer == On::KeyExpired {
            let late = length(now.since(at));
            return Bound {
                name: "keys past reject_after by",
                observed: late,
                relation: "at least",
                limit: "0s".into(),
                holds: at <= now,
            };
        }
        let name = if key.is_empty() { "PENDING_TIMEOUT" } else { key };
        // How much of the time had passed: what is allowed, and what it is past the end.
        let passed =
            if at <= now { allowed.saturating_add(now.since(at)) } else { allowed.saturating_sub(at.since(now)) };
        Bound { holds: at <= now, ..at_least(name, passed, allowed) }
    }

    /// The measure of the last report that is beyond its threshold.
    fn beyond(&self) -> impl Iterator<Item = Bound> {
        let (policy, last) = (self.policy, self.session.quality.last);
        let bound = last.zip(self.session.quality.worst(policy)).map(|(last, worst)| match worst {
            Reason::Rtt => time_above("rtt_threshold", last.rtt, policy.rtt_threshold),
            Reason::Jitter => time_above("jitter_threshold", last.jitter, policy.jitter_threshold),
            Reason::NoDelivery => above("permille lost, none delivered", last.loss.into(), 0),
            _ => above("loss_threshold (permille lost)", last.loss.into(), policy.loss_threshold.0.into()),
        });
        bound.into_iter()
    }

    /// The bounds only BETTER meets.
    fn better_bounds(&self) -> Vec<Bound> {
        let (session, policy, now) = (self.session, self.policy, self.now);
        let Input::Reattach(switch) = self.input else { return Vec::new() };
        let (request, to) = (switch.request(), switch.transport());
        let mut bounds = vec![Bound {
            name: "better_switching",
            observed: policy.better_switching.show(),
            relation: "",
            limit: BetterSwitching::Allowed.show(),
            holds: policy.better_switching == BetterSwitching::Allowed,
        }];
        let same = session.transport.is_some_and(|active| active.k == to.k && active.path == to.path);
        bounds.push(Bound {
            name: "candidate",
            observed: if same { "the active transport" } else { "another transport" }.into(),
            relation: "",
            limit: "another transport".into(),
            holds: !same,
        });
        if request.cause == Cause::Quality {
            bounds.push(Bound {
                name: "improvement (permille)",
                observed: request.improvement.to_string(),
                relation: "at least",
                limit: policy.improvement.0.to_string(),
                holds: request.improvement >= policy.improvement.0,
            });
            if let Some(last) = session.last_switch {
                let since = now.since(last);
                bounds.push(Bound {
                    holds: last + policy.cooldown <= now,
                    ..at_least("cooldown", since, policy.cooldown)
                });
            }
        }
        bounds.push(below("max_switches_per_min", session.switches.count(now), policy.max_switches_per_min));
        bounds
    }
}

fn time_above(name: &'static str, observed: Duration, limit: Duration) -> Bound {
    let holds = observed > limit;
    Bound { name, observed: length(observed), relation: "above", limit: limit.show(), holds }
}

impl Transition {
    /// The rows that were asked, in their order; the last one is the one that was taken.
    #[must_use]
    pub fn asked(&self, policy: &Policy, now: Instant) -> Vec<Asked> {
        let Some(taken) = TABLE.get(self.row) else { return Vec::new() };
        let seen = self.before.seen(&self.input, policy, now);
        let view = View { session: &seen, input: &self.input, policy, now };
        let place = self.before.place();
        let rows = TABLE.iter().enumerate().take(self.row + 1).filter(|(_, row)| row.concerns(place, taken.on));
        rows.map(|(index, row)| Asked {
            row: index + 1,
            on: row.on.name(),
            guard: row.guard.name(),
            bounds: view.bounds(row.guard, row.on),
        })
        .collect()
    }
}

impl Session {
    /// The bounds that hold a BETTER back.
    #[must_use]
    pub fn held_back(&self, input: &Input, policy: &Policy, now: Instant) -> Vec<Bound> {
        let bounds = View { session: self, input, policy, now }.better_bounds();
        bounds.into_iter().filter(|bound| !bound.holds).collect()
    }

    /// The timers that run, the next one first.
    #[must_use]
    pub fn running(&self, policy: &Policy) -> Vec<Running> {
        let running = |&timer: &On| {
            let (key, limit) = limit(timer, self, policy);
            let limit = if limit.is_zero() { String::new() } else { limit.show() };
            self.deadline(timer, policy).map(|at| Running { timer: timer.name(), key, limit, at })
        };
        let mut running: Vec<_> = TIMERS.iter().filter_map(running).collect();
        running.sort_by_key(|running| running.at);
        running
    }
}

fn on(transport: &Transport) -> String {
    format!("{} from {}", transport.label, transport.path.remote())
}

fn seen(evidence: Option<Reason>) -> String {
    evidence.map_or_else(String::new, |reason| format!(", it saw {reason}"))
}

/// An input in words.
#[must_use]
pub fn said(input: &Input) -> String {
    match input {
        Input::Tick => "time passed".into(),
        Input::Confirm { confirmed, .. } => format!("the handshake was confirmed on {}", on(confirmed.transport())),
        Input::Quality(report) => format!(
            "a report about the active transport: {} permille lost, round trip {}, jitter {}, {} packets delivered",
            report.loss,
            length(report.rtt),
            length(report.jitter),
            report.delivered
        ),
        Input::Reattach(switch) => {
            let request = switch.request();
            format!(
                "a proven request {} to {}, nonce {}, wanted by {}{}",
                request.class.name(),
                on(switch.transport()),
                request.nonce,
                request.cause.name(),
                seen(request.evidence)
            )
        }
        Input::Resume(resume) => format!("a confirmed RESUME on {}", on(resume.confirmed.transport())),
        Input::Rekeyed { .. } => "a rekey was completed".into(),
        Input::NonceFloor { nonce } => format!("the client abandoned every request up to nonce {nonce}"),
        Input::AttemptFailed => "a proven request could not be committed".into(),
        Input::TransportLost { by: Side::Client, evidence } => {
            format!("the client said the active transport is lost{}", seen(*evidence))
        }
        Input::TransportLost { by: Side::Gateway, evidence } => {
            format!("the gateway heard nothing on the active transport for gateway_dead_after{}", seen(*evidence))
        }
        Input::ControllerRestarted => "the gateway's controller was started again".into(),
        Input::Shutdown => "the gateway was told to end".into(),
        Input::Terminate { by: Ender::Client } => "the client ended the session".into(),
        Input::Terminate { by: Ender::Operator } => "an operator ended the session".into(),
        Input::Terminate { by: Ender::Policy } => "a bound of policy ended the session".into(),
        Input::PeerRemoved => "the peer is no longer configured".into(),
        Input::Superseded => "a newer session of the same peer was confirmed".into(),
        Input::NewerOwner { epoch } => format!("an owner with epoch {} was seen", epoch.0),
        Input::CompromiseSuspected => "the keys may be known to others".into(),
        Input::InvariantBroken { which } => format!("invariant {which} did not hold"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{Story, any_story, at, attached, inputs, recovering};
    use proptest::prelude::*;

    #[test]
    fn the_account_of_an_end_names_its_bound_and_both_numbers() {
        let (session, policy) = (recovering(), Policy::field());
        let lost = session.lost_at().expect("unbound");
        let now = lost + policy.max_recovery_window + Duration::from_millis(2);
        let step = session.tick(&policy, now).expect("the window is over");
        let asked = step.transitions[0].asked(&policy, now);
        let bound = &asked.last().expect("a row").bounds[0];
        assert_eq!(bound.to_string(), "max_recovery_window: 30.002s at least 30s");
        assert_eq!(asked.last().map(|asked| asked.row), Some(step.transitions[0].row + 1));
    }

    #[test]
    fn the_timers_that_run_are_in_order_and_the_first_is_the_next_deadline() {
        for session in [attached(), recovering()] {
            let policy = Policy::field();
            let running = session.running(&policy);
            assert_eq!(running.first().map(|running| running.at), session.next_deadline(&policy));
            assert!(running.windows(2).all(|pair| pair[0].at <= pair[1].at));
            assert!(running.iter().any(|running| running.key == "session_ttl" && running.limit == "1d"), "{running:?}");
        }
    }

    #[test]
    fn every_input_has_words_of_its_own() {
        let words: Vec<_> = inputs(at(1)).iter().map(said).collect();
        assert!(words.iter().all(|said| said.len() > 8 && !said.contains("Some(")), "{words:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_account_and_the_guard_agree_about_every_row_that_was_asked(story in any_story()) {
            let policy = Story::policy();
            for (transition, now) in story.transitions() {
                let asked = transition.asked(&policy, now);
                let (taken, above) = asked.split_last().expect("a row was taken");
                prop_assert_eq!(taken.row, transition.row + 1);
                prop_assert!(taken.holds(), "{:?}", taken);
                prop_assert!(above.iter().all(|asked| !asked.holds()), "{:?}", above);
            }
        }
    }
}
