//! The maps as plain values: one state, given to the host's steering and written into the kernel's maps.
//!
//! Owns the small world of the packet suites (eight slots) and the host's tables over it. Must never share
//! code with the product's data plane: a mistake there would agree with itself.

use crate::packet::{self, KEYS};
use crate::packet_kernel::{Laboratory, SLOTS};
use aya::maps::{Array, MapData};
use jvpn_common::abi::{
    ActiveWord, BUCKET_LANES, BUCKET_SOURCES, Binding, Bucket, BucketField, Config, Hop, LAYOUT_HASH, LocatorEntry,
    OWNERS_MAX, Owner, PENDING, PathCounters, ROLE_GATEWAY, SessionEntry, SteeringKeys, TrafficField, map, mapped,
};
use jvpn_common::steer::{Session, Tables};
use jvpn_common::verdict::{VERDICTS_MAX, Verdict};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

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

/// The kernel's maps, opened once.
pub struct KernelMaps {
    config: Array<MapData, [u64; 32]>,
    locators: Array<MapData, [u64; 8]>,
    sessions: Array<MapData, [u64; 16]>,
    keys: Array<MapData, [u64; 4]>,
    paths: Array<MapData, [u64; 4]>,
    traffic: Array<MapData, [u64; 16]>,
    buckets: Array<MapData, [u64; 2]>,
    owners: Array<MapData, [u64; 10]>,
    hops: Array<MapData, [u64; 6]>,
}

impl std::fmt::Debug for KernelMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelMaps")
    }
}

/// All of `LOCATORS` as docs/maps.md has it: four buckets a slot, of four cells each; a locator in the first free cell
/// from the bucket on that its upper half is a fraction of.
fn lines(locators: &BTreeMap<u64, LocatorEntry>) -> Vec<[u64; 8]> {
    let count = SLOTS as usize * 4;
    let mut lines = vec![[0; 8]; count];
    for (locator, entry) in locators {
        let home = (u128::from(locator >> 32) * count as u128 / (1 << 32)) as usize;
        let cells = (home..home + 8).flat_map(|at| (0..4).map(move |cell| (at % count, cell * 2)));
        let (line, cell) = cells.clone().find(|(line, cell)| lines[*line][*cell] == 0).expect("a free cell");
        lines[line][cell] = *locator;
        lines[line][cell + 1] = u64::from(entry.slot) | u64::from(entry.generation) << 32 | u64::from(entry.k) << 48;
    }
    lines
}

/// An entry as its words in memory.
#[must_use]
pub fn session_words(entry: &SessionEntry) -> [u64; 16] {
    let mut words = [0; 16];
    words[0] = entry.active;
    words[1] = u64::from(entry.generation) | u64::from(entry.flags) << 32;
    for (at, binding) in entry.bindings.iter().enumerate() {
        words[2 + at * 4..6 + at * 4].copy_from_slice(&binding.to_words());
    }
    words[14] = u64::from(entry.owner);
    words
}

impl KernelMaps {
    /// Opens them.
    #[must_use]
    pub fn of(laboratory: &mut Laboratory) -> Self {
        Self {
            config: laboratory.array(map::CONFIG),
            locators: laboratory.array(map::LOCATORS),
            sessions: laboratory.array(map::SESSIONS),
            keys: laboratory.array(map::KEYS),
            paths: laboratory.array(map::PATHS),
            traffic: laboratory.array(map::TRAFFIC),
            buckets: laboratory.array(map::BUCKETS),
            owners: laboratory.array(map::OWNERS),
            hops: laboratory.array(map::HOPS),
        }
    }

