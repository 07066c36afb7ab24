//! Two workers with fixed keys between two namespaces: real UDP sockets, real TUN devices, real TCP inside.
//!
//! Owns what must hold end to end through the rig that the bench uses, too.
//! Must never skip: without root it fails and says what to run.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside test functions

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use jvpn_common::crypto::Suite;
use jvpn_ctl::tunnel::{Counter, FromWorker, Tun, TunOptions, UdpOptions, UdpPort};
use jvpn_tests::bench::rig::{PORT, Rig, SESSION, SOCKET, Setup, inner4, inner6, open, within};
use jvpn_tests::bench::underlay::{CLIENT_INTERFACE, Underlay};
use jvpn_tests::lab::CountingAllocator;
use jvpn_tests::size;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn rig(setup: Setup) -> Rig {
    Rig::new(setup).expect("two workers in namespaces of their own")
}

fn outer(side: usize) -> IpAddr {
    Underlay::outer(side).unwrap()
}

/// Waits until `done`; the worker publishes when it goes idle.
fn until(rig: &Rig, what: &str, done: impl Fn(&Rig) -> bool) {
    let start = Clock::now();
    while !done(rig) {
        assert!(start.elapsed() < Duration::from_secs(5), "never happened: {what}\n{}", rig.dump());
        std::thread::yield_now();
    }
}

/// Sends `total` bytes over TCP from side `from`; checks every one; bits per second.
fn transfer(rig: &Rig, from: usize, address: IpAddr, total: usize) -> f64 {
    let (ready, listening) = std::sync::mpsc::channel();
    let target = SocketAddr::new(address, 5_001);
    let receiver = within(&rig.space(1 - from), move || {
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
    let sender = within(&rig.space(from), move || {
        let mut stream = TcpStream::connect(target).unwrap();
        let data: Vec<u8> = (0..(1 << 20) + 251).map(pattern).collect();
        let mut sent = 0;
        while sent < total {
            let n = (total - sent).min(1 << 20);
            stream.write_all(&data[sent % 251..sent % 251 + n]).unwrap();
            sent += n;
        }
    });
    sender.join().unwrap().unwrap();
    assert_eq!(receiver.join().unwrap().unwrap(), total);
    total as f64 * 8.0 / start.elapsed().as_secs_f64()
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// No drop of any kind: what the own kernel says to its link is none.
fn assert_no_drops(rig: &Rig, side: usize) {
    for counter in Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_")) {
        assert_eq!(rig.counter(side, *counter), 0, "{counter:?}\n{}", rig.dump());
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
        let rig = rig(setup);
        for (from, address) in [(0, inner4(1).into()), (1, inner4(0).into()), (0, inner6(1).into())] {
            let rate = transfer(&rig, from, address, size::of(200_000_000, 4_000_000_000));
            println!("{:?} carry {} {from} → {address}: {:.2} Gbit/s", setup.suite, setup.carry, rate / 1e9);
        }
        for side in 0..2 {
            let packets = rig.counter(side, Counter::RxPackets);
            assert!(packets > 100_000, "{}", rig.dump());
            // Offloads at work: many packets a receive, a send and a write.
            assert!(packets > 4 * rig.counter(side, Counter::RxBatches), "{}", rig.dump());
            assert!(packets > 4 * rig.counter(side, Counter::TunWrites), "{}", rig.dump());
            assert_no_drops(&rig, side);
        }
    }
}

#[test]
fn the_kernels_own_talk_stays_on_its_side_and_nobody_takes_it_for_a_forgery() {
    let rig = rig(Setup::default());
    let before = rig.counter(0, Counter::OfTheLink);
    within(&rig.space(0), || {
        // To all nodes of the link: what router solicitations and multicast reports look like from outside.
        let tun = rustix::net::netdevice::name_to_index(UdpSocket::bind("[::]:0").unwrap(), "jvpn0").unwrap();
        let socket = UdpSocket::bind("[::]:0").unwrap();
        let everybody = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 5_004, 0, tun);
        for _ in 0..3 {
            socket.send_to(b"anybody there?", everybody).unwrap();
        }
    })
    .join()
    .unwrap()
    .unwrap();
    until(&rig, "three packets of the link", |rig| rig.counter(0, Counter::OfTheLink) >= before + 3);
    // The kernel solicits routers and reports groups again in the seconds after a link came up, ever more rarely.
    std::thread::sleep(Duration::from_secs(size::of(5, 65)));
    for side in 0..2 {
        let links = rig.space(side).run(&["ip", "-6", "address", "show", "dev", "jvpn0", "scope", "link"], None);
        assert_eq!(links.unwrap().trim(), "", "the TUN has an address of its link");
        assert_no_drops(&rig, side);
        assert_eq!(rig.counter(side, Counter::RxPackets), 0, "{}", rig.dump());
    }
}

/// What one datagram inside arrives with: its TOS (IPv4), seen by the receiver's kernel.
#[test]
fn dscp_and_congestion_marks_inside_stay_as_they_were() {
    let rig = rig(Setup::default());
    let target = SocketAddr::new(inner4(1).into(), 5_005);
    // Expedited forwarding, congestion experienced.
    let mark = 0xb8 | 3;
    let (ready, listening) = std::sync::mpsc::channel();
    let receiver = within(&rig.space(1), move || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::UDP));
        let mut socket = socket.unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        ready.send(()).unwrap();
        let mut packet = [0; 2_000];
        loop {
            let len = socket.read(&mut packet).unwrap();
            // A raw socket sees the outer datagrams, too.
            if packet[12..20] == [inner4(0).octets(), inner4(1).octets()].concat() && len > 20 {
                return packet[1];
            }
            assert_eq!(packet[1], 0, "outer packets carry no class and are not capable of congestion marks");
        }
    });
    listening.recv().unwrap();
    within(&rig.space(0), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket2::SockRef::from(&socket).set_tos_v4(mark).unwrap();
        socket.send_to(b"marked", target).unwrap();
    })
    .join()
    .unwrap()
    .unwrap();
    assert_eq!(u32::from(receiver.join().unwrap().unwrap()), mark, "{}", rig.dump());
}

