//! The door: mac1, cookies, load, timestamps.
//!
//! Owns claims about what costs nothing. Must never let a stranger cost a Diffie-Hellman.

use super::*;
use crate::message::handshake::HELLO_LEN;
use crate::message::{Control, HandshakePurpose};
use HandshakePurpose::Birth;

#[test]
fn a_wrong_mac1_meets_silence_and_costs_nothing() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    let good = client.message1(Birth, None);
    for at in [0, 1, 4, 40, good.len() - 17] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(world.deliver(origin(10), &bad), []);
    }
    assert_eq!(world.deliver(origin(10), &good[..good.len() - 1]), []);
    assert_eq!((world.commits, world.maps.slots()), (0, 0));
    assert_eq!(world.deliver(origin(10), &good).len(), 1);
}

#[test]
fn a_timestamp_that_is_not_above_the_last_one_is_asked_for_a_cookie_and_then_accepted() {
    let (mut world, mut client) = attached();
    client.timestamp -= 10;
    let noise = client.initiate(Birth, HELLO_LEN);
    let first = client.wrapped(&noise, None);
    let sent = world.deliver(origin(10), &first);
    let cookie = client.cookie(&sent);
    assert_eq!(world.maps.slots(), 1, "nothing is pending for it");
    // The reply may be lost: the same message 1 is asked again, at the price of a hash.
    assert_eq!(world.deliver(origin(10), &first).len(), 1);
    let again = client.wrapped(&noise, Some(&cookie));
    let sent = world.deliver(origin(10), &again);
    client.read2(&sent[0].bytes).unwrap();
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
}

#[test]
fn a_replayed_message_1_from_elsewhere_gets_nothing_but_a_cookie_it_cannot_use() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    let old = client.message1(Birth, None);
    let sent = world.deliver(origin(10), &old);
    client.read2(&sent[0].bytes).unwrap();
    client.confirm(&mut world);
    let before = world.picture();
    assert_eq!(world.deliver(origin(66), &old), []);
    assert_eq!(world.picture(), before);
    // After a restart of the gateway the ephemeral is forgotten, the timestamp too: a pending slot is all it buys.
    let mut fresh = World::new();
    assert_eq!(fresh.deliver(origin(66), &old).len(), 1);
    fresh.pass(secs(5));
    assert_eq!((fresh.maps.slots(), fresh.records.len()), (0, 0));
}

#[test]
fn a_cookie_of_another_address_is_worth_nothing() {
    let (mut world, mut client) = attached();
    client.timestamp -= 10;
    let noise = client.initiate(Birth, HELLO_LEN);
    let first = client.wrapped(&noise, None);
    let sent = world.deliver(origin(10), &first);
    let cookie = client.cookie(&sent);
    let stolen = client.wrapped(&noise, Some(&cookie));
    let before = world.picture();
    let sent = world.deliver(origin(66), &stolen);
    assert!(sent.iter().all(|datagram| datagram.bytes.len() == 64), "another cookie reply at most");
    assert_eq!(world.picture(), before);
}

#[test]
fn under_load_nothing_is_computed_without_a_cookie() {
    let mut world = World::with(|config| config.load_threshold = 2);
    let mut client = Client::new(2, origin(10));
    client.shake(&mut world, Birth).unwrap();
    client.shake(&mut world, Birth).unwrap();
    let first = client.message1(Birth, None);
    let sent = world.deliver(origin(10), &first);
    let cookie = client.cookie(&sent);
    assert_eq!(world.drops(Drop::CookieSent), 1);
    let first = client.message1(Birth, Some(&cookie));
    let sent = world.deliver(origin(10), &first);
    client.read2(&sent[0].bytes).unwrap();
    assert_eq!(client.confirm(&mut world), Some(Control::Done));
    world.pass(secs(1));
    client.shake(&mut world, Birth).unwrap();
}

#[test]
fn a_clock_that_is_years_ahead_locks_its_owner_out_of_nothing() {
    let mut world = World::new();
    let mut client = Client::new(2, origin(10));
    client.timestamp = WALL + 10 * 365 * 86_400 * 1_000_000_000;
    client.birth(&mut world);
    client.timestamp = WALL;
    client.birth(&mut world);
    assert_eq!(world.sessions(), [client.session]);
}

#[test]
fn strangers_are_not_remembered() {
    let mut world = World::new();
    for seed in 100..110 {
        let mut stranger = Client::new(seed, origin(seed));
        // Twice the same timestamp: for a known peer that would ask for a cookie.
        stranger.timestamp = WALL;
        assert_eq!(stranger.shake(&mut world, Birth), Err(Reason::UnknownPeer));
        stranger.timestamp = WALL;
        assert_eq!(stranger.shake(&mut world, Birth), Err(Reason::UnknownPeer));
    }
    assert_eq!(world.engine.wakeup(), None);
}

#[test]
fn what_is_computed_at_once_is_bounded() {
    let mut world = World::with(|config| config.load_threshold = 10_000);
    let mut client = Client::new(2, origin(10));
    let mut computing = 0;
    for _ in 0..300 {
        let mut first = client.message1(Birth, None);
        world.engine.handle(world.now, WALL, Input::Datagram { origin: origin(10), bytes: &mut first });
        while let Some(command) = world.engine.poll() {
            computing += usize::from(matches!(command, Command::Compute { .. }));
        }
    }
    assert_eq!(computing, 128, "from half of the bound on, a cookie is asked for");
}
