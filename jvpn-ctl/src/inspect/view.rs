//! A picture as people and scripts are shown it.
//!
//! Owns what each field of the document means in terms of the maps. Must never read anything but a picture.

use super::model::{
    BindingView, BucketView, ConfigView, EndpointView, HopView, LocatorView, MapUse, OwnerView, PathView, SessionView,
    TrafficView, VerdictView,
};
use super::picture::Picture;
use jvpn_common::abi::{
    BUCKET_LANES, BUCKET_SOURCES, Binding, HOP_WORDS, HOPS_MAX, Hop, OWNER_WORDS, OWNERS_MAX, Owner, OwnerEndpoint,
    PATHS_PER_SLOT, PENDING, ROLE_GATEWAY, ROLE_RELAY, map,
};
use jvpn_common::ids::SessionId;
use jvpn_common::limits::LOCATORS_MAX;
use jvpn_common::session::State;
use jvpn_common::verdict::{Class, VERDICTS_MAX, Verdict};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

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
        Class::Forward => "forward",
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
        role: match config.role {
            ROLE_GATEWAY => "gateway",
            ROLE_RELAY => "relay",
            _ => "none",
        },
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
            owner: picture.session_owner(slot).checked_sub(1),
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
                down_packets: traffic.down_packets,
                down_bytes: traffic.down_bytes,
                slow_path: traffic.slow_path,
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

fn endpoint(end: &OwnerEndpoint) -> Option<EndpointView> {
    let address = SocketAddr::new(Ipv6Addr::from(end.address).to_canonical(), end.port).to_string();
    (end.port != 0).then(|| EndpointView { address, hop: end.hop, mtu: (end.mtu != 0).then_some(end.mtu) })
}

/// The owners of a relay.
#[must_use]
pub fn owners(picture: &Picture) -> Vec<OwnerView> {
    let view = |(index, words): (&u32, &[u64; OWNER_WORDS])| {
        let owner = Owner::from_words(words);
        OwnerView {
            index: *index,
            written: picture.owner(*index).is_none(),
            lease_for_ms: (owner.alive_until != 0).then(|| ms_until(picture, owner.alive_until)),
            v4: endpoint(&owner.v4),
            v6: endpoint(&owner.v6),
            incarnation: owner.incarnation,
            owner_epoch: owner.owner_epoch,
        }
    };
    picture.owners.iter().map(view).collect()
}

/// The ways out of a relay.
#[must_use]
pub fn hops(picture: &Picture) -> Vec<HopView> {
    let station = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let view = |(id, words): (&u32, &[u64; HOP_WORDS])| {
        let hop = Hop::from_words(words);
        HopView {
            id: *id,
            written: u16::try_from(*id).ok().and_then(|id| picture.hop(id)).is_none(),
            resolved: hop.resolved(),
            source: Ipv6Addr::from(hop.source).to_canonical().to_string(),
            ifindex: hop.ifindex,
            mtu: (hop.mtu != 0).then_some(hop.mtu),
            destination_mac: station(hop.destination_mac),
            source_mac: station(hop.source_mac),
        }
    };
    picture.hops.iter().map(view).collect()
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
            map::OWNERS => (some(picture.owners.len(), u64::from(OWNERS_MAX)), "owners a relay serves, their leases"),
            map::HOPS => (some(picture.hops.len(), u64::from(HOPS_MAX)), "ways out of a relay"),
            map::EVENTS => ((None, None), "ring to the process, which empties it; JVPN_LOG=debug shows each"),
            map::EVENT_TAP => ((None, None), "the same for people: bpftool map event_pipe"),
            _ => ((None, None), ""),
        };
        row(name, used, entries, holds)
    };
    map::ALL.iter().map(|name| one(name)).collect()
}
