//! The sessions a gateway's worker knows: by slot for what comes in, by prefix for what goes out.
//!
//! Owns the snapshot both read. The controller changes it, the worker reads it once a batch. Must never hold
//! a binding: the active word in the maps is the one truth about that. Must never copy more of a hundred thousand sessions
//! than a piece about the one that changed: every commit makes a snapshot, and after a restart all of them come at once.

use crate::tunnel::{ByKey, BySlot, DataKey, Lpm, SessionData};
use jvpn_common::abi::SteeringKeys;
use jvpn_common::gateway::{DataKeys, WorkerOp};
use jvpn_common::ids::{Epoch, Generation, Locator, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_common::secret::Secret;
use jvpn_common::time::Instant;
use litemap::LiteMap;
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
    /// Steering keys of the slot.
    pub steering: SteeringKeys,
    /// Locator of each transport index.
    pub locators: LiteMap<TransportIndex, Locator>,
    /// Path MTU of transports that proved one since they were bound.
    pub path_mtu: LiteMap<TransportIndex, u16>,
}

/// What the worker reads.
#[derive(Debug)]
pub struct Snapshot {
    /// By slot.
    pub slots: BySlot<Entry>,
    /// By inner destination.
    pub routes: Arc<Lpm<Slot>>,
    /// By session.
    pub ids: Arc<ByKey<SessionId, Slot>>,
    /// Own addresses by index of a binding.
    pub gateways: Vec<SocketAddr>,
}

/// The table and its snapshot.
#[derive(Debug)]
pub struct Sessions {
    slots: BySlot<Entry>,
    routes: Arc<Lpm<Slot>>,
    ids: Arc<ByKey<SessionId, Slot>>,
    /// Steering keys and locators of slots that are not confirmed yet.
    installed: BTreeMap<Slot, (SteeringKeys, LiteMap<TransportIndex, Locator>)>,
    gateways: Vec<SocketAddr>,
    /// Whether the snapshot in force lacks something.
    changed: bool,
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
        let (slots, routes, ids, gateways) = (BySlot::default(), Arc::default(), Arc::default(), Vec::new());
        let snapshot = Snapshot { slots, routes, ids, gateways };
        let shared = Arc::new(Shared(RwLock::new(Arc::new(snapshot))));
        Self {
            slots: BySlot::default(),
            routes: Arc::default(),
            ids: Arc::default(),
            installed: BTreeMap::new(),
            gateways: Vec::new(),
            changed: false,
            shared,
        }
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
        self.slots.get(slot).map(|entry| &**entry)
    }

    /// The slot of a session.
    #[must_use]
    pub fn slot_of(&self, session: SessionId) -> Option<Slot> {
        self.ids.get(&session).copied()
    }

    /// Every slot in use.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.slots.iter().map(|(slot, entry)| (slot, &**entry))
    }

    /// Own addresses by index, as the engine numbers them.
    pub fn set_gateways(&mut self, gateways: Vec<SocketAddr>) {
        if gateways != self.gateways {
            self.gateways = gateways;
            self.changed = true;
            self.publish();
        }
    }

    /// Carries a commit out, at boot time `now`: what was written into the maps, since keys and locators are needed to
    /// seal, too, and what the worker is to do. The worker sees it, and all of it at once, after [`Self::publish`].
    pub fn commit(&mut self, maps: &[MapOp], worker: Vec<WorkerOp>, now: Instant) {
        self.follow(maps);
        self.apply(worker, now);
    }

    fn follow(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op {
                MapOp::Install { slot, keys, locators, .. } => {
                    self.installed.insert(*slot, (*keys, locators.iter().copied().collect()));
                }
                MapOp::AddLocators { slot, locators, .. } => {
                    if let Some(entry) = self.slots.slot_mut(*slot) {
                        Arc::make_mut(entry).locators.extend(locators.iter().copied());
                        self.changed = true;
                    }
                }
                MapOp::RemoveLocators { slot, locators } => {
                    if let Some(entry) = self.slots.slot_mut(*slot) {
                        Arc::make_mut(entry).locators.retain(|_, locator| !locators.contains(locator));
                        self.changed = true;
                    }
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
                    let data = Arc::new(SessionData::new(session, prefixes));
                    data.change_keys(|set| set.current = Some(Arc::new(data_key(keys, now))));
                    let (steering, locators) = self.installed.remove(&slot).unwrap_or_default();
                    let path_mtu = LiteMap::new();
                    for prefix in data.allowed() {
                        Arc::make_mut(&mut self.routes).insert(prefix.trunc(), slot);
                    }
                    Arc::make_mut(&mut self.ids).insert(session, slot);
                    let entry = Entry { generation, data, steering, locators, path_mtu };
                    self.slots.insert(slot, Arc::new(entry));
                    self.changed = true;
                }
                WorkerOp::Next { slot, keys } => {
                    if let Some(entry) = self.slots.get(slot) {
                        entry.data.change_keys(|set| set.next = Some(Arc::new(data_key(keys, now))));
                    }
                }
                WorkerOp::PathMtu { slot, k, mtu } => {
                    if let Some(entry) = self.slots.slot_mut(slot).map(Arc::make_mut) {
                        entry.path_mtu.insert(k, mtu);
                        entry.path_mtu.retain(|k, _| entry.locators.contains_key(k));
                        self.changed = true;
                    }
                }
                WorkerOp::Wipe { slot, epoch } => self.wipe(slot, |known| known == epoch),
                WorkerOp::WipeAll { slot } => self.wipe(slot, |_| true),
                WorkerOp::Free { slot } => {
                    self.wipe(slot, |_| true);
                    self.free(slot);
                }
            }
        }
    }

    /// A slot is no session's any more. What another slot has by now stays that one's.
    fn free(&mut self, slot: Slot) {
        let Some(entry) = self.slots.remove(slot) else { return };
        for prefix in entry.data.allowed() {
            Arc::make_mut(&mut self.routes).remove(prefix.trunc(), &slot);
        }
        let session = entry.data.id();
        if self.ids.get(&session) == Some(&slot) {
            Arc::make_mut(&mut self.ids).remove(&session);
        }
        self.changed = true;
    }

    fn wipe(&self, slot: Slot, dead: impl Fn(Epoch) -> bool) {
        let Some(entry) = self.slots.get(slot) else { return };
        entry.data.change_keys(|set| {
            for key in [&mut set.previous, &mut set.current, &mut set.next] {
                if key.as_ref().is_some_and(|key| dead(key.epoch())) {
                    *key = None;
                }
            }
        });
    }

    /// Puts what was committed into the snapshot.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let snapshot = Snapshot {
            slots: self.slots.clone(),
            routes: Arc::clone(&self.routes),
            ids: Arc::clone(&self.ids),
            gateways: self.gateways.clone(),
        };
        *self.shared.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

