//! Signed checkpoints beside the segments they are about.
//!
//! Owns when one is due and their files. Must never sign what is not on the disk: a checkpoint that was shipped must
//! hold after a power cut.

use super::key::RecordKey;
use super::{AuditError, segment};
use jvpn_common::event::{Checkpoint, Hash};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two checkpoints of a record that grows. Halved, twice as many lines are kept and shipped; doubled, twice
/// as much of the end of a record can be taken away unseen.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// The end of the record at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) seq: u64,
    pub(super) head: Hash,
    pub(super) node: String,
    /// The segment it is in.
    pub(super) segment: PathBuf,
}

/// Signs ends of the record that are on the disk.
#[derive(Debug)]
pub(super) struct Sealer {
    key: RecordKey,
    every: Duration,
    /// Number of the last record that has a checkpoint, or was written by an earlier process.
    done: u64,
    last: Option<Instant>,
    /// The file of checkpoints that grows, and whose segment's it is.
    open: Option<(PathBuf, File)>,
}

impl Sealer {
    pub(super) fn new(key: RecordKey, every: Duration, done: u64) -> Self {
        Self { key, every, done, last: None, open: None }
    }

    /// How long until the next checkpoint may be made; the first one at once.
    pub(super) fn rest(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| (last + self.every).saturating_duration_since(Instant::now()))
    }

    /// Signs an end that is on the disk. A checkpoint that cannot be written is told and made up for by the next.
    pub(super) fn seal(&mut self, end: &End) {
        if end.seq <= self.done {
            return;
        }
        self.last = Some(Instant::now());
        let End { seq, head, node, segment } = end;
        let (ts, key) = (super::wall_clock(), self.key.public().0);
        let line = self.key.sign(&Checkpoint { node: node.clone(), seq: *seq, head: *head, ts, key });
        match self.add(&file_of(segment), &line) {
            Ok(()) => self.done = *seq,
            Err(error) => {
                self.open = None;
                tracing::warn!(%error, "a checkpoint of the record could not be written");
            }
        }
    }

    fn add(&mut self, path: &Path, line: &str) -> Result<(), AuditError> {
        let open = match self.open.take().filter(|(open, _)| open == path) {
            Some(open) => open,
            None => (path.to_path_buf(), open(path).map_err(|cause| AuditError::io(path, cause))?),
        };
        let (_, file) = self.open.insert(open);
        file.write_all(format!("{line}\n").as_bytes()).map_err(|cause| AuditError::io(path, cause))
    }
}

/// The checkpoints of a segment.
pub(super) fn file_of(segment: &Path) -> PathBuf {
    let name = segment.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    segment.with_file_name(name.replacen("record-", "checkpoint-", 1))
}

/// Opens a file of checkpoints to add to it. A line that a power cut left unfinished is taken off: it proves nothing.
fn open(path: &Path) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let text = std::fs::read(path)?;
    let (whole, _) = segment::last_whole(&text, |line| Checkpoint::read(line).map(drop));
    if whole < text.len() {
        file.set_len(whole as u64)?;
    }
    Ok(file)
}

/// Every line of the checkpoints beside these segments, with the file it is in, oldest first; a last line without
/// its end is left out.
pub(super) fn lines_of(segments: &[PathBuf]) -> Result<Vec<(PathBuf, String)>, AuditError> {
    let mut lines = Vec::new();
    for path in segments.iter().map(|segment| file_of(segment)) {
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.map_err(|cause| AuditError::io(&path, cause))?,
        };
        let text = String::from_utf8_lossy(&text);
        let ended = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        lines.extend(ended.map(|line| (path.clone(), line.to_owned())));
    }
    Ok(lines)
}

/// Number of the last record that any checkpoint beside the record names, its segment there or not; 0 without one.
pub(super) fn furthest(dir: &Path) -> Result<u64, AuditError> {
    let mut furthest = 0;
    for path in segment::named_like(dir, "checkpoint-")? {
        let text = std::fs::read(&path).map_err(|cause| AuditError::io(&path, cause))?;
        let (_, last) = segment::last_whole(&text, |line| Checkpoint::read(line).map(|signed| signed.checkpoint.seq));
        furthest = furthest.max(last.unwrap_or(0));
    }
    Ok(furthest)
}

/// The newest checkpoint of a record; none if there is none yet.
///
/// # Errors
/// A file cannot be read.
pub fn newest(dir: &Path) -> Result<Option<String>, AuditError> {
    for segment in segment::list(dir)?.into_iter().rev() {
        let lines = lines_of(&[segment])?;
        if let Some((_, line)) = lines.into_iter().rev().find(|(_, line)| Checkpoint::read(line).is_some()) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}
