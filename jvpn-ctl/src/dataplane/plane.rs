//! The executor: operations into stores, in an order whose every intermediate state is refused.
//!
//! Owns that order, once for all implementations; a [`Backing`] adds only what lies outside shared memory.
//! Must never leave half an operation behind: what fails is undone before the error is returned.

use super::slots::New;
use super::sweep::{Reader, Suspects, Tampered};
use super::undo::Step;
use super::{Adopted, DataPlane, DataPlaneError, Settings, Shared, Undo, Verdicts};
use jvpn_common::abi::{ActiveWord, Binding, Event, LocatorEntry, PENDING, SessionInfo, SteeringKeys};
use jvpn_common::ids::{Generation, Locator, Slot};
use jvpn_common::mapop::{Committed, MapOp};
use jvpn_common::time::Duration;
use jvpn_common::verdict::VERDICTS_MAX;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// The maps that a worker does not read.
pub trait Backing: Send {
    /// Adds a locator that is not there.
    fn put_locator(&mut self, locator: Locator, entry: &LocatorEntry) -> Result<(), DataPlaneError>;
    /// Removes a locator; one that is not there is no error.
    fn remove_locator(&mut self, locator: Locator);
    /// Every locator an earlier process left.
    fn locators(&self) -> Vec<(Locator, LocatorEntry)>;
    /// What a locator stands for.
    fn locator(&self, locator: Locator) -> Option<LocatorEntry>;
    /// Looks through all of them anew, after somebody else wrote.
    fn recount_locators(&mut self);
    /// Stores the keys of a slot.
    fn put_keys(&mut self, slot: Slot, keys: &SteeringKeys) -> Result<(), DataPlaneError>;
    /// The keys of a slot an earlier process left.
    fn keys(&self, slot: Slot) -> Result<SteeringKeys, DataPlaneError>;
    /// What reads both on another thread; none where they are not apart from the mirror.
    fn reader(&self) -> Option<Arc<Reader>>;
    /// Packets per verdict of the kernel program.
    fn verdicts(&self) -> Result<[u64; VERDICTS_MAX as usize], DataPlaneError>;
    /// Events sampled since the last call.
    fn events(&mut self) -> Vec<Event>;
}

/// A data plane over a backing.
#[derive(Debug)]
pub struct Plane<B> {
    pub(super) shared: Arc<Shared>,
    pub(super) backing: B,
}

pub(super) type Done = Result<Undo, DataPlaneError>;

impl<B: Backing> Plane<B> {
    pub(super) fn over(shared: Arc<Shared>, backing: B) -> Self {
        Self { shared, backing }
    }

    pub(super) fn mirror(&self) -> RwLockReadGuard<'_, super::shared::Mirror> {
        self.shared.mirror.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mirror_mut(&self) -> RwLockWriteGuard<'_, super::shared::Mirror> {
        self.shared.mirror.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_range(&self, slot: Slot) -> Result<(), DataPlaneError> {
        let capacity = self.shared.capacity();
        if slot.0 < capacity { Ok(()) } else { Err(DataPlaneError::SlotOutOfRange { slot, capacity }) }
    }

    /// Generation and flags of a slot that holds a session.
    pub(super) fn taken(&self, slot: Slot) -> Result<(Generation, u32), DataPlaneError> {
        self.in_range(slot)?;
        match self.shared.generation(slot) {
            (Generation(0), _) => Err(DataPlaneError::SlotFree(slot)),
            taken => Ok(taken),
        }
    }

    pub(super) fn put_keys(&mut self, slot: Slot, keys: &SteeringKeys) -> Result<(), DataPlaneError> {
        self.backing.put_keys(slot, keys)?;
        if let Some(place) = self.mirror_mut().keys.get_mut(slot.0 as usize) {
            *place = *keys;
        }
        Ok(())
    }

    /// Adds all of them or none.
    pub(super) fn put_locators(&mut self, locators: &[(Locator, LocatorEntry)]) -> Result<(), DataPlaneError> {
        for (done, (locator, entry)) in locators.iter().enumerate() {
            let known = locator.0 == 0 || self.mirror().find(locator.0).is_some();
            let put = if known {
                Err(DataPlaneError::LocatorInUse(*locator))
            } else {
                self.backing.put_locator(*locator, entry)
            };
            if let Err(error) = put {
                let added: Vec<_> = locators.iter().take(done).map(|(locator, _)| *locator).collect();
                self.remove_locators(&added);
                return Err(error);
            }
            self.mirror_mut().insert(*locator, *entry);
        }
        Ok(())
    }

