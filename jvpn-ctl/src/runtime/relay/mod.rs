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
mod owners;

use crate::api::{self as pages, Request};
use crate::audit::Audit;
use crate::config::{Paths, RelayConfig};
use crate::dataplane::attach::{self, Program};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::pins::Pins;
use crate::dataplane::{self, DataPlane, Settings, WorkerTables};
use crate::runtime::clock;
use crate::runtime::entropy::System;
use crate::runtime::events;
use crate::runtime::gateway::{Interfaces, InterfacesWay, wanted};
use crate::runtime::stop::Stop;
use crate::runtime::sys;
use crate::runtime::trailers::{Trailers, Way as Side};
use crate::store::DirLock;
use anyhow::Result;
use forward::Forward;
use hops::{Hops, Trip};
use jvpn_common::abi::{Owner, OwnerEndpoint, mapped};
use jvpn_common::crypto::Entropy as _;
use jvpn_common::crypto::trailer::{TrailerOpener, TrailerSealer};
use jvpn_common::ids::{Incarnation, OwnerEpoch, Slot};
use jvpn_common::limits::ALIVE_FOR;
use jvpn_common::mapop::MapOp;
use jvpn_common::relay::{Change, Held, Hold, ToOwner, ToRelay, Welcome};
use jvpn_common::secret::PrivateKey;
use owners::Event;
use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often ways out and earlier starts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Route and neighbour events come in bursts; packets take the slower way meanwhile, not a wrong one.
const SETTLE: Duration = Duration::from_millis(50);
/// Message 1 a second the kernel lets through from one bucket of sources, and from all on one processor.
const HANDSHAKE_RATE: u32 = 100;
const HANDSHAKE_TOTAL_RATE: u32 = 20_000;

/// An owner and what is known of it.
#[derive(Debug)]
struct OwnerState {
    peer: crate::config::OwnerPeer,
    say: Option<mpsc::Sender<Vec<u8>>>,
    /// Why there is no stream.
    why: String,
    /// Its current start.
    identity: Option<(Incarnation, OwnerEpoch)>,
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
    let forward = Forward::open(config.listen)?;
    let (mut plane, interfaces) = plane(&config, &paths)?;
    // What an earlier process held is told anew by the owners; until then nothing is forwarded.
    let mut generation = 0;
    for left in plane.adopt()? {
        generation = generation.max(left.generation.0);
        plane.apply(&MapOp::Free { slot: left.slot })?;
    }
    plane.configure(&settings(&config));
    let socket = pages::Socket::bind(&paths.socket)?;
    let (requests, asked) = mpsc::channel(pages::REQUESTS_MAX);
    let served = tokio::task::spawn_local(pages::serve(socket, pages::Handle { requests, feed: audit.feed() }));
    let (tell, events) = mpsc::channel(2 * config.max_sessions as usize + 1_024);
    let hops = Hops::start()?;
    let tables = forward::tables(plane.shared(), !interfaces.is_empty());
    let hold = Hold::new(config.max_sessions, generation);
    let owners = config.owners.iter().cloned();
    let owners =
        owners.map(|peer| OwnerState { peer, say: None, why: "not called yet".into(), identity: None }).collect();
    let (interfaces_names, pin_root) = (config.interfaces.clone(), paths.pin_root.clone());
    let mut relay = Relay {
        config,
        plane,
        interfaces,
        hold,
        hops,
        owners,
        trailers: Arc::default(),
        forward,
        tables,
        started: clock::text(clock::boot()),
        _lock: lock,
    };
    let calls = relay.call_owners(&key, &tell).await;
    tracing::info!(name = relay.config.name, port = relay.config.listen, owners = relay.owners.len(), "relaying");
    let result = relay.run(events, asked).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    served.abort();
    if detach_on_exit {
        for interface in &interfaces_names {
            if let Err(error) = attach::unload(interface, &Pins::below(&pin_root)) {
                tracing::warn!(%error, interface, "could not detach");
            }
        }
    }
    result
}

