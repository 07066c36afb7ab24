//! The gateway's maps in memory, with the executor of map operations.
//!
//! Owns what the kernel would hold: locators, entries, keys, counters. Each operation is carried out as the
//! engine wrote it. It does not prove that a kernel does the same: that is the contract suite's part.

use jvpn_common::abi::{
    ActiveWord, Binding, Bucket, BucketField, Config, LAYOUT_HASH, LocatorEntry, PENDING, PathCounters, ROLE_GATEWAY,
    SessionEntry, SessionInfo, SteeringKeys, Traffic, TrafficField,
};
use jvpn_common::ids::Slot;
use jvpn_common::mapop::{Committed, MapOp};
use jvpn_common::steer::bind::{self, Bound};
use jvpn_common::steer::{Session, Tables};
use jvpn_common::time::{Duration, Instant, nanos};
use jvpn_common::verdict::Verdict;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Kernel ticks a second, and what one is.
const HZ: u64 = 250;
const TICK: u64 = 1_000_000_000 / HZ;
const PATHS_PER_SLOT: usize = jvpn_common::abi::PATHS_PER_SLOT as usize;
const TRAFFIC_WORDS: usize = size_of::<Traffic>() / 8;

/// What the packet path writes.
#[derive(Clone, Debug)]
struct Counters {
    paths: Vec<PathCounters>,
    traffic: Vec<[u64; TRAFFIC_WORDS]>,
    buckets: BTreeMap<u32, Bucket>,
    verdicts: BTreeMap<Verdict, u64>,
}

/// The maps.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `CONFIG`.
    pub config: Config,
    /// Boot time of the gateway now.
    pub now: Instant,
    locators: BTreeMap<u64, LocatorEntry>,
    sessions: Vec<SessionEntry>,
    keys: Vec<SteeringKeys>,
    infos: Vec<SessionInfo>,
    counters: RefCell<Counters>,
}

/// A slot as one packet sees it.
#[derive(Clone, Copy, Debug)]
pub struct View(SessionEntry);

impl Session for View {
    fn word(&self) -> u64 {
        self.0.active
    }

    fn entry(&self, entry: u8) -> Binding {
        usize::from(entry).checked_sub(1).and_then(|place| self.0.bindings.get(place)).copied().unwrap_or_default()
    }

    fn generation(&self) -> u32 {
        self.0.generation
    }

    fn flags(&self) -> u32 {
        self.0.flags
    }
}

impl Maps {
    /// Empty maps of so many slots.
    #[must_use]
    pub fn new(slots: u32, port: u16, now: Instant) -> Self {
        let len = slots as usize;
        let config = Config {
            layout: LAYOUT_HASH,
            port,
            role: ROLE_GATEWAY,
            workers: 1,
            max_sessions: slots,
            hz: HZ as u32,
            ..Config::default()
        };
        let counters = Counters {
            paths: vec![PathCounters::default(); len * PATHS_PER_SLOT],
            traffic: vec![[0; TRAFFIC_WORDS]; len],
            buckets: BTreeMap::new(),
            verdicts: BTreeMap::new(),
        };
        Self {
            config,
            now,
            locators: BTreeMap::new(),
            sessions: vec![SessionEntry::default(); len],
            keys: vec![SteeringKeys::default(); len],
            infos: vec![SessionInfo::default(); len],
            counters: RefCell::new(counters),
        }
    }

    /// The tick of an instant; never zero.
    #[must_use]
    pub const fn tick_of(at: Instant) -> u64 {
        at.0 / TICK + 1
    }

    /// The worker said that it is alive.
    pub fn alive_for(&mut self, duration: Duration) {
        self.config.alive_until[0] = Self::tick_of(self.now) + nanos(duration) / TICK;
    }

    /// What a slot's word names.
    #[must_use]
    pub fn bound(&self, slot: Slot) -> Option<Bound> {
        self.sessions.get(slot.0 as usize).and_then(|entry| bind::read(&View(*entry)))
    }

