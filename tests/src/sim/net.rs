//! The network of a seed: paths with their NATs, and what is wrong with them at the moment.
//!
//! Owns delay, loss, silence, duplication, reordering and the NAT of each path. Must never look into a
//! datagram.

use super::rng::Rng;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use jvpn_common::client::{PathClass, PathId};
use jvpn_common::message::Label;
use jvpn_common::time::{Duration, Instant};

/// The gateway's addresses.
#[must_use]
pub fn gateways() -> [SocketAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    [SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), PORT), SocketAddr::new(v6.into(), PORT)]
}

/// The gateway's port.
pub const PORT: u16 = 51_821;

/// Bytes of a probe that is not padded, and of its echo.
const PROBE_LEN: usize = 72;

/// One way of a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Nothing passes before this.
    pub silent_until: Instant,
    /// Losses in 1/1000, before `lossy_until`.
    pub loss: u64,
    /// Of datagrams longer than [`PROBE_LEN`] only: probes and echoes pass.
    pub large_only: bool,
    /// See `loss`.
    pub lossy_until: Instant,
    /// Delivered twice in 1/1000, before `odd_until`.
    pub twice: u64,
    /// Held back in 1/1000, before `odd_until`.
    pub reorder: u64,
    /// See `twice`.
    pub odd_until: Instant,
}

/// A port of a client on a path, as the gateway sees it.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name for the client.
    pub id: PathId,
    /// Outer address.
    pub outer: SocketAddr,
    /// When the NAT made its mapping.
    pub mapped: Instant,
}

/// A path of a client.
#[derive(Clone, Debug)]
pub struct NetPath {
    /// Its name for the client; another local network is another one.
    pub id: PathId,
    /// Its label.
    pub label: Label,
    /// Its class.
    pub class: PathClass,
    /// Whether bytes cost money.
    pub metered: bool,
    /// Outer family.
    pub v6: bool,
    /// Largest outer packet that passes.
    pub mtu: u16,
    /// Whether the client has it.
    pub up: bool,
    /// When it comes back.
    pub up_at: Option<Instant>,
    /// Outer address as the gateway sees it.
    pub outer: SocketAddr,
    /// When the NAT made its mapping.
    pub mapped: Instant,
    /// How long mappings live, busy or not.
    pub life: Option<Duration>,
    /// Ports beside the first one.
    pub ports: Vec<Port>,
    /// One way delay.
    pub delay: Duration,
    /// More of it, until when.
    pub spike: (Duration, Instant),
    /// Variation.
    pub jitter: Duration,
    /// Client to gateway.
    pub to_gateway: Way,
    /// Gateway to client.
    pub to_client: Way,
}

impl NetPath {
    /// A path of a client, numbered.
    pub fn new(client: u8, number: u8, rng: &mut Rng) -> Self {
        let v6 = rng.chance(250);
        let class = match number {
            0 => PathClass::Primary,
            1 if rng.chance(500) => PathClass::Primary,
            3 => PathClass::Backup,
            _ => PathClass::Secondary,
        };
        let mut path = Self {
            id: PathId(u32::from(number) + 1),
            label: Label::new(format!("path{number}")),
            class,
            metered: rng.chance(100),
            v6,
            mtu: [1_500, 1_500, 1_500, 1_420, 1_380][rng.below(5) as usize],
            up: true,
            up_at: None,
            outer: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            mapped: Instant(0),
            life: None,
            ports: Vec::new(),
            delay: rng.millis(1, 60),
            spike: (Duration::ZERO, Instant(0)),
            jitter: rng.millis(0, 4),
            to_gateway: Way::default(),
            to_client: Way::default(),
        };
        path.renumber(client, number, rng);
        path
    }

    /// Another outer address: another network, or another NAT.
    pub fn renumber(&mut self, client: u8, number: u8, rng: &mut Rng) {
        let net = rng.below(250) as u8 + 1;
        let ip = if self.v6 {
            Ipv6Addr::new(0x2001, 0xdb8, u16::from(client) + 1, u16::from(number), 0, 0, 0, u16::from(net)).into()
        } else {
            IpAddr::V4(Ipv4Addr::new(100, 64 + client, number, net))
        };
        self.outer = SocketAddr::new(ip, rng.between(1_024, 65_000) as u16);
    }

