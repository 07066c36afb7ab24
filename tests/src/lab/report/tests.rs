//! Documents and their raw files, made by hand. Never runs a lab.

use super::*;
use crate::lab::act::Tcp;
use crate::lab::record::{Record, Session};

const FAULT: u64 = 10_000_000_000;
const MS: u64 = 1_000_000;

fn trace(silent_ms: u64) -> Trace {
    let mut trace = Trace::default();
    for sequence in 0..6_000 {
        let at_ns = FAULT - 1_000 * MS + sequence * MS;
        trace.sent.push(Sent { sequence, at_ns });
        if !(FAULT..FAULT + silent_ms * MS).contains(&at_ns) {
            trace.arrived.push(Arrived { sequence, sent_ns: at_ns, at_ns: at_ns + MS / 5 });
        }
    }
    let copy = trace.arrived[2_000];
    trace.arrived.insert(2_003, copy);
    trace.arrived.swap(3_000, 3_001);
    trace
}

fn evidence() -> Evidence {
    let session = |version, transport: &str| Session {
        id: "5e55".into(),
        state: "ATTACHED".into(),
        state_version: version,
        transport: Some(transport.into()),
        addresses: vec!["10.77.0.17".into()],
    };
    let transition = |version, reason: &str, to: &str| Record {
        event: "STATE_CHANGE".into(),
        to: Some(to.into()),
        reason: Some(reason.into()),
        state_version: Some(version),
        ..Record::default()
    };
    Evidence {
        act: "silent_death".into(),
        fault_ns: FAULT,
        done: "path-a silenced".into(),
        session_before: session(7, "path-a"),
        session_after: session(9, "path-b"),
        addresses_before: vec!["10.77.0.17".into()],
        addresses_after: vec!["10.77.0.17".into()],
        records: vec![transition(8, "RECOVERY_START", "RECOVERING"), transition(9, "REATTACH_ACCEPT", "ATTACHED")],
        tcp: Tcp { alive: true, same_connection: true, advanced_before: true, advanced_after: true },
        noticed_ms: None,
        back: true,
        relay: None,
    }
}

fn report(silent_ms: u64) -> ActReport {
    let traces = [trace(silent_ms), trace(10)];
    let act = act::named("silent_death").expect("an act of this name");
    ActReport::new(act, &evidence(), &account(&traces, FAULT))
}

#[test]
fn the_document_is_recomputed_from_the_raw_files() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let traces = [(Direction::Up, trace(90)), (Direction::Down, trace(10))];
    write_act(directory.path(), &evidence(), &traces).expect("raw files");
    let recomputed = recompute(directory.path(), "silent_death").expect("recomputed report");
    assert_eq!(recomputed, report(90));
    assert_eq!((recomputed.outage_ms, recomputed.lost, recomputed.duplicated), (90.0, 100, 2));
}

#[test]
fn a_document_that_differs_from_its_raw_files_is_found() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let traces = [(Direction::Up, trace(90)), (Direction::Down, trace(10))];
    write_act(directory.path(), &evidence(), &traces).expect("raw files");
    let mut document = Document::new("off", vec![report(90)], vec![DownloadReport::default()], Vec::new());
    let file = directory.path().join("demo.json");
    fs::write(&file, serde_json::to_string(&document).expect("JSON")).expect("written");
    assert_eq!(verify(directory.path()).expect("verified"), ["silent_death"]);
    document.acts[0].lost -= 1;
    fs::write(&file, serde_json::to_string(&document).expect("JSON")).expect("written");
    assert!(verify(directory.path()).is_err());
}

#[test]
fn one_broken_promise_or_a_wrong_download_breaks_the_document() {
    let finished = |sha256_right| DownloadReport {
        finished: Some(Finished { bytes: 1, sha256: String::new(), sha256_right }),
        connections: 1,
        ..DownloadReport::default()
    };
    assert!(Document::new("off", vec![report(90)], vec![finished(true)], Vec::new()).pass);
    assert!(!Document::new("off", vec![report(90), report(201)], vec![finished(true)], Vec::new()).pass);
    assert!(!Document::new("off", vec![report(90)], vec![finished(false)], Vec::new()).pass);
    assert!(
        !Document::new("off", vec![report(90)], vec![DownloadReport { connections: 2, ..finished(true) }], Vec::new())
            .pass
    );
    assert!(!Document::new("off", Vec::new(), vec![finished(true)], Vec::new()).pass);
}

#[test]
fn the_document_has_the_promised_fields() {
    let document = Document::new("native", vec![report(90)], vec![DownloadReport::default()], Vec::new());
    let value = serde_json::to_value(&document).expect("JSON");
    assert_eq!(value["schema"], "jvpn.demo/1");
    for field in [
        "name",
        "promise",
        "pass",
        "outage_ms",
        "lost",
        "duplicated",
        "states",
        "reasons",
        "versions",
        "session_id_before",
        "session_id_after",
        "tcp_alive",
    ] {
        assert!(!value["acts"][0][field].is_null(), "{field}");
    }
    assert_eq!(value["acts"][0]["states"], serde_json::json!(["ATTACHED", "RECOVERING", "ATTACHED"]));
}

#[test]
fn people_see_broken_promises_and_unplayed_acts() {
    let act = act::named("restart").expect("an act of this name");
    let unplayed = ActReport::failed(act, &anyhow::anyhow!("serve did not start"));
    let text = Document::new("off", vec![report(300), unplayed], vec![DownloadReport::default()], Vec::new()).human();
    assert!(text.contains("BROKEN  outage at most 200 ms: 300.0 ms"), "{text}");
    assert!(text.contains("serve did not start") && text.contains("A PROMISE WAS BROKEN"), "{text}");
}

#[test]
fn the_document_has_the_fields_of_its_schema_with_their_types() {
    let document = Document::new("off", vec![report(80)], vec![DownloadReport::default()], Vec::new());
    let json = serde_json::to_value(&document).expect("JSON");
    assert_eq!(json["schema"], "jvpn.demo/1");
    let act = &json["acts"][0];
    let strings = ["name", "promise", "session_id_before", "session_id_after"];
    assert!(strings.iter().all(|field| act[field].is_string()), "{act:#}");
    assert!(["pass", "tcp_alive"].iter().all(|field| act[field].is_boolean()), "{act:#}");
    assert!(["lost", "duplicated"].iter().all(|field| act[field].is_u64()) && act["outage_ms"].is_f64(), "{act:#}");
    assert!(["states", "reasons", "versions"].iter().all(|field| act[field].is_array()), "{act:#}");
}

#[test]
fn a_person_reads_words_and_no_debug_text() {
    let text = Document::new("off", vec![report(80)], vec![DownloadReport::default()], Vec::new()).human();
    for debug in ["{ ", "true", "false", "(s)", "[8, 9]"] {
        assert!(!text.contains(debug), "`{debug}` in {text}");
    }
    assert!(text.contains("versions 8, 9") && text.contains("alive, the same connection"), "{text}");
}
