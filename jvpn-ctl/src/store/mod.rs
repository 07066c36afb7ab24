//! What survives a restart: sessions without secrets, version ceilings, incarnation and owner epoch.
//!
//! Owns the database file `state.redb` and the lock of the state directory. Must never hold a key other than a
//! peer's public one, must never panic over what a torn disk left (that is an error with the file's name), and must
//! never stay broken after a disk that was full has room again.

pub(crate) mod disk;
mod lock;
#[cfg(test)]
mod tests;

pub use lock::{DirLock, LockError};

use ipnet::IpNet;
use jvpn_common::ids::{Incarnation, OwnerEpoch, PolicyVersion, SessionId, Version};
use jvpn_common::time::Instant;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Free bytes from which a disk that was full is tried again: room for some thousand records, so that what is let in
/// then does not fail on the next one. Less flaps; much more keeps a small disk shut for nothing.
pub const ROOM_MIN: u64 = 1 << 20;

/// Versions reserved at a time. A power cut skips at most this many; a smaller block means more disk writes
/// on the way of a jump, a larger one only larger named gaps.
pub const CEILING_BLOCK: u64 = 1_024;

/// Bytes of pages that are kept. The library's gibibyte would be the whole file, two kilobytes a session that nobody reads
/// again before the next start; less than the pages of a turn's commits would write them twice.
const CACHE: usize = 2 << 20;

const SESSIONS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("sessions");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Layout of the records; another number is another program's file.
const FORMAT: u64 = 1;

/// A session as it survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSession {
    /// Its name.
    pub id: SessionId,
    /// The static key it belongs to.
    pub peer: [u8; 32],
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// Class of policy.
    pub policy: String,
    /// Which text of it was in force.
    pub policy_version: PolicyVersion,
    /// Name of its state, for people.
    pub state: String,
    /// What was left of `session_ttl` at `wall_ms`.
    pub session_ttl_left_ms: u64,
    /// What was left of `transport_loss_ttl` at `wall_ms`, when unbound.
    pub loss_ttl_left_ms: Option<u64>,
    /// Wall time of this record in milliseconds since 1970; a step of the clock only shortens what is left.
    pub wall_ms: u64,
    /// Boot time of this record, of the boot that `boot_id` names.
    pub at: Instant,
    /// Versions up to here may have been used.
    pub ceiling: Version,
    /// The kernel's boot id when it was written: the same one means only the process died.
    pub boot_id: String,
    /// The session core in its canonical encoding.
    pub core: Vec<u8>,
}

/// One change; several are made in one transaction with one sync.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds or replaces a session.
    Put(Box<StoredSession>),
    /// Forgets a session.
    Remove(SessionId),
    /// Raises a session's version ceiling; a lower one changes nothing.
    RaiseCeiling(SessionId, Version),
    /// Raises the owner epoch; a lower one changes nothing.
    RaiseOwnerEpoch(OwnerEpoch),
}

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file is torn or damaged.
    #[error("{path} is damaged: {cause}", path = path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// The file cannot be read or written.
    #[error("{path}: {cause}", path = path.display())]
    Io {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The file was written by a newer program.
    #[error("{path} has format {found}; this program reads {FORMAT}", path = path.display())]
    Format {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Lock(LockError::Held { .. }) => "stop that process, or give this one its own --state-dir".into(),
            Self::Lock(LockError::Io { .. }) | Self::Io { .. } => "check the directory's owner and free space".into(),
            Self::Damaged { path, .. } => {
                format!("restore a backup, or move {} away: sessions then come back from the record", path.display())
            }
            Self::Format { .. } => "start the program that wrote it, or move the file away".into(),
        }
    }
}

/// The open store of one gateway.
#[derive(Debug)]
pub struct Store {
    /// None after a failed write: the library refuses everything on a file once writing it failed, so the next use
    /// opens it again, as of its last commit.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    syncs: AtomicU64,
    _lock: DirLock,
}