    /// Another port: the NAT forgot.
    pub fn rebind(&mut self, rng: &mut Rng) {
        let old = self.outer.port();
        while self.outer.port() == old {
            self.outer.set_port(rng.between(1_024, 65_000) as u16);
        }
    }

    /// From where the gateway sees what leaves a port now; a mapping whose life is over is another one.
    pub fn leaves(&mut self, id: PathId, now: Instant, rng: &mut Rng) -> Option<SocketAddr> {
        let over = |mapped: Instant| self.life.is_some_and(|life| now.since(mapped) >= life);
        if self.id == id {
            if over(self.mapped) {
                self.rebind(rng);
                self.mapped = now;
            }
            return Some(self.outer);
        }
        let life = self.life;
        let port = self.ports.iter_mut().find(|port| port.id == id)?;
        if life.is_some_and(|life| now.since(port.mapped) >= life) {
            port.outer.set_port(rng.between(1_024, 65_000) as u16);
            port.mapped = now;
        }
        Some(port.outer)
    }

    /// The port to which an outer address leads now.
    pub fn leads_to(&self, outer: SocketAddr, now: Instant) -> Option<PathId> {
        let lives = |mapped: Instant| self.life.is_none_or(|life| now.since(mapped) < life);
        if self.outer == outer {
            return lives(self.mapped).then_some(self.id);
        }
        self.ports.iter().find(|port| port.outer == outer && lives(port.mapped)).map(|port| port.id)
    }

    /// Whether a port of this name is on the path.
    pub fn port(&self, id: PathId) -> bool {
        self.id == id || self.ports.iter().any(|port| port.id == id)
    }

    /// Another port, which has the name `id`.
    pub fn open(&mut self, id: PathId, now: Instant) {
        let port = 1_024 + (self.outer.port().wrapping_add((id.0 % 1_000) as u16 * 61)) % 60_000;
        self.ports.push(Port { id, outer: SocketAddr::new(self.outer.ip(), port), mapped: now });
    }

    /// A port is closed; the path has the name of one that is left.
    pub fn close(&mut self, id: PathId) {
        self.ports.retain(|port| port.id != id);
        if self.id == id && !self.ports.is_empty() {
            let Port { id, outer, mapped } = self.ports.remove(0);
            (self.id, self.outer, self.mapped) = (id, outer, mapped);
        }
    }

    /// When a datagram of `len` bytes arrives: never, once or twice.
    pub fn carry(&self, up: bool, len: usize, now: Instant, rng: &mut Rng) -> Vec<Instant> {
        let way = if up { &self.to_gateway } else { &self.to_client };
        let headers = if self.v6 { 48 } else { 28 };
        let silent = now < way.silent_until || len + headers > usize::from(self.mtu);
        let concerned = now < way.lossy_until && (!way.large_only || len > PROBE_LEN);
        if silent || (concerned && rng.chance(way.loss)) {
            return Vec::new();
        }
        let spike = if now < self.spike.1 { self.spike.0 } else { Duration::ZERO };
        let jitter = Duration::from_nanos(rng.below(self.jitter.as_nanos() as u64 + 1));
        let mut at = now + self.delay + spike + jitter;
        let odd = now < way.odd_until;
        if odd && rng.chance(way.reorder) {
            at = at + rng.millis(1, 40);
        }
        let mut arrivals = vec![at];
        if odd && rng.chance(way.twice) {
            arrivals.push(at + rng.millis(0, 20));
        }
        arrivals
    }

    /// Nothing is wrong any more.
    pub fn heal(&mut self) {
        self.to_gateway = Way::default();
        self.to_client = Way::default();
        self.spike = (Duration::ZERO, Instant(0));
        self.life = None;
    }
}
