//! The invariants, checked after every step.
//!
//! Owns what must be true of gateway, clients, record and wire together. Must never influence a run: it
//! remembers the first thing that was wrong.

use super::client::ClientHost;
use super::cover::Cover;
use super::gateway::{GatewayHost, OTHER, Out, SWITCHED};
use core::net::SocketAddr;
use jvpn_common::event::{Event, Record, Written, replay};
use jvpn_common::ids::{SessionId, Slot, Version};
use jvpn_common::session::{Policy, Session, invariant};
use jvpn_common::steer::bind::Bound;
use jvpn_common::time::Instant;
use jvpn_common::wire::{Header, Kind};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the record said of a session so far.
#[derive(Clone, Debug, Default)]
struct Track {
    version: Version,
    nonce: u64,
    peer: String,
    ended: bool,
    ended_at: Option<Instant>,
    /// Born, and dead at the latest.
    life: Option<(Instant, Instant)>,
}

/// Memory of the checks.
#[derive(Debug, Default)]
pub struct Checker {
    tracks: BTreeMap<SessionId, Track>,
    /// Sessions of the engine after the last step.
    living: BTreeSet<SessionId>,
    /// Sealed datagrams by nonce and key: locator, direction, type, epoch, counter.
    wire: HashMap<(u64, bool, u8, u8, u64), u64>,
    /// Outer addresses a client has, or has had.
    homes: BTreeMap<SocketAddr, u8>,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
}

