//! What shares a batch shares nothing else: sessions, epochs, data and control are judged one by one.

use std::sync::atomic::Ordering::Relaxed;

use jvpn_common::crypto::suite::REJECT_AFTER;
use jvpn_common::ids::Epoch;
use jvpn_common::time::Duration;
use jvpn_common::wire::header::FLAG_DOWN;

use super::ends::{GATEWAY, GatewayEnd, START, client, key, numbered, outside, packet, pair, sealed, session_id};
use crate::tunnel::queue::FromWorker;
use crate::tunnel::{Counter, Traffic};

fn received(traffic: &Traffic) -> u64 {
    traffic.rx_packets.load(Relaxed)
}

#[test]
fn two_sessions_of_one_batch_land_each_at_its_own_with_their_own_refusals() {
    let mut down = GatewayEnd::new(false);
    let from = outside();
    let source = from.local_addr().unwrap();
    let [a, b] = [0, 1].map(|n| down.knows(n, 1, source));
    let [key_a, key_b] = [0, 1].map(|n| key(n, 1, false, START));
    let text = |n: u8, mark: u8| packet(client(n), GATEWAY, &[mark; 30]);
    let ok = |n: u8, mark| sealed(if n == 0 { &key_a } else { &key_b }, 0xa0 + u64::from(n), 0, &text(n, mark));
    let replayed = ok(0, 1);
    let spoof = sealed(&key_b, 0xa1, 0, &text(0, 9));
    let mut forged = ok(1, 9);
    forged[60] ^= 1;
    // Under another session's locator, with a number that session has not seen.
    key_a.sealing().reserve(0, 50).unwrap();
    let foreign = sealed(&key_a, 0xa1, 0, &text(0, 9));
    let datagrams = [replayed.clone(), ok(1, 2), replayed, spoof, ok(0, 3), forged, ok(1, 4), foreign];
    let stride = datagrams[0].len();
    assert!(datagrams.iter().all(|datagram| datagram.len() == stride));
    from.send_segments(down.address, None, &datagrams.concat(), stride).unwrap();

    let count = |down: &GatewayEnd, counters: &[Counter]| counters.iter().map(|&c| down.counter(c)).sum::<u64>();
    let all = [Counter::RxPackets, Counter::DropReplay, Counter::DropInnerSpoof, Counter::DropOpen];
    down.until(START, "eight judgements", |down| count(down, &all) == 8);
    assert_eq!(down.counter(Counter::RxBatches), 1, "one batch\n{}", down.dump());
    assert_eq!(all.map(|counter| down.counter(counter)), [4, 1, 1, 2], "{}", down.dump());
    assert_eq!((received(a.traffic()), received(b.traffic())), (2, 2));
    assert_eq!(down.packets(), [text(0, 1), text(1, 2), text(0, 3), text(1, 4)], "in the order they came");
    let [opening_a, opening_b] = [&a, &b].map(|session| session.keys().current.unwrap());
    assert_eq!((opening_a.opening().failed(), opening_b.opening().failed()), (0, 2));
}

