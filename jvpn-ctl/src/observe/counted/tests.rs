//! Records as gateway and client write them, and what they add up to.

use super::*;
use jvpn_common::event::Context;
use serde_json::json;

const SECOND: u64 = 1_000_000_000;

fn plain(event: Event, at: u64, reason: Reason) -> Record {
    let context = Context { ts: "2026-01-02T03:04:05Z", at: Instant(at), node: "gw", seq: 0, peer: "till" };
    let mut record = Record::plain(&context, event);
    (record.session_id, record.reason) = (Some(SessionId([1; 16])), Some(reason));
    record
}

/// A transition of a gateway's record.
fn moved(at: u64, from: (State, bool), to: (State, bool), reason: Reason, details: Value) -> Record {
    let event = if to.1 && from.0 != State::Birth { Event::TransportSwitch } else { Event::StateChange };
    let mut record = plain(event, at, reason);
    let transport =
        json!({"k":1,"remote":"192.0.2.1:1","gateway":0,"label":"lte","class":"primary","mtu":1400,"since":"1"});
    let transport = |bound: bool| bound.then(|| serde_json::from_value(transport.clone()).expect("a transport"));
    (record.from, record.to, record.after) = (Some(from.0), Some(to.0), Some("00".into()));
    (record.transport.from, record.transport.to) = (transport(from.1), transport(to.1));
    record.details = serde_json::from_value(details).expect("an object");
    record
}

fn outages(records: &[Record]) -> Vec<(&'static str, u64, f64)> {
    let counted = Counted::default();
    records.iter().for_each(|record| counted.count(record));
    let counts = counted.now();
    counts.outages.iter().map(|(cause, lengths)| (cause.name(), lengths.count(), lengths.sum)).collect()
}

const ATTACHED: (State, bool) = (State::Attached, true);
const RECOVERING: (State, bool) = (State::Recovering, false);

#[test]
fn an_outage_is_from_the_loss_to_the_next_transport_with_what_caused_the_loss() {
    let lost = moved(SECOND, ATTACHED, RECOVERING, Reason::RecoveryStart, json!({"reasons": ["NO_DELIVERY"]}));
    let bound = json!({"detect_us": 30_000, "prove_us": 70_000, "commit_us": 500_000});
    let back = moved(5 * SECOND, RECOVERING, ATTACHED, Reason::ReattachAccept, bound);
    assert_eq!(outages(&[lost.clone(), back.clone()]), [("NO_DELIVERY", 1, 4.5)]);
    // A loss and its switch in one commit: then it is what the client was silent for.
    let at_once = Record { at: lost.at, ..back };
    assert_eq!(outages(&[lost, at_once]), [("NO_DELIVERY", 1, 0.6)]);
}

#[test]
fn a_switch_that_was_wished_for_is_no_outage_and_a_forgotten_mapping_is_one() {
    let wished = json!({"reasons": ["BETTER_PATH"], "detect_us": 30_000, "prove_us": 70_000, "commit_us": 100});
    let wished = moved(SECOND, ATTACHED, ATTACHED, Reason::TransportSwitchOk, wished);
    assert_eq!(outages(std::slice::from_ref(&wished)), []);
    let rebound = json!({"reasons": ["SOURCE_CHANGED"], "detect_us": 250_000, "prove_us": 250_000});
    let rebound = moved(SECOND, ATTACHED, ATTACHED, Reason::TransportSwitchOk, rebound);
    assert_eq!(outages(&[wished, rebound]), [("SOURCE_CHANGED", 1, 0.5)]);
}

#[test]
fn a_session_that_ends_without_a_transport_leaves_nothing_behind() {
    let lost = moved(SECOND, ATTACHED, RECOVERING, Reason::RecoveryStart, json!({}));
    let end = moved(2 * SECOND, RECOVERING, (State::Terminated, false), Reason::TtlTransportLossExpired, json!({}));
    let counted = Counted::default();
    for record in [&lost, &end] {
        counted.count(record);
    }
    let counts = counted.now();
    assert!(counts.unbound.is_empty() && counts.outages.is_empty());
    let ways: Vec<_> = counts.transitions.iter().map(|(way, count)| (*way, *count)).collect();
    assert_eq!(
        ways,
        [
            ((State::Attached, State::Recovering, Reason::RecoveryStart), 1),
            ((State::Recovering, State::Terminated, Reason::TtlTransportLossExpired), 1)
        ]
    );
}

#[test]
fn a_client_counts_from_the_first_sign_it_saw() {
    let with = |record: Record, details: Value| Record {
        details: serde_json::from_value(details).expect("an object"),
        ..record
    };
    let lost = plain(Event::StateChange, SECOND, Reason::LinkDown);
    let lost = with(lost, json!({"acknowledged": false, "detect_us": 500_000}));
    let switch = plain(Event::TransportSwitch, 2 * SECOND, Reason::ReattachAccept);
    let switch = with(switch, json!({"acknowledged": true, "detect_us": 500_000, "prove_us": 1_000_000}));
    assert_eq!(outages(&[lost, switch.clone()]), [("LINK_DOWN", 1, 1.5)]);
    let counted = Counted::default();
    counted.count(&switch);
    let counts = counted.now();
    let phases: Vec<_> = counts.phases.iter().map(|phase| (phase.count(), phase.sum)).collect();
    assert_eq!(phases, [(1, 0.5), (1, 1.0), (0, 0.0)]);
    assert!(counts.transitions.is_empty(), "a client sees no transition, only what was acknowledged");
}

#[test]
fn a_length_is_in_the_first_bucket_that_holds_it() {
    let mut lengths = Histogram::default();
    for micros in [0, 100, 101, 900_000_000, 900_000_001] {
        lengths.add(Duration::from_micros(micros));
    }
    assert_eq!((lengths.counts[0], lengths.counts[1]), (2, 1));
    assert_eq!((lengths.counts[BUCKETS.len() - 1], lengths.counts[BUCKETS.len()]), (1, 1));
    assert!(BUCKETS.is_sorted_by(|a, b| a < b));
}
