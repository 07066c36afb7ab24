//! REKEY: new keys inside a running session.
//!
//! Owns claims about epochs. Must never look at a key.

use super::*;
use crate::ids::Epoch;
use crate::message::{Control, Purpose};

fn ops(world: &World) -> Vec<String> {
    let name = |op: &WorkerOp| match op {
        WorkerOp::Install { .. } => "install".into(),
        WorkerOp::Next { keys, .. } => format!("next {}", keys.epoch),
        WorkerOp::Wipe { epoch, .. } => format!("wipe {epoch}"),
        WorkerOp::WipeAll { .. } => "wipe all".into(),
        WorkerOp::PathMtu { mtu, .. } => format!("path mtu {mtu}"),
        WorkerOp::Free { .. } => "free".into(),
    };
    world.worker.iter().map(name).collect()
}

fn report(world: &mut World, client: &mut Client) {
    assert_eq!(client.ask(world, origin(10), 0, Control::PathReport(Vec::new())), Some(Control::Done));
}

/// A whole rekey, up to the first message under the new keys.
fn rekey(world: &mut World, client: &mut Client) {
    let noise = client.rekey1();
    let answer = client.ask(world, origin(10), 0, Control::Rekey(noise)).unwrap();
    client.rekeyed(&answer);
    report(world, client);
}

/// The request for a rekey, which nobody computed yet.
fn begin(world: &mut World, client: &mut Client) {
    let noise = client.rekey1();
    let mut bytes = client.seal(0, Control::Rekey(noise));
    world.engine.handle(world.now, WALL, Input::Datagram { origin: origin(10), bytes: &mut bytes });
}

#[test]
fn a_rekey_gives_the_worker_the_next_keys_and_wipes_the_previous_ones_ten_seconds_after_the_first_use() {
    let (mut world, mut client) = attached();
    let before = (world.version(client.session), world.maps.clone());
    let noise = client.rekey1();
    let answer = client.ask(&mut world, origin(10), 0, Control::Rekey(noise)).unwrap();
    assert_eq!(ops(&world), ["install", "next 1"]);
    let accepted = client.rekeyed(&answer);
    assert_eq!((accepted.epoch, accepted.session), (Epoch(1), client.session));
    report(&mut world, &mut client);
    world.pass(ms(9_999));
    assert_eq!(ops(&world), ["install", "next 1"]);
    world.pass(ms(1));
    assert_eq!(ops(&world), ["install", "next 1", "wipe 0"]);
    assert_eq!((world.version(client.session), world.maps.clone()), before, "the binding is not touched");
    let rotated = world.records.iter().filter(|record| record.event == Event::KeyRotated).count();
    assert_eq!(rotated, 1);
}

#[test]
fn a_repeated_rekey_gets_the_same_answer_and_a_second_one_has_to_wait() {
    let (mut world, mut client) = attached();
    let noise = client.rekey1();
    let bytes = client.seal(0, Control::Rekey(noise.clone()));
    let id = client.id;
    let sent = world.deliver(origin(10), &bytes);
    let first = client.open(&sent[0]).body;
    let again = client.sealed(0, id, Control::Rekey(noise));
    let sent = world.deliver(origin(10), &again);
    assert_eq!(client.open(&sent[0]).body, first);
    assert_eq!(ops(&world), ["install", "next 1"]);
    client.rekeyed(&first);
    report(&mut world, &mut client);
    let other = client.rekey1();
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Rekey(other)), None, "three epochs at once are enough");
    world.pass(secs(10));
    rekey(&mut world, &mut client);
    assert_eq!(ops(&world), ["install", "next 1", "wipe 0", "next 2"]);
}

#[test]
fn one_rekey_is_computed_at_a_time() {
    let (mut world, mut client) = attached();
    for _ in 0..3 {
        begin(&mut world, &mut client);
    }
    world.run();
    assert_eq!(ops(&world), ["install", "next 1"]);
    assert_eq!(world.drops(Drop::Busy), 2);
}

#[test]
fn a_rekey_that_is_computed_while_one_is_due_to_be_asked_for_holds_nobody_up_and_is_not_asked_for() {
    let (mut world, mut client) = attached();
    for _ in 0..12 {
        world.pass(secs(10));
        report(&mut world, &mut client);
    }
    begin(&mut world, &mut client);
    world.now = world.now + secs(10);
    world.engine.handle(world.now, WALL, Input::Wakeup);
    assert_eq!(world.engine.unacknowledged(), 0, "it is under way");
    world.run();
    assert_eq!(ops(&world), ["install", "next 1"]);
}

