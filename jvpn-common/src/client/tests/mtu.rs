//! A path whose MTU drops under a session, in the engine.
//!
//! Owns what follows from missing data and from traffic that stops. Must never answer a probe that is too large.

use super::*;

/// The path MTU before, as the client proved it, and after.
const BEFORE: u16 = 1_480;
const AFTER: u16 = 1_300;

/// A session whose one active path lets only so much through; the other one answers everything.
struct Narrow {
    pair: Pair,
    /// Bytes of an outer packet that pass.
    passes: u16,
    sealed: u64,
    counted: u32,
    probes: u32,
    /// Path MTUs the worker and the gateway were told.
    used: Vec<u16>,
    told: Vec<u16>,
}

impl Narrow {
    fn new() -> Self {
        let mut narrow = Self {
            pair: Pair::connected(),
            passes: u16::MAX,
            sealed: 0,
            counted: 0,
            probes: 0,
            used: Vec::new(),
            told: Vec::new(),
        };
        narrow.play(5_000 * MS, |_, _| Activity::default());
        narrow
    }

    /// Plays so long, in steps of 5 ms; `activity` is what the worker says at a time since the beginning.
    fn play(&mut self, lasts: Duration, activity: impl Fn(&mut Self, Duration) -> Activity) {
        let began = self.pair.now;
        while self.pair.now < began + lasts {
            let seen = activity(self, self.pair.now.since(began));
            self.pair.give(Input::Activity(seen));
            self.pair.wait(5 * MS);
            self.answer();
        }
    }

    fn answer(&mut self) {
        for (path, bytes) in core::mem::take(&mut self.pair.sent) {
            if bytes[0] != Kind::Probe as u8 {
                self.pair.sent.push((path, bytes));
            } else if path != A || bytes.len() + 28 <= usize::from(self.passes) {
                self.probes += u32::from(path == A);
                let (header, rest) = Header::parse(&bytes).unwrap();
                let asked = Body::from_words(&probe::words(rest.first_chunk().unwrap()));
                let status = STATUS_ALIVE | if path == A { STATUS_BOUND } else { 0 };
                let (gateway_time, probes, data) = (self.pair.now.0, self.probes, self.counted);
                let body = Body { gateway_time, incarnation: 5, status, probes, data, ..asked };
                let mut echo = self.pair.hint(Kind::Echo, header, &body, bytes.len());
                self.pair.give(Input::Datagram { path, from: endpoint(), bytes: &mut echo });
            }
        }
        for (path, k, message) in self.pair.controls() {
            let reply = match &message.body {
                Control::Validate(request) => {
                    self.told.extend((path == A).then_some(request.mtu));
                    Control::Ack(ack(request, 1))
                }
                _ => Control::Done,
            };
            self.pair.say(path, k, &Message { id: message.id, body: reply });
        }
        for command in core::mem::take(&mut self.pair.others) {
            if let Command::Use(transport) = command {
                self.used.push(transport.mtu);
                self.used.dedup();
            }
        }
    }

    /// What is proven now, and what the worker and the gateway were told since the beginning.
    fn changes(&self) -> (Option<u16>, &[u16], &[u16]) {
        let view = self.pair.client.view();
        let path = view.paths.iter().find(|path| path.path == A).expect("the path");
        (path.mtu, &self.used, &self.told)
    }

    /// A packet of the worker, so large.
    fn sends(&mut self, size: u16) -> Activity {
        self.sealed += 1;
        self.counted += u32::from(size <= self.passes);
        let sealed = Some(Sealed { set: SetId(1), epoch: Epoch(0), k: TransportIndex(0), next: self.sealed });
        Activity { inner_sent: Some(self.pair.now), sealed, ..Activity::default() }
    }
}

#[test]
fn packets_that_are_missing_after_the_mtu_dropped_make_it_smaller_at_both_ends_within_half_a_second() {
    let mut narrow = Narrow::new();
    narrow.play(2_000 * MS, |narrow, _| narrow.sends(1_400));
    assert_eq!(narrow.changes(), (Some(BEFORE), [].as_slice(), [].as_slice()), "nothing is missing");
    narrow.passes = AFTER;
    narrow.play(500 * MS, |narrow, _| narrow.sends(1_400));
    assert_eq!(narrow.changes(), (Some(1_280), [1_280].as_slice(), [1_280].as_slice()));
}

#[test]
fn a_transfer_that_stops_to_come_after_the_mtu_dropped_makes_it_smaller_too() {
    let mut narrow = Narrow::new();
    let comes = |narrow: &mut Narrow, since: Duration| {
        let now = narrow.pair.now;
        Activity {
            inner_received: Some(now),
            inner_sent: Some(now),
            received: since.as_micros() as u64,
            ..Activity::default()
        }
    };
    narrow.play(2_000 * MS, comes);
    let stopped = Activity { received: 2_000_000, ..comes(&mut narrow, Duration::ZERO) };
    narrow.passes = AFTER;
    narrow.play(900 * MS, |_, _| stopped.clone());
    assert_eq!(narrow.changes(), (Some(1_280), [1_280].as_slice(), [1_280].as_slice()));
}

#[test]
fn packets_that_are_lost_for_another_reason_leave_the_mtu_as_it_is() {
    let mut narrow = Narrow::new();
    narrow.play(10_000 * MS, |narrow, _| {
        narrow.counted -= u32::from(narrow.sealed % 3 == 2);
        narrow.sends(1_400)
    });
    assert_eq!(narrow.changes(), (Some(BEFORE), [].as_slice(), [].as_slice()));
}
