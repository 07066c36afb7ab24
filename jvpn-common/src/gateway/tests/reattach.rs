//! REATTACH, VALIDATE, PROVE: who may move a session, and where to.
//!
//! Owns claims about the binding. Must never count an answer as a move: the maps say where it is bound.

use super::*;
use crate::message::{Control, Purpose, Request};

/// Gateway time of an echo just now.
fn echo(world: &World) -> u64 {
    world.now.0 - 1_000_000
}

fn challenge(world: &mut World, client: &mut Client, from: Origin, request: Request) -> Control {
    let answer = client.ask(world, from, 1, Client::asking(request)).unwrap();
    assert!(matches!(answer, Control::Challenge { .. }), "{answer:?}");
    answer
}

#[test]
fn an_unknown_address_is_challenged_and_nothing_is_kept_of_it() {
    let (mut world, mut client) = attached();
    let before = (world.picture(), world.records.len(), world.commits);
    let request = client.request(Purpose::Lost);
    challenge(&mut world, &mut client, origin(20), request);
    assert_eq!((world.picture(), world.records.len(), world.commits), before);
}

#[test]
fn a_proven_better_moves_the_session_once_and_the_old_binding_drains() {
    let (mut world, mut client) = attached();
    world.pass(secs(2));
    let (records, commits) = (world.records.len(), world.commits);
    let request = client.request(Purpose::BetterQuality);
    let challenge = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    world.pass(ms(35));
    let proof = Client::proof(request, &challenge);
    let Some(Control::Ack(ack)) = client.ask(&mut world, origin(20), 1, proof) else { panic!("no ACK") };
    assert_eq!((ack.version, ack.state), (Version(2), State::Attached.number()));
    assert_eq!(world.maps.bound(client.session), Some((origin(20).client, 1)));
    assert_eq!(world.maps.draining(world.slot(client.session)), Some(origin(10).client));
    assert_eq!((world.records.len(), world.commits), (records + 1, commits + 1));
    let record = world.records.last().unwrap();
    assert_eq!((record.event, record.reason), (Event::TransportSwitch, Some(Reason::TransportSwitchOk)));
    assert_eq!((&record.details["detect_us"], &record.details["prove_us"]), (&30_000.into(), &35_000.into()));
    assert_eq!(record.transport.to.as_ref().unwrap().class, crate::session::TransportClass::Secondary);
}

#[test]
fn lost_is_two_transitions_in_one_commit_and_meets_no_cooldown() {
    let (mut world, mut client) = attached();
    for round in 0..3 {
        let (records, commits, version) = (world.records.len(), world.commits, world.version(client.session));
        let ack = client.moved(&mut world, origin(20 + round), 1 + u16::from(round), Purpose::Lost);
        assert_eq!(ack.version, Version(version + 2));
        assert_eq!((world.records.len(), world.commits), (records + 2, commits + 1));
        assert_eq!(world.records[records].to, Some(State::Recovering));
        assert_eq!(world.records[records + 1].event, Event::TransportSwitch);
    }
    assert_eq!(world.state(client.session), Some(State::Attached));
}

#[test]
fn a_rebind_keeps_its_locator_and_moves_its_address() {
    let (mut world, mut client) = attached();
    let ack = client.moved(&mut world, origin(30), 0, Purpose::Rebind);
    assert_eq!(ack.version, Version(2));
    assert_eq!(world.maps.bound(client.session), Some((origin(30).client, 0)));
    let details = &world.records.last().unwrap().details["reasons"];
    assert!(details.to_string().contains("SOURCE_CHANGED"), "{details}");
}

#[test]
fn a_copied_request_or_proof_from_another_source_moves_nothing() {
    let (mut world, mut client) = attached();
    let request = client.request(Purpose::Lost);
    let asking = client.seal(1, Client::asking(request));
    // The copy is faster than the original: it is challenged, the original is the replay.
    let stolen = world.deliver(origin(66), &asking);
    let theirs = client.open(&stolen[0]).body;
    assert_eq!(world.deliver(origin(20), &asking), []);
    assert_eq!(world.drops(Drop::Replayed), 1);
    // A cookie is worth something only from where it was sent.
    let proof = client.seal(1, Client::proof(request, &theirs));
    let sent = world.deliver(origin(67), &proof);
    let Control::Reject(reject) = client.open(&sent[0]).body else { panic!("not refused") };
    assert_eq!((reject.reason, reject.version, reject.bound.unwrap().0), (Reason::PathUnvalidated, Version(1), 0));
    let ours = challenge(&mut world, &mut client, origin(20), request);
    let proof = client.seal(1, Client::proof(request, &ours));
    assert_eq!(world.deliver(origin(66), &proof).len(), 1);
    assert_eq!(world.deliver(origin(20), &proof), []);
    assert_eq!(world.maps.bound(client.session), Some((origin(10).client, 0)));
    assert_eq!(world.version(client.session), 1);
}

