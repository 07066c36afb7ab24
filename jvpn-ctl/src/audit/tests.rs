//! What the record keeps: order, chain, and what happens when the disk or the process ends in the middle.

use super::*;
use crate::observe::fanout::Taken;
use jvpn_common::event::{Checkpoint, Event, Hash, Severity, open};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::time::Instant as Boot;
use std::ops::ControlFlow;

pub(super) fn record(peer: &str) -> Record {
    let ts = "2026-01-02T03:04:05.000000006Z";
    let context = Context { ts, at: Boot(7), node: "gw", seq: 0, peer };
    let mut record = Record::plain(&context, Event::SecurityEvent);
    record.session_id = Some(SessionId([u8::try_from(peer.len()).expect("short"); 16]));
    record.reason = Some(Reason::SecForgedTag);
    record
}

fn lines(state: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    read(&dir_of(state), &Filter::default(), |line, _| {
        lines.push(line.to_owned());
        ControlFlow::Continue(())
    })
    .expect("reads");
    lines
}

/// The numbers of the record, after checking its chain from the first line to the last.
fn chained(state: &Path) -> Vec<u64> {
    let mut head = Hash::default();
    let mut numbers = Vec::new();
    for line in lines(state) {
        let unsealed = open(&line, head).expect("chained");
        head = unsealed.hash;
        numbers.push(unsealed.record.seq);
    }
    numbers
}

/// Segments of a few lines.
pub(super) fn small() -> Options {
    Options { segment_max: 1_500, ..Options::default() }
}

fn newest(state: &Path) -> PathBuf {
    segment::list(&dir_of(state)).expect("lists").pop().expect("one")
}

#[test]
fn records_are_numbered_chained_and_go_on_after_a_restart() {
    let state = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let (audit, found) = Audit::open(state.path()).expect("opens");
        assert_eq!(found.torn, None);
        audit.append(record("a")).expect("written");
        audit.append(record("b")).expect("written");
    }
    assert_eq!(chained(state.path()), [1, 2, 3, 4]);
}

#[test]
fn a_record_is_in_the_file_when_append_returns() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    for number in 1..=20 {
        assert_eq!(audit.append(record("a")).expect("written"), number);
        assert_eq!(lines(state.path()).len() as u64, number);
    }
}

#[tokio::test]
async fn waiting_for_the_disk_ends_once_it_has_the_record() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    let first = audit.append(record("a")).expect("written");
    let second = audit.append(record("a")).expect("written");
    audit.wait_synced(second).await.expect("synced");
    audit.wait_synced(first).await.expect("synced before");
    assert!(audit.shared.synced.borrow().seq >= second);
}

#[test]
fn a_torn_tail_is_moved_aside_and_the_chain_goes_on() {
    for tail in [&b"{\"ts\":\"20"[..], b"\0\0\0\0", b"{\"not\":\"ours\"}\n", b"\xff\xfe\n"] {
        let state = tempfile::tempdir().expect("a directory");
        let (audit, _) = Audit::open(state.path()).expect("opens");
        audit.append(record("a")).expect("written");
        drop(audit);
        let file = newest(state.path());
        let mut bytes = std::fs::read(&file).expect("reads");
        bytes.extend_from_slice(tail);
        std::fs::write(&file, bytes).expect("torn");
        let (audit, found) = Audit::open(state.path()).expect("opens");
        let (length, side) = found.torn.expect("reported");
        assert_eq!(length, tail.len() as u64);
        assert_eq!(std::fs::read(side).expect("kept"), tail);
        audit.append(record("b")).expect("written");
        assert_eq!(chained(state.path()), [1, 2]);
    }
}

#[test]
fn a_line_cut_in_its_middle_costs_that_line_only() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    for _ in 0..3 {
        audit.append(record("a")).expect("written");
    }
    drop(audit);
    let file = newest(state.path());
    let bytes = std::fs::read(&file).expect("reads");
    std::fs::write(&file, &bytes[..bytes.len() - 10]).expect("torn");
    let (_audit, found) = Audit::open(state.path()).expect("opens");
    assert_eq!(found.next_seq, 3);
    assert!(found.torn.is_some());
    assert_eq!(chained(state.path()), [1, 2]);
}

