//! What was seen: rows of the table, reasons, faults, messages, verdicts.
//!
//! Owns the counts that a run prints and fails on when one is zero, and the trace of one seed. Must never
//! influence a run.

use crate::rows::row_name;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::verdict::Verdict;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Lines of a trace that are kept.
const LINES_MAX: usize = 400;

/// Counts of a run.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    /// Rows of the transition table.
    pub rows: BTreeMap<usize, u64>,
    /// Those of them whose record replayed; births that fail are in no record and count as the engine took them.
    pub recorded: BTreeMap<usize, u64>,
    /// Reason codes in records.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Kinds of faults.
    pub faults: BTreeMap<&'static str, u64>,
    /// Kinds of messages.
    pub messages: BTreeMap<&'static str, u64>,
    /// The client's own events.
    pub client_events: BTreeMap<&'static str, u64>,
    /// Verdicts of the packet path.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// What the gateway engine dropped, by name.
    pub drops: BTreeMap<String, u64>,
    /// How much time passed in the runs.
    pub simulated: Duration,
    /// Inputs of all engines.
    pub inputs: u64,
    /// Inputs of the smallest run.
    pub least: Option<u64>,
    /// Records of transitions.
    pub transitions: u64,
    /// Those that were replayed from `before` and reached `after`.
    pub replayed: u64,
    /// Hash over everything that happened.
    pub trace: u64,
    /// Whether lines are kept.
    pub verbose: bool,
    /// The last lines.
    pub lines: VecDeque<String>,
}

impl Cover {
    /// A message was seen.
    pub fn message(&mut self, name: &'static str) {
        *self.messages.entry(name).or_default() += 1;
    }

    /// A fault happened.
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    /// The client told something.
    pub fn client_event(&mut self, name: &'static str) {
        *self.client_events.entry(name).or_default() += 1;
    }

    /// Something happened, for the trace.
    pub fn step(&mut self, now: Instant, what: u64, bytes: &[u8]) {
        self.inputs += 1;
        let mut hash = self.trace ^ now.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what;
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
            hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(7);
        }
        self.trace = hash;
    }

    /// A line of the trace, made only when somebody reads it.
    pub fn note(&mut self, now: Instant, line: impl FnOnce() -> String) {
        if self.verbose {
            if self.lines.len() == LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{now:?} {}", line()));
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            from.iter().for_each(|(key, count)| *to.entry(key.clone()).or_default() += count);
        }
        sum(&mut self.rows, &other.rows);
        sum(&mut self.recorded, &other.recorded);
        sum(&mut self.reasons, &other.reasons);
        sum(&mut self.faults, &other.faults);
        sum(&mut self.messages, &other.messages);
        sum(&mut self.client_events, &other.client_events);
        sum(&mut self.verdicts, &other.verdicts);
        sum(&mut self.drops, &other.drops);
        self.simulated += other.simulated;
        self.inputs += other.inputs;
        self.least = Some(self.least.map_or(other.inputs, |least| least.min(other.inputs)));
        self.transitions += other.transitions;
        self.replayed += other.replayed;
    }

    /// The counts as text.
    #[must_use]
    pub fn table(&self) -> String {
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let faults: u64 = self.faults.values().sum();
        let moves: u64 = self.rows.values().sum();
        let mut text = format!("simulated {hours:.1} h, {faults} faults, {moves} transitions by these rows:\n");
        for (&row, count) in &self.rows {
            let _ = writeln!(text, "{count:>9}  {}", row_name(row));
        }
        let mut section = |name: &str, rows: Vec<(String, u64)>| {
            let _ = write!(text, "{name}:");
            for (key, count) in rows {
                let _ = write!(text, " {key}={count}");
            }
            text.push('\n');
        };
        section("reasons", self.reasons.iter().map(|(name, &count)| ((*name).into(), count)).collect());
        section("faults", self.faults.iter().map(|(name, &count)| ((*name).into(), count)).collect());
        section("messages", self.messages.iter().map(|(name, &count)| ((*name).into(), count)).collect());
        section("client", self.client_events.iter().map(|(name, &count)| ((*name).into(), count)).collect());
        section("verdicts", self.verdicts.iter().map(|(verdict, &count)| (verdict.to_string(), count)).collect());
        section("drops", self.drops.iter().map(|(name, &count)| (name.clone(), count)).collect());
        text
    }
}
