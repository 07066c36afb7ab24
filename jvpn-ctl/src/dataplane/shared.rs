//! The arrays that kernel program, controller and workers have in common, and their mirror.
//!
//! Owns where each field lies in which region. The hash of locators and the keys are mirrored here, since
//! user space could read the kernel's only by a syscall a packet. Must never be written by anyone but the
//! one executor ([`super::plane`]), except for counters and liveness.

use super::region::Region;
use super::relay::Ways;
use super::ticks::Ticks;
use jvpn_common::abi::{
    ActiveWord, BUCKET_LANES, BUCKET_SOURCES, Binding, CONFIG_WORDS, Config, HOP_WORDS, HOPS_MAX, INFO_WORDS,
    LAYOUT_HASH, LocatorEntry, OWNER_WORDS, OWNERS_MAX, PATHS_PER_SLOT, PathCounters, SESSION_WORDS, SessionInfo,
    SteeringKeys, TRAFFIC_WORDS, Traffic, WORD_ACTIVE, WORD_ALIVE, WORD_GENERATION, WORD_ROLE, WORKERS_MAX,
    binding_place,
};
use jvpn_common::ids::{Generation, Incarnation, Locator, OwnerEpoch, Slot, TransportIndex};
use jvpn_common::limits::LOCATORS_MAX;
use jvpn_common::time::Duration;
use jvpn_common::verdict::VERDICTS_MAX;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Packets per verdict of one thread.
pub(super) type Counters = [AtomicU64; VERDICTS_MAX as usize];

/// What the controller configures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What this node is: `ROLE_GATEWAY` or `ROLE_RELAY` of `jvpn_common::abi`.
    pub role: u16,
    /// UDP port.
    pub port: u16,
    /// Which start of the controller this is.
    pub incarnation: Incarnation,
    /// Which owner this is.
    pub owner_epoch: OwnerEpoch,
    /// Workers in use, at most [`WORKERS_MAX`].
    pub workers: u32,
    /// Seed of the handshake buckets, random.
    pub bucket_seed: [u64; 2],
    /// Message 1 a second and source; 0 = no limit.
    pub handshake_rate: u32,
    /// Message 1 a second of all sources, a processor.
    pub handshake_total_rate: u32,
}

/// A locator is random already, and only the gateway's own are stored: no further hashing.
#[derive(Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What each locator leads to, as the word the kernel has: with its fields beside each other it would be half as large again.
type Locators = HashMap<u64, u64, BuildHasherDefault<AsItIs>>;

/// LOCATORS and KEYS as user space has them.
#[derive(Default)]
pub(super) struct Mirror {
    locators: Locators,
    pub(super) keys: Vec<SteeringKeys>,
    /// Slots that were filled and not emptied since.
    pub(super) used: BTreeSet<u32>,
    /// Locators of each slot: freeing one must not look through all of them.
    of_slot: BTreeMap<u32, Vec<Locator>>,
}

impl Mirror {
    /// Where a locator leads.
    pub(super) fn find(&self, locator: u64) -> Option<LocatorEntry> {
        self.locators.get(&locator).copied().map(LocatorEntry::from_word)
    }

    pub(super) fn insert(&mut self, locator: Locator, entry: LocatorEntry) {
        self.locators.insert(locator.0, entry.to_word());
        self.of_slot.entry(entry.slot).or_insert_with(|| Vec::with_capacity(LOCATORS_MAX)).push(locator);
    }

    pub(super) fn remove(&mut self, locator: Locator) -> Option<LocatorEntry> {
        let entry = self.locators.remove(&locator.0).map(LocatorEntry::from_word)?;
        if let Some(locators) = self.of_slot.get_mut(&entry.slot) {
            locators.retain(|other| *other != locator);
            if locators.is_empty() {
                self.of_slot.remove(&entry.slot);
            }
        }
        Some(entry)
    }

    /// The locators of a slot.
    pub(super) fn of_slot(&self, slot: Slot) -> Vec<Locator> {
        self.of_slot.get(&slot.0).cloned().unwrap_or_default()
    }

    /// The first slot from this one on that has locators, and those.
    pub(super) fn next_slot(&self, from: u32) -> Option<(u32, Vec<Locator>)> {
        self.of_slot.range(from..).next().map(|(slot, locators)| (*slot, locators.clone()))
    }
}

/// The arrays.
pub(super) struct Regions {
    pub(super) sessions: Region,
    pub(super) info: Region,
    pub(super) paths: Region,
    pub(super) traffic: Region,
    pub(super) config: Region,
    pub(super) owners: Region,
    pub(super) hops: Region,
}

