//! The relay's end: what its maps hold of each owner's slots, and the operations that get there.
//!
//! Owns the numbering of its own slots and the order of its map writes: the spare entry first, then one store. Must
//! never bind anything by itself.

use super::frame::{Held, Way};
use crate::abi::{ACTIVE_NONE, ActiveWord, Binding, SessionInfo, mapped};
use crate::ids::{Generation, Incarnation, Locator, SessionId, Slot, TransportIndex};
use crate::mapop::{Committed, MapOp};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// How long slots of an owner that started anew still answer probes: its clients learn of the start by them.
const STALE_FOR: Duration = Duration::from_secs(60);

/// A slot of an owner: which owner, and its own number for it.
type Key = (u16, Slot);

#[derive(Clone, Debug)]
struct Local {
    slot: Slot,
    generation: Generation,
    held: Held,
    word: ActiveWord,
    entries: [Option<(Way, Binding)>; 3],
    /// It belongs to an earlier start of its owner, and is freed then.
    stale: Option<Instant>,
}

impl Local {
    fn entry(&self, entry: u8) -> Option<(Way, Binding)> {
        *self.entries.get(usize::from(entry).checked_sub(1)?)?
    }

    fn named(&self, entry: u8) -> Option<Way> {
        self.entry(entry).map(|(way, _)| way)
    }

    fn locators(&self) -> Vec<Locator> {
        self.held.locators.iter().map(|(_, locator)| *locator).collect()
    }

    /// Operations that empty its slot, each state between refused by the kernel.
    fn free(&self) -> [MapOp; 3] {
        let slot = self.slot;
        [
            MapOp::Activate { slot, word: self.word.successor(ACTIVE_NONE, ACTIVE_NONE) },
            MapOp::RemoveLocators { slot, locators: self.locators() },
            MapOp::Free { slot },
        ]
    }
}

/// Operations to apply whole or not at all, and what is held afterwards.
#[derive(Clone, Debug)]
pub struct Change {
    /// The operations.
    pub ops: Vec<MapOp>,
    /// The slot of the relay's own maps.
    pub slot: Slot,
    key: Key,
    next: Option<Local>,
}

impl Change {
    /// Whose session the slot holds afterwards: place of the owner in `OWNERS` + 1. `None`: it holds none.
    #[must_use]
    pub fn owner(&self) -> Option<u32> {
        self.next.as_ref().map(|_| owner_of(self.key))
    }
}

/// As `SESSIONS` names the owner of a slot.
fn owner_of((owner, _): Key) -> u32 {
    u32::from(owner) + 1
}

/// What every owner wants held.
#[derive(Clone, Debug)]
pub struct Hold {
    capacity: u32,
    locals: BTreeMap<Key, Local>,
    /// Slots below `fresh` that hold nothing.
    free: BTreeSet<Slot>,
    /// The first slot that never held anything.
    fresh: u32,
    /// The last one given out.
    generation: Generation,
    /// Per owner: its start, and the slots named since its stream began.
    owners: BTreeMap<u16, (Incarnation, Incarnation, BTreeSet<Slot>)>,
}

impl Hold {
    /// Nothing, with room for `capacity` slots. `generation`: the one before the first that is given out.
    #[must_use]
    pub const fn new(capacity: u32, generation: Generation) -> Self {
        Self { capacity, locals: BTreeMap::new(), free: BTreeSet::new(), fresh: 0, generation, owners: BTreeMap::new() }
    }