    pub(super) fn remove_locators(&mut self, locators: &[Locator]) -> Vec<(Locator, LocatorEntry)> {
        let mut removed = Vec::new();
        for locator in locators {
            self.backing.remove_locator(*locator);
            if let Some(entry) = self.mirror_mut().remove(*locator) {
                removed.push((*locator, entry));
            }
        }
        removed
    }

    fn write_binding(&self, slot: Slot, entry: u8, binding: &Binding) -> Done {
        self.taken(slot)?;
        let word = self.shared.word(slot);
        if !(1..=3).contains(&entry) || entry == word.active() || entry == word.draining() {
            return Err(DataPlaneError::EntryNamed { slot, entry });
        }
        let before = self.shared.binding(slot, entry);
        self.shared.set_binding(slot, entry, &Binding { drain_until: 0, ..*binding });
        Ok(Undo(Step::Binding(slot, entry, before)))
    }

    fn drain(&self, slot: Slot, entry: u8, within: Duration) -> Done {
        self.taken(slot)?;
        let before = self.shared.binding(slot, entry);
        let drain_until = self.shared.ticks().after(within);
        // One word of an entry that is active by now, of which it is not read.
        self.shared.set_binding(slot, entry, &Binding { drain_until, ..before });
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

impl<B: Backing> DataPlane for Plane<B> {
    fn apply(&mut self, op: &MapOp) -> Done {
        match op {
            MapOp::Install { slot, generation, keys, locators, pending, session } => self.install(&New {
                slot: *slot,
                generation: *generation,
                keys,
                locators,
                pending: *pending,
                session: *session,
            }),
            MapOp::AddLocators { slot, generation, locators } => self.add_locators(*slot, *generation, locators),
            MapOp::RemoveLocators { locators, .. } => Ok(Undo(Step::Put(self.remove_locators(locators)))),
            MapOp::Binding { slot, entry, binding } => self.write_binding(*slot, *entry, binding),
            MapOp::Drain { slot, entry, within } => self.drain(*slot, *entry, *within),
            MapOp::Activate { slot, word } => self.activate(*slot, *word),
            MapOp::Confirm { slot } => {
                let (generation, flags) = self.taken(*slot)?;
                self.shared.set_generation(*slot, generation, flags & !PENDING);
                Ok(Undo(Step::Flags(*slot, generation, flags)))
            }
            MapOp::Info { slot, info } => {
                let (generation, _) = self.taken(*slot)?;
                let before = self.shared.info(*slot);
                self.shared.set_info(*slot, &SessionInfo { generation: generation.0, ..*info });
                Ok(Undo(Step::Info(*slot, Box::new(before))))
            }
            MapOp::Free { slot } => self.free(*slot),
        }
    }

    fn undo(&mut self, undo: Undo) -> Result<(), DataPlaneError> {
        match undo.0 {
            Step::Empty(slot) => self.empty(slot).map(|_| ()),
            Step::Remove(locators) => {
                self.remove_locators(&locators);
                Ok(())
            }
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

    fn restore(&mut self, slot: Slot, committed: &Committed) -> Result<(), DataPlaneError> {
        self.put_back(slot, committed)
    }

    fn reader(&self) -> Option<Arc<Reader>> {
        self.backing.reader()
    }

    fn mend(&mut self, suspects: Suspects) -> Vec<Tampered> {
        self.mend_suspects(suspects)
    }

    fn mend_keys(&mut self, slot: Slot) -> Option<Tampered> {
        self.mend_keys_of(slot)
    }

    fn mend_unused(&mut self, slots: Range<u32>) -> Vec<Tampered> {
        self.mend_unused_of(slots)
    }

    fn adopt(&mut self) -> Result<Vec<Adopted>, DataPlaneError> {
        self.take_over()
    }

    fn verdicts(&self) -> Result<Verdicts, DataPlaneError> {
        Ok(Verdicts { kernel: self.backing.verdicts()?, worker: self.shared.worker_verdicts() })
    }

    fn events(&mut self) -> Vec<Event> {
        self.backing.events()
    }
}
