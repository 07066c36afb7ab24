//! Records that somebody tampered with, at random: whatever was done before the last exported checkpoint is found, and
//! an intact record never raises an alarm.
//!
//! Owns the tampers and the size of the run. `JVPN_SEED=n` does one tamper again. `JVPN_TEST_SIZE=long` does 10,000.

#[path = "record/sinks.rs"]
mod sinks;

use jvpn_common::event::{Context, Event, Hash, Record, named, open, seal};
use jvpn_common::ids::{OwnerEpoch, SessionId};
use jvpn_common::session::{Birth, Ender, Input, Policy, Session};
use jvpn_common::time::Instant;
use jvpn_ctl::audit::verify::{Report, Wanted, segments_of, verify};
use jvpn_ctl::audit::{Audit, Options, dir_of, newest_checkpoint, public_key};
use jvpn_tests::size;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tampers of continuous integration and of the long size.
const TAMPERS: (u64, u64) = (500, 10_000);
/// Records of the record that is tampered with; half of them before the exported checkpoint.
const RECORDS: u64 = 120;
/// Records of one made anew for a run without a tamper, with crashes and full disks in it.
const INTACT: (u64, u64) = (20, 200);

/// A small generator of our own: the same seed does the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below")
    }
}

/// The records of one short life, as a gateway writes them.
fn life(number: u64) -> Vec<Record> {
    let at = Instant(number * 1_000_000_000);
    let ts = format!("2026-01-02T03:{:02}:{:02}.000000006Z", number / 60 % 60, number % 60);
    let peer = format!("till-{number}");
    let context = Context { ts: &ts, at, node: "gw-1", seq: 0, peer: &peer };
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let policy = Policy::field();
    let born = Session::born(Birth { id: SessionId(id), peer: [9; 32], owner_epoch: OwnerEpoch(1) }, &policy, at);
    let end = born.step(&Input::Terminate { by: Ender::Operator }, &policy, at).expect("a life may end");
    let moves = end.transitions.iter().map(|transition| Record::transition(&context, transition));
    let ends = end.effects.iter().filter_map(|effect| Record::ended(&context, &end.session, effect));
    let mut records: Vec<_> = moves.chain(ends).collect();
    if number.is_multiple_of(5) {
        records.push(Record::policy(&context, &policy));
        records.push(Record::plain(&context, Event::SecurityEvent).with("what", "a \"quoted\" \\ text".into()));
    }
    records
}

/// A record on disk, and the checkpoint that was taken out in its middle.
struct Made {
    state: tempfile::TempDir,
    exported: String,
    /// Records the exported checkpoint covers.
    covered: u64,
}

fn made() -> Made {
    let state = tempfile::tempdir().expect("a directory");
    let options = Options { segment_max: 24 << 10, ..Options::default() };
    let mut exported = None;
    let mut number = 0;
    for half in 1..=2 {
        let (audit, _) = Audit::open_with(state.path(), options).expect("opens");
        let mut last = 0;
        while last < RECORDS / 2 * half {
            number += 1;
            last = audit.append_all(life(number)).expect("written");
        }
        drop(audit);
        // What a gateway that was stopped here had shipped.
        exported = exported.or_else(|| Some((newest_checkpoint(&dir_of(state.path())).expect("reads")?, last)));
    }
    let (exported, covered) = exported.expect("a checkpoint");
    Made { state, exported, covered }
}

/// What a tamper is done to: lines, by segment.
type Lines = Vec<Vec<Vec<u8>>>;

