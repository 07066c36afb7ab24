//! What happens by itself, and what people order.
//!
//! Owns claims about time. Must never wait: time is a number here.

use super::*;
use crate::ids::Epoch;
use crate::message::control::PathQuality;
use crate::message::{Control, Label, Purpose};

fn report(world: &mut World, client: &mut Client, loss: u16) {
    let path =
        PathQuality { loss_permille: loss, srtt_us: 20_000, jitter_us: 100, delivered: true, ..PathQuality::default() };
    assert_eq!(client.ask(world, origin(10), 0, Control::PathReport(vec![path])), Some(Control::Done));
}

#[test]
fn a_session_ends_with_its_ttl_and_leaves_nothing() {
    let mut world = World::with_policy(|policy| policy.set("session_ttl", "2h").unwrap());
    let mut client = Client::new(2, origin(10));
    client.birth(&mut world);
    for _ in 0..60 {
        world.pass(secs(115));
        let purpose = client.resume();
        client.shake(&mut world, purpose).unwrap();
        client.confirm(&mut world);
    }
    assert_eq!(world.sessions(), [client.session]);
    world.pass(secs(300));
    assert_eq!((world.sessions().len(), world.maps.slots(), world.maps.locators.len()), (0, 0, 0));
    assert_eq!(world.recorded(Reason::TtlSessionExpired), 2);
    assert_eq!(world.engine.wakeup(), None, "nothing is left that could wake");
}

#[test]
fn a_session_without_a_transport_ends_with_the_loss_ttl() {
    let (mut world, client) = attached();
    world.pass(secs(16));
    assert_eq!(world.state(client.session), Some(State::Recovering));
    assert_eq!(world.maps.bound(client.session), None);
    world.pass(secs(31));
    assert_eq!(world.state(client.session), Some(State::Degraded));
    world.pass(secs(14 * 60));
    assert_eq!(world.sessions(), [client.session]);
    world.pass(secs(60));
    assert_eq!((world.sessions().len(), world.recorded(Reason::TtlTransportLossExpired)), (0, 2));
    assert_eq!((world.maps.slots(), world.store.len(), world.engine.wakeup()), (0, 0, None));
}

#[test]
fn silence_is_a_loss_after_five_seconds_when_something_waits_and_after_fifteen_when_idle() {
    let (mut world, client) = attached();
    world.pass(ms(14_999));
    assert_eq!(world.state(client.session), Some(State::Attached));
    world.pass(ms(1));
    assert_eq!(world.state(client.session), Some(State::Recovering));

    let (mut world, client) = attached();
    let slot = world.slot(client.session);
    world.pass(secs(1));
    let unanswered = Some(world.now);
    world.give(Input::Activity { slot, opened: None, unanswered, epoch: Epoch(0) });
    world.pass(ms(4_999));
    assert_eq!(world.state(client.session), Some(State::Attached));
    let opened = Some(world.now);
    world.give(Input::Activity { slot, opened, unanswered, epoch: Epoch(0) });
    world.pass(secs(6));
    assert_eq!(world.state(client.session), Some(State::Attached), "it answered");
    let unanswered = Some(world.now);
    world.give(Input::Activity { slot, opened: None, unanswered, epoch: Epoch(0) });
    world.pass(secs(5));
    assert_eq!(world.state(client.session), Some(State::Recovering));
    assert_eq!(world.records.last().unwrap().reason, Some(Reason::RecoveryStart));
}

#[test]
fn what_comes_from_another_transport_proves_nothing_of_the_active_one() {
    let (mut world, mut client) = attached();
    for _ in 0..8 {
        world.pass(secs(2));
        client.moved(&mut world, origin(20), 1, Purpose::Validate);
    }
    assert_eq!(world.state(client.session), Some(State::Recovering));
}

#[test]
fn reports_from_the_active_transport_keep_an_idle_session_bound() {
    let (mut world, mut client) = attached();
    for _ in 0..12 {
        world.pass(secs(14));
        report(&mut world, &mut client, 0);
    }
    assert_eq!((world.state(client.session), world.version(client.session)), (Some(State::Attached), 1));
}

