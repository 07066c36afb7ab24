//! Counters of paths and slots, and the token bucket.
//!
//! Owns the values of `PATHS`, `TRAFFIC` and `BUCKETS`. Plain loads and stores: two queues racing may lose
//! a count or echo one probe twice. Nothing that moves a session may read them here; a client that hears them in echoes
//! judges quality by many of them, never by one.

use core::mem::offset_of;

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

/// Handshake buckets by keyed hash of the source; a power of two. Two sources that share one share its rate.
pub const BUCKET_SOURCES: u32 = 1_024;
/// Buckets of everybody together behind those, one a processor.
pub const BUCKET_LANES: u32 = 256;

impl PathCounters {
    /// The record as its four words in memory.
    #[must_use]
    pub const fn to_words(&self) -> [u64; 4] {
        [self.k as u64 | (self.probes as u64) << 32, self.highest, self.window, self.data]
    }

    /// The record of four words.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [head, highest, window, data] = words;
        Self { k: head as u32, probes: (head >> 32) as u32, highest, window, data }
    }
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
    /// Data packets from the client that passed.
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
    /// On a relay, data packets to the client; `data_packets` are those to the owner.
    pub down_packets: u64,
    /// Their bytes (UDP payload).
    pub down_bytes: u64,
    /// Packets whose way had to be asked of the kernel's routes, in either direction.
    pub slow_path: u64,
    /// For later; zero.
    pub reserved: [u64; 2],
}

/// The words of [`Traffic`] the packet path touches, by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TrafficField {
    /// [`Traffic::data_packets`].
    DataPackets = offset_of!(Traffic, data_packets) / 8,
    /// [`Traffic::data_bytes`].
    DataBytes = offset_of!(Traffic, data_bytes) / 8,
    /// [`Traffic::unbound`].
    Unbound = offset_of!(Traffic, unbound) / 8,
    /// [`Traffic::forged`].
    Forged = offset_of!(Traffic, forged) / 8,
    /// [`Traffic::echoes`].
    Echoes = offset_of!(Traffic, echoes) / 8,
    /// [`Traffic::notices`].
    Notices = offset_of!(Traffic, notices) / 8,
    /// [`Traffic::event_at`].
    EventAt = offset_of!(Traffic, event_at) / 8,
    /// [`Traffic::down_packets`].
    DownPackets = offset_of!(Traffic, down_packets) / 8,
    /// [`Traffic::down_bytes`].
    DownBytes = offset_of!(Traffic, down_bytes) / 8,
    /// [`Traffic::slow_path`].
    SlowPath = offset_of!(Traffic, slow_path) / 8,
}

/// The buckets of [`Traffic`], by the place of their first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum BucketField {
    /// [`Traffic::echo_bucket`].
    Echo = offset_of!(Traffic, echo_bucket) / 8,
    /// [`Traffic::notice_bucket`].
    Notice = offset_of!(Traffic, notice_bucket) / 8,
}

impl Traffic {
    /// The counters of their words in memory.
    #[must_use]
    pub const fn from_words(words: &[u64; TRAFFIC_WORDS]) -> Self {
        let [packets, bytes, unbound, forged, echoes, notices, ea, et, na, nt, event_at, dp, db, sp, r0, r1] = *words;
        Self {
            data_packets: packets,
            data_bytes: bytes,
            unbound,
            forged,
            echoes,
            notices,
            echo_bucket: Bucket { at: ea, tokens: et },
            notice_bucket: Bucket { at: na, tokens: nt },
            event_at,
            down_packets: dp,
            down_bytes: db,
            slow_path: sp,
            reserved: [r0, r1],
        }
    }
}

/// Words of a [`Traffic`].
pub const TRAFFIC_WORDS: usize = size_of::<Traffic>() / 8;

const _: () = assert!(size_of::<PathCounters>() == 32 && size_of::<Bucket>() == 16 && size_of::<Traffic>() == 128);
