//! A client host: the real engine, a worker, and a source of inner packets.
//!
//! Owns what a client's runtime would: it carries out commands and reports what its worker saw. Must never
//! know what is wrong with the network.

use super::cover::Cover;
use super::net::{NetPath, gateways};
use super::rng::Rng;
use super::worker::EpochKeys;
use core::net::SocketAddr;
use jvpn_common::abi::SteeringKeys;
use jvpn_common::client::{
    Activity, Command, Config, Engine, Event, EventKind, HoldQueue, IDLE_AFTER, Input, PathId, PathUp, Sealed, SetId,
    Transport,
};
use jvpn_common::crypto::Suite;
use jvpn_common::ids::TransportIndex;
use jvpn_common::sabotage::Sabotage;
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::tag::steering_tag;
use jvpn_common::time::Instant;
use jvpn_common::wire::{Header, Kind};
use std::collections::BTreeMap;

/// A datagram that leaves: path, destination, payload.
pub type Out = (PathId, SocketAddr, Vec<u8>);

/// Names of ports beside others begin here: those of networks are smaller.
const FIRST_PORT: u32 = 10_000;

#[derive(Debug, Default)]
struct Set {
    steering: SteeringKeys,
    locators: BTreeMap<u64, TransportIndex>,
    epochs: Vec<EpochKeys>,
}

/// The host.
#[derive(Debug)]
pub struct ClientHost {
    /// Which one.
    pub number: u8,
    /// The engine.
    pub engine: Engine,
    /// Its identity.
    pub key: PublicKey,
    private: PrivateKey,
    gateway: PublicKey,
    sabotage: Sabotage,
    /// Its paths.
    pub paths: Vec<NetPath>,
    /// Asleep until then.
    pub asleep: Option<Instant>,
    /// When an inner packet last arrived.
    pub received: Option<Instant>,
    /// Whether inner packets go up, and down.
    pub flow: (bool, bool),
    sets: BTreeMap<SetId, Set>,
    using: Option<Transport>,
    held: HoldQueue,
    activity: Activity,
    dirty: bool,
    sequence: u64,
    /// Ports opened beside others.
    opened: u32,
}

impl ClientHost {
    /// A client with so many paths.
    pub fn new(
        number: u8,
        key: &PrivateKey,
        gateway: PublicKey,
        sabotage: Sabotage,
        rng: &mut Rng,
        now: Instant,
    ) -> Self {
        let count = 2 + rng.below(3) as u8;
        let paths = (0..count).map(|path| NetPath::new(number, path, rng)).collect();
        let engine = engine(number, key, gateway, sabotage, rng, now);
        Self {
            number,
            engine,
            key: key.public(),
            private: key.duplicate(),
            gateway,
            sabotage,
            paths,
            asleep: None,
            received: None,
            flow: (false, false),
            sets: BTreeMap::new(),
            using: None,
            held: HoldQueue::default(),
            activity: Activity::default(),
            dirty: false,
            sequence: 0,
            opened: 0,
        }
    }

    /// Adds what the engine opened to the cover, before it is gone.
    pub fn collect(&self, cover: &mut Cover) {
        self.engine.seen().iter().for_each(|(kind, count)| *cover.messages.entry(kind).or_default() += count);
    }

    /// The process ends without a word and starts again.
    pub fn restart(&mut self, rng: &mut Rng, now: Instant, cover: &mut Cover) {
        self.collect(cover);
        self.engine = engine(self.number, &self.private, self.gateway, self.sabotage, rng, now);
        self.paths.iter_mut().for_each(|path| path.ports.clear());
        self.sets.clear();
        self.using = None;
        self.held = HoldQueue::default();
        (self.activity, self.dirty) = (Activity::default(), false);
    }

