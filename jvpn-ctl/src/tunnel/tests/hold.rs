//! Packets wait while the client's transport is lost, and only then.

use std::net::UdpSocket;
use std::time::Duration as Patience;

use jvpn_common::client::{HOLD_BYTES_MAX, HOLD_FOR};
use jvpn_common::time::Duration;

use super::ends::{START, numbered, pair, session_id};
use crate::tunnel::Counter;
use crate::tunnel::vnet::VNET_LEN;

#[test]
fn what_waited_leaves_in_order_after_the_jump_and_nothing_by_the_lost_transport() {
    let (mut up, mut down, ..) = pair();
    let lost = UdpSocket::bind("127.0.0.1:0").unwrap();
    lost.set_read_timeout(Some(Patience::from_secs(10))).unwrap();
    up.plan.lock().unwrap().peers[0].remote = lost.local_addr().unwrap();
    up.gives(&numbered(0, 100));
    up.settle(START);
    lost.recv(&mut [0; 2_000]).expect("before the loss packets leave by this transport");

    up.plan.lock().unwrap().hold = true;
    for n in 1..=5 {
        up.gives(&numbered(n, 100));
        up.settle(START);
    }
    assert_eq!(up.counter(Counter::TxPackets), 1, "{}", up.dump());

    let mut plan = up.plan.lock().unwrap();
    (plan.hold, plan.peers[0].remote) = (false, down.address);
    drop(plan);
    up.gives(&numbered(6, 100));
    up.settle(START + HOLD_FOR);
    down.until(START, "six packets", |down| down.counter(Counter::RxPackets) == 6);
    assert_eq!(down.packets(), (1..=6).map(|n| numbered(n, 100)).collect::<Vec<_>>());
    assert_eq!(up.counter(Counter::DropHeld), 0);
    lost.set_nonblocking(true).unwrap();
    assert!(lost.recv(&mut [0; 2_000]).is_err(), "something went to the lost transport");
}

#[test]
fn the_oldest_make_room_and_each_is_counted() {
    let (mut up, mut down, ..) = pair();
    up.plan.lock().unwrap().hold = true;
    let (sent, len) = (100, 1_000);
    for n in 0..sent {
        up.gives(&numbered(n, len));
        up.settle(START);
    }
    let fit = (HOLD_BYTES_MAX / (VNET_LEN + 20 + len)) as u16;
    up.plan.lock().unwrap().hold = false;
    up.settle(START);
    assert_eq!(up.counter(Counter::DropHeld), u64::from(sent - fit));
    down.until(START, "what fits", |down| down.counter(Counter::RxPackets) == u64::from(fit));
    assert_eq!(down.packets(), (sent - fit..sent).map(|n| numbered(n, len)).collect::<Vec<_>>());
}

#[test]
fn what_waited_too_long_is_dropped_at_the_release_and_counted() {
    let (mut up, mut down, ..) = pair();
    up.plan.lock().unwrap().hold = true;
    up.gives(&numbered(1, 10));
    up.settle(START);
    up.gives(&numbered(2, 10));
    up.settle(START + Duration::from_millis(1));
    assert_eq!(up.counter(Counter::DropHeld), 0);
    up.plan.lock().unwrap().hold = false;
    up.settle(START + HOLD_FOR + Duration::from_millis(1));
    assert_eq!(up.counter(Counter::DropHeld), 1);
    down.until(START, "the younger one", |down| down.counter(Counter::RxPackets) == 1);
    assert_eq!(down.packets(), [numbered(2, 10)]);
}

#[test]
fn nothing_waits_while_the_transport_is_not_lost() {
    let (mut up, mut down, ..) = pair();
    for n in 0..50 {
        up.gives(&numbered(n, 1_000));
        up.settle(START);
        assert_eq!(up.counter(Counter::TxPackets), u64::from(n) + 1);
    }
    assert_eq!(up.counter(Counter::DropHeld), 0);
    down.until(START, "all of them", |down| down.counter(Counter::RxPackets) == 50);
}

#[test]
fn a_loss_that_nobody_repairs_holds_no_more_than_its_bounds_and_does_not_end_the_worker() {
    let (mut up, ..) = pair();
    up.plan.lock().unwrap().hold = true;
    for second in 0..10 {
        up.gives(&numbered(second, 1_000));
        up.settle(START + Duration::from_secs(second.into()));
    }
    assert!(up.handle.ping(session_id(9), 1), "commands are still taken");
    up.settle(START + Duration::from_secs(10));
    assert_eq!((up.counter(Counter::DropHeld), up.counter(Counter::TxPackets)), (9, 0));
    assert!(up.told().is_empty(), "what waits is no traffic");
}
