//! Tests of the gateway engine: a scripted client, real wire bytes and real cryptography, and an executor
//! that does what commands say and checks what must always hold.
//!
//! Owns the executor ([`World`]). Must never look inside the engine where a command or an answer shows it.

mod birth;
mod client;
mod commit;
mod door;
mod hostile;
mod maps;
mod outbox;
mod reattach;
mod refusals;
mod rekey;
mod relay;
mod reload;
mod resume;
mod security;
mod sound;
mod timers;

use super::command::{Command, Commit, Datagram, Hop, Input, Order, Origin, StoreOp, Stored, WorkerOp};
use super::{Config, Drop, Engine, Peer, Restored};
use crate::crypto::Suite;
use crate::crypto::test_entropy::Fixed;
use crate::event::{Event, Record, Written};
use crate::ids::{Incarnation, OpId, OwnerEpoch, SessionId, Slot, Version};
use crate::limits::CONTROL_LEN;
use crate::reason::Reason;
use crate::secret::{PresharedKey, PrivateKey};
use crate::session::{Policy, Session, State};
use crate::time::{Duration, Instant};
use client::Client;
use maps::Maps;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The wall clock of every test.
const WALL: u64 = 1_750_000_000_000_000_000;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn key(seed: u8) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::generate(&mut Fixed::new(seed)))
}

fn origin(host: u8) -> Origin {
    let client = format!("192.0.2.{host}:4000").parse().unwrap();
    Origin { hop: Hop::Local, client, gateway: "198.51.100.1:51821".parse().unwrap() }
}

fn config() -> Config {
    let peer = |seed: u8| {
        let peer = Peer {
            name: format!("peer-{seed}"),
            preshared_key: PresharedKey::none(),
            addresses: vec![format!("10.77.0.{seed}/32").parse().unwrap()],
            routes: Vec::new(),
            policy: Arc::new(Policy::field()),
        };
        (key(seed).public(), peer)
    };
    Config {
        node: "gw".into(),
        private_key: key(1),
        peers: [peer(2), peer(3)].into(),
        suites: vec![Suite::ChaCha20Poly1305],
        max_sessions: 8,
        workers: 2,
        mtu: 1_412,
        incarnation: Incarnation(7),
        owner_epoch: OwnerEpoch(1),
        load_threshold: 1_000,
    }
}

