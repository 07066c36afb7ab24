//! `why`: a session's records replayed through the real engine, and the last one explained.
//!
//! Owns the replay of one session's life and its account. Must never explain what does not replay: a record that says
//! something else than the machine is an error that names the first difference.

use super::AuditError;
use super::reader::each_line;
use jiff::{SignedDuration, Timestamp};
use jvpn_common::event::{Event, Mismatch, Record, named, open, replay};
use jvpn_common::ids::{PolicyVersion, SessionId};
use jvpn_common::session::account::{self, Asked};
use jvpn_common::session::{Policy, State, Transition};
use jvpn_common::time::Instant;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The record cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// No record of such a session.
    #[error("no session starts with `{0}` in this record")]
    NotFound(String),
    /// More than one.
    #[error("`{prefix}` is short for {one} and {other}")]
    Ambiguous {
        /// What was asked.
        prefix: String,
        /// One of them.
        one: String,
        /// Another.
        other: String,
    },
    /// It begins later.
    #[error("the record of session {0} begins after that time")]
    TooEarly(SessionId),
    /// Its records describe without what a replay needs.
    #[error("the records of session {0} hold no inputs: a client's record describes what the gateway acknowledged")]
    NoInputs(SessionId),
    /// The first difference.
    #[error("{file}, record {seq} (version {version}, {event}): {what}", file = file.display())]
    Differs {
        /// The segment.
        file: PathBuf,
        /// Number of the record.
        seq: u64,
        /// Version it says.
        version: u64,
        /// What kind of record.
        event: &'static str,
        /// What differs.
        what: String,
    },
}

/// A session at a time, and why it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Why {
    /// Which session.
    pub session_id: String,
    /// The peer's configured name.
    pub peer: String,
    /// Its state.
    pub state: String,
    /// The version of its last transition.
    pub state_version: u64,
    /// Name of its transport.
    pub transport: Option<String>,
    /// The policy class and its version.
    pub policy: String,
    /// Transitions that were replayed; each reached what its record says.
    pub replayed: u64,
    /// Every transition, the last one last.
    pub steps: Vec<WhyStep>,
    /// What happens next if nothing comes in.
    pub next: Vec<Next>,
    /// What is not in the record.
    pub notes: Vec<String>,
}

/// One transition, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WhyStep {
    /// When, wall clock.
    pub ts: String,
    /// Number of its record.
    pub seq: u64,
    /// Its version.
    pub state_version: u64,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Primary reason.
    pub reason: String,
    /// More codes.
    pub details: Vec<String>,
    /// What the reason means.
    pub meaning: String,
    /// What came in, in words.
    pub input: String,
    /// The rows of the table that were asked; the last one was taken.
    pub asked: Vec<Row>,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Row {
    /// Its number in the table.
    pub row: usize,
    /// What it answers to.
    pub on: String,
    /// Whether it was taken.
    pub taken: bool,
    /// What it wanted; empty: nothing more.
    pub guard: String,
    /// Each bound with its numbers.
    pub bounds: Vec<String>,
}

/// A timer that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Next {
    /// Which one.
    pub timer: String,
    /// The policy's key that says how long; empty when none does.
    pub key: String,
    /// How long that is.
    pub limit: String,
    /// When it fires, wall clock.
    pub at: String,
}

/// A record and where it was read.
struct Found {
    file: PathBuf,
    record: Record,
}

impl Found {
    fn differs(&self, what: impl Into<String>) -> WhyError {
        let Record { seq, state_version, event, .. } = &self.record;
        let (seq, version, event) = (*seq, state_version.0, event.name());
        WhyError::Differs { file: self.file.clone(), seq, version, event, what: what.into() }
    }
}

/// What the pass over the files collects.
#[derive(Default)]
struct Collected {
    sessions: BTreeSet<SessionId>,
    records: Vec<Found>,
    policies: BTreeMap<PolicyVersion, Policy>,
}