#[test]
fn udp_arrives_as_it_was_sent() {
    let rig = rig(Setup::default());
    let target = SocketAddr::new(inner4(1).into(), 5_002);
    let (ready, listening) = std::sync::mpsc::channel();
    let receiver = within(&rig.space(1), move || {
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
    within(&rig.space(0), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..100 {
            socket.send_to(&datagram(n), target).unwrap();
        }
    })
    .join()
    .unwrap()
    .unwrap();
    let expected: Vec<_> = (0..100).map(datagram).collect();
    assert!(receiver.join().unwrap().unwrap() == expected, "{}", rig.dump());
}

#[test]
fn a_ping_is_answered_under_the_data_keys() {
    let rig = rig(Setup::default());
    assert!(rig.ends[0].handle.ping(SESSION, 99));
    let start = Clock::now();
    loop {
        match rig.ends[0].inbox.next() {
            Some(FromWorker::Pong { session, id, .. }) => break assert_eq!((session, id), (SESSION, 99)),
            _ => assert!(start.elapsed() < Duration::from_secs(5), "no pong\n{}", rig.dump()),
        }
    }
    for side in 0..2 {
        until(&rig, "what was opened is published", |rig| rig.ends[side].session.last_opened(0).is_some());
    }
    assert_eq!(rig.ends[1].session.last_opened(4), None);
}

#[test]
fn control_and_data_of_one_batch_each_go_their_way() {
    let rig = rig(Setup::default());
    // One segmented send of a control datagram, a probe, junk and control again: one batch on arrival.
    within(&rig.space(0), || {
        let port = UdpPort::open(&UdpOptions::new("0.0.0.0:0".parse().unwrap())).unwrap();
        for kind in [5, 6, 99, 4, 5] {
            let datagram = [kind; 64];
            port.send(SocketAddr::new(outer(1), PORT), None, &datagram).unwrap();
        }
    })
    .join()
    .unwrap()
    .unwrap();
    until(&rig, "two control datagrams", |rig| rig.counter(1, Counter::ToController) == 2);
    until(&rig, "an echo", |rig| rig.counter(1, Counter::Replies) == 1);
    until(&rig, "two refusals", |rig| rig.counter(1, Counter::DropRole) == 2);
    let control = std::iter::from_fn(|| rig.ends[1].inbox.next()).filter(|message| {
        matches!(message, FromWorker::Datagram { bytes, origin, .. }
            if bytes == &[5; 64] && origin.local == Some(outer(1)) && origin.remote.ip() == outer(0))
    });
    assert_eq!(control.count(), 2);
}

#[test]
fn a_sender_is_told_what_a_narrow_path_carries() {
    let rig = rig(Setup { path_mtu: 1_400, ..Setup::default() });
    for address in [IpAddr::V4(inner4(1)), IpAddr::V6(inner6(1))] {
        let target = SocketAddr::new(address, 5_003);
        let (ready, listening) = std::sync::mpsc::channel();
        let receiver = within(&rig.space(1), move || {
            let socket = UdpSocket::bind(target).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 2_000];
            socket.recv(&mut buffer)
        });
        listening.recv().unwrap();
        let sender = within(&rig.space(0), move || {
            let socket = UdpSocket::bind(SocketAddr::new(target.ip().unspecified(), 0)).unwrap();
            socket.connect(target).unwrap();
            // The first does not pass; once the kernel was told, it sends in two parts.
            for _ in 0..20 {
                let _ = socket.send(&[1; 1_350]);
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let received = receiver.join().unwrap().unwrap();
        assert_eq!(received.unwrap_or_else(|_| panic!("{}", rig.dump())), 1_350, "{address}");
        sender.join().unwrap().unwrap();
    }
    until(&rig, "told about both", |rig| rig.counter(0, Counter::IcmpSent) >= 2);
    // TCP does not need to be told: what its SYNs offer is lowered.
    transfer(&rig, 0, inner4(1).into(), 5_000_000);
    transfer(&rig, 1, inner6(0).into(), 5_000_000);
    assert_eq!(rig.counter(1, Counter::DropTooBig), 0);
}

/// Turns a worker took while nobody sent anything for a second, and how many its sleeps of 50 ms account for.
fn idle_turns(rig: &Rig, side: usize) -> (u64, u64) {
    let (start, before) = (Clock::now(), rig.counter(side, Counter::Turns));
    std::thread::sleep(Duration::from_secs(1));
    let turns = rig.counter(side, Counter::Turns) - before;
    (turns, start.elapsed().as_millis() as u64 / 50)
}

fn assert_sleeps(rig: &Rig, side: usize) {
    let (turns, sleeps) = idle_turns(rig, side);
    // A few for what the kernel says by itself on a link that changes.
    assert!(turns <= 2 * sleeps + 40, "{turns} turns in the time of {sleeps} sleeps: it spins\n{}", rig.dump());
    assert!(turns > 0, "the worker is dead\n{}", rig.dump());
}

/// A stream of small packets inside from one side, until the flag.
fn chatter(rig: &Rig, from: usize, stop: &Arc<AtomicBool>) -> JoinHandle<anyhow::Result<()>> {
    let (target, stop) = (SocketAddr::new(inner4(1 - from as u8).into(), 5_006), Arc::clone(stop));
    within(&rig.space(from), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        while !stop.load(Relaxed) {
            // An uplink that is away is not the sender's concern.
            let _ = socket.send_to(&[1; 200], target);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    })
}

#[test]
fn an_uplink_removed_under_traffic_is_told_once_not_spun_on_and_can_come_back() {
    let rig = rig(Setup { bound: true, ..Setup::default() });
    let stop = Arc::new(AtomicBool::new(false));
    let senders = [0, 1].map(|from| chatter(&rig, from, &stop));
    for side in 0..2 {
        until(&rig, "traffic", |rig| rig.counter(side, Counter::RxPackets) > 20);
    }
    // Both ends of a veth go together: the gateway's interface vanishes as well.
    rig.space(0).ip(&format!("link del {}\n", CLIENT_INTERFACE.uplink())).unwrap();
    until(&rig, "the client's socket is given up", |rig| rig.counter(0, Counter::SocketsLost) == 1);
    until(&rig, "packets of the gateway are refused and counted", |rig| rig.counter(1, Counter::DropSend) > 20);
    stop.store(true, Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap().unwrap());
    for side in 0..2 {
        assert_sleeps(&rig, side);
        let told = std::iter::from_fn(|| rig.ends[side].inbox.next());
        let lost = told.filter(|message| matches!(message, FromWorker::SocketLost { .. })).count();
        assert_eq!(lost, 1 - side, "only a socket of one interface is lost with it");
    }

    rig.underlay.wire().unwrap();
    let port = rig.space(0).enter(|| Ok(open(0, true)?)).unwrap();
    assert!(rig.ends[0].handle.add_socket(SOCKET, Arc::new(port)));
    // The gateway's socket is the one it had; and neither side stopped putting datagrams together.
    transfer(&rig, 0, inner4(1).into(), 20_000_000);
    transfer(&rig, 1, inner4(0).into(), 20_000_000);
    for side in 0..2 {
        assert_eq!(rig.counter(side, Counter::GsoSendFallback), 0, "{}", rig.dump());
    }
    assert_eq!([0, 1].map(|side| rig.counter(side, Counter::SocketsLost)), [1, 0]);
}

#[test]
fn a_tunnel_device_somebody_else_has_is_refused_and_not_shared() {
    let underlay = Underlay::up().unwrap();
    let open = |queues| {
        let options = TunOptions { name: "jvpn0".into(), mtu: 1_412, addresses: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        underlay.gateway().enter(|| runtime.block_on(Tun::open_queues(&options, queues)))
    };
    for first in [1, 2] {
        let queues = open(first).unwrap();
        assert_eq!(queues.len(), first as usize);
        for second in [1, 2] {
            let refused = open(second).unwrap_err();
            assert!(format!("{refused:#}").contains("an interface of that name"), "{refused:#}");
        }
        drop(queues);
    }
}

#[test]
fn a_tunnel_device_that_is_down_is_not_spun_on_and_carries_again_when_it_is_up() {
    let rig = rig(Setup::default());
    transfer(&rig, 0, inner4(1).into(), 1_000_000);
    let stop = Arc::new(AtomicBool::new(false));
    let sender = chatter(&rig, 1, &stop);
    rig.space(0).ip("link set jvpn0 down\n").unwrap();
    until(&rig, "packets refused by the TUN and counted", |rig| rig.counter(0, Counter::DropTunWrite) > 20);
    stop.store(true, Relaxed);
    sender.join().unwrap().unwrap();
    assert_sleeps(&rig, 0);
    rig.space(0).ip("link set jvpn0 up\n").unwrap();
    transfer(&rig, 1, inner4(0).into(), 1_000_000);
}

#[test]
fn a_worker_that_has_warmed_up_allocates_nothing() {
    let rig = rig(Setup::default());
    let both_ways = |bytes| {
        for (from, address) in [(0, IpAddr::V4(inner4(1))), (1, inner4(0).into()), (0, inner6(1).into())] {
            transfer(&rig, from, address, bytes);
        }
        // Small ones, one a datagram, with a sleep of the worker between them.
        let stop = Arc::new(AtomicBool::new(false));
        let senders = [0, 1].map(|from| chatter(&rig, from, &stop));
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap().unwrap());
    };
    // What a turn allocated shows in the next.
    let allocated = || {
        let turns = [0, 1].map(|side| rig.counter(side, Counter::Turns));
        until(&rig, "two turns", |rig| (0..2).all(|side| rig.counter(side, Counter::Turns) > turns[side] + 2));
        [0, 1].map(|side| rig.ends[side].allocated.load(Relaxed))
    };
    both_ways(5_000_000);
    let (before, packets) = (allocated(), [0, 1].map(|side| rig.counter(side, Counter::RxPackets)));
    assert!(before.iter().all(|&count| count > 0), "nothing is counted: {before:?}");
    both_ways(size::of(60_000_000, 1_000_000_000));
    let carried: u64 = (0..2).map(|side| rig.counter(side, Counter::RxPackets) - packets[side]).sum();
    assert!(carried > 100_000, "{carried} packets\n{}", rig.dump());
    assert_eq!(allocated(), before, "allocations of the two workers, for {carried} packets\n{}", rig.dump());
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
