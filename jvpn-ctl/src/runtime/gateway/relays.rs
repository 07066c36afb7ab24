//! The relays of this gateway: their streams, the commits that wait for them, their leases.
//!
//! Owns who is connected and what each was told. Must never let a commit through that its relay has not acknowledged,
//! and never wait for one that does not answer: the hub says when it is too late.

use super::{Gateway, Ready};
use crate::config::{GatewayConfig, RelayPeer};
use crate::runtime::clock;
use crate::runtime::entropy::System;
use crate::runtime::trailers::{Trailers, Way};
use anyhow::{Context as _, Result};
use jvpn_common::abi::{Binding, LAYOUT_HASH, mapped};
use jvpn_common::crypto::trailer::{self, TrailerOpener, TrailerSealer};
use jvpn_common::gateway::command::{Hop, Input};
use jvpn_common::gateway::{Commit, StoreOp};
use jvpn_common::ids::{Incarnation, OpId, OwnerEpoch, RelayId};
use jvpn_common::mapop::MapOp;
use jvpn_common::relay::{Begin, Frames, Gateways, Hub, Settled, ToOwner, ToRelay, Welcome};
use jvpn_common::secret::PrivateKey;
use jvpn_common::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::mpsc;

mod listen;

/// Frames a relay may be behind with, beyond one for each session.
const BEHIND_MAX: usize = 4_096;
/// Events of streams that wait for the loop.
const EVENTS_MAX: usize = 1_024;

/// What streams tell the loop.
#[derive(Debug)]
pub(super) enum Event {
    /// A relay proved itself and said HELLO.
    Connected { relay: RelayId, stream: u64, out: mpsc::Sender<Vec<u8>>, hello: ToOwner },
    /// It said something.
    Said { relay: RelayId, stream: u64, frame: ToOwner },
    /// It is gone.
    Gone { relay: RelayId, stream: u64 },
}

/// A stream that is up.
#[derive(Debug)]
struct Stream {
    number: u64,
    out: mpsc::Sender<Vec<u8>>,
}

/// All relays.
#[derive(Debug)]
pub(super) struct Relays {
    hub: Hub,
    peers: BTreeMap<RelayId, RelayPeer>,
    streams: BTreeMap<RelayId, Stream>,
    parked: BTreeMap<OpId, Box<Commit>>,
    trailers: Arc<Trailers<RelayId>>,
    identity: (Incarnation, OwnerEpoch),
    events: mpsc::Receiver<Event>,
    /// Held so that `events` stays open without relays.
    _tell: mpsc::Sender<Event>,
}

