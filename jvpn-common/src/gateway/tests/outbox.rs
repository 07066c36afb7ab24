//! What the gateway says by itself: repeated, acknowledged, given up, and the one word that is said once.
//!
//! Owns claims about messages nobody asked for. Must never look at the outbox but through what is sent.

use super::*;
use crate::message::handshake::Outcome;
use crate::message::{Control, HandshakePurpose, Label, Message, Purpose};

fn jump(to: &str) -> Control {
    Control::JumpRequest { label: Label::new(to) }
}

fn ask(world: &mut World, client: &Client, to: &str) -> Vec<Datagram> {
    world.order(Order::Jump { session: client.session, label: Label::new(to) })
}

/// The client acknowledges a message; nothing is answered to that.
fn done(world: &mut World, client: &Client, id: u64) {
    let bytes = client.sealed(0, id, Control::Done);
    assert_eq!(world.deliver(origin(10), &bytes), []);
}

fn opened(client: &mut Client, sent: &[Datagram]) -> Vec<Message> {
    sent.iter().map(|datagram| client.open(datagram)).collect()
}

#[test]
fn a_lost_first_copy_arrives_later_under_the_same_number_and_sealed_anew() {
    let (mut world, mut client) = attached();
    let before = world.picture();
    let lost = ask(&mut world, &client, "lte");
    let sent = world.pass(ms(200));
    assert_eq!((lost.len(), sent.len(), sent[0].origin), (1, 1, origin(10)));
    assert_ne!(lost[0].bytes, sent[0].bytes, "another counter, another seal");
    let late = client.open(&sent[0]);
    assert_eq!(late.body, jump("lte"));
    assert_eq!(client.open(&lost[0]), late, "and the first one, should it still come, is the same message");
    done(&mut world, &client, late.id);
    assert_eq!(world.pass(secs(10)), [], "acknowledged: nothing is repeated");
    assert_eq!((world.engine.unacknowledged(), world.drops(Drop::Unacknowledged)), (0, 0));
    assert_eq!(world.picture(), before, "a wish changes nothing by itself");
}

#[test]
fn an_unacknowledged_message_is_given_up_after_six_copies_and_counted() {
    let (mut world, mut client) = attached();
    let mut sent = ask(&mut world, &client, "lte");
    sent.extend(world.pass(secs(12)));
    let copies = opened(&mut client, &sent);
    assert_eq!(copies.len(), 6);
    assert!(copies.iter().all(|copy| *copy == copies[0]));
    assert_eq!((world.engine.unacknowledged(), world.drops(Drop::Unacknowledged)), (0, 1));
    assert_eq!(world.state(client.session), Some(State::Attached), "silence about a wish is no loss");
}

#[test]
fn copies_come_at_growing_distances() {
    let (mut world, client) = attached();
    ask(&mut world, &client, "lte");
    let mut distances = Vec::new();
    let mut last = world.now;
    for _ in 0..5 {
        let at = world.engine.wakeup().unwrap();
        world.pass(at.since(world.now));
        distances.push(at.since(last).as_millis());
        last = at;
    }
    assert_eq!(distances, [200, 400, 800, 1_600, 3_200]);
}

#[test]
fn copies_follow_the_session_to_its_new_transport() {
    let (mut world, mut client) = attached();
    ask(&mut world, &client, "lte");
    client.moved(&mut world, origin(20), 1, Purpose::BetterOperator);
    let sent = world.pass(ms(500));
    assert!(!sent.is_empty() && sent.iter().all(|copy| copy.origin == origin(20)), "{sent:?}");
    assert_eq!(client.open(&sent[0]).body, jump("lte"));
}

#[test]
fn a_newer_wish_replaces_the_older_and_leaves_other_kinds_alone() {
    let (mut world, mut client) = attached();
    let first = ask(&mut world, &client, "lte");
    let first = client.open(&first[0]).id;
    world.order(Order::GoingAway);
    ask(&mut world, &client, "wifi");
    assert_eq!(world.engine.unacknowledged(), 2);
    let sent = world.pass(ms(250));
    let mut said: Vec<Message> = opened(&mut client, &sent);
    said.dedup();
    assert_eq!(said.iter().map(|message| &message.body).collect::<Vec<_>>(), [&Control::GoingAway, &jump("wifi")]);
    // A DONE for what was replaced, and for what nobody said, ends nothing.
    done(&mut world, &client, first);
    done(&mut world, &client, 77);
    assert_eq!(world.engine.unacknowledged(), 2);
    said.iter().for_each(|message| done(&mut world, &client, message.id));
    assert_eq!(world.engine.unacknowledged(), 0);
}

