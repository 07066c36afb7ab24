//! The maps as a tunnel worker reads them: the same function as the kernel's, no syscall a packet.
//!
//! Owns one thread's view. A [`Turn`] is one copy of the configuration and one tick, good for one turn of the
//! worker's loop. A [`Batch`] adds the mirror's read lock; keep it no longer than the packets at hand, since the
//! controller waits for it to add or remove locators. Bindings are read anew for each packet. Must never write a
//! binding.

use super::shared::{Counters, Mirror, Shared};
use jvpn_common::abi::{
    Binding, Bucket, BucketField, Config, Hop, LocatorEntry, Owner, PathCounters, SteeringKeys, TrafficField,
    WORD_ACTIVE, WORD_GENERATION,
};
use jvpn_common::ids;
use jvpn_common::steer::{Session, Tables, bind};
use jvpn_common::time::{Duration, Instant};
use jvpn_common::verdict::Verdict;
use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, PoisonError, RwLockReadGuard};

/// A drain ends, even where a queue is never empty: nobody is owed more patience than that.
const WAITED_MAX: Duration = Duration::from_secs(1);

/// One worker thread's handle.
pub struct WorkerTables {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    clock: fn() -> Instant,
    counts_arrivals: bool,
    lane: u32,
}

impl fmt::Debug for WorkerTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerTables").field("shared", &self.shared).field("lane", &self.lane).finish_non_exhaustive()
    }
}

impl WorkerTables {
    /// A handle for worker number `lane`. `clock` is boot time; `counts_arrivals` is false while the kernel
    /// program stands in front and has counted already.
    #[must_use]
    pub fn new(shared: Arc<Shared>, clock: fn() -> Instant, counts_arrivals: bool, lane: u32) -> Self {
        let counters = shared.new_counters();
        Self { shared, counters, clock, counts_arrivals, lane }
    }

    /// What one turn of the worker's loop sees unchanged: 256 bytes of atomic loads and a clock read, which would
    /// cost more per packet than the look-ups themselves.
    /// `waited`: how long the packets to come may have stood in a queue.
    #[must_use]
    pub fn turn(&self, waited: Duration) -> Turn {
        let ticks = self.shared.ticks();
        Turn { config: self.shared.config(), tick: ticks.now(), waited: ticks.covering(waited.min(WAITED_MAX)) }
    }

    /// The view for some packets of a turn.
    #[must_use]
    pub fn batch<'a>(&'a self, turn: &'a Turn) -> Batch<'a> {
        Batch { mirror: self.shared.mirror.read().unwrap_or_else(PoisonError::into_inner), turn, tables: self }
    }

    /// What is shared, for liveness and counters.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where data of a session is sent, if its slot is still of this generation and bound. `None` also in
    /// the rare torn read: the packet is dropped, the next one reads anew.
    #[must_use]
    pub fn active(&self, slot: ids::Slot, generation: ids::Generation) -> Option<Binding> {
        let session = Slot { shared: &self.shared, slot };
        let bound = bind::read(&session)?;
        let binding = bound.active().copied()?;
        (session.generation() == generation.0).then_some(binding)
    }
}

/// Configuration and tick of one turn. Take a new one each turn: whether a worker is alive is judged by it.
#[derive(Clone, Debug)]
pub struct Turn {
    config: Config,
    tick: u64,
    waited: u64,
}

/// The maps for some packets of one turn.
pub struct Batch<'a> {
    mirror: RwLockReadGuard<'a, Mirror>,
    turn: &'a Turn,
    tables: &'a WorkerTables,
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("tick", &self.turn.tick).finish_non_exhaustive()
    }
}

/// One slot of the arrays.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    shared: &'a Shared,
    slot: ids::Slot,
}

impl Slot<'_> {
    fn load(&self, at: usize) -> u64 {
        self.shared.session_word(self.slot, at).map_or(0, |word| word.load(Acquire))
    }
}

impl Session for Slot<'_> {
    fn word(&self) -> u64 {
        self.load(WORD_ACTIVE)
    }

    fn entry(&self, entry: u8) -> Binding {
        // Acquire loads: the second look at the word may not overtake them.
        match jvpn_common::abi::binding_place(entry) {
            Some(at) => Binding::from_words(std::array::from_fn(|i| self.load(at + i))),
            None => Binding::default(),
        }
    }

    fn generation(&self) -> u32 {
        self.load(WORD_GENERATION) as u32
    }

    fn flags(&self) -> u32 {
        (self.load(WORD_GENERATION) >> 32) as u32
    }

    fn owner(&self) -> u32 {
        self.shared.session_owner(self.slot)
    }
}

impl<'a> Tables for Batch<'a> {
    type Session = Slot<'a>;

    fn config(&self) -> Option<&Config> {
        Some(&self.turn.config)
    }

    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        self.mirror.find(locator)
    }

    fn session(&self, slot: u32) -> Option<Self::Session> {
        let shared = &*self.tables.shared;
        (slot < shared.capacity()).then_some(Slot { shared, slot: ids::Slot(slot) })
    }

    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        self.mirror.keys.get(slot as usize)
    }

    fn path(&self, slot: u32, place: u32) -> PathCounters {
        self.tables.shared.path_record(ids::Slot(slot), place)
    }

    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        self.tables.shared.set_path_record(ids::Slot(slot), place, path);
    }

    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        if let Some(word) = self.tables.shared.traffic_word(ids::Slot(slot), field as usize) {
            word.store(word.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    fn slot_bucket(&self, slot: u32, which: BucketField) -> Bucket {
        let word = |at| self.tables.shared.traffic_word(ids::Slot(slot), which as usize + at);
        let [at, tokens] = [0, 1].map(|at| word(at).map_or(0, |word| word.load(Relaxed)));
        Bucket { at, tokens }
    }

    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        for (at, value) in [bucket.at, bucket.tokens].into_iter().enumerate() {
            if let Some(word) = self.tables.shared.traffic_word(ids::Slot(slot), which as usize + at) {
                word.store(value, Relaxed);
            }
        }
    }

    fn bucket(&self, index: u32) -> Bucket {
        let [at, tokens] = self.tables.shared.buckets.load(index as usize * 2);
        Bucket { at, tokens }
    }

    fn set_bucket(&self, index: u32, bucket: &Bucket) {
        self.tables.shared.buckets.store(index as usize * 2, &[bucket.at, bucket.tokens]);
    }

    fn owner(&self, index: u32) -> Option<Owner> {
        self.tables.shared.owner(index)
    }

    fn hop(&self, id: u16) -> Option<Hop> {
        self.tables.shared.hop(id)
    }

    fn lane(&self) -> u32 {
        self.tables.lane
    }

    fn ticks(&self) -> u64 {
        self.turn.tick
    }

    fn arrival(&self, tick: u64) -> u64 {
        tick.saturating_sub(self.turn.waited)
    }

    fn now(&self) -> u64 {
        (self.tables.clock)().0
    }

    fn counts_arrivals(&self) -> bool {
        self.tables.counts_arrivals
    }

    fn count(&self, verdict: Verdict) {
        if let Some(count) = self.tables.counters.get(usize::from(verdict as u16)) {
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
    }
}
