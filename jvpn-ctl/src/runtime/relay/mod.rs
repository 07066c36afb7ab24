//! The relay: forwards sessions of its owners, in the kernel where it can, and knows no key of theirs but the steering
//! keys.
//!
//! Owns start, loop and end of `serve` with a relay's file. Nothing else changes what its maps hold. Must never bind,
//! move or end a session by itself: owners say what is held, and for how long they vouch for it.
//!
//! ```text
//! owner ── stream ──► hold ──► maps ◄── kernel program ◄── clients' and owners' data
//!   ▲                                        │ handshake, control, no neighbour
//!   └── datagrams with a trailer ── forward ◄┘
//! ```

mod api;
mod forward;
mod hops;
mod metrics;
mod owners;

use crate::api::{Pages, Request};
use crate::audit::Audit;
use crate::config::{Paths, RelayConfig};
use crate::dataplane::attach::Program;
use crate::dataplane::{DataPlane, Tampered, WorkerTables};
use crate::runtime::clock;
use crate::runtime::events;
use crate::runtime::interfaces::Interfaces;
use crate::runtime::node::{Detach, Node};
use crate::runtime::reconcile::{Found, Reconcile, compare};
use crate::runtime::stop::{self, Again, Stop};
use crate::runtime::sys;
use crate::runtime::trailers::{Trailers, Way as Side};
use crate::store::DirLock;
use anyhow::{Context as _, Result};
use forward::Forward;
use hops::{Hops, Trip};
use jvpn_common::abi::{Owner, OwnerEndpoint, mapped};
use jvpn_common::crypto::trailer::{TrailerOpener, TrailerSealer};
use jvpn_common::ids::{Generation, Incarnation, OwnerEpoch, SessionId, Slot};
use jvpn_common::limits::ALIVE_FOR;
use jvpn_common::mapop::MapOp;
use jvpn_common::relay::{Change, Held, Hold, ToOwner, ToRelay, Welcome};
use jvpn_common::secret::PrivateKey;
use owners::Event;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often ways out and earlier starts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Route and neighbour events come in bursts; packets take the slower way meanwhile, not a wrong one.
const SETTLE: Duration = Duration::from_millis(50);
/// An owner and what is known of it.
#[derive(Debug)]
struct OwnerState {
    peer: crate::config::OwnerPeer,
    say: Option<mpsc::Sender<Vec<u8>>>,
    /// Why there is no stream.
    why: String,
}

/// A running relay.
struct Relay {
    config: RelayConfig,
    plane: Box<dyn DataPlane>,
    interfaces: Interfaces,
    hold: Hold,
    hops: Hops,
    owners: Vec<OwnerState>,
    trailers: Arc<Trailers<u16>>,
    forward: Forward,
    tables: WorkerTables,
    audit: Audit,
    reconcile: Reconcile,
    /// Detaches at the end, if that was asked for.
    #[expect(dead_code, reason = "held for its drop")]
    detach: Option<Detach>,
    started: String,
    _lock: DirLock,
}

/// Runs a relay until it is told to stop.
///
/// # Errors
/// When anything it needs is missing; nothing is left behind then.
pub async fn run(config: RelayConfig, paths: Paths, detach_on_exit: bool) -> Result<()> {
    let local = tokio::task::LocalSet::new();
    local.run_until(start(config, paths, detach_on_exit)).await
}

async fn start(config: RelayConfig, paths: Paths, detach_on_exit: bool) -> Result<()> {
    let key = Arc::new(config.key()?);
    let lock = DirLock::take(&paths.state_dir)?;
    let (audit, _) = Audit::open(&paths.state_dir)?;
    let RelayConfig { listen: port, interfaces, xdp, max_sessions, .. } = &config;
    let (port, xdp, max_sessions) = (*port, *xdp, *max_sessions);
    let node = Node { program: Program::Relay, port, interfaces, xdp, max_sessions, workers: 1, paths: &paths };
    let [v4, v6] = node.sockets()?.map(|group| group.into_iter().next());
    let forward = Forward::new((v4.context("a relay has an IPv4 socket")?, v6), port);
    let (mut plane, interfaces) = node.plane()?;
    // What an earlier process held is told anew by the owners; until then nothing is forwarded.
    let mut generation = Generation(0);
    for left in plane.adopt()? {
        generation = generation.max(left.generation);
        plane.apply(&MapOp::Free { slot: left.slot })?;
    }
    // Which start of it this is, and of which owner, a relay says of its owners only.
    plane.configure(&node.settings(Incarnation(0), OwnerEpoch(0)));
    let (pages, asked) = Pages::open(&paths.socket, &config.telemetry, audit.feed())?;
    let (tell, events) = mpsc::channel(2 * max_sessions as usize + 1_024);
    let tables = forward::tables(plane.shared(), !interfaces.is_empty());
    let owners = config.owners.iter().cloned();
    let mut relay = Relay {
        detach: detach_on_exit.then(|| node.detach()),
        hold: Hold::new(max_sessions, generation),
        owners: owners.map(|peer| OwnerState { peer, say: None, why: "not called yet".into() }).collect(),
        config,
        plane,
        interfaces,
        hops: Hops::start()?,
        trailers: Arc::default(),
        forward,
        tables,
        audit,
        reconcile: Reconcile::every(LOOK_EVERY),
        started: clock::text(clock::boot()),
        _lock: lock,
    };
    let calls = relay.call_owners(&key, &tell);
    tracing::info!(name = relay.config.name, port, owners = relay.owners.len(), "relaying");
    let result = relay.run(events, asked).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    drop(pages);
    result
}

