//! Every slot as the owner last committed it, from the map operations of its commits.
//!
//! Owns what each relay should hold of it: the same slot, with only those bindings that go through that relay. Must
//! never hold anything that a commit did not say.

use super::frame::{Held, Way};
use crate::abi::{ACTIVE_NONE, ActiveWord, Binding, SteeringKeys};
use crate::gateway::command::Hop;
use crate::ids::{Generation, Locator, RelayId, SessionId, Slot, TransportIndex, Version};
use crate::mapop::MapOp;
use crate::time::Duration;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// The gateway's addresses by number of a binding, and the node each of them belongs to.
pub type Gateways<'a> = &'a [(Hop, SocketAddr)];

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    generation: Generation,
    session: SessionId,
    version: Version,
    state: u32,
    keys: SteeringKeys,
    pending: bool,
    locators: BTreeMap<TransportIndex, Locator>,
    entries: [Option<(Binding, Duration)>; 3],
    word: ActiveWord,
}

impl Place {
    fn entry(&mut self, entry: u8) -> Option<&mut Option<(Binding, Duration)>> {
        self.entries.get_mut(usize::from(entry).checked_sub(1)?)
    }

    fn named(&self, entry: u8) -> Option<(Binding, Duration)> {
        if entry == ACTIVE_NONE { None } else { *self.entries.get(usize::from(entry) - 1)? }
    }

    fn through(&self, entry: u8, relay: RelayId, gateways: Gateways<'_>) -> Option<(Way, Duration)> {
        let (binding, within) = self.named(entry)?;
        let (hop, local) = *gateways.get(usize::from(binding.gateway))?;
        let way = Way { client: binding.remote(), local, k: TransportIndex(binding.k), mtu: binding.mtu };
        (hop == Hop::Relay(relay)).then_some((way, within))
    }

    fn held(&self, relay: RelayId, gateways: Gateways<'_>) -> Held {
        Held {
            generation: self.generation,
            session: self.session,
            version: self.version,
            state: self.state,
            keys: self.keys,
            pending: self.pending,
            locators: self.locators.iter().map(|(&k, &locator)| (k, locator)).collect(),
            active: self.through(self.word.active(), relay, gateways).map(|(way, _)| way),
            draining: self.through(self.word.draining(), relay, gateways),
        }
    }
}

/// Slots that a commit changes; `None` for one it frees.
#[derive(Clone, Debug, Default)]
pub(super) struct Delta(BTreeMap<Slot, Option<Place>>);

impl Delta {
    /// The slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.0.keys().copied()
    }

    /// What a relay should hold of one of them afterwards.
    pub(super) fn held(&self, slot: Slot, relay: RelayId, gateways: Gateways<'_>) -> Option<Held> {
        Some(self.0.get(&slot)?.as_ref()?.held(relay, gateways))
    }
}

/// Every slot in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture(BTreeMap<Slot, Place>);

impl Picture {
    /// What a commit changes.
    pub(super) fn delta(&self, ops: &[MapOp]) -> Delta {
        let mut delta = Delta::default();
        for op in ops {
            self.follow(op, &mut delta);
        }
        delta
    }

    fn follow(&self, op: &MapOp, delta: &mut Delta) {
        match op {
            MapOp::Install { slot, generation, keys, locators, pending, session } => {
                let place = Place {
                    generation: *generation,
                    session: *session,
                    version: Version(0),
                    state: 0,
                    keys: *keys,
                    pending: *pending,
                    locators: locators.iter().copied().collect(),
                    entries: [None; 3],
                    word: ActiveWord::default(),
                };
                delta.0.insert(*slot, Some(place));
            }
            MapOp::RemoveLocators { slot, locators } => {
                self.with(*slot, delta, |place| place.locators.retain(|_, known| !locators.contains(known)));
            }
            MapOp::AddLocators { slot, locators, .. } => {
                self.with(*slot, delta, |place| place.locators.extend(locators.iter().copied()));
            }
            MapOp::Binding { slot, entry, binding } => self.with(*slot, delta, |place| {
                if let Some(place) = place.entry(*entry) {
                    *place = Some((*binding, Duration::ZERO));
                }
            }),
            MapOp::Drain { slot, entry, within } => self.with(*slot, delta, |place| {
                if let Some(Some((_, left))) = place.entry(*entry) {
                    *left = *within;
                }
            }),
            MapOp::Activate { slot, word } => self.with(*slot, delta, |place| place.word = *word),
            MapOp::Confirm { slot } => self.with(*slot, delta, |place| place.pending = false),
            MapOp::Info { slot, info } => self.with(*slot, delta, |place| {
                (place.version, place.state) = (Version(info.state_version), info.state);
            }),
            MapOp::Free { slot } => {
                delta.0.insert(*slot, None);
            }
        }
    }

    fn with(&self, slot: Slot, delta: &mut Delta, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.change(slot, delta) {
            change(place);
        }
    }

    fn change<'a>(&self, slot: Slot, delta: &'a mut Delta) -> Option<&'a mut Place> {
        delta.0.entry(slot).or_insert_with(|| self.0.get(&slot).cloned()).as_mut()
    }

    /// The commit is done.
    pub(super) fn keep(&mut self, delta: Delta) {
        for (slot, place) in delta.0 {
            match place {
                Some(place) => drop(self.0.insert(slot, place)),
                None => drop(self.0.remove(&slot)),
            }
        }
    }

    /// The slots in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.0.keys().copied()
    }

    /// What a relay should hold of a slot.
    pub(super) fn held(&self, slot: Slot, relay: RelayId, gateways: Gateways<'_>) -> Option<Held> {
        Some(self.0.get(&slot)?.held(relay, gateways))
    }
}
