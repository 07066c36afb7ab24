//! All maps at one moment, as plain values.
//!
//! Owns what belongs to a picture: every used entry of every map, and the tick at which it was taken. Zeroed entries
//! mean nothing and are left out. Must never print a key: they are kept apart, and may be missing.

use jvpn_common::abi::{
    ACTIVE_NONE, ActiveWord, Binding, Bucket, CONFIG_WORDS, Config, HOP_WORDS, Hop, INFO_WORDS, LocatorEntry,
    OWNER_WORDS, Owner, PathCounters, SESSION_WORDS, SessionInfo, SteeringKeys, TRAFFIC_WORDS, Traffic, WORD_ACTIVE,
    WORD_GENERATION, WORD_OWNER, binding_place, sequence,
};
use std::collections::BTreeMap;

/// The steering keys of all slots, and the seed of the handshake buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Slot → keys.
    pub keys: BTreeMap<u32, SteeringKeys>,
}

/// Everything in the maps that a packet or a person may look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// When it was taken, RFC 3339.
    pub taken: String,
    /// The kernel's tick then.
    pub tick: u64,
    /// Boot time then, in nanoseconds.
    pub now: u64,
    /// `CONFIG`, as words. The bucket seed is zero where there are no secrets.
    pub config: [u64; CONFIG_WORDS],
    /// `LOCATORS`.
    pub locators: BTreeMap<u64, LocatorEntry>,
    /// `SESSIONS`, as words.
    pub sessions: BTreeMap<u32, [u64; SESSION_WORDS]>,
    /// `SESSION_INFO`, as words.
    pub info: BTreeMap<u32, [u64; INFO_WORDS]>,
    /// `PATHS`: slot × 4 + place → words.
    pub paths: BTreeMap<u32, [u64; 4]>,
    /// `TRAFFIC`, as words.
    pub traffic: BTreeMap<u32, [u64; TRAFFIC_WORDS]>,
    /// `BUCKETS`, as words.
    pub buckets: BTreeMap<u32, [u64; 2]>,
    /// `OWNERS`, as words.
    pub owners: BTreeMap<u32, [u64; OWNER_WORDS]>,
    /// `HOPS`, as words.
    pub hops: BTreeMap<u32, [u64; HOP_WORDS]>,
    /// `VERDICTS`: number → packets of each processor.
    pub verdicts: BTreeMap<u32, Vec<u64>>,
    /// `KEYS`; none where they were not read or not written down.
    pub secrets: Option<Secrets>,
}

impl Picture {
    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::from_words(&self.config)
    }

    fn session_word(&self, slot: u32, at: usize) -> u64 {
        self.sessions.get(&slot).and_then(|words| words.get(at)).copied().unwrap_or(0)
    }

    /// The active word of a slot.
    #[must_use]
    pub fn word(&self, slot: u32) -> ActiveWord {
        ActiveWord(self.session_word(slot, WORD_ACTIVE))
    }

    /// Generation of a slot; 0 = free.
    #[must_use]
    pub fn generation(&self, slot: u32) -> u32 {
        self.session_word(slot, WORD_GENERATION) as u32
    }

    /// Flags of a slot.
    #[must_use]
    pub fn flags(&self, slot: u32) -> u32 {
        (self.session_word(slot, WORD_GENERATION) >> 32) as u32
    }

    /// Place of a slot's owner in `OWNERS` + 1; 0 = the session is this node's own.
    #[must_use]
    pub fn session_owner(&self, slot: u32) -> u32 {
        self.session_word(slot, WORD_OWNER) as u32
    }

    /// An owner, if there is a whole one at this place.
    #[must_use]
    pub fn owner(&self, index: u32) -> Option<Owner> {
        let words = self.owners.get(&index)?;
        sequence::read(|at| words.get(at).copied().unwrap_or(0)).map(|words| Owner::from_words(&words))
    }

    /// A way out, if there is a whole one of this id.
    #[must_use]
    pub fn hop(&self, id: u16) -> Option<Hop> {
        let words = self.hops.get(&u32::from(id))?;
        sequence::read(|at| words.get(at).copied().unwrap_or(0)).map(|words| Hop::from_words(&words))
    }

    /// Binding entry 1 to 3 of a slot; empty for another.
    #[must_use]
    pub fn entry(&self, slot: u32, entry: u8) -> Binding {
        let words = || self.sessions.get(&slot)?.get(binding_place(entry)?..)?.first_chunk().copied();
        Binding::from_words(words().unwrap_or_default())
    }

    /// The entry a number of the active word names, with that number.
    #[must_use]
    pub fn named(&self, slot: u32, entry: u8) -> Option<(u8, Binding)> {
        (entry != ACTIVE_NONE).then(|| (entry, self.entry(slot, entry)))
    }

    /// Cold facts of a slot.
    #[must_use]
    pub fn info(&self, slot: u32) -> SessionInfo {
        SessionInfo::from_words(&self.info.get(&slot).copied().unwrap_or_default())
    }

    /// Counters of a slot.
    #[must_use]
    pub fn traffic(&self, slot: u32) -> Traffic {
        Traffic::from_words(&self.traffic.get(&slot).copied().unwrap_or_default())
    }

    /// A path record.
    #[must_use]
    pub fn path(&self, index: u32) -> PathCounters {
        PathCounters::from_words(self.paths.get(&index).copied().unwrap_or_default())
    }

    /// A handshake bucket.
    #[must_use]
    pub fn bucket(&self, index: u32) -> Bucket {
        let [at, tokens] = self.buckets.get(&index).copied().unwrap_or_default();
        Bucket { at, tokens }
    }

    /// Slots that hold a session.
    pub fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        self.sessions.keys().copied().filter(|slot| self.generation(*slot) != 0)
    }

    /// The same without what opens or imitates anything: no keys, no seed, and no buckets of sources, since which
    /// bucket is whose follows from the seed.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        let config = Config { bucket_seed: [0; 2], ..self.config() };
        self.config = config.to_words();
        self.buckets.retain(|index, _| *index >= jvpn_common::abi::BUCKET_SOURCES);
        self.secrets = None;
        self
    }
}
