//! The gateway host: the real engine, the real packet path, a worker, a store and a record.
//!
//! Owns what a gateway's runtime would, and what survives its death. Must never repair what the engine
//! decided: it carries commits out whole, or not at all.

use super::Bug;
mod life;
mod look;

pub use look::{OTHER, SWITCHED};

use super::check::Checker;
use super::cover::Cover;
use super::maps::{self, Maps};
use super::net::{PORT, gateways};
use super::rng::Rng;
use super::worker::EpochKeys;
use crate::rows::is_in_memory;
use core::net::SocketAddr;
use jvpn_common::abi::mapped;
use jvpn_common::crypto::Suite;
use jvpn_common::gateway::command::{Command, Hop, Input, Order, Origin};
use jvpn_common::gateway::handshake::JobResult;
use jvpn_common::gateway::{Commit, Config, Engine, Mode, Peer, Stored, WorkerOp};
use jvpn_common::ids::{
    Epoch, Generation, Incarnation, OpId, OwnerEpoch, PolicyVersion, SessionId, Slot, TransportIndex, Version,
};
use jvpn_common::limits::ALIVE_FOR;
use jvpn_common::mapop::MapOp;
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::session::transition::TABLE;
use jvpn_common::session::{Policy, Session};
use jvpn_common::steer::{self, Bytes, Source, Tables as _};
use jvpn_common::time::Instant;
use jvpn_common::verdict::{Class, Verdict};
use jvpn_common::wire::header::FLAG_DOWN;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Slots of the maps.
const SLOTS: u32 = 24;
/// Datagrams a frozen process's sockets hold.
const BACKLOG_MAX: usize = 300;

/// A datagram that leaves: from, to, payload.
pub type Out = (SocketAddr, SocketAddr, Vec<u8>);

/// Data keys and activity of a slot.
#[derive(Debug)]
struct Slotted {
    session: SessionId,
    epochs: Vec<EpochKeys>,
    sending: Epoch,
    opened: Option<Instant>,
    unanswered: Option<Instant>,
    installed: u64,
}

/// Something that ends later.
#[derive(Debug)]
enum Later {
    Computed(OpId, Box<JobResult>),
    Commit(OpId, Box<Commit>),
}

/// The host.
#[derive(Debug)]
pub struct GatewayHost {
    /// The engine, while the process lives.
    pub engine: Option<Engine>,
    /// The maps, which survive it.
    pub maps: Maps,
    /// Whether the kernel program is attached.
    pub xdp: bool,
    /// Frozen until then.
    pub frozen: Option<Instant>,
    /// Commits fail in 1/1000.
    pub failing: u64,
    /// Bug of the host itself.
    pub bug: Bug,
    /// Where inner packets last came from.
    pub received: BTreeMap<SessionId, Instant>,
    private: Arc<PrivateKey>,
    peers: Vec<(PublicKey, Arc<Policy>)>,
    /// Every policy there was, as the record has them.
    texts: BTreeMap<PolicyVersion, Arc<Policy>>,
    load_threshold: u32,
    incarnation: u64,
    slots: BTreeMap<Slot, Slotted>,
    installs: u64,
    later: BTreeMap<(Instant, u64), Later>,
    numbers: u64,
    commits_until: Instant,
    store: BTreeMap<SessionId, Stored>,
    disk: BTreeMap<SessionId, Stored>,
    recorded: BTreeMap<SessionId, Vec<(Instant, Session)>>,
    /// Last number each GAP in the record names, and when it was written.
    gaps: BTreeMap<SessionId, (Instant, Version)>,
    backlog: VecDeque<(Origin, Vec<u8>)>,
    rng: Rng,
    sequence: u64,
    orders: Vec<Order>,
    /// Slots somebody changed in the maps and nobody put back yet.
    pub tampered: BTreeSet<Slot>,
    /// Forged tags of each slot as they were read last.
    forged: BTreeMap<(Slot, Generation), u64>,
}

impl GatewayHost {
    /// A running gateway.
    pub fn new(
        private: PrivateKey,
        peers: Vec<(PublicKey, Arc<Policy>)>,
        bug: Bug,
        rng: &mut Rng,
        now: Instant,
    ) -> Self {
        let mut host = Self {
            engine: None,
            maps: Maps::new(SLOTS, PORT, now),
            xdp: rng.chance(500),
            frozen: None,
            failing: 0,
            bug,
            received: BTreeMap::new(),
            private: Arc::new(private),
            texts: peers.iter().map(|(_, policy)| (policy.version, policy.clone())).collect(),
            peers,
            load_threshold: if rng.chance(200) { 0 } else { 1_000 },
            incarnation: rng.number() | 1,
            slots: BTreeMap::new(),
            installs: 0,
            later: BTreeMap::new(),
            numbers: 0,
            commits_until: now,
            store: BTreeMap::new(),
            disk: BTreeMap::new(),
            recorded: BTreeMap::new(),
            gaps: BTreeMap::new(),
            backlog: VecDeque::new(),
            rng: rng.fork(),
            sequence: 0,
            orders: Vec::new(),
            tampered: BTreeSet::new(),
            forged: BTreeMap::new(),
        };
        host.start(now);
        host
    }

