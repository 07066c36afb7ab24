//! A socket that will not carry anything any more: given up, counted, told, and never spun on.

use std::sync::Arc;

use rustix::io::Errno;

use super::ends::{ClientEnd, End, SOCKET, START, numbered, pair};
use crate::tunnel::Counter;
use crate::tunnel::queue::FromWorker;
use crate::tunnel::role::SocketId;
use crate::tunnel::udp::{UdpOptions, UdpPort};
use crate::tunnel::worker::Turn;

fn open() -> Arc<UdpPort> {
    Arc::new(super::ends::outside())
}

/// The sockets that were told to be lost.
fn lost<const DIRECTION: u16>(end: &End<DIRECTION>) -> Vec<(SocketId, Arc<UdpPort>)> {
    let lost =
        |message| if let FromWorker::SocketLost { socket, port } = message { Some((socket, port)) } else { None };
    end.told().into_iter().filter_map(lost).collect()
}

#[test]
fn a_socket_that_only_reports_its_end_is_given_up_and_the_worker_sleeps_again() {
    let (mut up, ..) = pair();
    up.settle(START);
    up.port.shut_down();
    let mut turns = 0;
    while lost(&up).is_empty() {
        assert_eq!(up.worker.turn(START).unwrap(), Turn::Idle);
        up.worker.sleep().unwrap();
        turns += 1;
        assert!(turns < 1_000, "it spins on the dead socket\n{}", up.dump());
    }
    assert_eq!(up.counter(Counter::SocketsLost), 1);
    for _ in 0..3 {
        up.settle(START);
        up.worker.sleep().unwrap();
    }
    assert_eq!(up.counter(Counter::SocketsLost), 1);
    assert!(lost(&up).is_empty(), "it is told once");
}

#[test]
fn a_ring_whose_word_was_answered_before_its_write_is_not_spun_on() {
    let (mut up, ..) = pair();
    up.settle(START);
    up.handle.ring_late();
    up.worker.sleep().unwrap();
    assert_eq!(up.worker.turn(START).unwrap(), Turn::Idle);
    assert!(!up.handle.rings(), "the worker would never sleep again");
}

#[test]
fn a_socket_that_cannot_send_any_more_is_given_up_at_the_first_packet() {
    let (mut up, mut down, ..) = pair();
    up.settle(START);
    up.port.shut_down();
    up.gives(&numbered(1, 100));
    up.settle(START);
    assert_eq!((up.counter(Counter::SocketsLost), up.counter(Counter::DropSend)), (1, 1), "{}", up.dump());
    let [(socket, port)] = &lost(&up)[..] else { panic!("told once") };
    assert!(*socket == SOCKET && Arc::ptr_eq(port, &up.port));
    up.gives(&numbered(2, 100));
    up.settle(START);
    assert_eq!(up.counter(Counter::DropSend), 2, "without a socket every packet is counted");

    // The controller opens another under the same name.
    assert!(up.handle.add_socket(SOCKET, open()));
    up.gives(&numbered(3, 100));
    up.settle(START);
    down.until(START, "the packet after", |down| down.counter(Counter::RxPackets) == 1);
    assert_eq!(down.packets(), [numbered(3, 100)]);
    assert_eq!((up.counter(Counter::SocketsLost), up.counter(Counter::DropSend)), (1, 2));
}

#[test]
fn one_dead_socket_does_not_take_the_others_with_it() {
    let (mut up, mut down, ..) = pair();
    let other = open();
    assert!(up.handle.add_socket(SocketId(2), Arc::clone(&other)));
    up.settle(START);
    other.shut_down();
    for n in 0..100 {
        up.gives(&numbered(n, 100));
        up.settle(START);
        up.worker.sleep().unwrap();
        down.settle(START);
    }
    let lost = lost(&up);
    assert!(lost.len() == 1 && lost[0].0 == SocketId(2), "{lost:?}");
    down.until(START, "every packet", |down| down.counter(Counter::RxPackets) == 100);
}

#[test]
fn a_controller_that_does_not_listen_is_told_later() {
    let mut up = ClientEnd::new(false);
    up.settle(START);
    up.fill_controller();
    up.port.shut_down();
    // More looks than a dead socket is given, and a few sleeps once it is out of the wait.
    for _ in 0..70 {
        up.settle(START);
        up.worker.sleep().unwrap();
    }
    assert_eq!(up.counter(Counter::SocketsLost), 0);
    assert!(lost(&up).is_empty(), "the queue was full of something else");
    up.settle(START);
    up.worker.sleep().unwrap();
    assert_eq!((up.counter(Counter::SocketsLost), lost(&up).len()), (1, 1));
}

#[test]
fn an_error_about_one_destination_ends_only_a_socket_of_one_interface() {
    let free = open();
    let options = UdpOptions::new("127.0.0.1:0".parse().unwrap());
    let bound = UdpPort::open(&UdpOptions { device: Some("lo".into()), ..options }).unwrap();
    for errno in [Errno::NODEV, Errno::NXIO, Errno::NETDOWN] {
        assert!(bound.is_gone(&errno.into()) && !free.is_gone(&errno.into()), "{errno:?}");
    }
    for errno in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNREFUSED, Errno::AGAIN, Errno::INVAL] {
        assert!(!bound.is_gone(&errno.into()) && !free.is_gone(&errno.into()), "{errno:?}");
    }
    assert!(bound.is_gone(&Errno::PIPE.into()) && free.is_gone(&Errno::PIPE.into()));
}
