//! The gateway's maps in memory, with the executor of map operations.
//!
//! Owns what the kernel would hold: locators, entries, keys, the counters the packet path writes. Each operation is
//! carried out as the engine wrote it. Must never be taken for the kernel's: what a kernel does is shown elsewhere.

use crate::abi::{
    Binding, Bucket, BucketField, Config, LAYOUT_HASH, LocatorEntry, PENDING, PathCounters, ROLE_GATEWAY, SessionEntry,
    SessionInfo, SteeringKeys, TrafficField,
};
use crate::ids::{Locator, Slot, TransportIndex};
use crate::mapop::MapOp;
use crate::steer::bind::{self, Bound};
use crate::steer::{Session, Tables};
use crate::time::{Duration, Instant, nanos};
use crate::verdict::Verdict;
use core::cell::RefCell;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Kernel ticks a second, and what one is.
const HZ: u32 = 250;
const TICK: u64 = 1_000_000_000 / HZ as u64;

/// What the packet path writes.
#[derive(Clone, Debug, Default)]
struct Counters {
    paths: BTreeMap<(u32, u32), PathCounters>,
    traffic: BTreeMap<(u32, usize), u64>,
    slot_buckets: BTreeMap<(u32, usize), Bucket>,
    buckets: BTreeMap<u32, Bucket>,
    verdicts: BTreeMap<Verdict, u64>,
}

impl Counters {
    /// A slot's are those of the session that was just put there.
    fn forget(&mut self, slot: Slot) {
        self.paths.retain(|(of, _), _| *of != slot.0);
        self.traffic.retain(|(of, _), _| *of != slot.0);
        self.slot_buckets.retain(|(of, _), _| *of != slot.0);
    }
}

/// What is known of a slot; zeros while it is free.
#[derive(Clone, Debug, Default)]
struct Held {
    entry: SessionEntry,
    keys: SteeringKeys,
    info: SessionInfo,
}

