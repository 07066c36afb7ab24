//! Garbage, forgeries, replays.
//!
//! Owns claims about what changes nothing. Must never be satisfied with "it did not panic".

use super::*;
use crate::crypto::Entropy;
use crate::message::{Control, HandshakePurpose, Purpose};

#[test]
fn a_replayed_control_message_is_counted_every_time_and_recorded_every_ten_seconds() {
    let (mut world, mut client) = attached();
    let report = client.seal(0, Control::PathReport(Vec::new()));
    assert_eq!(world.deliver(origin(10), &report).len(), 1);
    let before = world.picture();
    for _ in 0..25 {
        assert_eq!(world.deliver(origin(66), &report), []);
    }
    assert_eq!((world.drops(Drop::Replayed), world.recorded(Reason::SecReplayAttempt)), (25, 1));
    assert_eq!(world.picture(), before);
    world.pass(secs(10));
    world.deliver(origin(66), &report);
    assert_eq!(world.recorded(Reason::SecReplayAttempt), 2);
}

#[test]
fn every_flipped_byte_and_every_truncation_of_a_control_message_changes_nothing() {
    let (mut world, mut client) = attached();
    let request = client.request(Purpose::Validate);
    let good = client.seal(1, Client::asking(request));
    let before = (world.picture(), world.records.len());
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            assert_eq!(world.deliver(origin(10), &bad), [], "byte {at}");
        }
        assert_eq!(world.deliver(origin(10), &good[..at]), [], "cut to {at}");
    }
    assert_eq!((world.picture(), world.records.len()), before);
    assert!(world.drops(Drop::ForgedTag) > 0 && world.drops(Drop::UnknownLocator) > 0);
    assert!(world.drops(Drop::ControlHeader) > 0 && world.drops(Drop::Forged) > 0);
    assert_eq!(world.deliver(origin(10), &good).len(), 1, "none of it touched the replay window");
}

#[test]
fn garbage_of_every_type_and_length_is_dropped() {
    let (mut world, client) = attached();
    let before = (world.picture(), world.records.len(), world.commits);
    let mut noise = Fixed::new(5);
    let locators: Vec<u64> = client.locators.values().map(|locator| locator.0).collect();
    for kind in 0..=255_u8 {
        for len in [0, 1, 8, 23, 24, 25, 40, 72, 100, 200, 1_199, 1_200, 1_201, 1_500] {
            let mut bytes = vec![0; len];
            noise.fill(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Some(locator) = bytes.get_mut(8..16) {
                locator.copy_from_slice(&locators[usize::from(kind) % locators.len()].to_le_bytes());
            }
            assert_eq!(world.deliver(origin(66), &bytes), []);
        }
    }
    assert_eq!((world.picture(), world.records.len(), world.commits), before);
}

#[test]
fn what_only_a_gateway_may_say_is_refused_from_a_client() {
    let (mut world, mut client) = attached();
    let before = world.picture();
    let reason = Reason::OperatorTermination;
    let bodies = [
        Control::GoingAway,
        Control::Terminate { reason },
        Control::RekeyWanted,
        Control::PolicyUpdate(vec![1, 2]),
        Control::JumpRequest { label: crate::message::Label::new("x") },
        Control::Challenge { nonce: 1, cookie: [0; 16], cookie_time: 0 },
        Control::Done,
    ];
    for body in bodies {
        assert_eq!(client.ask(&mut world, origin(10), 0, body), None);
    }
    assert_eq!((world.picture(), world.drops(Drop::ControlFormat)), (before, 6));
}

#[test]
fn a_locator_of_another_session_opens_nothing() {
    let (mut world, mut client) = attached();
    let mut other = Client::new(3, origin(30));
    other.birth(&mut world);
    let before = world.picture();
    let mut bytes = client.seal(0, Control::Close);
    let stolen = other.locators[&crate::ids::TransportIndex(0)];
    bytes[8..16].copy_from_slice(&stolen.0.to_le_bytes());
    assert_eq!(world.deliver(origin(10), &bytes), []);
    assert_eq!((world.picture(), world.sessions().len()), (before, 2));
}

#[test]
fn every_cut_or_flipped_message_1_leaves_nothing() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    let good = client.message1(HandshakePurpose::Birth, None);
    // mac1 is not secret: a flipped message with a right mac1 still does not open.
    let macs = crate::crypto::cookie::MacKeys::new(&client.gateway);
    for at in (8..good.len() - 32).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        macs.fill(&mut bad, None);
        assert_eq!(world.deliver(origin(10), &bad), [], "byte {at}");
    }
    assert_eq!((world.maps.slots(), world.commits, world.records.len()), (0, 0, 0));
    assert!(world.drops(Drop::HandshakeForged) > 0);
    assert_eq!(world.engine.wakeup(), None);
}

#[test]
fn slots_and_generations_outlast_many_lives() {
    let mut world = World::with(|config| config.max_sessions = 3);
    for round in 0..30_u8 {
        let mut client = Client::new(2 + round % 2, origin(round)).twin(60 + round, origin(round));
        client.timestamp += u64::from(round) * 100;
        client.birth(&mut world);
        if round % 3 == 0 {
            client.ask(&mut world, origin(round), 0, Control::Close).unwrap();
        }
        world.pass(secs(20));
        assert!(world.maps.slots() <= 3);
    }
}
