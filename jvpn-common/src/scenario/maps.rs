//! The gateway's maps, as far as one session needs them.
//!
//! Owns locators, entries, keys and the counters the packet path writes. Each operation is carried out as the engine
//! wrote it. Must never be taken for the kernel's: what a kernel does is shown elsewhere.

use crate::abi::{
    Binding, Bucket, BucketField, Config, LAYOUT_HASH, LocatorEntry, PENDING, PathCounters, ROLE_GATEWAY, SessionEntry,
    SteeringKeys, TrafficField,
};
use crate::ids::{Locator, Slot, TransportIndex};
use crate::limits::ALIVE_FOR;
use crate::mapop::MapOp;
use crate::steer::{Session, Tables, bind};
use crate::time::{Instant, nanos};
use crate::verdict::Verdict;
use core::cell::RefCell;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Slots: a session, the one that follows it, and handshakes nobody confirmed.
pub(super) const SLOTS: u32 = 16;
/// Kernel ticks a second, and what one is.
const HZ: u32 = 250;
const TICK: u64 = 1_000_000_000 / HZ as u64;

/// What the packet path writes.
#[derive(Debug, Default)]
struct Counters {
    paths: BTreeMap<(u32, u32), PathCounters>,
    traffic: BTreeMap<(u32, usize), u64>,
    slot_buckets: BTreeMap<(u32, usize), Bucket>,
    buckets: BTreeMap<u32, Bucket>,
}

/// The maps.
#[derive(Debug)]
pub(super) struct Maps {
    config: Config,
    now: Instant,
    locators: BTreeMap<u64, LocatorEntry>,
    slots: BTreeMap<u32, (SessionEntry, SteeringKeys)>,
    counters: RefCell<Counters>,
}

/// A slot as one packet sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct View(SessionEntry);

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
    pub(super) fn new(port: u16, incarnation: u64) -> Self {
        let config = Config {
            layout: LAYOUT_HASH,
            port,
            role: ROLE_GATEWAY,
            workers: 1,
            max_sessions: SLOTS,
            hz: HZ,
            incarnation,
            ..Config::default()
        };
        let counters = RefCell::default();
        Self { config, now: Instant(0), locators: BTreeMap::new(), slots: BTreeMap::new(), counters }
    }

    const fn tick_of(at: Instant) -> u64 {
        at.0 / TICK + 1
    }

    /// It is later, and the worker lives.
    pub(super) fn at(&mut self, now: Instant) {
        self.now = now;
        if let Some(until) = self.config.alive_until.first_mut() {
            *until = Self::tick_of(now) + nanos(ALIVE_FOR) / TICK;
        }
    }

    /// Whether data from this address is taken: it is the active binding of a slot, or drains.
    pub(super) fn admits(&self, outer: SocketAddr) -> bool {
        let now = Self::tick_of(self.now);
        let bound = self.slots.values().filter_map(|(entry, _)| bind::read(&View(*entry)));
        bound.into_iter().any(|bound| {
            let active = bound.active().is_some_and(|active| active.remote() == outer);
            let drains = bound.word.draining() != 0 && bound.draining.drain_until >= now;
            active || (drains && bound.draining.remote() == outer)
        })
    }

    /// Carries one operation out.
    pub(super) fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::Install { slot, generation, keys, locators, pending, .. } => {
                let flags = if *pending { PENDING } else { 0 };
                let entry = SessionEntry { generation: generation.0, flags, ..SessionEntry::default() };
                self.slots.insert(slot.0, (entry, *keys));
                self.add(*slot, generation.0, locators);
            }
            MapOp::AddLocators { slot, generation, locators } => self.add(*slot, generation.0, locators),
            MapOp::RemoveLocators { locators } => {
                self.locators.retain(|known, _| !locators.iter().any(|locator| locator.0 == *known));
            }
            MapOp::Binding { slot, entry, binding } => self.binding(*slot, *entry, |known| *known = *binding),
            MapOp::Drain { slot, entry, within } => {
                let until = Self::tick_of(self.now) + nanos(*within) / TICK;
                self.binding(*slot, *entry, |known| known.drain_until = until);
            }
            MapOp::Activate { slot, word } => self.entry(*slot, |entry| entry.active = word.0),
            MapOp::Confirm { slot } => self.entry(*slot, |entry| entry.flags &= !PENDING),
            MapOp::Info { .. } => {}
            MapOp::Free { slot } => {
                self.slots.remove(&slot.0);
                self.locators.retain(|_, entry| entry.slot != slot.0);
            }
        }
    }

    fn entry(&mut self, slot: Slot, change: impl FnOnce(&mut SessionEntry)) {
        if let Some((entry, _)) = self.slots.get_mut(&slot.0) {
            change(entry);
        }
    }

    fn binding(&mut self, slot: Slot, entry: u8, change: impl FnOnce(&mut Binding)) {
        self.entry(slot, |session| {
            let place = usize::from(entry).checked_sub(1);
            if let Some(binding) = place.and_then(|place| session.bindings.get_mut(place)) {
                change(binding);
            }
        });
    }

    fn add(&mut self, slot: Slot, generation: u32, locators: &[(TransportIndex, Locator)]) {
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
        self.slots.get(&slot).map(|(entry, _)| View(*entry))
    }

    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        self.slots.get(&slot).map(|(_, keys)| keys)
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

    fn count(&self, _verdict: Verdict) {}
}