#[test]
fn a_request_released_after_a_newer_one_was_accepted_is_refused_as_old() {
    let (mut world, mut client) = attached();
    let old = client.request(Purpose::Lost);
    let cookie = challenge(&mut world, &mut client, origin(20), old);
    let proof = client.seal(1, Client::proof(old, &cookie));
    let asking = client.seal(1, Client::asking(old));
    client.moved(&mut world, origin(21), 2, Purpose::Lost);
    let before = world.picture();
    for kept in [proof, asking] {
        let sent = world.deliver(origin(20), &kept);
        let Control::Reject(reject) = client.open(&sent[0]).body else { panic!("not refused") };
        assert_eq!((reject.reason, reject.version), (Reason::FreshnessInvalid, Version(3)));
    }
    assert_eq!(world.picture(), before);
    assert_eq!(world.maps.bound(client.session), Some((origin(21).client, 2)));
}

#[test]
fn the_same_nonce_from_the_same_address_is_answered_again_and_from_another_is_old() {
    let (mut world, mut client) = attached();
    let request = client.request(Purpose::Lost);
    let Control::Ack(first) = client.go_with(&mut world, origin(20), 1, request) else { panic!("refused") };
    let (before, recorded) = ((world.picture(), world.commits), world.records.len());
    let Some(Control::Ack(again)) = client.ask(&mut world, origin(20), 1, Client::asking(request)) else { panic!() };
    assert_eq!((again.version, again.state, again.nonce), (first.version, first.state, first.nonce));
    let Some(Control::Reject(reject)) = client.ask(&mut world, origin(21), 1, Client::asking(request)) else {
        panic!()
    };
    assert_eq!(reject.reason, Reason::FreshnessInvalid);
    assert_eq!((world.picture(), world.commits), before);
    let said: Vec<Event> = world.records[recorded..].iter().map(|record| record.event).collect();
    assert_eq!(said, [Event::ReattachReject]);
}

#[test]
fn a_version_the_gateway_never_gave_is_refused_as_future() {
    let (mut world, mut client) = attached();
    client.version = Version(9);
    let before = world.picture();
    assert_eq!(client.refused(&mut world, origin(20), 1, Purpose::Lost).reason, Reason::VersionFuture);
    assert_eq!(world.picture(), before);
}

#[test]
fn validate_moves_nothing_and_saves_the_jump_a_round_trip() {
    let (mut world, mut client) = attached();
    let ack = client.moved(&mut world, origin(20), 1, Purpose::Validate);
    assert_eq!((ack.version, ack.purpose), (Version(1), Purpose::Validate));
    assert_eq!(world.maps.bound(client.session), Some((origin(10).client, 0)));
    assert_eq!(world.records.len(), 2, "only the birth is on the record");
    client.quoted = echo(&world);
    let request = client.request(Purpose::Lost);
    let answer = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    assert!(matches!(answer, Control::Ack(_)), "one round trip: {answer:?}");
    assert_eq!(world.maps.bound(client.session), Some((origin(20).client, 1)));
}

#[test]
fn validate_is_answered_whatever_its_nonce() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, origin(20), 1, Purpose::Lost);
    let before = (world.picture(), world.commits);
    for nonce in [0, client.nonce - 1, client.nonce] {
        let request = Request { nonce, ..client.request(Purpose::Validate) };
        let answer = client.ask(&mut world, origin(30), 2, Client::asking(request)).unwrap();
        assert!(matches!(answer, Control::Challenge { .. }), "{nonce}: {answer:?}");
    }
    assert_eq!((world.picture(), world.commits), before);
}

#[test]
fn an_old_missing_or_future_echo_is_challenged_even_where_the_address_is_known() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, origin(20), 1, Purpose::Validate);
    world.pass(ms(100));
    for quoted in [0, world.now.0 - 15_000_000_001, world.now.0 + 1, u64::MAX] {
        client.quoted = quoted;
        let request = client.request(Purpose::Lost);
        challenge(&mut world, &mut client, origin(20), request);
    }
    // A fresh echo proves nothing of an address that never answered.
    client.quoted = echo(&world);
    let request = client.request(Purpose::Lost);
    challenge(&mut world, &mut client, origin(21), request);
    assert_eq!(world.version(client.session), 1);
}

#[test]
fn a_message_that_says_validate_and_means_a_move_is_malformed() {
    let (mut world, mut client) = attached();
    let before = world.picture();
    let request = client.request(Purpose::Lost);
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Validate(request)), None);
    let request = client.request(Purpose::Validate);
    assert_eq!(client.ask(&mut world, origin(10), 0, Control::Reattach(request)), None);
    assert_eq!((world.picture(), world.drops(Drop::ControlFormat)), (before, 2));
}

