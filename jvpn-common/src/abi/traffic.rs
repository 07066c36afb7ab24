//! Counters of paths and slots, and the token bucket.
//!
//! Owns the values of `PATHS`, `TRAFFIC` and `BUCKETS`. Plain loads and stores: two queues racing may lose
//! a count or echo one probe twice. Nothing that moves a session may read them.

/// Path records of a slot; *k* modulo this is the place.
pub const PATHS_PER_SLOT: u32 = 4;

/// Probes and data of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PathCounters {
    /// Transport index this record is about; another one starts it anew.
    pub k: u32,
    /// New probes seen.
    pub probes: u32,
    /// Highest probe sequence.
    pub highest: u64,
    /// Bit n: sequence `highest − n` was seen.
    pub window: u64,
    /// Data packets that passed.
    pub data: u64,
}

/// A token bucket in ticks: `tokens` at tick `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Bucket {
    /// Tick of the last refill.
    pub at: u64,
    /// Tokens left, in 1/1000.
    pub tokens: u64,
}

/// Counters and buckets of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Traffic {
    /// Data packets passed to the worker.
    pub data_packets: u64,
    /// Their bytes (UDP payload).
    pub data_bytes: u64,
    /// Data refused since its source is not bound.
    pub unbound: u64,
    /// Datagrams with a wrong steering tag.
    pub forged: u64,
    /// Echoes sent.
    pub echoes: u64,
    /// Notices sent.
    pub notices: u64,
    /// Echoes to sources that are not bound.
    pub echo_bucket: Bucket,
    /// Notices.
    pub notice_bucket: Bucket,
    /// Tick of the last sampled event.
    pub event_at: u64,
    /// For later; zero.
    pub reserved: [u64; 5],
}

const _: () = assert!(
    size_of::<PathCounters>() == 32 && size_of::<Bucket>() == 16 && size_of::<Traffic>() == 128
);
