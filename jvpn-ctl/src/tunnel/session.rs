//! What a worker and the controller share about one session.
//!
//! Owns keys by epoch, the addresses a session may send from, and when something last opened. Must never
//! hold a binding: the one truth about that is the active word, which the role reads.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;
use jvpn_common::ids::{Epoch, SessionId};
use jvpn_common::time::Instant;

use super::key::{DataKey, KeySet};

/// Transports whose last opened packet is remembered at once: active, draining, and the next two.
const SEEN: usize = 4;

/// One session as workers see it. Shared in an `Arc`, looked up through the role's snapshot.
#[derive(Debug)]
pub struct SessionData {
    id: SessionId,
    allowed: Vec<IpNet>,
    keys: RwLock<KeySet>,
    seen: [Seen; SEEN],
    traffic: Traffic,
}

/// When something last opened on one transport; `k` is stored as k + 1, so that zero is "never".
#[derive(Debug, Default)]
struct Seen {
    k: AtomicU64,
    at: AtomicU64,
}

/// Inner traffic of a session; sums over all workers.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets opened.
    pub rx_packets: AtomicU64,
    /// Their inner bytes.
    pub rx_bytes: AtomicU64,
    /// Packets sealed.
    pub tx_packets: AtomicU64,
    /// Their inner bytes.
    pub tx_bytes: AtomicU64,
    /// When an inner packet last went either way, boot time in nanoseconds.
    pub last_inner: AtomicU64,
    /// When one was last sealed.
    pub last_sealed: AtomicU64,
    /// Packets opened and dropped since their inner source is not the session's.
    pub spoofed: AtomicU64,
}

impl SessionData {
    /// A session without keys that may send from `allowed` inside. On a client `allowed` is what the
    /// gateway may send from: the client's routes.
    #[must_use]
    pub fn new(id: SessionId, allowed: Vec<IpNet>) -> Self {
        Self { id, allowed, keys: RwLock::default(), seen: Default::default(), traffic: Traffic::default() }
    }

    /// Which session this is.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// A copy of the key set.
    #[must_use]
    pub fn keys(&self) -> KeySet {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the key set in one step: install, promote, wipe.
    pub fn change_keys<T>(&self, change: impl FnOnce(&mut KeySet) -> T) -> T {
        change(&mut self.keys.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that data is sealed with.
    #[must_use]
    pub fn sealing(&self) -> Option<Arc<DataKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).current.clone()
    }

    pub(super) fn opening(&self, epoch: u8) -> Option<Arc<DataKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).by_wire(epoch).cloned()
    }

    /// `key` opened a packet: if it was `next`, it is proven and becomes current.
    pub(super) fn proven(&self, epoch: Epoch) -> bool {
        let waiting = |keys: &KeySet| keys.next.as_ref().is_some_and(|next| next.epoch() == epoch);
        if !waiting(&self.keys.read().unwrap_or_else(PoisonError::into_inner)) {
            return false;
        }
        self.change_keys(|keys| keys.promote(epoch))
    }

    /// From where the session may send inside; on a gateway also what leads to it.
    #[must_use]
    pub fn allowed(&self) -> &[IpNet] {
        &self.allowed
    }

    /// Whether the session may send from `source` inside.
    #[must_use]
    pub fn allows(&self, source: IpAddr) -> bool {
        self.allowed.iter().any(|net| net.contains(&source))
    }

    /// When something last opened on transport `k`.
    #[must_use]
    pub fn last_opened(&self, k: u16) -> Option<Instant> {
        let seen = self.seen.get(usize::from(k) % SEEN)?;
        let at = seen.at.load(Relaxed);
        (seen.k.load(Relaxed) == u64::from(k) + 1).then_some(Instant(at))
    }

    /// When something last opened on any of the transports that are remembered.
    #[must_use]
    pub fn last_heard(&self) -> Option<Instant> {
        let heard = self.seen.iter().filter(|seen| seen.k.load(Relaxed) != 0);
        heard.map(|seen| Instant(seen.at.load(Relaxed))).max()
    }

    /// Inner traffic so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(super) fn opened(&self, k: u16, packets: u64, bytes: u64, now: Instant) {
        if let Some(seen) = self.seen.get(usize::from(k) % SEEN) {
            seen.at.store(now.0, Relaxed);
            seen.k.store(u64::from(k) + 1, Relaxed);
        }
        if packets > 0 {
            self.traffic.rx_packets.fetch_add(packets, Relaxed);
            self.traffic.rx_bytes.fetch_add(bytes, Relaxed);
            self.traffic.last_inner.store(now.0, Relaxed);
        }
    }

    /// Counts what was sealed; says when the session last had inner traffic before.
    pub(super) fn sealed(&self, packets: u64, bytes: u64, now: Instant) -> Instant {
        self.traffic.tx_packets.fetch_add(packets, Relaxed);
        self.traffic.tx_bytes.fetch_add(bytes, Relaxed);
        self.traffic.last_sealed.store(now.0, Relaxed);
        Instant(self.traffic.last_inner.swap(now.0, Relaxed))
    }
}