    fn start(&mut self, now: Instant) {
        let peers = self.peers.iter().enumerate().map(|(number, (key, policy))| {
            let peer = Peer {
                name: format!("client{number}"),
                preshared_key: PresharedKey::none(),
                addresses: vec![
                    format!("10.77.0.{}/32", number + 10).parse().expect("an address"),
                    format!("fd77::{}/128", number + 10).parse().expect("an address"),
                ],
                routes: Vec::new(),
                policy: policy.clone(),
            };
            (*key, peer)
        });
        let config = Config {
            node: "gw".into(),
            private_key: self.private.clone(),
            peers: peers.collect(),
            suites: vec![Suite::ChaCha20Poly1305, Suite::Aes256Gcm],
            max_sessions: SLOTS,
            workers: 1,
            mtu: 1_412,
            incarnation: Incarnation(self.incarnation),
            owner_epoch: OwnerEpoch(1),
            load_threshold: self.load_threshold,
        };
        self.maps.now = now;
        maps::unbind_all(&mut self.maps);
        self.maps.config.incarnation = self.incarnation;
        self.maps.alive_for(ALIVE_FOR);
        let mut engine = Engine::new(config, Box::new(self.rng.fork()), now);
        engine.sabotage(self.bug.sabotage());
        self.engine = Some(engine);
    }

    /// A datagram arrives at one of its addresses.
    pub fn receive(
        &mut self,
        now: Instant,
        origin: Origin,
        mut bytes: Vec<u8>,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        self.maps.now = now;
        let running = self.engine.is_some() && self.frozen.is_none();
        if running {
            self.maps.alive_for(ALIVE_FOR);
        }
        if !running && !self.xdp {
            self.queue(origin, bytes);
            return Vec::new();
        }
        if self.engine.is_none() && self.maps.config.role == 0 {
            return Vec::new();
        }
        let source = Source { address: mapped(origin.client.ip()), port: origin.client.port() };
        let asked = bytes.len();
        let (judgement, len) = {
            let mut frame = Bytes::new(&mut bytes);
            let judgement = steer::datagram(&mut frame, &source, &self.maps);
            (judgement, frame.packet().len())
        };
        match judgement.verdict.class() {
            Class::Answer => {
                bytes.truncate(len);
                assert!(len <= asked, "an answer larger than its question");
                vec![(origin.gateway, origin.client, bytes)]
            }
            Class::User if !running => {
                self.queue(origin, bytes);
                Vec::new()
            }
            Class::User => self.take(now, origin, bytes, judgement, checker, cover),
            Class::Pass | Class::Forward | Class::Drop => Vec::new(),
        }
    }

    fn queue(&mut self, origin: Origin, bytes: Vec<u8>) {
        if self.engine.is_some() && self.backlog.len() < BACKLOG_MAX {
            self.backlog.push_back((origin, bytes));
        }
    }

    fn take(
        &mut self,
        now: Instant,
        origin: Origin,
        mut bytes: Vec<u8>,
        judgement: steer::Judgement,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        if judgement.verdict != Verdict::Data {
            return self.give(now, Input::Datagram { origin, bytes: &mut bytes }, checker, cover);
        }
        let slot = Slot(judgement.entry.slot);
        let k = TransportIndex(judgement.entry.k);
        let Some(slotted) = self.slots.get_mut(&slot) else { return Vec::new() };
        let Some(keys) = slotted.epochs.iter_mut().find(|keys| keys.epoch.wire() == judgement.header.epoch) else {
            return Vec::new();
        };
        let Some(inner) = keys.open(k, &mut bytes) else { return Vec::new() };
        let epoch = keys.epoch;
        slotted.sending = slotted.sending.max(epoch);
        (slotted.opened, slotted.unanswered) = (Some(now), None);
        let session = slotted.session;
        let mut out = Vec::new();
        if inner.is_empty() {
            out.extend(self.seal(slot, &[]));
        } else {
            self.received.insert(session, now);
        }
        out.extend(self.give(
            now,
            Input::Activity { slot, opened: Some(now), unanswered: None, epoch },
            checker,
            cover,
        ));
        out
    }

