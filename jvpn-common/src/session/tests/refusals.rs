//! Every "no": its kind, its reason, and that nothing but a "no" came out.
//!
//! Owns one negative test per check. Must never accept a refusal for another reason.

use super::*;
use crate::session::units::Permille;

fn refused(session: &Session, input: &Input, policy: &Policy, now: Instant) -> (RefusalKind, Reason, Option<Reason>) {
    match session.step(input, policy, now) {
        Err(refusal) => (refusal.kind, refusal.reason, refusal.detail),
        Ok(step) => panic!("{input:?} was taken in {:?}: {:?}", session.place(), step.transitions),
    }
}

const INVALID: RefusalKind = RefusalKind::Invalid;

/// The request of a reattach, changed.
fn asking(class: Class, nonce: u64, to: Transport, change: impl Fn(&mut Request)) -> Input {
    let mut request = request(class, nonce);
    change(&mut request);
    Input::Reattach(switch(request, to))
}

#[test]
fn a_lower_nonce_is_not_fresh_and_the_same_one_is_answered_again_only_to_its_path() {
    let policy = Policy::field();
    let to = transport(1, 2);
    let session = attached().after(reattach(Class::Lost, 7, to), at(5_000));
    for class in [Class::Lost, Class::Rebind, Class::Better] {
        let now = at(6_000);
        let older = reattach(class, 6, to);
        assert_eq!(refused(&session, &older, &policy, now), (INVALID, Reason::FreshnessInvalid, None));
        let elsewhere = reattach(class, 7, transport(1, 66));
        assert_eq!(refused(&session, &elsewhere, &policy, now), (INVALID, Reason::FreshnessInvalid, None));
        let again = reattach(class, 7, to);
        assert_eq!(refused(&session, &again, &policy, now).0, RefusalKind::Repeat);
    }
}

#[test]
fn an_abandoned_request_stays_dead() {
    let session = attached().after(Input::NonceFloor { nonce: 9 }, at(1_000));
    let late = reattach(Class::Lost, 9, transport(1, 2));
    assert_eq!(refused(&session, &late, &Policy::field(), at(2_000)), (INVALID, Reason::FreshnessInvalid, None));
    assert_eq!(session.version, attached().version);
    let lower = Input::NonceFloor { nonce: 9 };
    assert_eq!(refused(&session, &lower, &Policy::field(), at(2_000)).0, RefusalKind::NoOp);
}

#[test]
fn a_version_from_the_future_is_refused_and_a_lower_one_is_normal() {
    let policy = Policy::field();
    for session in [attached(), recovering()] {
        let now = session.state_since + Duration::from_secs(1);
        let future = asking(Class::Lost, 1, transport(1, 2), |r| r.last_version = Version(session.version.0 + 1));
        assert_eq!(refused(&session, &future, &policy, now), (INVALID, Reason::VersionFuture, None));
        let past = asking(Class::Lost, 1, transport(1, 2), |r| r.last_version = Version(0));
        assert!(session.step(&past, &policy, now).is_ok());
    }
}

#[test]
fn stale_keys_leave_only_resume() {
    let session = recovering().after(Input::ControllerRestarted, at(11_000));
    let (policy, now) = (Policy::field(), at(12_000));
    for class in [Class::Lost, Class::Rebind, Class::Better] {
        let asked = reattach(class, 1, transport(1, 2));
        assert_eq!(refused(&session, &asked, &policy, now), (INVALID, Reason::KeysStale, None));
    }
    let rekey = Input::Rekeyed { reject_after: at(300_000) };
    assert_eq!(refused(&session, &rekey, &policy, now), (INVALID, Reason::KeysStale, None));
    assert_eq!(session.after(resume(now), now).state, State::Attached);
}

#[test]
fn more_proven_requests_than_the_abuse_limit_are_refused_with_a_short_wait() {
    let mut policy = Policy::field();
    policy.max_requests_per_min = 10;
    policy.max_switches_per_min = 600;
    let mut session = attached();
    for n in 1..=10 {
        let step =
            session.step(&reattach(Class::Rebind, n, transport(0, 2)), &policy, at(5_000)).expect("below the limit");
        session = step.session;
    }
    for class in [Class::Rebind, Class::Lost] {
        let refusal = session.step(&reattach(class, 11, transport(0, 3)), &policy, at(6_000)).expect_err("over it");
        assert_eq!((refusal.reason, refusal.detail), (Reason::RateLimited, Some(Reason::SecAbuseControlPlane)));
        assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
    }
    assert!(session.step(&reattach(Class::Lost, 11, transport(0, 3)), &policy, at(71_000)).is_ok());
}

