//! Kernels refuse segmented sends and merged writes: everything arrives all the same, and it is counted.

use std::sync::Arc;

use rustix::io::Errno;

use super::ends::{ClientEnd, GatewayEnd, START, pair};
use super::{ACK, SHAPES, payload};
use crate::tunnel::Counter;

/// Sends a super-packet of four segments up `times` times; the whole payloads that arrived.
fn bulk(up: &mut ClientEnd, down: &mut GatewayEnd, times: u64) -> Vec<Vec<u8>> {
    let shape = SHAPES[0];
    let mut arrived = Vec::new();
    for time in 1..=times {
        let (vnet, packet) = shape.super_packet(ACK, &payload(4_000), 1_000);
        up.gives_with(&vnet.to_bytes(), &packet);
        up.settle(START);
        down.until(START, "four segments", |down| down.counter(Counter::RxPackets) == 4 * time);
        let payloads = down.packets().into_iter().map(|packet| packet[shape.headers()..].to_vec());
        arrived.push(payloads.collect::<Vec<_>>().concat());
    }
    arrived
}

#[test]
fn a_refused_segmented_send_is_repeated_one_by_one_and_given_up_after_some() {
    for refusal in [Errno::IO, Errno::INVAL] {
        let (mut up, mut down, ..) = pair();
        up.port.refuses_segments.set(refusal).unwrap();
        assert_eq!(bulk(&mut up, &mut down, 20), vec![payload(4_000); 20], "whole and in order");
        assert_eq!(up.counter(Counter::TxPackets), 80);
        assert_eq!((up.counter(Counter::GsoSendFallback), up.counter(Counter::DropSend)), (8, 0), "{refusal:?}");
        assert_eq!(up.counter(Counter::TxBatches), 8 + 12 * 4, "afterwards nobody asks again");

        // Another socket may be on another interface: it is asked.
        let other = Arc::new(super::ends::outside());
        assert!(up.handle.add_socket(super::ends::SOCKET, other));
        let before = up.counter(Counter::TxBatches);
        let shape = SHAPES[0];
        let (vnet, packet) = shape.super_packet(ACK, &payload(4_000), 1_000);
        up.gives_with(&vnet.to_bytes(), &packet);
        up.settle(START);
        down.until(START, "one more", |down| down.counter(Counter::RxPackets) == 84);
        assert_eq!(up.counter(Counter::TxBatches), before + 1);
    }
}

#[test]
fn a_destination_that_is_refused_for_itself_does_not_end_segmentation() {
    let (mut up, mut down, ..) = pair();
    // A port of zero: EINVAL for a segmented send and for each datagram alike.
    up.plan.lock().unwrap().peers[0].remote.set_port(0);
    let (vnet, packet) = SHAPES[0].super_packet(ACK, &payload(4_000), 1_000);
    for _ in 0..20 {
        up.gives_with(&vnet.to_bytes(), &packet);
        up.settle(START);
    }
    assert_eq!((up.counter(Counter::DropSend), up.counter(Counter::TxBatches)), (80, 20), "{}", up.dump());
    up.plan.lock().unwrap().peers[0].remote = down.address;
    assert_eq!(bulk(&mut up, &mut down, 1), [payload(4_000)]);
    assert_eq!(up.counter(Counter::TxBatches), 21, "one send of four segments\n{}", up.dump());
}

#[test]
fn a_refused_merged_write_to_the_tun_is_repeated_packet_by_packet() {
    let (mut up, mut down) = (ClientEnd::new(false), GatewayEnd::new(true));
    up.knows(0, 1, down.address);
    down.knows(0, 1, up.address);
    assert_eq!(bulk(&mut up, &mut down, 3), vec![payload(4_000); 3], "whole and in order");
    assert_eq!(down.counter(Counter::GsoWriteFallback), 3, "{}", down.dump());
    assert_eq!((down.counter(Counter::TunWrites), down.counter(Counter::DropTunWrite)), (3 * 5, 0));

    // The same bytes to a TUN that takes merged writes: one write each.
    let (mut up, mut down, ..) = pair();
    bulk(&mut up, &mut down, 3);
    assert_eq!((down.counter(Counter::TunWrites), down.counter(Counter::GsoWriteFallback)), (3, 0));
}
