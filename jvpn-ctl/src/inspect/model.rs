//! The maps as a document (`jvpn.maps/1`): the JSON schema is generated from here.
//!
//! Owns the choice of fields. A field is only ever added. Must never hold a key or the seed of the buckets.

use crate::api::model::Body;
use schemars::JsonSchema;
use serde::Serialize;

impl Body for Maps {
    const SCHEMA: &'static str = "jvpn.maps/1";
}

/// The maps, or those that were asked for.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Maps {
    /// Directory of the pins.
    pub pin_root: String,
    /// When they were read, RFC 3339.
    pub taken: String,
    /// The kernel's tick then; deadlines count in it.
    pub tick: u64,
    /// Interfaces with a pinned link.
    pub interfaces: Vec<String>,
    /// Every map, with how much of it is used.
    pub maps: Vec<MapUse>,
    /// `CONFIG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigView>,
    /// `SESSIONS` with what `SESSION_INFO` and `TRAFFIC` add.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionView>>,
    /// `LOCATORS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locators: Option<Vec<LocatorView>>,
    /// `PATHS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathView>>,
    /// `TRAFFIC`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Vec<TrafficView>>,
    /// `VERDICTS`; every verdict, also those that never happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<Vec<VerdictView>>,
    /// `OWNERS` of a relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owners: Option<Vec<OwnerView>>,
    /// `HOPS` of a relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hops: Option<Vec<HopView>>,
    /// `BUCKETS` that were ever used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Vec<BucketView>>,
}

/// How much of a map is used.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct MapUse {
    /// Name.
    pub name: String,
    /// Entries in use; null for rings.
    pub used: Option<u64>,
    /// Entries there are room for; null for rings.
    pub entries: Option<u64>,
    /// What it holds.
    pub holds: &'static str,
}

/// What the kernel program was told.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ConfigView {
    /// `none` (everything passes), `gateway` or `relay`.
    pub role: &'static str,
    /// UDP port.
    pub port: u16,
    /// Which start of the gateway filled it in.
    pub incarnation: u64,
    /// Which owner this is.
    pub owner_epoch: u64,
    /// Slots.
    pub max_sessions: u32,
    /// Ticks a second.
    pub hz: u32,
    /// Of each worker: how much longer it counts as alive, ms; negative = since when it does not; null = never.
    pub alive_for_ms: Vec<Option<i64>>,
    /// Handshake messages a second and source; 0 = no limit.
    pub handshake_rate: u32,
    /// Of everybody together, a processor.
    pub handshake_total_rate: u32,
}

/// A binding that the active word names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BindingView {
    /// Number of the entry, 1 to 3.
    pub entry: u8,
    /// The client's outer address and port.
    pub remote: String,
    /// Transport index k.
    pub k: u16,
    /// Which of the gateway's addresses the client uses; on a relay the way to the client, a hop.
    pub gateway: u16,
    /// Proven path MTU.
    pub mtu: u16,
    /// How much longer it drains, ms; negative = since when the drain is over; null while active.
    pub drains_for_ms: Option<i64>,
}

/// One slot that holds a session.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SessionView {
    /// Slot.
    pub slot: u32,
    /// How often the slot was given out.
    pub generation: u32,
    /// Session id in hex.
    pub session_id: String,
    /// State of the last committed transition.
    pub state: Option<&'static str>,
    /// Its version.
    pub state_version: u64,
    /// Whether the handshake is not confirmed yet.
    pub pending: bool,
    /// How often the active word was stored.
    pub seq: u32,
    /// Where data may come from and goes to; null = unbound.
    pub active: Option<BindingView>,
    /// Where data may still come from.
    pub draining: Option<BindingView>,
    /// On a relay, place of its owner in `OWNERS`; null = the session is this node's own.
    pub owner: Option<u32>,
    /// Locators that lead here.
    pub locators: usize,
    /// Data packets passed.
    pub data_packets: u64,
    /// Data refused since its source is not bound.
    pub unbound: u64,
    /// Datagrams with a wrong steering tag.
    pub forged: u64,
}

/// One locator.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LocatorView {
    /// The locator in hex, as it stands in a datagram read as one little-endian number.
    pub locator: String,
    /// Slot it leads to.
    pub slot: u32,
    /// Generation it is of.
    pub generation: u32,
    /// Transport index k.
    pub k: u16,
    /// Whether the slot has another generation by now.
    pub stale: bool,
}

/// What was seen of one transport.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PathView {
    /// Slot.
    pub slot: u32,
    /// Transport index k.
    pub k: u32,
    /// New probes.
    pub probes: u32,
    /// Highest probe sequence.
    pub highest: u64,
    /// Probes of the last 64 sequences that arrived.
    pub of_last_64: u32,
    /// Data packets.
    pub data: u64,
}

/// Counters of one slot.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TrafficView {
    /// Slot.
    pub slot: u32,
    /// Data packets passed.
    pub data_packets: u64,
    /// Their bytes.
    pub data_bytes: u64,
    /// Data refused since its source is not bound.
    pub unbound: u64,
    /// Datagrams with a wrong steering tag.
    pub forged: u64,
    /// Echoes sent.
    pub echoes: u64,
    /// Notices sent.
    pub notices: u64,
    /// On a relay, data packets to the client.
    pub down_packets: u64,
    /// Their bytes.
    pub down_bytes: u64,
    /// On a relay, packets whose way had to be asked of the kernel's routes.
    pub slow_path: u64,
}

/// Where an owner receives in one IP version.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EndpointView {
    /// Address and port.
    pub address: String,
    /// The way there, a hop.
    pub hop: u16,
    /// Largest IP packet that gets there whole; null = not known.
    pub mtu: Option<u16>,
}

/// One owner of a relay's sessions.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OwnerView {
    /// Place in the map.
    pub index: u32,
    /// Whether it was being written when it was read; the rest may then be of two owners.
    pub written: bool,
    /// How much longer its lease runs, ms; negative = since when it does not; null = it has none.
    pub lease_for_ms: Option<i64>,
    /// Where it is in IPv4.
    pub v4: Option<EndpointView>,
    /// Where it is in IPv6.
    pub v6: Option<EndpointView>,
    /// Which start of it.
    pub incarnation: u64,
    /// Which owner of its sessions it is.
    pub owner_epoch: u64,
}

/// One way out of a relay.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HopView {
    /// Its id.
    pub id: u32,
    /// Whether it was being written when it was read; the rest may then be of two ways.
    pub written: bool,
    /// Whether interface and stations are known; if not, every packet asks the kernel's routes.
    pub resolved: bool,
    /// The relay's own address on this way.
    pub source: String,
    /// Interface to leave by.
    pub ifindex: u32,
    /// Largest IP packet it takes; null = not known.
    pub mtu: Option<u16>,
    /// Station the frame goes to.
    pub destination_mac: String,
    /// Station it comes from.
    pub source_mac: String,
}

/// One verdict.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerdictView {
    /// Its number in the map.
    pub number: u32,
    /// Its name; null for a number of a later version.
    pub name: Option<&'static str>,
    /// pass, user, answer, forward or drop.
    pub class: Option<&'static str>,
    /// Packets, all processors together.
    pub packets: u64,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// One handshake bucket.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BucketView {
    /// Its number in the map.
    pub index: u32,
    /// The processor whose bucket of everybody together it is; null for a bucket of sources.
    pub processor: Option<u32>,
    /// Handshake messages it had left.
    pub tokens: u64,
    /// When that was, ms ago.
    pub ago_ms: i64,
}
