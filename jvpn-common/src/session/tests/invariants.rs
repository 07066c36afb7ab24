//! The checkers notice what they are for: doctored steps, each broken in one place.
//!
//! Owns the doctoring. Must never doctor more than what the test's line says.

use super::*;

/// A step of LOST while bound, which has two transitions and one effect.
fn lost() -> (Session, Step) {
    let before = attached();
    let step = before.step(&reattach(Class::Lost, 1, transport(1, 2)), &Policy::field(), at(5_000));
    (before, step.expect("a proven request"))
}

/// What is said of the step after one change to it and, alike, to its last transition.
fn noticed(change: impl Fn(&mut Session)) -> Option<u8> {
    let (before, mut step) = lost();
    change(&mut step.session);
    change(&mut step.transitions[1].after);
    invariant::check(&before, &step).err().map(|broken| broken.which)
}

#[test]
fn an_untouched_step_holds() {
    assert_eq!(noticed(|_| {}), None);
}

#[test]
fn a_changed_identity_life_or_owner_is_noticed() {
    assert_eq!(noticed(|s| s.id = SessionId([1; 16])), Some(1));
    assert_eq!(noticed(|s| s.peer = [1; 32]), Some(1));
    assert_eq!(noticed(|s| s.expires_at = s.expires_at + Duration::from_secs(1)), Some(5));
    assert_eq!(noticed(|s| s.created_at = at(1)), Some(5));
    assert_eq!(noticed(|s| s.owner_epoch = OwnerEpoch(1)), Some(10));
}

#[test]
fn a_binding_that_does_not_fit_the_state_is_noticed() {
    assert_eq!(noticed(|s| s.transport = None), Some(3));
    assert_eq!(noticed(|s| s.state = State::Recovering), Some(3));
    assert_eq!(noticed(|s| s.lost_at = Some(at(1))), Some(3));
    assert_eq!(noticed(|s| s.transport = Some(transport(1, 77))), Some(3));
    assert_eq!(noticed(|s| s.keys = Keys::Stale), Some(8));
}

#[test]
fn a_place_outside_the_row_is_noticed() {
    assert_eq!(noticed(|s| s.state = State::Volatile), Some(4));
    let (before, mut step) = lost();
    step.transitions[0].reason = Reason::ControllerRestart;
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(4));
    let (before, mut step) = lost();
    step.transitions[0].row = usize::MAX;
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(4));
    let (before, mut step) = lost();
    step.transitions.remove(0);
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(4));
    let (before, mut step) = lost();
    let again = step.transitions[1].clone();
    step.transitions.push(again);
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(4));
}

#[test]
fn a_version_that_is_not_the_next_one_is_noticed() {
    assert_eq!(noticed(|s| s.version = Version(9)), Some(10));
    let (before, mut step) = lost();
    step.transitions.clear();
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(10));
}

#[test]
fn keys_or_nonces_that_a_reattach_touched_are_noticed() {
    assert_eq!(noticed(|s| s.reject_after = at(999_000)), Some(8));
    let (before, mut step) = lost();
    let older = Session { nonce: 5, ..before };
    step.transitions[0].before.nonce = 5;
    assert_eq!(invariant::check(&older, &step).map_err(|broken| broken.which), Err(11));
}

#[test]
fn a_step_of_a_terminated_session_is_noticed() {
    let (_, step) = lost();
    let over = Session { id: step.session.id, ..terminated() };
    assert_eq!(invariant::check(&over, &step).map_err(|broken| broken.which), Err(12));
}

#[test]
fn a_missing_effect_or_another_session_than_the_last_transitions_is_noticed() {
    let (before, mut step) = lost();
    step.effects.clear();
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(3));
    let (before, mut step) = lost();
    step.session.moves += 1;
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(7));
    let before = attached();
    let mut step = before.step(&Input::Superseded, &Policy::field(), at(60)).expect("it ends");
    step.effects.retain(|effect| !matches!(effect, Effect::End { .. }));
    assert_eq!(invariant::check(&before, &step).map_err(|broken| broken.which), Err(6));
}

/// What is said of a step, in words: two checks of one invariant have the same number.
fn said(before: &Session, step: &Step) -> Option<&'static str> {
    invariant::check(before, step).err().map(|broken| broken.what)
}

/// A step without a transition.
fn rekeyed() -> (Session, Step) {
    let before = attached();
    let step = before.step(&Input::Rekeyed { reject_after: at(900_000) }, &Policy::field(), at(5_000));
    (before, step.expect("live keys"))
}

#[test]
fn a_session_that_moved_without_a_transition_is_noticed() {
    let (before, step) = rekeyed();
    assert_eq!((said(&before, &step), step.transitions.len()), (None, 0));
    for doctored in [
        Session { state: State::Volatile, ..step.session.clone() },
        Session { transport: Some(transport(1, 2)), ..step.session.clone() },
    ] {
        let step = Step { session: doctored, ..step.clone() };
        assert_eq!(said(&before, &step), Some("moved without a transition"));
    }
}

