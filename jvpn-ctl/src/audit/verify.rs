//! Verifying a record offline: the chain, the numbers, the versions, the signed checkpoints.
//!
//! Owns what is checked and which line is named first: one pass over the chain, with what the lines say looked at beside it
//! (`stages`). Must never write, need a daemon or a privilege, or call something proven that is not: what was not given is
//! said in the notes.

mod fault;
mod progress;
mod report;
mod stages;
#[cfg(test)]
mod tests;

pub use fault::{Fault, What};
pub use report::Report;

use super::key::RecordPublicKey;
use super::{AuditError, sealer, segment};
use jvpn_common::event::{Checkpoint, Hash, LineError, follow, named};
use stages::{Block, Looked, Rest, Stages};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

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
    let mut pass = Pass { wanted, next: 1, checkpoints: VecDeque::new(), report: Report::default() };
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

/// The chain over a block, up to the first line that is not in it.
struct Chain {
    /// What its first line follows.
    before: Hash,
    hashes: Vec<Hash>,
    broken: Option<LineError>,
}

impl Chain {
    /// After `head`; the first line of all says itself what it follows.
    fn over(block: &Block, head: Option<Hash>) -> Self {
        let first = block.lines().next();
        let before = head.map_or_else(|| first.map_or(Ok(Hash::default()), named), Ok);
        let before = match before {
            Ok(before) => before,
            Err(error) => return Self { before: Hash::default(), hashes: Vec::new(), broken: Some(error) },
        };
        let mut chain = Self { before, hashes: Vec::with_capacity(block.len()), broken: None };
        let mut head = before;
        for line in block.lines() {
            match follow(line, head) {
                Ok((hash, _)) => head = hash,
                Err(error) => {
                    chain.broken = Some(error);
                    break;
                }
            }
            chain.hashes.push(head);
        }
        chain
    }
}

struct Pass<'a> {
    wanted: &'a Wanted,
    /// The number the next record has.
    next: u64,
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
        let wanted = self.wanted;
        std::thread::scope(|scope| {
            let Stages { blocks, looks } = Stages::start(scope, &wanted.segments, wanted.partial);
            for block in blocks {
                let block = block?;
                let chain = Chain::over(&block, self.report.head);
                // A stage that died takes the scope with it.
                let Ok(looked) = looks.recv() else { return Ok(()) };
                self.block(&block, chain, &looked)?;
            }
            Ok(())
        })
    }

    /// Puts together what both found of a block's lines, one after another.
    fn block(&mut self, block: &Block, chain: Chain, looked: &Looked) -> Result<(), Stop> {
        let path = self.wanted.segments.get(block.segment).map_or(Path::new(""), PathBuf::as_path);
        let mut broken = chain.broken;
        let mut before = chain.before;
        for index in 0..block.len() {
            let (line, place) = (block.line + index as u64, block.place(index));
            let offset = block.offset + place.start as u64;
            let hash = chain.hashes.get(index).copied().ok_or_else(|| broken.take().map(What::Line));
            let seq = looked.seqs.get(index).copied();
            let found = match (hash, seq) {
                (Ok(hash), Some(seq)) => Ok((hash, seq)),
                (Err(broken), _) => Err(broken),
                (Ok(_), None) => Err(looked.wrong.clone()),
            };
            let (hash, seq) = match found {
                Ok(found) => found,
                Err(what) => {
                    let what = what.unwrap_or_else(|| What::NotARecord("it was not looked at".into()));
                    return Err(Fault::at(path, line, Some(self.next), offset, what).into());
                }
            };
            self.next = seq.saturating_add(1);
            if seq == 1 && before != Hash::default() {
                return Err(Fault::at(path, line, Some(self.next), offset, What::Beginning).into());
            }
            before = hash;
            let report = &mut self.report;
            (report.head, report.last, report.records) = (Some(hash), Some(seq), report.records + 1);
            report.first.get_or_insert(seq);
            self.agree(path, line, offset)?;
            self.report.bytes += place.len() as u64;
        }
        self.rest_of(path, block)
    }

    /// What stands behind the lines of a block.
    fn rest_of(&mut self, path: &Path, block: &Block) -> Result<(), Stop> {
        match block.rest {
            Rest::More => return Ok(()),
            Rest::End => {}
            Rest::Unfinished(count) if block.segment + 1 == self.wanted.segments.len() => {
                self.report.unfinished = Some(count);
            }
            Rest::Unfinished(_) | Rest::TooLong => {
                let offset = block.offset + block.len().checked_sub(1).map_or(0, |last| block.place(last).end) as u64;
                let line = block.line + block.len() as u64;
                return Err(Fault::at(path, line, Some(self.next), offset, What::Unfinished).into());
            }
        }
        self.report.segments += 1;
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
        Err(Fault { file, line: None, record: Some(self.next), offset: None, what }.into())
    }
}
