//! BIRTH: message 1, message 2, CONFIRM.
//!
//! Owns claims about unconfirmed handshakes. Must never assume a session where none was confirmed.

use super::*;
use crate::message::{Control, HandshakePurpose};
use HandshakePurpose::Birth;

#[test]
fn a_birth_ends_bound_recorded_stored_and_acknowledged() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    assert_eq!((world.maps.slots(), world.maps.pending()), (1, 1));
    assert!(world.records.is_empty() && world.store.is_empty() && world.sessions().is_empty());
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    let id = client.session;
    assert_eq!((world.state(id), world.version(id)), (Some(State::Attached), 1));
    assert_eq!(world.maps.bound(id), Some((origin(10).client, 0)));
    assert_eq!(world.maps.pending(), 0);
    let events: Vec<_> = world.records.iter().map(|record| (record.event, record.reason)).collect();
    let ok = Some(Reason::HandshakeOk);
    assert_eq!(events, [(Event::SessionCreated, ok), (Event::StateChange, ok)]);
    assert!(world.store[&id].ceiling >= Version(1_024));
    let accepted = client.accepted.as_ref().unwrap();
    assert_eq!((accepted.locators.len(), accepted.mtu, accepted.incarnation), (6, 1_412, Incarnation(7)));
    let [WorkerOp::Install { session, prefixes, .. }] = &world.worker[..] else { panic!("{:?}", world.worker) };
    assert_eq!((*session, prefixes.len()), (id, 1));
}

#[test]
fn the_same_message_1_gets_the_same_message_2_and_only_at_its_own_address() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    let first = client.message1(Birth, None);
    let sent = world.deliver(origin(10), &first);
    let before = world.picture();
    assert_eq!(world.deliver(origin(10), &first), sent);
    assert_eq!(world.deliver(origin(11), &first), []);
    assert_eq!(world.picture(), before);
    assert_eq!(world.drops(Drop::HandshakeRepeated), 1);
}

#[test]
fn a_message_2_never_leaves_before_its_keys_are_installed() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    world.holding = true;
    let first = client.message1(Birth, None);
    assert_eq!(world.deliver(origin(10), &first), []);
    assert_eq!(world.deliver(origin(10), &first), []);
    assert_eq!(world.finish().len(), 1);
}

#[test]
fn a_confirm_from_another_address_than_message_2_went_to_binds_nothing() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    let before = world.picture();
    let confirm = client.confirmation();
    assert_eq!(client.ask(&mut world, origin(11), 0, confirm), None);
    assert_eq!(world.picture(), before);
    assert_eq!(world.drops(Drop::Unconfirmed), 1);
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
}

#[test]
fn nothing_but_confirm_passes_a_pending_slot() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    let before = world.picture();
    let request = client.request(crate::message::Purpose::Lost);
    for body in [Control::Close, Control::PathReport(Vec::new()), Client::asking(request), Control::Rekey(vec![1])] {
        assert_eq!(client.ask(&mut world, origin(10), 0, body), None);
    }
    assert_eq!(world.picture(), before);
    assert_eq!(world.drops(Drop::Unconfirmed), 4);
}

#[test]
fn an_unconfirmed_handshake_expires_and_leaves_nothing() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    assert_eq!(world.pass(ms(4_999)), []);
    assert_eq!(world.maps.slots(), 1);
    world.pass(ms(1));
    assert_eq!((world.maps.slots(), world.maps.locators.len(), world.engine.view().pending), (0, 0, 0));
    assert!(world.records.is_empty() && world.store.is_empty());
    assert_eq!(client.confirm(&mut world), None);
    assert_eq!(world.engine.wakeup(), None);
}

#[test]
fn a_confirm_that_comes_again_is_acknowledged_again_and_changes_nothing() {
    let (mut world, mut client) = attached();
    let before = (world.picture(), world.records.len());
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    assert_eq!((world.picture(), world.records.len()), before);
}

#[test]
fn a_peer_has_at_most_two_pending_and_an_older_one_never_displaces_a_newer() {
    let mut world = World::new();
    let mut clients: Vec<Client> = (20..24).map(|seed| Client::new(2, origin(10)).twin(seed, origin(seed))).collect();
    for (client, timestamp) in clients.iter_mut().zip([10, 20, 30, 15]) {
        client.timestamp = WALL + timestamp;
    }
    for client in &mut clients[..3] {
        client.shake(&mut world, Birth).unwrap();
        assert!(world.engine.view().pending <= 2);
    }
    assert_eq!(world.maps.pending(), 2, "the first one gave way");
    // An older timestamp has to show a cookie first, and is then still the oldest.
    let fourth = &mut clients[3];
    let noise = fourth.initiate(Birth, crate::message::handshake::HELLO_LEN);
    let first = fourth.wrapped(&noise, None);
    let sent = world.deliver(origin(23), &first);
    let cookie = fourth.cookie(&sent);
    let first = fourth.wrapped(&noise, Some(&cookie));
    assert_eq!(world.deliver(origin(23), &first), []);
    assert_eq!(world.drops(Drop::HandshakeOlder), 1);
    for client in &mut clients[1..3] {
        assert!(client.confirm(&mut world).is_some(), "both newer ones are still there");
    }
}

