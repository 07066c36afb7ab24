//! One instance a directory: a lock file that names its holder.
//!
//! Owns the lock. Must never break one: the kernel releases it when its holder ends, however it ends.

use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a lock may outlive its holder: a child of it that was about to run another program when it was killed has
/// the file open until then. Whoever starts a killed gateway again is not told that it is still running.
const ENDING: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{dir} is in use by process {holder}", dir = dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The holder's process id, as it wrote it down.
        holder: String,
    },
    /// The directory or its lock file cannot be used.
    #[error("cannot use {path}: {cause}", path = path.display())]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A held lock; dropped, it is free again.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory (0700) if needed and locks it; a holder that is ending is given a second.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be used.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let until = Instant::now() + ENDING;
        Self::take_while(dir, || {
            thread::sleep(LOOK_EVERY);
            Instant::now() < until
        })
    }

    /// As [`Self::take`]; `again` is asked after each look that found a holder.
    fn take_while(dir: &Path, mut again: impl FnMut() -> bool) -> Result<Self, LockError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |cause| LockError::Io { path, cause }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
        let path = dir.join("lock");
        let options = &mut OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(io(&path))?;
        let locked = loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) if again() => {}
                other => break other,
            }
        };
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The holder may be between locking and writing; then its number is not known yet.
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim().to_owned() } else { "(starting)".to_owned() };
                return Err(LockError::Held { dir: dir.into(), holder });
            }
            Err(error) => return Err(io(&path)(error.into())),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(io(&path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_the_firsts_process_and_a_later_one_gets_the_lock() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let first = DirLock::take(&state).expect("free");
        let refused = DirLock::take(&state).expect_err("held").to_string();
        assert_eq!(refused, format!("{} is in use by process {}", state.display(), std::process::id()));
        drop(first);
        DirLock::take(&state).expect("free again");
    }

    #[test]
    fn a_lock_that_is_let_go_a_moment_later_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = Some(DirLock::take(dir.path()).expect("free"));
        let second = DirLock::take_while(dir.path(), || first.take().is_some());
        second.expect("taken");
    }
}
