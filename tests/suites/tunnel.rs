//! Two workers with fixed keys between two namespaces: real UDP sockets, real TUN devices, real TCP inside.
//!
//! Owns the rig (a gateway side and a client side that know one session) and what must hold end to end.
//! Must never skip: without root it fails and says what to run.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use jvpn_common::crypto::Suite;
use jvpn_common::ids::{Epoch, Locator, SessionId};
use jvpn_common::secret::Secret;
use jvpn_common::tag::steering_tag;
use jvpn_common::time::Instant;
use jvpn_common::wire::header::FLAG_DOWN;
use jvpn_common::wire::{Header, Kind};
use jvpn_ctl::tunnel::{
    Counter, Counters, DataKey, FromWorker, Inbound, Inbox, Inner, Origin, Role, Route, SessionData, SocketId, Tun,
    TunOptions, TunnelAddresses, UdpOptions, UdpPort, Worker, WorkerHandle, WorkerOptions, to_controller,
};

const LOCATOR: Locator = Locator(0x0123_4567_89ab_cdef);
const SESSION: SessionId = SessionId([7; 16]);
const STEERING: [u64; 2] = [11, 12];
const PORT: u16 = 51_821;
const SOCKET: SocketId = SocketId(1);

/// A role that knows one session and believes every source that has the steering key.
struct OneSession<const DIRECTION: u16> {
    session: Arc<SessionData>,
    remote: SocketAddr,
    path_mtu: u16,
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

    fn begin(&mut self, _now: Instant) {}

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

/// How the rig is set up.
#[derive(Clone, Copy)]
struct Setup {
    suite: Option<Suite>,
    carry: bool,
    path_mtu: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self { suite: Some(Suite::Aes256Gcm), carry: true, path_mtu: 1_500 }
    }
}

/// One end while it runs.
struct End {
    handle: WorkerHandle,
    counters: Arc<Counters>,
    inbox: Inbox<FromWorker>,
    session: Arc<SessionData>,
    thread: JoinHandle<std::io::Result<()>>,
}

/// Two namespaces joined by a veth pair, one worker in each.
struct Rig {
    names: [String; 2],
    ends: Vec<End>,
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Moves this thread into a namespace for good.
fn enter(name: &str) {
    let file = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind)).unwrap();
}

/// Runs `work` on a thread in a namespace.
fn within<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let name = name.to_owned();
    std::thread::spawn(move || {
        enter(&name);
        work()
    })
}

fn outer(side: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, side + 1).into()
}

fn inner4(side: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, side + 1)
}

fn inner6(side: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, u16::from(side) + 1)
}