impl Relays {
    /// Starts listening, if there are relays.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) fn start(
        config: &GatewayConfig,
        key: &Arc<PrivateKey>,
        identity: (Incarnation, OwnerEpoch),
        trailers: Arc<Trailers<RelayId>>,
    ) -> Result<Self> {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let numbers = (1_u16..).map(RelayId);
        let peers: BTreeMap<RelayId, RelayPeer> = numbers.zip(config.relays.iter().cloned()).collect();
        if !peers.is_empty() {
            let known = peers.iter().map(|(id, peer)| (peer.public_key, *id)).collect();
            let behind = BEHIND_MAX + config.max_sessions as usize;
            listen::start(config.relay_listen, listen::Who { key: Arc::clone(key), known, behind }, tell.clone())
                .with_context(|| format!("TCP port {} for relays", config.relay_listen))?;
        }
        Ok(Self {
            hub: Hub::new(!peers.is_empty()),
            peers,
            streams: BTreeMap::new(),
            parked: BTreeMap::new(),
            trailers,
            identity,
            events,
            _tell: tell,
        })
    }

    /// Relays and whether each is connected.
    pub(super) fn each(&self) -> impl Iterator<Item = (&RelayPeer, bool)> {
        self.peers.iter().map(|(id, peer)| (peer, self.streams.contains_key(id)))
    }

    /// The next thing a stream says; waits for ever without relays.
    pub(super) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// When something is late.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.hub.wakeup()
    }

    /// Map operations as this node's maps take them: a binding through a relay is the relay.
    pub(super) fn localize(&self, op: MapOp, gateways: Gateways<'_>) -> MapOp {
        match op {
            MapOp::Binding { slot, entry, binding } => {
                MapOp::Binding { slot, entry, binding: self.local_binding(binding, gateways) }
            }
            other => other,
        }
    }

    /// A binding as this node's maps hold it.
    pub(super) fn local_binding(&self, binding: Binding, gateways: Gateways<'_>) -> Binding {
        let hop = gateways.get(usize::from(binding.gateway)).and_then(|(hop, _)| hop.relay());
        match hop.and_then(|relay| self.peers.get(&relay)) {
            Some(peer) => Binding { address: mapped(peer.address.ip()), port: peer.address.port(), ..binding },
            None => binding,
        }
    }

    /// Own addresses by number of a binding: through a relay, the one it sends to.
    pub(super) fn own_addresses(&self, gateways: Gateways<'_>) -> Vec<SocketAddr> {
        let own = |(hop, address): &(Hop, SocketAddr)| match hop {
            Hop::Local => *address,
            Hop::Relay(relay) => {
                let peer = self.peers.get(relay).map(|peer| peer.address);
                let any = match peer {
                    Some(SocketAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                    _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                };
                SocketAddr::new(self.trailers.own_address(*relay).unwrap_or(any), 0)
            }
        };
        gateways.iter().map(own).collect()
    }

    fn tell(&mut self, frames: Frames) {
        for (relay, frame) in frames {
            let Some(stream) = self.streams.get(&relay) else { continue };
            if stream.out.try_send(frame.to_bytes()).is_err() {
                // It is behind by more than it may be: without its sender the stream ends, and a new one starts whole.
                self.streams.remove(&relay);
            }
        }
    }

    fn lease(&mut self, within: std::time::Duration) {
        let frame = ToRelay::Lease { within }.to_bytes();
        self.streams.retain(|_, stream| stream.out.try_send(frame.clone()).is_ok());
    }
}

impl Gateway {
    /// A commit, now or when its relays have it.
    pub(super) fn commit(&mut self, op: OpId, commit: Box<Commit>) {
        let answers = commit.send.iter().filter_map(|datagram| datagram.origin.hop.relay()).collect();
        let gateways = self.engine.gateways();
        let (begin, frames) = self.relays.hub.begin(op, &commit.maps, &answers, gateways, clock::boot());
        match begin {
            Begin::Ready => self.is_ready(op, *commit),
            Begin::Waiting => {
                self.relays.parked.insert(op, commit);
                self.relays.tell(frames);
            }
            Begin::Refused => self.input(Input::Committed { op, done: false }),
        }
    }

    fn is_ready(&mut self, op: OpId, commit: Commit) {
        let waits = commit.store.iter().any(StoreOp::is_durable);
        let commit = self.localized(commit);
        let turn = if waits { &mut self.ready.durable } else { &mut self.ready.quick };
        turn.push((op, commit));
    }

    /// The commits of this turn, those that wait for the disk behind the others; false when there are none.
    pub(super) fn commit_ready(&mut self) -> bool {
        let Ready { quick, durable } = std::mem::take(&mut self.ready);
        let any = !quick.is_empty() || !durable.is_empty();
        for commits in [quick, durable] {
            let (ops, commits): (Vec<_>, Vec<_>) = commits.into_iter().unzip();
            let done = self.executor.commit_all(commits);
            ops.iter().zip(done).for_each(|(op, done)| self.finish_commit(*op, done));
        }
        any
    }

    fn localized(&mut self, mut commit: Commit) -> Commit {
        let gateways = self.engine.gateways();
        self.executor.sessions.set_gateways(self.relays.own_addresses(gateways));
        commit.maps = commit.maps.into_iter().map(|op| self.relays.localize(op, gateways)).collect();
        commit
    }

