//! What waits in a socket is taken in many datagrams and written in few writes, in order, and the role hears how long it may have
//! waited.

use std::io::{self, IoSlice};
use std::sync::Arc;

use jvpn_common::time::{Duration, Instant};

use super::ends::{ClientEnd, GatewayEnd, START, client, key, numbered, outside, pair, sealed};
use super::{ACK, SHAPES, Shape, payload};
use crate::tunnel::coalesce::{Coalescer, Sink};
use crate::tunnel::inner::Inner;
use crate::tunnel::vnet::Vnet;
use crate::tunnel::{Counter, SocketId};

/// Sends packet number `n` of a flow of this shape up, in a datagram of its own.
fn one_of(shape: Shape, up: &mut ClientEnd, n: u16, bytes: &[u8]) {
    let sequence = 1_000 + u32::from(n) * bytes.len() as u32;
    up.gives(&of_the_client(shape, n, sequence, bytes));
    up.settle(START);
}

/// The shapes have addresses of their own; here the session's are needed.
fn of_the_client(shape: Shape, n: u16, sequence: u32, bytes: &[u8]) -> Vec<u8> {
    let mut packet = shape.packet(n, sequence, ACK, bytes);
    packet[12..16].copy_from_slice(&client(0).octets());
    packet[16..20].copy_from_slice(&super::ends::GATEWAY.octets());
    shape.seal(&mut packet);
    packet
}

#[test]
fn datagrams_of_one_flow_that_wait_become_few_writes_in_order() {
    for shape in SHAPES.into_iter().filter(|shape| !shape.v6) {
        let (mut up, mut down, ..) = pair();
        for n in 0..100 {
            one_of(shape, &mut up, n, &[n as u8; 64]);
        }
        assert_eq!(up.counter(Counter::TxBatches), 100, "each came alone");
        down.until(START, "all hundred", |down| down.counter(Counter::RxPackets) == 100);
        assert_eq!(down.counter(Counter::RxBatches), 100);
        let written = down.written();
        // The first when the worker woke up, then as many as a write takes, and what a turn left.
        assert!(written.len() <= 4, "{} writes", written.len());
        assert_eq!(down.counter(Counter::TunWrites), written.len() as u64);
        let sizes = written.iter().map(|(vnet, _)| Vnet::from_bytes(vnet).gso_size);
        assert_eq!(sizes.max(), Some(64));
        let texts: Vec<u8> = written.iter().flat_map(|(_, packet)| packet[shape.headers()..].to_vec()).collect();
        let sent: Vec<u8> = (0..100).flat_map(|n| [n; 64]).collect();
        assert_eq!(texts, sent, "{shape:?}");
    }
}

#[test]
fn what_comes_alone_is_written_alone_and_other_flows_keep_their_order() {
    let (mut up, mut down, ..) = pair();
    let udp = SHAPES[2];
    assert!(!udp.v6 && !udp.tcp);
    for n in 0..3 {
        one_of(udp, &mut up, n, &[n as u8; 64]);
        down.until(START, "one", |down| down.counter(Counter::RxPackets) == u64::from(n) + 1);
        assert_eq!(down.written().len(), 1);
    }
    // A flow that is interrupted: what interrupts it stays where it was.
    for n in 3..9 {
        if n == 6 {
            up.gives(&numbered(6, 30));
            up.settle(START);
        } else {
            one_of(udp, &mut up, n, &[n as u8; 64]);
        }
    }
    down.until(START, "six more", |down| down.counter(Counter::RxPackets) == 9);
    let marks: Vec<u8> = down.packets().iter().flat_map(|packet| packet[28..].iter().copied().step_by(64)).collect();
    assert_eq!(marks, [3, 4, 5, 0x5a, 7, 8]);
}