/// Explains the session whose id starts with `prefix`, as it was at a time; without one, as it is at the end of the
/// record.
///
/// # Errors
/// There is none, or a record does not replay.
pub fn why(dir: &Path, prefix: &str, at: Option<Timestamp>) -> Result<Why, WhyError> {
    let collected = collect(dir, &prefix.to_ascii_lowercase())?;
    let mut ids = collected.sessions.iter();
    let id = match (ids.next(), ids.next()) {
        (Some(id), None) => *id,
        (None, _) => return Err(WhyError::NotFound(prefix.to_owned())),
        (Some(one), Some(other)) => {
            let (one, other) = (one.to_string(), other.to_string());
            return Err(WhyError::Ambiguous { prefix: prefix.to_owned(), one, other });
        }
    };
    let before = |found: &&Found| at.is_none_or(|at| time(&found.record).is_none_or(|ts| ts <= at));
    let records: Vec<_> = collected.records.iter().filter(before).collect();
    if records.is_empty() {
        return Err(WhyError::TooEarly(id));
    }
    let mut life =
        Life { policies: &collected.policies, last: None, skipped: None, steps: Vec::new(), notes: Vec::new() };
    for found in &records {
        life.take(found)?;
    }
    let Some((last, policy, ts)) = life.last else { return Err(WhyError::NoInputs(id)) };
    let after = &last.after;
    let boot =
        records.iter().rev().find(|found| found.record.after.is_some()).map_or(Instant(0), |found| found.record.at);
    let running = after.running(policy);
    let next = running.into_iter().map(|running| Next {
        timer: running.timer.to_owned(),
        key: running.key.to_owned(),
        limit: running.limit,
        at: ts.map(|ts| later(ts, boot, running.at)).unwrap_or_default(),
    });
    let mut notes = life.notes;
    if after.state() != State::Terminated {
        notes.push("between two records inputs are not kept: reports, rekeys and accepted nonces that moved nothing are in no record".into());
    }
    Ok(Why {
        session_id: id.to_string(),
        peer: records.last().map(|found| found.record.peer.clone()).unwrap_or_default(),
        state: after.place().name().to_owned(),
        state_version: after.version().0,
        transport: after.transport().map(|to| format!("{} {}", to.label, to.path.remote())),
        policy: format!("{} (version {})", policy.name, policy.version),
        replayed: life.steps.len() as u64,
        next: if after.is_live() { next.collect() } else { Vec::new() },
        steps: life.steps,
        notes,
    })
}

fn time(record: &Record) -> Option<Timestamp> {
    record.ts.parse().ok()
}

/// The wall clock when the boot clock will say `at`, if nobody steps it.
fn later(ts: Timestamp, boot: Instant, at: Instant) -> String {
    let after = SignedDuration::try_from(at.since(boot)).unwrap_or(SignedDuration::ZERO);
    let before = SignedDuration::try_from(boot.since(at)).unwrap_or(SignedDuration::ZERO);
    ts.checked_add(after).and_then(|ts| ts.checked_sub(before)).map(|ts| format!("{ts:.3}")).unwrap_or_default()
}

/// A life being replayed.
struct Life<'a> {
    policies: &'a BTreeMap<PolicyVersion, Policy>,
    last: Option<(Transition, &'a Policy, Option<Timestamp>)>,
    /// The last version a GAP skipped.
    skipped: Option<u64>,
    steps: Vec<WhyStep>,
    notes: Vec<String>,
}

