//! What the store keeps of sessions: durable where a version or a birth depends on it, later otherwise.
//!
//! Owns the queue of writes that may wait. Must never let a queued older picture overwrite a newer one.

use crate::runtime::clock;
use crate::store::{Change, Store, StoredSession};
use anyhow::Result;
use jvpn_common::gateway::{Peer, StoreOp, Stored};
use jvpn_common::ids::SessionId;
use jvpn_common::secret::PublicKey;
use jvpn_common::session::{Policy, Session};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a write that may wait waits, so that a burst of jumps is one sync.
const LAZY: Duration = Duration::from_millis(500);

type Queue = Arc<Mutex<BTreeMap<SessionId, StoredSession>>>;

/// The store and its queue.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<Store>,
    queue: Queue,
    boot_id: String,
    policies: BTreeMap<[u8; 32], Arc<Policy>>,
}

impl Keeper {
    /// A keeper over an open store; a thread writes what waits until the keeper is dropped.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start(
        store: Arc<Store>,
        boot_id: String,
        policies: BTreeMap<[u8; 32], Arc<Policy>>,
    ) -> std::io::Result<Self> {
        let queue = Queue::default();
        let weak = Arc::downgrade(&queue);
        let writer = Arc::clone(&store);
        std::thread::Builder::new().name("store".into()).spawn(move || {
            while let Some(queue) = weak.upgrade() {
                flush(&writer, &queue);
                drop(queue);
                std::thread::park_timeout(LAZY);
            }
        })?;
        Ok(Self { store, queue, boot_id, policies })
    }

    /// Policies by peer.
    #[must_use]
    pub(super) const fn policies(&self) -> &BTreeMap<[u8; 32], Arc<Policy>> {
        &self.policies
    }

    /// Takes the policies of peers that were read again.
    pub(super) fn set_policies(&mut self, peers: &BTreeMap<PublicKey, Peer>) {
        self.policies = peers.iter().map(|(key, peer)| (*key.as_bytes(), Arc::clone(&peer.policy))).collect();
    }

    /// Carries store steps out.
    ///
    /// # Errors
    /// When a durable one could not be written.
    pub(super) fn apply(&self, ops: Vec<StoreOp>) -> Result<()> {
        let mut durable = Vec::new();
        for op in ops {
            match op {
                StoreOp::Put { stored, durable: true } => {
                    self.forget(stored.session);
                    durable.push(Change::Put(Box::new(self.row(&stored)?)));
                }
                StoreOp::Put { stored, durable: false } => {
                    let row = self.row(&stored)?;
                    self.queue.lock().unwrap_or_else(PoisonError::into_inner).insert(stored.session, row);
                }
                StoreOp::Remove(id) => {
                    self.forget(id);
                    durable.push(Change::Remove(id));
                }
            }
        }
        if !durable.is_empty() {
            self.store.apply(&durable)?;
        }
        Ok(())
    }

    fn forget(&self, id: SessionId) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn row(&self, stored: &Stored) -> Result<StoredSession> {
        let core = Session::decode(&stored.core).ok_or_else(|| anyhow::anyhow!("a session that does not decode"))?;
        let policy = self.policies.get(stored.peer.as_bytes());
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
            wall_ms: clock::wall() / 1_000_000,
            at: stored.at,
            ceiling: stored.ceiling,
            boot_id: self.boot_id.clone(),
            core: stored.core.clone(),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        flush(&self.store, &self.queue);
    }
}

fn flush(store: &Store, queue: &Queue) {
    // Held while writing, so that a newer durable picture waits for an older lazy one.
    let mut waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.is_empty() {
        return;
    }
    let changes: Vec<Change> = waiting.values().cloned().map(|row| Change::Put(Box::new(row))).collect();
    match store.apply(&changes) {
        Ok(()) => waiting.clear(),
        Err(error) => tracing::warn!(%error, "the store will be written later"),
    }
}