    /// An inner packet for a peer.
    pub fn send_inner(&mut self, now: Instant, peer: &PublicKey, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        self.maps.now = now;
        let Some(engine) = self.engine.as_ref().filter(|_| self.frozen.is_none()) else { return Vec::new() };
        let Some((session, _)) = engine.sessions().find(|(_, view)| view.peer == peer) else { return Vec::new() };
        let newest =
            self.slots.iter().filter(|(_, held)| held.session == session).max_by_key(|(_, held)| held.installed);
        let Some(slot) = newest.map(|(&slot, _)| slot) else { return Vec::new() };
        self.sequence += 1;
        let inner = self.sequence.to_le_bytes().repeat(8);
        let Some(datagram) = self.seal(slot, &inner) else { return Vec::new() };
        checker.downlink(self, session, &datagram, now);
        let mut out = vec![datagram];
        let Some(slotted) = self.slots.get_mut(&slot) else { return out };
        if slotted.unanswered.is_none() {
            slotted.unanswered = Some(now);
            let (opened, epoch) = (slotted.opened, slotted.sending);
            let input = Input::Activity { slot, opened, unanswered: Some(now), epoch };
            out.extend(self.give(now, input, checker, cover));
        }
        out
    }

    /// Seals an inner packet to the active binding of a slot.
    fn seal(&self, slot: Slot, inner: &[u8]) -> Option<Out> {
        let slotted = self.slots.get(&slot)?;
        let bound = self.maps.bound(slot)?;
        let mut binding = *bound.active()?;
        if self.bug == Bug::DrainSends && bound.word.draining() != 0 {
            binding = bound.draining;
        }
        let locator = maps::locator_of(&self.maps, slot, binding.k)?;
        let keys = slotted.epochs.iter().find(|keys| keys.epoch == slotted.sending)?;
        let bytes = keys.seal(self.maps.keys(slot.0)?.down, FLAG_DOWN, TransportIndex(binding.k), locator, inner)?;
        let from = self.engine.as_ref()?.gateway_address(binding.gateway)?;
        Some((from, binding.remote(), bytes))
    }

    /// An operator's order.
    pub fn order(&mut self, now: Instant, order: Order, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        if self.frozen.is_some() {
            self.orders.push(order);
            return Vec::new();
        }
        self.give(now, Input::Order(order), checker, cover)
    }

