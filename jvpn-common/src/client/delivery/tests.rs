//! The comparison over a network that is described packet by packet.
//!
//! Owns claims about what is said and what is not. Must never depend on a real clock.

use super::*;
use crate::ids::{Epoch, TransportIndex};
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);
const START: Instant = Instant(7_000_000_000);

/// What arrives, in order of arrival.
#[derive(Clone, Copy)]
enum Arrival {
    Data,
    Probe(Mark),
    Echo(Mark, Counted),
}

/// One transport with its data, its probes and the gateway's counts.
struct Line {
    now: Instant,
    sealed: Sealed,
    to: SocketAddr,
    data: u32,
    probes: u32,
    arrivals: BTreeMap<(Instant, u64), Arrival>,
    numbers: u64,
    /// One way.
    delay: Duration,
    /// More of it at random, for each datagram.
    jitter: u64,
    /// Data lost, in 1/1000.
    loss: u64,
    /// Whether the gateway counts.
    counts: bool,
    dice: u64,
    delivery: Delivery,
    /// Echoes that said more is missing.
    doubts: u32,
}

impl Line {
    fn new() -> Self {
        Self {
            now: START,
            sealed: Sealed { set: SetId(1), epoch: Epoch(0), k: TransportIndex(0), next: 0 },
            to: "192.0.2.1:51821".parse().unwrap(),
            data: 0,
            probes: 0,
            arrivals: BTreeMap::new(),
            numbers: 0,
            delay: 20 * MS,
            jitter: 0,
            loss: 0,
            counts: true,
            dice: 1,
            delivery: Delivery::default(),
            doubts: 0,
        }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below.max(1)
    }

    fn put(&mut self, arrival: Arrival) {
        let late = Duration::from_nanos(self.roll(self.jitter * 1_000_000));
        self.numbers += 1;
        self.arrivals.insert((self.now + self.delay + late, self.numbers), arrival);
    }

    /// Plays this long: a packet of data every two milliseconds, a probe every twenty; what was said after each.
    fn play(&mut self, lasts: Duration) -> Vec<Option<u16>> {
        let (end, mut said, mut n) = (self.now + lasts, Vec::new(), 0);
        while self.now < end {
            if n % 20 == 0 {
                // Two that the worker seals while the probe is on its way out.
                let mut mark = Mark::new(&self.sealed, self.to);
                (0..2).for_each(|_| self.send());
                assert!(mark.look(&self.sealed) && !mark.look(&self.sealed));
                self.put(Arrival::Probe(mark));
            } else if n % 2 == 0 {
                self.send();
            }
            n += 1;
            self.now = self.now + MS;
            while let Some(entry) = self.arrivals.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let arrival = entry.remove();
                self.arrive(arrival);
            }
            said.push(self.delivery.lost(self.now));
        }
        said
    }

    fn send(&mut self) {
        self.sealed.next += 1;
        if self.roll(1_000) >= self.loss {
            self.put(Arrival::Data);
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Data => self.data = self.data.wrapping_add(u32::from(self.counts)),
            Arrival::Probe(mark) => {
                self.probes = self.probes.wrapping_add(1);
                let counted = Counted { at: self.now.0 + self.numbers, probes: self.probes, data: self.data };
                self.put(Arrival::Echo(mark, counted));
            }
            Arrival::Echo(mark, counted) => self.doubts += u32::from(self.delivery.compare(&mark, counted, self.now)),
        }
    }
}

/// What was said at the end.
fn last(said: &[Option<u16>]) -> Option<u16> {
    said.last().copied().flatten()
}

#[test]
fn a_steady_loss_of_data_is_said_as_it_is_and_ends_with_it() {
    for loss in [0, 50, 200, 900] {
        let mut line = Line { loss, ..Line::new() };
        let said = line.play(20_000 * MS);
        assert_eq!(said.iter().take(4_500).flatten().count(), 0, "said before there is anything to say");
        let said: Vec<u16> = said.into_iter().skip(6_000).map(|said| said.expect("something")).collect();
        let (low, high) = (said.iter().min().copied().unwrap(), said.iter().max().copied().unwrap());
        let loss = u16::try_from(loss).unwrap();
        assert!(low + 25 + loss / 10 >= loss && high <= loss + 25, "{loss}: {low} to {high}");
        line.loss = 0;
        assert_eq!(last(&line.play(6_000 * MS)), Some(0));
    }
}

#[test]
fn what_is_missing_is_noticed_by_the_next_echo_and_what_is_on_its_way_in_order_never_is() {
    let mut line = Line { delay: 300 * MS, ..Line::new() };
    line.play(10_000 * MS);
    assert_eq!(line.doubts, 0);
    line.loss = 1_000;
    line.play(700 * MS);
    assert!(line.doubts > 0, "an echo 600 ms after it began");
    let mut line = Line { counts: false, ..Line::new() };
    line.play(5_000 * MS);
    assert_eq!(line.doubts, 0, "nobody counts");
}