fn settings(config: &RelayConfig) -> Settings {
    let mut seed = [0; 16];
    System.fill(&mut seed);
    let seed = u128::from_le_bytes(seed);
    Settings {
        port: config.listen,
        role: jvpn_common::abi::ROLE_RELAY,
        incarnation: Incarnation(0),
        owner_epoch: OwnerEpoch(0),
        workers: 1,
        bucket_seed: [seed as u64, (seed >> 64) as u64],
        handshake_rate: HANDSHAKE_RATE,
        handshake_total_rate: HANDSHAKE_TOTAL_RATE,
    }
}

fn plane(config: &RelayConfig, paths: &Paths) -> Result<(Box<dyn DataPlane>, Interfaces)> {
    let pins = Pins::below(&paths.pin_root);
    let way = InterfacesWay {
        max_sessions: config.max_sessions,
        pins: pins.clone(),
        wanted: wanted(config.xdp),
        program: Program::Relay,
    };
    if config.xdp == crate::config::XdpMode::Off {
        if dataplane::object().is_none() {
            return Ok((Box::new(dataplane::memory::Memory::new(config.max_sessions)), Interfaces::none(way)));
        }
        attach::make_maps(&pins, config.max_sessions)?;
        return Ok((Box::new(Kernel::open(&pins)?), Interfaces::none(way).hold()?));
    }
    let interfaces = Interfaces::attach(&config.interfaces, way)?.hold()?;
    Ok((Box::new(Kernel::open(&pins)?), interfaces))
}

impl Relay {
    async fn call_owners(
        &mut self,
        key: &Arc<PrivateKey>,
        tell: &mpsc::Sender<Event>,
    ) -> Vec<tokio::task::JoinHandle<()>> {
        let mut calls = Vec::new();
        for (owner, state) in (0_u16..).zip(&self.owners) {
            let (peer, key, tell) = (state.peer.clone(), Arc::clone(key), tell.clone());
            calls.push(tokio::task::spawn_local(owners::call(owner, peer, key, tell)));
        }
        calls
    }

    async fn run(&mut self, mut events: mpsc::Receiver<Event>, mut asked: mpsc::Receiver<Request>) -> Result<()> {
        let mut stop = Stop::new()?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let v4 = sys::watch(self.forward.v4().as_fd().try_clone_to_owned()?)?;
        let v6 = self.forward.v6().map(|port| port.as_fd().try_clone_to_owned()).transpose()?;
        let v6 = v6.map(sys::watch).transpose()?;
        loop {
            tokio::select! {
                biased;
                () = stop.asked() => break,
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
                let done = self.hold.unbind((owner, slot)).is_none_or(|change| self.apply(change, owner));
                self.say(owner, &ToOwner::Ack { op, done });
            }
            ToRelay::Complete => {
                for change in self.hold.complete(owner, clock::boot()) {
                    self.apply(change, owner);
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
        let Some(state) = self.owners.get_mut(usize::from(owner)) else { return };
        let address = state.peer.address;
        state.identity = Some((welcome.incarnation, welcome.owner_epoch));
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
            Some(change) => self.apply(change, owner),
            None => {
                tracing::warn!(slots = self.hold.len(), "no room for a session of an owner: raise max_sessions");
                false
            }
        }
    }

    fn apply(&mut self, change: Change, owner: u16) -> bool {
        if let Err(error) = self.plane.apply_all(&change.ops) {
            tracing::error!(%error, "the maps refused what an owner wants held");
            return false;
        }
        if change.holds() {
            self.plane.shared().set_session_owner(change.slot, u32::from(owner) + 1);
        }
        self.hold.keep(change);
        true
    }

    fn look(&mut self) {
        events::drain(&mut *self.plane);
        for change in self.hold.expired(clock::boot()) {
            // Whose it was no longer matters: it is freed.
            self.apply(change, 0);
        }
        let mut used: BTreeSet<Trip> =
            self.hold.ways().map(|way| Trip { source: way.local.ip(), to: way.client.ip() }).collect();
        for (owner, state) in (0_u16..).zip(&self.owners) {
            if let Some(source) = self.trailers.own_address(owner) {
                used.insert(Trip { source, to: state.peer.address.ip() });
            }
        }
        self.hops.keep(&used);
        self.interfaces.look(clock::boot());
        // A relay has no record: what was put back is in its log.
        self.interfaces.check(clock::boot());
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