#[test]
fn ten_thousand_orders_wait_in_the_room_of_one() {
    let (mut world, client) = attached();
    for _ in 0..10_000 {
        assert_eq!(ask(&mut world, &client, "lte").len(), 1);
    }
    assert_eq!(world.engine.unacknowledged(), 1);
    assert!(world.pass(secs(12)).len() < 6);
}

#[test]
fn nothing_is_said_to_a_session_that_is_lost_over_or_has_other_keys() {
    let (mut world, client) = attached();
    ask(&mut world, &client, "lte");
    world.pass(secs(16));
    assert_eq!(world.state(client.session), Some(State::Recovering));
    assert_eq!((ask(&mut world, &client, "lte"), world.pass(secs(5))), (Vec::new(), Vec::new()));

    let (mut world, client) = attached();
    ask(&mut world, &client, "lte");
    let session = client.session;
    assert_eq!(world.order(Order::Terminate { session, reason: Reason::OperatorTermination }).len(), 1);
    assert_eq!((world.pass(secs(20)), world.engine.unacknowledged()), (Vec::new(), 0));
    assert_eq!(world.engine.wakeup(), None, "nothing is left that could wake");

    let (mut world, mut client) = attached();
    ask(&mut world, &client, "lte");
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    client.confirm(&mut world);
    assert_eq!((world.pass(secs(10)), world.engine.unacknowledged()), (Vec::new(), 0));
}

#[test]
fn a_client_that_did_not_hear_the_end_is_told_why_when_it_resumes() {
    for reason in [Reason::OperatorTermination, Reason::PolicyTermination, Reason::SecKeyCompromiseSuspected] {
        let (mut world, mut client) = attached();
        let session = client.session;
        let lost = world.order(Order::Terminate { session, reason });
        assert_eq!(lost.len(), 1, "said once: its keys are gone with the commit it left with");
        assert_eq!(world.pass(secs(30)), []);
        assert_eq!(client.ask(&mut world, origin(10), 0, Control::PathReport(Vec::new())), None, "silence");
        assert_eq!(world.drops(Drop::UnknownLocator), 1);
        let purpose = client.resume();
        client.shake(&mut world, purpose).unwrap();
        assert_eq!(client.accepted.as_ref().unwrap().outcome, Outcome::New(Some(reason)));
        assert_ne!(client.session, session);
        let mut thief = Client::new(3, origin(66));
        let purpose = HandshakePurpose::Resume { session, version: Version(2), owner_epoch: OwnerEpoch(1) };
        thief.shake(&mut world, purpose).unwrap();
        let said = thief.accepted.as_ref().unwrap().outcome;
        assert_eq!(said, Outcome::New(Some(Reason::SessionNotFound)), "another peer learns nothing");
    }
}

#[test]
fn a_bound_session_whose_time_is_over_or_that_is_superseded_is_told() {
    let mut world = World::with_policy(|policy| {
        policy.set("transport_loss_ttl", "30s").unwrap();
        policy.set("session_ttl", "60s").unwrap();
    });
    let mut client = Client::new(2, origin(10));
    client.birth(&mut world);
    let mut sent = Vec::new();
    for _ in 0..6 {
        sent.extend(world.pass(secs(10)));
        client.ask(&mut world, origin(10), 0, Control::PathReport(Vec::new()));
    }
    let said = opened(&mut client, &sent);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].body, Control::Terminate { reason: Reason::TtlSessionExpired });

    let (mut world, mut old) = attached();
    let mut new = old.twin(50, origin(12));
    new.shake(&mut world, HandshakePurpose::Birth).unwrap();
    assert_eq!(new.confirm(&mut world), Some(Control::Done));
    let told = std::mem::take(&mut world.told);
    assert_eq!((told.len(), told[0].origin), (1, origin(10)));
    assert_eq!(old.open(&told[0]).body, Control::Terminate { reason: Reason::SessionSuperseded });
}

#[test]
fn an_end_that_cannot_be_committed_is_not_announced() {
    let (mut world, client) = attached();
    world.failing = 1;
    let session = client.session;
    assert_eq!(world.order(Order::Terminate { session, reason: Reason::OperatorTermination }), []);
    assert_eq!(world.state(session), Some(State::Attached));
    assert_eq!(world.pass(secs(1)).len(), 1, "the order stands, and is carried out");
    assert_eq!(world.state(session), None);
}