#[test]
fn a_cookie_dies_after_five_seconds_and_serves_one_purpose() {
    let (mut world, mut client) = attached();
    let request = client.request(Purpose::Validate);
    let cookie = challenge(&mut world, &mut client, origin(20), request);
    let other = Request { purpose: Purpose::Lost, ..request };
    let answer = client.ask(&mut world, origin(20), 1, Client::proof(other, &cookie)).unwrap();
    assert!(matches!(answer, Control::Reject(reject) if reject.reason == Reason::PathUnvalidated));
    world.pass(ms(5_001));
    let answer = client.ask(&mut world, origin(20), 1, Client::proof(request, &cookie)).unwrap();
    assert!(matches!(answer, Control::Reject(reject) if reject.reason == Reason::PathUnvalidated));
    assert_eq!((world.version(client.session), world.drops(Drop::Cookie)), (1, 2));
}

#[test]
fn better_meets_improvement_cooldown_and_rate_and_lost_does_not() {
    let (mut world, mut client) = attached();
    let mut request = client.request(Purpose::BetterQuality);
    request.evidence.improvement_permille = 10;
    let Control::Reject(reject) = client.go_with(&mut world, origin(20), 1, request) else { panic!("moved") };
    assert_eq!((reject.reason, reject.detail), (Reason::TransportSwitchDenied, Some(Reason::ImprovementTooSmall)));
    client.moved(&mut world, origin(20), 1, Purpose::BetterQuality);
    let reject = client.refused(&mut world, origin(21), 2, Purpose::BetterQuality);
    assert_eq!(reject.detail, Some(Reason::CooldownActive));
    assert!(reject.retry_after_ms > 0 && reject.bound.unwrap().0 == 1);
    for round in 0..11 {
        let (from, k) = if round % 2 == 0 { (origin(10), 0) } else { (origin(20), 1) };
        client.moved(&mut world, from, k, Purpose::BetterOperator);
    }
    let reject = client.refused(&mut world, origin(21), 2, Purpose::BetterOperator);
    assert_eq!(reject.detail, Some(Reason::SwitchRateLimited));
    client.moved(&mut world, origin(21), 2, Purpose::Lost);
    assert!(world.recorded(Reason::TransportSwitchDenied) == 3);
}

#[test]
fn requests_over_the_abuse_limit_are_refused_and_recorded_once() {
    let mut world = World::with_policy(|policy| policy.set("max_requests_per_min", "10").unwrap());
    let mut client = Client::new(2, origin(10));
    client.birth(&mut world);
    let mut limited = 0;
    for _ in 0..60 {
        let request = client.request(Purpose::Validate);
        if let Some(Control::Reject(reject)) = client.ask(&mut world, origin(20), 1, Client::asking(request)) {
            assert_eq!(reject.reason, Reason::RateLimited);
            assert!((1..=1_000).contains(&reject.retry_after_ms));
            limited += 1;
        }
    }
    assert_eq!((limited, world.recorded(Reason::SecAbuseControlPlane)), (20, 1));
    world.pass(secs(66));
    client.moved(&mut world, origin(20), 1, Purpose::Lost);
}

#[test]
fn abandoned_nonces_are_never_accepted() {
    let (mut world, mut client) = attached();
    let old = client.request(Purpose::Lost);
    let cookie = challenge(&mut world, &mut client, origin(20), old);
    let proof = client.seal(1, Client::proof(old, &cookie));
    let mut request = client.request(Purpose::Validate);
    request.nonce_floor = old.nonce;
    client.go_with(&mut world, origin(21), 2, request);
    let before = world.picture();
    let sent = world.deliver(origin(20), &proof);
    assert!(matches!(client.open(&sent[0]).body, Control::Reject(reject) if reject.reason == Reason::FreshnessInvalid));
    assert_eq!(world.picture(), before);
}

#[test]
fn locators_are_topped_up_to_six_and_what_is_in_use_is_never_taken_back() {
    let (mut world, mut client) = attached();
    let mut highest = 5;
    let mut used = vec![0];
    for round in 0..17_u16 {
        world.pass(secs(10));
        let here = client.locators.keys().map(|k| k.0).find(|k| !used.contains(k)).expect("a spare one, always");
        used.push(here);
        // Each new network takes a new locator.
        let active = world.maps.bound(client.session).map(|(_, k)| k);
        let from = origin(100 + u8::try_from(round).unwrap());
        let ack = client.moved(&mut world, from, here, Purpose::Lost);
        assert!(!ack.retired.iter().any(|k| k.0 == here || Some(k.0) == active), "round {round}");
        for (k, locator) in &ack.locators {
            assert!(k.0 > highest, "an index is never given twice");
            highest = k.0;
            assert!(world.maps.locators.contains_key(locator), "known to the kernel before its client");
        }
        assert_eq!(client.locators.len(), 6, "in use, draining and spare together");
        assert_eq!(world.maps.locators.len(), 6);
    }
    assert!(highest > 8);
}
