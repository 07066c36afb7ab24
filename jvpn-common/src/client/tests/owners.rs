//! A client that was served by two owners, one after the other, and meets the older one again.
//!
//! Owns the claim that it never goes back. Must never show it an answer that is wrong in anything but its owner.

use super::*;

/// The owner a client has seen.
fn seen(pair: &Pair) -> OwnerEpoch {
    pair.client.view().owner_epoch
}

/// Asks for a jump and gives the answer of an owner to it.
fn jump(pair: &mut Pair, label: &str, version: u64, owner: u64) {
    pair.give(Input::Jump { label: Label::new(label) });
    let (path, k, id, request) = pair.requests().pop().expect("it asks");
    let ack = Ack { owner_epoch: OwnerEpoch(owner), ..ack(&request, version) };
    pair.say(path, k, &Message { id, body: Control::Ack(ack) });
}

#[test]
fn an_ack_of_an_older_owner_than_it_has_seen_moves_nothing() {
    let mut pair = Pair::connected();
    jump(&mut pair, "lte", 2, 5);
    assert_eq!((seen(&pair), pair.used()), (OwnerEpoch(5), Some(B)));
    jump(&mut pair, "wifi", 3, 4);
    assert_eq!((seen(&pair), pair.used(), pair.client.view().version), (OwnerEpoch(5), None, Version(2)));
}

#[test]
fn a_resume_answered_by_an_older_owner_than_it_has_seen_is_not_confirmed_and_one_by_a_newer_is() {
    let mut pair = Pair::connected();
    jump(&mut pair, "lte", 2, 5);
    pair.others.clear();
    pair.give(Input::Activity(Activity { key_spent: true, ..Activity::default() }));
    pair.owner = OwnerEpoch(4);
    pair.answer_initiation(Outcome::Resumed);
    assert!(pair.controls().iter().all(|(.., message)| !matches!(message.body, Control::Confirm { .. })));
    let told = pair.others.iter().any(|command| {
        matches!(command, Command::Event(event)
            if event.kind == EventKind::HandshakeFailed && event.reason == Reason::OwnershipConflict)
    });
    assert!(told && !pair.others.iter().any(|command| matches!(command, Command::InstallKeys(_))));
    assert_eq!((seen(&pair), pair.client.view().session), (OwnerEpoch(5), Some(SessionId([7; 16]))));
    // It asks again, and whoever has it now answers.
    pair.wait(Duration::from_secs(3));
    pair.owner = OwnerEpoch(6);
    pair.answer_initiation(Outcome::Resumed);
    let (path, k, confirm) = pair.controls().pop().expect("a CONFIRM");
    pair.say(path, k, &Message { id: confirm.id, body: Control::Done });
    assert_eq!((seen(&pair), pair.phase()), (OwnerEpoch(6), Phase::Connected));
}

#[test]
fn a_new_session_may_have_any_owner() {
    let mut pair = Pair::connected();
    jump(&mut pair, "lte", 2, 5);
    pair.give(Input::Activity(Activity { key_spent: true, ..Activity::default() }));
    pair.answer_initiation(Outcome::New(Some(Reason::OwnershipConflict)));
    let (path, k, confirm) = pair.controls().pop().expect("a CONFIRM");
    pair.say(path, k, &Message { id: confirm.id, body: Control::Done });
    assert_eq!((seen(&pair), pair.phase()), (OwnerEpoch(1), Phase::Connected));
}