    /// Slots in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locals.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty()
    }

    /// Whether no slot is left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.unused().is_none()
    }

    /// Slots in use of one owner.
    #[must_use]
    pub fn of_owner(&self, owner: u16) -> usize {
        self.locals.range((owner, Slot(0))..=(owner, Slot(u32::MAX))).count()
    }

    /// What the maps must say of every slot in use, for whoever compares.
    pub fn committed(&self) -> impl Iterator<Item = (SessionId, Slot, Committed)> + '_ {
        self.locals.iter().map(|(&key, local)| {
            let active = local.entry(local.word.active()).map(|(_, binding)| binding);
            let (generation, pending, word) = (local.generation, local.held.pending, local.word);
            (local.held.session, local.slot, Committed { generation, pending, word, active, owner: owner_of(key) })
        })
    }

    /// Every transport that data leaves by, for whoever keeps the next hops.
    pub fn ways(&self) -> impl Iterator<Item = Way> + '_ {
        self.locals.values().filter_map(|local| local.named(local.word.active()))
    }

    /// A stream of an owner begins.
    pub fn begin(&mut self, owner: u16, incarnation: Incarnation) {
        let before = self.owners.get(&owner).map_or(incarnation, |(now, ..)| *now);
        self.owners.insert(owner, (incarnation, before, BTreeSet::new()));
    }

    /// What it takes to hold `held` of an owner's slot; `hop` gives the number of the next hop of a way.
    /// `None`: no slot is free, or there is no next hop to name.
    pub fn bind(&mut self, key: Key, held: Held, mut hop: impl FnMut(&Way) -> Option<u16>) -> Option<Change> {
        if let Some((_, _, named)) = self.owners.get_mut(&key.0) {
            named.insert(key.1);
        }
        let known = self.locals.get(&key);
        let same = known.filter(|local| {
            let old = &local.held;
            let confirmed_stays = old.pending || !held.pending;
            old.generation == held.generation && old.session == held.session && old.keys == held.keys && confirmed_stays
        });
        let (mut local, mut ops) = match same {
            Some(local) => (Local { stale: None, ..local.clone() }, Vec::new()),
            None => self.install(known, &held)?,
        };
        locators(&local, &held, &mut ops);
        if local.held.pending && !held.pending {
            ops.push(MapOp::Confirm { slot: local.slot });
        }
        steer(&mut local, &held, &mut hop, &mut ops)?;
        let info = SessionInfo {
            session_id: held.session.0,
            state_version: held.version.0,
            incarnation: self.owners.get(&key.0).map_or(0, |(now, ..)| now.0),
            state: held.state,
            generation: local.generation.0,
        };
        ops.push(MapOp::Info { slot: local.slot, info });
        local.held = held;
        Some(Change { ops, slot: local.slot, key, next: Some(local) })
    }

    fn install(&self, known: Option<&Local>, held: &Held) -> Option<(Local, Vec<MapOp>)> {
        let mut ops: Vec<MapOp> = known.map(|local| local.free().to_vec()).unwrap_or_default();
        let slot = match known {
            Some(local) => local.slot,
            None => self.unused()?,
        };
        let generation = self.generation.successor();
        ops.push(MapOp::Install {
            slot,
            generation,
            keys: held.keys,
            locators: held.locators.clone(),
            pending: held.pending,
            session: held.session,
        });
        let local = Local {
            slot,
            generation,
            held: Held { active: None, draining: None, ..held.clone() },
            word: ActiveWord::default(),
            entries: [None; 3],
            stale: None,
        };
        Some((local, ops))
    }

    fn unused(&self) -> Option<Slot> {
        self.free.first().copied().or_else(|| (self.fresh < self.capacity).then_some(Slot(self.fresh)))
    }

    /// What it takes to hold nothing of an owner's slot.
    #[must_use]
    pub fn unbind(&self, key: Key) -> Option<Change> {
        let local = self.locals.get(&key)?;
        Some(Change { ops: local.free().to_vec(), slot: local.slot, key, next: None })
    }

    /// An owner has named every slot it uses: what becomes of the others. Those of an earlier start keep answering
    /// probes for a while, bound to nothing.
    pub fn complete(&mut self, owner: u16, now: Instant) -> Vec<Change> {
        let Some((incarnation, before, named)) = self.owners.get_mut(&owner) else { return Vec::new() };
        let (restarted, named) = (incarnation != before, core::mem::take(named));
        let rest = self.locals.range((owner, Slot(0))..=(owner, Slot(u32::MAX)));
        let rest = rest.filter(|((_, slot), local)| !named.contains(slot) && local.stale.is_none());
        rest.map(|(&key, local)| {
            if !restarted {
                return Change { ops: local.free().to_vec(), slot: local.slot, key, next: None };
            }
            let word = local.word.successor(ACTIVE_NONE, ACTIVE_NONE);
            let held = Held { active: None, draining: None, ..local.held.clone() };
            let next = Local { word, held, stale: Some(now + STALE_FOR), ..local.clone() };
            let ops = vec![MapOp::Activate { slot: local.slot, word }];
            Change { ops, slot: local.slot, key, next: Some(next) }
        })
        .collect()
    }

    /// Slots of earlier starts whose time is over.
    #[must_use]
    pub fn expired(&self, now: Instant) -> Vec<Change> {
        let over = self.locals.iter().filter(|(_, local)| local.stale.is_some_and(|at| at <= now));
        over.map(|(&key, local)| Change { ops: local.free().to_vec(), slot: local.slot, key, next: None }).collect()
    }

    /// The operations were applied.
    pub fn keep(&mut self, change: Change) {
        let Change { key, next, slot, .. } = change;
        match next {
            Some(local) => {
                // Only a new use of a slot has the next number; it may be 1 again.
                if local.generation == self.generation.successor() {
                    self.generation = local.generation;
                }
                if !self.free.remove(&slot) && slot.0 == self.fresh {
                    self.fresh += 1;
                }
                self.locals.insert(key, local);
            }
            None => {
                self.locals.remove(&key);
                self.free.insert(slot);
            }
        }
    }
}