impl Life<'_> {
    fn take(&mut self, found: &Found) -> Result<(), WhyError> {
        let record = &found.record;
        if record.event == Event::Gap {
            let text =
                |key: &str| record.details.get(key).and_then(serde_json::Value::as_str).unwrap_or("?").to_owned();
            let (first, last) = (text("first"), text("last"));
            self.skipped = last.parse().ok();
            self.notes.push(format!("versions {first} to {last} are in no record, as its GAP of {} says", record.ts));
        }
        if record.after.is_none() {
            return Ok(());
        }
        let Some(policy) = self.policies.get(&record.policy_version) else {
            return Err(found
                .differs(format!("the text of its policy, version {}, is not in this record", record.policy_version)));
        };
        let transition =
            replay(record, policy).map_err(|mismatch| found.differs(difference(record, &mismatch, policy)))?;
        self.follows(found, &transition)?;
        self.steps.push(step(record, &transition, policy));
        self.last = Some((transition, policy, time(record)));
        Ok(())
    }

    /// What a transition starts from is where the one before it ended.
    fn follows(&mut self, found: &Found, transition: &Transition) -> Result<(), WhyError> {
        let skipped = self.skipped.take();
        let Some((last, ..)) = &self.last else { return Ok(()) };
        let (was, is) = (&last.after, &transition.before);
        let version = skipped.unwrap_or(was.version().0);
        for (what, was, is) in [
            ("session", was.id().to_string(), is.id().to_string()),
            ("state", was.place().name().to_owned(), is.place().name().to_owned()),
            ("version", version.to_string(), is.version().0.to_string()),
        ] {
            if was != is {
                return Err(
                    found.differs(format!("it starts with {what} {is}, and the records before it end with {was}"))
                );
            }
        }
        Ok(())
    }
}

/// A mismatch with both sides, where there are two.
fn difference(record: &Record, mismatch: &Mismatch, policy: &Policy) -> String {
    let Mismatch::Field(field) = mismatch else { return mismatch.to_string() };
    let Some(again) = jvpn_common::event::replayed(record, policy) else { return mismatch.to_string() };
    let side = |record: &Record| {
        let value = serde_json::to_value(record).unwrap_or_default();
        let value = if *field == "reasons" { value.pointer("/details/reasons") } else { value.get(*field) };
        value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    format!("the record says `{field}` is {}, the engine says {}", side(record), side(&again))
}

fn step(record: &Record, transition: &Transition, policy: &Policy) -> WhyStep {
    let asked = transition.asked(policy, record.at);
    let taken = asked.len();
    let row = |(number, asked): (usize, Asked)| Row {
        row: asked.row,
        on: asked.on.to_owned(),
        taken: number + 1 == taken,
        guard: asked.guard.to_owned(),
        bounds: asked.bounds.iter().map(ToString::to_string).collect(),
    };
    WhyStep {
        ts: record.ts.clone(),
        seq: record.seq,
        state_version: transition.version.0,
        from: transition.before.place().name().to_owned(),
        to: transition.after.place().name().to_owned(),
        reason: transition.reason.name().to_owned(),
        details: transition.details.iter().map(|code| code.name().to_owned()).collect(),
        meaning: transition.reason.meaning().to_owned(),
        input: account::said(&transition.input),
        asked: asked.into_iter().enumerate().map(row).collect(),
    }
}

/// Reads what belongs to the sessions whose ids start with a prefix, and every policy.
fn collect(dir: &Path, prefix: &str) -> Result<Collected, WhyError> {
    let mut collected = Collected::default();
    let (ours, policy) = (format!("\"session_id\":\"{prefix}"), format!("\"event\":\"{}\"", Event::PolicyEvent.name()));
    let failed = each_line(dir, |path, _, text| {
        let wanted = text.contains(&ours) || text.contains(&policy);
        match if wanted { collected.add(path, text) } else { Ok(()) } {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    })?;
    failed.map_or(Ok(collected), Err)
}

impl Collected {
    fn add(&mut self, file: &Path, line: &str) -> Result<(), WhyError> {
        let unsealed = named(line.as_bytes()).and_then(|prev| open(line, prev));
        let record = unsealed.map(|unsealed| unsealed.record).map_err(|error| WhyError::Differs {
            file: file.to_path_buf(),
            seq: seq_of(line),
            version: 0,
            event: "?",
            what: error.to_string(),
        })?;
        if let Some(policy) = super::reader::policy(&record) {
            self.policies.insert(policy.version, policy);
        } else if let Some(id) = record.session_id {
            self.sessions.insert(id);
            self.records.push(Found { file: file.to_path_buf(), record });
        }
        Ok(())
    }
}

/// The number a line that cannot be believed says it has.
fn seq_of(line: &str) -> u64 {
    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
    value.and_then(|value| value.get("seq")?.as_str()?.parse().ok()).unwrap_or(0)
}
