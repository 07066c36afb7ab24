//! Verifying a record offline: the chain, the numbers, the versions, the signed checkpoints.
//!
//! Owns what is checked and which line is named first. One pass, and nothing is allocated for a good record. Must never
//! write, need a daemon or a privilege, or call something proven that is not: what was not given is said in the notes.

mod fault;
mod progress;
mod report;
#[cfg(test)]
mod tests;

pub use fault::{Fault, What};
pub use report::Report;

use super::key::RecordPublicKey;
use super::{AuditError, sealer, segment};
use jvpn_common::event::{Checkpoint, Hash, follow, named};
use progress::Progress;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Bytes read at once: large against a line, small against a segment.
const READ: usize = 1 << 20;
/// Longest line that can be a record; one with the longest names and details has a tenth of it.
const LINE_MAX: u64 = 64 << 10;

/// What to verify, and against what.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The segments, oldest first.
    pub segments: Vec<PathBuf>,
    /// Keys whose checkpoints are believed; none: whatever key a checkpoint names.
    pub keys: Vec<RecordPublicKey>,
    /// Checkpoints that were kept elsewhere, with the file they come from.
    pub exported: Vec<(PathBuf, String)>,
    /// Whether the beginning may be missing.
    pub partial: bool,
}

/// Every segment of a directory, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn segments_of(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    segment::list(dir)
}

/// Verifies a record. Its fault, if it has one, is in the report: that it was found is no failure.
///
/// # Errors
/// A file cannot be read.
pub fn verify(wanted: &Wanted) -> Result<Report, AuditError> {
    // Before the segments: while a daemon writes, a checkpoint never names what was not written yet.
    let mut lines = sealer::lines_of(&wanted.segments)?;
    lines.extend(wanted.exported.iter().cloned());
    let mut pass =
        Pass { wanted, progress: Progress::default(), checkpoints: VecDeque::new(), report: Report::default() };
    let fault = match pass.take(lines).and_then(|()| pass.segments()).and_then(|()| pass.rest()) {
        Ok(()) => None,
        Err(Stop::Fault(fault)) => Some(*fault),
        Err(Stop::Io(error)) => return Err(error),
    };
    let mut report = pass.report;
    report.finish(wanted, fault);
    Ok(report)
}

/// Why a pass ends before the record does.
enum Stop {
    Fault(Box<Fault>),
    Io(AuditError),
}

impl From<AuditError> for Stop {
    fn from(error: AuditError) -> Self {
        Self::Io(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

/// A checkpoint that the pass has not come to yet.
#[derive(Debug)]
struct Ahead {
    seq: u64,
    file: PathBuf,
    line: String,
}

struct Pass<'a> {
    wanted: &'a Wanted,
    progress: Progress,
    checkpoints: VecDeque<Ahead>,
    report: Report,
}

impl Pass<'_> {
    /// Puts the checkpoints in the order in which the pass comes to them.
    fn take(&mut self, lines: Vec<(PathBuf, String)>) -> Result<(), Stop> {
        let mut checkpoints = Vec::with_capacity(lines.len());
        for (file, line) in lines {
            let Some(signed) = Checkpoint::read(&line) else {
                return Err(Fault::at_checkpoint(file, None, What::NotACheckpoint).into());
            };
            checkpoints.push(Ahead { seq: signed.checkpoint.seq, file, line });
        }
        checkpoints.sort_by(|a, b| (a.seq, &a.line).cmp(&(b.seq, &b.line)));
        // The same one kept twice is verified once.
        checkpoints.dedup_by(|a, b| a.line == b.line);
        self.checkpoints = checkpoints.into();
        Ok(())
    }

    fn segments(&mut self) -> Result<(), Stop> {
        for (index, path) in self.wanted.segments.iter().enumerate() {
            let is_last = index + 1 == self.wanted.segments.len();
            self.segment(path, is_last)?;
            self.report.segments += 1;
        }
        Ok(())
    }

    fn segment(&mut self, path: &Path, is_last: bool) -> Result<(), Stop> {
        let io = |cause| AuditError::io(path, cause);
        let mut reader = BufReader::with_capacity(READ, File::open(path).map_err(io)?);
        let mut line = Vec::with_capacity(READ);
        let (mut offset, mut number) = (0_u64, 0_u64);
        loop {
            line.clear();
            let count = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).map_err(io)?;
            if count == 0 {
                return Ok(());
            }
            number += 1;
            let place = |record, what| Fault::at(path, number, record, offset, what);
            if line.pop() != Some(b'\n') {
                if is_last && (count as u64) < LINE_MAX {
                    self.report.unfinished = Some(count as u64);
                    return Ok(());
                }
                return Err(place(Some(self.progress.next()), What::Unfinished).into());
            }
            self.record(&line).map_err(|what| place(Some(self.progress.next()), what))?;
            self.agree(path, number, offset)?;
            offset += count as u64;
            self.report.bytes += count as u64;
        }
    }