    /// Writes a whole state.
    pub fn fill(&mut self, state: &State) {
        self.config.set(0, state.config.to_words(), 0).expect("CONFIG");
        let lines = lines(&state.locators);
        (0..).zip(&lines).for_each(|(at, line)| self.locators.set(at, line, 0).expect("LOCATORS"));
        for (at, (entry, keys)) in (0..).zip(state.sessions.iter().zip(&state.keys)) {
            self.sessions.set(at, session_words(entry), 0).expect("SESSIONS");
            self.keys.set(at, keys.to_words(), 0).expect("KEYS");
        }
        (0..).zip(&state.paths).for_each(|(at, path)| self.paths.set(at, path.to_words(), 0).expect("PATHS"));
        (0..).zip(&state.traffic).for_each(|(at, words)| self.traffic.set(at, words, 0).expect("TRAFFIC"));
        (0..).zip(&state.buckets).for_each(|(at, bucket)| self.set_bucket(at, bucket));
        for at in 0..OWNERS_MAX {
            let owner = state.owners.get(&at).copied().unwrap_or_default();
            self.owners.set(at, owner.to_words(), 0).expect("OWNERS");
        }
        for at in 0..HOPS_USED {
            let hop = state.hops.get(&at).copied().unwrap_or_default();
            self.hops.set(u32::from(at), hop.to_words(), 0).expect("HOPS");
        }
    }

    fn set_bucket(&mut self, at: u32, bucket: &Bucket) {
        self.buckets.set(at, [bucket.at, bucket.tokens], 0).expect("BUCKETS");
    }

    /// Restores what differs between `now` and `to`.
    pub fn restore(&mut self, now: &State, to: &State) {
        for (at, (is, was)) in (0..).zip(now.paths.iter().zip(&to.paths)).filter(|(_, (is, was))| is != was) {
            assert_ne!(is, was);
            self.paths.set(at, was.to_words(), 0).expect("PATHS");
        }
        for (at, (_, was)) in (0..).zip(now.traffic.iter().zip(&to.traffic)).filter(|(_, (is, was))| is != was) {
            self.traffic.set(at, was, 0).expect("TRAFFIC");
        }
        for (at, (_, was)) in (0..).zip(now.buckets.iter().zip(&to.buckets)).filter(|(_, (is, was))| is != was) {
            self.set_bucket(at, was);
        }
    }

    /// What packets change and is cheap to read: paths and traffic.
    #[must_use]
    pub fn counters(&self) -> (Vec<PathCounters>, Vec<[u64; 16]>) {
        let paths = (0..SLOTS * 4).map(|at| PathCounters::from_words(self.paths.get(&at, 0).expect("PATHS")));
        let traffic = (0..SLOTS).map(|at| self.traffic.get(&at, 0).expect("TRAFFIC"));
        (paths.collect(), traffic.collect())
    }

    /// The handshake buckets.
    #[must_use]
    pub fn buckets(&self) -> Vec<Bucket> {
        let bucket = |at| self.buckets.get(&at, 0).map(|[at, tokens]| Bucket { at, tokens }).expect("BUCKETS");
        (0..BUCKET_SOURCES + BUCKET_LANES).map(bucket).collect()
    }

    /// Whether what no packet may change is as it was written.
    #[must_use]
    pub fn untouched(&self, state: &State) -> bool {
        self.config.get(&0, 0).expect("CONFIG") == state.config.to_words()
            && (0..)
                .zip(&state.sessions)
                .all(|(at, entry)| self.sessions.get(&at, 0).expect("SESSIONS") == session_words(entry))
            && (0..).zip(&state.keys).all(|(at, keys)| self.keys.get(&at, 0).expect("KEYS") == keys.to_words())
            && (0..).zip(lines(&state.locators)).all(|(at, line)| self.locators.get(&at, 0).expect("LOCATORS") == line)
            && (0..OWNERS_MAX).all(|at| {
                let owner = state.owners.get(&at).copied().unwrap_or_default();
                self.owners.get(&at, 0).expect("OWNERS") == owner.to_words()
            })
            && (0..HOPS_USED).all(|at| {
                let hop = state.hops.get(&at).copied().unwrap_or_default();
                self.hops.get(&u32::from(at), 0).expect("HOPS") == hop.to_words()
            })
    }
}

/// Places of the verdict counters.
pub const VERDICTS: u32 = VERDICTS_MAX;
