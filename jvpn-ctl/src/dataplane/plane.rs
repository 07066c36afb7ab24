//! The executor: operations into stores, in an order whose every intermediate state is refused.
//!
//! Owns that order, once for all implementations; a [`Backing`] adds only what lies outside shared memory.
//! Must never leave half an operation behind: what fails is undone before the error is returned.

use super::undo::{Filled, Step};
use super::{Adopted, DataPlane, DataPlaneError, Settings, Shared, Undo, Verdicts};
use jvpn_common::abi::{
    ActiveWord, Binding, Event, LocatorEntry, PENDING, SessionInfo, SteeringKeys,
};
use jvpn_common::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_common::verdict::VERDICTS_MAX;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// The maps that are not arrays in shared memory.
pub trait Backing: Send {
    /// Adds a locator that is not there.
    fn put_locator(&mut self, locator: Locator, entry: &LocatorEntry)
    -> Result<(), DataPlaneError>;
    /// Removes a locator; one that is not there is no error.
    fn remove_locator(&mut self, locator: Locator) -> Result<(), DataPlaneError>;
    /// Every locator an earlier process left.
    fn locators(&self) -> Result<Vec<(Locator, LocatorEntry)>, DataPlaneError>;
    /// Stores the keys of a slot.
    fn put_keys(&mut self, slot: Slot, keys: &SteeringKeys) -> Result<(), DataPlaneError>;
    /// The keys of a slot an earlier process left.
    fn keys(&self, slot: Slot) -> Result<SteeringKeys, DataPlaneError>;
    /// Packets per verdict of the kernel program.
    fn verdicts(&self) -> Result<[u64; VERDICTS_MAX as usize], DataPlaneError>;
    /// Events sampled since the last call.
    fn events(&mut self) -> Vec<Event>;
}

/// A data plane over a backing.
#[derive(Debug)]
pub struct Plane<B> {
    shared: Arc<Shared>,
    backing: B,
}

type Done = Result<Undo, DataPlaneError>;

impl<B: Backing> Plane<B> {
    pub(super) fn over(shared: Arc<Shared>, backing: B) -> Self {
        Self { shared, backing }
    }

    fn mirror(&self) -> RwLockReadGuard<'_, super::shared::Mirror> {
        self.shared
            .mirror
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn mirror_mut(&self) -> RwLockWriteGuard<'_, super::shared::Mirror> {
        self.shared
            .mirror
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn in_range(&self, slot: Slot) -> Result<(), DataPlaneError> {
        let capacity = self.shared.capacity();
        if slot.0 < capacity {
            Ok(())
        } else {
            Err(DataPlaneError::SlotOutOfRange { slot, capacity })
        }
    }

    /// Generation and flags of a slot that holds a session.
    fn taken(&self, slot: Slot) -> Result<(Generation, u32), DataPlaneError> {
        self.in_range(slot)?;
        match self.shared.generation(slot) {
            (Generation(0), _) => Err(DataPlaneError::SlotFree(slot)),
            taken => Ok(taken),
        }
    }

    fn put_keys(&mut self, slot: Slot, keys: &SteeringKeys) -> Result<(), DataPlaneError> {
        self.backing.put_keys(slot, keys)?;
        if let Some(place) = self.mirror_mut().keys.get_mut(slot.0 as usize) {
            *place = *keys;
        }
        Ok(())
    }

    /// Adds all of them or none.
    fn put_locators(&mut self, locators: &[(Locator, LocatorEntry)]) -> Result<(), DataPlaneError> {
        for (done, (locator, entry)) in locators.iter().enumerate() {
            let known = locator.0 == 0 || self.mirror().locators.contains_key(&locator.0);
            let put = if known {
                Err(DataPlaneError::LocatorInUse(*locator))
            } else {
                self.backing.put_locator(*locator, entry)
            };
            if let Err(error) = put {
                let added: Vec<_> = locators
                    .iter()
                    .take(done)
                    .map(|(locator, _)| *locator)
                    .collect();
                self.remove_locators(&added)?;
                return Err(error);
            }
            self.mirror_mut().locators.insert(locator.0, *entry);
        }
        Ok(())
    }

    fn remove_locators(
        &mut self,
        locators: &[Locator],
    ) -> Result<Vec<(Locator, LocatorEntry)>, DataPlaneError> {
        let mut removed = Vec::new();
        for locator in locators {
            self.backing.remove_locator(*locator)?;
            if let Some(entry) = self.mirror_mut().locators.remove(&locator.0) {
                removed.push((*locator, entry));
            }
        }
        Ok(removed)
    }