    /// One line: chain, then what it says.
    fn record(&mut self, line: &[u8]) -> Result<(), What> {
        let head = match self.report.head {
            Some(head) => head,
            None => named(line).map_err(What::Line)?,
        };
        let (hash, _) = follow(line, head).map_err(What::Line)?;
        let seq = self.progress.record(line, self.wanted.partial)?;
        if seq == 1 && head != Hash::default() {
            return Err(What::Beginning);
        }
        let report = &mut self.report;
        (report.head, report.last, report.records) = (Some(hash), Some(seq), report.records + 1);
        if report.first.is_none() {
            report.first = Some(seq);
        }
        Ok(())
    }

    /// Holds the line against the checkpoints of its number.
    fn agree(&mut self, path: &Path, line: u64, offset: u64) -> Result<(), Stop> {
        let (Some(last), Some(head)) = (self.report.last, self.report.head) else { return Ok(()) };
        while self.checkpoints.front().is_some_and(|ahead| ahead.seq <= last) {
            let Some(ahead) = self.checkpoints.pop_front() else { break };
            if ahead.seq < self.report.first.unwrap_or(0) {
                self.report.before += 1;
                continue;
            }
            let signed = self.believed(&ahead)?;
            if ahead.seq < last {
                return Err(Fault::at(path, line, Some(last), offset, What::Skipped { seq: ahead.seq }).into());
            }
            if signed.head != head {
                let what = What::Differs { signed: signed.head, head, ts: signed.ts };
                return Err(Fault::at(path, line, Some(last), offset, what).into());
            }
            self.report.checkpoints += 1;
            self.report.covered = Some(last);
        }
        Ok(())
    }

    /// A checkpoint whose signature holds.
    fn believed(&mut self, ahead: &Ahead) -> Result<Checkpoint, Stop> {
        let fault = |what| Stop::from(Fault::at_checkpoint(ahead.file.clone(), Some(ahead.seq), what));
        let signed = Checkpoint::read(&ahead.line).ok_or_else(|| fault(What::NotACheckpoint))?;
        let key = RecordPublicKey(signed.checkpoint.key);
        if !self.wanted.keys.is_empty() && !self.wanted.keys.contains(&key) {
            return Err(fault(What::ForeignKey { key }));
        }
        if !key.verifies(&signed) {
            return Err(fault(What::Signature));
        }
        if !self.report.keys.contains(&key) {
            self.report.keys.push(key);
        }
        Ok(signed.checkpoint)
    }

    /// A checkpoint of a record that never came: the end was cut off.
    fn rest(&mut self) -> Result<(), Stop> {
        let Some(ahead) = self.checkpoints.pop_front() else { return Ok(()) };
        let signed = self.believed(&ahead)?;
        let what = What::Ends { last: self.report.last, signed: signed.seq, ts: signed.ts };
        let file = self.wanted.segments.last().cloned().unwrap_or(ahead.file);
        Err(Fault { file, line: None, record: Some(self.progress.next()), offset: None, what }.into())
    }
}
