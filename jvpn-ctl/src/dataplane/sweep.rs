//! Finding in the maps what nobody wrote, and taking it out.
//!
//! Owns the comparison of LOCATORS, KEYS and unused slots with what this process wrote. Looking through all of
//! them takes long, KEYS a syscall an entry, so a [`Reader`] does it on another thread; each difference is asked
//! about again before anything is changed, since the maps went on meanwhile. Must never believe the maps over the
//! mirror, and never report what a commit in between explains.

use super::DataPlaneError;
use super::kernel::failed;
use super::locators::Mapped;
use super::plane::{Backing, Plane};
use aya::maps::{Array, MapData};
use jvpn_common::abi::{LocatorEntry, SessionInfo, SteeringKeys, map};
use jvpn_common::ids::{Locator, Slot};
use jvpn_common::locators::Table;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

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

/// What LOCATORS and KEYS held while they were read.
#[derive(Default)]
pub struct Picture {
    pub(super) locators: BTreeMap<u64, LocatorEntry>,
    pub(super) keys: Vec<SteeringKeys>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picture").field("locators", &self.locators.len()).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads both maps while they change.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&self) -> Result<Picture, DataPlaneError> {
        let locators = self.locators.all();
        let keys = self.keys.iter().map(|words| words.map(SteeringKeys::from_words));
        Ok(Picture { locators, keys: keys.collect::<Result<_, _>>().map_err(failed(map::KEYS, "reading"))? })
    }
}

impl<B: Backing> Plane<B> {
    /// The keys and locators of which a picture says something else than was written.
    pub(super) fn mend_picture(&mut self, picture: &Picture) -> Vec<Tampered> {
        let mut found = Vec::new();
        let (suspects, slots) = {
            let mirror = self.mirror();
            let mut suspects: Vec<u64> = Vec::new();
            let mut agreeing = 0;
            for (locator, entry) in &picture.locators {
                if mirror.locators.get(locator) == Some(entry) { agreeing += 1 } else { suspects.push(*locator) }
            }
            if agreeing < mirror.locators.len() {
                suspects.extend(mirror.locators.keys().filter(|locator| !picture.locators.contains_key(locator)));
            }
            let differs = |(mirrored, read): (&SteeringKeys, &SteeringKeys)| mirrored.to_words() != read.to_words();
            let pairs = mirror.keys.iter().zip(&picture.keys).zip(0..);
            let slots: Vec<_> = pairs.filter(|(pair, _)| differs(*pair)).map(|(_, slot)| Slot(slot)).collect();
            (suspects, slots)
        };
        if !suspects.is_empty() {
            self.backing.recount_locators();
        }
        for locator in suspects {
            match self.mend_locator(Locator(locator)) {
                Ok(tampered) => found.extend(tampered),
                Err(error) => tracing::error!(%error, "could not put a locator back"),
            }
        }
        found.extend(slots.into_iter().filter_map(|slot| self.mend_keys_of(slot)));
        found
    }

    fn mend_locator(&mut self, locator: Locator) -> Result<Option<Tampered>, DataPlaneError> {
        let there = self.backing.locator(locator);
        let wanted = self.mirror().locators.get(&locator.0).copied();
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
