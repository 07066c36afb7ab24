//! What no row lists: refused, counted, on the record, and nothing changed.
//!
//! Owns the walk of the engine through every place with a live session. Must never look at a pair that has a row.

use super::*;
use crate::message::{Control, HandshakePurpose, Purpose};
use crate::session::tests::{LOST, inputs, quality};
use crate::session::transition::Place;
use crate::session::{self, Ender, Keys};
use std::collections::BTreeSet;

/// Gives an input to the session's core as if it had happened; whether it was taken.
fn give(world: &mut World, id: SessionId, input: &session::Input) -> bool {
    let taken = world.engine.inject(world.now, id, input);
    world.run();
    world.out.clear();
    taken
}

fn core(world: &World, id: SessionId) -> Session {
    world.engine.sessions().find(|(known, _)| *known == id).map(|(_, view)| view.core.clone()).unwrap()
}

/// A session in a place, reached through what leads there.
fn at(place: Place) -> (World, Client) {
    let (mut world, mut client) = attached();
    let id = client.session;
    if matches!(place, Place::Volatile | Place::DegradedBound) {
        for _ in 0..2 {
            world.pass(secs(1));
            assert!(give(&mut world, id, &quality(300)));
        }
    }
    if place == Place::DegradedBound {
        // It is heard all the time, and never well.
        for _ in 0..7 {
            world.pass(secs(9));
            assert_eq!(client.ask(&mut world, origin(10), 0, Control::PathReport(Vec::new())), Some(Control::Done));
        }
    }
    if matches!(place, Place::Recovering | Place::DegradedUnbound) {
        assert!(give(&mut world, id, &LOST));
    }
    if place == Place::DegradedUnbound {
        world.pass(secs(31));
    }
    assert_eq!(core(&world, id).place(), place);
    (world, client)
}

const PLACES: [Place; 5] =
    [Place::Attached, Place::Volatile, Place::Recovering, Place::DegradedBound, Place::DegradedUnbound];

#[test]
fn every_pair_that_no_row_lists_is_refused_counted_recorded_and_changes_nothing() {
    let mut pairs = BTreeSet::new();
    for place in PLACES {
        let (mut world, client) = at(place);
        let id = client.session;
        let unlisted: Vec<_> = inputs(world.now).into_iter().filter(|input| !core(&world, id).lists(input)).collect();
        for input in unlisted {
            // Its own ten seconds are not over before another place is looked at: the first of a kind is always said.
            let (before, refused, recorded) = (world.picture(), world.drops(Drop::Refused), world.records.len());
            let reason = core(&world, id).step(&input, &Policy::field(), world.now).unwrap_err().reason;
            assert!(!give(&mut world, id, &input), "{place} took {input:?}");
            assert_eq!((world.picture(), world.drops(Drop::Refused)), (before, refused + 1), "{place} {input:?}");
            let said = &world.records[recorded..];
            if !pairs.insert((place, input.name())) {
                continue;
            }
            let [record] = said else { panic!("{place} {input:?}: {said:?}") };
            assert_eq!(
                (record.event, record.session_id, record.reason),
                (Event::ReattachReject, Some(id), Some(reason))
            );
            assert_eq!((record.from, record.to), (Some(place.state()), Some(place.state())));
            assert_eq!(
                (record.input.as_ref(), record.state_version.0),
                (Some(&Written::from(&input)), world.version(id))
            );
            assert_eq!((record.before.as_ref(), record.after.as_ref()), (None, None), "no transition");
        }
    }
    let names = |place| pairs.iter().filter(move |(at, _)| *at == place).map(|(_, name)| *name).collect::<Vec<_>>();
    for bound in [Place::Attached, Place::Volatile, Place::DegradedBound] {
        assert_eq!(names(bound), ["ATTEMPT_FAILED", "CONFIRM", "SHUTDOWN"]);
    }
    assert_eq!(names(Place::Recovering), ["CONFIRM", "QUALITY", "SHUTDOWN", "TRANSPORT_LOST"]);
    assert_eq!(names(Place::DegradedUnbound), ["ATTEMPT_FAILED", "CONFIRM", "QUALITY", "SHUTDOWN", "TRANSPORT_LOST"]);
}

