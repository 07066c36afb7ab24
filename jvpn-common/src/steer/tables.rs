//! What the way of a packet looks up and counts.
//!
//! Owns the traits behind which kernel maps and their mirror in user space look alike. Bindings are never
//! given by reference, since another processor writes them: they are read word by word through [`Session`],
//! and only by [`super::bind`].

use crate::abi::{
    Binding, Bucket, BucketField, Config, Hop, LocatorEntry, Owner, PathCounters, SteeringKeys, TrafficField,
};
use crate::verdict::Verdict;

/// One slot of `SESSIONS`, of which every load may see another value than the last.
pub trait Session {
    /// The active word, in one load.
    fn word(&self) -> u64;
    /// Binding entry 1 to 3; empty for another number.
    fn entry(&self, entry: u8) -> Binding;
    /// The same as its words.
    #[inline(always)]
    fn words(&self, entry: u8) -> [u64; 4] {
        self.entry(entry).to_words()
    }
    /// Generation of the slot.
    fn generation(&self) -> u32;
    /// Flags of the slot.
    fn flags(&self) -> u32;
    /// Place of its owner in `OWNERS` + 1; 0 where sessions are this node's own.
    fn owner(&self) -> u32 {
        0
    }
}

/// The maps, as one packet sees them.
pub trait Tables {
    /// A slot of `SESSIONS`.
    type Session: Session;

    /// The configuration.
    fn config(&self) -> Option<&Config>;
    /// What a locator stands for.
    fn locator(&self, locator: u64) -> Option<LocatorEntry>;
    /// The hot entry of a slot.
    fn session(&self, slot: u32) -> Option<Self::Session>;
    /// The steering keys of a slot.
    fn keys(&self, slot: u32) -> Option<&SteeringKeys>;
    /// A path record of a slot; `place` is k modulo [`crate::abi::PATHS_PER_SLOT`].
    fn path(&self, slot: u32, place: u32) -> PathCounters;
    /// Stores it.
    fn set_path(&self, slot: u32, place: u32, path: &PathCounters);
    /// Adds to a counter of a slot.
    fn add(&self, slot: u32, field: TrafficField, amount: u64);
    /// A bucket of a slot.
    fn slot_bucket(&self, slot: u32, bucket: BucketField) -> Bucket;
    /// Stores it.
    fn set_slot_bucket(&self, slot: u32, which: BucketField, bucket: &Bucket);
    /// A handshake bucket.
    fn bucket(&self, index: u32) -> Bucket;
    /// Stores it.
    fn set_bucket(&self, index: u32, bucket: &Bucket);
    /// An owner, whole; `None` if there is none or it is being written. Only a relay has any.
    fn owner(&self, _index: u32) -> Option<Owner> {
        None
    }
    /// A way out, whole; `None` if there is none or it is being written. Only a relay has any.
    fn hop(&self, _id: u16) -> Option<Hop> {
        None
    }
    /// Which processor's share of the global handshake bucket this is.
    fn lane(&self) -> u32;
    /// The kernel's ticks (jiffies): deadlines and buckets.
    fn ticks(&self) -> u64;
    /// The tick at which a packet that is judged at `tick` came, at the earliest: before it where packets wait to be judged. What
    /// came while a drain lasted was in time, however long the queue was.
    #[inline(always)]
    fn arrival(&self, tick: u64) -> u64 {
        tick
    }
    /// Boot time in nanoseconds; costs a clock read, so only answers ask for it.
    fn now(&self) -> u64;
    /// Whether arriving data is counted here. The worker says no while the kernel program counts before it.
    fn counts_arrivals(&self) -> bool;
    /// Counts the one verdict of a packet.
    fn count(&self, verdict: Verdict);
}