#[test]
fn a_client_that_gave_a_rekey_up_gets_another_one() {
    let (mut world, mut client) = attached();
    let noise = client.rekey1();
    client.ask(&mut world, origin(10), 0, Control::Rekey(noise)).unwrap();
    rekey(&mut world, &mut client);
    assert_eq!(ops(&world), ["install", "next 1", "wipe 1", "next 2"]);
    world.pass(secs(10));
    assert_eq!(ops(&world).last().unwrap(), "wipe 0");
    report(&mut world, &mut client);
}

#[test]
fn a_rekey_that_cannot_be_committed_is_not_answered_and_may_be_asked_again() {
    let (mut world, mut client) = attached();
    let noise = client.rekey1();
    world.failing = 1;
    let bytes = client.seal(0, Control::Rekey(noise.clone()));
    let id = client.id;
    assert_eq!(world.deliver(origin(10), &bytes), []);
    assert_eq!(ops(&world), ["install"]);
    let again = client.sealed(0, id, Control::Rekey(noise));
    let sent = world.deliver(origin(10), &again);
    let answer = client.open(&sent[0]).body;
    client.rekeyed(&answer);
    report(&mut world, &mut client);
}

#[test]
fn a_rekey_for_another_session_or_by_garbage_changes_nothing_and_blocks_nothing() {
    let (mut world, mut client) = attached();
    let before = (world.picture(), ops(&world));
    let real = std::mem::replace(&mut client.session, SessionId([8; 16]));
    let wrong = client.rekey1();
    client.session = real;
    for noise in [wrong, vec![0; 300], Vec::new()] {
        assert_eq!(client.ask(&mut world, origin(10), 0, Control::Rekey(noise)), None);
    }
    assert_eq!((world.picture(), ops(&world)), before);
    assert_eq!(world.drops(Drop::HandshakeForged), 3);
    rekey(&mut world, &mut client);
}

#[test]
fn keys_end_after_three_minutes_unless_the_next_ones_are_used() {
    let (mut world, mut client) = attached();
    for _ in 0..11 {
        world.pass(secs(10));
        report(&mut world, &mut client);
    }
    // Answered and never used: it prolongs nothing.
    let noise = client.rekey1();
    client.ask(&mut world, origin(10), 0, Control::Rekey(noise)).unwrap();
    for _ in 0..6 {
        world.pass(secs(10));
        report(&mut world, &mut client);
    }
    world.pass(secs(10));
    assert_eq!(world.state(client.session), Some(State::Recovering));
    assert_eq!(ops(&world).last().unwrap(), "wipe all");
    let reject = client.refused(&mut world, origin(10), 0, Purpose::Lost);
    assert_eq!(reject.reason, Reason::KeysStale);
    let noise = client.rekey1();
    let answer = client.ask(&mut world, origin(10), 0, Control::Rekey(noise));
    assert!(matches!(answer, Some(Control::Reject(reject)) if reject.reason == Reason::KeysStale), "{answer:?}");
}

#[test]
fn keys_in_use_carry_the_session_on_even_if_a_commit_was_under_way_when_they_came() {
    let (mut world, mut client) = attached();
    for _ in 0..12 {
        world.pass(secs(10));
        report(&mut world, &mut client);
    }
    let noise = client.rekey1();
    let answer = client.ask(&mut world, origin(10), 0, Control::Rekey(noise)).unwrap();
    let request = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    client.rekeyed(&answer);
    world.holding = true;
    client.ask(&mut world, origin(20), 1, Client::proof(request, &cookie));
    assert_eq!(world.finish().len(), 1);
    for _ in 0..10 {
        world.pass(secs(10));
        client.ask(&mut world, origin(20), 1, Control::PathReport(Vec::new()));
    }
    assert_eq!(world.state(client.session), Some(State::Attached));
}