impl Regions {
    /// Zeroed arrays on the heap.
    pub(super) fn heap(capacity: u32) -> Self {
        let slots = capacity as usize;
        Self {
            sessions: Region::heap(slots * SESSION_WORDS),
            info: Region::heap(slots * INFO_WORDS),
            paths: Region::heap(slots * PATHS_PER_SLOT as usize * 4),
            traffic: Region::heap(slots * TRAFFIC_WORDS),
            config: Region::heap(CONFIG_WORDS),
            owners: Region::heap(OWNERS_MAX as usize * OWNER_WORDS),
            hops: Region::heap(HOPS_MAX as usize * HOP_WORDS),
        }
    }
}

/// Everything a worker reads without a syscall.
pub struct Shared {
    capacity: u32,
    pub(super) regions: Regions,
    pub(super) mirror: RwLock<Mirror>,
    /// Handshake buckets of the workers; the kernel program has its own.
    pub(super) buckets: Region,
    ticks: Ticks,
    counters: Mutex<Vec<Arc<Counters>>>,
    /// The configuration as it was last filled in.
    configured: Mutex<Option<Config>>,
    /// `OWNERS` and `HOPS` as they were last written.
    pub(super) ways: Mutex<Ways>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(capacity: u32, regions: Regions, ticks: Ticks) -> Self {
        let keys = vec![SteeringKeys::default(); capacity as usize];
        Self {
            capacity,
            regions,
            mirror: RwLock::new(Mirror { keys, ..Mirror::default() }),
            buckets: Region::heap((BUCKET_SOURCES + BUCKET_LANES) as usize * 2),
            ticks,
            counters: Mutex::default(),
            configured: Mutex::default(),
            ways: Mutex::default(),
        }
    }

    /// Slots of the maps.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The clock of deadlines in the maps.
    #[must_use]
    pub fn ticks(&self) -> &Ticks {
        &self.ticks
    }

    /// Says that a worker is alive for this much longer; zero says that it is not.
    pub fn set_alive(&self, worker: usize, within: Duration) {
        if worker < WORKERS_MAX
            && let Some(word) = self.regions.config.word(WORD_ALIVE + worker)
        {
            word.store(if within.is_zero() { 0 } else { self.ticks.after(within) }, Release);
        }
    }

    /// For how much longer a worker is said to be alive.
    #[must_use]
    pub fn alive_for(&self, worker: usize) -> Duration {
        let until = self.config().alive_until.get(worker).copied().unwrap_or(0);
        self.ticks.until(until)
    }

    /// Fills in the configuration, the role last.
    pub fn configure(&self, settings: &Settings) {
        let burst = self.capacity.max(1);
        let config = Config {
            layout: LAYOUT_HASH,
            incarnation: settings.incarnation.0,
            owner_epoch: settings.owner_epoch.0,
            port: settings.port,
            role: settings.role,
            workers: settings.workers.clamp(1, WORKERS_MAX as u32),
            max_sessions: self.capacity,
            hz: self.ticks.hz(),
            alive_until: self.config().alive_until,
            bucket_seed: settings.bucket_seed,
            handshake_rate: settings.handshake_rate,
            handshake_burst: burst,
            handshake_total_rate: settings.handshake_total_rate,
            handshake_total_burst: burst,
            reserved: [0; 7],
        };
        *self.configured.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
        self.write_config(&config);
    }

    /// Writes the configuration again where it is not what was filled in; whether it was not.
    pub fn mend_config(&self) -> bool {
        let configured = *self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.config();
        let Some(wanted) = configured.map(|wanted| Config { alive_until: now.alive_until, ..wanted }) else {
            return false;
        };
        let differs = wanted != now;
        if differs {
            self.write_config(&wanted);
        }
        differs
    }

    fn write_config(&self, config: &Config) {
        let words = config.to_words();
        for (at, value) in words.iter().enumerate().filter(|(at, _)| *at != WORD_ROLE) {
            self.regions.config.store(at, &[*value]);
        }
        if let (Some(word), Some(value)) = (self.regions.config.word(WORD_ROLE), words.get(WORD_ROLE)) {
            word.store(*value, Release);
        }
    }

