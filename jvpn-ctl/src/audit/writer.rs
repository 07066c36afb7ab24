//! The writing end of the record: numbers, chain, segments.
//!
//! Owns what "all or none" means: the records of one commit are written together or not at all, so that a version that
//! was taken back is in no record. Must never leave half a line behind, nor lose a number without naming it.

use super::sealer::{End, Sealer};
use super::segment::{self, Segment};
use super::{AuditError, Recovered};
use jvpn_common::event::{Context, Event, Hash, Record, seal_onto};
use std::path::PathBuf;

/// Records that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    first: u64,
    last: u64,
}

/// The file that grows and where in the chain it is.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    pub(super) segment: Segment,
    segment_max: u64,
    next: u64,
    head: Hash,
    /// Who wrote the last record.
    node: String,
    /// Number of the last record that was written.
    pub(super) written: u64,
    missed: Option<Missed>,
    pub(super) sealer: Sealer,
    pub(super) closing: bool,
}

/// What was written: the number of the last record, all lines in one text, and each record with the end of its line there.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) last: u64,
    text: String,
    records: Vec<(Record, usize)>,
}

impl Written {
    /// Each record with its line.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&Record, &str)> {
        let starts = std::iter::once(0).chain(self.records.iter().map(|(_, end)| end + LINE_FEED));
        let lines = self.records.iter().zip(starts);
        lines.map(|((record, end), start)| (record, self.text.get(start..*end).unwrap_or_default()))
    }
}

/// Bytes between two lines.
const LINE_FEED: usize = 1;
/// Bytes of a usual record, as room for it: a switch has some 1,500.
const LINE_USUAL: usize = 1_600;

impl Writer {
    /// The writing end behind what was found. `signed` is the last record that a checkpoint names: none is made of a record
    /// that is not on the disk, so one beyond the end tells what was taken away since, and the next record names it.
    pub(super) fn new(
        dir: PathBuf,
        found: &Recovered,
        signed: u64,
        segment_max: u64,
        sealer: Sealer,
    ) -> Result<Self, AuditError> {
        let missed = (signed >= found.next_seq).then_some(Missed { first: found.next_seq, last: signed });
        if let Some(Missed { first, last }) = missed {
            tracing::error!(dir = %dir.display(), first, last, "records that a checkpoint names are gone");
        }
        let newest = segment::list(&dir)?.pop();
        let path = newest.unwrap_or_else(|| dir.join(segment::name(found.next_seq)));
        Ok(Self {
            segment: Segment::open(&dir, path)?,
            dir,
            segment_max,
            next: missed.map_or(found.next_seq, |missed| missed.last.saturating_add(1)),
            head: found.head,
            node: String::new(),
            written: found.next_seq.saturating_sub(1),
            missed,
            sealer,
            closing: false,
        })
    }

    /// Numbers and writes records together, after a GAP record if some before them were lost.
    pub(super) fn append(&mut self, records: Vec<Record>) -> Result<Written, AuditError> {
        let first = self.next;
        let count = records.len() as u64;
        let written = self.try_append(records);
        if written.is_err() && count > 0 {
            // Their numbers are gone: what was to have them may be told of elsewhere.
            self.next = first + count;
            let first = self.missed.map_or(first, |missed| missed.first);
            self.missed = Some(Missed { first, last: self.next - 1 });
        }
        written
    }

    fn try_append(&mut self, mut records: Vec<Record>) -> Result<Written, AuditError> {
        if let (Some(missed), Some(record)) = (self.missed, records.first()) {
            let context = Context { ts: &record.ts, at: record.at, node: &record.node, seq: 0, peer: "" };
            let gap = gap_record(&context, missed);
            records.insert(0, gap);
        }
        self.write(records)
    }

    /// Writes the GAP record alone; none when nothing was lost.
    pub(super) fn resume(&mut self, context: &Context<'_>) -> Result<Option<Written>, AuditError> {
        let Some(missed) = self.missed else { return Ok(None) };
        self.write(vec![gap_record(context, missed)]).map(Some)
    }

    /// Whether the last append failed.
    pub(super) fn is_failing(&self) -> bool {
        self.missed.is_some()
    }

    /// The last record that was written.
    pub(super) fn end(&self) -> End {
        let (node, segment) = (self.node.clone(), self.segment.path.clone());
        End { seq: self.written, head: self.head, node, segment }
    }

    fn write(&mut self, records: Vec<Record>) -> Result<Written, AuditError> {
        let (mut head, mut bytes) = (self.head, Vec::with_capacity(records.len() * LINE_USUAL));
        let (first, mut last) = (self.next, self.written);
        let mut written = Vec::with_capacity(records.len());
        for (mut record, seq) in records.into_iter().zip(first..) {
            (record.seq, last) = (seq, seq);
            head = seal_onto(&mut bytes, &record, head);
            written.push((record, bytes.len()));
            bytes.push(b'\n');
        }
        if let Some((newest, _)) = written.last() {
            self.rotate_for(bytes.len() as u64, first)?;
            self.segment.append(&bytes)?;
            self.node.clone_from(&newest.node);
            (self.head, self.written, self.next, self.missed) = (head, last, last + 1, None);
        }
        let text = String::from_utf8(bytes).expect("JSON is text");
        Ok(Written { last, text, records: written })
    }

    fn rotate_for(&mut self, more: u64, seq: u64) -> Result<(), AuditError> {
        if self.segment.len == 0 || self.segment.len + more <= self.segment_max {
            return Ok(());
        }
        self.segment.file.sync_data().map_err(|cause| AuditError::io(&self.segment.path, cause))?;
        let end = self.end();
        self.sealer.seal(&end);
        self.segment = Segment::open(&self.dir, self.dir.join(segment::name(seq)))?;
        Ok(())
    }
}

fn gap_record(context: &Context<'_>, missed: Missed) -> Record {
    Record::plain(context, Event::Gap)
        .with("first_seq", missed.first.to_string().into())
        .with("last_seq", missed.last.to_string().into())
        .with("count", (missed.last - missed.first + 1).into())
}