#[test]
fn what_is_stale_is_refused_counted_and_recorded() {
    let (mut world, client) = at(Place::Recovering);
    assert!(give(&mut world, client.session, &session::Input::ControllerRestarted));
    assert_eq!(core(&world, client.session).keys(), Keys::Stale);
    let before = world.picture();
    let rekeyed = session::Input::Rekeyed { reject_after: world.now + secs(180) };
    assert!(!give(&mut world, client.session, &rekeyed));
    assert_eq!((world.picture(), world.recorded(Reason::KeysStale)), (before, 1));
    assert_eq!(world.drops(Drop::Refused), 1);
}

#[test]
fn a_flood_of_refusals_is_two_records_with_their_number() {
    let (mut world, client) = attached();
    let before = world.picture();
    let said = |world: &World| -> Vec<u64> {
        let refused = world.records.iter().filter(|record| record.event == Event::ReattachReject);
        refused.map(|record| record.details["count"].as_u64().unwrap()).collect()
    };
    for _ in 0..10_000 {
        assert!(!give(&mut world, client.session, &session::Input::Shutdown));
    }
    assert_eq!((said(&world), world.drops(Drop::Refused)), (vec![1], 10_000));
    world.pass(secs(10));
    assert_eq!((said(&world), world.picture()), (vec![1, 9_999], before));
}

#[test]
fn a_request_that_is_not_fresh_is_on_the_record_once_in_ten_seconds_and_a_replayed_datagram_is_not_one() {
    let (mut world, mut client) = attached();
    client.moved(&mut world, origin(20), 1, Purpose::Lost);
    let (before, recorded) = (world.picture(), world.records.len());
    client.nonce = 0;
    for _ in 0..5 {
        client.nonce = 0;
        let request = client.request(Purpose::Lost);
        let answer = client.ask(&mut world, origin(30), 2, Client::asking(request)).unwrap();
        assert!(matches!(answer, Control::Reject(reject) if reject.reason == Reason::FreshnessInvalid));
    }
    let refused =
        |world: &World| world.records[recorded..].iter().filter(|record| record.event == Event::ReattachReject).count();
    assert_eq!((refused(&world), world.drops(Drop::Refused), world.picture()), (1, 5, before));
    let request = client.request(Purpose::Validate);
    let bytes = client.seal(2, Client::asking(request));
    for _ in 0..50 {
        world.deliver(origin(30), &bytes);
    }
    assert_eq!(refused(&world), 1, "what was seen before is no request");
}

#[test]
fn a_report_that_says_nothing_is_counted_and_fills_no_record() {
    let (mut world, client) = attached();
    let silent =
        session::Input::Quality(session::Report { loss: 0, rtt: Duration::ZERO, jitter: Duration::ZERO, delivered: 0 });
    let recorded = world.records.len();
    assert!(!give(&mut world, client.session, &silent));
    assert_eq!((world.drops(Drop::Refused), world.records.len()), (1, recorded));
}

#[test]
fn a_session_that_is_over_or_not_yet_born_takes_nothing_and_is_in_no_record_for_it() {
    let (mut world, mut client) = attached();
    let mut unborn = Client::new(3, origin(30));
    unborn.shake(&mut world, HandshakePurpose::Birth).unwrap();
    assert!(give(&mut world, client.session, &session::Input::Terminate { by: Ender::Operator }));
    let (before, recorded) = (world.picture(), world.records.len());
    for input in inputs(world.now) {
        assert!(!give(&mut world, client.session, &input), "{input:?}");
        assert!(!give(&mut world, unborn.session, &input), "{input:?}");
    }
    for (client, at) in [(&mut client, origin(10)), (&mut unborn, origin(30))] {
        let request = client.request(Purpose::Lost);
        assert_eq!(client.ask(&mut world, at, 0, Client::asking(request)), None);
        assert_eq!(client.ask(&mut world, at, 0, Control::Close), None);
    }
    assert_eq!((world.drops(Drop::UnknownLocator), world.drops(Drop::Unconfirmed)), (2, 2), "counted");
    assert_eq!((world.picture(), world.records.len()), (before, recorded));
}