impl Relay {
    fn call_owners(&self, key: &Arc<PrivateKey>, tell: &mpsc::Sender<Event>) -> Vec<tokio::task::JoinHandle<()>> {
        let call = |(owner, state): (u16, &OwnerState)| {
            let (peer, key, tell) = (state.peer.clone(), Arc::clone(key), tell.clone());
            tokio::task::spawn_local(owners::call(owner, peer, key, tell))
        };
        (0_u16..).zip(&self.owners).map(call).collect()
    }

    async fn run(&mut self, mut events: mpsc::Receiver<Event>, mut asked: mpsc::Receiver<Request>) -> Result<()> {
        let (mut stop, mut again) = (Stop::new()?, Again::new()?);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let v4 = sys::watch(self.forward.v4().as_fd().try_clone_to_owned()?)?;
        let v6 = self.forward.v6().map(|port| port.as_fd().try_clone_to_owned()).transpose()?;
        let v6 = v6.map(sys::watch).transpose()?;
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
                () = again.asked() => stop::unread("relay"),
                Some(event) = events.recv() => self.event(event).await,
                ready = v4.readable() => {
                    let mut ready = ready?;
                    if !self.receive(false) {
                        ready.clear_ready();
                    }
                }
                ready = readable(v6.as_ref()) => {
                    let mut ready = ready?;
                    if !self.receive(true) {
                        ready.clear_ready();
                    }
                }
                Some(request) = asked.recv() => self.serve(request),
                () = self.hops.changed() => {
                    tokio::time::sleep(SETTLE).await;
                    self.hops.refresh(self.plane.shared()).await;
                }
                _ = look.tick() => self.look(),
            }
        }
        for owner in 0..self.owners.len() {
            self.plane.shared().set_owner_alive(owner as u32, Duration::ZERO);
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Connected { owner, say } => {
                if let Some(state) = self.owners.get_mut(usize::from(owner)) {
                    (state.say, state.why) = (Some(say), String::new());
                    tracing::info!(owner = state.peer.name, "owner connected");
                }
            }
            Event::Gone { owner, why } => {
                if let Some(state) = self.owners.get_mut(usize::from(owner)) {
                    if state.say.take().is_some() {
                        tracing::warn!(owner = state.peer.name, why, "owner disconnected; its lease runs out");
                    } else if state.why != why {
                        tracing::warn!(owner = state.peer.name, why, "owner does not answer");
                    }
                    state.why = why;
                }
            }
            Event::Said { owner, frame } => self.said(owner, frame).await,
        }
    }

    async fn said(&mut self, owner: u16, frame: ToRelay) {
        match frame {
            ToRelay::Welcome(welcome) => self.welcome(owner, welcome).await,
            ToRelay::Bind { op, slot, held } => {
                let done = self.bind(owner, slot, *held).await;
                self.say(owner, &ToOwner::Ack { op, done });
            }
            ToRelay::Unbind { op, slot } => {
                let done = self.hold.unbind((owner, slot)).is_none_or(|change| self.apply(change));
                self.say(owner, &ToOwner::Ack { op, done });
            }
            ToRelay::Complete => {
                for change in self.hold.complete(owner, clock::boot()) {
                    self.apply(change);
                }
            }
            ToRelay::Lease { within } => {
                self.plane.shared().set_owner_alive(u32::from(owner), within.min(ALIVE_FOR));
            }
        }
    }

    fn say(&mut self, owner: u16, frame: &ToOwner) {
        let Some(state) = self.owners.get_mut(usize::from(owner)) else { return };
        if state.say.as_ref().is_some_and(|say| say.try_send(frame.to_bytes()).is_err()) {
            // Without its sender the stream ends, and a new one starts whole.
            state.say = None;
        }
    }

    async fn welcome(&mut self, owner: u16, welcome: Welcome) {
        let Some(state) = self.owners.get(usize::from(owner)) else { return };
        let address = state.peer.address;
        self.hold.begin(owner, welcome.incarnation);
        let side = Side { address, own: self.hops.own_address(address.ip()).await.ok() };
        self.trailers.open(owner, side, TrailerSealer::new(welcome.up), TrailerOpener::new(welcome.down));
        let hop = match side.own {
            Some(source) => self.hops.prepare(Trip { source, to: address.ip() }, self.plane.shared()).await,
            None => Err(anyhow::anyhow!("no own address")),
        };
        let hop = match hop {
            Ok(hop) => hop,
            Err(error) => return tracing::error!(%error, %address, "no way to the owner"),
        };
        let mtu = self.hops.mtu(hop);
        let endpoint = OwnerEndpoint { address: mapped(address.ip()), port: address.port(), hop, mtu, reserved: 0 };
        let (v4, v6) =
            if address.is_ipv4() { (endpoint, OwnerEndpoint::default()) } else { (OwnerEndpoint::default(), endpoint) };
        let (incarnation, owner_epoch) = (welcome.incarnation.0, welcome.owner_epoch.0);
        let entry = Owner { sequence: 0, alive_until: 0, v4, v6, incarnation, owner_epoch };
        self.plane.shared().set_owner(u32::from(owner), &entry);
    }

    async fn bind(&mut self, owner: u16, slot: Slot, held: Held) -> bool {
        for way in held.active.iter().chain(held.draining.iter().map(|(way, _)| way)) {
            let trip = Trip { source: way.local.ip(), to: way.client.ip() };
            if let Err(error) = self.hops.prepare(trip, self.plane.shared()).await {
                tracing::warn!(%error, client = %way.client, "no way to a client");
            }
        }
        let hops = &self.hops;
        let number = |way: &jvpn_common::relay::Way| hops.number(Trip { source: way.local.ip(), to: way.client.ip() });
        match self.hold.bind((owner, slot), held, number) {
            Some(change) => self.apply(change),
            None if self.hold.is_full() => {
                tracing::warn!(slots = self.hold.len(), "no room for a session of an owner: raise max_sessions");
                false
            }
            None => {
                tracing::warn!("no number is left for another way to a client");
                false
            }
        }
    }

    fn apply(&mut self, change: Change) -> bool {
        if let Err(error) = self.plane.apply_all(&change.ops) {
            tracing::error!(%error, "the maps refused what an owner wants held");
            return false;
        }
        if let Some(owner) = change.owner() {
            self.plane.shared().set_session_owner(change.slot, owner);
        }
        self.hold.keep(change);
        true
    }

    fn look(&mut self) {
        events::drain(&mut *self.plane);
        for change in self.hold.expired(clock::boot()) {
            self.apply(change);
        }
        let mut used: BTreeSet<Trip> =
            self.hold.ways().map(|way| Trip { source: way.local.ip(), to: way.client.ip() }).collect();
        for (owner, state) in (0_u16..).zip(&self.owners) {
            if let Some(source) = self.trailers.own_address(owner) {
                used.insert(Trip { source, to: state.peer.address.ip() });
            }
        }
        self.hops.keep(&used, self.plane.shared());
        self.interfaces.look(clock::boot());
        self.reconcile();
    }

    /// Compares maps, pins and programs with what was made of them. What differed is put back by now, and recorded:
    /// a relay has nobody to ask what it means.
    fn reconcile(&mut self) {
        let (now, node) = (clock::boot(), &self.config.name);
        let Found { slots, node: kinds, due } = self.reconcile.look(&mut *self.plane, &mut self.interfaces, now);
        let sessions: BTreeMap<Slot, SessionId> =
            self.hold.committed().map(|(session, slot, _)| (slot, session)).filter(|_| !slots.is_empty()).collect();
        let mut found: Vec<(Option<SessionId>, String)> = kinds.into_iter().map(|what| (None, what)).collect();
        for Tampered { slot, what } in slots {
            tracing::warn!(?slot, what, "a map holds what nobody wrote; it is put back");
            found.push((slot.and_then(|slot| sessions.get(&slot).copied()), what.to_owned()));
        }
        if due {
            let differed = compare(&mut *self.plane, self.hold.committed());
            found.extend(differed.into_iter().map(|(session, what)| (Some(session), what.to_owned())));
        }
        let mut records = self.reconcile.rest(node, now);
        records.extend(found.into_iter().filter_map(|kind| self.reconcile.found(node, kind, 1, now)));
        if !records.is_empty()
            && let Err(error) = self.audit.append_all(records)
        {
            tracing::error!(%error, "a record could not be written");
        }
    }
}

/// Waits for a socket there may be.
async fn readable(
    port: Option<&tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
) -> std::io::Result<tokio::io::unix::AsyncFdReadyGuard<'_, std::os::fd::OwnedFd>> {
    match port {
        Some(port) => port.readable().await,
        None => std::future::pending().await,
    }
}