fn read(dir: &Path) -> (Vec<PathBuf>, Lines) {
    let segments = segments_of(dir).expect("lists");
    let lines = |path: &PathBuf| {
        let bytes = std::fs::read(path).expect("reads");
        bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    let lines = segments.iter().map(lines).collect();
    (segments, lines)
}

const KINDS: [&str; 8] =
    ["flip", "delete", "swap", "duplicate", "splice", "cut tail", "recomputed chain", "edited time"];

/// Where a line is, counted through all segments.
fn place(lines: &Lines, mut index: usize) -> (usize, usize) {
    for (segment, held) in lines.iter().enumerate() {
        if index < held.len() {
            return (segment, index);
        }
        index -= held.len();
    }
    panic!("no such line");
}

/// Tampers with something before `covered`; says what was done.
fn tamper(kind: &str, lines: &mut Lines, covered: usize, dice: &mut Dice) -> String {
    let at = dice.below(covered);
    let (segment, index) = place(lines, at);
    match kind {
        "flip" => {
            let line = &mut lines[segment][index];
            let (byte, bit) = (dice.below(line.len()), dice.below(8));
            line[byte] ^= 1 << bit;
            format!("bit {bit} of byte {byte} of line {at}")
        }
        "delete" => {
            lines[segment].remove(index);
            format!("line {at}")
        }
        "swap" => {
            let mut other = dice.below(covered);
            if other == at {
                other = (at + 1) % covered;
            }
            let (there, further) = place(lines, other);
            let line = lines[segment][index].clone();
            lines[segment][index] = std::mem::replace(&mut lines[there][further], line);
            format!("lines {at} and {other}")
        }
        "duplicate" => {
            let line = lines[segment][index].clone();
            lines[segment].insert(index, line);
            format!("line {at}")
        }
        "splice" => {
            let (there, further) = place(lines, dice.below(covered));
            let line = lines[there][further].clone();
            let cut = dice.below(line.len().min(lines[segment][index].len()) - 2) + 1;
            let spliced: Vec<u8> = lines[segment][index][..cut].iter().chain(&line[cut..]).copied().collect();
            let same = spliced == lines[segment][index];
            if same {
                lines[segment][index].truncate(cut);
            } else {
                lines[segment][index] = spliced;
            }
            format!("line {at} from byte {cut}")
        }
        "cut tail" => {
            lines.truncate(segment + 1);
            lines[segment].truncate(index + 1);
            let line = &mut lines[segment][index];
            line.truncate(dice.below(line.len()));
            format!("after {} bytes of line {at}", line.len())
        }
        "recomputed chain" | "edited time" => {
            let to = if kind == "edited time" { "2026-01-02T03:59:59.999999999Z" } else { "" };
            recompute(lines, segment, index, to);
            format!("from line {at}")
        }
        other => panic!("no kind {other}"),
    }
}

/// Changes one record and writes every hash after it anew, as somebody would who knows how.
fn recompute(lines: &mut Lines, segment: usize, index: usize, time: &str) {
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("text").trim_end().to_owned();
    let first = text(&lines[segment][index]);
    let mut head = named(first.as_bytes()).expect("chained");
    for (number, held) in lines.iter_mut().enumerate().skip(segment) {
        for (at, line) in held.iter_mut().enumerate().skip(if number == segment { index } else { 0 }) {
            let whole = text(line);
            let mut record = open(&whole, named(whole.as_bytes()).expect("chained")).expect("whole").record;
            if (number, at) == (segment, index) {
                match time {
                    "" => record.peer.push('x'),
                    time => record.ts = time.to_owned(),
                }
            }
            let sealed = seal(&record.line(), head);
            head = sealed.hash;
            *line = format!("{}\n", sealed.line).into_bytes();
        }
    }
}

/// Writes the record of `lines` into a directory of its own, with what an attacker leaves of the checkpoints.
fn written(made: &Made, segments: &[PathBuf], lines: &Lines, keep_checkpoints: bool) -> (tempfile::TempDir, Report) {
    let dir = tempfile::tempdir().expect("a directory");
    for (path, held) in segments.iter().zip(lines) {
        let name = path.file_name().expect("a name").to_str().expect("text");
        std::fs::write(dir.path().join(name), held.concat()).expect("written");
        let beside = name.replacen("record-", "checkpoint-", 1);
        let from = path.with_file_name(&beside);
        if keep_checkpoints && from.exists() {
            std::fs::copy(from, dir.path().join(beside)).expect("copied");
        }
    }
    let wanted = Wanted {
        segments: segments_of(dir.path()).expect("lists"),
        keys: vec![public_key(made.state.path()).expect("a key")],
        exported: vec![("shipped.jsonl".into(), made.exported.clone())],
        partial: false,
    };
    let report = verify(&wanted).expect("reads");
    (dir, report)
}

#[test]
fn every_tamper_before_the_last_exported_checkpoint_is_found() {
    let made = made();
    let (segments, lines) = read(&dir_of(made.state.path()));
    assert!(segments.len() > 3 && lines.iter().map(Vec::len).sum::<usize>() as u64 >= RECORDS);
    let covered = usize::try_from(made.covered).expect("few");
    let (_dir, intact) = written(&made, &segments, &lines, true);
    assert_eq!(intact.fault, None, "an alarm about an intact record");
    let only = std::env::var("JVPN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(1..=size::of(TAMPERS.0, TAMPERS.1), |seed: u64| seed..=seed);
    let mut found = [0_u64; KINDS.len()];
    for seed in seeds {
        let mut dice = Dice(seed);
        let which = dice.below(KINDS.len());
        let mut changed = lines.clone();
        let done = tamper(KINDS[which], &mut changed, covered, &mut dice);
        assert!(changed != lines, "seed {seed} changed nothing");
        // Half of them also take the checkpoints beside the segments away.
        let (_dir, report) = written(&made, &segments, &changed, dice.next().is_multiple_of(2));
        let fault = report.fault.unwrap_or_else(|| panic!("seed {seed}: {} of {done} was not found", KINDS[which]));
        assert!(fault.record.is_some_and(|record| record <= made.covered + 1), "seed {seed}: named too late: {fault}");
        found[which] += 1;
    }
    println!("tampers found: {:?}", KINDS.iter().zip(found).collect::<Vec<_>>());
    assert!(only.is_some() || found.iter().all(|count| *count > 0), "a kind was never tried: {found:?}");
}

#[test]
fn a_record_that_went_through_restarts_and_torn_tails_raises_no_alarm() {
    for seed in 1..=size::of(INTACT.0, INTACT.1) {
        let state = tempfile::tempdir().expect("a directory");
        let mut dice = Dice(seed);
        let mut shipped = Vec::new();
        let mut number = 0;
        for _ in 0..4 {
            let options = Options {
                segment_max: 4_096 << dice.below(4),
                checkpoint_every: Duration::from_millis(dice.next() % 3),
            };
            let (audit, _) = Audit::open_with(state.path(), options).expect("opens");
            for _ in 0..dice.below(8) {
                number += 1;
                audit.append_all(life(number)).expect("written");
            }
            drop(audit);
            shipped.extend(newest_checkpoint(&dir_of(state.path())).expect("reads"));
            // A crash in the middle of a line that was never acknowledged.
            if let (Some(last), true) =
                (segments_of(&dir_of(state.path())).expect("lists").last(), dice.next().is_multiple_of(2))
            {
                let mut bytes = std::fs::read(last).expect("reads");
                bytes.extend_from_slice(b"{\"ts\":\"2026-01-02T03:04:05.00000"[..dice.below(30) + 1].as_ref());
                std::fs::write(last, bytes).expect("torn");
            }
            let wanted = Wanted {
                segments: segments_of(&dir_of(state.path())).expect("lists"),
                keys: vec![public_key(state.path()).expect("a key")],
                exported: shipped.iter().map(|line| (PathBuf::from("shipped.jsonl"), line.clone())).collect(),
                partial: false,
            };
            let report = verify(&wanted).expect("reads");
            assert_eq!(report.fault, None, "seed {seed}");
        }
    }
}

#[test]
fn a_hash_that_is_all_zero_starts_the_record_and_nothing_else() {
    let made = made();
    let (segments, mut lines) = read(&dir_of(made.state.path()));
    // The second half alone, renumbered by nobody: it must not pass for a whole record.
    lines.remove(0);
    let (_dir, report) = written(&made, &segments[1..], &lines, false);
    assert!(report.fault.is_some_and(|fault| fault.what.code() == "BEGINNING"));
    assert_eq!(Hash::default().to_string(), "0".repeat(64));
}
