//! Time, restarts and restored backups.
//!
//! Owns tests of deadlines across boots. Must never let a restart lengthen a life.

use super::*;
use crate::limits::VERSION_LEAP_MAX;
use crate::session::Claim;

#[test]
fn timers_fire_in_their_order_when_several_are_due() {
    let policy = Policy::field();
    let session = volatile().after(quality(0), at(3_000)).after(quality(300), at(5_000));
    let late = at(3 * 86_400_000);
    assert_eq!(session.settled(&policy, late).version, Version(session.version.0 + 1), "the session's end comes first");
    let reasons = |from: &Session, now| {
        let mut session = from.clone();
        let mut all = Vec::new();
        while let Some(step) = session.tick(&policy, now) {
            all.extend(step.transitions.iter().map(|t| t.reason));
            session = step.session;
        }
        all
    };
    assert_eq!(reasons(&recovering(), at(500_000)), [Reason::KeyExpired, Reason::RecoveryBoundsExceeded]);
    assert_eq!(reasons(&recovering(), at(910_000)), [Reason::TtlTransportLossExpired]);
    let both = volatile().after(quality(0), at(59_000));
    assert_eq!(reasons(&both, at(62_000)), [Reason::EnterDegradedMode], "volatile_max comes before stability");
}

#[test]
fn the_next_deadline_is_when_the_next_timer_fires() {
    let policy = Policy::field();
    for session in everywhere() {
        let Some(next) = session.next_deadline(&policy) else {
            assert_eq!(session.state, State::Terminated);
            continue;
        };
        assert_eq!(session.tick(&policy, Instant(next.0 - 1)), None, "{:?}", session.place());
        assert!(session.tick(&policy, next).is_some(), "{:?}", session.place());
    }
}

#[test]
fn a_restart_on_the_same_boot_moves_no_deadline() {
    let (then, now) = (at(20_000), at(23_000));
    let elapsed = Elapsed { then, now, between: Duration::from_secs(3) };
    for session in [attached(), recovering()] {
        let restored = session.restored(elapsed, session.version, session.owner_epoch);
        assert_eq!((restored.expires_at, restored.lost_at), (session.expires_at, session.lost_at));
        assert_eq!((restored.version, restored.created_at), (session.version, session.created_at));
        let step = restored.step(&Input::ControllerRestarted, &Policy::field(), now).expect("no timer comes before");
        let back = step.session;
        assert_eq!(step.transitions.iter().map(|t| t.reason).collect::<Vec<_>>(), [Reason::ControllerRestart]);
        assert_eq!((back.state, back.keys, back.id), (State::Recovering, Keys::Stale, session.id));
        assert_eq!(back.version, Version(session.version.0 + 1));
    }
}

#[test]
fn a_restart_comes_before_every_timer_but_the_ends_of_a_life() {
    let policy = Policy::field();
    for session in [volatile(), recovering()] {
        let (then, now) = (at(20_000), at(200_000));
        let elapsed = Elapsed { then, now, between: Duration::from_secs(180) };
        let restored = session.restored(elapsed, session.version, session.owner_epoch);
        assert!(restored.is_due(&policy, now), "no timer to come first");
        let back = restored.step(&Input::ControllerRestarted, &policy, now).expect("the restart first").session;
        assert_eq!((back.state, back.keys, back.is_bound()), (State::Recovering, Keys::Stale, false));
        assert_eq!(back.version, Version(session.version.0 + 1));
        let late = now + policy.session_ttl;
        let refusal = restored.step(&Input::ControllerRestarted, &policy, late).expect_err("its life is over");
        assert_eq!(refusal.kind, RefusalKind::TimerDue);
    }
}

#[test]
fn a_restart_on_another_boot_keeps_what_is_left_even_before_the_boot() {
    let policy = Policy::field();
    let session = recovering();
    // Lost for 10 s when stored, away for 60 s, restored 5 s after the new boot.
    let elapsed = Elapsed { then: at(20_000), now: Instant(5_000_000_000), between: Duration::from_secs(60) };
    let restored = session.restored(elapsed, session.version, session.owner_epoch);
    let left = restored.deadline(transition::On::LossTtl, &policy).expect("unbound").since(elapsed.now);
    assert_eq!(left, policy.transport_loss_ttl - Duration::from_secs(70));
    let life = restored.expires_at.since(elapsed.now);
    assert_eq!(life, session.expires_at.since(at(20_000)) - Duration::from_secs(60));
    let ended = restored.settled(&policy, elapsed.now + left);
    assert_eq!((ended.state, ended.unbound), (State::Terminated, policy.transport_loss_ttl));
}

#[test]
fn a_life_that_ended_while_the_gateway_was_away_ends_at_once() {
    let elapsed = Elapsed { then: at(20_000), now: Instant(9_000_000_000), between: Duration::from_secs(90_000) };
    let restored = attached().restored(elapsed, Version(1), OwnerEpoch(3));
    assert_eq!(restored.settled(&Policy::field(), elapsed.now).state, State::Terminated);
}

#[test]
fn a_restored_backup_goes_on_above_what_the_client_has_seen() {
    let session = recovering();
    let (version, epoch) = (session.version, session.owner_epoch);
    let above = |seen: (u64, u64)| match session.claimed(Version(seen.0), OwnerEpoch(seen.1), false) {
        Some(Claim::Behind(raised, gap)) => {
            assert_eq!(
                *raised,
                Session { version: raised.version, owner_epoch: raised.owner_epoch, ..session.clone() }
            );
            let gap = gap.map(|gap| (gap.first.0, gap.last.0));
            Some((raised.version.0, raised.owner_epoch.0, gap))
        }
        Some(Claim::Known) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!((version, epoch), (Version(2), OwnerEpoch(3)));
    assert_eq!(above((50, 8)), Some((50, 9, Some((3, 50)))), "both are above the claim");
    assert_eq!(above((50, 1)), Some((50, 4, Some((3, 50)))), "an older owner's version: a new owner all the same");
    assert_eq!(above((1, 3)), Some((2, 4, None)), "nobody can have seen the epoch of a start but by another one");
    assert_eq!(above((2, 2)), None);
    assert_eq!(above((0, 0)), None);
    assert_eq!(session.next_owner(), OwnerEpoch(4));
}

#[test]
fn a_gateway_that_held_a_session_all_the_time_yields_to_whoever_acknowledged_more() {
    let session = recovering();
    let claim = |version, epoch| session.claimed(Version(version), OwnerEpoch(epoch), true);
    assert_eq!(claim(2, 3), Some(Claim::Known), "its own");
    assert_eq!(claim(1, 2), Some(Claim::Known));
    assert_eq!(claim(1, 4), Some(Claim::Owned(OwnerEpoch(4))));
    assert_eq!(claim(50, 9), Some(Claim::Owned(OwnerEpoch(9))));
    assert_eq!(claim(3, 3), Some(Claim::Owned(OwnerEpoch(4))), "a version that was not given here");
    assert_eq!(claim(3, 1), Some(Claim::Owned(OwnerEpoch(4))));
}

#[test]
fn a_claim_beyond_belief_means_nothing_to_either() {
    let session = recovering();
    for held in [false, true] {
        assert_eq!(session.claimed(Version(u64::MAX), OwnerEpoch(3), held), None);
        assert_eq!(session.claimed(Version(1), OwnerEpoch(u64::MAX), held), None);
        assert!(session.claimed(Version(1), OwnerEpoch(3 + VERSION_LEAP_MAX), held).is_some());
        assert_eq!(session.claimed(Version(1), OwnerEpoch(4 + VERSION_LEAP_MAX), held), None);
    }
}
