//! A life on record, replayed; and records that say something else than the engine.

use super::super::{Audit, dir_of};
use super::*;
use crate::audit::segment;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jvpn_common::event::{Context, Written, replayed};
use jvpn_common::ids::{OwnerEpoch, TransportIndex, Version};
use jvpn_common::reason::Reason;
use jvpn_common::session::{Birth, Claim, Ender, Session, Side, TransportClass};
use jvpn_common::time::Duration;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn born(id: u8) -> Session {
    Session::born(
        Birth { id: SessionId([id; 16]), peer: [9; 32], owner_epoch: OwnerEpoch(1) },
        &Policy::field(),
        at(1_000),
    )
}

/// The record of one input, as a gateway writes it, and the session afterwards.
fn record(session: &Session, input: Written, now: u64) -> (Record, Session) {
    let ts = format!("2026-01-02T03:{:02}:{:02}.{:03}Z", now / 60_000, now / 1_000 % 60, now % 1_000);
    let context = Context { ts: &ts, at: at(now), node: "gw", seq: 0, peer: "till" };
    let mut record = Record::plain(&context, Event::StateChange);
    record.policy_version = Policy::field().version;
    record.before = Some(STANDARD.encode(session.encode()));
    record.input = Some(input);
    let record = replayed(&record, &Policy::field()).expect("one transition");
    let after = replay(&record, &Policy::field()).expect("it is what the engine says").after;
    (record, after)
}

fn confirm() -> Written {
    let transport = jvpn_common::event::TransportText {
        k: TransportIndex(0),
        remote: "192.0.2.1:40000".parse().expect("an address"),
        gateway: 0,
        label: jvpn_common::message::Label::new("wifi"),
        class: TransportClass::Primary,
        mtu: 1_400,
        since: at(0),
    };
    Written::Confirm { transport, reject_after: at(10_000_000) }
}

/// Born, attached at 2 s, lost at 10 s, its recovery window over at 40.002 s.
fn life(id: u8) -> Vec<Record> {
    let (first, attached) = record(&born(id), confirm(), 2_000);
    let lost = Written::TransportLost { by: Side::Gateway, evidence: None };
    let (second, recovering) = record(&attached, lost, 10_000);
    let (third, _) = record(&recovering, Written::Tick, 40_002);
    vec![first, second, third]
}

fn policies() -> Record {
    let context = Context { ts: "2026-01-02T03:00:00Z", at: at(1), node: "gw", seq: 0, peer: "" };
    Record::policy(&context, &Policy::field())
}

fn kept(records: Vec<Record>) -> tempfile::TempDir {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    audit.append_all(records).expect("written");
    state
}

fn asked(state: &tempfile::TempDir, prefix: &str, at: Option<&str>) -> Result<Why, WhyError> {
    why(&dir_of(state.path()), prefix, at.map(|at| at.parse().expect("a time")))
}

#[test]
fn a_session_is_explained_by_input_guard_bound_and_numbers() {
    let state = kept([vec![policies()], life(7), life(8)].concat());
    let why = asked(&state, "0707", None).expect("explained");
    assert_eq!((why.state.as_str(), why.state_version, why.replayed), ("DEGRADED(unbound)", 3, 3));
    assert_eq!((why.peer.as_str(), why.transport.as_deref()), ("till", None));
    let last = why.steps.last().expect("a step");
    assert_eq!((last.from.as_str(), last.to.as_str()), ("RECOVERING", "DEGRADED(unbound)"));
    assert_eq!((last.reason.as_str(), last.input.as_str()), ("RECOVERY_BOUNDS_EXCEEDED", "time passed"));
    let row = last.asked.last().expect("a row");
    assert_eq!((row.taken, row.guard.as_str()), (true, "due"));
    assert_eq!(row.bounds, ["max_recovery_window: 30.002s at least 30s"]);
    let keys: Vec<_> = why.next.iter().map(|next| (next.key.as_str(), next.at.as_str())).collect();
    assert_eq!(keys[0], ("transport_loss_ttl", "2026-01-02T03:15:10.000Z"), "15 minutes after it was lost");
    assert!(why.notes.iter().any(|note| note.contains("inputs are not kept")));
}

#[test]
fn a_time_in_the_past_shows_the_session_as_it_was_then() {
    let state = kept([vec![policies()], life(7)].concat());
    let then = asked(&state, "07", Some("2026-01-02T03:00:20Z")).expect("explained");
    assert_eq!((then.state.as_str(), then.state_version), ("RECOVERING", 2));
    assert_eq!(then.next[0].key, "max_recovery_window");
    let then = asked(&state, "07", Some("2026-01-02T03:00:05Z")).expect("explained");
    assert_eq!((then.state.as_str(), then.transport.as_deref()), ("ATTACHED", Some("wifi 192.0.2.1:40000")));
    assert!(matches!(asked(&state, "07", Some("2026-01-02T03:00:01Z")), Err(WhyError::TooEarly(_))));
}

