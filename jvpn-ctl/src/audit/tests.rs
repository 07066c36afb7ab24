//! What the record keeps: order, chain, and what happens when the disk or the process ends in the middle.

use super::*;
use jvpn_common::event::open;
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::time::Instant as Boot;
use std::ops::ControlFlow;

fn record(peer: &str) -> Record {
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
    let (audit, _) = Audit::open_with(state.path(), 1_500).expect("opens");
    for _ in 0..10 {
        audit.append(record("a")).expect("written");
    }
    drop(audit);
    assert!(segment::list(&dir_of(state.path())).expect("lists").len() > 2);
    assert_eq!(chained(state.path()), (1..=10).collect::<Vec<_>>());
    let (_audit, found) = Audit::open_with(state.path(), 1_500).expect("opens");
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
    let steps = history(&dir_of(state.path()), SessionId([1; 16])).expect("reads");
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].reason.as_deref(), Some("SEC_FORGED_TAG"));
}

#[test]
fn a_reader_of_the_stream_sees_each_line_once_and_the_files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open(state.path()).expect("opens");
    let mut stream = audit.feed().subscribe();
    audit.append(record("a")).expect("written");
    assert_eq!(stream.try_recv().expect("a line").as_ref(), lines(state.path())[0]);
    assert!(stream.try_recv().is_err());
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir_of(state.path())), mode(&newest(state.path()))), (0o700, 0o600));
}
