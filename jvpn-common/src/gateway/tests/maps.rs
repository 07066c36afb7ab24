//! A small model of the maps, which refuses every write that the order of a plan forbids.
//!
//! Owns the invariants of the data plane. Must never be kinder than the kernel.

use crate::abi::{ACTIVE_NONE, ActiveWord, Binding};
use crate::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use crate::mapop::{Committed, MapOp};
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    generation: Generation,
    session: SessionId,
    word: ActiveWord,
    bindings: BTreeMap<u8, Binding>,
    drains: BTreeSet<u8>,
    pending: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Maps {
    slots: BTreeMap<Slot, Entry>,
    pub(super) locators: BTreeMap<Locator, (Slot, TransportIndex)>,
    used: BTreeSet<(Slot, Generation)>,
    indexes: BTreeSet<(Slot, Generation, TransportIndex)>,
}

impl Maps {
    pub(super) fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Install { slot, generation, locators, pending, session, .. } => {
                assert!(generation.0 != 0 && self.used.insert((*slot, *generation)), "{slot}: a generation twice");
                let entry = Entry {
                    generation: *generation,
                    session: *session,
                    word: ActiveWord::default(),
                    bindings: BTreeMap::new(),
                    drains: BTreeSet::new(),
                    pending: *pending,
                };
                assert!(self.slots.insert(*slot, entry).is_none(), "{slot} was not free");
                self.add(*slot, *generation, locators);
            }
            MapOp::AddLocators { slot, generation, locators } => {
                assert_eq!(self.slots[slot].generation, *generation);
                self.add(*slot, *generation, locators);
            }
            MapOp::RemoveLocators { locators, .. } => self.locators.retain(|known, _| !locators.contains(known)),
            MapOp::Binding { slot, entry, binding } => {
                let held = self.slots.get_mut(slot).unwrap();
                assert!(*entry != held.word.active() && *entry != held.word.draining(), "written while named");
                assert!((1..=3).contains(entry));
                held.bindings.insert(*entry, *binding);
                held.drains.remove(entry);
            }
            MapOp::Drain { slot, entry, within } => {
                let held = self.slots.get_mut(slot).unwrap();
                assert_eq!(held.word.active(), *entry, "only what was active drains");
                assert!(*within >= crate::limits::DRAIN_MIN && *within <= crate::limits::DRAIN_MAX);
                held.drains.insert(*entry);
            }
            MapOp::Activate { slot, word } => self.activate(*slot, *word),
            MapOp::Confirm { slot } => self.slots.get_mut(slot).unwrap().pending = false,
            MapOp::Info { slot, info } => {
                let held = &self.slots[slot];
                assert_eq!((info.session_id, info.generation), (held.session.0, held.generation.0));
            }
            MapOp::Free { slot } => {
                let held = self.slots.remove(slot);
                assert!(held.is_none_or(|held| held.word.active() == ACTIVE_NONE), "freed while bound");
                self.locators.retain(|_, (known, _)| known != slot);
            }
        }
        for held in self.slots.values() {
            let active = self.slots.values().filter(|other| other.session == held.session && other.is_active());
            assert!(active.count() <= 1, "two active bindings of {}", held.session);
        }
    }

    fn add(&mut self, slot: Slot, generation: Generation, locators: &[(TransportIndex, Locator)]) {
        for &(k, locator) in locators {
            assert!(self.locators.insert(locator, (slot, k)).is_none(), "a locator twice");
            assert!(self.indexes.insert((slot, generation, k)), "an index twice under one key set");
            assert_eq!(locator.0 & 1, u64::from(slot.0 % 2), "the low byte names the worker");
        }
        let count = self.locators.values().filter(|(known, _)| *known == slot).count();
        assert!(count <= crate::limits::LOCATORS_MAX, "{count} locators");
    }

    fn activate(&mut self, slot: Slot, word: ActiveWord) {
        let held = self.slots.get_mut(&slot).unwrap();
        assert_eq!(word.seq(), held.word.seq().wrapping_add(1), "every store is a new word");
        if word.active() != ACTIVE_NONE {
            assert!(held.bindings.contains_key(&word.active()), "named before written");
        }
        if word.draining() != ACTIVE_NONE {
            assert_eq!(word.draining(), held.word.active());
            assert!(held.drains.contains(&word.draining()), "draining without an end");
        }
        held.word = word;
    }

    /// Where a session is bound: its client's address and transport index.
    pub(super) fn bound(&self, session: SessionId) -> Option<(SocketAddr, u16)> {
        let held = self.slots.values().find(|held| held.session == session && held.is_active())?;
        let binding = held.bindings[&held.word.active()];
        Some((binding.remote(), binding.k))
    }

    /// A slot as it stands.
    pub(super) fn holds(&self, slot: Slot) -> Committed {
        let Entry { generation, pending, word, .. } = self.slots[&slot];
        let active = self.slots[&slot].bindings.get(&word.active()).copied();
        Committed { generation, pending, word, active, owner: 0 }
    }

    /// Where inbound still drains from.
    pub(super) fn draining(&self, slot: Slot) -> Option<SocketAddr> {
        let held = &self.slots[&slot];
        (held.word.draining() != ACTIVE_NONE).then(|| held.bindings[&held.word.draining()].remote())
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn pending(&self) -> usize {
        self.slots.values().filter(|held| held.pending).count()
    }

    /// A slot of the previous start, found in the maps.
    pub(super) fn adopt(&mut self, slot: Slot, generation: Generation, session: SessionId) {
        self.apply(&MapOp::Install {
            slot,
            generation,
            keys: crate::abi::SteeringKeys::default(),
            locators: vec![(TransportIndex(0), Locator(0x1_0000 + u64::from(slot.0)))],
            pending: false,
            session,
        });
    }
}

impl Entry {
    fn is_active(&self) -> bool {
        self.word.active() != ACTIVE_NONE && !self.pending
    }
}