/// The maps.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `CONFIG`.
    pub config: Config,
    /// Boot time of the gateway now.
    pub now: Instant,
    locators: BTreeMap<u64, LocatorEntry>,
    slots: Vec<Held>,
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
        let config = Config {
            layout: LAYOUT_HASH,
            port,
            role: ROLE_GATEWAY,
            workers: 1,
            max_sessions: slots,
            hz: HZ,
            ..Config::default()
        };
        let held = (0..slots).map(|_| Held::default()).collect();
        Self { config, now, locators: BTreeMap::new(), slots: held, counters: RefCell::default() }
    }

    /// The tick of an instant; never zero.
    #[must_use]
    pub const fn tick_of(at: Instant) -> u64 {
        at.0 / TICK + 1
    }

    /// The worker said that it is alive.
    pub fn alive_for(&mut self, duration: Duration) {
        if let Some(until) = self.config.alive_until.first_mut() {
            *until = Self::tick_of(self.now) + nanos(duration) / TICK;
        }
    }

    /// What a slot's word names.
    #[must_use]
    pub fn bound(&self, slot: Slot) -> Option<Bound> {
        self.entry(slot).and_then(|entry| bind::read(&View(*entry)))
    }

    /// Whether data from this address is taken: it is the active binding of a slot, or drains.
    #[must_use]
    pub fn admits(&self, outer: SocketAddr) -> bool {
        let now = Self::tick_of(self.now);
        self.used().filter_map(|(slot, ..)| self.bound(slot)).any(|bound| {
            let active = bound.active().is_some_and(|active| active.remote() == outer);
            let drains = bound.word.draining() != 0 && bound.draining.drain_until >= now;
            active || (drains && bound.draining.remote() == outer)
        })
    }

    /// Every slot in use.
    pub fn used(&self) -> impl Iterator<Item = (Slot, &SessionInfo, &SessionEntry)> {
        let slots = (0..).map(Slot).zip(&self.slots).filter(|(_, held)| held.entry.generation != 0);
        slots.map(|(slot, held)| (slot, &held.info, &held.entry))
    }

    /// What stands in a slot.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&SessionEntry> {
        self.slots.get(slot.0 as usize).map(|held| &held.entry)
    }

    /// What stands in a slot, for whoever changes it past the executor.
    pub fn entry_mut(&mut self, slot: Slot) -> Option<&mut SessionEntry> {
        self.slots.get_mut(slot.0 as usize).map(|held| &mut held.entry)
    }

    /// All locators and where they lead.
    #[must_use]
    pub const fn locators(&self) -> &BTreeMap<u64, LocatorEntry> {
        &self.locators
    }

    /// What was counted for a slot.
    #[must_use]
    pub fn traffic(&self, slot: Slot, field: TrafficField) -> u64 {
        self.counters.borrow().traffic.get(&(slot.0, field as usize)).copied().unwrap_or_default()
    }

    /// How often each verdict was given.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<Verdict, u64> {
        self.counters.borrow().verdicts.clone()
    }

    /// Carries one operation out.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Install { slot, generation, keys, locators, pending, session } => {
                let flags = if *pending { PENDING } else { 0 };
                let entry = SessionEntry { generation: generation.0, flags, ..SessionEntry::default() };
                let info = SessionInfo { session_id: session.0, generation: generation.0, ..SessionInfo::default() };
                self.held(*slot, |held| *held = Held { entry, keys: *keys, info });
                self.counters.get_mut().forget(*slot);
                self.add_locators(*slot, generation.0, locators);
            }
            MapOp::AddLocators { slot, generation, locators } => self.add_locators(*slot, generation.0, locators),
            MapOp::RemoveLocators { locators, .. } => {
                self.locators.retain(|known, _| !locators.iter().any(|locator| locator.0 == *known));
            }
            MapOp::Binding { slot, entry, binding } => self.binding(*slot, *entry, |known| *known = *binding),
            MapOp::Drain { slot, entry, within } => {
                let until = Self::tick_of(self.now) + nanos(*within) / TICK;
                self.binding(*slot, *entry, |known| known.drain_until = until);
            }
            MapOp::Activate { slot, word } => self.held(*slot, |held| held.entry.active = word.0),
            MapOp::Confirm { slot } => self.held(*slot, |held| held.entry.flags &= !PENDING),
            MapOp::Info { slot, info } => self.held(*slot, |held| held.info = *info),
            MapOp::Free { slot } => {
                self.held(*slot, |held| *held = Held::default());
                self.locators.retain(|_, entry| entry.slot != slot.0);
            }
        }
    }

    fn held(&mut self, slot: Slot, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.slots.get_mut(slot.0 as usize) {
            change(held);
        }
    }

    fn binding(&mut self, slot: Slot, entry: u8, change: impl FnOnce(&mut Binding)) {
        self.held(slot, |held| {
            let place = usize::from(entry).checked_sub(1);
            if let Some(binding) = place.and_then(|place| held.entry.bindings.get_mut(place)) {
                change(binding);
            }
        });
    }

    fn add_locators(&mut self, slot: Slot, generation: u32, locators: &[(TransportIndex, Locator)]) {
        let entry = |k: &TransportIndex| LocatorEntry { slot: slot.0, generation, k: k.0 };
        self.locators.extend(locators.iter().map(|(k, locator)| (locator.0, entry(k))));
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
        self.entry(Slot(slot)).map(|entry| View(*entry))
    }

    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        self.slots.get(slot as usize).map(|held| &held.keys)
    }

    fn path(&self, slot: u32, place: u32) -> PathCounters {
        self.counters.borrow().paths.get(&(slot, place)).copied().unwrap_or_default()
    }

    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        self.counters.borrow_mut().paths.insert((slot, place), *path);
    }

    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        let mut counters = self.counters.borrow_mut();
        let word = counters.traffic.entry((slot, field as usize)).or_default();
        *word = word.wrapping_add(amount);
    }

    fn slot_bucket(&self, slot: u32, bucket: BucketField) -> Bucket {
        self.counters.borrow().slot_buckets.get(&(slot, bucket as usize)).copied().unwrap_or_default()
    }

    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        self.counters.borrow_mut().slot_buckets.insert((slot, which as usize), *bucket);
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
