//! Security events: none without a cause, no flood with ten thousand.
//!
//! Owns claims about what is recorded and how often. Must never count a cause twice.

use super::*;
use crate::message::Purpose;

fn suspicious(world: &mut World, session: SessionId, reason: Reason, causes: u64) {
    assert_eq!(world.give(Input::Suspicious { session, reason, causes, what: "" }), []);
}

/// The counts of the records of a kind, in their order.
fn counts(world: &World, reason: Reason) -> Vec<u64> {
    let about = |record: &&Record| record.event == Event::SecurityEvent && record.reason == Some(reason);
    world.records.iter().filter(about).map(|record| record.details["count"].as_u64().unwrap()).collect()
}

#[test]
fn ten_thousand_causes_are_two_records_and_none_is_forgotten() {
    for reason in [Reason::SecForgedTag, Reason::SecInnerSpoof, Reason::SecMapTampered] {
        let (mut world, client) = attached();
        let before = world.picture();
        for _ in 0..5_000 {
            suspicious(&mut world, client.session, reason, 2);
        }
        assert_eq!(counts(&world, reason), [2]);
        world.pass(ms(9_999));
        assert_eq!(counts(&world, reason), [2]);
        world.pass(ms(1));
        assert_eq!(counts(&world, reason), [2, 9_998]);
        world.pass(ms(4_000));
        assert_eq!(counts(&world, reason), [2, 9_998], "nothing came since");
        assert_eq!(world.picture(), before, "an event is a record and nothing else");
    }
}

#[test]
fn each_thing_that_was_changed_is_said_at_once_and_its_repetitions_with_their_number() {
    let (mut world, client) = attached();
    let reason = Reason::SecMapTampered;
    for what in ["keys", "a locator", "keys", "active word"] {
        world.give(Input::Suspicious { session: client.session, reason, causes: 1, what });
    }
    world.pass(secs(10));
    let records = world.records.iter().filter(|record| record.reason == Some(reason));
    let said: Vec<String> = records.map(|record| record.details["what"].to_string()).collect();
    assert_eq!(said, [r#""keys""#, r#""a locator""#, r#""active word""#, r#""keys""#]);
    assert_eq!(counts(&world, reason), [1, 1, 1, 1]);
}

#[test]
fn without_a_cause_there_is_no_event() {
    let (mut world, client) = attached();
    let records = world.records.len();
    suspicious(&mut world, client.session, Reason::SecForgedTag, 0);
    suspicious(&mut world, SessionId([5; 16]), Reason::SecForgedTag, 9);
    world.pass(secs(14));
    assert_eq!(world.records.len(), records);
}

#[test]
fn kinds_and_sessions_are_counted_apart() {
    let (mut world, client) = attached();
    let mut other = Client::new(3, origin(30));
    other.birth(&mut world);
    for session in [client.session, other.session, client.session] {
        suspicious(&mut world, session, Reason::SecForgedTag, 1);
        suspicious(&mut world, session, Reason::SecInnerSpoof, 1);
    }
    assert_eq!((world.recorded(Reason::SecForgedTag), world.recorded(Reason::SecInnerSpoof)), (2, 2));
}

#[test]
fn what_was_counted_and_not_recorded_is_recorded_when_its_session_ends() {
    let (mut world, client) = attached();
    suspicious(&mut world, client.session, Reason::SecInnerSpoof, 1);
    suspicious(&mut world, client.session, Reason::SecInnerSpoof, 41);
    world.order(Order::Terminate { session: client.session, reason: Reason::OperatorTermination });
    assert_eq!(counts(&world, Reason::SecInnerSpoof), [1, 41]);
    assert_eq!(world.engine.wakeup(), None);
}

#[test]
fn a_resume_does_not_start_the_counting_over() {
    let (mut world, mut client) = attached();
    suspicious(&mut world, client.session, Reason::SecForgedTag, 1);
    let purpose = client.resume();
    client.shake(&mut world, purpose).unwrap();
    client.confirm(&mut world);
    suspicious(&mut world, client.session, Reason::SecForgedTag, 5);
    assert_eq!(counts(&world, Reason::SecForgedTag), [1]);
    world.pass(secs(10));
    assert_eq!(counts(&world, Reason::SecForgedTag), [1, 5]);
}

#[test]
fn two_addresses_that_take_a_session_from_each_other_are_named_at_the_third_return() {
    let (mut world, mut client) = attached();
    for (round, host) in [20, 10, 20, 10, 20].into_iter().enumerate() {
        world.pass(secs(2));
        client.moved(&mut world, origin(host), 0, Purpose::Rebind);
        // The first move is away, the second the first return.
        assert_eq!(world.recorded(Reason::SecHostileRoam), usize::from(round >= 3), "round {round}");
    }
    assert_eq!(world.maps.bound(client.session), Some((origin(20).client, 0)), "the last proof wins all the same");
    world.pass(secs(10));
    assert_eq!(counts(&world, Reason::SecHostileRoam), [1, 1]);
}

#[test]
fn a_nat_that_forgets_and_a_client_that_moves_between_its_own_networks_are_no_competition() {
    let (mut world, mut client) = attached();
    for host in 20..40 {
        world.pass(secs(2));
        client.moved(&mut world, origin(host), 0, Purpose::Rebind);
    }
    for round in 0..8_u8 {
        world.pass(secs(2));
        let (host, k) = if round % 2 == 0 { (50, 1) } else { (39, 0) };
        client.moved(&mut world, origin(host), k, Purpose::Lost);
    }
    assert_eq!(world.recorded(Reason::SecHostileRoam), 0);
}

#[test]
fn returns_that_are_minutes_apart_are_no_competition() {
    let (mut world, mut client) = attached();
    for round in 0..10_u8 {
        for _ in 0..3 {
            world.pass(secs(13));
            let (host, k) = if round % 2 == 0 { (10, 0) } else { (20, 0) };
            let report = crate::message::Control::PathReport(Vec::new());
            client.ask(&mut world, origin(host), k, report);
        }
        if round % 4 == 3 {
            let purpose = client.resume();
            client.shake(&mut world, purpose).unwrap();
            client.confirm(&mut world);
        }
        client.moved(&mut world, origin(if round % 2 == 0 { 20 } else { 10 }), 0, Purpose::Rebind);
    }
    assert_eq!(world.recorded(Reason::SecHostileRoam), 0);
}

#[test]
fn what_the_maps_must_say_is_what_they_say_and_is_not_said_during_a_commit() {
    let (mut world, mut client) = attached();
    let mut other = Client::new(3, origin(30));
    other.shake(&mut world, crate::message::HandshakePurpose::Birth).unwrap();
    let said = |world: &World| world.engine.committed().map(|(_, slot, what)| (slot, what)).collect::<Vec<_>>();
    let all = said(&world);
    assert_eq!(all.len(), 2);
    for (slot, what) in &all {
        assert_eq!(world.maps.holds(*slot), *what);
    }
    let pending = |all: &[(Slot, crate::mapop::Committed)]| all.iter().filter(|(_, what)| what.pending).count();
    assert_eq!(pending(&all), 1);
    world.holding = true;
    let request = client.request(Purpose::Lost);
    let cookie = client.ask(&mut world, origin(20), 1, Client::asking(request)).unwrap();
    client.ask(&mut world, origin(20), 1, Client::proof(request, &cookie));
    other.confirm(&mut world);
    assert_eq!(said(&world), [], "both pictures would be right");
    world.finish();
    for (slot, what) in said(&world) {
        assert_eq!((world.maps.holds(slot), what.active.is_some()), (what, true));
    }
}