#[test]
fn better_meets_improvement_cooldown_and_rate_and_an_operator_only_rate() {
    let denied = |why| (INVALID, Reason::TransportSwitchDenied, Some(why));
    let mut policy = Policy::field();
    let to = transport(1, 2);
    let now = at(5_000);
    let small = asking(Class::Better, 1, to, |r| r.improvement = 199);
    assert_eq!(refused(&attached(), &small, &policy, now), denied(Reason::ImprovementTooSmall));
    let enough = asking(Class::Better, 1, to, |r| r.improvement = 200);
    assert!(attached().step(&enough, &policy, now).is_ok());
    let moved = attached().after(enough, now);

    let soon = reattach(Class::Better, 2, transport(2, 3));
    assert_eq!(refused(&moved, &soon, &policy, at(5_999)), denied(Reason::CooldownActive));
    assert!(moved.step(&soon, &policy, at(6_000)).is_ok());
    let asked = asking(Class::Better, 2, transport(2, 3), |r| (r.cause, r.improvement) = (Cause::Operator, 0));
    let step = moved.step(&asked, &policy, at(5_001)).expect("neither improvement nor cooldown count");
    assert_eq!(step.transitions[0].details, [Reason::OperatorRequest]);
    let ahead = asking(Class::Better, 2, transport(2, 3), |r| r.cause = Cause::Mapping);
    let step = moved.step(&ahead, &policy, at(6_000)).expect("before a NAT forgets");
    assert_eq!(step.transitions[0].details, [Reason::MappingLifetime]);

    policy.max_switches_per_min = 1;
    assert_eq!(refused(&moved, &soon, &policy, at(30_000)), denied(Reason::SwitchRateLimited));
    assert_eq!(refused(&moved, &asked, &policy, at(30_000)), denied(Reason::SwitchRateLimited));
    let here = reattach(Class::Better, 3, to);
    assert_eq!(refused(&moved, &here, &Policy::field(), at(30_000)), denied(Reason::NoValidCandidate));
    for class in [Class::Lost, Class::Rebind] {
        let needed = reattach(class, 4, transport(1, 8));
        assert!(moved.step(&needed, &policy, at(5_001)).is_ok(), "{class} met a bound of BETTER");
    }
}

#[test]
fn better_may_change_locator_or_path_alone_but_not_stay_where_it_is() {
    let (policy, now) = (Policy::field(), at(5_000));
    for elsewhere in [transport(0, 8), transport(1, 1)] {
        assert!(attached().step(&reattach(Class::Better, 1, elsewhere), &policy, now).is_ok(), "{elsewhere:?}");
    }
    let here = reattach(Class::Better, 1, transport(0, 1));
    let no = (INVALID, Reason::TransportSwitchDenied, Some(Reason::NoValidCandidate));
    assert_eq!(refused(&attached(), &here, &policy, now), no);
}

#[test]
fn a_rebind_under_another_locator_meets_the_bounds_of_better() {
    let mut policy = Policy::field();
    policy.improvement = Permille(600);
    let other = reattach(Class::Rebind, 1, transport(1, 1));
    let no = (INVALID, Reason::TransportSwitchDenied, Some(Reason::ImprovementTooSmall));
    assert_eq!(refused(&attached(), &other, &policy, at(5_000)), no);
    assert!(attached().step(&reattach(Class::Rebind, 1, transport(0, 8)), &policy, at(5_000)).is_ok());
}

#[test]
fn a_due_timer_fires_before_any_input() {
    let policy = Policy::field();
    let late = recovering();
    let now = late.lost_at.expect("unbound") + policy.transport_loss_ttl;
    for input in [reattach(Class::Lost, 1, transport(1, 2)), resume(now), Input::Superseded] {
        assert_eq!(refused(&late, &input, &policy, now).0, RefusalKind::TimerDue);
    }
    let broken =
        late.step(&Input::InvariantBroken { which: 3 }, &policy, now).expect("what is not sound waits for no timer");
    assert_eq!(
        broken.transitions.last().map(|last| (last.to, last.reason)),
        Some((State::Terminated, Reason::FatalProtocolError))
    );
    let ended = late.settled(&policy, now);
    assert_eq!(ended.state, State::Terminated);
    let asked = reattach(Class::Lost, 1, transport(1, 2));
    assert_eq!(refused(&ended, &asked, &policy, now).1, Reason::SessionExpired);
}

