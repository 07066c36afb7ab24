//! Reading the record: by session, reason and time, for `events` and `history`.
//!
//! Owns the filters. Must never write, and must never fail over one line that is not whole yet: the writer may
//! be in the middle of it.

use super::{AuditError, segment};
use jiff::Timestamp;
use jvpn_common::event::{Event, Record, Severity};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::Policy;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one session.
    pub session: Option<SessionId>,
    /// Of one peer, by its configured name.
    pub peer: Option<String>,
    /// With this reason, as primary one or in the details.
    pub reason: Option<Reason>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Not younger than this.
    pub until: Option<Timestamp>,
    /// That matter at least this much.
    pub severity: Option<Severity>,
}

impl Filter {
    /// Whether a line is wanted; the parsed record comes with the answer.
    #[must_use]
    pub fn accepts(&self, line: &str) -> Option<Value> {
        // A cheap look first: most lines of a large record are of other sessions.
        if self.session.is_some_and(|session| !line.contains(&session.to_string())) {
            return None;
        }
        let record: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| record.get(key).and_then(Value::as_str);
        let session = self.session.is_none_or(|session| text("session_id") == Some(session.to_string().as_str()));
        let peer = self.peer.as_deref().is_none_or(|peer| text("peer") == Some(peer));
        let reason = self.reason.is_none_or(|reason| {
            let more = record.get("details").and_then(|details| details.get("reasons")).and_then(Value::as_array);
            let mut more = more.into_iter().flatten().filter_map(Value::as_str);
            text("reason") == Some(reason.name()) || more.any(|code| code == reason.name())
        });
        let ts = || text("ts").and_then(|ts| ts.parse::<Timestamp>().ok());
        let since = self.since.is_none_or(|since| ts().is_some_and(|ts| ts >= since));
        let until = self.until.is_none_or(|until| ts().is_some_and(|ts| ts <= until));
        let severity = self.severity.is_none_or(|least| severity(&record).is_none_or(|severity| severity >= least));
        (session && peer && reason && since && until && severity).then_some(record)
    }
}

/// How much a record matters; none if its event is of a later version.
#[must_use]
pub fn severity(record: &Value) -> Option<Severity> {
    let text = |key: &str| record.get(key).and_then(Value::as_str);
    let reason = text("reason").and_then(|reason| reason.parse().ok());
    Some(Severity::of(text("event")?.parse().ok()?, reason))
}

/// Sessions of the record whose ids start with a prefix, at most `most` of them; ended ones, too.
///
/// # Errors
/// A file cannot be read.
pub fn sessions(dir: &Path, prefix: &str, most: usize) -> Result<BTreeSet<SessionId>, AuditError> {
    let wanted = format!("{SESSION}{prefix}");
    let mut found = BTreeSet::new();
    each_line(dir, |_, _, line| {
        found.extend(line.contains(&wanted).then(|| session_of(line)).flatten());
        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// Calls `each` with every wanted line and its record, oldest first, until it breaks.
///
/// # Errors
/// A file cannot be read.
pub fn read(
    dir: &Path,
    filter: &Filter,
    mut each: impl FnMut(&str, Value) -> ControlFlow<()>,
) -> Result<(), AuditError> {
    each_line(dir, |_, _, line| filter.accepts(line).map_or(ControlFlow::Continue(()), |record| each(line, record)))?;
    Ok(())
}

/// Where a line names its session.
const SESSION: &str = "\"session_id\":\"";

/// The session a line names, without reading the rest of it.
pub(super) fn session_of(line: &str) -> Option<SessionId> {
    // What stands in a line as text has its quotes escaped: this is the field.
    line.split_once(SESSION)?.1.split('"').next()?.parse().ok()
}

/// Calls `each` with every whole line, the segment it is in and at which byte, oldest first, until it breaks; with why it did.
/// A last line without its end is being written.
pub(super) fn each_line<B>(
    dir: &Path,
    mut each: impl FnMut(&Path, u64, &str) -> ControlFlow<B>,
) -> Result<Option<B>, AuditError> {
    for path in segment::list(dir)? {
        let file = File::open(&path).map_err(|cause| AuditError::io(&path, cause))?;
        let mut reader = BufReader::new(file);
        let (mut line, mut next) = (Vec::new(), 0);
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line).map_err(|cause| AuditError::io(&path, cause))?;
            if count == 0 || line.pop() != Some(b'\n') {
                break;
            }
            let at = next;
            next += count as u64;
            let Ok(text) = std::str::from_utf8(&line) else { continue };
            if let ControlFlow::Break(why) = each(&path, at, text) {
                return Ok(Some(why));
            }
        }
    }
    Ok(None)
}

/// The policy whose text a record holds.
pub(super) fn policy(record: &Record) -> Option<Policy> {
    let text = record.details.get("text").filter(|_| record.event == Event::PolicyEvent && record.session_id.is_none());
    text.and_then(Value::as_str).and_then(Policy::from_text)
}

/// One line of a session's timeline.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Step {
    /// When, wall clock.
    pub ts: String,
    /// What kind of record.
    pub event: String,
    /// State before.
    pub from: Option<String>,
    /// State after.
    pub to: Option<String>,
    /// Primary reason.
    pub reason: Option<String>,
    /// More codes.
    pub details: Vec<String>,
    /// Name of the transport afterwards.
    pub transport: Option<String>,
    /// Number of the transition.
    pub state_version: u64,
    /// How long until the client knew, in ms.
    pub detect_ms: Option<f64>,
    /// How long the proof took, in ms.
    pub prove_ms: Option<f64>,
    /// How long the commit took, in ms.
    pub commit_ms: Option<f64>,
}

/// The timeline of one session.
///
/// # Errors
/// A file cannot be read.
pub fn history(dir: &Path, session: SessionId) -> Result<Vec<Step>, AuditError> {
    let mut steps = Vec::new();
    let filter = Filter { session: Some(session), ..Filter::default() };
    read(dir, &filter, |_, record| {
        steps.push(step(&record));
        ControlFlow::Continue(())
    })?;
    Ok(steps)
}

fn step(record: &Value) -> Step {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let details = record.get("details");
    let micros = |key: &str| details.and_then(|details| details.get(key)).and_then(Value::as_f64);
    let millis = |key: &str| micros(key).map(|micros| micros / 1_000.0);
    let codes = details.and_then(|details| details.get("reasons")).and_then(Value::as_array);
    let version = record.get("state_version").and_then(Value::as_str).and_then(|version| version.parse().ok());
    Step {
        ts: text(record.get("ts")).unwrap_or_default(),
        event: text(record.get("event")).unwrap_or_default(),
        from: text(record.get("from")),
        to: text(record.get("to")),
        reason: text(record.get("reason")),
        details: codes.into_iter().flatten().filter_map(|code| text(Some(code))).collect(),
        transport: text(record.pointer("/transport/to/label")),
        state_version: version.unwrap_or(0),
        detect_ms: millis("detect_us"),
        prove_ms: millis("prove_us"),
        commit_ms: millis("commit_us"),
    }
}
