//! What a gateway's worker does with a datagram, and where it sends an inner packet.
//!
//! Owns the glue between `steer` (the same function as the kernel's, and here the authoritative one) and the
//! worker. Must never cache a binding beyond one packet.

use super::sessions::{Entry, Shared as SessionsShared, Snapshot};
use crate::dataplane::{Shared, Turn, WorkerTables};
use crate::tunnel::{Inbound, Inner, Origin, Role, Route, SocketId};
use jvpn_common::abi::mapped;
use jvpn_common::ids::{SessionId, Slot, TransportIndex};
use jvpn_common::limits::ALIVE_FOR;
use jvpn_common::steer::{self, Bytes, Source};
use jvpn_common::time::{Duration, Instant};
use jvpn_common::verdict::Class;
use jvpn_common::wire::header::FLAG_DOWN;
use std::sync::Arc;

/// Sockets of the two families.
pub(super) const SOCKET_V4: SocketId = SocketId(4);
/// See [`SOCKET_V4`].
pub(super) const SOCKET_V6: SocketId = SocketId(6);

/// The gateway's side of a worker.
#[derive(Debug)]
pub(super) struct GatewayRole {
    tables: WorkerTables,
    shared: Arc<Shared>,
    sessions: Arc<SessionsShared>,
    snapshot: Arc<Snapshot>,
    turn: Turn,
    worker: usize,
}

impl GatewayRole {
    /// The side of worker number `worker`.
    #[must_use]
    pub(super) fn new(tables: WorkerTables, sessions: Arc<SessionsShared>, worker: usize) -> Self {
        let (shared, snapshot, turn) = (Arc::clone(tables.shared()), sessions.load(), tables.turn(Duration::ZERO));
        Self { tables, shared, sessions, snapshot, turn, worker }
    }

    fn route(&self, slot: Slot, entry: &Entry) -> Option<Destination> {
        let binding = self.tables.active(slot, entry.generation)?;
        let k = TransportIndex(binding.k);
        let locator = *entry.locators.get(&k)?;
        let path_mtu = entry.path_mtu.get(&k).copied().unwrap_or(binding.mtu);
        let local = self.snapshot.gateways.get(usize::from(binding.gateway)).map(std::net::SocketAddr::ip);
        let remote = binding.remote();
        let socket = if remote.is_ipv4() { SOCKET_V4 } else { SOCKET_V6 };
        Some(Destination { locator, k: binding.k, socket, remote, local, path_mtu })
    }

    fn to_slot(&self, slot: Slot) -> Option<Route<'_>> {
        let entry = self.snapshot.slots.get(slot)?;
        let to = self.route(slot, entry)?;
        Some(Route {
            session: &entry.data,
            locator: to.locator,
            k: to.k,
            steering: entry.steering.down,
            socket: to.socket,
            remote: to.remote,
            local: to.local,
            path_mtu: to.path_mtu,
        })
    }
}

/// A [`Route`] without its session.
struct Destination {
    locator: jvpn_common::ids::Locator,
    k: u16,
    socket: SocketId,
    remote: std::net::SocketAddr,
    local: Option<std::net::IpAddr>,
    path_mtu: u16,
}

impl Role for GatewayRole {
    const DIRECTION: u16 = FLAG_DOWN;

    fn begin(&mut self, _now: Instant, waited: Duration) {
        self.snapshot = self.sessions.load();
        self.shared.set_alive(self.worker, ALIVE_FOR);
        // After the lease, which is part of it.
        self.turn = self.tables.turn(waited);
    }

    fn inbound(&mut self, origin: &Origin, datagram: &mut [u8]) -> Inbound<'_> {
        let source = Source { address: mapped(origin.remote.ip().to_canonical()), port: origin.remote.port() };
        let mut payload = Bytes::new(datagram);
        let judgement = steer::datagram(&mut payload, &source, &self.tables.batch(&self.turn));
        let len = payload.packet().len();
        match judgement.verdict.class() {
            Class::Answer => Inbound::Reply(len),
            Class::User if judgement.header.kind == jvpn_common::wire::Kind::Data as u8 => {
                let entry = self.snapshot.slots.get(Slot(judgement.entry.slot));
                match entry.filter(|entry| entry.generation.0 == judgement.entry.generation) {
                    Some(entry) => Inbound::Open { session: &entry.data, k: judgement.entry.k },
                    None => Inbound::Drop,
                }
            }
            Class::User => Inbound::Control,
            _ => Inbound::Drop,
        }
    }

    fn outbound(&mut self, inner: &Inner) -> Option<Route<'_>> {
        let slot = *self.snapshot.routes.find(inner.destination)?;
        self.to_slot(slot)
    }

    fn route_of(&mut self, session: SessionId) -> Option<Route<'_>> {
        let slot = *self.snapshot.ids.get(&session)?;
        self.to_slot(slot)
    }
}
