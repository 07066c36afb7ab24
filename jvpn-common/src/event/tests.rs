//! Tests of the record: its form, its chain, its replay.
//!
//! Owns no product code. Must never compare a record with itself where the machine could be asked.

use super::*;
use crate::session::tests::{
    any_story, at, attached, born, confirm, everywhere, inputs, quality, reattach, resume, transport,
};
use crate::session::{Class, Ender, Keys};
use proptest::prelude::*;

fn context(at: Instant) -> Context<'static> {
    Context { ts: "2026-01-02T03:04:05.000000006Z", at, node: "gw-1", seq: 1 << 60, peer: "till-17" }
}

/// The records of one step.
fn records(session: &Session, input: &Input, now: Instant) -> Vec<Record> {
    let step = session.step(input, &Policy::field(), now).expect("a step");
    Record::transitions(&context(now), &step.transitions)
}

#[test]
fn a_transition_has_exactly_the_fields_of_a_record_in_their_order() {
    let record = &records(&born(), &confirm(at(50)), at(50))[0];
    let sealed = seal(&record.line(), Hash::default());
    let fields = ["ts", "at", "node", "seq", "session_id", "peer", "event", "from", "to", "reason", "details"];
    let fields = fields.into_iter().chain([
        "state_version",
        "policy_version",
        "transport",
        "input",
        "before",
        "after",
        "prev",
        "hash",
    ]);
    let mut rest = sealed.line.as_str();
    for field in fields {
        let (_, after) =
            rest.split_once(&format!("\"{field}\":")).unwrap_or_else(|| panic!("no {field} in {}", sealed.line));
        rest = after;
    }
    let value: Value = serde_json::from_str(&sealed.line).expect("JSON");
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(19));
    assert_eq!(value["at"], at(50).0.to_string());
    assert_eq!(value["seq"], (1_u64 << 60).to_string());
    assert_eq!(
        (&value["from"], &value["to"], &value["reason"]),
        (&"BIRTH".into(), &"ATTACHED".into(), &"HANDSHAKE_OK".into())
    );
    assert_eq!(value["state_version"], "1");
    assert_eq!(value["input"]["kind"], "CONFIRM");
    assert_eq!(value["input"]["fields"]["transport"]["remote"], "192.0.2.1:40000");
    assert_eq!(value["transport"]["from"], Value::Null);
    assert_eq!(value["transport"]["to"]["label"], "wifi");
}

#[test]
fn a_lost_reattach_makes_two_records_that_replay_one_by_one() {
    let made = records(&attached(), &reattach(Class::Lost, u64::MAX, transport(1, 2)), at(9_000));
    assert_eq!(
        made.iter().map(|record| record.event).collect::<Vec<_>>(),
        [Event::StateChange, Event::TransportSwitch]
    );
    assert_eq!(made[0].transport.to, None);
    assert_eq!(made[1].transport.to.as_ref().map(|to| to.k.0), Some(1));
    for record in &made {
        let read: Record = serde_json::from_str(&record.line()).expect("a record");
        assert_eq!(&read, record);
        replay(&read, &Policy::field()).expect("the machine agrees");
    }
}

#[test]
fn the_records_of_a_step_are_those_of_its_transitions_one_by_one() {
    let now = at(9_000);
    for input in [reattach(Class::Lost, u64::MAX, transport(1, 2)), resume(now), quality(0)] {
        let step = attached().step(&input, &Policy::field(), now).expect("a step");
        let each = step.transitions.iter().map(|transition| Record::transition(&context(now), transition));
        assert_eq!(Record::transitions(&context(now), &step.transitions), each.collect::<Vec<_>>(), "{input:?}");
    }
}