/// The engine with everything it thinks it commands.
struct World {
    engine: Engine,
    entropy: Fixed,
    now: Instant,
    maps: Maps,
    store: BTreeMap<SessionId, Stored>,
    records: Vec<Record>,
    worker: Vec<WorkerOp>,
    /// Fail this many commits to come.
    failing: usize,
    /// An invariant is broken on purpose.
    broken: bool,
    /// Keep commits back until [`World::finish`].
    holding: bool,
    held: Vec<(OpId, Commit)>,
    commits: usize,
    out: Vec<Datagram>,
    /// What others were told while a datagram was answered.
    told: Vec<Datagram>,
    versions: BTreeMap<SessionId, Version>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let now = Instant(1_000_000_000_000);
        Self {
            engine: Engine::new(config, Box::new(Fixed::new(99)), now),
            entropy: Fixed::new(98),
            now,
            maps: Maps::default(),
            store: BTreeMap::new(),
            records: Vec::new(),
            worker: Vec::new(),
            failing: 0,
            broken: false,
            holding: false,
            held: Vec::new(),
            commits: 0,
            out: Vec::new(),
            told: Vec::new(),
            versions: BTreeMap::new(),
        }
    }

    /// A world in which every peer has the default policy with changes.
    fn with_policy(change: impl Fn(&mut Policy)) -> Self {
        Self::with(|config| {
            for peer in config.peers.values_mut() {
                let mut policy = Policy::field();
                change(&mut policy);
                peer.policy = Arc::new(policy);
            }
        })
    }

    /// Gives one input and does everything that comes of it; what was sent.
    fn give(&mut self, input: Input<'_>) -> Vec<Datagram> {
        self.engine.handle(self.now, WALL, input);
        self.run();
        std::mem::take(&mut self.out)
    }

    /// Delivers a datagram: whatever is answered to it is not larger and goes back where it came from.
    fn deliver(&mut self, origin: Origin, bytes: &[u8]) -> Vec<Datagram> {
        let sent = self.give(Input::Datagram { origin, bytes: &mut bytes.to_vec() });
        let (answers, told): (Vec<_>, Vec<_>) = sent.into_iter().partition(|sent| sent.origin == origin);
        for answer in &answers {
            assert!(answer.bytes.len() <= bytes.len(), "{} bytes answer {}", answer.bytes.len(), bytes.len());
        }
        // An answer goes back the way its question came; elsewhere only who is superseded hears of it.
        assert!(told.len() <= 1 && told.iter().all(|told| told.bytes.len() < CONTROL_LEN), "{told:?}");
        self.told.extend(told);
        assert_eq!(self.drops(Drop::AnswerTooLarge), 0);
        answers
    }

    fn order(&mut self, order: Order) -> Vec<Datagram> {
        self.give(Input::Order(order))
    }

    /// Lets time pass, waking the engine whenever it asks for it.
    fn pass(&mut self, time: Duration) -> Vec<Datagram> {
        let until = self.now + time;
        let mut sent = Vec::new();
        let mut wakeups = 0;
        while let Some(at) = self.engine.wakeup().filter(|at| *at <= until) {
            wakeups += 1;
            assert!(wakeups < 1_000, "it wakes for ever: {at:?} at {:?}", self.now);
            self.now = self.now.max(at);
            sent.extend(self.give(Input::Wakeup));
        }
        self.now = until;
        sent.extend(self.give(Input::Wakeup));
        sent
    }

    fn run(&mut self) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::Send(datagram) => self.out.push(datagram),
                Command::Compute { op, job } => {
                    let result = job.run(&mut self.entropy);
                    self.engine.handle(self.now, WALL, Input::Computed { op, result });
                }
                Command::Commit { op, commit } if self.holding => self.held.push((op, *commit)),
                Command::Commit { op, commit } => self.execute(op, *commit),
                Command::Record(record) => self.record(*record),
            }
        }
    }

    /// Carries out what was kept back.
    fn finish(&mut self) -> Vec<Datagram> {
        self.holding = false;
        for (op, commit) in std::mem::take(&mut self.held) {
            self.execute(op, commit);
        }
        self.run();
        std::mem::take(&mut self.out)
    }

    fn execute(&mut self, op: OpId, commit: Commit) {
        let done = self.failing == 0;
        self.failing = self.failing.saturating_sub(1);
        self.commits += 1;
        if done {
            self.worker.extend(commit.worker);
            for map in &commit.maps {
                self.maps.apply(map);
            }
            for step in commit.store {
                match step {
                    StoreOp::Put { stored, .. } => drop(self.store.insert(stored.session, *stored)),
                    StoreOp::Remove(session) => drop(self.store.remove(&session)),
                }
            }
            for record in commit.records {
                self.record(record);
            }
            self.out.extend(commit.send);
        }
        self.engine.handle(self.now, WALL, Input::Committed { op, done });
        self.check();
    }

    /// Every transition has one record, with the version after the last one's.
    fn record(&mut self, record: Record) {
        let broken = matches!(record.input, Some(Written::InvariantBroken { .. }));
        assert!(!broken || self.broken, "an invariant does not hold: {record:?}");
        let session = record.session_id.unwrap();
        let last = self.versions.entry(session).or_default();
        match record.event {
            Event::Gap => {
                let named: u64 = record.details["last"].as_str().unwrap().parse().unwrap();
                assert_eq!(record.details["first"].as_str().unwrap(), last.next().to_string());
                *last = Version(named);
            }
            Event::StateChange | Event::TransportSwitch => {
                assert_eq!(record.state_version, last.next(), "{record:?}");
                *last = record.state_version;
            }
            _ => {}
        }
        self.records.push(record);
    }

    /// The engine, the maps and the store say the same.
    fn check(&self) {
        for (id, view) in self.engine.sessions() {
            assert!(view.core.is_live());
            let stored = Session::decode(&self.store[&id].core).unwrap();
            assert_eq!((stored.version(), stored.state()), (view.core.version(), view.core.state()));
            assert!(view.core.version() <= self.store[&id].ceiling);
            let bound = self.maps.bound(id);
            let said = view.core.transport().map(|transport| (transport.path.remote(), transport.k.0));
            assert_eq!(bound, said, "the kernel is bound to what the core says");
        }
        assert_eq!(self.store.len(), self.engine.sessions().count());
    }

    fn drops(&self, why: Drop) -> u64 {
        self.engine.view().drops.get(&why).copied().unwrap_or(0)
    }

    fn state(&self, id: SessionId) -> Option<State> {
        self.engine.sessions().find(|(known, _)| *known == id).map(|(_, view)| view.core.state())
    }

    fn version(&self, id: SessionId) -> u64 {
        self.engine.sessions().find(|(known, _)| *known == id).map_or(0, |(_, view)| view.core.version().0)
    }

    fn slot(&self, id: SessionId) -> Slot {
        self.engine.sessions().find(|(known, _)| *known == id).and_then(|(_, view)| view.slot).unwrap()
    }

    fn sessions(&self) -> Vec<SessionId> {
        self.engine.sessions().map(|(id, _)| id).collect()
    }

    /// Everything visible from outside, to show that nothing changed.
    fn picture(&self) -> (Vec<(SessionId, Vec<u8>)>, Maps, usize) {
        let cores = self.engine.sessions().map(|(id, view)| (id, view.core.encode())).collect();
        (cores, self.maps.clone(), self.engine.view().pending)
    }

    fn reasons(&self) -> Vec<Reason> {
        self.records.iter().filter_map(|record| record.reason).collect()
    }

    fn recorded(&self, reason: Reason) -> usize {
        self.reasons().iter().filter(|known| **known == reason).count()
    }
}

/// A world with one session, and its client.
fn attached() -> (World, Client) {
    attached_in(World::new())
}

fn attached_in(mut world: World) -> (World, Client) {
    let mut client = Client::new(2, origin(10));
    client.birth(&mut world);
    (world, client)
}
