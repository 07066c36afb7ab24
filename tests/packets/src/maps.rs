//! The maps as plain values: one state, given to the host's steering and written into the kernel's maps.
//!
//! Owns the small world of the packet suites (eight slots) and the host's tables over it. Must never share
//! code with the product's data plane: a mistake there would agree with itself.

use crate::packet::{self, KEYS};
use jvpn_common::abi::{
    ActiveWord, BUCKET_LANES, BUCKET_SOURCES, Binding, Bucket, BucketField, Config, Hop, LAYOUT_HASH, LocatorEntry,
    Owner, PENDING, PathCounters, ROLE_GATEWAY, SessionEntry, SteeringKeys, TrafficField, mapped,
};
use jvpn_common::steer::{Session, Tables};
use jvpn_common::verdict::{VERDICTS_MAX, Verdict};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Slots of the world.
pub const SLOTS: u32 = 8;
/// The tick of the packet suites.
pub const TICK: u64 = 5_000_000;
/// Boot time of the packet suites.
pub const NOW: u64 = 0x0123_4567_89ab;
/// The incarnation echoes tell.
pub const INCARNATION: u64 = 0xaaaa_bbbb_cccc;

/// Everything in the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// `CONFIG`.
    pub config: Config,
    /// `LOCATORS`.
    pub locators: BTreeMap<u64, LocatorEntry>,
    /// `SESSIONS`.
    pub sessions: Vec<SessionEntry>,
    /// `KEYS`.
    pub keys: Vec<SteeringKeys>,
    /// `PATHS`.
    pub paths: Vec<PathCounters>,
    /// `TRAFFIC`, as words.
    pub traffic: Vec<[u64; 16]>,
    /// `BUCKETS`.
    pub buckets: Vec<Bucket>,
    /// `OWNERS`, those there are.
    pub owners: BTreeMap<u32, Owner>,
    /// `HOPS`, those there are.
    pub hops: BTreeMap<u16, Hop>,
}

/// Ids of `HOPS` below this are used by the packet suites.
pub const HOPS_USED: u16 = 16;

/// The slots of the world. Each has locators for k = 0, 1 and 2, of a living and of a dead worker.
pub mod slot {
    /// Bound to the IPv4 client under k = 0; port + 1 under k = 1 drains.
    pub const V4: u32 = 1;
    /// The same in IPv6.
    pub const V6: u32 = 2;
    /// As [`V4`], the drain is over.
    pub const EXPIRED_V4: u32 = 3;
    /// As [`V6`], the drain is over.
    pub const EXPIRED_V6: u32 = 4;
    /// A handshake is not confirmed.
    pub const PENDING: u32 = 5;
    /// Unbound.
    pub const UNBOUND: u32 = 6;
    /// Given out again: locators are of an earlier generation.
    pub const STALE: u32 = 7;
}

/// The locator of a slot and transport index; `dead` is that of a worker that does not answer.
#[must_use]
pub const fn locator(slot: u32, k: u16, dead: bool) -> u64 {
    0x0a00_0000_0000_0000 | (slot as u64) << 61 | (k as u64) << 8 | dead as u64
}

fn binding(client: SocketAddr, port: u16, k: u16, drain_until: u64) -> Binding {
    Binding { address: mapped(client.ip()), port, k, mtu: 1_400, drain_until, gateway: 0 }
}

impl State {
    /// The world before each frame.
    #[must_use]
    pub fn world() -> Self {
        let mut config = Config {
            layout: LAYOUT_HASH,
            incarnation: INCARNATION,
            owner_epoch: 1,
            port: packet::PORT,
            role: ROLE_GATEWAY,
            workers: 2,
            max_sessions: SLOTS,
            hz: 250,
            bucket_seed: [3, 4],
            ..Config::default()
        };
        config.alive_until[0] = TICK + 10;
        config.alive_until[1] = TICK - 1;
        let mut sessions = vec![SessionEntry::default(); SLOTS as usize];
        let mut locators = BTreeMap::new();
        for at in 1..SLOTS {
            for k in 0..3 {
                for dead in [false, true] {
                    locators.insert(locator(at, k, dead), LocatorEntry { slot: at, generation: 9, k });
                }
            }
        }
        for (at, client, drain_until) in [
            (slot::V4, packet::CLIENT_V4, TICK),
            (slot::V6, packet::CLIENT_V6, TICK),
            (slot::EXPIRED_V4, packet::CLIENT_V4, TICK - 1),
            (slot::EXPIRED_V6, packet::CLIENT_V6, TICK - 1),
        ] {
            let port = client.port();
            let active = binding(client, port, 0, 0);
            let draining = binding(client, port + 1, 1, drain_until);
            sessions[at as usize].active = ActiveWord::new(5, 1, 3).0;
            sessions[at as usize].bindings = [draining, Binding::default(), active];
        }
        for (at, entry) in sessions.iter_mut().enumerate().skip(1) {
            entry.generation = if at == slot::STALE as usize { 10 } else { 9 };
        }
        sessions[slot::PENDING as usize].flags = PENDING;
        Self {
            config,
            locators,
            sessions,
            keys: vec![KEYS; SLOTS as usize],
            paths: vec![PathCounters::default(); SLOTS as usize * 4],
            traffic: vec![[0; 16]; SLOTS as usize],
            buckets: vec![Bucket::default(); (BUCKET_SOURCES + BUCKET_LANES) as usize],
            owners: BTreeMap::new(),
            hops: BTreeMap::new(),
        }
    }
}