#[test]
fn bad_reports_make_it_volatile_and_good_ones_attached_again() {
    let (mut world, mut client) = attached();
    report(&mut world, &mut client, 300);
    assert_eq!(world.state(client.session), Some(State::Attached), "one spike moves nothing");
    world.pass(ms(100));
    report(&mut world, &mut client, 300);
    assert_eq!(world.state(client.session), Some(State::Volatile));
    assert_eq!(world.recorded(Reason::QualityFloorViolation), 1);
    assert_eq!(world.maps.bound(client.session), Some((origin(10).client, 0)), "the gateway moves nothing");
    for _ in 0..5 {
        world.pass(secs(1));
        report(&mut world, &mut client, 0);
    }
    assert_eq!((world.state(client.session), world.version(client.session)), (Some(State::Attached), 3));
}

#[test]
fn close_ends_the_session_and_is_acknowledged_after_it_was_recorded() {
    let (mut world, mut client) = attached();
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Close), Some(Control::Done));
    assert_eq!((world.sessions().len(), world.maps.slots(), world.store.len()), (0, 0, 0));
    assert_eq!(world.recorded(Reason::ClientTermination), 2);
    assert!(matches!(world.worker.last(), Some(WorkerOp::Free { .. })));
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Close), None);
}

#[test]
fn an_operator_ends_a_session_and_its_client_is_told() {
    for reason in [Reason::OperatorTermination, Reason::PolicyTermination, Reason::SecKeyCompromiseSuspected] {
        let (mut world, mut client) = attached();
        let sent = world.order(Order::Terminate { session: client.session, reason });
        assert_eq!(sent.len(), 1);
        assert_eq!(client.open(&sent[0]).body, Control::Terminate { reason });
        assert_eq!((world.sessions().len(), world.recorded(reason)), (0, 2));
    }
}

#[test]
fn jump_and_going_away_reach_the_active_transport_only() {
    let (mut world, mut client) = attached();
    let mut other = Client::new(3, origin(30));
    other.birth(&mut world);
    // A resume nobody confirmed must not be told anything.
    let mut twin = client.twin(50, origin(11));
    twin.shake(&mut world, client.resume()).unwrap();
    let label = Label::new("lte");
    let sent = world.order(Order::Jump { session: client.session, label });
    assert_eq!((sent.len(), sent[0].origin), (1, origin(10)));
    assert_eq!(client.open(&sent[0]).body, Control::JumpRequest { label });
    let sent = world.order(Order::GoingAway);
    let mut to: Vec<_> = sent.iter().map(|datagram| datagram.origin).collect();
    to.sort_unstable();
    assert_eq!(to, [origin(10), origin(30)]);
}

#[test]
fn orders_about_sessions_nobody_knows_do_nothing() {
    let (mut world, _) = attached();
    let before = (world.picture(), world.records.len());
    let session = SessionId([5; 16]);
    assert_eq!(world.order(Order::Terminate { session, reason: Reason::OperatorTermination }), []);
    assert_eq!(world.order(Order::Jump { session, label: Label::new("x") }), []);
    let slot = Slot(400);
    assert_eq!(world.give(Input::Activity { slot, opened: None, unanswered: None, epoch: Epoch(3) }), []);
    assert_eq!(world.give(Input::Committed { op: OpId(9_999), done: true }), []);
    assert_eq!(world.give(Input::Committed { op: OpId(9_999), done: false }), []);
    assert_eq!((world.picture(), world.records.len()), before);
    assert_eq!(world.drops(Drop::UnknownOutcome), 2);
}

#[test]
fn an_unbound_session_is_ended_without_a_word_and_bound_again_by_a_request() {
    let (mut world, mut client) = attached();
    world.pass(secs(16));
    let ack = client.moved(&mut world, origin(20), 1, Purpose::BetterQuality);
    assert_eq!((ack.version, ack.state), (Version(3), State::Attached.number()));
    world.pass(secs(16));
    let session = client.session;
    assert_eq!(world.order(Order::Terminate { session, reason: Reason::OperatorTermination }), []);
    assert!(world.sessions().is_empty());
}
