//! Requests through a relay: the engine believes it only where the client's packets came from.
//!
//! Owns claims about what a relay, also a hostile one, can do to a session. Streams and maps of relays are tested in
//! `relay/tests.rs`.

use super::*;
use crate::ids::RelayId;
use crate::message::{Control, Purpose, Request};

/// A client's address as a relay says it.
fn through(relay: u16, host: u8) -> Origin {
    let gateway = format!("203.0.113.{relay}:51821").parse().unwrap();
    Origin { hop: Hop::Relay(RelayId(relay)), gateway, ..origin(host) }
}

#[test]
fn a_request_through_a_relay_is_challenged_however_fresh_its_echo() {
    for (from, challenged) in [(origin(20), false), (through(1, 20), true)] {
        let (mut world, mut client) = attached();
        // Its address answered a challenge once.
        let mut ahead = client.request(Purpose::Validate);
        ahead.quoted_echo = 0;
        let Control::Ack(_) = client.go_with(&mut world, from, 1, ahead) else { panic!("not validated") };
        let request = Request { quoted_echo: world.now.0 - 1_000_000, ..client.request(Purpose::Lost) };
        let answer = client.ask(&mut world, from, 1, Client::asking(request)).unwrap();
        assert_eq!(matches!(answer, Control::Challenge { .. }), challenged, "{from:?}: {answer:?}");
    }
}

#[test]
fn the_same_address_through_a_relay_and_without_it_are_two_bindings() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, through(1, 10), 1, Purpose::Lost);
    let binding = world.maps.bound(client.session).unwrap();
    assert_eq!(binding, (origin(10).client, 1));
    let gateways = world.engine.gateways().to_vec();
    assert_eq!(gateways.len(), 2, "{gateways:?}");
    let slot = world.slot(client.session);
    let active = world.maps.holds(slot).active.unwrap();
    assert_eq!(gateways[usize::from(active.gateway)].0, Hop::Relay(RelayId(1)));
    client.moved(&mut world, through(2, 10), 2, Purpose::Lost);
    let active = world.maps.holds(slot).active.unwrap();
    assert_eq!(world.engine.gateways()[usize::from(active.gateway)].0, Hop::Relay(RelayId(2)));
}

#[test]
fn what_the_engine_says_by_itself_goes_through_the_relay_the_session_is_bound_through() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, through(1, 20), 1, Purpose::Lost);
    let said = world.order(Order::GoingAway);
    assert_eq!(said.iter().map(|said| said.origin).collect::<Vec<_>>(), [through(1, 20)]);
}

#[test]
fn a_relay_that_repeats_a_request_or_claims_another_address_moves_nothing() {
    let (mut world, mut client) = attached();
    let before = world.picture();
    let request = client.request(Purpose::Lost);
    let asking = client.seal(1, Client::asking(request));
    let challenge = client.open(&world.deliver(through(1, 20), &asking)[0]).body;
    assert_eq!(world.deliver(through(1, 66), &asking), [], "the same bytes with another address");
    assert_eq!(world.deliver(through(2, 20), &asking), [], "or through another relay");
    assert_eq!(world.drops(Drop::Replayed), 2);
    // The proof counts only where the challenge went: neither elsewhere nor without the relay.
    for from in [through(1, 66), through(2, 20), origin(20)] {
        let proof = client.seal(1, Client::proof(request, &challenge));
        let sent = world.deliver(from, &proof);
        let Control::Reject(reject) = client.open(&sent[0]).body else { panic!("{from:?}: not refused") };
        assert_eq!(reject.reason, Reason::PathUnvalidated);
    }
    assert_eq!(world.picture(), before);
}