#[test]
fn a_full_disk_is_an_error_and_the_gap_is_a_record_when_there_is_room_again() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    audit.append(record("a")).expect("written");
    let before = lines(state.path());
    audit.shared.lock().segment.room = 0;
    for _ in 0..3 {
        assert!(audit.append(record("b")).expect_err("full").is_full());
    }
    assert!(audit.is_failing());
    assert_eq!(lines(state.path()), before, "nothing half written");
    audit.shared.lock().segment.room = u64::MAX;
    audit.append(record("c")).expect("room again");
    assert!(!audit.is_failing());
    assert_eq!(chained(state.path()), [1, 5, 6]);
    let all = lines(state.path());
    assert!(all[1].contains("\"event\":\"GAP\""), "{}", all[1]);
    assert!(
        all[1].contains("\"count\":3")
            && all[1].contains("\"first_seq\":\"2\"")
            && all[1].contains("\"last_seq\":\"4\"")
    );
}

#[test]
fn after_a_full_disk_the_record_goes_on_even_when_nothing_happens() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    let resume = || audit.resume("2026-01-02T03:04:05Z", Boot(9), "gw");
    resume().expect("nothing to do");
    assert_eq!(lines(state.path()), Vec::<String>::new(), "a record that lost nothing has no GAP");
    audit.append(record("a")).expect("written");
    audit.shared.lock().segment.room = 0;
    audit.append(record("b")).expect_err("full");
    assert!(resume().expect_err("still full").is_full());
    assert!(audit.is_failing());
    audit.shared.lock().segment.room = u64::MAX;
    resume().expect("room again");
    assert!(!audit.is_failing());
    audit.append(record("c")).expect("written");
    assert_eq!(chained(state.path()), [1, 3, 4]);
    let all = lines(state.path());
    assert!(all[1].contains("\"event\":\"GAP\"") && all[1].contains("\"count\":1"), "{}", all[1]);
}

#[test]
fn segments_change_at_their_size_and_the_chain_runs_through() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open_with(state.path(), small()).expect("opens");
    for _ in 0..10 {
        audit.append(record("a")).expect("written");
    }
    drop(audit);
    assert!(segment::list(&dir_of(state.path())).expect("lists").len() > 2);
    assert_eq!(chained(state.path()), (1..=10).collect::<Vec<_>>());
    let (_audit, found) = Audit::open_with(state.path(), small()).expect("opens");
    assert_eq!(found.next_seq, 11);
}

#[test]
fn a_filter_keeps_what_was_asked_for_and_nothing_else() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    audit.append(record("a")).expect("written");
    audit.append(record("bb")).expect("written");
    let count = |filter: &Filter| {
        let mut count = 0;
        read(&dir_of(state.path()), filter, |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .expect("reads");
        count
    };
    assert_eq!(count(&Filter { session: Some(SessionId([2; 16])), ..Filter::default() }), 1);
    assert_eq!(count(&Filter { reason: Some(Reason::SecForgedTag), ..Filter::default() }), 2);
    assert_eq!(count(&Filter { reason: Some(Reason::SecInnerSpoof), ..Filter::default() }), 0);
    let after = "2026-01-02T03:04:06Z".parse().expect("a time");
    assert_eq!(count(&Filter { since: Some(after), ..Filter::default() }), 0);
    assert_eq!(count(&Filter { until: Some(after), ..Filter::default() }), 2);
    let before = "2026-01-02T03:04:05Z".parse().expect("a time");
    assert_eq!(count(&Filter { until: Some(before), ..Filter::default() }), 0);
    assert_eq!(count(&Filter { since: Some(before), ..Filter::default() }), 2);
    assert_eq!(count(&Filter { peer: Some("bb".into()), ..Filter::default() }), 1);
    assert_eq!(count(&Filter { peer: Some("b".into()), ..Filter::default() }), 0);
    assert_eq!(count(&Filter { severity: Some(Severity::Medium), ..Filter::default() }), 2);
    assert_eq!(count(&Filter { severity: Some(Severity::High), ..Filter::default() }), 0);
    let found = |prefix: &str, most| sessions(&dir_of(state.path()), prefix, most).expect("reads").len();
    assert_eq!((found("0", 9), found("0", 1), found("02", 9), found("03", 9)), (2, 1, 1, 0));
    let steps = history(&dir_of(state.path()), SessionId([1; 16])).expect("reads");
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].reason.as_deref(), Some("SEC_FORGED_TAG"));
}

