//! The audit record: append-only lines, chained, written before anything is acknowledged.
//!
//! Owns the writer, its numbers and its chain. `append` returns after write(2), so a record survives any crash
//! of the process; a thread syncs the disk at most every 20 ms and `wait_synced` waits for it. Must never lose
//! a record silently: what could not be written is an error now and a GAP record when there is room again.

mod reader;
mod segment;
#[cfg(test)]
mod tests;

pub use reader::{Filter, Step, history, last_transitions, read};
pub use segment::Recovered;

use jvpn_common::event::{Context, Event, Hash, Record, seal};
use segment::Segment;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};

/// Least time between two syncs: one disk flush serves every record of 20 ms. Halved, a busy gateway flushes
/// twice as often; doubled, a power cut costs twice as many records.
const SYNC_EVERY: Duration = Duration::from_millis(20);

/// Size at which the next segment is begun, in bytes: some 60,000 records, read in a blink at start.
pub const SEGMENT_MAX: u64 = 64 << 20;

/// Lines a slow reader of the stream may lag behind before it is told that it missed some.
const FEED_MAX: usize = 1_024;

/// Why the record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file cannot be used; a full disk is the usual cause.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The disk refused to sync.
    #[error("the record could not be synced to disk")]
    NotSynced,
}

impl AuditError {
    fn io(path: &Path, cause: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), cause }
    }

    /// Whether there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded))
    }
}

/// Records that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missed {
    first: u64,
    last: u64,
}

#[derive(Debug)]
struct Writer {
    dir: PathBuf,
    segment: Segment,
    segment_max: u64,
    next: u64,
    head: Hash,
    /// Number of the last record that was written.
    written: u64,
    missed: Option<Missed>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    seq: u64,
    failures: u64,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    dirty: Condvar,
    synced: watch::Sender<Synced>,
    feed: broadcast::Sender<Arc<str>>,
    dir: PathBuf,
}

/// The record of one node. Dropped, it syncs what is left.
#[derive(Debug)]
pub struct Audit {
    shared: Arc<Shared>,
    syncer: Option<std::thread::JoinHandle<()>>,
}

impl Audit {
    /// Opens `state_dir/audit`, finds the end of the record and starts the syncing thread. The caller holds the
    /// state directory's lock: two writers would fork the chain.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open(state_dir: &Path) -> Result<(Self, Recovered), AuditError> {
        Self::open_with(state_dir, SEGMENT_MAX)
    }

    /// As [`Audit::open`], with segments of another size.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open_with(state_dir: &Path, segment_max: u64) -> Result<(Self, Recovered), AuditError> {
        let dir = dir_of(state_dir);
        segment::make_dir(&dir)?;
        let found = segment::recover(&dir)?;
        let newest = segment::list(&dir)?.pop();
        let path = newest.unwrap_or_else(|| dir.join(segment::name(found.next_seq)));
        let segment = Segment::open(&dir, path)?;
        let written = found.next_seq.saturating_sub(1);
        let writer = Writer {
            dir: dir.clone(),
            segment,
            segment_max,
            next: found.next_seq,
            head: found.head,
            written,
            missed: None,
            closing: false,
        };
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            dirty: Condvar::new(),
            synced: watch::Sender::new(Synced { seq: written, failures: 0 }),
            feed: broadcast::Sender::new(FEED_MAX),
            dir,
        });
        let syncer = std::thread::Builder::new().name("audit-sync".into()).spawn({
            let shared = shared.clone();
            move || sync_loop(&shared)
        });
        let syncer = Some(syncer.map_err(|cause| AuditError::io(state_dir, cause))?);
        Ok((Self { shared, syncer }, found))
    }

    /// Numbers, chains and writes one record; its `seq` is set here. When this returns it survives a crash.
    ///
    /// # Errors
    /// The disk is full or broken. The record is lost, its number is named by a GAP record later.
    pub fn append(&self, record: Record) -> Result<u64, AuditError> {
        let mut writer = self.shared.lock();
        let seq = writer.next;
        writer.next += 1;
        match writer.append(record, seq) {
            Ok((seq, lines)) => {
                self.shared.dirty.notify_one();
                drop(writer);
                for line in lines {
                    // Nobody listening is the usual case.
                    let _ = self.shared.feed.send(line.into());
                }
                Ok(seq)
            }
            Err(error) => {
                writer.missed = Some(Missed { first: writer.missed.map_or(seq, |missed| missed.first), last: seq });
                Err(error)
            }
        }
    }

    /// Writes the GAP record of what was lost, without waiting for something to happen that would: after a full disk
    /// nothing may happen until new sessions are let in again.
    ///
    /// # Errors
    /// There is still no room; nothing changed.
    pub fn resume(&self, ts: &str, at: jvpn_common::time::Instant, node: &str) -> Result<(), AuditError> {
        let mut writer = self.shared.lock();
        let context = Context { ts, at, node, seq: writer.next, peer: "" };
        if let Some(lines) = writer.resume(&context)? {
            self.shared.dirty.notify_one();
            drop(writer);
            lines.into_iter().for_each(|line| drop(self.shared.feed.send(line.into())));
        }
        Ok(())
    }

    /// Waits until the record `seq` is on the disk.
    ///
    /// # Errors
    /// The disk refused.
    pub async fn wait_synced(&self, seq: u64) -> Result<(), AuditError> {
        let mut synced = self.shared.synced.subscribe();
        let failures = synced.borrow().failures;
        let done = |now: &Synced| now.seq >= seq || now.failures > failures;
        let reached = synced.wait_for(done).await.map_err(|_| AuditError::NotSynced)?.seq >= seq;
        if reached { Ok(()) } else { Err(AuditError::NotSynced) }
    }

    /// Whether the last append failed: no new sessions then.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.shared.lock().missed.is_some()
    }

    /// What readers of the stream need; it keeps no file open.
    #[must_use]
    pub fn feed(&self) -> Feed {
        Feed { shared: self.shared.clone() }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.dirty.notify_one();
        if let Some(syncer) = self.syncer.take() {
            // A panic there was printed by its thread; there is nothing to add.
            let _ = syncer.join();
        }
    }
}