    fn finish_commit(&mut self, op: OpId, done: bool) {
        let frames = self.relays.hub.finish(op, done, self.engine.gateways());
        self.relays.tell(frames);
        self.input(Input::Committed { op, done });
    }

    fn settle(&mut self, settled: impl IntoIterator<Item = Settled>) {
        for Settled { op, done } in settled {
            match self.relays.parked.remove(&op) {
                Some(commit) if done => self.is_ready(op, *commit),
                _ => self.finish_commit(op, false),
            }
        }
    }

    /// Gives up what no relay acknowledged in time.
    pub(super) fn expire_relays(&mut self) {
        let late = self.relays.hub.expire(clock::boot());
        self.settle(late);
    }

    /// Vouches for the worker, for as long as the kernel program here would.
    pub(super) fn lease_to_relays(&mut self) {
        if !self.relays.streams.is_empty() {
            let within = self.workers.alive_for(self.executor.plane.shared());
            self.relays.lease(within);
        }
    }

    pub(super) fn relay_event(&mut self, event: Event) {
        match event {
            Event::Connected { relay, stream, out, hello } => self.relay_connected(relay, stream, out, &hello),
            Event::Said { relay, stream, frame } => {
                if self.relays.streams.get(&relay).is_some_and(|known| known.number == stream) {
                    self.relay_said(relay, &frame);
                }
            }
            Event::Gone { relay, stream } => {
                if self.relays.streams.get(&relay).is_none_or(|known| known.number == stream) {
                    self.relay_gone(relay);
                }
            }
        }
    }

    fn relay_connected(&mut self, relay: RelayId, number: u64, out: mpsc::Sender<Vec<u8>>, hello: &ToOwner) {
        let ToOwner::Hello { layout, endpoints } = hello else { return };
        let Some(peer) = self.relays.peers.get(&relay).cloned() else { return };
        if *layout != LAYOUT_HASH {
            tracing::error!(relay = peer.name, "this relay is of another version; it is not told anything");
            return;
        }
        let family = |endpoint: &&SocketAddr| endpoint.is_ipv4() == peer.address.is_ipv4();
        let own = endpoints.iter().find(family).map(SocketAddr::ip);
        let (up, down) = trailer::keys(&mut System);
        let welcome = Welcome { incarnation: self.relays.identity.0, owner_epoch: self.relays.identity.1, up, down };
        let first = ToRelay::Welcome(Welcome { up: welcome.up.duplicate(), down: welcome.down.duplicate(), ..welcome });
        let failed = self.relays.hub.disconnect(relay);
        self.settle(failed);
        let way = Way { address: peer.address, own };
        let (sealer, opener) = (TrailerSealer::new(welcome.down), TrailerOpener::new(welcome.up));
        self.relays.trailers.open(relay, way, sealer, opener);
        self.relays.streams.insert(relay, Stream { number, out });
        let all = self.relays.hub.connect(relay, self.engine.gateways());
        let frames = std::iter::once(first).chain(all).map(|frame| (relay, frame)).collect();
        self.relays.tell(frames);
        self.lease_to_relays();
        tracing::info!(relay = peer.name, address = %peer.address, "relay connected");
    }

    fn relay_said(&mut self, relay: RelayId, frame: &ToOwner) {
        match frame {
            ToOwner::Hello { .. } => {}
            ToOwner::Local { index, address } => self.relays.trailers.name(relay, *index, *address),
            ToOwner::Ack { op, done } => {
                if !done {
                    tracing::warn!(relay = relay.0, "a relay could not hold a session");
                }
                let settled = self.relays.hub.ack(relay, *op, *done);
                self.settle(settled);
            }
        }
    }

    fn relay_gone(&mut self, relay: RelayId) {
        self.relays.streams.remove(&relay);
        let failed = self.relays.hub.disconnect(relay);
        self.settle(failed);
        let name = self.relays.peers.get(&relay).map_or("", |peer| peer.name.as_str());
        tracing::warn!(relay = name, "relay disconnected; it keeps what it has until its lease ends");
    }
}
