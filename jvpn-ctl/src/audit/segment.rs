//! The files of the record: one grows, older ones stay as they are.
//!
//! Owns names, modes, and what a start does with a tail that was cut off: it is moved aside, never deleted.
//! Must never change a line that is whole.

use super::AuditError;
use crate::store::disk::{Use, ahead_of};
use jvpn_common::event::{Hash, named, open};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that grows.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    /// Where a test lets the disk end.
    #[cfg(test)]
    pub(super) room: u64,
}

impl Segment {
    /// Opens or makes the segment that starts with record `first`.
    pub(super) fn open(dir: &Path, path: PathBuf) -> Result<Self, AuditError> {
        let options = &mut OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = file.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (len, file) = opened.map_err(|cause| AuditError::io(&path, cause))?;
        // The name must survive a power cut as well as the lines do.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|cause| AuditError::io(dir, cause))?;
        Ok(Self {
            file: Arc::new(file),
            path,
            len,
            #[cfg(test)]
            room: u64::MAX,
        })
    }

    /// Appends whole lines or nothing.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let ready = ahead_of(Use::Write).and_then(|()| self.room_for(bytes));
        let written = ready.and_then(|()| self.file.write_all_at(bytes, self.len));
        match written {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(cause) => {
                // Half a line may be there; the next start would find it even if this fails too.
                let _ = self.file.set_len(self.len);
                Err(AuditError::io(&self.path, cause))
            }
        }
    }

    #[cfg(test)]
    fn room_for(&self, bytes: &[u8]) -> std::io::Result<()> {
        if self.len + bytes.len() as u64 > self.room {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            self.file.write_all_at(half, self.len)?;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "only a test ends the disk")]
    fn room_for(&self, _bytes: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// Name of the segment that starts with record `first`; names sort as numbers do.
pub(super) fn name(first: u64) -> String {
    format!("record-{first:020}.jsonl")
}

/// Makes the directory, 0700.
pub(super) fn make_dir(dir: &Path) -> Result<(), AuditError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|cause| AuditError::io(dir, cause))
}

/// Every segment, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, AuditError> {
    named_like(dir, "record-")
}

/// Every file of lines whose name begins so, oldest first.
pub(super) fn named_like(dir: &Path, start: &str) -> Result<Vec<PathBuf>, AuditError> {
    let mut segments = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(segments),
        entries => entries.map_err(|cause| AuditError::io(dir, cause))?,
    };
    for entry in entries {
        let path = entry.map_err(|cause| AuditError::io(dir, cause))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(start) && name.ends_with(".jsonl") {
            segments.push(path);
        }
    }
    segments.sort();
    Ok(segments)
}

/// How many tails were set aside in a directory.
pub(super) fn torn(dir: &Path) -> Result<usize, AuditError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let entries = std::fs::read_dir(dir).map_err(|cause| AuditError::io(dir, cause))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("record-") && name.contains(".torn")).count())
}

/// Where the record ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Number of the next record.
    pub next_seq: u64,
    /// Hash the next record follows.
    pub head: Hash,
    /// The tail that was no whole record, and where it was moved; none after a clean end or a process crash.
    pub torn: Option<(u64, PathBuf)>,
}

/// Finds the end of the record; what follows the last whole line is moved into a file beside it.
pub(super) fn recover(dir: &Path) -> Result<Recovered, AuditError> {
    let mut found = Recovered { next_seq: 1, ..Recovered::default() };
    for path in list(dir)?.iter().rev() {
        let bytes = std::fs::read(path).map_err(|cause| AuditError::io(path, cause))?;
        let (whole, last) = last_whole(&bytes, verify);
        if let Some(tail) = bytes.get(whole..).filter(|tail| !tail.is_empty()) {
            let side = set_aside(path, tail, whole)?;
            found.torn.get_or_insert((tail.len() as u64, side));
        }
        if let Some((seq, head)) = last {
            found.next_seq = seq + 1;
            found.head = head;
            return Ok(found);
        }
    }
    Ok(found)
}

/// End of the last line that is whole, with what it was read as.
pub(super) fn last_whole<T>(bytes: &[u8], read: impl Fn(&str) -> Option<T>) -> (usize, Option<T>) {
    let mut end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    while end > 0 {
        let body = bytes.get(..end - 1).unwrap_or_default();
        let start = body.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = body.get(start..).and_then(|line| std::str::from_utf8(line).ok());
        if let Some(found) = line.and_then(&read) {
            return (end, Some(found));
        }
        end = start;
    }
    (0, None)
}

/// Number and hash of a line whose own hash fits.
fn verify(line: &str) -> Option<(u64, Hash)> {
    let unsealed = open(line, named(line.as_bytes()).ok()?).ok()?;
    Some((unsealed.record.seq, unsealed.hash))
}

fn set_aside(path: &Path, tail: &[u8], whole: usize) -> Result<PathBuf, AuditError> {
    let side = (0_u32..).map(|n| path.with_extension(format!("torn-{n}"))).find(|side| !side.exists());
    let side = side.unwrap_or_else(|| path.with_extension("torn"));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&side)?;
        file.write_all(tail)?;
        file.sync_all()?;
        OpenOptions::new().write(true).open(path)?.set_len(whole as u64)
    };
    write().map_err(|cause| AuditError::io(&side, cause))?;
    Ok(side)
}
