//! The sessions a gateway's worker knows: by slot for what comes in, by prefix for what goes out.
//!
//! Owns the snapshot both read. The controller changes it, the worker reads it once a batch. Must never hold
//! a binding: the active word in the maps is the one truth about that.

use crate::tunnel::{DataKey, Lpm, SessionData};
use ipnet::IpNet;
use jvpn_common::abi::SteeringKeys;
use jvpn_common::gateway::{DataKeys, WorkerOp};
use jvpn_common::ids::{Epoch, Generation, Locator, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_common::time::Instant;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// One session of the worker.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Generation of the slot.
    pub generation: Generation,
    /// What data needs.
    pub data: Arc<SessionData>,
    /// Prefixes that lead to it.
    pub prefixes: Vec<IpNet>,
    /// Steering keys of the slot.
    pub steering: SteeringKeys,
    /// Locator of each transport index.
    pub locators: BTreeMap<TransportIndex, Locator>,
    /// Path MTU of transports that proved one since they were bound.
    pub path_mtu: BTreeMap<TransportIndex, u16>,
}

/// What the worker reads.
#[derive(Debug)]
pub struct Snapshot {
    /// By slot.
    pub slots: BTreeMap<Slot, Entry>,
    /// By inner destination.
    pub routes: Lpm<Slot>,
    /// By session.
    pub ids: BTreeMap<SessionId, Slot>,
    /// Own addresses by index of a binding.
    pub gateways: Vec<SocketAddr>,
}

/// The table and its snapshot.
#[derive(Debug)]
pub struct Sessions {
    slots: BTreeMap<Slot, Entry>,
    /// Steering keys and locators of slots that are not confirmed yet.
    installed: BTreeMap<Slot, (SteeringKeys, BTreeMap<TransportIndex, Locator>)>,
    gateways: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

/// The snapshot in force.
#[derive(Debug)]
pub struct Shared(RwLock<Arc<Snapshot>>);

impl Shared {
    /// The snapshot now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let snapshot =
            Snapshot { slots: BTreeMap::new(), routes: Lpm::default(), ids: BTreeMap::new(), gateways: Vec::new() };
        let shared = Arc::new(Shared(RwLock::new(Arc::new(snapshot))));
        Self { slots: BTreeMap::new(), installed: BTreeMap::new(), gateways: Vec::new(), shared }
    }
}

impl Sessions {
    /// What the worker holds.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The entry of a slot.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.slots.get(&slot)
    }

    /// Every slot in use.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.slots.iter().map(|(&slot, entry)| (slot, entry))
    }

    /// Own addresses by index, as the engine numbers them.
    pub fn set_gateways(&mut self, gateways: Vec<SocketAddr>) {
        if gateways != self.gateways {
            self.gateways = gateways;
            self.publish();
        }
    }

    /// Follows what was written into the maps: keys and locators are needed to seal, too.
    pub fn follow(&mut self, ops: &[MapOp]) {
        let mut changed = false;
        for op in ops {
            match op {
                MapOp::Install { slot, keys, locators, .. } => {
                    self.installed.insert(*slot, (*keys, locators.iter().copied().collect()));
                }
                MapOp::AddLocators { slot, locators, .. } => {
                    if let Some(entry) = self.slots.get_mut(slot) {
                        entry.locators.extend(locators.iter().copied());
                        changed = true;
                    }
                }
                MapOp::RemoveLocators { locators } => {
                    for entry in self.slots.values_mut() {
                        entry.locators.retain(|_, locator| !locators.contains(locator));
                    }
                    changed = true;
                }
                MapOp::Free { slot } => {
                    self.installed.remove(slot);
                }
                MapOp::Binding { .. }
                | MapOp::Drain { .. }
                | MapOp::Activate { .. }
                | MapOp::Confirm { .. }
                | MapOp::Info { .. } => {}
            }
        }
        if changed {
            self.publish();
        }
    }

    /// Carries worker steps out, at boot time `now`.
    pub fn apply(&mut self, ops: Vec<WorkerOp>, now: Instant) {
        if ops.is_empty() {
            return;
        }
        for op in ops {
            match op {
                WorkerOp::Install { slot, generation, session, keys, prefixes } => {
                    let data = Arc::new(SessionData::new(session, prefixes.clone()));
                    data.change_keys(|set| set.current = Some(Arc::new(data_key(keys, now))));
                    let (steering, locators) = self.installed.remove(&slot).unwrap_or_default();
                    self.slots.insert(
                        slot,
                        Entry { generation, data, prefixes, steering, locators, path_mtu: BTreeMap::new() },
                    );
                }
                WorkerOp::Next { slot, keys } => {
                    if let Some(entry) = self.slots.get(&slot) {
                        entry.data.change_keys(|set| set.next = Some(Arc::new(data_key(keys, now))));
                    }
                }
                WorkerOp::PathMtu { slot, k, mtu } => {
                    if let Some(entry) = self.slots.get_mut(&slot) {
                        entry.path_mtu.insert(k, mtu);
                        entry.path_mtu.retain(|k, _| entry.locators.contains_key(k));
                    }
                }
                WorkerOp::Wipe { slot, epoch } => self.wipe(slot, |known| known == epoch),
                WorkerOp::WipeAll { slot } => self.wipe(slot, |_| true),
                WorkerOp::Free { slot } => {
                    self.wipe(slot, |_| true);
                    self.slots.remove(&slot);
                }
            }
        }
        self.publish();
    }

    fn wipe(&self, slot: Slot, dead: impl Fn(Epoch) -> bool) {
        let Some(entry) = self.slots.get(&slot) else { return };
        entry.data.change_keys(|set| {
            for key in [&mut set.previous, &mut set.current, &mut set.next] {
                if key.as_ref().is_some_and(|key| dead(key.epoch())) {
                    *key = None;
                }
            }
        });
    }

    fn publish(&self) {
        let mut routes = BTreeMap::new();
        for (&slot, entry) in &self.slots {
            for prefix in &entry.prefixes {
                routes.insert(prefix.trunc(), slot);
            }
        }
        let snapshot = Snapshot {
            slots: self.slots.clone(),
            routes: Lpm::new(routes).unwrap_or_default(),
            ids: self.slots.iter().map(|(&slot, entry)| (entry.data.id(), slot)).collect(),
            gateways: self.gateways.clone(),
        };
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

fn data_key(keys: DataKeys, now: Instant) -> DataKey {
    let DataKeys { epoch, suite, up, down } = keys;
    DataKey::new(suite, epoch, down, up, now)
}