    /// Cold facts of every slot in use.
    pub fn infos(&self) -> impl Iterator<Item = (Slot, &SessionInfo, &SessionEntry)> {
        let slots = self.infos.iter().zip(&self.sessions).enumerate();
        slots
            .filter(|(_, (_, entry))| entry.generation != 0)
            .map(|(slot, (info, entry))| (Slot(slot as u32), info, entry))
    }

    /// How often each verdict was given.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<Verdict, u64> {
        self.counters.borrow().verdicts.clone()
    }

    /// The locator of a transport index of a slot.
    #[must_use]
    pub fn locator_of(&self, slot: Slot, k: u16) -> Option<jvpn_common::ids::Locator> {
        let generation = self.sessions.get(slot.0 as usize)?.generation;
        let mut all = self.locators.iter();
        all.find(|(_, entry)| entry.slot == slot.0 && entry.k == k && entry.generation == generation)
            .map(|(&locator, _)| jvpn_common::ids::Locator(locator))
    }

    /// Datagrams of a slot whose steering tag was wrong.
    #[must_use]
    pub fn forged(&self, slot: Slot) -> u64 {
        self.counters.borrow().traffic[slot.0 as usize][TrafficField::Forged as usize]
    }

    /// Whether a slot holds what was committed.
    #[must_use]
    pub fn agrees(&self, slot: Slot, committed: &Committed) -> bool {
        let entry = &self.sessions[slot.0 as usize];
        let named = usize::from(committed.word.active()).checked_sub(1).map(|place| entry.bindings[place]);
        let bare = |binding: Binding| Binding { drain_until: 0, ..binding };
        let flags = if committed.pending { PENDING } else { 0 };
        entry.active == committed.word.0
            && (entry.generation, entry.flags) == (committed.generation.0, flags)
            && named.map(bare) == committed.active.map(bare)
    }

    /// Makes a slot what was committed.
    pub fn put_back(&mut self, slot: Slot, committed: &Committed) {
        let entry = &mut self.sessions[slot.0 as usize];
        (entry.generation, entry.active) = (committed.generation.0, committed.word.0);
        entry.flags = if committed.pending { PENDING } else { 0 };
        if let (Some(place), Some(binding)) = (usize::from(committed.word.active()).checked_sub(1), committed.active) {
            entry.bindings[place] = binding;
        }
    }

    /// Somebody writes into a slot what nobody committed: no binding, another one, or another address.
    pub fn tamper(&mut self, slot: Slot, how: u64) {
        let entry = &mut self.sessions[slot.0 as usize];
        let word = ActiveWord(entry.active);
        match how {
            0 => entry.active = word.successor(0, 0).0,
            1 => entry.active = word.successor(0, word.spare()).0,
            _ => entry.bindings.iter_mut().for_each(|binding| binding.port ^= 1),
        }
    }

    /// The steering keys of a slot.
    #[must_use]
    pub fn steering(&self, slot: Slot) -> SteeringKeys {
        self.keys.get(slot.0 as usize).copied().unwrap_or_default()
    }

    /// All active words to none: a restart.
    pub fn unbind_all(&mut self) {
        for entry in &mut self.sessions {
            if entry.active != 0 {
                entry.active = ActiveWord(entry.active).successor(0, 0).0;
            }
        }
    }

    /// Carries one operation out.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Install { slot, generation, keys, locators, pending, session } => {
                let place = slot.0 as usize;
                self.sessions[place] = SessionEntry {
                    generation: generation.0,
                    flags: if *pending { PENDING } else { 0 },
                    ..SessionEntry::default()
                };
                self.keys[place] = *keys;
                let info = SessionInfo { session_id: session.0, generation: generation.0, ..SessionInfo::default() };
                self.infos[place] = info;
                let counters = self.counters.get_mut();
                counters.traffic[place] = [0; TRAFFIC_WORDS];
                counters.paths[place * PATHS_PER_SLOT..(place + 1) * PATHS_PER_SLOT].fill(PathCounters::default());
                self.add_locators(*slot, generation.0, locators);
            }
            MapOp::AddLocators { slot, generation, locators } => self.add_locators(*slot, generation.0, locators),
            MapOp::RemoveLocators { locators } => {
                for locator in locators {
                    self.locators.remove(&locator.0);
                }
            }
            MapOp::Binding { slot, entry, binding } => self.entry(*slot).bindings[usize::from(*entry) - 1] = *binding,
            MapOp::Drain { slot, entry, within } => {
                let until = Self::tick_of(self.now) + nanos(*within) / TICK;
                self.entry(*slot).bindings[usize::from(*entry) - 1].drain_until = until;
            }
            MapOp::Activate { slot, word } => self.entry(*slot).active = word.0,
            MapOp::Confirm { slot } => self.entry(*slot).flags &= !PENDING,
            MapOp::Info { slot, info } => self.infos[slot.0 as usize] = *info,
            MapOp::Free { slot } => {
                let place = slot.0 as usize;
                self.sessions[place] = SessionEntry::default();
                self.keys[place] = SteeringKeys::default();
                self.infos[place] = SessionInfo::default();
                self.locators.retain(|_, entry| entry.slot != slot.0);
            }
        }
    }

    fn entry(&mut self, slot: Slot) -> &mut SessionEntry {
        &mut self.sessions[slot.0 as usize]
    }

    fn add_locators(
        &mut self,
        slot: Slot,
        generation: u32,
        locators: &[(jvpn_common::ids::TransportIndex, jvpn_common::ids::Locator)],
    ) {
        for (k, locator) in locators {
            let twin = self
                .locators
                .iter()
                .find(|(_, old)| old.slot == slot.0 && old.generation == generation && old.k == k.0);
            assert!(twin.is_none(), "two locators for k {} of {slot:?} generation {generation}", k.0);
            let entry = LocatorEntry { slot: slot.0, generation, k: k.0 };
            let old = self.locators.insert(locator.0, entry);
            assert!(old.is_none_or(|old| old.slot == slot.0), "a locator was given out twice");
        }
    }
}

