//! What a pass over a record found.
//!
//! Owns what is said about what was not checked. Must never sound surer than the checkpoints make it.

use super::super::key::RecordPublicKey;
use super::super::{AuditError, segment};
use super::{Fault, Wanted};
use jvpn_common::event::Hash;
use std::collections::BTreeSet;

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that hold.
    pub records: u64,
    /// Bytes they have.
    pub bytes: u64,
    /// Segments that were read to their end.
    pub segments: usize,
    /// Number of the first record.
    pub first: Option<u64>,
    /// Number of the last record that holds.
    pub last: Option<u64>,
    /// Its hash.
    pub head: Option<Hash>,
    /// Checkpoints that hold.
    pub checkpoints: u64,
    /// Number of the newest record a checkpoint holds for.
    pub covered: Option<u64>,
    /// Checkpoints of records before the first one here.
    pub before: u64,
    /// Keys that signed them.
    pub keys: Vec<RecordPublicKey>,
    /// Bytes of a last line without its end.
    pub unfinished: Option<u64>,
    /// What this did not show.
    pub notes: Vec<String>,
    /// The first thing that does not hold.
    pub fault: Option<Fault>,
}

impl Report {
    /// Whether everything that was checked holds.
    #[must_use]
    pub const fn is_intact(&self) -> bool {
        self.fault.is_none()
    }

    pub(super) fn finish(&mut self, wanted: &Wanted, fault: Option<Fault>) {
        self.fault = fault;
        if let Some(bytes) = self.unfinished {
            let note = "bytes of a line that is not finished stand at the end: it is being written, or a crash cut it";
            self.notes.push(format!("{bytes} {note}"));
        }
        if let Some(first) = self.first.filter(|first| *first > 1) {
            self.notes.push(format!("records before {first} are not here"));
        }
        if self.before > 0 {
            self.notes.push(format!("{} checkpoints are of records that are not here", self.before));
        }
        match torn(wanted) {
            Ok(0) => {}
            Ok(torn) => self.notes.push(format!("{torn} tails that a crash cut off were set aside (*.torn-*)")),
            Err(error) => self.notes.push(error.to_string()),
        }
        if self.fault.is_some() {
            return;
        }
        match (self.covered, self.last) {
            (None, _) => {
                self.notes.push("no checkpoint was found: whoever can write the files can write them anew".into());
            }
            (Some(covered), Some(last)) if covered < last => {
                self.notes.push(format!("records {} to {last} are younger than the newest checkpoint", covered + 1));
            }
            _ => {}
        }
        if self.covered.is_some() && wanted.keys.is_empty() {
            self.notes.push("without --key a checkpoint is believed whoever signed it".into());
        }
        if wanted.exported.is_empty() {
            self.notes.push(
                "without --checkpoint a record that was cut off together with its checkpoints looks whole".into(),
            );
        }
    }
}

/// Tails that were set aside beside the segments.
fn torn(wanted: &Wanted) -> Result<usize, AuditError> {
    let dirs: BTreeSet<_> = wanted.segments.iter().filter_map(|segment| segment.parent()).collect();
    dirs.into_iter().map(segment::torn).sum()
}