#[test]
fn a_session_that_ended_is_explained_and_nothing_follows() {
    let (first, attached) = record(&born(7), confirm(), 2_000);
    let (end, _) = record(&attached, Written::Terminate { by: Ender::Operator }, 9_000);
    let state = kept(vec![policies(), first, end]);
    let why = asked(&state, &"07".repeat(16), None).expect("explained");
    assert_eq!((why.state.as_str(), why.next.len(), why.notes.len()), ("TERMINATED", 0, 0));
    assert_eq!(why.steps[1].input, "an operator ended the session");
}

#[test]
fn a_record_that_does_not_replay_is_an_error_that_names_the_first_difference() {
    let changed = |change: fn(&mut Record)| {
        let mut records = life(7);
        change(&mut records[1]);
        let state = kept([vec![policies()], records].concat());
        asked(&state, "07", None).expect_err("it differs").to_string()
    };
    let error = changed(|record| record.to = Some(State::Degraded));
    assert!(error.contains("record 3 (version 2, STATE_CHANGE): "), "{error}");
    assert!(error.ends_with("the record says `to` is \"DEGRADED\", the engine says \"RECOVERING\""), "{error}");
    let error = changed(|record| record.reason = Some(Reason::RecoveryRetry));
    assert!(error.contains("`reason` is \"RECOVERY_RETRY\", the engine says \"RECOVERY_START\""), "{error}");
    let error = changed(|record| record.state_version = Version(9));
    assert!(error.contains("`state_version` is \"9\", the engine says \"2\""), "{error}");
    let error = changed(|record| drop(record.details.insert("reasons".into(), "x".into())));
    assert!(error.contains("`reasons` is \"x\", the engine says [\"NO_DELIVERY\"]"), "{error}");
    assert!(changed(|record| record.after = Some("00".into())).contains("`after` is \"00\""));
    assert!(changed(|record| record.at = at(1)).contains("record 3"));
    let error = changed(|record| record.policy_version = PolicyVersion(77));
    assert!(error.contains("policy, version 77, is not in this record"), "{error}");
}

#[test]
fn a_transition_that_is_missing_is_a_difference_unless_a_gap_names_it() {
    let mut records = life(7);
    records.remove(1);
    let error = asked(&kept([vec![policies()], records].concat()), "07", None).expect_err("one is missing").to_string();
    assert!(error.contains("it starts with state RECOVERING, and the records before it end with ATTACHED"), "{error}");

    let (first, attached) = record(&born(7), confirm(), 2_000);
    let Some(Claim::Behind(raised, gap)) = attached.claimed(Version(1_024), OwnerEpoch(1), false) else {
        panic!("believable");
    };
    let lost = Written::TransportLost { by: Side::Gateway, evidence: None };
    let (second, _) = record(&raised, lost, 10_000);
    let error =
        asked(&kept(vec![policies(), first.clone(), second.clone()]), "07", None).expect_err("not named").to_string();
    assert!(error.contains("it starts with version 1024, and the records before it end with 1"), "{error}");
    let context = Context { ts: "2026-01-02T03:00:09Z", at: at(9_000), node: "gw", seq: 0, peer: "till" };
    let gap = Record::gap(&context, &raised, gap.expect("a gap"));
    let why = asked(&kept(vec![policies(), first, gap, second]), "07", None).expect("explained");
    assert_eq!(why.state_version, 1_025);
    assert!(why.notes.iter().any(|note| note.contains("versions 2 to 1024 are in no record")), "{:?}", why.notes);
}

#[test]
fn a_line_that_was_changed_a_strange_id_and_a_clients_record_are_refused() {
    let state = kept([vec![policies()], life(7), life(8)].concat());
    assert!(matches!(asked(&state, "0", None), Err(WhyError::Ambiguous { .. })));
    assert!(matches!(asked(&state, "99", None), Err(WhyError::NotFound(_))));
    let file = segment::list(&dir_of(state.path())).expect("lists").remove(0);
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, text.replacen("\"peer\":\"till\"", "\"peer\":\"tall\"", 1)).expect("written");
    let error = asked(&state, "07", None).expect_err("changed").to_string();
    assert!(error.contains("record 2") && error.contains("was changed"), "{error}");

    let mut told = life(7).remove(0);
    (told.before, told.after, told.input) = (None, None, None);
    assert!(matches!(asked(&kept(vec![told]), "07", None), Err(WhyError::NoInputs(_))));
}

#[test]
fn a_timer_that_ran_out_says_when() {
    let (ts, boot) = ("2026-01-02T03:00:00Z".parse().expect("a time"), at(10_000));
    assert_eq!(later(ts, boot, at(12_500)), "2026-01-02T03:00:02.500Z");
    assert_eq!(later(ts, boot, boot + Duration::from_secs(60)), "2026-01-02T03:01:00.000Z");
    assert_eq!(later(ts, boot, at(9_000)), "2026-01-02T02:59:59.000Z");
}