impl Tables for Maps {
    type Session = View;

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        self.locators.get(&locator).copied()
    }

    fn session(&self, slot: u32) -> Option<View> {
        self.sessions.get(slot as usize).map(|entry| View(*entry))
    }

    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        self.keys.get(slot as usize)
    }

    fn path(&self, slot: u32, place: u32) -> PathCounters {
        self.counters.borrow().paths[slot as usize * PATHS_PER_SLOT + place as usize]
    }

    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        self.counters.borrow_mut().paths[slot as usize * PATHS_PER_SLOT + place as usize] = *path;
    }

    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        let word = &mut self.counters.borrow_mut().traffic[slot as usize][field as usize];
        *word = word.wrapping_add(amount);
    }

    fn slot_bucket(&self, slot: u32, bucket: BucketField) -> Bucket {
        let words = &self.counters.borrow().traffic[slot as usize];
        Bucket { at: words[bucket as usize], tokens: words[bucket as usize + 1] }
    }

    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        let words = &mut self.counters.borrow_mut().traffic[slot as usize];
        (words[which as usize], words[which as usize + 1]) = (bucket.at, bucket.tokens);
    }

    fn bucket(&self, index: u32) -> Bucket {
        self.counters.borrow().buckets.get(&index).copied().unwrap_or_default()
    }

    fn set_bucket(&self, index: u32, bucket: &Bucket) {
        self.counters.borrow_mut().buckets.insert(index, *bucket);
    }

    fn lane(&self) -> u32 {
        0
    }

    fn ticks(&self) -> u64 {
        Self::tick_of(self.now)
    }

    fn now(&self) -> u64 {
        self.now.0
    }

    fn counts_arrivals(&self) -> bool {
        true
    }

    fn count(&self, verdict: Verdict) {
        *self.counters.borrow_mut().verdicts.entry(verdict).or_default() += 1;
    }
}