#[test]
fn a_reader_of_the_stream_sees_each_line_once_and_the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    let stream = audit.feed().subscribe(Sink::Api).expect("room");
    audit.append(record("a")).expect("written");
    assert_eq!(stream.try_take(), Some(Taken::Line(lines(state.path())[0].clone().into())));
    assert_eq!(stream.try_take(), None);
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir_of(state.path())), mode(&newest(state.path()))), (0o700, 0o600));
}

/// Every checkpoint of a record, signature verified.
fn checkpoints(state: &Path) -> Vec<Checkpoint> {
    let key = public_key(state).expect("a key");
    let lines = sealer::lines_of(&segment::list(&dir_of(state)).expect("lists")).expect("reads");
    let read = |(_, line): &(PathBuf, String)| {
        let signed = Checkpoint::read(line).expect("a checkpoint");
        assert!(key.verifies(&signed), "{line}");
        signed.checkpoint
    };
    lines.iter().map(read).collect()
}

/// Hash of the record of each number.
fn heads(state: &Path) -> std::collections::BTreeMap<u64, Hash> {
    let mut head = Hash::default();
    let each = |line: &String| {
        let unsealed = open(line, head).expect("chained");
        head = unsealed.hash;
        (unsealed.record.seq, unsealed.hash)
    };
    lines(state).iter().map(each).collect()
}

#[test]
fn the_end_is_signed_when_the_record_is_closed_and_only_if_it_grew() {
    let state = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let (audit, _) = Audit::open(state.path()).expect("opens");
        audit.append(record("a")).expect("written");
    }
    drop(Audit::open(state.path()).expect("opens"));
    let made = checkpoints(state.path());
    let heads = heads(state.path());
    assert_eq!(made.last().map(|last| (last.seq, last.head, last.node.as_str())), Some((2, heads[&2], "gw")));
    assert!(made.iter().all(|checkpoint| heads[&checkpoint.seq] == checkpoint.head));
    assert!(made.windows(2).all(|pair| pair[0].seq < pair[1].seq), "{made:?}");
    let newest = newest_checkpoint(&dir_of(state.path())).expect("reads").expect("one");
    assert_eq!(Checkpoint::read(&newest).map(|signed| signed.checkpoint).as_ref(), made.last());
}

#[test]
fn every_segment_that_is_left_behind_ends_with_a_checkpoint() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open_with(state.path(), small()).expect("opens");
    for _ in 0..10 {
        audit.append(record("a")).expect("written");
    }
    let segments = segment::list(&dir_of(state.path())).expect("lists");
    assert!(segments.len() > 3);
    let numbers = |segment: &PathBuf| {
        let text = std::fs::read_to_string(segment).expect("reads");
        let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["seq"].clone();
        text.lines().map(number).collect::<Vec<_>>()
    };
    let (_, left) = segments.split_last().expect("some");
    for segment in left {
        let made = sealer::lines_of(std::slice::from_ref(segment)).expect("reads");
        let last = made.last().and_then(|(_, line)| Checkpoint::read(line)).expect("a checkpoint");
        assert_eq!(numbers(segment).last(), Some(&last.checkpoint.seq.to_string().into()));
    }
    drop(audit);
    assert_eq!(checkpoints(state.path()).last().map(|last| last.seq), Some(10));
}

