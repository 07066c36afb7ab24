//! Two workers with fixed keys between two namespaces: real UDP sockets, real TUN devices, no controller.
//!
//! Owns the rig (a client side and a gateway side that know one session), shared by the tunnel's suite and its bench.
//! Must never be more than a worker's surroundings: what the product decides is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use jvpn_common::crypto::Suite;
use jvpn_common::ids::{Epoch, Locator, SessionId};
use jvpn_common::secret::Secret;
use jvpn_common::tag::steering_tag;
use jvpn_common::time::{Duration, Instant};
use jvpn_common::wire::header::FLAG_DOWN;
use jvpn_common::wire::{Header, Kind};
use jvpn_ctl::tunnel::{
    Counter, Counters, DataKey, FromWorker, Inbound, Inbox, Inner, Origin, Role, Route, SessionData, SocketId, Tun,
    TunOptions, TunnelAddresses, UdpOptions, UdpPort, Worker, WorkerHandle, WorkerOptions, to_controller,
};

use super::underlay::{CLIENT_INTERFACE, Underlay};
use crate::lab::netns::Netns;

/// The one session.
pub const SESSION: SessionId = SessionId([7; 16]);
/// UDP port of both ends.
pub const PORT: u16 = 51_821;
/// Inner MTU of both ends; what the product uses on a link of 1,500.
pub const INNER_MTU: u16 = 1_412;
const LOCATOR: Locator = Locator(0x0123_4567_89ab_cdef);
const STEERING: [u64; 2] = [11, 12];
/// The worker's name of its one socket.
pub const SOCKET: SocketId = SocketId(1);

/// Inner address of side 0 (client) or 1 (gateway).
pub fn inner4(side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, side + 1)
}

/// See [`inner4`].
pub fn inner6(side: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(side) + 1)
}

/// How the rig is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// None: no cipher at all, the ceiling.
    pub suite: Option<Suite>,
    /// Carry inner checksums that the kernel left partial.
    pub carry: bool,
    pub path_mtu: u16,
    /// The client's socket is bound to its uplink, as the product's are.
    pub bound: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { suite: Some(Suite::Aes256Gcm), carry: true, path_mtu: 1_500, bound: false }
    }
}

/// A role that knows one session and believes every source that has the steering key.
struct OneSession<const DIRECTION: u16> {
    session: Arc<SessionData>,
    remote: SocketAddr,
    path_mtu: u16,
    /// How often the worker's thread allocated until its last turn.
    allocated: Arc<AtomicU64>,
}

impl<const DIRECTION: u16> OneSession<DIRECTION> {
    fn route(&self) -> Route<'_> {
        Route {
            session: &self.session,
            locator: LOCATOR,
            k: 0,
            steering: STEERING,
            socket: SOCKET,
            remote: self.remote,
            local: None,
            path_mtu: self.path_mtu,
        }
    }
}

impl<const DIRECTION: u16> Role for OneSession<DIRECTION> {
    const DIRECTION: u16 = DIRECTION;

    fn begin(&mut self, _now: Instant, _waited: Duration) {
        self.allocated.store(crate::lab::allocations(), Relaxed);
    }

    fn inbound(&mut self, _origin: &Origin, datagram: &mut [u8]) -> Inbound<'_> {
        let Some((header, _)) = Header::parse(datagram) else { return Inbound::Drop };
        let tag = steering_tag(STEERING, header.counter, header.kind, header.epoch, header.flags, 0, None);
        match Kind::from_byte(header.kind) {
            Some(Kind::Data) if header.locator == LOCATOR.0 && header.tag == tag => {
                Inbound::Open { session: &self.session, k: 0 }
            }
            Some(Kind::Control) => Inbound::Control,
            Some(Kind::Probe) => Inbound::Reply(datagram.len()),
            _ => Inbound::Drop,
        }
    }

    fn outbound(&mut self, _inner: &Inner) -> Option<Route<'_>> {
        Some(self.route())
    }

    fn route_of(&mut self, session: SessionId) -> Option<Route<'_>> {
        (session == SESSION).then(|| self.route())
    }
}

/// One end while it runs.
#[derive(Debug)]
pub struct End {
    pub handle: WorkerHandle,
    pub counters: Arc<Counters>,
    pub inbox: Inbox<FromWorker>,
    pub session: Arc<SessionData>,
    /// How often the worker's thread allocated until its last turn; 0 unless the suite counts.
    pub allocated: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<()>>,
}

/// A worker in each namespace of an underlay, the client's first.
#[derive(Debug)]
pub struct Rig {
    pub ends: Vec<End>,
    /// Goes after the workers in it.
    pub underlay: Underlay,
}