impl Store {
    /// Locks the state directory and opens its database, making both if needed.
    ///
    /// # Errors
    /// Another process holds the directory, or the file is damaged, foreign, or cannot be used.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let lock = DirLock::take(state_dir)?;
        let path = state_dir.join("state.redb");
        let database = guarded(&path, || {
            let mut database = open_database(&path)?;
            // Every page against its checksum: a bit that flipped in a session is found now, not believed. What the
            // library falls back to is an older picture, which the record makes up for.
            if !database.check_integrity()? {
                tracing::warn!(path = %path.display(), "it was damaged and is repaired as of an earlier write");
            }
            Ok(database)
        })?;
        let store = Self { database: Mutex::new(Some(database)), path, syncs: AtomicU64::new(0), _lock: lock };
        store.check_format()?;
        Ok(store)
    }

    /// The state directory's database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts one more start of the gateway and says which it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn next_incarnation(&self) -> Result<Incarnation, StoreError> {
        self.number("incarnation", |now| now + 1).map(Incarnation)
    }

    /// Which owner of its sessions this gateway is; at least one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn owner_epoch(&self) -> Result<OwnerEpoch, StoreError> {
        self.number("owner_epoch", |now| now.max(1)).map(OwnerEpoch)
    }

    /// Every stored session, in order of id.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn load_all(&self) -> Result<Vec<StoredSession>, StoreError> {
        self.using(|database| {
            let read = database.begin_read()?;
            let table = read.open_table(SESSIONS)?;
            let mut sessions = Vec::new();
            for entry in table.iter()? {
                let (_, value) = entry?;
                sessions.push(decode(value.value())?);
            }
            Ok(sessions)
        })
    }

    /// Adds or replaces one session; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written; nothing changed.
    pub fn put(&self, session: &StoredSession) -> Result<(), StoreError> {
        self.apply(&[Change::Put(Box::new(session.clone()))])
    }

    /// Forgets one session; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written; nothing changed.
    pub fn remove(&self, id: SessionId) -> Result<(), StoreError> {
        self.apply(&[Change::Remove(id)])
    }

    /// Reserves versions of one session up to `ceiling`; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written; nothing changed.
    pub fn raise_ceiling(&self, id: SessionId, ceiling: Version) -> Result<(), StoreError> {
        self.apply(&[Change::RaiseCeiling(id, ceiling)])
    }

    /// Makes all changes or none, with one sync; durable when it returns.
    ///
    /// # Errors
    /// The file cannot be written; nothing changed.
    pub fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.using(|database| {
            ahead(disk::Use::Write)?;
            let write = database.begin_write()?;
            {
                let mut sessions = write.open_table(SESSIONS)?;
                let mut numbers = write.open_table(NUMBERS)?;
                for change in changes {
                    match change {
                        Change::Put(session) => {
                            sessions.insert(session.id.0, encode(session)?.as_slice())?;
                        }
                        Change::Remove(id) => {
                            sessions.remove(id.0)?;
                        }
                        Change::RaiseCeiling(id, ceiling) => {
                            let stored = sessions.get(id.0)?.map(|value| decode(value.value())).transpose()?;
                            if let Some(mut session) = stored.filter(|session| session.ceiling < *ceiling) {
                                session.ceiling = *ceiling;
                                sessions.insert(id.0, encode(&session)?.as_slice())?;
                            }
                        }
                        Change::RaiseOwnerEpoch(epoch) => {
                            let now = numbers.get("owner_epoch")?.map_or(0, |value| value.value());
                            numbers.insert("owner_epoch", now.max(epoch.0))?;
                        }
                    }
                }
            }
            ahead(disk::Use::Sync)?;
            write.commit()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    /// How often changes were brought to the disk since the store was opened.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Runs one use of the database, opened again if an earlier one broke it.
    fn using<T>(&self, run: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let result = guarded(&self.path, || {
            if database.is_none() {
                *database = Some(open_database(&self.path)?);
            }
            database.as_ref().map_or_else(|| Err(Fault::Record("not open".to_owned())), run)
        });
        if matches!(result, Err(StoreError::Io { .. })) {
            let broken = database.take();
            // Closing a file whose disk is full may fail again; what it would write is not committed.
            let _ = guarded(&self.path, || {
                drop(broken);
                Ok(())
            });
        }
        result
    }

    fn number(&self, name: &str, next: impl Fn(u64) -> u64) -> Result<u64, StoreError> {
        self.using(|database| {
            let write = database.begin_write()?;
            let value = {
                let mut numbers = write.open_table(NUMBERS)?;
                let value = next(numbers.get(name)?.map_or(0, |value| value.value()));
                numbers.insert(name, value)?;
                value
            };
            write.commit()?;
            Ok(value)
        })
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let found = self.number("format", |now| if now == 0 { FORMAT } else { now })?;
        if found != FORMAT {
            return Err(StoreError::Format { path: self.path.clone(), found });
        }
        // Both tables exist from here on, so that reading never meets a missing one.
        self.apply(&[])
    }
}

/// Whether the disk of a directory has room to go on; unknown counts as yes, since trying tells more than asking.
#[must_use]
pub fn has_room(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM_MIN)
}

fn open_database(path: &Path) -> Result<Database, Fault> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let options = &mut std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|cause| Fault::Redb(Box::new(redb::Error::Io(cause))))?;
    Ok(redb::Builder::new().set_cache_size(CACHE).create_file(file)?)
}

fn ahead(what: disk::Use) -> Result<(), Fault> {
    disk::ahead_of(what).map_err(|cause| Fault::Redb(Box::new(redb::Error::Io(cause))))
}

fn encode(session: &StoredSession) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(session).map_err(|error| Fault::Record(error.to_string()))
}

fn decode(bytes: &[u8]) -> Result<StoredSession, Fault> {
    serde_json::from_slice(bytes).map_err(|error| Fault::Record(error.to_string()))
}

/// What went wrong inside, before the file's name is known.
enum Fault {
    Redb(Box<redb::Error>),
    Record(String),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

/// Runs one use of the database. redb checks what it reads, but an image torn at the wrong place can still
/// break an assumption of it; that must stop this operation, not the gateway.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, Fault>) -> Result<T, StoreError> {
    let path = path.to_path_buf();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Fault::Record(cause))) => Err(StoreError::Damaged { path, cause }),
        Ok(Err(Fault::Redb(error))) => Err(match *error {
            redb::Error::Io(ref cause)
                if cause.kind() != std::io::ErrorKind::InvalidData
                    && cause.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                StoreError::Io { path, cause: error.to_string() }
            }
            redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo => {
                StoreError::Io { path, cause: error.to_string() }
            }
            _ => StoreError::Damaged { path, cause: error.to_string() },
        }),
        Err(_) => Err(StoreError::Damaged { path, cause: "its structure contradicts itself".into() }),
    }
}
