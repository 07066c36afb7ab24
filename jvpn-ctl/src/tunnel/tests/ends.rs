//! A whole worker without privileges: a real UDP socket on the loopback, a pair of sockets as its TUN, and time
//! that only the test moves.
//!
//! Owns the two sides the worker's tests are made of. Must never decide what a worker does with a packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration as Patience, Instant as Clock};

use jvpn_common::crypto::Suite;
use jvpn_common::ids::{Epoch, Locator, SessionId};
use jvpn_common::secret::Secret;
use jvpn_common::tag::steering_tag;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::wire::Kind;
use jvpn_common::wire::header::{FLAG_DOWN, Header};
use socket2::Socket;

use crate::tunnel::inner::Inner;
use crate::tunnel::queue::{FromWorker, Inbox, ToController, WorkerHandle, to_controller};
use crate::tunnel::role::{Inbound, Origin, Role, Route, SocketId};
use crate::tunnel::session::SessionData;
use crate::tunnel::udp::{UdpOptions, UdpPort};
use crate::tunnel::vnet::VNET_LEN;
use crate::tunnel::worker::{Turn, Worker, WorkerOptions};
use crate::tunnel::{Counter, Counters, DataKey, Tun};

/// When tests begin.
pub(super) const START: Instant = Instant(1_000_000_000_000);
pub(super) const SOCKET: SocketId = SocketId(1);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const STEERING: [u64; 2] = [11, 12];

/// Inner address of a client.
pub(super) fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + 2 * n)
}

pub(super) fn session_id(n: u8) -> SessionId {
    SessionId([n + 1; 16])
}

/// The keys of an epoch of client `n`'s session, as the gateway or the client holds them.
pub(super) fn key(n: u8, epoch: u32, gateway: bool, born: Instant) -> Arc<DataKey> {
    let secret = |way: u8| Secret::take(&mut [100 * way + 10 * n + epoch as u8; 32]);
    let (ours, theirs) = if gateway { (2, 1) } else { (1, 2) };
    Arc::new(DataKey::new(Suite::Aes256Gcm, Epoch(epoch), secret(ours), secret(theirs), born))
}

/// What a role knows of one peer.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) session: Arc<SessionData>,
    pub(super) locator: u64,
    /// Inner packets for this address go there.
    pub(super) inner: IpAddr,
    pub(super) remote: SocketAddr,
}

/// What the test sets and the worker reads at the beginning of a turn.
#[derive(Clone, Default)]
pub(super) struct Plan {
    pub(super) peers: Vec<Peer>,
    pub(super) hold: bool,
    /// What the worker said last of how long packets may have waited.
    pub(super) waited: Duration,
}

pub(super) struct Planned<const DIRECTION: u16> {
    plan: Arc<Mutex<Plan>>,
    now: Plan,
}

impl Peer {
    fn route(&self) -> Route<'_> {
        Route {
            session: &self.session,
            locator: Locator(self.locator),
            k: 0,
            steering: STEERING,
            socket: SOCKET,
            remote: self.remote,
            local: None,
            path_mtu: 1_500,
        }
    }
}

impl<const DIRECTION: u16> Role for Planned<DIRECTION> {
    const DIRECTION: u16 = DIRECTION;

    fn begin(&mut self, _now: Instant, waited: Duration) {
        self.plan.lock().unwrap().waited = waited;
        self.now = self.plan.lock().unwrap().clone();
    }

    fn inbound(&mut self, _origin: &Origin, datagram: &mut [u8]) -> Inbound<'_> {
        let Some((header, _)) = Header::parse(datagram) else { return Inbound::Drop };
        let peer = self.now.peers.iter().find(|peer| peer.locator == header.locator);
        match (Kind::from_byte(header.kind), peer) {
            (Some(Kind::Data), Some(peer)) => Inbound::Open { session: &peer.session, k: 0 },
            (Some(Kind::Control), _) => Inbound::Control,
            _ => Inbound::Drop,
        }
    }

    fn outbound(&mut self, inner: &Inner) -> Option<Route<'_>> {
        self.now.peers.iter().find(|peer| peer.inner == inner.destination).map(Peer::route)
    }

    fn route_of(&mut self, session: SessionId) -> Option<Route<'_>> {
        self.now.peers.iter().find(|peer| peer.session.id() == session).map(Peer::route)
    }

    fn holds(&self) -> bool {
        self.now.hold
    }
}

/// One worker and everything around it.
pub(super) struct End<const DIRECTION: u16> {
    pub(super) worker: Worker<Planned<DIRECTION>>,
    pub(super) handle: WorkerHandle,
    pub(super) inbox: Inbox<FromWorker>,
    pub(super) counters: Arc<Counters>,
    pub(super) tun: Socket,
    pub(super) plan: Arc<Mutex<Plan>>,
    pub(super) port: Arc<UdpPort>,
    pub(super) address: SocketAddr,
    controller: ToController,
}

pub(super) type ClientEnd = End<0>;
pub(super) type GatewayEnd = End<FLAG_DOWN>;

