//! A slot's life: filled, emptied, filled again as it was, taken over from an earlier process.
//!
//! Owns the order of stores, in which every intermediate state is one that packets are refused in: keys and
//! entry before locators, the word to none before anything is taken away. Must never touch a binding of a
//! slot that is in use.

use super::plane::{Backing, Done, Plane};
use super::undo::{Filled, Step};
use super::{Adopted, DataPlaneError, Undo};
use jvpn_common::abi::{ActiveWord, Binding, LocatorEntry, PENDING, SessionInfo, SteeringKeys};
use jvpn_common::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use std::sync::Arc;

/// The fields of [`MapOp::Install`].
pub(super) struct New<'a> {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) keys: &'a SteeringKeys,
    pub(super) locators: &'a [(TransportIndex, Locator)],
    pub(super) pending: bool,
    pub(super) session: SessionId,
}

fn entries(slot: Slot, generation: Generation, of: &[(TransportIndex, Locator)]) -> Vec<(Locator, LocatorEntry)> {
    of.iter().map(|(k, locator)| (*locator, LocatorEntry { slot: slot.0, generation: generation.0, k: k.0 })).collect()
}

impl<B: Backing> Plane<B> {
    pub(super) fn install(&mut self, new: &New<'_>) -> Done {
        let New { slot, generation, keys, .. } = *new;
        self.in_range(slot)?;
        if self.shared.generation(slot).0 != Generation(0) || generation == Generation(0) {
            return Err(DataPlaneError::SlotInUse(slot));
        }
        let shared = Arc::clone(&self.shared);
        self.mirror_mut().used.insert(slot.0);
        shared.set_word(slot, ActiveWord::default());
        shared.clear_counters(slot);
        shared.set_session_owner(slot, 0);
        for entry in 1..=3 {
            shared.set_binding(slot, entry, &Binding::default());
        }
        let info = SessionInfo {
            session_id: new.session.0,
            incarnation: shared.config().incarnation,
            generation: generation.0,
            ..SessionInfo::default()
        };
        self.put_keys(slot, keys)?;
        shared.set_info(slot, &info);
        shared.set_generation(slot, generation, if new.pending { PENDING } else { 0 });
        if let Err(error) = self.put_locators(&entries(slot, generation, new.locators)) {
            self.empty(slot)?;
            return Err(error);
        }
        Ok(Undo(Step::Empty(slot)))
    }

    /// Empties a slot: first unbound, then unreachable, then forgotten.
    pub(super) fn empty(&mut self, slot: Slot) -> Result<Vec<(Locator, LocatorEntry)>, DataPlaneError> {
        let shared = Arc::clone(&self.shared);
        shared.set_word(slot, ActiveWord::default());
        let named = self.mirror().of_slot(slot);
        let removed = self.remove_locators(&named);
        shared.set_generation(slot, Generation(0), 0);
        self.put_keys(slot, &SteeringKeys::default())?;
        shared.set_info(slot, &SessionInfo::default());
        shared.set_session_owner(slot, 0);
        for entry in 1..=3 {
            shared.set_binding(slot, entry, &Binding::default());
        }
        self.mirror_mut().used.remove(&slot.0);
        Ok(removed)
    }

    pub(super) fn free(&mut self, slot: Slot) -> Done {
        let (generation, flags) = self.taken(slot)?;
        let mut filled = Filled {
            slot,
            generation,
            flags,
            word: self.shared.word(slot),
            owner: self.shared.session_owner(slot),
            bindings: [1, 2, 3].map(|entry| self.shared.binding(slot, entry)),
            info: self.shared.info(slot),
            keys: self.mirror().keys.get(slot.0 as usize).copied().unwrap_or_default(),
            locators: Vec::new(),
        };
        filled.locators = self.empty(slot)?;
        Ok(Undo(Step::Fill(Box::new(filled))))
    }

    pub(super) fn fill(&mut self, filled: &Filled) -> Result<(), DataPlaneError> {
        let slot = filled.slot;
        self.mirror_mut().used.insert(slot.0);
        self.put_keys(slot, &filled.keys)?;
        for (entry, binding) in (1..).zip(&filled.bindings) {
            self.shared.set_binding(slot, entry, binding);
        }
        self.shared.set_info(slot, &filled.info);
        self.shared.set_session_owner(slot, filled.owner);
        self.shared.set_generation(slot, filled.generation, filled.flags);
        self.put_locators(&filled.locators)?;
        self.shared.set_word(slot, filled.word);
        Ok(())
    }

    pub(super) fn add_locators(
        &mut self,
        slot: Slot,
        generation: Generation,
        locators: &[(TransportIndex, Locator)],
    ) -> Done {
        if self.taken(slot)?.0 != generation {
            return Err(DataPlaneError::SlotFree(slot));
        }
        self.put_locators(&entries(slot, generation, locators))?;
        Ok(Undo(Step::Remove(locators.iter().map(|(_, locator)| *locator).collect())))
    }

    pub(super) fn take_over(&mut self) -> Result<Vec<Adopted>, DataPlaneError> {
        let found = self.backing.locators();
        found.iter().for_each(|(locator, entry)| self.mirror_mut().insert(*locator, *entry));
        let mut adopted = Vec::new();
        for slot in (0..self.shared.capacity()).map(Slot) {
            let (generation, flags) = self.shared.generation(slot);
            if generation == Generation(0) {
                continue;
            }
            let info = self.shared.info(slot);
            if flags & PENDING != 0 || info.session_id == [0; 16] {
                self.empty(slot)?;
                continue;
            }
            let keys = self.backing.keys(slot)?;
            self.mirror_mut().used.insert(slot.0);
            if let Some(place) = self.mirror_mut().keys.get_mut(slot.0 as usize) {
                *place = keys;
            }
            let word = self.shared.word(slot);
            self.shared.set_word(slot, word.successor(0, 0));
            let of_slot = found.iter().filter(|(_, entry)| entry.slot == slot.0 && entry.generation == generation.0);
            let locators = of_slot.map(|(locator, entry)| (TransportIndex(entry.k), *locator)).collect();
            adopted.push(Adopted { session: SessionId(info.session_id), slot, generation, info, word, locators });
        }
        let stale: Vec<_> = found
            .iter()
            .filter(|(_, entry)| self.shared.generation(Slot(entry.slot)).0.0 != entry.generation)
            .map(|(locator, _)| *locator)
            .collect();
        self.remove_locators(&stale);
        Ok(adopted)
    }
}
