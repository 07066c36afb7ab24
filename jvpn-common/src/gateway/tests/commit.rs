//! Commits that fail, and what comes while one is under way.
//!
//! Owns claims about "all or nothing". Must never let a failure look like a success.

use super::*;
use crate::gateway::command::Order;
use crate::message::{Control, HandshakePurpose, Purpose};

#[test]
fn a_jump_that_cannot_be_committed_is_refused_and_changes_nothing() {
    let (mut world, mut client) = attached();
    let before = (world.picture(), world.records.len(), world.store.clone());
    world.failing = 1;
    let reject = client.refused(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!((reject.reason, reject.version, reject.state), (Reason::CommitFailed, Version(1), 2));
    assert_eq!((world.picture(), world.records.len(), world.store.clone()), before);
    assert_eq!(world.drops(Drop::CommitFailed), 1);
    let ack = client.moved(&mut world, origin(20), 1, Purpose::Lost);
    assert_eq!(ack.version, Version(3), "the version of the failed one is used again");
}

#[test]
fn locators_of_an_ack_that_never_left_are_not_leaked() {
    let (mut world, mut client) = attached();
    for k in 0..6 {
        client.moved(&mut world, origin(40 + k), u16::from(k), Purpose::Lost);
    }
    world.pass(secs(31));
    let known = world.maps.locators.clone();
    world.failing = 1;
    let reject = client.refused(&mut world, origin(40), 0, Purpose::Lost);
    assert_eq!(reject.reason, Reason::CommitFailed);
    assert_eq!(world.maps.locators, known);
    let ack = client.moved(&mut world, origin(40), 0, Purpose::Lost);
    assert!(!ack.retired.is_empty() && ack.locators.len() == ack.retired.len());
    assert_eq!(world.maps.locators.len(), 6);
}

#[test]
fn a_message_2_whose_slot_cannot_be_installed_never_leaves() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    world.failing = 1;
    let first = client.message1(HandshakePurpose::Birth, None);
    assert_eq!(world.deliver(origin(10), &first), []);
    assert_eq!((world.engine.view().pending, world.maps.slots()), (0, 0));
    client.birth(&mut world);
}

#[test]
fn a_confirm_that_cannot_be_committed_is_refused_and_its_keys_are_never_used_again() {
    let (mut world, old) = attached();
    let mut new = old.twin(50, origin(12));
    new.shake(&mut world, HandshakePurpose::Birth).unwrap();
    let records = world.records.len();
    world.failing = 1;
    let Some(Control::Reject(reject)) = new.confirm(&mut world) else { panic!("not refused") };
    assert_eq!(reject.reason, Reason::CommitFailed);
    assert_eq!((world.sessions(), world.records.len()), (vec![old.session], records));
    assert_eq!(world.maps.bound(old.session), Some((origin(10).client, 0)), "the old one lives on");
    assert_eq!((world.maps.slots(), world.engine.view().pending), (1, 0));
    assert_eq!(new.confirm(&mut world), None);
    new.birth(&mut world);
    assert_eq!(world.sessions(), [new.session]);
}

#[test]
fn what_was_answered_before_is_not_answered_again_while_a_commit_is_under_way() {
    let (mut world, mut client) = attached();
    let done = client.request(Purpose::Lost);
    let Control::Ack(_) = client.go_with(&mut world, origin(20), 1, done) else { panic!("refused") };
    let next = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(21), 2, Client::asking(next)).unwrap();
    world.holding = true;
    assert_eq!(client.ask(&mut world, origin(21), 2, Client::proof(next, &cookie)), None);
    let dropped = world.drops(Drop::Busy);
    assert_eq!(client.ask(&mut world, origin(20), 1, Client::asking(done)), None, "it may not be bound there any more");
    assert_eq!(world.drops(Drop::Busy), dropped + 1);
    assert_eq!(world.finish().len(), 1);
    assert_eq!(world.maps.bound(client.session), Some((origin(21).client, 2)));
}

#[test]
fn what_arrives_during_a_commit_is_dropped_and_counted_and_works_when_it_comes_again() {
    let (mut world, mut client) = attached();
    let first = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(20), 1, Client::asking(first)).unwrap();
    let second = client.request(Purpose::Lost);
    let other = client.ask(&mut world, origin(21), 2, Client::asking(second)).unwrap();
    world.holding = true;
    assert_eq!(client.ask(&mut world, origin(20), 1, Client::proof(first, &cookie)), None);
    assert_eq!(client.ask(&mut world, origin(21), 2, Client::proof(second, &other)), None);
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Close), None);
    assert_eq!(world.drops(Drop::Busy), 2);
    assert_eq!(world.finish().len(), 1);
    assert_eq!(world.version(client.session), 3);
    let answer = client.ask(&mut world, origin(21), 2, Client::proof(second, &other)).unwrap();
    assert!(matches!(answer, Control::Ack(ack) if ack.version == Version(5)));
}

#[test]
fn an_order_to_end_a_session_outlives_a_commit_under_way_and_one_that_fails() {
    let (mut world, mut client) = attached();
    let request = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    world.holding = true;
    client.ask(&mut world, origin(20), 1, Client::proof(request, &cookie));
    let session = client.session;
    world.order(Order::Terminate { session, reason: Reason::OperatorTermination });
    assert_eq!(world.sessions(), [session]);
    let sent = world.finish();
    assert_eq!((sent.len(), world.sessions().len()), (2, 0), "ACK, then TERMINATE");

    let (mut world, client) = attached();
    world.failing = 2;
    let session = client.session;
    assert_eq!(world.order(Order::Terminate { session, reason: Reason::PolicyTermination }), []);
    assert_eq!(world.sessions(), [session]);
    world.pass(secs(5));
    assert_eq!((world.sessions().len(), world.maps.slots()), (0, 0));
    assert_eq!(world.recorded(Reason::PolicyTermination), 2);
}

#[test]
fn a_timer_whose_commit_keeps_failing_is_tried_once_a_second_and_not_in_a_loop() {
    let mut world = World::with_policy(|policy| policy.set("session_ttl", "1h").unwrap());
    let mut client = Client::new(2, origin(10));
    client.birth(&mut world);
    world.pass(secs(10));
    let commits = world.commits;
    world.failing = usize::MAX;
    world.pass(secs(10));
    assert!(world.commits - commits <= 12, "{}", world.commits - commits);
    assert_eq!((world.state(client.session), world.version(client.session)), (Some(State::Attached), 1));
    world.failing = 0;
    world.pass(secs(2));
    assert_eq!(world.state(client.session), Some(State::Recovering), "silence is noticed when it can be written");
}