    fn install(&mut self, new: &New<'_>) -> Done {
        let New {
            slot,
            generation,
            keys,
            ..
        } = *new;
        self.in_range(slot)?;
        if self.shared.generation(slot).0 != Generation(0) || generation == Generation(0) {
            return Err(DataPlaneError::SlotInUse(slot));
        }
        let shared = Arc::clone(&self.shared);
        shared.set_word(slot, ActiveWord::default());
        shared.clear_counters(slot);
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
    fn empty(&mut self, slot: Slot) -> Result<Vec<(Locator, LocatorEntry)>, DataPlaneError> {
        let shared = Arc::clone(&self.shared);
        shared.set_word(slot, ActiveWord::default());
        let named: Vec<_> = {
            let mirror = self.mirror();
            let of_slot = mirror
                .locators
                .iter()
                .filter(|(_, entry)| entry.slot == slot.0);
            of_slot.map(|(locator, _)| Locator(*locator)).collect()
        };
        let removed = self.remove_locators(&named)?;
        shared.set_generation(slot, Generation(0), 0);
        self.put_keys(slot, &SteeringKeys::default())?;
        shared.set_info(slot, &SessionInfo::default());
        for entry in 1..=3 {
            shared.set_binding(slot, entry, &Binding::default());
        }
        Ok(removed)
    }

    fn free(&mut self, slot: Slot) -> Done {
        let (generation, flags) = self.taken(slot)?;
        let mut filled = Filled {
            slot,
            generation,
            flags,
            word: self.shared.word(slot),
            bindings: [1, 2, 3].map(|entry| self.shared.binding(slot, entry)),
            info: self.shared.info(slot),
            keys: self
                .mirror()
                .keys
                .get(slot.0 as usize)
                .copied()
                .unwrap_or_default(),
            locators: Vec::new(),
        };
        filled.locators = self.empty(slot)?;
        Ok(Undo(Step::Fill(Box::new(filled))))
    }

    fn fill(&mut self, filled: &Filled) -> Result<(), DataPlaneError> {
        let slot = filled.slot;
        self.put_keys(slot, &filled.keys)?;
        for (entry, binding) in (1..).zip(&filled.bindings) {
            self.shared.set_binding(slot, entry, binding);
        }
        self.shared.set_info(slot, &filled.info);
        self.shared
            .set_generation(slot, filled.generation, filled.flags);
        self.put_locators(&filled.locators)?;
        self.shared.set_word(slot, filled.word);
        Ok(())
    }

    fn write_binding(&self, slot: Slot, entry: u8, binding: &Binding) -> Done {
        self.taken(slot)?;
        let word = self.shared.word(slot);
        if !(1..=3).contains(&entry) || entry == word.active() || entry == word.draining() {
            return Err(DataPlaneError::EntryNamed { slot, entry });
        }
        let before = self.shared.binding(slot, entry);
        self.shared.set_binding(
            slot,
            entry,
            &Binding {
                drain_until: 0,
                ..*binding
            },
        );
        Ok(Undo(Step::Binding(slot, entry, before)))
    }

    fn activate(&self, slot: Slot, word: ActiveWord) -> Done {
        self.taken(slot)?;
        let (draining, active) = (word.draining(), word.active());
        if draining > 3 || active > 3 || (active != 0 && active == draining) {
            return Err(DataPlaneError::BadWord(word));
        }
        let before = self.shared.word(slot);
        self.shared.set_word(slot, word);
        Ok(Undo(Step::Word(slot, before)))
    }
}

/// The fields of [`MapOp::Install`].
struct New<'a> {
    slot: Slot,
    generation: Generation,
    keys: &'a SteeringKeys,
    locators: &'a [(TransportIndex, Locator)],
    pending: bool,
    session: SessionId,
}

fn entries(
    slot: Slot,
    generation: Generation,
    of: &[(TransportIndex, Locator)],
) -> Vec<(Locator, LocatorEntry)> {
    of.iter()
        .map(|(k, locator)| {
            (
                *locator,
                LocatorEntry {
                    slot: slot.0,
                    generation: generation.0,
                    k: k.0,
                    reserved: 0,
                },
            )
        })
        .collect()
}