#[test]
fn packets_on_their_way_and_another_order_are_no_loss() {
    for (delay, jitter) in [(1, 0), (300, 0), (20, 60), (150, 200)] {
        let mut line = Line { delay: delay * MS, jitter, ..Line::new() };
        let said = line.play(30_000 * MS);
        assert!(said.iter().all(|said| said.is_none_or(|lost| lost == 0)), "{delay} ms and up to {jitter} ms more");
        assert_eq!(last(&said), Some(0));
    }
}

#[test]
fn a_path_that_becomes_slow_or_quick_loses_nothing() {
    let mut line = Line::new();
    for delay in [20, 400, 5, 700, 20] {
        line.delay = delay * MS;
        assert!(line.play(9_000 * MS).iter().all(|said| said.is_none_or(|lost| lost == 0)), "{delay}");
    }
}

#[test]
fn one_spike_is_not_said_twice_in_the_time_of_two_reports() {
    for (phase, lasts) in (0..10).flat_map(|phase| [(phase, 300), (phase, 500), (phase, 900)]) {
        let mut line = Line::new();
        line.play((8_000 + phase * 50) * MS);
        line.loss = 1_000;
        line.play(lasts * MS);
        line.loss = 0;
        let said = line.play(8_000 * MS);
        let bad = said.iter().filter(|said| said.is_some_and(|lost| lost > 50)).count();
        assert!(bad <= if lasts < 500 { 0 } else { 500 }, "{lasts} ms are said for {bad} ms");
    }
}

#[test]
fn a_little_data_says_nothing() {
    let mut line = Line { loss: 300, ..Line::new() };
    for _ in 0..400 {
        let mark = Mark::new(&line.sealed, line.to);
        line.put(Arrival::Probe(mark));
        line.send();
        line.now = line.now + 60 * MS;
        while let Some(entry) = line.arrivals.first_entry().filter(|entry| entry.key().0 <= line.now) {
            let arrival = entry.remove();
            line.arrive(arrival);
        }
        assert_eq!(line.delivery.lost(line.now), None, "34 packets in two seconds");
    }
}

#[test]
fn counts_that_wrap_are_followed() {
    for loss in [0, 200] {
        let mut line = Line { data: u32::MAX - 700, probes: u32::MAX - 70, loss, ..Line::new() };
        let said = line.play(12_000 * MS);
        assert!(line.data < 10_000 && line.probes < 1_000, "wrapped");
        assert!(said.iter().skip(6_000).all(|said| said.is_some_and(|lost| u64::from(lost).abs_diff(loss) < 50)));
    }
}

#[test]
fn other_keys_another_transport_or_gateway_and_counts_begun_anew_are_not_compared() {
    type Change = fn(&mut Line);
    let changes: [Change; 5] = [
        |line| (line.sealed.epoch, line.sealed.next) = (Epoch(1), 0),
        |line| (line.sealed.set, line.sealed.next, line.data, line.probes) = (SetId(2), 0, 0, 0),
        |line| (line.sealed.k, line.sealed.next, line.data, line.probes) = (TransportIndex(1), 9, 0, 0),
        |line| (line.to, line.data, line.probes) = ("192.0.2.2:51821".parse().unwrap(), 17, 4),
        |line| (line.data, line.probes) = (0, 0),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut line = Line::new();
        line.play(10_000 * MS);
        change(&mut line);
        let said = line.play(10_000 * MS);
        assert!(said.iter().all(|said| said.is_none_or(|lost| lost == 0)), "change {number}");
        assert_eq!((said[100], last(&said)), (Some(0), Some(0)), "what was said stands until there is more to say");
        let fresh = line.delivery.slots.front().expect("slots").began;
        assert!(fresh > START + 10_000 * MS, "change {number} kept what was before");
    }
}

#[test]
fn where_nobody_counts_nothing_is_said_also_when_that_begins_later() {
    let mut line = Line { counts: false, ..Line::new() };
    assert_eq!(line.play(12_000 * MS).iter().flatten().count(), 0);
    let mut line = Line::new();
    line.play(10_000 * MS);
    line.counts = false;
    let said = line.play(12_000 * MS);
    assert!(said.iter().all(|said| said.is_none_or(|lost| lost < 50)), "the program was taken off");
    assert_eq!(last(&said), None);
}

#[test]
fn what_was_said_ends_with_its_traffic_and_is_remembered_of_a_path_that_was_left() {
    let mut line = Line { loss: 400, ..Line::new() };
    line.play(10_000 * MS);
    let (mut idle, at) = (line.delivery.clone(), line.now);
    assert!(idle.lost(at + SAID_FOR.saturating_sub(SLOT)).is_some());
    assert_eq!(idle.lost(at + SAID_FOR), None);
    line.delivery.leave(at);
    let kept = line.delivery.lost(at);
    assert!(kept.is_some_and(|lost| lost > 300), "{kept:?}");
    assert_eq!(line.delivery.lost(at + REMEMBERED_FOR.saturating_sub(MS)), kept);
    assert_eq!(line.delivery.lost(at + REMEMBERED_FOR), None);
    // Too late: nothing stood any more.
    idle.leave(at + SAID_FOR);
    assert_eq!(idle.lost(at + SAID_FOR), None);
}
