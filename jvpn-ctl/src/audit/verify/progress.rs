//! What follows what: numbers of records, versions of sessions.
//!
//! Owns the last number and the last version of every live session. Must never look at more of a line than it needs.

use super::What;
use jvpn_common::ids::SessionId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;

/// How far a pass has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last: Option<u64>,
    versions: BTreeMap<SessionId, u64>,
}

/// The fields that are looked at; the others are skipped where they stand.
#[derive(Deserialize)]
struct Look<'a> {
    seq: &'a str,
    session_id: Option<&'a str>,
    event: &'a str,
    to: Option<&'a str>,
    state_version: &'a str,
    after: Option<IgnoredAny>,
}

/// A GAP, which is rare and read as a whole.
#[derive(Deserialize)]
struct Gap {
    details: Skipped,
}

#[derive(Deserialize)]
struct Skipped {
    first_seq: Option<String>,
    last_seq: Option<String>,
    first: Option<String>,
    last: Option<String>,
}

fn no_record(error: &serde_json::Error) -> What {
    What::NotARecord(error.to_string())
}

fn number(text: &str) -> Result<u64, What> {
    text.parse().map_err(|_| What::NotARecord(format!("`{}` is no number", text.escape_debug())))
}

impl Progress {
    /// The number the next record has.
    pub(super) fn next(&self) -> u64 {
        self.last.map_or(1, |last| last.saturating_add(1))
    }

    /// Reads what a line of the chain says; gives its number.
    pub(super) fn record(&mut self, line: &[u8], partial: bool) -> Result<u64, What> {
        let look: Look<'_> = serde_json::from_slice(line).map_err(|error| no_record(&error))?;
        let (seq, version) = (number(look.seq)?, number(look.state_version)?);
        let id = look.session_id.map(str::parse::<SessionId>).transpose();
        let id = id.map_err(|_| What::NotARecord("its session has no id".into()))?;
        let next = self.next();
        if look.event == "GAP" {
            self.gap(line, id, seq)?;
        } else if self.last.is_none() {
            if seq > 1 && !partial {
                return Err(What::Begins { first: seq, missing: seq - 1 });
            }
        } else if seq != next {
            return Err(What::Number { found: seq, next });
        }
        if let (Some(session), true) = (id, look.after.is_some()) {
            match self.versions.get(&session) {
                Some(&before) if Some(version) != before.checked_add(1) => {
                    return Err(What::Version { session, before, found: version });
                }
                _ if look.to == Some("TERMINATED") => drop(self.versions.remove(&session)),
                _ => drop(self.versions.insert(session, version)),
            }
        }
        self.last = Some(seq);
        Ok(seq)
    }

    /// A GAP names numbers that were lost with a full disk, or versions of its session that nobody had.
    fn gap(&mut self, line: &[u8], id: Option<SessionId>, seq: u64) -> Result<(), What> {
        let Gap { details } = serde_json::from_slice(line).map_err(|error| no_record(&error))?;
        let next = self.next();
        let named = |text: Option<String>| text.as_deref().map(number).transpose();
        let lost = named(details.first_seq)?.zip(named(details.last_seq)?);
        let closes = match lost {
            Some((first, last)) => first == next && last.checked_add(1) == Some(seq),
            None => seq == next,
        };
        if !closes && self.last.is_some() {
            return Err(What::Number { found: seq, next });
        }
        if let (Some(session), Some((first, last))) = (id, named(details.first)?.zip(named(details.last)?))
            && let Some(before) = self.versions.get_mut(&session)
        {
            if before.checked_add(1) != Some(first) || last < first {
                return Err(What::Version { session, before: *before, found: first });
            }
            *before = last;
        }
        Ok(())
    }
}
