//! The gateway's engine alone: real messages in, commands carried out by nobody, time of the gateway's side only.
//!
//! Owns one engine, a clock that a bench sets, and the processor time the engine took. Clients are in `client`. Must never
//! count a client's work, and never hide an answer that did not come: benches ask for each by name.

mod client;
pub mod crowd;

use std::sync::Arc;
use std::time::Duration;

use jvpn_common::crypto::Suite;
use jvpn_common::gateway::command::{Command, Datagram, Input, Origin};
use jvpn_common::gateway::{Config, Engine, Peer};
use jvpn_common::ids::{Incarnation, OwnerEpoch};
use jvpn_common::secret::{PresharedKey, PrivateKey};
use jvpn_common::session::Policy;
use jvpn_common::time::Instant;
use jvpn_ctl::runtime::entropy::System;
use rustix::time::{ClockId, clock_gettime};

pub use client::Client;

/// The wall clock of every bench: a hint that timestamps are compared with.
pub const WALL: u64 = 1_750_000_000_000_000_000;

/// Processor time of this thread.
#[must_use]
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// No quality and no limit decides anything: only moves that a bench asks for do.
#[must_use]
pub fn policy() -> Policy {
    let mut policy = Policy::field();
    for (key, text) in [
        ("max_switches_per_min", "600"),
        ("max_requests_per_min", "10000"),
        ("max_recoveries_degraded", "1000"),
        ("session_ttl", "30d"),
        ("cooldown", "0ms"),
        ("gateway_dead_after", "300s"),
    ] {
        policy.set(key, text).expect("a key with a value in its range");
    }
    policy
}

/// An engine and what it cost.
#[derive(Debug)]
pub struct Gateway {
    engine: Engine,
    now: Instant,
    /// Processor time spent in it since it was asked last.
    spent: Duration,
    /// Commits it asked for.
    pub commits: u64,
    /// Records in them and beside them.
    pub records: u64,
}

impl Gateway {
    /// A gateway of these peers that asks for a cookie above so many messages 1 a second.
    #[must_use]
    pub fn new(key: &PrivateKey, peers: &[PrivateKey], load_threshold: u32) -> Gateway {
        let policy = Arc::new(policy());
        let peers = peers.iter().enumerate().map(|(number, key)| {
            let address = std::net::Ipv4Addr::from_bits(0x0a50_0101 + u32::try_from(number).unwrap_or(0));
            let peer = Peer {
                name: format!("member-{number}"),
                preshared_key: PresharedKey::none(),
                addresses: vec![ipnet::Ipv4Net::from(address).into()],
                routes: Vec::new(),
                policy: Arc::clone(&policy),
            };
            (key.public(), peer)
        });
        let peers: std::collections::BTreeMap<_, _> = peers.collect();
        let config = Config {
            node: "gw".into(),
            private_key: Arc::new(key.duplicate()),
            max_sessions: u32::try_from(peers.len() + 16).unwrap_or(u32::MAX),
            peers,
            suites: vec![Suite::Aes256Gcm],
            workers: 1,
            mtu: 1_412,
            incarnation: Incarnation(7),
            owner_epoch: OwnerEpoch(1),
            load_threshold,
        };
        let now = Instant(1_000_000_000_000);
        let engine = Engine::new(config, Box::new(System), now);
        Gateway { engine, now, spent: Duration::ZERO, commits: 0, records: 0 }
    }

    /// Lets time pass; what is due fires with the next input.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Sessions it has.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.engine.sessions().count()
    }

    /// Processor time of the engine since this was asked last.
    pub fn spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    /// Gives it datagrams, one after the other; everything it sends. Handshake cryptography runs at once and counts as its
    /// time, commits succeed at once and cost what making and dropping them costs.
    pub fn take(&mut self, datagrams: Vec<(Origin, Vec<u8>)>) -> Vec<Datagram> {
        let mut sent = Vec::with_capacity(datagrams.len());
        let begin = thread_time();
        for (origin, mut bytes) in datagrams {
            self.engine.handle(self.now, WALL, Input::Datagram { origin, bytes: &mut bytes });
            self.carry_out(&mut sent);
        }
        self.spent += thread_time().saturating_sub(begin);
        sent
    }

    fn carry_out(&mut self, sent: &mut Vec<Datagram>) {
        while let Some(command) = self.engine.poll() {
            match command {
                Command::Send(datagram) => sent.push(datagram),
                Command::Compute { op, job } => {
                    let result = job.run(&mut System);
                    self.engine.handle(self.now, WALL, Input::Computed { op, result });
                }
                Command::Commit { op, commit } => {
                    self.commits += 1;
                    self.records += commit.records.len() as u64;
                    sent.extend(commit.send);
                    self.engine.handle(self.now, WALL, Input::Committed { op, done: true });
                }
                Command::Record(_) => self.records += 1,
            }
        }
    }
}
