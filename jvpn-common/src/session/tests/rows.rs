//! Every row of the table happens with its reason, one version, and nothing else changed.
//!
//! Owns one example per row. Must never compare less than the whole session.

use super::*;
use crate::session::transition::TABLE;
use std::collections::BTreeSet;

/// One row by example.
struct Example {
    name: &'static str,
    before: Session,
    input: Input,
    now: Instant,
    reason: Reason,
    details: &'static [Reason],
    /// What is different afterwards, beside the version.
    change: Box<dyn Fn(&mut Session)>,
}

impl Example {
    /// Takes the step, and compares everything.
    fn row(&self) -> usize {
        let (policy, name) = (Policy::field(), self.name);
        let step = self.before.step(&self.input, &policy, self.now).unwrap_or_else(|no| panic!("{name}: {no:?}"));
        let [transition] = step.transitions.as_slice() else {
            panic!("{name}: {:?}", step.transitions);
        };
        assert_eq!((transition.reason, transition.details.as_slice()), (self.reason, self.details), "{name}");
        assert_eq!(transition.version, Version(self.before.version.0 + 1), "{name}");
        let mut expected = self.before.clone();
        expected.version = transition.version;
        (self.change)(&mut expected);
        assert_eq!(step.session, expected, "{name}");
        checked(&self.before, &step, &policy, self.now);
        transition.row
    }
}