#[test]
fn terminated_absorbs_everything() {
    let (policy, now) = (Policy::field(), at(11_000));
    for input in inputs(now) {
        let refusal = terminated().step(&input, &policy, now).expect_err("nothing follows");
        assert!(matches!(refusal.kind, RefusalKind::NoOp | RefusalKind::Invalid), "{input:?}: {refusal:?}");
    }
    assert_eq!(terminated().next_deadline(&policy), None);
}

#[test]
fn a_resume_of_another_peers_session_is_refused_and_named() {
    let now = at(11_000);
    for session in [attached(), recovering()] {
        let Input::Resume(mut asked) = resume(now) else { panic!("a resume") };
        asked.peer = [8; 32];
        let no = (INVALID, Reason::SessionNotFound, Some(Reason::SecSessionFixationAttempt));
        assert_eq!(refused(&session, &Input::Resume(asked), &Policy::field(), now), no);
    }
}

#[test]
fn a_resume_or_confirm_under_dead_keys_is_refused() {
    let now = at(11_000);
    let Input::Resume(mut asked) = resume(now) else { panic!("a resume") };
    asked.reject_after = now;
    assert_eq!(
        refused(&recovering(), &Input::Resume(asked), &Policy::field(), now),
        (INVALID, Reason::KeysStale, None)
    );
    (asked.reject_after, asked.last_version) = (at(99_000), Version(99));
    assert_eq!(
        refused(&recovering(), &Input::Resume(asked), &Policy::field(), now),
        (INVALID, Reason::VersionFuture, None)
    );
    let dead = Input::Confirm { confirmed: confirmed(transport(0, 1)), reject_after: at(50) };
    assert_eq!(refused(&born(), &dead, &Policy::field(), at(50)), (INVALID, Reason::KeysStale, None));
}

#[test]
fn an_owner_that_is_not_newer_changes_nothing() {
    for epoch in [0, 2, 3] {
        let input = Input::NewerOwner { epoch: OwnerEpoch(epoch) };
        assert_eq!(refused(&attached(), &input, &Policy::field(), at(60)), (INVALID, Reason::OwnershipConflict, None));
    }
}

#[test]
fn no_evidence_no_proof() {
    let to = transport(1, 2);
    let (policy, now) = (Policy::field(), at(30_000));
    let unproven = |result: Result<Validated, Refusal>| result.expect_err("no proof").reason;
    assert_eq!(unproven(Validated::answered(to, transport(1, 3).path)), Reason::PathUnvalidated);
    let port = Path::new(core::net::SocketAddr::new(to.path.remote().ip(), 1), 0);
    assert_eq!(unproven(Validated::answered(to, port)), Reason::PathUnvalidated);
    assert_eq!(unproven(Validated::answered(to, Path::new(to.path.remote(), 1))), Reason::PathUnvalidated);
    let fresh = |answered, echo| Validated::fresh(to, answered, echo, &policy, now);
    assert_eq!(unproven(fresh(transport(1, 3).path, now)), Reason::PathUnvalidated);
    assert_eq!(unproven(fresh(to.path, now.before(Duration::from_millis(15_001)))), Reason::PathUnvalidated);
    assert_eq!(unproven(fresh(to.path, now + Duration::from_nanos(1))), Reason::PathUnvalidated);
    assert!(fresh(to.path, now.before(Duration::from_secs(15))).is_ok());

    let mut narrow = Policy::field();
    narrow.set("allowed_transports", "backup").expect("a class");
    assert_eq!(Allowed::by(&narrow, &to).expect_err("not allowed").reason, Reason::PolicyDeny);
    let allowed = Allowed::by(&policy, &to).expect("allowed");
    let other = transport(1, 3);
    let elsewhere = Validated::answered(other, other.path).expect("it answered");
    let mixed = Switch::new(Opened::new(request(Class::Lost, 1)), elsewhere, allowed);
    assert_eq!(mixed.expect_err("two transports").reason, Reason::PathUnvalidated);
    let confirm = Confirmed::new(Opened::new(to), other.path, allowed);
    assert_eq!(confirm.expect_err("from elsewhere").reason, Reason::PathUnvalidated);
}

#[test]
fn an_empty_report_is_no_evidence() {
    let silent = Input::Quality(Report { loss: 0, rtt: Duration::ZERO, jitter: Duration::ZERO, delivered: 0 });
    assert_eq!(refused(&attached(), &silent, &Policy::field(), at(60)).0, RefusalKind::NoOp);
    assert_eq!(refused(&recovering(), &quality(0), &Policy::field(), at(10_001)).0, RefusalKind::NoOp);
}
