//! The data plane in the kernel: pinned maps, some mapped, some by syscall.
//!
//! Owns opening the maps that [`super::attach`] made. The layout hash is compared before any other map is
//! looked at. Must never create, size or remove a map.

use super::DataPlaneError;
use super::active::Mapping;
use super::attach::{AttachError, Clock};
use super::locators::{self, Mapped};
use super::pins::Pins;
use super::plane::{Backing, Plane};
use super::region::Region;
use super::shared::{Regions, Shared};
use super::sweep::Reader;
use super::ticks::{self, Ticks};
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use jvpn_common::abi::{
    CONFIG_WORDS, Config, Event, HOP_WORDS, HOPS_MAX, INFO_WORDS, LAYOUT_HASH, LocatorEntry, OWNER_WORDS, OWNERS_MAX,
    PATHS_PER_SLOT, SESSION_WORDS, SteeringKeys, TRAFFIC_WORDS, map,
};
use jvpn_common::ids::{Locator, Slot};
use jvpn_common::locators::{Refused, Writer};
use jvpn_common::verdict::VERDICTS_MAX;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A data plane over the kernel's maps.
pub type Kernel = Plane<Maps>;

/// Events taken from the ring in one go.
const EVENTS_MAX: usize = 1_000;

/// The maps that only the executor writes, and those that are used by syscall.
pub struct Maps {
    locators: Writer<Mapped>,
    keys: Array<MapData, [u64; 4]>,
    verdicts: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    /// Both maps again, to be read on another thread.
    reader: Arc<Reader>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maps")
    }
}

impl Kernel {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self, AttachError> {
        pins.check()?;
        let config = Region::over(mapping(pins, map::CONFIG, CONFIG_WORDS)?);
        let capacity = capacity_of(&Config::from_words(&config.load(0)))?;
        let slots = capacity as usize;
        let mapped = |name, words: usize| Ok::<_, AttachError>(Region::over(mapping(pins, name, words)?));
        let region = |name, words: usize| mapped(name, slots * words);
        let regions = Regions {
            sessions: region(map::SESSIONS, SESSION_WORDS)?,
            info: region(map::SESSION_INFO, INFO_WORDS)?,
            paths: region(map::PATHS, PATHS_PER_SLOT as usize * 4)?,
            traffic: region(map::TRAFFIC, TRAFFIC_WORDS)?,
            owners: mapped(map::OWNERS, OWNERS_MAX as usize * OWNER_WORDS)?,
            hops: mapped(map::HOPS, HOPS_MAX as usize * HOP_WORDS)?,
            config,
        };
        let opened = |name, error: aya::maps::MapError| AttachError::Map { name, error: error.to_string() };
        let keys = || Array::try_from(Map::Array(data(pins, map::KEYS)?)).map_err(|error| opened(map::KEYS, error));
        let maps = Maps {
            locators: locators::writer(pins)?,
            keys: keys()?,
            reader: Arc::new(Reader { locators: locators::table(pins)?, keys: keys()? }),
            verdicts: PerCpuArray::try_from(Map::PerCpuArray(data(pins, map::VERDICTS)?))
                .map_err(|error| opened(map::VERDICTS, error))?,
            events: RingBuf::try_from(Map::RingBuf(data(pins, map::EVENTS)?))
                .map_err(|error| opened(map::EVENTS, error))?,
        };
        Ok(Self::over(Arc::new(Shared::new(capacity, regions, ticks()?)), maps))
    }
}

/// The capacity maps were made with, if they are of this build.
pub(super) fn capacity_of(config: &Config) -> Result<u32, AttachError> {
    if config.layout == LAYOUT_HASH { Ok(config.max_sessions) } else { Err(AttachError::Layout) }
}

pub(super) fn data(pins: &Pins, name: &'static str) -> Result<MapData, AttachError> {
    MapData::from_pin(pins.map(name)).map_err(|error| AttachError::Map { name, error: error.to_string() })
}

pub(super) fn mapping(pins: &Pins, name: &'static str, words: usize) -> Result<Mapping, AttachError> {
    let data = data(pins, name)?;
    Mapping::of(data.fd().as_fd(), words).map_err(|error| AttachError::Map { name, error: error.to_string() })
}

/// Learns jiffies from a one-line program and lines them up with the monotonic clock.
pub fn ticks() -> Result<Ticks, AttachError> {
    let program = Clock::load()?;
    // The coarse clock and jiffies move together; what was asked within one tick belongs to it.
    for _ in 0..TICK_TRIES {
        let before = ticks::monotonic_ns();
        let jiffies = program.jiffies()?;
        if ticks::monotonic_ns() == before {
            return Ok(Ticks::aligned(jiffies, before));
        }
    }
    Err(AttachError::Clock("no tick was long enough to look at it".to_owned()))
}

/// A look takes microseconds and a tick milliseconds: a handful suffices on any machine that works.
const TICK_TRIES: usize = 100;

pub(super) fn failed(map: &'static str, what: &'static str) -> impl Fn(aya::maps::MapError) -> DataPlaneError {
    move |error| DataPlaneError::Map { map, what, error: error.to_string() }
}

impl Backing for Maps {
    fn put_locator(&mut self, locator: Locator, entry: &LocatorEntry) -> Result<(), DataPlaneError> {
        self.locators.insert(locator, *entry).map_err(|refused| match refused {
            Refused::Known => DataPlaneError::LocatorInUse(locator),
            Refused::Full => DataPlaneError::LocatorsFull(locator),
        })
    }

    fn remove_locator(&mut self, locator: Locator) {
        self.locators.remove(locator);
    }

    fn locators(&self) -> Vec<(Locator, LocatorEntry)> {
        self.locators.table().all().into_iter().map(|(locator, entry)| (Locator(locator), entry)).collect()
    }

    fn locator(&self, locator: Locator) -> Option<LocatorEntry> {
        self.locators.table().find(locator)
    }

    fn recount_locators(&mut self) {
        self.locators.recount();
    }

    fn put_keys(&mut self, slot: Slot, keys: &SteeringKeys) -> Result<(), DataPlaneError> {
        self.keys.set(slot.0, keys.to_words(), 0).map_err(failed(map::KEYS, "store"))
    }

    fn keys(&self, slot: Slot) -> Result<SteeringKeys, DataPlaneError> {
        self.keys.get(&slot.0, 0).map(SteeringKeys::from_words).map_err(failed(map::KEYS, "reading"))
    }

    fn reader(&self) -> Option<Arc<Reader>> {
        Some(Arc::clone(&self.reader))
    }

    fn verdicts(&self) -> Result<[u64; VERDICTS_MAX as usize], DataPlaneError> {
        let mut sums = [0; VERDICTS_MAX as usize];
        for (sum, index) in sums.iter_mut().zip(0..) {
            let of_each = self.verdicts.get(&index, 0).map_err(failed(map::VERDICTS, "reading"))?;
            *sum = of_each.iter().sum();
        }
        Ok(sums)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.next().and_then(|item| Event::from_bytes(&item))).take(EVENTS_MAX).collect()
    }
}