/// Locators that came and went.
fn locators(local: &Local, held: &Held, ops: &mut Vec<MapOp>) {
    let gone: Vec<Locator> =
        local.held.locators.iter().filter(|known| !held.locators.contains(known)).map(|(_, known)| *known).collect();
    let new: Vec<(TransportIndex, Locator)> =
        held.locators.iter().filter(|known| !local.held.locators.contains(known)).copied().collect();
    if !gone.is_empty() {
        ops.push(MapOp::RemoveLocators { slot: local.slot, locators: gone });
    }
    if !new.is_empty() {
        ops.push(MapOp::AddLocators { slot: local.slot, generation: local.generation, locators: new });
    }
}

/// The store that moves the session, if it moves.
fn steer(
    local: &mut Local,
    held: &Held,
    hop: &mut impl FnMut(&Way) -> Option<u16>,
    ops: &mut Vec<MapOp>,
) -> Option<()> {
    let (slot, word) = (local.slot, local.word);
    let (active, draining) = (local.named(word.active()), local.named(word.draining()));
    let wanted = held.draining.map(|(way, _)| way);
    if active == held.active && draining == wanted {
        return Some(());
    }
    let entry = match held.active {
        None => ACTIVE_NONE,
        Some(way) if active == Some(way) => word.active(),
        Some(way) => {
            let entry = word.spare();
            let binding = Binding {
                address: mapped(way.client.ip()),
                port: way.client.port(),
                gateway: hop(&way)?,
                k: way.k.0,
                mtu: way.mtu,
                drain_until: 0,
            };
            ops.push(MapOp::Binding { slot, entry, binding });
            *local.entries.get_mut(usize::from(entry).checked_sub(1)?)? = Some((way, binding));
            entry
        }
    };
    let old = match held.draining {
        Some((way, within)) if active == Some(way) && entry != word.active() => Some((word.active(), within)),
        Some((way, within)) if draining == Some(way) => Some((word.draining(), within)),
        Some(_) | None => None,
    };
    if let Some((entry, within)) = old {
        ops.push(MapOp::Drain { slot, entry, within });
    }
    let next = word.successor(old.map_or(ACTIVE_NONE, |(entry, _)| entry), entry);
    ops.push(MapOp::Activate { slot, word: next });
    local.word = next;
    Some(())
}