#[tokio::test]
async fn a_record_that_grows_is_signed_while_it_does_and_what_is_signed_is_on_the_disk() {
    let state = tempfile::tempdir().expect("a directory");
    let options = Options { checkpoint_every: Duration::from_millis(1), ..Options::default() };
    let (audit, _) = Audit::open_with(state.path(), options).expect("opens");
    let file = dir_of(state.path()).join("checkpoint-00000000000000000001.jsonl");
    let mut seen = 0;
    while seen < 3 {
        let seq = audit.append(record("a")).expect("written");
        audit.wait_synced(seq).await.expect("synced");
        let newest = newest_checkpoint(&dir_of(state.path())).expect("reads");
        let signed = newest.as_deref().and_then(Checkpoint::read).map_or(0, |signed| signed.checkpoint.seq);
        assert!(signed <= seq);
        seen = std::fs::read_to_string(&file).map_or(0, |text| text.lines().count());
    }
    let heads = heads(state.path());
    assert!(checkpoints(state.path()).iter().all(|checkpoint| heads[&checkpoint.seq] == checkpoint.head));
}

#[test]
fn a_checkpoint_that_was_cut_off_is_taken_away_before_the_next_is_written() {
    let state = tempfile::tempdir().expect("a directory");
    let file = dir_of(state.path()).join("checkpoint-00000000000000000001.jsonl");
    for tail in ["{\"schema\":", "\0\0\0", "junk\n\0"] {
        let (audit, _) = Audit::open(state.path()).expect("opens");
        audit.append(record("a")).expect("written");
        drop(audit);
        let text = std::fs::read_to_string(&file).expect("reads");
        std::fs::write(&file, format!("{text}{tail}")).expect("torn");
    }
    let (audit, _) = Audit::open(state.path()).expect("opens");
    audit.append(record("a")).expect("written");
    drop(audit);
    assert_eq!(checkpoints(state.path()).last().map(|last| last.seq), Some(4));
}

#[test]
fn the_records_of_one_commit_are_written_together_or_not_at_all() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    assert_eq!(audit.append_all(vec![record("a"), record("b")]).expect("written"), 2);
    let before = lines(state.path());
    let room = before.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
    // Room for the first of the two only.
    audit.shared.lock().segment.room = room + room * 2 / 3;
    assert!(audit.append_all(vec![record("a"), record("b")]).expect_err("full").is_full());
    assert_eq!(lines(state.path()), before);
    audit.shared.lock().segment.room = u64::MAX;
    assert_eq!(audit.append(record("c")).expect("room again"), 6);
    assert_eq!(chained(state.path()), [1, 2, 5, 6]);
    let gap = &lines(state.path())[2];
    assert!(gap.contains("\"first_seq\":\"3\"") && gap.contains("\"last_seq\":\"4\""), "{gap}");
}

#[test]
fn records_taken_away_behind_a_checkpoint_are_a_gap_at_the_next_start() {
    let state = tempfile::tempdir().expect("a directory");
    {
        let (audit, _) = Audit::open(state.path()).expect("opens");
        for _ in 0..5 {
            audit.append(record("a")).expect("written");
        }
    }
    let all = std::fs::read_to_string(newest(state.path())).expect("lines");
    let first_two: String = all.split_inclusive('\n').take(2).collect();
    std::fs::write(newest(state.path()), first_two).expect("cut");
    let (audit, found) = Audit::open(state.path()).expect("opens");
    assert_eq!((found.next_seq, found.torn), (3, None), "it ends with a whole line");
    assert_eq!(audit.append(record("a")).expect("written"), 7);
    assert_eq!(chained(state.path()), [1, 2, 6, 7]);
    let gap: serde_json::Value = serde_json::from_str(&lines(state.path())[2]).expect("JSON");
    assert_eq!(
        (&gap["event"], &gap["details"]["first_seq"], &gap["details"]["last_seq"]),
        (&"GAP".into(), &"3".into(), &"5".into())
    );
    drop(audit);
    std::fs::remove_file(newest(state.path())).expect("gone");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    assert_eq!(audit.append(record("a")).expect("written"), 9, "also when no line is left");
}