fn example(
    name: &'static str,
    (before, input, now): (Session, Input, Instant),
    (reason, details): (Reason, &'static [Reason]),
    change: impl Fn(&mut Session) + 'static,
) -> Example {
    Example { name, before, input, now, reason, details, change: Box::new(change) }
}

/// What binding changes, whatever caused it.
fn bound(session: &mut Session, to: Transport, now: Instant) {
    session.transport = Some(Transport { since: now, ..to });
    session.quality = Quality::restarted(now);
    if let Some(lost) = session.lost_at.take() {
        session.unbound += now.since(lost);
    }
}

/// What an accepted request changes.
fn counted(session: &mut Session, nonce: u64, to: Transport, now: Instant, is_switch: bool) {
    (session.nonce, session.nonce_path) = (nonce, Some(to.path));
    session.moves += 1;
    session.requests.add(now);
    if is_switch {
        session.switches.add(now);
        session.last_switch = Some(now);
    }
}

fn unbound(session: &mut Session, now: Instant) {
    session.transport = None;
    session.quality = Quality::default();
    session.lost_at = Some(now);
}

fn entered(session: &mut Session, state: State, now: Instant) {
    (session.state, session.state_since) = (state, now);
}

fn births() -> Vec<Example> {
    let fail = |name, input, now| {
        example(name, (born(), input, now), (Reason::HandshakeFail, &[]), move |s| {
            entered(s, State::Terminated, now);
            s.keys = Keys::Stale;
        })
    };
    let now = at(50);
    vec![
        example("confirmed", (born(), confirm(now), now), (Reason::HandshakeOk, &[]), move |s| {
            entered(s, State::Attached, now);
            bound(s, transport(0, 1), now);
            s.reject_after = now + Duration::from_secs(180);
        }),
        fail("not confirmed", Input::Tick, at(5_000)),
        fail("abandoned by the client", Input::Terminate { by: Ender::Client }, now),
        fail("abandoned by its peer's removal", Input::PeerRemoved, now),
        fail("abandoned by shutdown", Input::Shutdown, now),
    ]
}

fn qualities() -> Vec<Example> {
    let report = |loss| match quality(loss) {
        Input::Quality(report) => report,
        other => panic!("{other:?}"),
    };
    let (policy, now) = (Policy::field(), at(2_000));
    let worse = move |s: &mut Session, loss, now| {
        s.quality = s.quality.with(report(loss), &policy, now);
        entered(s, State::Volatile, now);
    };
    let once = |loss| attached().after(quality(loss), at(1_000));
    let twice = worse.clone();
    let good = volatile().after(quality(0), at(4_000));
    let mut tired = degraded_bound().after(quality(0), at(70_000));
    (tired.spent, tired.recoveries) = (true, 5);
    tired.switches.add(at(70_000));
    vec![
        example(
            "twice below the floor",
            (once(300), quality(300), now),
            (Reason::QualityFloorViolation, &[Reason::Loss]),
            move |s| {
                twice(s, 300, now);
            },
        ),
        example(
            "held below the threshold",
            (once(60), quality(60), at(1_500)),
            (Reason::VolatilitySignal, &[Reason::Loss]),
            move |s| {
                worse(s, 60, at(1_500));
            },
        ),
        example("good again", (good, Input::Tick, at(7_000)), (Reason::HealthRecovered, &[]), |s| {
            entered(s, State::Attached, at(7_000));
        }),
        example(
            "volatile for too long",
            (volatile(), Input::Tick, at(62_000)),
            (Reason::EnterDegradedMode, &[]),
            |s| {
                entered(s, State::Degraded, at(62_000));
            },
        ),
        example("good again after degraded", (tired, Input::Tick, at(85_000)), (Reason::ExitDegradedMode, &[]), |s| {
            entered(s, State::Attached, at(85_000));
            (s.spent, s.recoveries, s.switches) = (false, 0, Meter::default());
        }),
    ]
}

fn switches() -> Vec<Example> {
    let now = at(63_000);
    let stable = attached().after(Input::Rekeyed { reject_after: at(300_000) }, at(100));
    let mut all = Vec::new();
    for before in [stable.clone(), volatile(), degraded_bound()] {
        let time = if before.state == State::Volatile { at(10_000) } else { now };
        let to = transport(0, 33);
        let input = reattach(Class::Rebind, 5, to);
        let details: &[Reason] = &[Reason::SourceChanged, Reason::NoDelivery];
        all.push(example("rebind", (before, input, time), (Reason::TransportSwitchOk, details), move |s| {
            counted(s, 5, to, time, false);
            bound(s, to, time);
        }));
    }
    for before in [stable, volatile(), degraded_bound()] {
        let time = if before.state == State::Volatile { at(10_000) } else { now };
        let to = transport(1, 2);
        let input = reattach(Class::Better, 5, to);
        let was = before.state;
        all.push(example(
            "better",
            (before, input, time),
            (Reason::TransportSwitchOk, &[Reason::BetterPath]),
            move |s| {
                counted(s, 5, to, time, true);
                bound(s, to, time);
                if was == State::Volatile {
                    entered(s, State::Attached, time);
                }
            },
        ));
    }
    all
}

fn losses() -> Vec<Example> {
    let now = at(63_000);
    let lose = |name, before: Session, reason| {
        let time = if before.state == State::Volatile { at(10_000) } else { now };
        example(name, (before, LOST, time), (reason, &[Reason::LinkDown]), move |s| {
            let degraded = s.state == State::Degraded;
            s.recoveries += u32::from(degraded && reason == Reason::RecoveryRetry);
            let state = if reason == Reason::RecoveryBoundsExceeded { State::Degraded } else { State::Recovering };
            entered(s, state, time);
            unbound(s, time);
        })
    };
    let mut spent = degraded_bound();
    spent.recoveries = Policy::field().max_recoveries_degraded;
    let expire = |name, before: Session| {
        let bound = before.is_bound();
        let details: &[Reason] = if bound { &[Reason::KeyExpired] } else { &[] };
        let reason = if bound { Reason::RecoveryStart } else { Reason::KeyExpired };
        let time = before.reject_after;
        example(name, (before, Input::Tick, time), (reason, details), move |s| {
            s.keys = Keys::Stale;
            if bound {
                entered(s, State::Recovering, time);
                unbound(s, time);
            }
        })
    };
    let late = |input| attached().after(input, at(175_000));
    let restart = |name, before: Session| {
        let bound = before.is_bound();
        let time = if before.state == State::Degraded { now } else { at(11_000) };
        example(name, (before, Input::ControllerRestarted, time), (Reason::ControllerRestart, &[]), move |s| {
            s.keys = Keys::Stale;
            if bound {
                entered(s, State::Recovering, time);
                unbound(s, time);
            }
        })
    };
    vec![
        lose("attached loses it", attached(), Reason::RecoveryStart),
        lose("volatile loses it", volatile(), Reason::RecoveryStart),
        lose("degraded loses it", degraded_bound(), Reason::RecoveryRetry),
        lose("degraded loses it once too often", spent, Reason::RecoveryBoundsExceeded),
        expire("keys expire while bound", attached()),
        expire("keys expire while unbound", late(LOST)),
        restart("restart while attached", attached()),
        restart("restart while volatile", volatile()),
        restart("restart while degraded and bound", degraded_bound()),
        restart("restart while recovering", recovering()),
        restart("restart while degraded and unbound", degraded_unbound()),
    ]
}

fn recoveries() -> Vec<Example> {
    let to = transport(2, 3);
    let accept = |name, before: Session, reason, state: State, now| {
        let spends = reason == Reason::EnterDegradedMode;
        example(name, (before, reattach(Class::Lost, 8, to), now), (reason, &[Reason::NoDelivery]), move |s| {
            let same = s.state == state && s.is_bound();
            entered(s, state, if same { s.state_since } else { now });
            counted(s, 8, to, now, true);
            bound(s, to, now);
            s.spent |= spends;
        })
    };
    let with = |mut session: Session, change: fn(&mut Session)| {
        change(&mut session);
        session
    };
    let failing = with(recovering(), |s| s.attempts = Policy::field().max_recovery_attempts);
    let window = |before: Session, input, attempts| {
        let now = if input == Input::Tick { at(40_000) } else { at(11_000) };
        example("recovery ran past its bounds", (before, input, now), (Reason::RecoveryBoundsExceeded, &[]), move |s| {
            entered(s, State::Degraded, now);
            s.attempts = attempts;
        })
    };
    let resumed = |name, before: Session, reason, state| {
        let now = at(45_000).max(before.state_since);
        example(name, (before, resume(now), now), (reason, &[]), move |s| {
            entered(s, state, now);
            bound(s, transport(0, 9), now);
            (s.keys, s.reject_after, s.nonce, s.nonce_path) = (Keys::Live, now + Duration::from_secs(180), 0, None);
            s.moves += 1;
        })
    };
    let stale = degraded_unbound().after(Input::ControllerRestarted, at(41_000));
    vec![
        accept("recovered", recovering(), Reason::ReattachAccept, State::Attached, at(11_000)),
        accept(
            "recovered without budget",
            with(recovering(), |s| s.spent = true),
            Reason::EnterDegradedMode,
            State::Degraded,
            at(11_000),
        ),
        accept("back from degraded", degraded_unbound(), Reason::ExitDegradedMode, State::Attached, at(41_000)),
        accept(
            "back without budget",
            with(degraded_unbound(), |s| s.spent = true),
            Reason::ReattachAccept,
            State::Degraded,
            at(41_000),
        ),
        accept(
            "back without recoveries",
            with(degraded_unbound(), |s| s.recoveries = 8),
            Reason::ReattachAccept,
            State::Degraded,
            at(41_000),
        ),
        resumed("resumed with stale keys", stale, Reason::ExitDegradedMode, State::Attached),
        window(recovering(), Input::Tick, 0),
        window(failing, Input::AttemptFailed, Policy::field().max_recovery_attempts + 1),
    ]
}

fn ends() -> Vec<Example> {
    let mut all = Vec::new();
    let over = |name, before: &Session, input, now: Instant, reason| {
        example(name, (before.clone(), input, now), (reason, &[]), move |s| {
            if s.is_bound() {
                // It was never unbound in this step, so no time without a transport is counted.
                (s.transport, s.quality) = (None, Quality::default());
            }
            if let Some(lost) = s.lost_at.take() {
                s.unbound += now.since(lost);
            }
            s.keys = Keys::Stale;
            entered(s, State::Terminated, now);
        })
    };
    for before in [attached(), volatile(), recovering(), degraded_bound(), degraded_unbound()] {
        let now = before.state_since + Duration::from_millis(1);
        for (input, reason) in [
            (Input::Terminate { by: Ender::Client }, Reason::ClientTermination),
            (Input::Terminate { by: Ender::Operator }, Reason::OperatorTermination),
            (Input::Terminate { by: Ender::Policy }, Reason::PolicyTermination),
            (Input::PeerRemoved, Reason::PolicyTermination),
            (Input::Superseded, Reason::SessionSuperseded),
            (Input::NewerOwner { epoch: OwnerEpoch(4) }, Reason::OwnershipConflict),
            (Input::CompromiseSuspected, Reason::SecKeyCompromiseSuspected),
            (Input::InvariantBroken { which: 3 }, Reason::FatalProtocolError),
        ] {
            all.push(over(reason.name(), &before, input, now, reason));
        }
        let expiry = before.expires_at;
        all.push(over("session TTL", &before, Input::Tick, expiry, Reason::TtlSessionExpired));
    }
    // The key timer comes before the loss timer is due, so the keys are stale already.
    let stale = degraded_unbound().after(Input::Tick, at(200_000));
    all.push(over("loss TTL", &stale, Input::Tick, at(910_000), Reason::TtlTransportLossExpired));
    all
}

#[test]
fn every_row_happens_with_its_reason_one_version_and_nothing_else_changed() {
    let examples = [births(), qualities(), switches(), losses(), recoveries(), ends()];
    let seen: BTreeSet<usize> = examples.iter().flatten().map(Example::row).collect();
    let missing: Vec<_> = TABLE.iter().enumerate().filter(|(row, _)| !seen.contains(row)).collect();
    assert!(missing.is_empty(), "rows without an example: {missing:#?}");
}

#[test]
fn lost_while_bound_is_two_transitions_in_one_step() {
    let before = attached();
    let to = transport(1, 2);
    let step = before.step(&reattach(Class::Lost, 1, to), &Policy::field(), at(5_000)).expect("a proven request");
    let story: Vec<_> = step.transitions.iter().map(|t| (t.from, t.to, t.reason, t.version, t.is_switch())).collect();
    assert_eq!(
        story,
        [
            (State::Attached, State::Recovering, Reason::RecoveryStart, Version(2), false),
            (State::Recovering, State::Attached, Reason::ReattachAccept, Version(3), true),
        ]
    );
    let to = Transport { since: at(5_000), ..to };
    assert_eq!(step.effects, [Effect::Bind { to, previous: before.transport }]);
    checked(&before, &step, &Policy::field(), at(5_000));
}

#[test]
fn resume_while_bound_is_two_transitions_in_one_step() {
    for before in [attached(), volatile(), degraded_bound()] {
        let now = before.state_since + Duration::from_secs(1);
        let step = before.step(&resume(now), &Policy::field(), now).expect("a confirmed resume");
        assert_eq!((step.transitions.len(), step.session.state), (2, State::Attached));
        assert_eq!(step.session.version, Version(before.version.0 + 2));
        assert_eq!((step.session.id, step.session.peer), (before.id, before.peer));
        checked(&before, &step, &Policy::field(), now);
    }
}

#[test]
fn lost_with_no_recoveries_left_is_bound_all_the_same() {
    let mut before = degraded_bound();
    before.recoveries = 8;
    let now = at(63_000);
    let step =
        before.step(&reattach(Class::Lost, 1, transport(1, 2)), &Policy::field(), now).expect("a proven request");
    assert_eq!(step.session.place(), transition::Place::DegradedBound);
    assert_eq!(
        step.transitions.iter().map(|t| t.reason).collect::<Vec<_>>(),
        [Reason::RecoveryBoundsExceeded, Reason::ReattachAccept]
    );
}

#[test]
fn one_spike_or_one_late_packet_moves_nothing() {
    let calm = attached();
    for loss in [60, 1_000] {
        let spiked = calm.after(quality(loss), at(5_000));
        assert_eq!((spiked.place(), spiked.version), (calm.place(), calm.version));
        let later = spiked.after(quality(0), at(6_000)).after(quality(loss), at(7_000));
        assert_eq!((later.place(), later.version), (calm.place(), calm.version));
    }
}

#[test]
fn a_proven_request_after_the_switch_budget_degrades_instead_of_stranding() {
    let (policy, mut session) = (Policy::field(), attached());
    let mut degraded = 0;
    for n in 1..=40_u16 {
        let now = at(1_000 + u64::from(n) * 100);
        session = session.after(reattach(Class::Lost, n.into(), transport(n, 2)), now);
        assert!(session.is_bound(), "stranded at {n}");
        degraded += u32::from(session.state == State::Degraded);
    }
    assert_eq!(degraded, 40 - policy.max_switches_per_min);
    let calm = session.after(Input::Tick, at(5_000) + policy.degraded_stability_window);
    assert_eq!((calm.state, calm.spent, calm.recoveries), (State::Attached, false, 0));
}