#[test]
fn two_handshakes_computed_at_once_still_leave_two_pending() {
    let mut world = World::new();
    let mut jobs = Vec::new();
    for seed in 20..25 {
        let mut client = Client::new(2, origin(10)).twin(seed, origin(seed));
        client.timestamp = WALL + u64::from(seed);
        let mut first = client.message1(Birth, None);
        let input = Input::Datagram { origin: origin(seed), bytes: &mut first };
        world.engine.handle(world.now, WALL, input);
    }
    for _ in 0..2 {
        while let Some(command) = world.engine.poll() {
            let Command::Compute { op, job } = command else { panic!("{command:?}") };
            jobs.push((op, job.run(&mut world.entropy)));
        }
        for (op, result) in jobs.drain(..) {
            world.engine.handle(world.now, WALL, Input::Computed { op, result });
        }
    }
    world.run();
    assert_eq!((world.engine.view().pending, world.maps.pending()), (2, 2));
}

#[test]
fn unknown_peer_no_suite_capacity_and_storage_are_refused_with_their_reasons() {
    let mut world = World::with(|config| config.max_sessions = 1);
    let mut stranger = Client::new(9, origin(30));
    assert_eq!(stranger.shake(&mut world, Birth), Err(Reason::UnknownPeer));
    let mut client = Client::new(2, origin(10));
    client.suites = vec![1, 77];
    assert_eq!(client.shake(&mut world, Birth), Err(Reason::NoCommonSuite));
    client.suites = vec![2];
    world.order(Order::Storage { available: false });
    assert_eq!(client.shake(&mut world, Birth), Err(Reason::StorageUnavailable));
    world.order(Order::Storage { available: true });
    assert!(world.maps.slots() == 0 && world.sessions().is_empty());
    client.birth(&mut world);
    let mut other = Client::new(3, origin(11));
    assert_eq!(other.shake(&mut world, Birth), Err(Reason::CapacityReached));
    assert_eq!(world.sessions(), [client.session]);
}

#[test]
fn a_transport_class_that_policy_forbids_is_refused_at_confirm_and_leaves_nothing() {
    let mut world = World::with_policy(|policy| policy.set("allowed_transports", "secondary").unwrap());
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    let Some(Control::Reject(reject)) = client.confirm(&mut world) else { panic!("not refused") };
    assert_eq!(reject.reason, Reason::PolicyDeny);
    assert_eq!((world.maps.slots(), world.records.len()), (0, 0));
}

#[test]
fn a_new_session_of_a_peer_ends_its_old_one_in_the_same_commit() {
    let (mut world, old) = attached();
    let mut new = old.twin(50, origin(12));
    new.shake(&mut world, Birth).unwrap();
    assert_eq!(world.sessions(), [old.session], "message 2 disturbs nothing");
    let commits = world.commits;
    assert_eq!(new.confirm(&mut world), Some(Control::Done));
    assert_eq!(world.commits, commits + 1);
    assert_eq!(world.sessions(), [new.session]);
    assert_eq!(world.recorded(Reason::SessionSuperseded), 2, "the transition and the end");
    assert_eq!((world.maps.slots(), world.maps.bound(old.session)), (1, None));
}

#[test]
fn two_confirms_of_one_peer_under_way_never_leave_two_sessions() {
    let mut world = World::new();
    let mut one = Client::new(2, origin(10));
    let mut two = one.twin(50, origin(11));
    one.shake(&mut world, Birth).unwrap();
    two.timestamp += 5;
    two.shake(&mut world, Birth).unwrap();
    world.holding = true;
    assert_eq!(one.confirm(&mut world), None);
    assert_eq!(two.confirm(&mut world), None);
    assert_eq!(world.drops(Drop::Busy), 1);
    world.finish();
    assert_eq!(world.sessions(), [one.session]);
    assert_eq!(two.confirm(&mut world), Some(Control::Done), "asked again, it is its turn");
    assert_eq!(world.sessions(), [two.session]);
}

#[test]
fn a_confirm_under_way_is_neither_timed_out_nor_displaced_nor_refused() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    world.holding = true;
    assert_eq!(client.confirm(&mut world), None);
    for seed in 50..53 {
        let mut twin = client.twin(seed, origin(seed));
        twin.timestamp += u64::from(seed);
        let first = twin.message1(Birth, None);
        world.deliver(origin(seed), &first);
    }
    world.pass(secs(6));
    world.finish();
    assert_eq!(world.sessions(), [client.session]);
    assert_eq!(world.maps.bound(client.session), Some((origin(10).client, 0)));
}

#[test]
fn two_devices_with_one_key_are_slowed_down_and_named() {
    let (mut world, one) = attached();
    let mut refused = 0;
    for round in 0..14 {
        let mut twin = one.twin(60 + round, origin(60 + round));
        twin.timestamp += 100 + u64::from(round);
        twin.shake(&mut world, Birth).unwrap();
        refused += usize::from(twin.confirm(&mut world) != Some(Control::Done));
    }
    assert_eq!((refused, world.recorded(Reason::SecDuplicateIdentity)), (2, 1));
    assert_eq!(world.sessions().len(), 1);
}