/// Runs `work` on a thread of its own in a namespace.
pub fn within<T: Send + 'static>(space: &Netns, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<Result<T>> {
    let space = space.clone();
    std::thread::spawn(move || {
        space.join()?;
        Ok(work())
    })
}

impl Rig {
    /// Fresh namespaces with a worker in each.
    pub fn new(setup: Setup) -> Result<Self> {
        let mut rig = Self { ends: Vec::new(), underlay: Underlay::up()? };
        rig.ends.push(start::<0>(&rig.space(0), 0, setup).context("start the client's worker")?);
        rig.ends.push(start::<FLAG_DOWN>(&rig.space(1), 1, setup).context("start the gateway's worker")?);
        Ok(rig)
    }

    /// Namespace of a side.
    pub fn space(&self, side: usize) -> Netns {
        if side == 0 { self.underlay.client() } else { self.underlay.gateway() }
    }

    /// What a side's worker last published.
    pub fn counter(&self, side: usize, counter: Counter) -> u64 {
        self.ends.get(side).map_or(0, |end| end.counters.value(counter))
    }

    /// Everything both sides counted, for a failure's message.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (side, end) in self.ends.iter().enumerate() {
            for (counter, value) in end.counters.iter().filter(|(_, value)| *value > 0) {
                text.push_str(&format!("side {side} {counter} {value}\n"));
            }
        }
        text
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for end in self.ends.drain(..) {
            let ended = end.handle.stop() && end.thread.join().is_ok_and(|result| result.is_ok());
            // A second panic would leave the namespaces behind.
            assert!(ended || std::thread::panicking(), "the worker did not end well");
        }
    }
}

/// The key of one side.
fn key(side: u8, suite: Option<Suite>) -> DataKey {
    let secret = |n: u8| Secret::take(&mut [n; 32]);
    let (ours, theirs) = if side == 0 { (1, 2) } else { (2, 1) };
    // Far ahead of any boot time: it never grows old.
    let born = Instant(1 << 62);
    match suite {
        Some(suite) => DataKey::new(suite, Epoch(1), secret(ours), secret(theirs), born),
        None => DataKey::null(Epoch(1), born),
    }
}

/// Opens the socket of a side, in the namespace of the calling thread.
pub fn open(side: u8, bound: bool) -> std::io::Result<UdpPort> {
    let device = (bound && side == 0).then(|| CLIENT_INTERFACE.uplink().to_owned());
    UdpPort::open(&UdpOptions { device, ..UdpOptions::new(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT)) })
}

/// Starts one end.
fn start<const DIRECTION: u16>(space: &Netns, side: u8, setup: Setup) -> Result<End> {
    let peer = vec![IpAddr::V4(inner4(1 - side)).into(), IpAddr::V6(inner6(1 - side)).into()];
    let session = Arc::new(SessionData::new(SESSION, peer));
    let key = Arc::new(key(side, setup.suite));
    session.change_keys(|keys| keys.current = Some(key));
    let (to_controller, inbox) = to_controller()?;
    let (sender, receiver) = sync_channel(1);
    let role = OneSession::<DIRECTION> {
        session: Arc::clone(&session),
        remote: SocketAddr::new(Underlay::outer(usize::from(1 - side))?, PORT),
        path_mtu: setup.path_mtu,
        allocated: Arc::default(),
    };
    let allocated = Arc::clone(&role.allocated);
    let space = space.clone();
    let thread = std::thread::spawn(move || {
        let made = space.join().and_then(|()| {
            let options = TunOptions {
                name: "jvpn0".into(),
                mtu: INNER_MTU,
                addresses: vec![format!("{}/24", inner4(side)).parse()?, format!("{}/64", inner6(side)).parse()?],
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let tun = runtime.block_on(Tun::open(&options))?;
            let port = open(side, setup.bound)?;
            let options = WorkerOptions {
                inner_mtu: INNER_MTU,
                addresses: TunnelAddresses { v4: Some(inner4(side)), v6: Some(inner6(side)) },
                carry_checksum: setup.carry,
                ..WorkerOptions::default()
            };
            let (worker, handle) = Worker::new(role, tun, to_controller, options)?;
            anyhow::ensure!(handle.add_socket(SOCKET, Arc::new(port)), "the worker's queue is full at its start");
            Ok((worker, handle))
        });
        match made {
            Ok((worker, handle)) => {
                let told = sender.send(Ok((handle, worker.counters())));
                if told.is_err() { Ok(()) } else { worker.run() }
            }
            Err(error) => {
                // The starter waits for exactly one message.
                let _ = sender.send(Err(error));
                Ok(())
            }
        }
    });
    let (handle, counters) = receiver.recv().context("the worker's thread ended at once")??;
    Ok(End { handle, counters, inbox, session, allocated, thread })
}
