//! The kernel's maps and a [`State`]: written whole, restored, read back.
//!
//! Owns how a state lies in the kernel's memory, word by word. Must never share code with the product's data plane: a
//! mistake there would agree with itself.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use jvpn_common::abi::{
    BUCKET_LANES, BUCKET_SOURCES, Bucket, LocatorEntry, OWNERS_MAX, PathCounters, SessionEntry, map,
};

use crate::packet_kernel::Laboratory;
use crate::packet_maps::{HOPS_USED, SLOTS, State};

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