impl<const DIRECTION: u16> End<DIRECTION> {
    /// A worker that knows nobody.
    pub(super) fn new(refuses_merged: bool) -> Self {
        let (tun, other) = Tun::pair(refuses_merged);
        let (controller, inbox) = to_controller().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let role = Planned { plan: Arc::clone(&plan), now: Plan::default() };
        let (worker, handle) = Worker::new(role, tun, controller.clone(), WorkerOptions::default()).unwrap();
        let port = Arc::new(outside());
        let address = port.local_addr().unwrap();
        assert!(handle.add_socket(SOCKET, Arc::clone(&port)));
        let counters = worker.counters();
        Self { worker, handle, inbox, counters, tun: other, plan, port, address, controller }
    }

    /// Knows client `n` (on a gateway) or is client `n`; the other side is at `remote`. Sends under `epoch`.
    pub(super) fn knows(&self, n: u8, epoch: u32, remote: SocketAddr) -> Arc<SessionData> {
        let gateway = DIRECTION == FLAG_DOWN;
        let inner = IpAddr::from(if gateway { client(n) } else { GATEWAY });
        let session = Arc::new(SessionData::new(session_id(n), vec![inner.into()]));
        session.change_keys(|keys| keys.current = Some(key(n, epoch, gateway, START)));
        let peer = Peer { session: Arc::clone(&session), locator: 0xa0 + u64::from(n), inner, remote };
        self.plan.lock().unwrap().peers.push(peer);
        session
    }

    pub(super) fn counter(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }

    /// Everything counted, for a failure's message.
    pub(super) fn dump(&self) -> String {
        self.counters.iter().filter(|(_, value)| *value > 0).map(|(name, value)| format!("{name} {value}\n")).collect()
    }

    /// Turns until there is nothing to do at `now`.
    pub(super) fn settle(&mut self, now: Instant) {
        while self.worker.turn(now).unwrap() == Turn::Worked {}
    }

    /// Turns, and waits for the kernel between them, until `done`.
    pub(super) fn until(&mut self, now: Instant, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Clock::now();
        loop {
            self.settle(now);
            if done(self) {
                return;
            }
            assert!(start.elapsed() < Patience::from_secs(10), "never happened: {what}\n{}", self.dump());
            self.worker.sleep().unwrap();
        }
    }

    /// An inner packet, as an application here would send it.
    pub(super) fn gives(&self, packet: &[u8]) {
        self.gives_with(&[0; VNET_LEN], packet);
    }

    /// A super-packet with its virtio header.
    pub(super) fn gives_with(&self, vnet: &[u8; VNET_LEN], packet: &[u8]) {
        let bytes = [vnet, packet].concat();
        assert_eq!(self.tun.send(&bytes).unwrap(), bytes.len());
    }

    /// What the worker wrote to the TUN since it was last asked, virtio headers included.
    pub(super) fn written(&self) -> Vec<([u8; VNET_LEN], Vec<u8>)> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 70_000];
        while let Ok(len) = rustix::net::recv(&self.tun, &mut buffer, rustix::net::RecvFlags::empty()) {
            let (vnet, packet) = buffer[..len.0].split_first_chunk().unwrap();
            packets.push((*vnet, packet.to_vec()));
        }
        packets
    }

    /// The packets alone.
    pub(super) fn packets(&self) -> Vec<Vec<u8>> {
        self.written().into_iter().map(|(_, packet)| packet).collect()
    }

    /// Leaves the controller's queue no room.
    pub(super) fn fill_controller(&self) {
        let message = || FromWorker::Pong { session: session_id(0), id: 0, at: START };
        while self.controller.0.send(message()) {}
    }

    /// What the controller was told since it was last asked.
    pub(super) fn told(&self) -> Vec<FromWorker> {
        std::iter::from_fn(|| self.inbox.next()).collect()
    }
}

/// A client and its gateway that know each other under epoch 1.
pub(super) fn pair() -> (ClientEnd, GatewayEnd, Arc<SessionData>, Arc<SessionData>) {
    let (up, down) = (ClientEnd::new(false), GatewayEnd::new(false));
    let (ours, theirs) = (up.knows(0, 1, down.address), down.knows(0, 1, up.address));
    (up, down, ours, theirs)
}

/// A socket of nobody known.
pub(super) fn outside() -> UdpPort {
    UdpPort::open(&UdpOptions::new("127.0.0.1:0".parse().unwrap())).unwrap()
}

/// An inner packet of a protocol that nobody merges or checks.
pub(super) fn packet(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let len = 20 + payload.len();
    let mut packet = vec![0x45, 0, (len >> 8) as u8, len as u8, 0, 0, 0x40, 0, 64, 253, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// One from client 0 to the gateway, with a number in it.
pub(super) fn numbered(n: u16, len: usize) -> Vec<u8> {
    let mut payload = vec![0x5a; len];
    payload[..2].copy_from_slice(&n.to_be_bytes());
    packet(client(0), GATEWAY, &payload)
}

/// A data datagram of client `n`, as it lies on the wire.
pub(super) fn sealed(key: &DataKey, locator: u64, direction: u16, plain: &[u8]) -> Vec<u8> {
    let (kind, epoch) = (Kind::Data as u8, key.epoch().wire());
    let header = |counter| {
        let tag = steering_tag(STEERING, counter, kind, epoch, direction, 0, None);
        Header { kind, epoch, flags: direction, tag, locator, counter }.to_bytes()
    };
    let mut text = plain.to_vec();
    let sealed = key.sealing().reserve(0, 1).unwrap().seal_next(header, &mut text).unwrap();
    [&sealed.header[..], &text, &sealed.tag].concat()
}