    /// Everything that is due.
    pub fn wake(&mut self, now: Instant, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        let mut out = Vec::new();
        self.maps.now = now;
        if self.frozen.is_some_and(|until| until > now) || self.engine.is_none() {
            return out;
        }
        if self.frozen.take().is_some() {
            cover.note(now, || "gateway thaws".into());
            for order in core::mem::take(&mut self.orders) {
                out.extend(self.give(now, Input::Order(order), checker, cover));
            }
            for (origin, bytes) in core::mem::take(&mut self.backlog) {
                out.extend(self.receive(now, origin, bytes, checker, cover));
            }
        }
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Later::Computed(op, result) => {
                    out.extend(self.give(now, Input::Computed { op, result: *result }, checker, cover));
                }
                Later::Commit(op, commit) => out.extend(self.execute(now, op, *commit, checker, cover)),
            }
        }
        out.extend(self.give(now, Input::Wakeup, checker, cover));
        out
    }

    /// When the host wants to be woken.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        let engine = self.engine.as_ref()?;
        let own = [engine.wakeup(), self.later.first_key_value().map(|((at, _), _)| *at)].into_iter().flatten().min();
        match self.frozen {
            Some(until) => Some(until),
            None => own,
        }
    }

    /// Whether a commit is under way: maps and engine may differ.
    #[must_use]
    pub fn committing(&self) -> bool {
        self.later.values().any(|later| matches!(later, Later::Commit(..)))
    }

    /// An operator changes the policy of a peer and has the files read again.
    pub fn reload(
        &mut self,
        client: usize,
        policy: Policy,
        mode: Mode,
        now: Instant,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        let running = self.frozen.is_none();
        let (Some(engine), Some((key, of))) = (self.engine.as_mut().filter(|_| running), self.peers.get_mut(client))
        else {
            return Vec::new();
        };
        *of = Arc::new(policy);
        self.texts.insert(of.version, of.clone());
        engine.set_policies(&BTreeMap::from([(*key, of.clone())]), mode, "sim");
        self.give(now, Input::Wakeup, checker, cover)
    }

    fn give(&mut self, now: Instant, input: Input<'_>, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        let Some(engine) = &mut self.engine else { return Vec::new() };
        engine.handle(now, WALL + now.0, input);
        self.run(now, checker, cover)
    }

    fn run(&mut self, now: Instant, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        let mut out = Vec::new();
        while let Some(command) = self.engine.as_mut().and_then(Engine::poll) {
            match command {
                Command::Send(datagram) => out.push((datagram.origin.gateway, datagram.origin.client, datagram.bytes)),
                Command::Compute { op, job } => {
                    let result = job.run(&mut self.rng);
                    let at = now + self.rng.millis(0, 3);
                    self.put_off(at, Later::Computed(op, Box::new(result)));
                }
                // One executor: commits are carried out in the order they were given.
                Command::Commit { op, commit } if self.committing() || self.rng.chance(500) => {
                    let at = self.commits_until.max(now + self.rng.millis(0, 8));
                    self.commits_until = at;
                    self.put_off(at, Later::Commit(op, commit));
                }
                Command::Commit { op, commit } => out.extend(self.execute(now, op, *commit, checker, cover)),
                Command::Record(record) => self.record(now, &record, checker, cover),
            }
        }
        checker.gateway(self, now);
        out
    }

    fn put_off(&mut self, at: Instant, later: Later) {
        self.numbers += 1;
        self.later.insert((at, self.numbers), later);
    }

    /// Carries a commit out whole, or not at all.
    fn execute(
        &mut self,
        now: Instant,
        op: OpId,
        commit: Commit,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        let done = !self.rng.chance(self.failing);
        cover.note(now, || format!("commit {op:?} {done} {:?} records {}", commit.maps, commit.records.len()));
        let mut out = Vec::new();
        if done {
            commit.worker.into_iter().for_each(|op| self.work(op));
            self.maps.now = now;
            let left = commit.maps.iter().find_map(|op| if let MapOp::Free { slot } = op { Some(*slot) } else { None });
            for op in &commit.maps {
                if self.bug == Bug::TwoActive && left.is_some_and(|left| of_slot(op) == Some(left)) {
                    continue;
                }
                maps::apply(&mut self.maps, op);
            }
            commit.store.into_iter().for_each(|op| self.keep(op));
            for record in &commit.records {
                self.record(now, record, checker, cover);
            }
            out.extend(commit.send.into_iter().map(|sent| (sent.origin.gateway, sent.origin.client, sent.bytes)));
        }
        out.extend(self.give(now, Input::Committed { op, done }, checker, cover));
        out
    }

    fn work(&mut self, op: WorkerOp) {
        match op {
            WorkerOp::Install { slot, session, keys, .. } => {
                self.installs += 1;
                let epochs = vec![EpochKeys::new(keys.epoch, &keys.down, &keys.up)];
                let (sending, installed) = (keys.epoch, self.installs);
                self.slots
                    .insert(slot, Slotted { session, epochs, sending, opened: None, unanswered: None, installed });
            }
            WorkerOp::Next { slot, keys } => {
                if let Some(slotted) = self.slots.get_mut(&slot) {
                    slotted.epochs.push(EpochKeys::new(keys.epoch, &keys.down, &keys.up));
                }
            }
            WorkerOp::Wipe { slot, epoch } => {
                if let Some(slotted) = self.slots.get_mut(&slot) {
                    slotted.epochs.retain(|keys| keys.epoch != epoch);
                }
            }
            WorkerOp::WipeAll { slot } => {
                if let Some(slotted) = self.slots.get_mut(&slot) {
                    slotted.epochs.clear();
                }
            }
            // The simulated network has no packets that are too large.
            WorkerOp::PathMtu { .. } => {}
            WorkerOp::Free { slot } => drop(self.slots.remove(&slot)),
        }
    }

    /// Adds what the engine counted to the cover, before it is gone.
    pub fn collect(&self, cover: &mut Cover) {
        let Some(engine) = &self.engine else { return };
        let view = engine.view();
        for (&row, count) in &view.rows {
            *cover.rows.entry(row).or_default() += count;
            if TABLE.get(row).is_some_and(is_in_memory) {
                *cover.recorded.entry(row).or_default() += count;
            }
        }
        view.seen.iter().for_each(|(kind, count)| *cover.messages.entry(kind).or_default() += count);
        view.drops.iter().for_each(|(why, count)| *cover.drops.entry(format!("{why:?}")).or_default() += count);
    }

    /// Version of a session, if the engine has it.
    #[must_use]
    pub fn version_of(&self, id: SessionId) -> Option<Version> {
        self.engine.as_ref()?.sessions().find(|(known, _)| *known == id).map(|(_, view)| view.core.version())
    }

    /// The way of a datagram.
    #[must_use]
    pub fn origin(client: SocketAddr, gateway: SocketAddr) -> Origin {
        Origin { hop: Hop::Local, client, gateway }
    }

    /// Its two addresses.
    #[must_use]
    pub fn addresses() -> [SocketAddr; 2] {
        gateways()
    }
}

/// The slot an operation unbinds or frees.
fn of_slot(op: &MapOp) -> Option<Slot> {
    match op {
        MapOp::Free { slot } | MapOp::Activate { slot, .. } => Some(*slot),
        _ => None,
    }
}

/// Wall clock at boot.
pub const WALL: u64 = 1_700_000_000_000_000_000;
