//! The audit record: append-only lines, chained, written before anything is acknowledged.
//!
//! Owns who may write and who hears of it. `append` returns after write(2), so a record survives any crash
//! of the process; a thread syncs the disk at most every 20 ms and `wait_synced` waits for it. Must never lose
//! a record silently: what could not be written is an error now and a GAP record when there is room again.

mod key;
mod reader;
mod remembered;
mod sealer;
mod segment;
mod syncer;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod why;
mod writer;

pub use key::{RecordPublicKey, key_file, public_key};
pub use reader::{Filter, Step, history, read, sessions, severity};
pub use remembered::{Remembered, remembered};
pub use sealer::{CHECKPOINT_EVERY, newest as newest_checkpoint};
pub use segment::Recovered;

use crate::observe::Telemetry;
use crate::observe::fanout::{FanOut, Reader, Sink, TooMany};
use crate::observe::metrics::Exposition;
use crate::observe::table::Metric;
use jvpn_common::event::{Context, Record};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use syncer::Synced;
use tokio::sync::watch;
use writer::{Writer, Written};

/// Size at which the next segment is begun, in bytes: some 60,000 records, read in a blink at start.
pub const SEGMENT_MAX: u64 = 64 << 20;

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
    /// The key that signs checkpoints cannot be used.
    #[error("{cause}; it signs the record's checkpoints")]
    Key {
        /// Why.
        cause: Box<crate::config::key::KeyError>,
    },
    /// The disk refused to sync.
    #[error("the record could not be synced to disk")]
    NotSynced,
}

/// Sizes and times of a record.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a segment.
    pub segment_max: u64,
    /// Between two checkpoints.
    pub checkpoint_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_max: SEGMENT_MAX, checkpoint_every: CHECKPOINT_EVERY }
    }
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

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    dirty: Condvar,
    synced: watch::Sender<Synced>,
    telemetry: Telemetry,
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
        Self::open_with(state_dir, Options::default())
    }

    /// As [`Audit::open`], with other sizes and times.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open_with(state_dir: &Path, options: Options) -> Result<(Self, Recovered), AuditError> {
        let dir = dir_of(state_dir);
        segment::make_dir(&dir)?;
        let found = segment::recover(&dir)?;
        let key = key::RecordKey::open(state_dir, found.next_seq > 1)?;
        let written = found.next_seq.saturating_sub(1);
        let sealer = sealer::Sealer::new(key, options.checkpoint_every, written);
        let signed = sealer::furthest(&dir)?;
        let writer = Writer::new(dir.clone(), &found, signed, options.segment_max, sealer)?;
        let shared = Arc::new(Shared {
            writer: Mutex::new(writer),
            dirty: Condvar::new(),
            synced: watch::Sender::new(Synced { seq: written, failures: 0 }),
            telemetry: Telemetry::default(),
            dir,
        });
        let syncer = std::thread::Builder::new().name("audit-sync".into()).spawn({
            let shared = shared.clone();
            move || syncer::run(&shared)
        });
        let syncer = Some(syncer.map_err(|cause| AuditError::io(state_dir, cause))?);
        Ok((Self { shared, syncer }, found))
    }

    /// Numbers, chains and writes one record; its `seq` is set here. When this returns it survives a crash.
    ///
    /// # Errors
    /// The disk is full or broken. The record is lost, its number is named by a GAP record later.
    pub fn append(&self, record: Record) -> Result<u64, AuditError> {
        self.append_all(vec![record])
    }

    /// The same for the records of one commit: all of them or none. The number of the last one.
    ///
    /// # Errors
    /// The disk is full or broken; none of them was written.
    pub fn append_all(&self, records: Vec<Record>) -> Result<u64, AuditError> {
        let mut writer = self.shared.lock();
        let written = writer.append(records)?;
        let last = written.last;
        self.tell(writer, written);
        Ok(last)
    }

    fn tell(&self, writer: MutexGuard<'_, Writer>, written: Written) {
        self.shared.dirty.notify_one();
        drop(writer);
        for (record, line) in written.lines() {
            self.shared.telemetry.told(record, line);
        }
    }

    /// Writes the GAP record of what was lost, without waiting for something to happen that would: after a full disk
    /// nothing may happen until new sessions are let in again.
    ///
    /// # Errors
    /// There is still no room; nothing changed.
    pub fn resume(&self, ts: &str, at: jvpn_common::time::Instant, node: &str) -> Result<(), AuditError> {
        let mut writer = self.shared.lock();
        let context = Context { ts, at, node, seq: 0, peer: "" };
        if let Some(written) = writer.resume(&context)? {
            self.tell(writer, written);
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
        self.shared.lock().is_failing()
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
    ///
    /// # Errors
    /// There are as many readers as there may be.
    pub fn subscribe(&self, sink: Sink) -> Result<Reader, TooMany> {
        self.fan().subscribe(sink)
    }

    /// Whoever hears of the record while it is written.
    #[must_use]
    pub fn fan(&self) -> &Arc<FanOut> {
        self.shared.telemetry.fan()
    }

    /// What is counted about the record.
    pub(crate) fn expose(&self, to: &mut Exposition) {
        let (written, failing) = {
            let writer = self.shared.lock();
            (writer.written, writer.is_failing())
        };
        // Exact up to 2⁵³ records.
        to.level(Metric::RecordSequence, &[], written as f64);
        to.level(Metric::RecordSynced, &[], self.shared.synced.borrow().seq as f64);
        to.flag(Metric::RecordFailing, failing);
        self.shared.telemetry.expose(to);
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
    let now = i128::from(crate::runtime::clock::wall());
    jiff::Timestamp::from_nanosecond(now).map(|now| format!("{now:.9}")).unwrap_or_default()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic while writing leaves at most an unfinished line, which `append` and the next start cut off.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