    /// The input that announces a path.
    #[must_use]
    pub fn path_up(path: &NetPath) -> Input<'static> {
        Input::PathUp(PathUp {
            endpoint: None,
            path: path.id,
            beside: None,
            label: path.label,
            class: path.class,
            metered: path.metered,
            v6: path.v6,
            link_mtu: 1_500,
        })
    }

    /// Gives one input to the engine and carries its commands out.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, cover: &mut Cover) -> Vec<Out> {
        if core::mem::take(&mut self.dirty) {
            self.engine.handle(now, Input::Activity(self.activity.clone()));
        }
        self.engine.handle(now, input);
        let mut out = Vec::new();
        let mut looked = 0;
        loop {
            while let Some(command) = self.engine.poll() {
                self.carry_out(now, command, &mut out, cover);
            }
            // As a runtime does: how far the worker is is looked at again once a probe has left.
            let probed = out.iter().skip(looked).any(|(_, _, bytes)| bytes.first() == Some(&(Kind::Probe as u8)));
            if !probed {
                return out;
            }
            looked = out.len();
            self.engine.handle(now, Input::Activity(self.activity.clone()));
        }
    }

    fn carry_out(&mut self, now: Instant, command: Command, out: &mut Vec<Out>, cover: &mut Cover) {
        match command {
            Command::Send { path, to, bytes } => out.push((path, to, bytes)),
            Command::OpenPort { beside } => {
                cover.client_event("client OpenPort");
                self.opened += 1;
                let id = PathId(FIRST_PORT + self.opened);
                let named = |path: &&mut NetPath| path.up && path.port(beside);
                if let Some(path) = self.paths.iter_mut().find(named) {
                    path.open(id, now);
                    let Input::PathUp(up) = Self::path_up(path) else { return };
                    self.engine.handle(now, Input::PathUp(PathUp { path: id, beside: Some(beside), ..up }));
                }
            }
            Command::ClosePort { path } => self.paths.iter_mut().for_each(|net| net.close(path)),
            Command::Locators { set, steering, add, remove } => {
                let set = self.sets.entry(set).or_default();
                set.steering = steering;
                set.locators.extend(add.into_iter().map(|(k, locator)| (locator.0, k)));
                set.locators.retain(|_, k| !remove.contains(k));
            }
            Command::InstallKeys(keys) => {
                let set = self.sets.entry(keys.set).or_default();
                set.epochs.push(EpochKeys::new(keys.epoch, &keys.up, &keys.down));
            }
            Command::WipeKeys { set, epoch } => {
                if let Some(set) = self.sets.get_mut(&set) {
                    set.epochs.retain(|keys| keys.epoch != epoch);
                }
            }
            Command::Forget { set } => {
                self.sets.remove(&set);
                if self.using.is_some_and(|using| using.set == set) {
                    self.using = None;
                }
            }
            Command::Use(transport) => {
                self.using = Some(transport);
                let mut inner = [0; 64];
                while let Some(len) = self.held.pop(now, &mut inner) {
                    out.extend(self.seal(transport, &inner[..len]));
                }
            }
            Command::Hold => self.using = None,
            Command::Ping(transport) => {
                cover.message("client PING");
                out.extend(self.seal(transport, &[]));
            }
            Command::Configure { .. } | Command::Condition { .. } => {}
            Command::Event(event) => self.told(now, &event, cover),
            Command::Ended { .. } => self.using = None,
        }
    }

    /// Its own history.
    fn told(&self, now: Instant, event: &Event, cover: &mut Cover) {
        let kind = match event.kind {
            EventKind::TransportSwitch => "client TransportSwitch",
            EventKind::Resumed => "client Resumed",
            EventKind::SessionCreated => "client SessionCreated",
            EventKind::KeyRotated => "client KeyRotated",
            EventKind::PathLost => "client PathLost",
            EventKind::ReattachReject => "client ReattachReject",
            EventKind::Condition => "client Condition",
            EventKind::HandshakeFailed => "client HandshakeFailed",
            EventKind::Termination => "client Termination",
            EventKind::GoingAway => "client GoingAway",
        };
        assert!(event.kind != EventKind::SessionCreated || event.version.0 > 0, "a birth without a version");
        cover.client_event(kind);
        if event.acknowledged {
            *cover.reasons.entry(event.reason.name()).or_default() += 1;
        }
        cover.note(now, || {
            format!(
                "client {} {kind} {} {:?} state {} v{} {:?}→{:?} ack {}",
                self.number,
                event.reason,
                event.detail,
                event.state,
                event.version,
                event.from,
                event.to,
                event.acknowledged
            )
        });
    }

    fn seal(&mut self, transport: Transport, inner: &[u8]) -> Option<Out> {
        let set = self.sets.get(&transport.set)?;
        let keys = set.epochs.iter().find(|keys| keys.epoch == transport.epoch)?;
        let bytes = keys.seal(set.steering.up, 0, transport.k, transport.locator, inner)?;
        let Transport { set, epoch, k, .. } = transport;
        self.activity.sealed = Some(Sealed { set, epoch, k, next: keys.next_counter(k) });
        self.dirty = true;
        Some((transport.path, transport.to, bytes))
    }

    /// An inner packet wants to go up.
    pub fn send_inner(&mut self, now: Instant, cover: &mut Cover) -> Vec<Out> {
        self.sequence += 1;
        let inner = self.sequence.to_le_bytes().repeat(8);
        let idle = self.activity.inner_sent.is_none_or(|at| now.since(at) >= IDLE_AFTER);
        let mut out = Vec::new();
        match self.using {
            Some(transport) => {
                out.extend(self.seal(transport, &inner));
                self.activity.inner_sent = Some(now);
                self.dirty = true;
            }
            None => self.held.push(now, &[&inner]),
        }
        if idle && self.using.is_some() {
            out.extend(self.handle(now, Input::TrafficStarted, cover));
        }
        out
    }

    /// A datagram came to one of its sockets.
    pub fn receive(
        &mut self,
        now: Instant,
        path: PathId,
        from: SocketAddr,
        mut bytes: Vec<u8>,
        cover: &mut Cover,
    ) -> Vec<Out> {
        if bytes.first() == Some(&(Kind::Data as u8)) {
            let header = Header::parse(&bytes).map(|(header, _)| header);
            if self.open(now, &mut bytes).is_none() {
                cover.note(now, || format!("client {} cannot open {header:?}", self.number));
            }
            return Vec::new();
        }
        self.handle(now, Input::Datagram { path, from, bytes: &mut bytes }, cover)
    }

    fn open(&mut self, now: Instant, bytes: &mut [u8]) -> Option<()> {
        let (header, _) = Header::parse(bytes)?;
        let (&id, set) = self.sets.iter_mut().find(|(_, set)| set.locators.contains_key(&header.locator))?;
        let k = *set.locators.get(&header.locator)?;
        let Header { kind, epoch, flags, tag, counter, .. } = header;
        if tag != steering_tag(set.steering.down, counter, kind, epoch, flags, k.0, None) || flags != 1 {
            return None;
        }
        let keys = set.epochs.iter_mut().find(|keys| keys.epoch.wire() == epoch)?;
        let inner = keys.open(k, bytes)?;
        self.activity.opened.retain(|&(of, index, _)| (of, index) != (id, k));
        self.activity.opened.push((id, k, now));
        if self.activity.opened.len() > 16 {
            self.activity.opened.remove(0);
        }
        if !inner.is_empty() {
            self.activity.inner_received = Some(now);
            self.received = Some(now);
        }
        self.dirty = true;
        Some(())
    }

    /// When the engine wants to be woken.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        if self.asleep.is_some() { None } else { self.engine.wakeup() }
    }
}

fn engine(number: u8, key: &PrivateKey, gateway: PublicKey, sabotage: Sabotage, rng: &mut Rng, now: Instant) -> Engine {
    let config = Config {
        name: format!("client{number}"),
        private_key: key.duplicate(),
        gateway,
        psk: PresharedKey::none(),
        endpoints: gateways().to_vec(),
        suites: vec![Suite::Aes256Gcm, Suite::ChaCha20Poly1305],
    };
    let mut engine = Engine::new(config, Box::new(rng.fork()), now);
    engine.sabotage(sabotage);
    engine
}