#[test]
fn a_changed_record_does_not_replay() {
    let good = records(&attached(), &resume(at(9_000)), at(9_000)).remove(1);
    replay(&good, &Policy::field()).expect("the machine agrees");
    let changed = |change: fn(&mut Record)| {
        let mut record = good.clone();
        change(&mut record);
        replay(&record, &Policy::field()).expect_err("must not replay")
    };
    assert_eq!(changed(|r| r.to = Some(State::Degraded)), Mismatch::Field("to"));
    assert_eq!(changed(|r| r.from = Some(State::Attached)), Mismatch::Field("from"));
    assert_eq!(changed(|r| r.reason = Some(Reason::RecoveryStart)), Mismatch::Field("reason"));
    assert_eq!(changed(|r| r.state_version = Version(9)), Mismatch::Field("state_version"));
    assert_eq!(changed(|r| r.event = Event::StateChange), Mismatch::Field("event"));
    assert_eq!(changed(|r| r.session_id = None), Mismatch::Field("session_id"));
    assert_eq!(changed(|r| r.after = Some("00".into())), Mismatch::Field("after"));
    assert_eq!(changed(|r| r.transport.to = None), Mismatch::Field("transport"));
    assert_eq!(changed(|r| drop(r.details.insert("reasons".into(), Value::Null))), Mismatch::Field("reasons"));
    assert_eq!(changed(|r| r.policy_version = PolicyVersion(7)), Mismatch::Policy);
    assert_eq!(changed(|r| r.before = Some("AAAA".into())), Mismatch::Before);
    assert_eq!(changed(|r| r.before = None), Mismatch::NotATransition);
    assert_eq!(changed(|r| r.input = Some(Written::Superseded)), Mismatch::Field("to"));
    assert_eq!(changed(|r| r.input = Some(Written::Tick)), Mismatch::Refused);
}

#[test]
fn lines_sealed_behind_each_other_are_those_that_are_sealed_alone() {
    let records = records(&attached(), &resume(at(9_000)), at(9_000));
    assert!(records.len() > 1);
    let (mut text, mut together, mut alone) = (b"before".to_vec(), Hash::default(), Hash::default());
    for record in &records {
        let (start, sealed) = (text.len(), seal(&record.line(), alone));
        (together, alone) = (seal_onto(&mut text, record, together), sealed.hash);
        assert_eq!((&text[start..], together), (sealed.line.as_bytes(), alone));
    }
    assert!(text.starts_with(b"before{"));
}

#[test]
fn the_chain_names_the_first_line_that_was_changed_removed_or_moved() {
    let mut head = Hash::default();
    let mut lines = Vec::new();
    for record in records(&attached(), &resume(at(9_000)), at(9_000)) {
        let sealed = seal(&record.line(), head);
        head = sealed.hash;
        lines.push(sealed.line);
    }
    let verify = |lines: &[String]| {
        let mut head = Hash::default();
        for line in lines {
            head = open(line, head)?.hash;
        }
        Ok::<_, LineError>(head)
    };
    assert_eq!(verify(&lines), Ok(head));
    let first = open(&lines[0], Hash::default()).unwrap().hash;
    assert_eq!(named(lines[1].as_bytes()), Ok(first));
    let changed = vec![lines[0].replace("till-17", "till-18"), lines[1].clone()];
    assert_eq!(verify(&changed), Err(LineError::Changed));
    assert!(matches!(verify(&lines[1..]), Err(LineError::NotNext { .. })));
    assert!(matches!(verify(&[lines[1].clone(), lines[0].clone()]), Err(LineError::NotNext { .. })));
    for cut in 0..lines[0].len() {
        let cut: String = lines[0].chars().take(cut).collect();
        assert!(matches!(verify(&[cut]), Err(LineError::NotARecord(_))));
    }
    let upper = lines[0].to_uppercase();
    assert!(verify(&[upper]).is_err());
}

#[test]
fn an_input_is_called_the_same_in_a_count_and_in_a_record() {
    for input in inputs(at(9_000)) {
        let written = serde_json::to_value(Written::from(&input)).unwrap();
        assert_eq!(written["kind"], input.name());
    }
}

#[test]
fn a_hash_has_64_digits_of_lower_case_and_nothing_else() {
    let text = "00ff".to_owned() + &"a7".repeat(30);
    assert_eq!(Hash::from_hex(&text).map(|hash| hash.to_string()), Some(text.clone()));
    for at in 0..text.len() {
        for digit in ["g", "A", "/", ":", "`", "\0", "~"] {
            let mut changed = text.clone();
            changed.replace_range(at..=at, digit);
            assert_eq!(Hash::from_hex(&changed), None, "{changed}");
        }
    }
    assert_eq!([&text[1..], "", &(text.clone() + "0")].map(Hash::from_hex), [None; 3]);
}

