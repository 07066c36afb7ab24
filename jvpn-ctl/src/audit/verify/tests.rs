//! What a verification finds, case by case; the suite `record` does it at random.

use super::super::tests::{record, small};
use super::super::{Audit, Options, dir_of, newest_checkpoint, public_key};
use super::*;
use jvpn_common::event::{Record, seal};
use jvpn_common::ids::Version;

/// A record of ten lines in several segments, and its newest checkpoint.
struct Made {
    state: tempfile::TempDir,
    wanted: Wanted,
}

impl Made {
    fn of(options: Options) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let (audit, _) = Audit::open_with(state.path(), options).expect("opens");
        for _ in 0..10 {
            audit.append(record("a")).expect("written");
        }
        drop(audit);
        let dir = dir_of(state.path());
        let newest = newest_checkpoint(&dir).expect("reads").expect("one");
        let wanted = Wanted {
            segments: segments_of(&dir).expect("lists"),
            keys: vec![public_key(state.path()).expect("a key")],
            exported: vec![("shipped".into(), newest)],
            partial: false,
        };
        Self { state, wanted }
    }

    fn verify(&self) -> Report {
        verify(&self.wanted).expect("reads")
    }

    fn fault(&self) -> Fault {
        self.verify().fault.expect("a fault")
    }

    /// Changes the text of a segment.
    fn change(&self, segment: usize, change: impl FnOnce(String) -> String) {
        let file = &self.wanted.segments[segment];
        let text = std::fs::read_to_string(file).expect("reads");
        std::fs::write(file, change(text)).expect("written");
    }

    /// Takes away the checkpoints beside the segments.
    fn forget_checkpoints(&self) {
        for segment in &self.wanted.segments {
            std::fs::remove_file(sealer::file_of(segment)).expect("there");
        }
    }

    /// Writes the record anew after `change`, chain and all, as one segment.
    fn rewritten(&mut self, change: impl FnOnce(&mut Vec<Record>)) {
        let mut records = Vec::new();
        for segment in &self.wanted.segments {
            for line in std::fs::read_to_string(segment).expect("reads").lines() {
                let prev = named(line.as_bytes()).expect("chained");
                records.push(jvpn_common::event::open(line, prev).expect("chained").record);
            }
        }
        change(&mut records);
        let mut head = Hash::default();
        let mut text = String::new();
        for record in &records {
            let sealed = seal(&record.line(), head);
            head = sealed.hash;
            text.push_str(&sealed.line);
            text.push('\n');
        }
        self.forget_checkpoints();
        let (first, others) = self.wanted.segments.split_first().expect("some");
        std::fs::write(first, text).expect("written");
        others.iter().for_each(|other| std::fs::remove_file(other).expect("there"));
        self.wanted.segments.truncate(1);
    }
}

#[test]
fn an_intact_record_is_intact_and_says_what_was_not_shown() {
    let mut made = Made::of(small());
    let report = made.verify();
    assert_eq!(report.fault, None);
    assert_eq!((report.records, report.first, report.last, report.covered), (10, Some(1), Some(10), Some(10)));
    assert_eq!((report.segments, report.notes.as_slice()), (made.wanted.segments.len(), [].as_slice()));
    assert_eq!((report.keys.as_slice(), report.before), (made.wanted.keys.as_slice(), 0));
    let beside: u64 = made.wanted.segments.iter().map(|segment| checkpoints_beside(segment).len() as u64).sum();
    assert!(report.checkpoints > 1 && report.checkpoints == beside, "{report:?}: the exported one is one of {beside}");
    made.wanted.exported.clear();
    made.wanted.keys.clear();
    made.forget_checkpoints();
    let report = made.verify();
    assert!(report.is_intact());
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
}

#[test]
fn the_first_bad_record_is_named_with_its_segment_and_its_byte() {
    let made = Made::of(Options::default());
    let text = std::fs::read_to_string(&made.wanted.segments[0]).expect("reads");
    let offset: usize = text.lines().take(6).map(|line| line.len() + 1).sum();
    made.change(0, |text| {
        let (whole, rest) = text.split_at(offset);
        format!("{whole}{}", rest.replacen("SEC_FORGED_TAG", "SEC_FORGED_TAL", 1))
    });
    let fault = made.fault();
    assert_eq!((fault.record, fault.line, fault.offset), (Some(7), Some(7), Some(offset as u64)));
    assert_eq!(fault.what.code(), "CHANGED");
    assert_eq!(made.verify().records, 6);
    assert!(fault.to_string().contains("record-00000000000000000001.jsonl, record 7 (line 7, byte "), "{fault}");
}

