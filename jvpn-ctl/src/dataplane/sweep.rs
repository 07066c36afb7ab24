//! Finding in the maps what nobody wrote, and taking it out.
//!
//! Owns the comparison of LOCATORS, KEYS and unused slots with what this process wrote. Looking through all of
//! them takes long, KEYS a syscall an entry, so a [`Reader`] does it on another thread and keeps only what differs; each
//! difference is asked about again before anything is changed, since the maps went on meanwhile. Must never believe the
//! maps over the mirror, and never report what a commit in between explains.

use super::DataPlaneError;
use super::kernel::failed;
use super::locators::Mapped;
use super::plane::{Backing, Plane};
use super::shared::{Mirror, Shared};
use aya::maps::{Array, MapData};
use jvpn_common::abi::{SessionInfo, map};
use jvpn_common::ids::{Locator, Slot};
use jvpn_common::locators::{Table, Words};
use std::fmt;
use std::ops::Range;
use std::sync::{PoisonError, RwLockReadGuard};

/// Something in the maps that this process never wrote, or that is not there any more. It was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tampered {
    /// The slot it belongs to, if that is one in use.
    pub slot: Option<Slot>,
    /// What.
    pub what: &'static str,
}

/// LOCATORS and KEYS through descriptors of their own, to be read on another thread.
pub struct Reader {
    pub(super) locators: Table<Mapped>,
    pub(super) keys: Array<MapData, [u64; 4]>,
}

/// Of what LOCATORS or KEYS held something else than was written, while they were read.
#[derive(Debug, Default)]
pub struct Suspects {
    locators: Vec<Locator>,
    keys: Vec<Slot>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Reads both maps while they change, and compares each entry with what was written. Who writes waits for no more than
    /// one of them.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&self, shared: &Shared) -> Result<Suspects, DataPlaneError> {
        let mirror = || shared.mirror.read().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::new();
        for (words, slot) in self.keys.iter().zip(0..) {
            let there = words.map_err(failed(map::KEYS, "reading"))?;
            let wanted = mirror().keys.get(slot as usize).copied().unwrap_or_default();
            keys.extend((there != wanted.to_words()).then_some(Slot(slot)));
        }
        Ok(Suspects { locators: strangers(&self.locators, mirror), keys })
    }
}

/// Locators that lead elsewhere than was written, that nobody wrote, and that are missing.
fn strangers<'a>(table: &Table<impl Words>, mirror: impl Fn() -> RwLockReadGuard<'a, Mirror>) -> Vec<Locator> {
    let there = table.iter().filter(|(locator, entry)| mirror().find(*locator) != Some(*entry));
    let mut strangers: Vec<_> = there.map(|(locator, _)| Locator(locator)).collect();
    let mut from = 0;
    // A closure gives the guard back before the kernel's words are read.
    let next = |from| mirror().next_slot(from);
    while let Some((slot, locators)) = next(from) {
        strangers.extend(locators.into_iter().filter(|locator| table.find(*locator).is_none()));
        from = slot + 1;
    }
    strangers
}

impl<B: Backing> Plane<B> {
    /// The keys and locators that are still something else than was written.
    pub(super) fn mend_suspects(&mut self, Suspects { locators, keys }: Suspects) -> Vec<Tampered> {
        let mut found = Vec::new();
        if !locators.is_empty() {
            self.backing.recount_locators();
        }
        for locator in locators {
            match self.mend_locator(locator) {
                Ok(tampered) => found.extend(tampered),
                Err(error) => tracing::error!(%error, "could not put a locator back"),
            }
        }
        found.extend(keys.into_iter().filter_map(|slot| self.mend_keys_of(slot)));
        found
    }

    fn mend_locator(&mut self, locator: Locator) -> Result<Option<Tampered>, DataPlaneError> {
        let there = self.backing.locator(locator);
        let wanted = self.mirror().find(locator.0);
        if there == wanted {
            return Ok(None);
        }
        self.backing.remove_locator(locator);
        if let Some(entry) = &wanted {
            self.backing.put_locator(locator, entry)?;
        }
        let what = match (there, wanted) {
            (_, None) => "a locator nobody issued",
            (None, _) => "a locator was missing",
            _ => "a locator led elsewhere",
        };
        let slot = wanted.or(there).map(|entry| Slot(entry.slot)).filter(|slot| self.mirror().used.contains(&slot.0));
        Ok(Some(Tampered { slot, what }))
    }

    /// The keys of a slot as they were written. The memory plane has no second copy that could differ.
    pub(super) fn mend_keys_of(&mut self, slot: Slot) -> Option<Tampered> {
        self.backing.reader()?;
        let wanted = self.mirror().keys.get(slot.0 as usize).copied()?;
        let mended = match self.backing.keys(slot) {
            Ok(there) if there.to_words() == wanted.to_words() => return None,
            Ok(_) => self.backing.put_keys(slot, &wanted),
            Err(error) => Err(error),
        };
        if let Err(error) = mended {
            tracing::error!(%error, %slot, "could not put keys back");
            return None;
        }
        let used = self.mirror().used.contains(&slot.0);
        let what = if used { "keys" } else { "keys of an unused slot" };
        Some(Tampered { slot: used.then_some(slot), what })
    }

    /// Empties every one of these slots that is not in use and holds something.
    pub(super) fn mend_unused_of(&mut self, slots: Range<u32>) -> Vec<Tampered> {
        let all = slots.take_while(|slot| *slot < self.shared.capacity()).map(Slot);
        let foreign: Vec<_> = {
            let mirror = self.mirror();
            let empty = |slot: &Slot| self.shared.is_blank(*slot) && self.shared.info(*slot) == SessionInfo::default();
            all.filter(|slot| !mirror.used.contains(&slot.0) && !empty(slot)).collect()
        };
        for slot in &foreign {
            if let Err(error) = self.empty(*slot) {
                tracing::error!(%error, %slot, "could not empty an unused slot");
            }
        }
        foreign.iter().map(|_| Tampered { slot: None, what: "an unused slot" }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::Region;
    use super::*;
    use jvpn_common::abi::{BUCKET_WORDS, LocatorEntry};
    use jvpn_common::locators::Writer;
    use std::sync::RwLock;

    #[test]
    fn what_nobody_wrote_what_leads_elsewhere_and_what_is_missing_is_found_and_nothing_else() {
        let entry = |slot| LocatorEntry { slot, generation: 1, k: 0 };
        let mut table = Writer::over(Mapped::heap(Region::heap(64 * BUCKET_WORDS)), 64);
        let mirror = RwLock::new(Mirror::default());
        for (number, slot) in [(1, 10), (2, 10), (3, 30)] {
            mirror.write().unwrap().insert(Locator(number), entry(slot));
        }
        for (number, slot) in [(1, 10), (3, 31), (4, 40)] {
            table.insert(Locator(number), entry(slot)).unwrap();
        }
        let mut found = strangers(table.table(), || mirror.read().unwrap());
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4].map(Locator));
    }
}
