//! A picture as people and scripts are shown it (`jvpn.maps/1`).
//!
//! Owns the choice of fields. A field is only ever added. Must never hold a key or the seed of the buckets.

use super::picture::Picture;
use crate::api::model::Body;
use jvpn_common::abi::{BUCKET_LANES, BUCKET_SOURCES, Binding, PATHS_PER_SLOT, PENDING, map};
use jvpn_common::ids::SessionId;
use jvpn_common::limits::LOCATORS_MAX;
use jvpn_common::session::State;
use jvpn_common::verdict::{Class, VERDICTS_MAX, Verdict};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

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
    /// `none` (everything passes), `gateway`.
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
    /// Which of the gateway's addresses the client uses.
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
}

/// One verdict.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct VerdictView {
    /// Its number in the map.
    pub number: u32,
    /// Its name; null for a number of a later version.
    pub name: Option<&'static str>,
    /// pass, user, answer or drop.
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

/// Which sessions are shown.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Bound or draining here; port 0 = any.
    pub address: Option<(IpAddr, u16)>,
    /// This slot.
    pub slot: Option<u32>,
    /// The start of its id.
    pub session: Option<String>,
}

impl Filter {
    fn takes(&self, picture: &Picture, slot: u32) -> bool {
        let at = |entry: u8| picture.named(slot, entry).map(|(_, binding)| binding.remote());
        let word = picture.word(slot);
        let here = |wanted: (IpAddr, u16)| {
            let same = |remote: SocketAddr| remote.ip() == wanted.0 && (wanted.1 == 0 || remote.port() == wanted.1);
            at(word.active()).is_some_and(same) || at(word.draining()).is_some_and(same)
        };
        let id = || id_of(picture, slot);
        self.slot.is_none_or(|wanted| wanted == slot)
            && self.address.is_none_or(here)
            && self.session.as_ref().is_none_or(|start| id().starts_with(&start.to_ascii_lowercase()))
    }
}

fn id_of(picture: &Picture, slot: u32) -> String {
    SessionId(picture.info(slot).session_id).to_string()
}

/// Name of a class.
#[must_use]
pub const fn class(verdict: Verdict) -> &'static str {
    match verdict.class() {
        Class::Pass => "pass",
        Class::User => "user",
        Class::Answer => "answer",
        Class::Drop => "drop",
    }
}