/// A session of the host's tables.
#[derive(Clone, Copy, Debug)]
pub struct Entry(SessionEntry);

impl Session for Entry {
    fn word(&self) -> u64 {
        self.0.active
    }
    fn entry(&self, entry: u8) -> Binding {
        usize::from(entry).checked_sub(1).and_then(|at| self.0.bindings.get(at)).copied().unwrap_or_default()
    }
    fn generation(&self) -> u32 {
        self.0.generation
    }
    fn flags(&self) -> u32 {
        self.0.flags
    }
    fn owner(&self) -> u32 {
        self.0.owner
    }
}

/// Whether an entry of this sequence was written and is not being written.
const fn written(sequence: u64) -> bool {
    sequence != 0 && sequence.is_multiple_of(2)
}

/// The host's tables over a [`State`].
#[derive(Debug)]
pub struct HostMaps {
    fixed: State,
    /// What packets change.
    pub state: RefCell<State>,
    /// Verdicts counted, in order.
    pub counted: RefCell<Vec<Verdict>>,
}

impl HostMaps {
    /// Tables over a copy of `state`.
    #[must_use]
    pub fn new(state: &State) -> Self {
        Self { fixed: state.clone(), state: RefCell::new(state.clone()), counted: RefCell::default() }
    }

    /// Forgets what packets changed.
    pub fn reset(&self) {
        let mut state = self.state.borrow_mut();
        state.paths.clone_from(&self.fixed.paths);
        state.traffic.clone_from(&self.fixed.traffic);
        state.buckets.clone_from(&self.fixed.buckets);
        self.counted.borrow_mut().clear();
    }
}

impl Tables for HostMaps {
    type Session = Entry;

    fn config(&self) -> Option<&Config> {
        Some(&self.fixed.config)
    }
    fn locator(&self, locator: u64) -> Option<LocatorEntry> {
        self.fixed.locators.get(&locator).copied()
    }
    fn session(&self, slot: u32) -> Option<Entry> {
        self.fixed.sessions.get(slot as usize).copied().map(Entry)
    }
    fn keys(&self, slot: u32) -> Option<&SteeringKeys> {
        self.fixed.keys.get(slot as usize)
    }
    fn path(&self, slot: u32, place: u32) -> PathCounters {
        self.state.borrow().paths.get((slot * 4 + place) as usize).copied().unwrap_or_default()
    }
    fn set_path(&self, slot: u32, place: u32, path: &PathCounters) {
        if let Some(to) = self.state.borrow_mut().paths.get_mut((slot * 4 + place) as usize) {
            *to = *path;
        }
    }
    fn add(&self, slot: u32, field: TrafficField, amount: u64) {
        if let Some(words) = self.state.borrow_mut().traffic.get_mut(slot as usize) {
            words[field as usize] += amount;
        }
    }
    fn slot_bucket(&self, slot: u32, which: BucketField) -> Bucket {
        let words = self.state.borrow().traffic[slot as usize];
        Bucket { at: words[which as usize], tokens: words[which as usize + 1] }
    }
    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket) {
        let words = &mut self.state.borrow_mut().traffic[slot as usize];
        words[which as usize] = bucket.at;
        words[which as usize + 1] = bucket.tokens;
    }
    fn bucket(&self, index: u32) -> Bucket {
        self.state.borrow().buckets[index as usize]
    }
    fn set_bucket(&self, index: u32, bucket: &Bucket) {
        self.state.borrow_mut().buckets[index as usize] = *bucket;
    }
    fn owner(&self, index: u32) -> Option<Owner> {
        self.fixed.owners.get(&index).copied().filter(|owner| written(owner.sequence))
    }
    fn hop(&self, id: u16) -> Option<Hop> {
        self.fixed.hops.get(&id).copied().filter(|hop| written(hop.sequence))
    }
    fn lane(&self) -> u32 {
        0
    }
    fn ticks(&self) -> u64 {
        TICK
    }
    fn now(&self) -> u64 {
        NOW
    }
    fn counts_arrivals(&self) -> bool {
        true
    }
    fn count(&self, verdict: Verdict) {
        self.counted.borrow_mut().push(verdict);
    }
}

/// Places of the verdict counters.
pub const VERDICTS: u32 = VERDICTS_MAX;