#[test]
fn the_worker_may_be_the_first_to_see_the_next_epoch() {
    let (mut world, mut client) = attached();
    let noise = client.rekey1();
    client.ask(&mut world, origin(10), 0, Control::Rekey(noise)).unwrap();
    let slot = world.slot(client.session);
    let opened = Some(world.now);
    // An epoch nobody gave out is not believed.
    world.give(Input::Activity { slot, opened, unanswered: None, epoch: Epoch(9) });
    world.pass(secs(10));
    assert_eq!(ops(&world), ["install", "next 1"]);
    let opened = Some(world.now);
    world.give(Input::Activity { slot, opened, unanswered: None, epoch: Epoch(1) });
    world.pass(secs(10));
    assert_eq!(ops(&world), ["install", "next 1", "wipe 0"]);
}

fn wishes(client: &mut Client, sent: &[Datagram]) -> Vec<u64> {
    let opened = sent.iter().map(|datagram| client.open(datagram));
    opened.filter(|message| message.body == Control::RekeyWanted).map(|message| message.id).collect()
}

fn worn(world: &mut World, client: &Client, epoch: u32, spent: bool) -> Vec<Datagram> {
    let slot = world.slot(client.session);
    world.give(Input::Worn { slot, epoch: Epoch(epoch), spent })
}

#[test]
fn a_client_that_does_not_rekey_in_time_is_asked_to_even_while_idle() {
    let (mut world, mut client) = attached();
    let mut sent = Vec::new();
    for _ in 0..12 {
        sent.extend(world.pass(secs(10)));
        report(&mut world, &mut client);
    }
    assert_eq!(sent, [], "until then it is the client's business");
    let asked = world.pass(secs(10));
    let ids = wishes(&mut client, &asked);
    assert_eq!((ids.len(), asked.len()), (1, 1));
    rekey(&mut world, &mut client);
    let done = client.sealed(0, ids[0], Control::Done);
    world.deliver(origin(10), &done);
    for _ in 0..12 {
        assert_eq!(world.pass(secs(10)), [], "it has what it wanted");
        report(&mut world, &mut client);
    }
    assert_eq!(world.state(client.session), Some(State::Attached));
}

#[test]
fn a_client_that_rekeys_by_itself_is_never_asked() {
    let (mut world, mut client) = attached();
    for round in 1..40 {
        assert_eq!(world.pass(secs(10)), []);
        if round % 12 == 0 { rekey(&mut world, &mut client) } else { report(&mut world, &mut client) }
    }
}

#[test]
fn worn_keys_ask_for_a_rekey_once_in_ten_seconds_however_often_it_is_said() {
    let (mut world, mut client) = attached();
    let before = world.picture();
    let mut sent = Vec::new();
    for _ in 0..10_000 {
        sent.extend(worn(&mut world, &client, 0, false));
    }
    let ids = wishes(&mut client, &sent);
    assert_eq!(ids.len(), 1);
    assert_eq!(world.picture(), before);
    let done = client.sealed(0, ids[0], Control::Done);
    world.deliver(origin(10), &done);
    world.pass(secs(9));
    assert_eq!(worn(&mut world, &client, 0, false), []);
    world.pass(secs(1));
    assert_eq!(worn(&mut world, &client, 0, false).len(), 1, "it acknowledged and did nothing");
    // Of an epoch that is being replaced, or that nobody gave out, nothing is wanted.
    rekey(&mut world, &mut client);
    world.pass(secs(12));
    let quiet = world.engine.unacknowledged();
    worn(&mut world, &client, 0, false);
    worn(&mut world, &client, 9, true);
    assert_eq!((world.engine.unacknowledged(), world.state(client.session)), (quiet, Some(State::Attached)));
}

#[test]
fn spent_keys_are_dead_at_once_and_only_a_resume_helps() {
    let (mut world, mut client) = attached();
    worn(&mut world, &client, 0, true);
    world.pass(ms(0));
    assert_eq!(world.state(client.session), Some(State::Recovering));
    let last = world.records.last().unwrap();
    assert_eq!((last.reason, &last.details["reasons"]), (Some(Reason::RecoveryStart), &vec!["KEY_EXPIRED"].into()));
    assert_eq!(ops(&world).last().unwrap(), "wipe all");
    assert_eq!(crate::event::replay(last, &Policy::field()).map(|step| step.after.is_bound()), Ok(false));
    let version = world.version(client.session);
    worn(&mut world, &client, 0, true);
    assert_eq!(world.version(client.session), version);
    assert_eq!(client.refused(&mut world, origin(10), 0, Purpose::Lost).reason, Reason::KeysStale);
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!(world.state(client.session), Some(State::Attached));
}