#[test]
fn a_line_that_is_gone_doubled_or_moved_is_found_without_any_checkpoint() {
    type Change = fn(Vec<&str>) -> Vec<&str>;
    let changes: [(&str, Change); 4] = [
        ("NOT_NEXT", |mut lines| {
            lines.remove(4);
            lines
        }),
        ("NOT_NEXT", |mut lines| {
            lines.insert(4, lines[4]);
            lines
        }),
        ("NOT_NEXT", |mut lines| {
            lines.swap(4, 5);
            lines
        }),
        ("BEGINNING", |mut lines| {
            lines.remove(0);
            lines
        }),
    ];
    for (code, change) in changes {
        let mut made = Made::of(Options::default());
        made.forget_checkpoints();
        made.wanted.exported.clear();
        made.change(0, |text| change(text.lines().collect()).iter().map(|line| format!("{line}\n")).collect());
        assert_eq!(made.fault().what.code(), code);
    }
}

#[test]
fn a_record_that_was_written_anew_is_found_by_the_checkpoint_that_was_kept() {
    let mut made = Made::of(small());
    made.rewritten(|records| records[3].ts = "2026-01-02T03:04:06.000000006Z".into());
    let fault = made.fault();
    assert_eq!((fault.what.code(), fault.record), ("DIFFERS_FROM_CHECKPOINT", Some(10)));
    made.wanted.exported.clear();
    assert!(made.verify().is_intact(), "nothing else can show it");
    assert!(made.verify().notes.iter().any(|note| note.contains("no checkpoint")));
}

#[test]
fn an_end_that_was_cut_off_is_found_by_the_checkpoint_that_was_kept() {
    let made = Made::of(Options::default());
    made.change(0, |text| text.lines().take(9).map(|line| format!("{line}\n")).collect());
    assert_eq!(made.fault().what, What::Ends { last: Some(9), signed: 10, ts: signed_at(&made) });
    made.change(0, |text| text[..text.len() - 30].to_owned());
    let report = made.verify();
    assert!(report.unfinished.is_some());
    assert_eq!(report.fault.map(|fault| fault.record), Some(Some(9)));
}

fn signed_at(made: &Made) -> String {
    Checkpoint::read(&made.wanted.exported[0].1).expect("reads").checkpoint.ts
}

#[test]
fn a_record_that_was_renumbered_or_misses_a_version_is_found_even_with_a_whole_chain() {
    let mut made = Made::of(small());
    made.wanted.exported.clear();
    made.rewritten(|records| drop(records.remove(3)));
    assert_eq!(made.fault().what, What::Number { found: 5, next: 4 });
    let mut made = Made::of(small());
    made.wanted.exported.clear();
    made.rewritten(|records| {
        for (record, version) in records.iter_mut().zip([1, 2, 3, 5, 6]) {
            (record.after, record.state_version) = (Some("00".into()), Version(version));
        }
    });
    let fault = made.fault();
    assert_eq!((fault.what.code(), fault.record), ("VERSION", Some(4)));
}

#[test]
fn a_checkpoint_of_another_key_or_with_another_signature_is_a_fault() {
    let mut made = Made::of(Options::default());
    let other = tempfile::tempdir().expect("a directory");
    drop(Audit::open(other.path()).expect("opens"));
    let ours = std::mem::replace(&mut made.wanted.keys, vec![public_key(other.path()).expect("a key")]);
    assert_eq!(made.fault().what.code(), "FOREIGN_KEY");
    made.wanted.keys = ours;
    let file = sealer::file_of(&made.wanted.segments[0]);
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, text.replace("\"node\":\"gw\"", "\"node\":\"gx\"")).expect("written");
    assert_eq!(made.fault().what.code(), "SIGNATURE");
    std::fs::write(&file, "junk\n").expect("written");
    assert_eq!(made.fault().what.code(), "NOT_A_CHECKPOINT");
}

#[test]
fn a_beginning_that_is_kept_elsewhere_is_allowed_when_said() {
    let mut made = Made::of(small());
    made.wanted.segments.remove(0);
    assert_eq!(made.fault().what.code(), "BEGINNING");
    made.wanted.partial = true;
    let report = made.verify();
    assert!(report.is_intact() && report.first.is_some_and(|first| first > 1), "{report:?}");
    assert!(report.notes.iter().any(|note| note.contains("are not here")));
    drop(made.state);
}

