//! What the store keeps of sessions: durable where a version or a birth depends on it, later otherwise.
//!
//! Owns the queue of writes that may wait. Must never let a queued older picture overwrite a newer one, nor make who
//! only adds to the queue wait for the disk.

use crate::runtime::clock;
use crate::store::{Change, Store, StoreError, StoredSession, has_room};
use anyhow::{Context, Result};
use jvpn_common::gateway::{StoreOp, Stored};
use jvpn_common::ids::SessionId;
use jvpn_common::session::Session;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a write that may wait waits, so that a burst of jumps is one sync.
const LAZY: Duration = Duration::from_millis(500);

/// A session to write, as it is handed over: of ten moves in half a second one is written, and only that one is made a row.
#[derive(Debug)]
struct Picture {
    stored: Box<Stored>,
    wall_ms: u64,
}

/// Sessions to write, and whether the last write failed.
#[derive(Debug, Default)]
struct Waiting {
    /// Held by who writes, before the queue's lock: so that a newer durable picture waits for an older lazy one.
    writing: Mutex<()>,
    queue: Mutex<BTreeMap<SessionId, Picture>>,
    failing: AtomicBool,
    boot_id: String,
}

/// The store and its queue.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<Store>,
    waiting: Arc<Waiting>,
}

impl Keeper {
    /// A keeper over an open store; a thread writes what waits until the keeper is dropped.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(store: Arc<Store>, boot_id: String) -> std::io::Result<Self> {
        let waiting = Arc::new(Waiting { boot_id, ..Waiting::default() });
        let weak = Arc::downgrade(&waiting);
        let writer = Arc::clone(&store);
        std::thread::Builder::new().name("store".into()).spawn(move || {
            while let Some(waiting) = weak.upgrade() {
                waiting.flush(&writer);
                drop(waiting);
                std::thread::park_timeout(LAZY);
            }
        })?;
        Ok(Self { store, waiting })
    }

    /// Carries store steps out.
    ///
    /// # Errors
    /// When a durable one could not be written.
    pub(super) fn apply(&self, ops: Vec<StoreOp>) -> Result<()> {
        let mut durable = Vec::new();
        let waits = ops.iter().any(StoreOp::is_durable);
        let _writing = waits.then(|| self.waiting.write());
        for op in ops {
            match op {
                StoreOp::Put { stored, durable: true } => {
                    self.forget(stored.session);
                    durable.push(Change::Put(Box::new(Picture::of(stored).row(&self.waiting.boot_id)?)));
                }
                StoreOp::Put { stored, durable: false } => {
                    self.waiting.lock().insert(stored.session, Picture::of(stored));
                }
                StoreOp::Remove(id) => {
                    self.forget(id);
                    durable.push(Change::Remove(id));
                }
            }
        }
        if !durable.is_empty() {
            let written = self.store.apply(&durable);
            self.waiting.note(written.as_ref().err());
            written?;
        }
        Ok(())
    }

    /// Whether the last write failed: no new sessions then.
    #[must_use]
    pub(super) fn is_failing(&self) -> bool {
        self.waiting.failing.load(Relaxed)
    }

    /// How often the store was synced.
    #[must_use]
    pub(super) fn syncs(&self) -> u64 {
        self.store.syncs()
    }

    fn forget(&self, id: SessionId) {
        self.waiting.lock().remove(&id);
    }
}

impl Picture {
    fn of(stored: Box<Stored>) -> Self {
        Self { stored, wall_ms: clock::wall() / 1_000_000 }
    }

    fn row(&self, boot_id: &str) -> Result<StoredSession> {
        let Self { stored, wall_ms } = self;
        let policy = stored.policy.as_ref();
        let core = Session::decode(&stored.core).context("a session that does not decode")?;
        let loss =
            core.lost_at().and_then(|lost| policy.map(|policy| (lost + policy.transport_loss_ttl).since(stored.at)));
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(StoredSession {
            id: stored.session,
            peer: *stored.peer.as_bytes(),
            addresses: stored.addresses.clone(),
            policy: policy.map(|policy| policy.name.clone()).unwrap_or_default(),
            policy_version: core.policy_version(),
            state: core.state().name().to_owned(),
            session_ttl_left_ms: millis(core.expires_at().since(stored.at)),
            loss_ttl_left_ms: loss.map(millis),
            wall_ms: *wall_ms,
            at: stored.at,
            ceiling: stored.ceiling,
            boot_id: boot_id.to_owned(),
            core: stored.core.clone(),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.waiting.flush(&self.store);
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Picture>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush(&self, store: &Store) {
        let _writing = self.write();
        let failing = self.failing.load(Relaxed);
        if failing && !store.path().parent().is_none_or(has_room) {
            return;
        }
        let pictures = std::mem::take(&mut *self.lock());
        // With nothing to write, only a store that failed is tried.
        if pictures.is_empty() && !failing {
            return;
        }
        let row = |picture: &Picture| {
            let row =
                picture.row(&self.boot_id).inspect_err(|error| tracing::error!(%error, "a session is not stored"));
            row.ok().map(|row| Change::Put(Box::new(row)))
        };
        let changes: Vec<Change> = pictures.values().filter_map(row).collect();
        let written = store.apply(&changes);
        if written.is_err() {
            // What came meanwhile is newer.
            let mut queue = self.lock();
            pictures.into_iter().for_each(|(id, picture)| {
                queue.entry(id).or_insert(picture);
            });
        }
        self.note(written.err().as_ref());
    }

    /// Tells once when writing begins to fail, and once when it works again.
    fn note(&self, error: Option<&StoreError>) {
        match (self.failing.swap(error.is_some(), Relaxed), error) {
            (false, Some(error)) => {
                tracing::error!(%error, "the store cannot be written; no new sessions until it can");
            }
            (true, None) => tracing::info!("the store can be written again"),
            (false, None) | (true, Some(_)) => {}
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use jvpn_common::ids::{OwnerEpoch, Version};
    use jvpn_common::secret::PublicKey;
    use jvpn_common::session::{Birth, Policy};
    use jvpn_common::time::Instant;

    /// A session just born.
    pub(in super::super) fn stored(id: u8, ceiling: u64) -> Box<Stored> {
        let birth = Birth { id: SessionId([id; 16]), peer: [9; 32], owner_epoch: OwnerEpoch(1) };
        let core = Session::born(birth, &Policy::field(), Instant(7)).encode();
        let peer = PublicKey::from_bytes([9; 32]).unwrap();
        let (session, addresses, at, ceiling) = (birth.id, Vec::new(), Instant(7), Version(ceiling));
        Box::new(Stored { session, peer, addresses, policy: None, core, ceiling, at })
    }

    #[test]
    fn a_picture_that_may_wait_is_taken_while_the_disk_is_busy_and_a_durable_one_wins_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let waiting = Arc::new(Waiting { boot_id: "this".into(), ..Waiting::default() });
        let keeper = Keeper { store: Arc::clone(&store), waiting };
        {
            let _busy = keeper.waiting.write();
            keeper.apply(vec![StoreOp::Put { stored: stored(7, 1), durable: false }]).unwrap();
        }
        keeper.apply(vec![StoreOp::Put { stored: stored(7, 2), durable: true }]).unwrap();
        keeper.waiting.flush(&store);
        assert_eq!(store.load_all().unwrap()[0].ceiling, Version(2), "the older picture is forgotten");
        keeper.apply(vec![StoreOp::Put { stored: stored(7, 3), durable: false }]).unwrap();
        keeper.waiting.flush(&store);
        assert_eq!(store.load_all().unwrap()[0].ceiling, Version(3));
    }
}
