//! The byte contract of kernel and user space: what stands in each map.
//!
//! Owns the layout of every map value, its size, and the maps' names. Must never hold pointers, `usize`
//! or padding: both sides and `bpftool` read the same bytes. All zero means "nothing", in every type.

mod config;
mod event;
mod hop;
mod info;
mod keys;
mod locator;
mod owner;
pub mod sequence;
mod session;
mod traffic;

pub use config::{CONFIG_WORDS, Config, ROLE_GATEWAY, ROLE_NONE, ROLE_RELAY, WORD_ALIVE, WORD_ROLE, WORKERS_MAX};
pub use event::Event;
pub use hop::{HOP_RESOLVED, HOP_WORDS, HOPS_MAX, Hop};
pub use info::{INFO_WORDS, SessionInfo};
pub use keys::SteeringKeys;
pub use locator::{
    BUCKET_WORDS, BUCKETS_PER_SESSION, CELLS, LocatorBucket, LocatorCell, LocatorEntry, REACH, behind, buckets, home,
};
pub use owner::{OWNER_WORDS, OWNERS_MAX, Owner, OwnerEndpoint, WORD_OWNER_ALIVE};
pub use session::{
    ACTIVE_NONE, ActiveWord, BINDINGS, Binding, PENDING, SESSION_WORDS, SessionEntry, WORD_ACTIVE, WORD_GENERATION,
    WORD_OWNER, binding_place, mapped,
};
pub use traffic::{
    BUCKET_LANES, BUCKET_SOURCES, Bucket, BucketField, PATHS_PER_SLOT, PathCounters, TRAFFIC_WORDS, Traffic,
    TrafficField,
};

/// Names under which the maps are declared, pinned and documented.
pub mod map {
    /// [`super::LocatorBucket`]s in which locators are looked for, mmapable.
    pub const LOCATORS: &str = "LOCATORS";
    /// slot → [`super::SessionEntry`], mmapable.
    pub const SESSIONS: &str = "SESSIONS";
    /// slot → [`super::SteeringKeys`].
    pub const KEYS: &str = "KEYS";
    /// slot → [`super::SessionInfo`], mmapable.
    pub const SESSION_INFO: &str = "SESSION_INFO";
    /// slot × 4 + k mod 4 → [`super::PathCounters`], mmapable.
    pub const PATHS: &str = "PATHS";
    /// slot → [`super::Traffic`], mmapable.
    pub const TRAFFIC: &str = "TRAFFIC";
    /// verdict → packets, per CPU.
    pub const VERDICTS: &str = "VERDICTS";
    /// 0 → [`super::Config`], mmapable.
    pub const CONFIG: &str = "CONFIG";
    /// hash of source → [`super::Bucket`].
    pub const BUCKETS: &str = "BUCKETS";
    /// index → [`super::Owner`] a relay serves, mmapable.
    pub const OWNERS: &str = "OWNERS";
    /// id → [`super::Hop`] of a relay, mmapable.
    pub const HOPS: &str = "HOPS";
    /// [`super::Event`]s to the controller.
    pub const EVENTS: &str = "EVENTS";
    /// The same for people with bpftool.
    pub const EVENT_TAP: &str = "EVENT_TAP";

    /// Those whose size follows `max_sessions`.
    pub const SIZED: [&str; 6] = [LOCATORS, SESSIONS, KEYS, SESSION_INFO, PATHS, TRAFFIC];

    /// All of them, as they are pinned.
    pub const ALL: [&str; 13] = [
        LOCATORS,
        SESSIONS,
        KEYS,
        SESSION_INFO,
        PATHS,
        TRAFFIC,
        VERDICTS,
        CONFIG,
        BUCKETS,
        OWNERS,
        HOPS,
        EVENTS,
        EVENT_TAP,
    ];
}

const fn mix(hash: u64, size: usize) -> u64 {
    (hash ^ size as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Hash over the sizes and the revision of all layouts: maps of another build are refused, not misread.
pub const LAYOUT_HASH: u64 = {
    // Raise the revision when the meaning of a field changes and its size does not.
    const REVISION: usize = 3;
    let sizes = [
        REVISION,
        size_of::<LocatorBucket>(),
        size_of::<SessionEntry>(),
        size_of::<SteeringKeys>(),
        size_of::<SessionInfo>(),
        size_of::<PathCounters>(),
        size_of::<Traffic>(),
        size_of::<Config>(),
        size_of::<Bucket>(),
        size_of::<Owner>(),
        size_of::<Hop>(),
        size_of::<Event>(),
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < sizes.len() {
        hash = mix(hash, sizes[i]);
        i += 1;
    }
    hash
};