impl Rig {
    fn new(setup: Setup) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes namespaces and TUN devices: run it as root, sudo -E cargo test -p jvpn-tests --test tunnel"
        );
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = format!("jvt{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let names = [format!("{base}a"), format!("{base}b")];
        let mut rig = Self { names: names.clone(), ends: Vec::new() };
        names.iter().for_each(|name| run(&format!("ip netns add {name}")));
        let [a, b] = &names;
        run(&format!("ip link add wan netns {a} type veth peer name wan netns {b}"));
        for (side, name) in (0..).zip(&names) {
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {name} addr add {}/24 dev wan", outer(side)));
            run(&format!("ip -n {name} link set wan up"));
            // One frame per MTU on the underlay, as on a wire; GRO as on every real interface.
            run(&format!("ip netns exec {name} ethtool -K wan tso off gso off tx-udp-segmentation off gro on"));
            let end = if side == 0 { start::<0>(name, side, setup) } else { start::<FLAG_DOWN>(name, side, setup) };
            rig.ends.push(end);
        }
        rig
    }

    fn counter(&self, side: usize, counter: Counter) -> u64 {
        self.ends[side].counters.value(counter)
    }

    /// Waits until `done`; the worker publishes when it goes idle.
    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Clock::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(5), "never happened: {what}\n{}", self.dump());
            std::thread::yield_now();
        }
    }

    fn dump(&self) -> String {
        let mut text = String::new();
        for (end, name) in self.ends.iter().zip(&self.names) {
            for (counter, value) in end.counters.iter().filter(|(_, value)| *value > 0) {
                text.push_str(&format!("{name} {counter} {value}\n"));
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
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Starts one end.
fn start<const DIRECTION: u16>(name: &str, side: u8, setup: Setup) -> End {
    let session = Arc::new(SessionData::new(
        SESSION,
        vec![IpAddr::V4(inner4(1 - side)).into(), IpAddr::V6(inner6(1 - side)).into()],
    ));
    let secret = |n: u8| Secret::take(&mut [n; 32]);
    let (ours, theirs) = if side == 0 { (1, 2) } else { (2, 1) };
    let born = Instant(1 << 62);
    let key = match setup.suite {
        Some(suite) => DataKey::new(suite, Epoch(1), secret(ours), secret(theirs), born),
        None => DataKey::null(Epoch(1), born),
    };
    session.change_keys(|keys| keys.current = Some(Arc::new(key)));
    let (to_controller, inbox) = to_controller().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let shared = Arc::clone(&session);
    let thread = within(name, move || {
        let options = TunOptions {
            name: "jvpn0".into(),
            mtu: 1_412,
            addresses: vec![
                format!("{}/24", inner4(side)).parse().unwrap(),
                format!("{}/64", inner6(side)).parse().unwrap(),
            ],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tun = runtime.block_on(Tun::open(&options)).unwrap();
        let port =
            Arc::new(UdpPort::open(&UdpOptions::new(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT))).unwrap());
        let role = OneSession::<DIRECTION> {
            session: shared,
            remote: SocketAddr::new(outer(1 - side), PORT),
            path_mtu: setup.path_mtu,
        };
        let options = WorkerOptions {
            addresses: TunnelAddresses { v4: Some(inner4(side)), v6: Some(inner6(side)) },
            carry_checksum: setup.carry,
            ..WorkerOptions::default()
        };
        let (worker, handle) = Worker::new(role, tun, to_controller, options).unwrap();
        assert!(handle.add_socket(SOCKET, port));
        sender.send((handle, worker.counters())).unwrap();
        worker.run()
    });
    let (handle, counters) = receiver.recv().unwrap();
    End { handle, counters, inbox, session, thread }
}

/// Sends `total` bytes over TCP from side `from`; checks every one; bits per second.
fn transfer(rig: &Rig, from: usize, address: IpAddr, total: usize) -> f64 {
    let (ready, listening) = std::sync::mpsc::channel();
    let target = SocketAddr::new(address, 5_001);
    let receiver = within(&rig.names[1 - from], move || {
        let listener = TcpListener::bind(target).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut seen = 0usize;
        loop {
            let n = stream.read(&mut buffer).unwrap();
            if n == 0 {
                return seen;
            }
            // Every 4,093rd byte: a damaged or misplaced segment shows, and the check costs nothing.
            for at in ((4_093 - seen % 4_093) % 4_093..n).step_by(4_093) {
                assert_eq!(buffer[at], pattern(seen + at), "byte {}", seen + at);
            }
            seen += n;
        }
    });
    listening.recv().unwrap();
    let start = Clock::now();
    let sender = within(&rig.names[from], move || {
        let mut stream = TcpStream::connect(target).unwrap();
        let data: Vec<u8> = (0..(1 << 20) + 251).map(pattern).collect();
        let mut sent = 0;
        while sent < total {
            let n = (total - sent).min(1 << 20);
            stream.write_all(&data[sent % 251..sent % 251 + n]).unwrap();
            sent += n;
        }
    });
    sender.join().unwrap();
    assert_eq!(receiver.join().unwrap(), total);
    total as f64 * 8.0 / start.elapsed().as_secs_f64()
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// No drop but those named, which are `most` at most.
fn assert_drops(rig: &Rig, side: usize, named: Counter, most: u64) {
    for counter in Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_")) {
        let limit = if *counter == named { most } else { 0 };
        assert!(rig.counter(side, *counter) <= limit, "{counter:?}\n{}", rig.dump());
    }
}

#[test]
fn tcp_arrives_whole_in_both_families_and_directions() {
    for setup in [
        Setup::default(),
        Setup { suite: Some(Suite::ChaCha20Poly1305), ..Setup::default() },
        Setup { carry: false, ..Setup::default() },
        Setup { suite: None, ..Setup::default() },
    ] {
        let rig = Rig::new(setup);
        for (from, address) in [(0, inner4(1).into()), (1, inner4(0).into()), (0, inner6(1).into())] {
            let rate = transfer(&rig, from, address, 200_000_000);
            println!("{:?} carry {} {from} → {address}: {:.2} Gbit/s", setup.suite, setup.carry, rate / 1e9);
        }
        for side in 0..2 {
            let packets = rig.counter(side, Counter::RxPackets);
            assert!(packets > 100_000, "{}", rig.dump());
            // Offloads at work: many packets a receive, a send and a write.
            assert!(packets > 4 * rig.counter(side, Counter::RxBatches), "{}", rig.dump());
            assert!(packets > 4 * rig.counter(side, Counter::TunWrites), "{}", rig.dump());
            // The other side's link-local address is none of the session's.
            assert_drops(&rig, side, Counter::DropInnerSpoof, 20);
        }
    }
}

#[test]
fn udp_arrives_as_it_was_sent() {
    let rig = Rig::new(Setup::default());
    let target = SocketAddr::new(inner4(1).into(), 5_002);
    let (ready, listening) = std::sync::mpsc::channel();
    let receiver = within(&rig.names[1], move || {
        let socket = UdpSocket::bind(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 2_000];
        (0..100)
            .map(|_| {
                let n = socket.recv(&mut buffer).unwrap();
                buffer[..n].to_vec()
            })
            .collect::<Vec<_>>()
    });
    listening.recv().unwrap();
    let datagram = |n: usize| vec![n as u8; if n % 5 == 4 { 300 } else { 700 }];
    within(&rig.names[0], move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..100 {
            socket.send_to(&datagram(n), target).unwrap();
        }
    })
    .join()
    .unwrap();
    let expected: Vec<_> = (0..100).map(datagram).collect();
    assert!(receiver.join().unwrap() == expected, "{}", rig.dump());
}

#[test]
fn a_ping_is_answered_under_the_data_keys() {
    let rig = Rig::new(Setup::default());
    assert!(rig.ends[0].handle.ping(SESSION, 99));
    let start = Clock::now();
    loop {
        rig.ends[0].inbox.answer();
        match rig.ends[0].inbox.next() {
            Some(FromWorker::Pong { session, id, .. }) => break assert_eq!((session, id), (SESSION, 99)),
            _ => assert!(start.elapsed() < Duration::from_secs(5), "no pong\n{}", rig.dump()),
        }
    }
    assert!(rig.ends[1].session.last_opened(0).is_some() && rig.ends[0].session.last_opened(0).is_some());
    assert_eq!(rig.ends[1].session.last_opened(4), None);
}

#[test]
fn control_and_data_of_one_batch_each_go_their_way() {
    let rig = Rig::new(Setup::default());
    // One segmented send of a control datagram, a probe, junk and control again: one batch on arrival.
    within(&rig.names[0], || {
        let port = UdpPort::open(&UdpOptions::new("0.0.0.0:0".parse().unwrap())).unwrap();
        for kind in [5, 6, 99, 4, 5] {
            let datagram = [kind; 64];
            port.send(SocketAddr::new(outer(1), PORT), None, &datagram).unwrap();
        }
    })
    .join()
    .unwrap();
    rig.until("two control datagrams", |rig| rig.counter(1, Counter::ToController) == 2);
    rig.until("an echo", |rig| rig.counter(1, Counter::Replies) == 1);
    rig.until("two refusals", |rig| rig.counter(1, Counter::DropRole) == 2);
    rig.ends[1].inbox.answer();
    let control = std::iter::from_fn(|| rig.ends[1].inbox.next()).filter(|message| {
        matches!(message, FromWorker::Datagram { bytes, origin, .. }
            if bytes == &[5; 64] && origin.local == Some(outer(1)) && origin.remote.ip() == outer(0))
    });
    assert_eq!(control.count(), 2);
}

#[test]
fn a_sender_is_told_what_a_narrow_path_carries() {
    let rig = Rig::new(Setup { path_mtu: 1_400, ..Setup::default() });
    for address in [IpAddr::V4(inner4(1)), IpAddr::V6(inner6(1))] {
        let target = SocketAddr::new(address, 5_003);
        let (ready, listening) = std::sync::mpsc::channel();
        let receiver = within(&rig.names[1], move || {
            let socket = UdpSocket::bind(target).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 2_000];
            socket.recv(&mut buffer)
        });
        listening.recv().unwrap();
        let sender = within(&rig.names[0], move || {
            let socket = UdpSocket::bind(SocketAddr::new(target.ip().unspecified(), 0)).unwrap();
            socket.connect(target).unwrap();
            // The first does not pass; once the kernel was told, it sends in two parts.
            for _ in 0..20 {
                let _ = socket.send(&[1; 1_350]);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        assert_eq!(receiver.join().unwrap().unwrap_or_else(|_| panic!("{}", rig.dump())), 1_350, "{address}");
        sender.join().unwrap();
    }
    rig.until("told about both", |rig| rig.counter(0, Counter::IcmpSent) >= 2);
    // TCP does not need to be told: what its SYNs offer is lowered.
    transfer(&rig, 0, inner4(1).into(), 5_000_000);
    transfer(&rig, 1, inner6(0).into(), 5_000_000);
    assert_eq!(rig.counter(1, Counter::DropTooBig), 0);
}

/// The wildcard address of a family.
trait Unspecified {
    fn unspecified(&self) -> IpAddr;
}

impl Unspecified for IpAddr {
    fn unspecified(&self) -> IpAddr {
        if self.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}