#[test]
fn what_a_peer_or_an_operator_wrote_cannot_break_out_of_a_line() {
    let long = "\u{1b}[2J\"\n".repeat(200);
    let mut context = context(at(1));
    context.peer = &long;
    let record = Record::about(&context, &attached(), Event::Condition, None).with("condition", long.clone().into());
    let line = record.line();
    assert!(line.len() < 4_096 && !line.contains(['\n', '\u{1b}']), "{line}");
    let read: Record = serde_json::from_str(&line).expect("a record");
    assert_eq!(read, record);
}

#[test]
fn a_transport_whose_label_no_peer_can_have_is_no_record() {
    let made = records(&attached(), &reattach(Class::Lost, u64::MAX, transport(1, 2)), at(9_000)).remove(1);
    let label = made.transport.to.as_ref().expect("bound").label;
    let named = |text: &str| made.line().replace(&format!("\"label\":\"{label}\""), &format!("\"label\":\"{text}\""));
    assert_eq!(serde_json::from_str::<Record>(&named(label.as_str())).expect("as it was"), made);
    for text in ["wi\\u001bfi", "w\u{ef}fi", "longer-than-a-label-is"] {
        let error = serde_json::from_str::<Record>(&named(text)).expect_err(text);
        assert!(error.to_string().contains("not the label of a transport"), "{error}");
    }
}

#[test]
fn every_kind_of_record_has_what_it_is_about() {
    let session = attached();
    let input = reattach(Class::Better, 1, transport(0, 1));
    let refusal = session.step(&input, &Policy::field(), at(60)).expect_err("already there");
    let denied = Record::refused(&context(at(60)), &session, &input, &refusal);
    assert_eq!((denied.event, denied.reason), (Event::TransportSwitchDenied, Some(Reason::TransportSwitchDenied)));
    assert_eq!(denied.details["reasons"], codes(&[Reason::NoValidCandidate]));
    assert_eq!((denied.state_version, denied.before.is_none()), (session.version(), true));

    let end = session.step(&Input::Terminate { by: Ender::Operator }, &Policy::field(), at(10_000)).expect("it ends");
    let ended: Vec<_> =
        end.effects.iter().filter_map(|effect| Record::ended(&context(at(10_000)), &end.session, effect)).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (&ended[0].details["lifetime_ms"], ended[0].reason),
        (&10_000.into(), Some(Reason::OperatorTermination))
    );

    let policy = Record::policy(&context(at(1)), &Policy::field());
    assert_eq!(policy.details["text"].as_str().and_then(Policy::from_text), Some(Policy::field()));
    let gap = Record::gap(&context(at(1)), &session, Gap { first: Version(2), last: Version(1 << 60) });
    assert_eq!((&gap.details["first"], &gap.details["last"]), (&"2".into(), &(1_u64 << 60).to_string().into()));
}

#[test]
fn every_input_reads_back_from_the_record() {
    for input in inputs(at(1)) {
        let text = serde_json::to_string(&Written::from(&input)).expect("JSON");
        let written: Written = serde_json::from_str(&text).expect("it reads back");
        assert_eq!(written.replayed(), Some(input), "{text}");
    }
    assert!(serde_json::from_str::<Written>(r#"{"kind":"TERMINATE","fields":{"by":"NOBODY"}}"#).is_err());
}

#[test]
fn no_record_holds_more_of_a_session_than_its_core() {
    for session in everywhere().into_iter().filter(|session| session.keys() == Keys::Live) {
        let made = session.step(&quality(0), &Policy::field(), at(70_000));
        assert!(made.map_or(0, |step| step.transitions.len()) <= 1);
        assert!(STANDARD.encode(session.encode()).len() <= 1_024);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_record_of_a_story_replays(story in any_story(), junk in "\\PC{0,80}") {
        let _ = open(&junk, Hash::default());
        let policy = crate::session::tests::Story::policy();
        for (transition, now) in story.transitions() {
            let record: Record = serde_json::from_str(&Record::transition(&context(now), &transition).line()).expect("a record");
            prop_assert_eq!(replay(&record, &policy), Ok(transition));
        }
    }
}