/// Milliseconds from the picture's tick to another.
fn ms_until(picture: &Picture, tick: u64) -> i64 {
    let hz = i128::from(picture.config().hz.max(1));
    let ms = (i128::from(tick) - i128::from(picture.tick)) * 1_000 / hz;
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

/// What the kernel program was told.
#[must_use]
pub fn config(picture: &Picture) -> ConfigView {
    let config = picture.config();
    let alive = config.alive_until.iter().take(config.workers as usize);
    ConfigView {
        role: if config.role == jvpn_common::abi::ROLE_GATEWAY { "gateway" } else { "none" },
        port: config.port,
        incarnation: config.incarnation,
        owner_epoch: config.owner_epoch,
        max_sessions: config.max_sessions,
        hz: config.hz,
        alive_for_ms: alive.map(|until| (*until != 0).then(|| ms_until(picture, *until))).collect(),
        handshake_rate: config.handshake_rate,
        handshake_total_rate: config.handshake_total_rate,
    }
}

fn binding(picture: &Picture, (entry, binding): (u8, Binding)) -> BindingView {
    let Binding { k, gateway, mtu, drain_until, .. } = binding;
    let drains_for_ms = (drain_until != 0).then(|| ms_until(picture, drain_until));
    BindingView { entry, remote: binding.remote().to_string(), k, gateway, mtu, drains_for_ms }
}

/// The sessions a filter takes.
#[must_use]
pub fn sessions(picture: &Picture, filter: &Filter) -> Vec<SessionView> {
    let mut locators: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for entry in picture.locators.values() {
        *locators.entry((entry.slot, entry.generation)).or_default() += 1;
    }
    let view = |slot| {
        let (word, info, traffic) = (picture.word(slot), picture.info(slot), picture.traffic(slot));
        SessionView {
            slot,
            generation: picture.generation(slot),
            session_id: id_of(picture, slot),
            state: u8::try_from(info.state).ok().and_then(State::from_number).map(State::name),
            state_version: info.state_version,
            pending: picture.flags(slot) & PENDING != 0,
            seq: word.seq(),
            active: picture.named(slot, word.active()).map(|named| binding(picture, named)),
            draining: picture.named(slot, word.draining()).map(|named| binding(picture, named)),
            locators: locators.get(&(slot, picture.generation(slot))).copied().unwrap_or(0),
            data_packets: traffic.data_packets,
            unbound: traffic.unbound,
            forged: traffic.forged,
        }
    };
    picture.slots().filter(|slot| filter.takes(picture, *slot)).map(view).collect()
}

/// The locators of the sessions a filter takes.
#[must_use]
pub fn locators(picture: &Picture, filter: &Filter) -> Vec<LocatorView> {
    let shown = picture.locators.iter().filter(|(_, entry)| filter.takes(picture, entry.slot));
    shown
        .map(|(locator, entry)| LocatorView {
            locator: format!("{locator:016x}"),
            slot: entry.slot,
            generation: entry.generation,
            k: entry.k,
            stale: entry.generation != picture.generation(entry.slot),
        })
        .collect()
}

/// The transports of the sessions a filter takes.
#[must_use]
pub fn paths(picture: &Picture, filter: &Filter) -> Vec<PathView> {
    let shown = picture.paths.keys().filter(|index| filter.takes(picture, **index / PATHS_PER_SLOT));
    shown
        .map(|index| {
            let path = picture.path(*index);
            PathView {
                slot: index / PATHS_PER_SLOT,
                k: path.k,
                probes: path.probes,
                highest: path.highest,
                of_last_64: path.window.count_ones(),
                data: path.data,
            }
        })
        .collect()
}

/// The counters of the sessions a filter takes.
#[must_use]
pub fn traffic(picture: &Picture, filter: &Filter) -> Vec<TrafficView> {
    let shown = picture.traffic.keys().copied().filter(|slot| filter.takes(picture, *slot));
    shown
        .map(|slot| {
            let traffic = picture.traffic(slot);
            TrafficView {
                slot,
                data_packets: traffic.data_packets,
                data_bytes: traffic.data_bytes,
                unbound: traffic.unbound,
                forged: traffic.forged,
                echoes: traffic.echoes,
                notices: traffic.notices,
            }
        })
        .collect()
}

/// Every verdict, and every number that was counted.
#[must_use]
pub fn verdicts(picture: &Picture) -> Vec<VerdictView> {
    let mut numbers: Vec<u32> = Verdict::ALL.iter().map(|verdict| u32::from(*verdict as u16)).collect();
    numbers.extend(picture.verdicts.keys());
    numbers.sort_unstable();
    numbers.dedup();
    let view = |number: u32| {
        let verdict = u16::try_from(number).ok().and_then(Verdict::from_number);
        VerdictView {
            number,
            name: verdict.map(Verdict::name),
            class: verdict.map(class),
            packets: picture.verdicts.get(&number).map_or(0, |counts| counts.iter().sum()),
            meaning: verdict.map_or("A verdict of a later version.", Verdict::meaning),
            advice: verdict.map_or("Use the program's own version to look.", Verdict::advice),
        }
    };
    numbers.into_iter().map(view).collect()
}

/// Every bucket that was used.
#[must_use]
pub fn buckets(picture: &Picture) -> Vec<BucketView> {
    let used = picture.buckets.keys().copied();
    used.map(|index| {
        let bucket = picture.bucket(index);
        BucketView {
            index,
            processor: index.checked_sub(BUCKET_SOURCES),
            tokens: bucket.tokens / 1_000,
            ago_ms: -ms_until(picture, bucket.at),
        }
    })
    .collect()
}

/// An address as it is asked for: `192.0.2.7`, `192.0.2.7:4000`, `2001:db8::7`, `[2001:db8::7]:4000`.
#[must_use]
pub fn address(text: &str) -> Option<(IpAddr, u16)> {
    let bare = || text.parse::<IpAddr>().ok().map(|ip| (ip, 0));
    let (ip, port) = bare().or_else(|| text.parse::<SocketAddr>().ok().map(|at| (at.ip(), at.port())))?;
    // The maps hold IPv4 as IPv4-mapped IPv6, and so may who copies from them.
    Some((ip.to_canonical(), port))
}

/// Every map with how much of it is used.
#[must_use]
pub fn uses(picture: &Picture) -> Vec<MapUse> {
    let slots = u64::from(picture.config().max_sessions);
    let taken = picture.slots().count() as u64;
    let row = |name: &str, used: Option<u64>, entries: Option<u64>, holds| MapUse {
        name: name.to_owned(),
        used,
        entries,
        holds,
    };
    let some = |used: usize, entries: u64| (Some(used as u64), Some(entries));
    let one = |name: &str| {
        let ((used, entries), holds) = match name {
            map::LOCATORS => (some(picture.locators.len(), slots * LOCATORS_MAX as u64), "locator -> slot"),
            map::SESSIONS => ((Some(taken), Some(slots)), "slot -> active word, bindings"),
            map::KEYS => (
                some(picture.secrets.as_ref().map_or(0, |secrets| secrets.keys.len()), slots),
                "slot -> steering keys (never shown)",
            ),
            map::SESSION_INFO => (some(picture.info.len(), slots), "slot -> session id, state, version"),
            map::PATHS => {
                (some(picture.paths.len(), slots * u64::from(PATHS_PER_SLOT)), "slot and transport -> probes, data")
            }
            map::TRAFFIC => (some(picture.traffic.len(), slots), "slot -> counters"),
            map::VERDICTS => (some(picture.verdicts.len(), u64::from(VERDICTS_MAX)), "verdict -> packets"),
            map::CONFIG => (some(usize::from(picture.config().role != 0), 1), "what the program was told"),
            map::BUCKETS => (some(picture.buckets.len(), u64::from(BUCKET_SOURCES + BUCKET_LANES)), "handshakes left"),
            map::EVENTS => ((None, None), "ring to the gateway; `jvpn-ctl events` shows what it recorded"),
            map::EVENT_TAP => ((None, None), "the same for people: bpftool map event_pipe"),
            _ => ((None, None), ""),
        };
        row(name, used, entries, holds)
    };
    map::ALL.iter().map(|name| one(name)).collect()
}