#[test]
fn each_end_of_a_transition_must_be_the_rows_own() {
    let places = Some("places that are not the row's");
    let states = Some("states that are not the places'");
    let doctored = |change: fn(&mut Transition)| {
        let (before, mut step) = lost();
        change(&mut step.transitions[0]);
        said(&before, &step)
    };
    assert_eq!(doctored(|t| t.before = born()), places);
    assert_eq!(doctored(|t| t.after = volatile()), places);
    assert_eq!(doctored(|t| t.from = State::Volatile), states);
    assert_eq!(doctored(|t| t.to = State::Volatile), states);
}

#[test]
fn what_is_sound_alone_is_checked_state_by_state() {
    let of = |session: &Session| invariant::sound(session).err().map(|broken| (broken.which, broken.what));
    for session in everywhere() {
        assert_eq!(of(&session), None, "{}", session.state);
    }
    let here = Some(transport(0, 1));
    let place = Some((3, "the state and the binding disagree"));
    for doctored in [
        Session { transport: None, ..attached() },
        Session { transport: None, ..volatile() },
        Session { transport: here, ..born() },
        Session { transport: here, ..recovering() },
        Session { transport: here, ..terminated() },
    ] {
        assert_eq!(of(&doctored), place, "{}", doctored.state);
    }
    let lost = Some((3, "lost_at is set exactly while unbound"));
    for doctored in [
        Session { lost_at: None, ..recovering() },
        Session { lost_at: Some(at(1)), ..attached() },
        Session { lost_at: Some(at(1)), ..terminated() },
    ] {
        assert_eq!(of(&doctored), lost, "{}", doctored.state);
    }
    assert_eq!(of(&Session { keys: Keys::Live, ..terminated() }).map(|(which, _)| which), Some(12));
    assert_eq!(of(&Session { version: Version(1), ..born() }).map(|(which, _)| which), Some(10));
    assert_eq!(of(&Session { version: Version(0), ..attached() }).map(|(which, _)| which), Some(10));
}

#[test]
fn only_a_resume_brings_keys_to_life_or_begins_nonces_anew() {
    let now = at(12_000);
    let stale = Session { nonce: 7, ..recovering().after(Input::ControllerRestarted, at(11_000)) };
    let step = stale.step(&resume(now), &Policy::field(), now).expect("it resumes");
    assert!(step.session.keys == Keys::Live && step.session.nonce < 7, "{:?}", step.session);
    assert_eq!(said(&stale, &step), None);
    let (before, step) = rekeyed();
    let before = Session { keys: Keys::Stale, ..before };
    assert_eq!(said(&before, &step), Some("stale keys came back to life"));
    let over = stale.step(&Input::Superseded, &Policy::field(), now).expect("it ends");
    assert_eq!(said(&stale, &over), None, "what was stale stays so");
}

#[test]
fn an_effect_of_something_that_did_not_happen_is_noticed() {
    let here = attached().transport.expect("bound");
    let end =
        Effect::End { reason: Reason::SessionExpired, lifetime: Duration::ZERO, switches: 0, unbound: Duration::ZERO };
    for (effect, what) in [
        (Effect::Bind { to: here, previous: None }, "a binding without its effect"),
        (Effect::Unbind { previous: here }, "an unbinding without its effect"),
        (end, "an end without its effect"),
    ] {
        let (before, mut step) = rekeyed();
        step.effects.push(effect);
        assert_eq!(said(&before, &step), Some(what));
    }
    let before = attached();
    let mut step = before.step(&Input::Superseded, &Policy::field(), at(60)).expect("it ends");
    step.effects.retain(|effect| !matches!(effect, Effect::Unbind { .. }));
    assert_eq!(said(&before, &step), Some("an unbinding without its effect"));
    let (before, mut step) = lost();
    for effect in &mut step.effects {
        if let Effect::Bind { to, .. } = effect {
            *to = transport(3, 3);
        }
    }
    assert_eq!(said(&before, &step), Some("a binding without its effect"));
}

#[test]
fn a_step_that_does_not_replay_is_noticed() {
    let (_, mut step) = lost();
    assert_eq!(invariant::replays(&step, &Policy::field(), at(5_000)), Ok(()));
    step.transitions[1].input = reattach(Class::Lost, 2, transport(1, 2));
    assert_eq!(invariant::replays(&step, &Policy::field(), at(5_000)).map_err(|broken| broken.which), Err(9));
}

#[test]
fn an_encoding_of_what_cannot_be_is_no_session() {
    let mut impossible = attached();
    impossible.keys = Keys::Stale;
    assert_eq!(Session::decode(&impossible.encode()), None);
    assert!(Session::decode(&attached().encode()).is_some());
}
