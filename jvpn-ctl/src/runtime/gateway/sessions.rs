//! The sessions a gateway's worker knows: by slot for what comes in, by prefix for what goes out.
//!
//! Owns the snapshot both read. The controller changes it, the worker reads it once a batch. Must never hold
//! a binding: the active word in the maps is the one truth about that. Must never copy more of a thousand sessions
//! than changed: every commit makes a snapshot, and after a restart all of them come at once.

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
    pub slots: BTreeMap<Slot, Arc<Entry>>,
    /// By inner destination.
    pub routes: Arc<Lpm<Slot>>,
    /// By session.
    pub ids: Arc<BTreeMap<SessionId, Slot>>,
    /// Own addresses by index of a binding.
    pub gateways: Vec<SocketAddr>,
}

/// The table and its snapshot.
#[derive(Debug)]
pub struct Sessions {
    slots: BTreeMap<Slot, Arc<Entry>>,
    /// Steering keys and locators of slots that are not confirmed yet.
    installed: BTreeMap<Slot, (SteeringKeys, BTreeMap<TransportIndex, Locator>)>,
    gateways: Vec<SocketAddr>,
    changed: Changed,
    shared: Arc<Shared>,
}

/// What the snapshot in force does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    #[default]
    Nothing,
    /// Something about slots that are in use.
    Entries,
    /// Which slots those are.
    Slots,
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
        let (slots, gateways) = (BTreeMap::new(), Vec::new());
        let snapshot = Snapshot { slots, routes: Arc::default(), ids: Arc::default(), gateways };
        let shared = Arc::new(Shared(RwLock::new(Arc::new(snapshot))));
        let (slots, gateways) = (BTreeMap::new(), Vec::new());
        Self { slots, installed: BTreeMap::new(), gateways, changed: Changed::Nothing, shared }
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
        self.slots.get(&slot).map(|entry| &**entry)
    }

    /// Every slot in use.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.slots.iter().map(|(&slot, entry)| (slot, &**entry))
    }

    /// Own addresses by index, as the engine numbers them.
    pub fn set_gateways(&mut self, gateways: Vec<SocketAddr>) {
        if gateways != self.gateways {
            self.gateways = gateways;
            self.changed = self.changed.max(Changed::Entries);
            self.publish();
        }
    }

    /// Carries a commit out, at boot time `now`: what was written into the maps, since keys and locators are needed to
    /// seal, too, and what the worker is to do. The worker sees all of it at once.
    pub fn commit(&mut self, maps: &[MapOp], worker: Vec<WorkerOp>, now: Instant) {
        self.follow(maps);
        self.apply(worker, now);
        self.publish();
    }

    fn follow(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op {
                MapOp::Install { slot, keys, locators, .. } => {
                    self.installed.insert(*slot, (*keys, locators.iter().copied().collect()));
                }
                MapOp::AddLocators { slot, locators, .. } => {
                    if let Some(entry) = self.slots.get_mut(slot) {
                        Arc::make_mut(entry).locators.extend(locators.iter().copied());
                        self.changed = self.changed.max(Changed::Entries);
                    }
                }
                MapOp::RemoveLocators { locators } => {
                    let has = |entry: &Entry| entry.locators.values().any(|locator| locators.contains(locator));
                    for entry in self.slots.values_mut().filter(|entry| has(entry)) {
                        Arc::make_mut(entry).locators.retain(|_, locator| !locators.contains(locator));
                    }
                    self.changed = self.changed.max(Changed::Entries);
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
    }

    fn apply(&mut self, ops: Vec<WorkerOp>, now: Instant) {
        for op in ops {
            match op {
                WorkerOp::Install { slot, generation, session, keys, prefixes } => {
                    let data = Arc::new(SessionData::new(session, prefixes.clone()));
                    data.change_keys(|set| set.current = Some(Arc::new(data_key(keys, now))));
                    let (steering, locators) = self.installed.remove(&slot).unwrap_or_default();
                    let path_mtu = BTreeMap::new();
                    let entry = Entry { generation, data, prefixes, steering, locators, path_mtu };
                    self.slots.insert(slot, Arc::new(entry));
                    self.changed = Changed::Slots;
                }
                WorkerOp::Next { slot, keys } => {
                    if let Some(entry) = self.slots.get(&slot) {
                        entry.data.change_keys(|set| set.next = Some(Arc::new(data_key(keys, now))));
                    }
                }
                WorkerOp::PathMtu { slot, k, mtu } => {
                    if let Some(entry) = self.slots.get_mut(&slot).map(Arc::make_mut) {
                        entry.path_mtu.insert(k, mtu);
                        entry.path_mtu.retain(|k, _| entry.locators.contains_key(k));
                        self.changed = self.changed.max(Changed::Entries);
                    }
                }
                WorkerOp::Wipe { slot, epoch } => self.wipe(slot, |known| known == epoch),
                WorkerOp::WipeAll { slot } => self.wipe(slot, |_| true),
                WorkerOp::Free { slot } => {
                    self.wipe(slot, |_| true);
                    self.slots.remove(&slot);
                    self.changed = Changed::Slots;
                }
            }
        }
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

    fn publish(&mut self) {
        let (mut routes, mut ids) = {
            let before = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&before.routes), Arc::clone(&before.ids))
        };
        match std::mem::take(&mut self.changed) {
            Changed::Nothing => return,
            Changed::Entries => {}
            Changed::Slots => {
                let prefixes = |(&slot, entry): (&Slot, &Arc<Entry>)| {
                    entry.prefixes.iter().map(|prefix| (prefix.trunc(), slot)).collect::<Vec<_>>()
                };
                // Of two slots with one prefix the later one has it.
                let all: BTreeMap<_, _> = self.slots.iter().flat_map(prefixes).collect();
                routes = Arc::new(Lpm::new(all).unwrap_or_default());
                ids = Arc::new(self.slots.iter().map(|(&slot, entry)| (entry.data.id(), slot)).collect());
            }
        }
        let snapshot = Snapshot { slots: self.slots.clone(), routes, ids, gateways: self.gateways.clone() };
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

fn data_key(keys: DataKeys, now: Instant) -> DataKey {
    let DataKeys { epoch, suite, up, down } = keys;
    DataKey::new(suite, epoch, down, up, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_common::crypto::Suite;
    use jvpn_common::secret::Secret;

    const NOW: Instant = Instant(1);

    fn install(sessions: &mut Sessions, number: u8) -> Slot {
        let (slot, generation) = (Slot(u32::from(number)), Generation(1));
        let locators = vec![(TransportIndex(0), Locator(u64::from(number)))];
        let (session, prefixes) = (SessionId([number; 16]), vec![format!("10.0.0.{number}/32").parse().unwrap()]);
        let (up, down) = (Secret::take(&mut [number; 32]), Secret::take(&mut [number + 1; 32]));
        let keys = DataKeys { epoch: Epoch(0), suite: Suite::Aes256Gcm, up, down };
        let op = MapOp::Install { slot, generation, keys: SteeringKeys::default(), locators, pending: true, session };
        sessions.commit(&[op], Vec::new(), NOW);
        let op = WorkerOp::Install { slot, generation, session, keys, prefixes };
        sessions.commit(&[MapOp::Confirm { slot }], vec![op], NOW);
        slot
    }

    #[test]
    fn a_commit_of_one_session_is_seen_at_once_and_copies_nothing_of_the_others() {
        let mut sessions = Sessions::default();
        let (one, other) = (install(&mut sessions, 1), install(&mut sessions, 3));
        let before = sessions.shared().load();
        let (slot, generation) = (one, Generation(1));
        let locators = vec![(TransportIndex(1), Locator(9))];
        sessions.commit(&[MapOp::AddLocators { slot, generation, locators }], Vec::new(), NOW);
        let after = sessions.shared().load();
        assert_eq!(after.slots[&one].locators[&TransportIndex(1)], Locator(9));
        assert!(Arc::ptr_eq(&before.slots[&other], &after.slots[&other]) && Arc::ptr_eq(&before.routes, &after.routes));
        sessions.commit(&[MapOp::RemoveLocators { locators: vec![Locator(9)] }], Vec::new(), NOW);
        assert_eq!(sessions.shared().load().slots[&one].locators.len(), 1);
        assert!(Arc::ptr_eq(&before.slots[&other], &sessions.shared().load().slots[&other]));
        assert_eq!(before.slots[&one].locators.len(), 1, "a snapshot never changes");

        sessions.commit(&[], vec![WorkerOp::Free { slot: one }], NOW);
        let after = sessions.shared().load();
        assert!(!after.slots.contains_key(&one) && !after.ids.contains_key(&SessionId([1; 16])));
        assert_eq!(after.routes.find("10.0.0.1".parse().unwrap()), None);
        assert_eq!(after.routes.find("10.0.0.3".parse().unwrap()), Some(&other));
    }
}