impl Checker {
    /// Notes what is wrong, once.
    pub fn wrong(&mut self, now: Instant, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(format!("{now:?}: {}", what()));
        }
    }

    /// Notes what is wrong unless it holds.
    pub fn must(&mut self, holds: bool, now: Instant, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(now, what);
        }
    }

    /// A client receives here.
    pub fn home(&mut self, address: SocketAddr, client: u8) {
        self.homes.insert(address, client);
    }

    /// A session came back after a restart; a power cut may have cut the record.
    pub fn restored(&mut self, id: SessionId, version: Version, power: bool) {
        let track = self.tracks.entry(id).or_default();
        if power {
            track.version = track.version.min(version);
        }
        // The clock of another boot: the same life, counted anew.
        track.life = None;
        track.nonce = 0;
    }

    /// One line of the record: versions without gap or duplicate, identity kept, replayable. Gives the
    /// session after it.
    pub fn record(
        &mut self,
        record: &Record,
        policy: Option<&Policy>,
        now: Instant,
        cover: &mut Cover,
    ) -> Option<Session> {
        see_reasons(record, cover);
        let id = record.session_id?;
        let mut track = self.tracks.get(&id).cloned().unwrap_or_default();
        if record.event == Event::Gap {
            track.version = record.state_version.max(track.version);
            if let Some(last) = record.details.get("last").and_then(|last| last.as_str()?.parse().ok()) {
                track.version = track.version.max(Version(last));
            }
            self.tracks.insert(id, track);
            return None;
        }
        if matches!(record.event, Event::ReattachReject | Event::TransportSwitchDenied) {
            // What is counted is also said while a commit of its session is under way.
            let same = match record.details.contains_key("count") {
                true => record.state_version <= track.version,
                false => record.state_version == track.version,
            };
            self.must(record.from == record.to && same, now, || {
                format!("invariant 13: a refusal of {id} at v{} says v{}", track.version, record.state_version)
            });
        }
        if !matches!(record.event, Event::StateChange | Event::TransportSwitch) {
            return None;
        }
        cover.transitions += 1;
        if let Some(Written::InvariantBroken { which }) = record.input {
            self.must(which == SWITCHED, now, || format!("invariant {which}: {id} was ended for it"));
        }
        if let Some(Written::NewerOwner { epoch }) = record.input {
            self.must(epoch == OTHER, now, || format!("{id} was given up to an owner {epoch} that does not exist"));
        }
        self.must(!track.ended, now, || format!("invariant 12: {id} moved after it ended"));
        let next = track.version.next();
        self.must(record.state_version == next, now, || {
            format!("invariant 7/10: {id} recorded v{} where v{next} was due", record.state_version)
        });
        self.must(track.peer.is_empty() || track.peer == record.peer, now, || {
            format!("invariant 1: {id} changed its peer")
        });
        if let Some(Written::Reattach { nonce, .. }) = &record.input {
            let (last, nonce) = (track.nonce, *nonce);
            // LOST is two records of one request.
            self.must(nonce >= last, now, || format!("invariant 11: nonce {nonce} accepted after {last} of {id}"));
            track.nonce = nonce;
        }
        if let Some(Written::Resume { .. }) = &record.input {
            track.nonce = 0;
        }
        if let Some(to) = &record.transport.to {
            let known = self.homes.contains_key(&to.remote);
            self.must(known, now, || format!("invariant 2: {id} was bound to {}, where no client is", to.remote));
        }
        track.version = record.state_version;
        track.peer.clone_from(&record.peer);
        let after = policy.and_then(|policy| self.replayed(record, policy, &mut track, now, cover));
        track.ended = after.as_ref().is_some_and(|after| !after.is_live());
        track.ended_at = track.ended.then_some(now);
        self.tracks.insert(id, track);
        after
    }

    /// The same input on the same session gives the same transition, of the same life.
    fn replayed(
        &mut self,
        record: &Record,
        policy: &Policy,
        track: &mut Track,
        now: Instant,
        cover: &mut Cover,
    ) -> Option<Session> {
        let after = match replay(record, policy) {
            Ok(transition) => {
                *cover.recorded.entry(transition.row).or_default() += 1;
                transition.after
            }
            Err(mismatch) => {
                self.wrong(now, || format!("invariant 9: a record does not replay: {mismatch}: {record:?}"));
                return None;
            }
        };
        cover.replayed += 1;
        let life = (after.created_at(), after.expires_at());
        let reborn = track.life.is_some_and(|known| known != life);
        self.must(!reborn, now, || format!("invariant 5: the life of {} changed to {life:?}", after.id()));
        track.life = Some(life);
        Some(after)
    }

    /// Whether a session of a peer ended after `since`.
    #[must_use]
    pub fn ended_lately(&self, peer: &str, since: Instant) -> bool {
        self.tracks.values().any(|track| track.peer == peer && track.ended_at.is_some_and(|at| at >= since))
    }

    /// Every session is sound, and the maps say what the engine says.
    pub fn gateway(&mut self, gateway: &GatewayHost, now: Instant) {
        let Some(engine) = &gateway.engine else { return };
        if self.wrong.is_some() {
            return;
        }
        let settled = !gateway.committing() && gateway.tampered.is_empty();
        self.nobody_vanished(gateway, now);
        for (id, view) in engine.sessions() {
            if let Err(broken) = invariant::sound(view.core) {
                self.wrong(now, || format!("{broken} of {id}"));
            }
            if settled && let Some(slot) = view.slot {
                self.bound_as(gateway.maps.bound(slot), view.core, slot, now);
            }
        }
        if settled {
            self.single_active(gateway, now);
        }
    }

    /// A session that was there is there, or its end is recorded.
    fn nobody_vanished(&mut self, gateway: &GatewayHost, now: Instant) {
        let Some(engine) = &gateway.engine else { return };
        let living = engine.sessions().map(|(id, _)| id);
        let now_living: BTreeSet<SessionId> = living.collect();
        let gone = self.living.difference(&now_living).find(|id| !self.tracks.get(id).is_some_and(|track| track.ended));
        let gone = gone.copied();
        self.must(gone.is_none(), now, || format!("invariant 6: {gone:?} is gone without an end"));
        self.living = now_living;
    }

    /// The process is gone; what comes back is what was stored.
    pub fn crashed(&mut self) {
        self.living.clear();
    }

    fn bound_as(&mut self, bound: Option<Bound>, core: &Session, slot: Slot, now: Instant) {
        let Some(bound) = bound else { return };
        let same = match (bound.active(), core.transport()) {
            (None, None) => true,
            (Some(binding), Some(transport)) => {
                binding.k == transport.k.0 && binding.remote() == transport.path.remote()
            }
            _ => false,
        };
        self.must(same, now, || {
            format!("the word of {slot:?} names {:?}, the engine says {:?}", bound.active(), core.transport())
        });
    }

    /// At most one slot of a session is bound.
    fn single_active(&mut self, gateway: &GatewayHost, now: Instant) {
        let mut active: Vec<[u8; 16]> = Vec::new();
        for (slot, info, entry) in gateway.maps.used() {
            if jvpn_common::abi::ActiveWord(entry.active).active() != 0 {
                let twice = active.contains(&info.session_id);
                self.must(!twice, now, || format!("invariant 3: two active bindings, one in {slot:?}"));
                active.push(info.session_id);
            }
        }
    }

    /// Data goes to the active binding and nowhere else.
    pub fn downlink(&mut self, gateway: &GatewayHost, id: SessionId, datagram: &Out, now: Instant) {
        let Some(engine) = &gateway.engine else { return };
        if gateway.committing() || !gateway.tampered.is_empty() {
            return;
        }
        let Some((_, view)) = engine.sessions().find(|(known, _)| *known == id) else { return };
        let to = view.core.transport().map(|transport| transport.path.remote());
        self.must(to == Some(datagram.1), now, || format!("data of {id} went to {}, not to {to:?}", datagram.1));
    }

    /// A datagram on the wire: no nonce is used twice under a key.
    pub fn datagram(&mut self, down: bool, bytes: &[u8], now: Instant, cover: &mut Cover) {
        let Some(kind) = bytes.first().copied().and_then(Kind::from_byte) else { return };
        cover.message(match kind {
            Kind::Initiation => "1 initiation",
            Kind::Response => "2 response",
            Kind::CookieReply => "3 cookie reply",
            Kind::Data => "4 data",
            Kind::Control => "5 control",
            Kind::Probe => "6 probe",
            Kind::Echo => "7 echo",
            Kind::Notice => "8 notice",
        });
        if !matches!(kind, Kind::Data | Kind::Control) {
            return;
        }
        let Some((header, _)) = Header::parse(bytes) else { return };
        let hash = bytes
            .iter()
            .fold(7_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3).rotate_left(3));
        let key = (header.locator, down, header.kind, header.epoch, header.counter);
        let old = self.wire.insert(key, hash);
        self.must(old.is_none_or(|old| old == hash), now, || {
            format!("invariant 11: counter {} of {kind:?} under epoch {} sealed twice", header.counter, header.epoch)
        });
    }

    /// A client never knows more than the gateway did.
    pub fn client(&mut self, client: &ClientHost, gateway: &GatewayHost, now: Instant) {
        let view = client.engine.view();
        let Some(id) = view.session else { return };
        let recorded = self.tracks.get(&id).map_or(Version(0), |track| track.version);
        let known = gateway.version_of(id).unwrap_or(recorded).max(recorded);
        self.must(view.version <= known, now, || {
            format!("client {} believes v{} of {id}, the gateway has v{known}", client.number, view.version)
        });
    }
}

/// Counts the codes of a record.
fn see_reasons(record: &Record, cover: &mut Cover) {
    if let Some(reason) = record.reason {
        *cover.reasons.entry(reason.name()).or_default() += 1;
    }
    for reason in record.details.get("reasons").and_then(|list| list.as_array()).into_iter().flatten() {
        if let Some(code) = reason.as_str().and_then(|name| name.parse::<jvpn_common::reason::Reason>().ok()) {
            *cover.reasons.entry(code.name()).or_default() += 1;
        }
    }
}
