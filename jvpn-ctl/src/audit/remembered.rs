//! What a start after a crash needs of the record: the last transition of each session, and the policies.
//!
//! Owns finding them without reading every line as JSON: the record of a year has millions of lines, and a gateway that
//! starts serves nobody. Must never miss the newest transition of a session that is not over.

use super::AuditError;
use super::reader::{each_line, policy, session_of};
use jvpn_common::event::{Event, Record, follow, named};
use jvpn_common::ids::{PolicyVersion, SessionId};
use jvpn_common::session::{Policy, State};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Where a line begins: in which segment, at which byte.
type Place = (usize, u64);

/// The policies of a record, and where the last transitions of its sessions stand.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Every policy the record has the text of: a transition is replayed under its own, not under today's.
    pub policies: BTreeMap<PolicyVersion, Policy>,
    dir: PathBuf,
    segments: Vec<PathBuf>,
    last: BTreeMap<SessionId, Place>,
}

/// Reads what a start after a crash needs. Sessions that are over are remembered only if `is_kept` says that something else
/// still has them: there are as many as ever lived.
///
/// # Errors
/// A file cannot be read.
pub fn remembered(dir: &Path, is_kept: impl Fn(&SessionId) -> bool) -> Result<Remembered, AuditError> {
    let mut found = Remembered { dir: dir.to_owned(), ..Remembered::default() };
    each_line(dir, |path, at, line| {
        if found.segments.last().is_none_or(|segment| segment != path) {
            found.segments.push(path.to_owned());
        }
        if field(line, "\"event\":\"") == Some(Event::PolicyEvent.name()) {
            found.policies.extend(whole(line).as_ref().and_then(policy).map(|policy| (policy.version, policy)));
        } else if let Some((session, is_over)) = transition(line) {
            if is_over && !is_kept(&session) && is_sealed(line) {
                found.last.remove(&session);
            } else {
                found.last.insert(session, (found.segments.len() - 1, at));
            }
        }
        ControlFlow::<()>::Continue(())
    })?;
    Ok(found)
}

impl Remembered {
    /// Calls `each` with the last transition of every session that is remembered, one record at a time, oldest first.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn each(&self, mut each: impl FnMut(SessionId, &Record)) -> Result<(), AuditError> {
        let mut places: Vec<(Place, SessionId)> = self.last.iter().map(|(id, place)| (*place, *id)).collect();
        places.sort_unstable();
        for (number, path) in self.segments.iter().enumerate() {
            let failed = |cause| AuditError::io(path, cause);
            let start = places.partition_point(|((segment, _), _)| *segment < number);
            let end = places.partition_point(|((segment, _), _)| *segment <= number);
            let mut lines = BufReader::new(File::open(path).map_err(failed)?);
            for ((_, at), id) in places.get(start..end).unwrap_or_default() {
                let mut line = String::new();
                lines.seek(SeekFrom::Start(*at)).and_then(|_| lines.read_line(&mut line)).map_err(failed)?;
                let last = match whole(&line).filter(|record| is_transition(record, *id)) {
                    Some(record) => Some(record),
                    None => self.newest(*id)?,
                };
                last.iter().for_each(|record| each(*id, record));
            }
        }
        Ok(())
    }

    /// The newest transition of a session by reading all of the record's lines of it: its last line is not one of this
    /// version.
    fn newest(&self, id: SessionId) -> Result<Option<Record>, AuditError> {
        tracing::error!(session = %id, "its last line in the record cannot be read; the one before it is believed");
        let mut newest = None;
        each_line(&self.dir, |_, _, line| {
            let its = session_of(line) == Some(id);
            newest = its.then(|| whole(line)).flatten().filter(|record| is_transition(record, id)).or(newest.take());
            ControlFlow::<()>::Continue(())
        })?;
        Ok(newest)
    }
}

fn is_transition(record: &Record, id: SessionId) -> bool {
    record.session_id == Some(id) && record.after.is_some()
}

/// Whether a line is byte for byte what was sealed: of two that a damaged file made one, each half would be believed.
fn is_sealed(line: &str) -> bool {
    named(line.as_bytes()).and_then(|before| follow(line.as_bytes(), before)).is_ok()
}

/// A sealed line as the record it is.
fn whole(line: &str) -> Option<Record> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    let fields = value.as_object_mut()?;
    fields.remove("prev");
    fields.remove("hash");
    serde_json::from_value(value).ok()
}

/// Text of the first field that is called so, of `start` as `"name":"`; what stands in a line as text has its quotes
/// escaped, so that this is the record's own field if it comes before all that has fields of its own.
fn field<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(start)?;
    rest.split_once('"').map(|(text, _)| text)
}

/// The session of which a line records a transition, and whether it is over with it.
fn transition(line: &str) -> Option<(SessionId, bool)> {
    // The last field before the chain's, and no text in a record that changes nothing.
    line.rfind("\"after\":\"")?;
    Some((session_of(line)?, field(line, "\"to\":\"") == Some(State::Terminated.name())))
}

#[cfg(test)]
#[path = "remembered/tests.rs"]
mod tests;