    /// The configuration as it stands.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::from_words(&self.regions.config.load(0))
    }

    fn place(&self, slot: Slot, words: usize) -> usize {
        if slot.0 < self.capacity { slot.0 as usize * words } else { usize::MAX }
    }

    pub(super) fn session_word(&self, slot: Slot, at: usize) -> Option<&AtomicU64> {
        self.regions.sessions.word(self.place(slot, SESSION_WORDS).checked_add(at)?)
    }

    /// The active word of a slot; zero for one that does not exist.
    #[must_use]
    pub fn word(&self, slot: Slot) -> ActiveWord {
        ActiveWord(self.session_word(slot, WORD_ACTIVE).map_or(0, |word| word.load(Acquire)))
    }

    /// Stores the active word after everything stored before it.
    pub(super) fn set_word(&self, slot: Slot, to: ActiveWord) {
        if let Some(word) = self.session_word(slot, WORD_ACTIVE) {
            word.store(to.0, Release);
        }
    }

    /// Generation and flags of a slot.
    #[must_use]
    pub fn generation(&self, slot: Slot) -> (Generation, u32) {
        let word = self.session_word(slot, WORD_GENERATION).map_or(0, |word| word.load(Acquire));
        (Generation(word as u32), (word >> 32) as u32)
    }

    pub(super) fn set_generation(&self, slot: Slot, generation: Generation, flags: u32) {
        if let Some(word) = self.session_word(slot, WORD_GENERATION) {
            word.store(u64::from(generation.0) | u64::from(flags) << 32, Release);
        }
    }

    /// A binding entry as it stands; packets read it through [`jvpn_common::steer::bind`] instead.
    #[must_use]
    pub fn binding(&self, slot: Slot, entry: u8) -> Binding {
        let place = binding_place(entry).and_then(|at| self.place(slot, SESSION_WORDS).checked_add(at));
        Binding::from_words(self.regions.sessions.load(place.unwrap_or(usize::MAX)))
    }

    pub(super) fn set_binding(&self, slot: Slot, entry: u8, binding: &Binding) {
        let place = binding_place(entry).and_then(|at| self.place(slot, SESSION_WORDS).checked_add(at));
        self.regions.sessions.store(place.unwrap_or(usize::MAX), &binding.to_words());
    }

    /// Whether a slot's entry is all zeros.
    pub(super) fn is_blank(&self, slot: Slot) -> bool {
        self.regions.sessions.load::<SESSION_WORDS>(self.place(slot, SESSION_WORDS)) == [0; SESSION_WORDS]
    }

    /// Cold facts of a slot.
    #[must_use]
    pub fn info(&self, slot: Slot) -> SessionInfo {
        SessionInfo::from_words(&self.regions.info.load(self.place(slot, INFO_WORDS)))
    }

    pub(super) fn set_info(&self, slot: Slot, info: &SessionInfo) {
        self.regions.info.store(self.place(slot, INFO_WORDS), &info.to_words());
    }

    /// Counters of a transport of a slot; zero when the record is about another.
    #[must_use]
    pub fn path(&self, slot: Slot, k: TransportIndex) -> PathCounters {
        let path = self.path_record(slot, u32::from(k.0) % PATHS_PER_SLOT);
        if path.k == u32::from(k.0) { path } else { PathCounters { k: u32::from(k.0), ..PathCounters::default() } }
    }

    fn path_place(&self, slot: Slot, place: u32) -> usize {
        self.place(slot, PATHS_PER_SLOT as usize * 4).saturating_add((place % PATHS_PER_SLOT) as usize * 4)
    }

    pub(super) fn path_record(&self, slot: Slot, place: u32) -> PathCounters {
        PathCounters::from_words(self.regions.paths.load(self.path_place(slot, place)))
    }

    pub(super) fn set_path_record(&self, slot: Slot, place: u32, path: &PathCounters) {
        self.regions.paths.store(self.path_place(slot, place), &path.to_words());
    }

    /// Counters of a slot.
    #[must_use]
    pub fn traffic(&self, slot: Slot) -> Traffic {
        Traffic::from_words(&self.regions.traffic.load(self.place(slot, TRAFFIC_WORDS)))
    }

    pub(super) fn traffic_word(&self, slot: Slot, at: usize) -> Option<&AtomicU64> {
        self.regions.traffic.word(self.place(slot, TRAFFIC_WORDS).checked_add(at)?)
    }

    /// Forgets the counters of a slot's earlier session.
    pub(super) fn clear_counters(&self, slot: Slot) {
        self.regions.paths.store(self.path_place(slot, 0), &[0; PATHS_PER_SLOT as usize * 4]);
        self.regions.traffic.store(self.place(slot, TRAFFIC_WORDS), &[0; TRAFFIC_WORDS]);
    }

    /// Counters for one more thread.
    pub(super) fn new_counters(&self) -> Arc<Counters> {
        let counters = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    /// Packets per verdict of all workers so far.
    #[must_use]
    pub fn worker_verdicts(&self) -> [u64; VERDICTS_MAX as usize] {
        let mut sums = [0; VERDICTS_MAX as usize];
        for counters in self.counters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sums.iter_mut().zip(counters.iter()).for_each(|(sum, count)| *sum += count.load(Relaxed));
        }
        sums
    }
}