/// Where readers find the record and what is added to it.
#[derive(Clone, Debug)]
pub struct Feed {
    shared: Arc<Shared>,
}

impl Feed {
    /// The directory of the record.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Every line from now on; a reader that is too slow is told how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared.feed.subscribe()
    }
}

/// The directory of the record inside a state directory.
#[must_use]
pub fn dir_of(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

/// Now, as records write it: RFC 3339 in UTC with nanoseconds. A label; nothing is decided by it.
#[must_use]
pub fn wall_clock() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic while writing leaves at most an unfinished line, which `append` and the next start cut off.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes the record, after a GAP record if some before it were lost; gives its number and the lines.
    fn append(&mut self, mut record: Record, seq: u64) -> Result<(u64, Vec<String>), AuditError> {
        let mut bytes = Vec::new();
        let mut lines = Vec::new();
        let mut head = self.head;
        record.seq = seq;
        if let Some(missed) = self.missed {
            let context = Context { ts: &record.ts, at: record.at, node: &record.node, seq, peer: "" };
            let gap = gap_record(&context, missed);
            record.seq = seq + 1;
            head = add(&gap, head, &mut bytes, &mut lines);
        }
        head = add(&record, head, &mut bytes, &mut lines);
        self.write(&bytes, head, seq, record.seq)?;
        Ok((record.seq, lines))
    }

    /// Writes the GAP record alone; none when nothing was lost.
    fn resume(&mut self, context: &Context<'_>) -> Result<Option<Vec<String>>, AuditError> {
        let Some(missed) = self.missed else { return Ok(None) };
        let (mut bytes, mut lines) = (Vec::new(), Vec::new());
        let head = add(&gap_record(context, missed), self.head, &mut bytes, &mut lines);
        self.write(&bytes, head, context.seq, context.seq)?;
        Ok(Some(lines))
    }

    /// Writes the lines of records `first` to `last`, all or none.
    fn write(&mut self, bytes: &[u8], head: Hash, first: u64, last: u64) -> Result<(), AuditError> {
        self.rotate_for(bytes.len() as u64, first)?;
        self.segment.append(bytes)?;
        (self.head, self.written, self.next, self.missed) = (head, last, last + 1, None);
        Ok(())
    }

    fn rotate_for(&mut self, more: u64, seq: u64) -> Result<(), AuditError> {
        if self.segment.len == 0 || self.segment.len + more <= self.segment_max {
            return Ok(());
        }
        self.segment.file.sync_data().map_err(|cause| AuditError::io(&self.segment.path, cause))?;
        self.segment = Segment::open(&self.dir, self.dir.join(segment::name(seq)))?;
        Ok(())
    }
}

fn add(record: &Record, head: Hash, bytes: &mut Vec<u8>, lines: &mut Vec<String>) -> Hash {
    let sealed = seal(&record.line(), head);
    bytes.extend_from_slice(sealed.line.as_bytes());
    bytes.push(b'\n');
    lines.push(sealed.line);
    sealed.hash
}

fn gap_record(context: &Context<'_>, missed: Missed) -> Record {
    Record::plain(context, Event::Gap)
        .with("first_seq", missed.first.to_string().into())
        .with("last_seq", missed.last.to_string().into())
        .with("count", (missed.last - missed.first + 1).into())
}

/// Syncs what was written, at most every [`SYNC_EVERY`], until the record is closed.
fn sync_loop(shared: &Shared) {
    let mut done = shared.synced.borrow().seq;
    let mut rest_until: Option<Instant> = None;
    loop {
        let mut writer = shared.lock();
        while writer.written <= done && !writer.closing {
            writer = shared.dirty.wait(writer).unwrap_or_else(PoisonError::into_inner);
        }
        if writer.written <= done {
            return;
        }
        if let Some(rest) = rest_until.and_then(|until| until.checked_duration_since(Instant::now()))
            && !writer.closing
        {
            drop(writer);
            std::thread::sleep(rest);
            writer = shared.lock();
        }
        let (seq, file, closing) = (writer.written, writer.segment.file.clone(), writer.closing);
        drop(writer);
        let synced = file.sync_data();
        rest_until = Some(Instant::now() + SYNC_EVERY);
        match synced {
            Ok(()) => {
                done = seq;
                shared.synced.send_modify(|now| now.seq = seq);
            }
            Err(error) => {
                tracing::error!(%error, "the record could not be synced");
                shared.synced.send_modify(|now| now.failures += 1);
                if closing {
                    return;
                }
            }
        }
    }
}