#[test]
fn trains_that_fill_the_buffer_find_room_behind_each_other() {
    let (mut up, mut down, ..) = pair();
    let shape = SHAPES[0];
    // Each is a little less than what is written at once, and all of them are more than the buffer.
    for _ in 0..6 {
        let (vnet, mut packet) = shape.super_packet(ACK, &payload(28_000), 1_000);
        packet[12..16].copy_from_slice(&client(0).octets());
        up.gives_with(&vnet.to_bytes(), &packet);
        up.settle(START);
    }
    down.until(START, "all segments", |down| down.counter(Counter::RxPackets) == 6 * 28);
    assert_eq!(down.counter(Counter::RxBatches), 6);
    let texts = down.packets().into_iter().flat_map(|packet| packet[shape.headers()..].to_vec());
    assert!(texts.eq(payload(28_000).repeat(6)));
}

#[test]
fn the_role_hears_how_long_a_packet_may_have_waited() {
    let mut down = GatewayEnd::new(false);
    let from = outside();
    down.knows(0, 1, from.local_addr().unwrap());
    let key = key(0, 1, false, START);
    let later = |ms: u64| START + Duration::from_millis(ms);
    let turn = |down: &mut GatewayEnd, at: Instant| {
        down.worker.turn(at).unwrap();
        (down.plan.lock().unwrap().waited, down.counter(Counter::RxPackets))
    };
    down.settle(START);
    for n in 0..200 {
        from.send(down.address, None, &sealed(&key, 0xa0, 0, &numbered(n, 30))).unwrap();
    }
    let ms = Duration::from_millis;
    assert_eq!(turn(&mut down, later(10)), (ms(10), 64), "since the socket was seen empty");
    assert_eq!(turn(&mut down, later(30)), (ms(30), 128), "it was not emptied");
    assert_eq!(turn(&mut down, later(40)), (ms(40), 192));
    assert_eq!(turn(&mut down, later(50)), (ms(50), 200), "now it was");
    assert_eq!(turn(&mut down, later(51)), (ms(1), 200));
}

#[test]
fn a_quiet_socket_that_is_not_looked_at_may_have_something_that_waits() {
    let mut down = GatewayEnd::new(false);
    let from = outside();
    down.knows(0, 1, from.local_addr().unwrap());
    let quiet = Arc::new(outside());
    assert!(down.handle.add_socket(SocketId(9), quiet));
    let key = key(0, 1, false, START);
    // Until it counts as quiet.
    (0..20).for_each(|_| down.settle(START));
    let step = Duration::from_millis(10);
    let mut waited = (1..=9_u16).map(|n| {
        from.send(down.address, None, &sealed(&key, 0xa0, 0, &numbered(n, 30))).unwrap();
        down.worker.turn(START + step * u32::from(n)).unwrap();
        assert_eq!(down.counter(Counter::RxPackets), u64::from(n));
        down.plan.lock().unwrap().waited
    });
    assert_eq!(waited.next(), Some(step), "nothing was to be done before: both were looked at");
    assert_eq!(waited.max(), Some(step * 4), "looked at in every fourth turn of work");
}

/// Takes nothing.
#[derive(Default)]
struct Refuses {
    fell_back: u32,
    dropped: u32,
}

impl Sink for Refuses {
    fn write(&mut self, _parts: &[IoSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::Other.into())
    }

    fn fell_back(&mut self) {
        self.fell_back += 1;
    }

    fn dropped(&mut self) {
        self.dropped += 1;
    }
}

#[test]
fn each_packet_of_a_group_that_nobody_takes_is_counted() {
    let (mut merge, mut sink) = (Coalescer::default(), Refuses::default());
    let packets = [0, 1, 2].map(|n| of_the_client(SHAPES[2], n, 0, &[n as u8; 64]));
    let mut buffer = packets.concat();
    for (n, packet) in packets.iter().enumerate() {
        let inner = Inner::parse(packet).unwrap();
        merge.push(&mut buffer, n * packet.len(), inner, false, &mut sink);
    }
    assert!(!merge.is_empty());
    merge.flush(&mut buffer, &mut sink);
    assert_eq!((sink.fell_back, sink.dropped, merge.is_empty()), (1, 3, true));
}