impl<B: Backing> DataPlane for Plane<B> {
    fn apply(&mut self, op: &MapOp) -> Done {
        match op {
            MapOp::Install {
                slot,
                generation,
                keys,
                locators,
                pending,
                session,
            } => self.install(&New {
                slot: *slot,
                generation: *generation,
                keys,
                locators,
                pending: *pending,
                session: *session,
            }),
            MapOp::AddLocators {
                slot,
                generation,
                locators,
            } => {
                if self.taken(*slot)?.0 != *generation {
                    return Err(DataPlaneError::SlotFree(*slot));
                }
                self.put_locators(&entries(*slot, *generation, locators))?;
                Ok(Undo(Step::Remove(
                    locators.iter().map(|(_, locator)| *locator).collect(),
                )))
            }
            MapOp::RemoveLocators { locators } => {
                Ok(Undo(Step::Put(self.remove_locators(locators)?)))
            }
            MapOp::Binding {
                slot,
                entry,
                binding,
            } => self.write_binding(*slot, *entry, binding),
            MapOp::Drain {
                slot,
                entry,
                within,
            } => {
                self.taken(*slot)?;
                let before = self.shared.binding(*slot, *entry);
                let drain_until = self.shared.ticks().after(*within);
                // One aligned word of an entry that is active by now, and an active one's is not read.
                self.shared.set_binding(
                    *slot,
                    *entry,
                    &Binding {
                        drain_until,
                        ..before
                    },
                );
                Ok(Undo(Step::Binding(*slot, *entry, before)))
            }
            MapOp::Activate { slot, word } => self.activate(*slot, *word),
            MapOp::Confirm { slot } => {
                let (generation, flags) = self.taken(*slot)?;
                self.shared
                    .set_generation(*slot, generation, flags & !PENDING);
                Ok(Undo(Step::Flags(*slot, generation, flags)))
            }
            MapOp::Info { slot, info } => {
                let (generation, _) = self.taken(*slot)?;
                let before = self.shared.info(*slot);
                self.shared.set_info(
                    *slot,
                    &SessionInfo {
                        generation: generation.0,
                        ..*info
                    },
                );
                Ok(Undo(Step::Info(*slot, Box::new(before))))
            }
            MapOp::Free { slot } => self.free(*slot),
        }
    }

    fn undo(&mut self, undo: Undo) -> Result<(), DataPlaneError> {
        match undo.0 {
            Step::Empty(slot) => self.empty(slot).map(|_| ()),
            Step::Remove(locators) => self.remove_locators(&locators).map(|_| ()),
            Step::Put(locators) => self.put_locators(&locators),
            Step::Binding(slot, entry, binding) => {
                self.shared.set_binding(slot, entry, &binding);
                Ok(())
            }
            Step::Word(slot, word) => {
                self.shared.set_word(slot, word);
                Ok(())
            }
            Step::Flags(slot, generation, flags) => {
                self.shared.set_generation(slot, generation, flags);
                Ok(())
            }
            Step::Info(slot, info) => {
                self.shared.set_info(slot, &info);
                Ok(())
            }
            Step::Fill(filled) => self.fill(&filled),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn configure(&mut self, settings: &Settings) {
        self.shared.configure(settings);
    }

    fn adopt(&mut self) -> Result<Vec<Adopted>, DataPlaneError> {
        let found = self.backing.locators()?;
        self.mirror_mut()
            .locators
            .extend(found.iter().map(|(locator, entry)| (locator.0, *entry)));
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
            if let Some(place) = self.mirror_mut().keys.get_mut(slot.0 as usize) {
                *place = keys;
            }
            let word = self.shared.word(slot);
            self.shared.set_word(slot, word.successor(0, 0));
            let of_slot = found
                .iter()
                .filter(|(_, entry)| entry.slot == slot.0 && entry.generation == generation.0);
            let locators = of_slot
                .map(|(locator, entry)| (TransportIndex(entry.k), *locator))
                .collect();
            adopted.push(Adopted {
                session: SessionId(info.session_id),
                slot,
                generation,
                info,
                word,
                locators,
            });
        }
        let stale: Vec<_> = found
            .iter()
            .filter(|(_, entry)| self.shared.generation(Slot(entry.slot)).0.0 != entry.generation)
            .map(|(locator, _)| *locator)
            .collect();
        self.remove_locators(&stale)?;
        Ok(adopted)
    }

    fn verdicts(&self) -> Result<Verdicts, DataPlaneError> {
        Ok(Verdicts {
            kernel: self.backing.verdicts()?,
            worker: self.shared.worker_verdicts(),
        })
    }

    fn events(&mut self) -> Vec<Event> {
        self.backing.events()
    }
}