#[test]
fn control_between_data_of_one_batch_goes_to_the_controller_and_data_goes_on() {
    let mut down = GatewayEnd::new(false);
    let from = outside();
    let session = down.knows(0, 1, from.local_addr().unwrap());
    let key = key(0, 1, false, START);
    let data = |n| sealed(&key, 0xa0, 0, &numbered(n, 30));
    let stride = data(0).len();
    let control = |mark: u8| {
        let mut bytes = vec![mark; stride];
        bytes[0] = 5;
        bytes
    };
    let junk = vec![99; stride];
    let batch = [data(1), control(7), data(2), junk, control(8), data(3), data(4)[..60].to_vec()].concat();
    from.send_segments(down.address, None, &batch, stride).unwrap();
    down.until(START, "all of it", |down| {
        down.counter(Counter::RxPackets) == 3 && down.counter(Counter::DropOpen) == 1
    });
    assert_eq!(down.counter(Counter::RxBatches), 1, "one batch\n{}", down.dump());
    assert_eq!((down.counter(Counter::ToController), down.counter(Counter::DropRole)), (2, 1));
    assert_eq!(down.packets(), [numbered(1, 30), numbered(2, 30), numbered(3, 30)]);
    assert_eq!(received(session.traffic()), 3);
    let told = down.told().into_iter().map(|message| match message {
        FromWorker::Datagram { bytes, origin, .. } => (bytes, origin.remote),
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [7, 8].map(|mark| (control(mark), from.local_addr().unwrap())));
}

#[test]
fn the_first_packet_under_the_next_key_makes_it_current_and_the_old_one_still_opens() {
    let (mut up, mut down, ours, theirs) = pair();
    theirs.change_keys(|keys| keys.next = Some(key(0, 2, true, START)));
    up.gives(&numbered(1, 30));
    up.settle(START);
    down.until(START, "the old key opens", |down| down.counter(Counter::RxPackets) == 1);
    assert_eq!(theirs.sealing().unwrap().epoch(), Epoch(1), "nothing was proven yet");
    assert!(!down.told().iter().any(|message| matches!(message, FromWorker::EpochProven { .. })));

    let old = key(0, 1, false, START);
    old.sealing().reserve(0, 100).unwrap();
    ours.change_keys(|keys| *keys = crate::tunnel::KeySet { current: Some(key(0, 2, false, START)), ..keys.clone() });
    up.gives(&numbered(2, 30));
    up.gives(&numbered(3, 30));
    up.settle(START);
    down.until(START, "the new key opens", |down| down.counter(Counter::RxPackets) == 3);
    assert_eq!(theirs.sealing().unwrap().epoch(), Epoch(2));
    let proven = down.told().into_iter().filter(|message| {
        matches!(message, FromWorker::EpochProven { session, epoch } if *session == session_id(0) && *epoch == Epoch(2))
    });
    assert_eq!(proven.count(), 1, "it is told once");

    // The client has forgotten the old key: what it opens now was sealed with the new one.
    down.gives(&packet(GATEWAY, client(0), b"downwards"));
    down.settle(START);
    up.until(START, "an answer under the new key", |up| up.counter(Counter::RxPackets) == 1);
    assert_eq!(up.packets(), [packet(GATEWAY, client(0), b"downwards")]);

    outside().send(down.address, None, &sealed(&old, 0xa0, 0, &numbered(4, 30))).unwrap();
    down.until(START, "what the old key sealed and came late", |down| down.counter(Counter::RxPackets) == 4);
    assert_eq!(down.packets(), [1, 2, 3, 4].map(|n| numbered(n, 30)));
    theirs.change_keys(|keys| keys.previous = None);
    outside().send(down.address, None, &sealed(&old, 0xa0, 0, &numbered(5, 30))).unwrap();
    down.until(START, "wiped, it opens nothing", |down| down.counter(Counter::DropEpoch) == 1);
    assert_eq!(down.counter(Counter::RxPackets), 4);
}

#[test]
fn a_key_past_its_time_neither_seals_nor_opens() {
    let (mut up, mut down, ..) = pair();
    let last = START + (REJECT_AFTER - Duration::from_millis(1));
    up.gives(&numbered(1, 30));
    up.settle(last);
    down.until(last, "the last moment", |down| down.counter(Counter::RxPackets) == 1);
    let end = START + REJECT_AFTER;
    up.gives(&numbered(2, 30));
    up.settle(end);
    assert_eq!((up.counter(Counter::DropNoKey), up.counter(Counter::TxPackets)), (1, 1));
    up.gives(&numbered(3, 30));
    up.settle(last);
    down.until(end, "a packet in time at a key out of time", |down| down.counter(Counter::DropEpoch) == 1);
    assert_eq!(down.counter(Counter::RxPackets), 1);
    assert!(up.handle.ping(session_id(0), 1));
    up.settle(end);
    assert_eq!(up.counter(Counter::Pings), 0, "a dead key seals no ping either");
}

#[test]
fn a_key_with_no_number_left_seals_nothing_more() {
    let (mut up, mut down, ours, _) = pair();
    let sealing = ours.sealing().unwrap();
    while sealing.sealing().reserve(0, 1 << 27).is_ok() {}
    while sealing.sealing().reserve(0, 1 << 10).is_ok() {}
    while sealing.sealing().reserve(0, 1).is_ok() {}
    up.gives(&numbered(1, 30));
    up.settle(START);
    assert_eq!((up.counter(Counter::DropNoKey), up.counter(Counter::TxPackets)), (1, 0));
    // The other direction has a key of its own.
    down.gives(&packet(GATEWAY, client(0), b"downwards"));
    down.settle(START);
    up.until(START, "a packet downwards", |up| up.counter(Counter::RxPackets) == 1);
}

#[test]
fn what_was_sealed_for_the_other_direction_is_refused() {
    let (_, mut down, ..) = pair();
    let reflected = sealed(&key(0, 1, false, START), 0xa0, FLAG_DOWN, &numbered(1, 30));
    outside().send(down.address, None, &reflected).unwrap();
    down.until(START, "a refusal", |down| down.counter(Counter::DropFrame) == 1);
    assert_eq!(down.counter(Counter::RxPackets), 0);
}