#[test]
fn a_full_disk_and_a_restart_leave_no_false_alarm() {
    let state = tempfile::tempdir().expect("a directory");
    for round in 0..3 {
        let (audit, _) = Audit::open_with(state.path(), small()).expect("opens");
        audit.append(record("a")).expect("written");
        audit.shared.lock().segment.room = 0;
        audit.append_all(vec![record("b"), record("b")]).expect_err("full");
        audit.shared.lock().segment.room = u64::MAX;
        audit.append(record("c")).expect("room again");
        drop(audit);
        let segments = segments_of(&dir_of(state.path())).expect("lists");
        let last = segments.last().expect("some");
        let text = std::fs::read_to_string(last).expect("reads");
        // A crash in the middle of a line; the next start sets it aside.
        std::fs::write(last, format!("{text}{{\"ts\":\"2026")).expect("torn");
        let report = verify(&Wanted { segments, ..Wanted::default() }).expect("reads");
        assert_eq!(report.fault, None, "round {round}");
        assert_eq!(report.unfinished, Some(11));
    }
}

/// The checkpoints that lie beside a segment.
fn checkpoints_beside(segment: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(sealer::file_of(segment)).expect("there");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_line_without_its_end_is_forgiven_at_the_end_of_the_record_alone() {
    let mut made = Made::of(small());
    made.forget_checkpoints();
    made.wanted.exported.clear();
    let text = std::fs::read_to_string(&made.wanted.segments[0]).expect("reads");
    let whole: Vec<&str> = text.split_inclusive('\n').collect();
    let (torn, before) = whole.split_last().expect("lines");
    assert!(!before.is_empty() && made.wanted.segments.len() > 1);
    made.change(0, |text| text[..text.len() - 5].to_owned());
    let offset: usize = before.iter().map(|line| line.len()).sum();
    let fault = made.fault();
    assert_eq!((fault.what.clone(), fault.line), (What::Unfinished, Some(whole.len() as u64)));
    assert_eq!(fault.offset, Some(offset as u64));
    made.wanted.segments.truncate(1);
    let report = made.verify();
    assert_eq!((report.fault, report.unfinished), (None, Some(torn.len() as u64 - 5)));
}

#[test]
fn checkpoints_from_before_the_beginning_are_counted_apart_and_one_of_the_first_record_counts() {
    let mut made = Made::of(small());
    let early = checkpoints_beside(&made.wanted.segments[0]);
    let late = std::mem::take(&mut made.wanted.exported);
    made.wanted.exported = early.iter().map(|line| ("shipped".into(), line.clone())).collect();
    made.wanted.segments.remove(0);
    made.wanted.partial = true;
    let report = made.verify();
    assert_eq!((report.before, report.is_intact()), (early.len() as u64, true));
    // Nothing is left but the last record, which a checkpoint names.
    made.wanted.exported = late;
    let last = made.wanted.segments.pop().expect("some");
    let text = std::fs::read_to_string(&last).expect("reads");
    std::fs::write(&last, format!("{}\n", text.lines().last().expect("a line"))).expect("written");
    std::fs::remove_file(sealer::file_of(&last)).expect("there");
    made.wanted.segments = vec![last];
    let report = made.verify();
    assert_eq!((report.first, report.covered, report.checkpoints, report.before), (Some(10), Some(10), 1, 0));
    drop(made.state);
}

#[test]
fn a_gap_over_a_number_that_was_signed_is_found() {
    let mut made = Made::of(small());
    made.rewritten(|records| {
        records.truncate(9);
        let mut gap = records[8].clone().with("first_seq", "10".into()).with("last_seq", "11".into());
        (gap.event, gap.seq) = (jvpn_common::event::Event::Gap, 12);
        records.push(gap);
    });
    let fault = made.fault();
    assert_eq!((fault.what, fault.record), (What::Skipped { seq: 10 }, Some(12)));
    made.wanted.exported.clear();
    assert!(made.verify().is_intact(), "a gap that says so is one");
}

/// What the first bad line is, told line by line without stages: file's line, its offset, what it is.
fn one_by_one(segments: &[Vec<u8>]) -> Option<(usize, u64, u64, What)> {
    let (mut head, mut progress) = (None, progress::Progress::default());
    for (segment, bytes) in segments.iter().enumerate() {
        let mut offset = 0;
        for (line, number) in bytes.split_inclusive(|byte| *byte == b'\n').zip(1..) {
            let fault = |what| Some((segment, number, offset, what));
            let Some(body) = line.strip_suffix(b"\n") else { return fault(What::Unfinished) };
            let before = match head.map_or_else(|| named(body), Ok) {
                Ok(before) => before,
                Err(error) => return fault(What::Line(error)),
            };
            head = match follow(body, before) {
                Ok((hash, _)) => Some(hash),
                Err(error) => return fault(What::Line(error)),
            };
            match progress.record(body, false) {
                Ok(1) if before != Hash::default() => return fault(What::Beginning),
                Ok(_) => {}
                Err(what) => return fault(what),
            }
            offset += line.len() as u64;
        }
    }
    None
}

/// Two segments of several blocks each.
fn large() -> (tempfile::TempDir, Wanted, Vec<Vec<u8>>) {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) =
        Audit::open_with(state.path(), Options { segment_max: 3 << 20, ..Options::default() }).expect("opens");
    let long = "x".repeat(200);
    let long = || (0..20).fold(record("a"), |record, key| record.with(format!("key_{key}"), long.as_str().into()));
    audit.append_all((0..1_000).map(|_| long()).collect()).expect("written");
    drop(audit);
    let segments = segments_of(&dir_of(state.path())).expect("lists");
    let bytes: Vec<u8> = segments.iter().flat_map(|path| std::fs::read(path).expect("reads")).collect();
    // One commit is one segment: cut where the first has more than one block.
    let cut = bytes.iter().skip(2 << 20).position(|byte| *byte == b'\n').expect("a line ends") + (2 << 20) + 1;
    let paths = vec![state.path().join("record-1.jsonl"), state.path().join("record-2.jsonl")];
    let held = vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()];
    assert!(held.iter().all(|bytes| bytes.len() > 3 << 19), "each has more than one block");
    (state, Wanted { segments: paths, ..Wanted::default() }, held)
}