fn data_key(keys: DataKeys, now: Instant) -> DataKey {
    let DataKeys { epoch, suite, mut up, mut down } = keys;
    // Moved: where the handshake's thread made them they lie among all that it frees, and keep that from the system.
    let [down, up] = [&mut down, &mut up].map(|key| Secret::take(key.expose_mut()));
    DataKey::new(suite, epoch, down, up, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_common::crypto::Suite;

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
        sessions.publish();
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
        assert_eq!(sessions.shared().load().slots.get(one).unwrap().locators.len(), 1, "not before it is published");
        sessions.publish();
        let after = sessions.shared().load();
        assert_eq!(after.slots.get(one).unwrap().locators[&TransportIndex(1)], Locator(9));
        let same = |now: &Snapshot| {
            let [ours, theirs] = [&before, now].map(|of| of.slots.get(other).unwrap());
            Arc::ptr_eq(ours, theirs)
        };
        assert!(same(&after) && Arc::ptr_eq(&before.routes, &after.routes));
        sessions.commit(&[MapOp::RemoveLocators { slot: one, locators: vec![Locator(9)] }], Vec::new(), NOW);
        sessions.publish();
        assert_eq!(sessions.shared().load().slots.get(one).unwrap().locators.len(), 1);
        assert!(same(&sessions.shared().load()));
        assert_eq!(before.slots.get(one).unwrap().locators.len(), 1, "a snapshot never changes");

        sessions.commit(&[], vec![WorkerOp::Free { slot: one }], NOW);
        sessions.publish();
        let after = sessions.shared().load();
        assert!(after.slots.get(one).is_none() && after.ids.get(&SessionId([1; 16])).is_none());
        assert_eq!(after.routes.find("10.0.0.1".parse().unwrap()), None);
        assert_eq!(after.routes.find("10.0.0.3".parse().unwrap()), Some(&other));
    }

    #[test]
    fn a_session_that_changes_its_slot_is_reached_in_the_new_one_only() {
        let mut sessions = Sessions::default();
        let old = install(&mut sessions, 1);
        let (slot, generation, session) = (Slot(70), Generation(1), SessionId([1; 16]));
        let keys = || {
            let (up, down) = (Secret::take(&mut [5; 32]), Secret::take(&mut [6; 32]));
            DataKeys { epoch: Epoch(0), suite: Suite::Aes256Gcm, up, down }
        };
        let prefixes = vec!["10.0.0.1/32".parse().unwrap()];
        // Whichever comes first in a commit, the prefix is the new slot's.
        for free_first in [true, false] {
            let (from, to) = if free_first { (old, slot) } else { (slot, old) };
            let install = WorkerOp::Install { slot: to, generation, session, keys: keys(), prefixes: prefixes.clone() };
            let free = WorkerOp::Free { slot: from };
            sessions.commit(&[], if free_first { vec![free, install] } else { vec![install, free] }, NOW);
            sessions.publish();
            let now = sessions.shared().load();
            assert_eq!((now.routes.find("10.0.0.1".parse().unwrap()), now.ids.get(&session)), (Some(&to), Some(&to)));
            assert!(now.slots.get(from).is_none() && sessions.slot_of(session) == Some(to));
            assert_eq!(sessions.iter().count(), 1);
        }
    }
}