#[test]
fn a_record_of_many_blocks_has_the_same_first_bad_line_as_one_read_line_by_line() {
    let (_state, wanted, held) = large();
    let total: u64 = held.iter().map(|bytes| bytes.len() as u64).sum();
    for seed in 0_u64..40 {
        let mut changed = held.clone();
        // Three places at once, spread over both segments: only the first of them may be named.
        for step in 0..if seed == 0 { 0 } else { 3 } {
            let at = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17 * step) % total;
            let at = usize::try_from(at).expect("small");
            let (segment, at) = if at < held[0].len() { (0, at) } else { (1, at - held[0].len()) };
            let bytes = &mut changed[segment];
            match (seed + u64::from(step)) % 3 {
                0 => bytes[at] ^= 1,
                1 => bytes[at] = b'\n',
                _ => drop(bytes.splice(at..(at + 5_000).min(bytes.len()), [])),
            }
        }
        for (path, bytes) in wanted.segments.iter().zip(&changed) {
            std::fs::write(path, bytes).expect("written");
        }
        let report = verify(&wanted).expect("reads");
        let found = report.fault.map(|fault| {
            let segment = wanted.segments.iter().position(|path| *path == fault.file).expect("one of them");
            (segment, fault.line.expect("a line"), fault.offset.expect("a place"), fault.what)
        });
        let last_is_cut = changed[1].last() != Some(&b'\n');
        let expected = one_by_one(&changed).filter(|(.., what)| !(last_is_cut && *what == What::Unfinished));
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(seed == 0, found.is_none(), "seed {seed}");
        if seed == 0 {
            assert_eq!((report.records, report.bytes, report.segments), (1_000, total, 2));
        }
    }
}

#[test]
fn a_line_longer_than_any_record_is_named_and_not_read_to_its_end() {
    let (_state, wanted, mut held) = large();
    let end = held[0].len();
    held[0].extend(std::iter::repeat_n(b'x', 5 << 20));
    for (path, bytes) in wanted.segments.iter().zip(&held) {
        std::fs::write(path, bytes).expect("written");
    }
    let fault = verify(&wanted).expect("reads").fault.expect("a fault");
    assert_eq!((fault.what, fault.offset), (What::Unfinished, Some(end as u64)));
    assert_eq!(fault.line, Some(held[0][..end].iter().filter(|byte| **byte == b'\n').count() as u64 + 1));
}
