//! A path that returns every probe and loses data, in the engine: its reports, its view, its choice.
//!
//! Owns what follows from the gateway's counts. Must never lose a probe.

use super::*;

/// Path, purpose and what failed.
type Asked = (PathId, Purpose, Option<Reason>);

/// A data packet every two milliseconds, of which the gateway counts all but one in `lost_in`; probes come back 3 ms
/// later, on path B after `other`.
struct Flow {
    pair: Pair,
    active: PathId,
    next: u64,
    data: u32,
    probes: u32,
    lost_in: u64,
    other: Duration,
    /// Echoes on their way.
    due: VecDeque<(Instant, PathId, Vec<u8>)>,
    /// Nothing that the client sends on path A arrives any more.
    mute: bool,
    /// Since when a buffer fills on the way up of path A: what is sent waits half as long as it has been filling, up to 300 ms.
    filling: Option<Instant>,
}

impl Flow {
    fn new(lost_in: u64) -> Self {
        let (pair, due) = (Pair::connected(), VecDeque::new());
        let (other, mute, filling) = (3 * MS, false, None);
        Self { pair, active: A, next: 0, data: 0, probes: 0, lost_in, other, due, mute, filling }
    }

    /// Plays so long; gives PATH_REPORTs and what was asked of the gateway.
    fn play(&mut self, lasts: Duration) -> (Vec<u16>, Vec<Asked>) {
        let (mut reports, mut asked) = (Vec::new(), Vec::new());
        let end = self.pair.now + lasts;
        while self.pair.now < end {
            let pair = &mut self.pair;
            self.next += 1;
            self.data += u32::from(self.lost_in == 0 || !self.next.is_multiple_of(self.lost_in));
            let sealed = Some(Sealed { set: SetId(1), epoch: Epoch(0), k: TransportIndex(0), next: self.next });
            let (sent, came) = (Some(pair.now), vec![(SetId(1), TransportIndex(0), pair.now)]);
            pair.give(Input::Activity(Activity { inner_sent: sent, opened: came, sealed, ..Activity::default() }));
            let rest = core::mem::take(&mut pair.sent);
            for (path, bytes) in rest {
                if bytes[0] != 6 {
                    pair.sent.push((path, bytes));
                    continue;
                }
                if self.mute && path == A {
                    continue;
                }
                let (header, rest) = Header::parse(&bytes).unwrap();
                let asked = Body::from_words(&probe::words(rest.first_chunk().unwrap()));
                let bound = if path == self.active { STATUS_BOUND } else { 0 };
                self.probes += u32::from(path == self.active);
                let counts = if path == self.active { (self.probes, self.data) } else { (1, 0) };
                let body = Body {
                    gateway_time: pair.now.0,
                    incarnation: 5,
                    status: STATUS_ALIVE | bound,
                    probes: counts.0,
                    data: counts.1,
                    ..asked
                };
                let waits = self.filling.map_or(Duration::ZERO, |since| (pair.now.since(since) / 2).min(300 * MS));
                let after = if path == B { self.other } else { 3 * MS + waits };
                self.due.push_back((pair.now + after, path, pair.hint(Kind::Echo, header, &body, bytes.len())));
            }
            while let Some(place) = self.due.iter().position(|(at, ..)| *at <= pair.now) {
                let Some((_, path, mut echo)) = self.due.remove(place) else { continue };
                pair.give(Input::Datagram { path, from: endpoint(), bytes: &mut echo });
            }
            for (path, k, message) in pair.controls() {
                let reply = match &message.body {
                    Control::PathReport(paths) => {
                        reports.push(paths[0].loss_permille);
                        Control::Done
                    }
                    Control::Validate(request) => Control::Ack(ack(request, 1)),
                    Control::Reattach(request) => {
                        asked.push((path, request.purpose, request.evidence.what));
                        continue;
                    }
                    _ => Control::Done,
                };
                pair.say(path, k, &Message { id: message.id, body: reply });
            }
            pair.wait(2 * MS);
        }
        (reports, asked)
    }

    fn shown(&self) -> (u16, Option<u16>) {
        let view = self.pair.client.view();
        let path = view.paths.iter().find(|path| path.path == A).expect("the path");
        (path.loss_permille, path.data_loss_permille)
    }
}

#[test]
fn lost_data_is_in_the_report_beside_probes_that_all_came_back() {
    let mut flow = Flow::new(10);
    let (reports, _) = flow.play(10_000 * MS);
    let said = reports.iter().filter(|&&loss| (80..=120).contains(&loss)).count();
    assert!(reports.len() >= 9 && said >= 4, "{reports:?}");
    assert!(matches!(flow.shown(), (0, Some(80..=120))), "{:?}", flow.shown());
}

#[test]
fn a_way_up_that_dies_while_packets_arrive_is_left_within_two_intervals_and_what_certainty_takes() {
    let lost_after = |phase: u32| {
        let mut flow = Flow::new(0);
        flow.play(1_000 * MS + 2 * MS * phase);
        (flow.mute, flow.pair.others) = (true, Vec::new());
        let died = flow.pair.now;
        while flow.pair.now.since(died) < 200 * MS {
            let (_, asked) = flow.play(2 * MS);
            if let Some(first) = asked.first() {
                assert_eq!(*first, (B, Purpose::Lost, Some(Reason::NoDelivery)));
                return flow.pair.now.since(died);
            }
        }
        panic!("it was not left");
    };
    // Two probe intervals of 20 ms until the next one is asked, 30 until its answer is owed for too long, 11 for the burst.
    let longest = (0..30).map(lost_after).max().unwrap();
    assert!((75 * MS..=85 * MS).contains(&longest), "{longest:?}");
}

#[test]
fn a_way_up_whose_buffer_fills_while_packets_arrive_is_not_left_and_one_that_dies_in_it_is() {
    for phase in 0..30 {
        let mut flow = Flow::new(0);
        flow.play(1_000 * MS + 2 * MS * phase);
        flow.filling = Some(flow.pair.now);
        let (_, asked) = flow.play(2_000 * MS);
        let lost = |asked: &[Asked]| asked.iter().filter(|(_, purpose, _)| *purpose == Purpose::Lost).count();
        assert_eq!(lost(&asked), 0, "phase {phase}: {asked:?}");
        (flow.mute, flow.pair.others) = (true, Vec::new());
        let (_, asked) = flow.play(2_000 * MS);
        assert!(lost(&asked) > 0, "phase {phase}: {asked:?}");
    }
}

#[test]
fn data_that_arrives_is_no_loss() {
    let mut flow = Flow::new(0);
    let (reports, asked) = flow.play(20_000 * MS);
    assert!(reports.iter().all(|&loss| loss == 0) && asked.is_empty(), "{reports:?} {asked:?}");
    assert_eq!(flow.shown(), (0, Some(0)));
}

#[test]
fn a_path_that_loses_data_is_left_for_one_that_is_no_quicker_and_remembered() {
    let mut flow = Flow::new(3);
    let (_, asked) = flow.play(30_000 * MS);
    assert_eq!(asked.first(), Some(&(B, Purpose::BetterQuality, Some(Reason::Loss))));
    // Asked once more, and granted.
    flow.pair.give(Input::Jump { label: Label::new("lte") });
    let (path, k, id, request) = flow.pair.requests().remove(0);
    assert_eq!(path, B);
    flow.pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 2)) });
    let (_, lost) = flow.shown();
    assert!(lost.is_some_and(|lost| lost > 300), "{lost:?}");
    flow.active = B;
    let (_, asked) = flow.play(60_000 * MS);
    let back = asked.iter().filter(|(path, ..)| *path == A).count();
    assert_eq!((back, flow.shown().1), (0, lost), "its probes praise it, what it did is known");
}

#[test]
fn a_path_that_loses_data_is_left_for_one_that_is_slower_by_less_than_a_retransmission() {
    let asked = |other| Flow { other, ..Flow::new(10) }.play(30_000 * MS).1;
    // Three milliseconds doubled by a tenth lost are no more than six; the wait for what is lost is.
    assert_eq!(asked(6 * MS).first(), Some(&(B, Purpose::BetterQuality, Some(Reason::Loss))));
    assert_eq!(asked(60 * MS), []);
}

#[test]
fn a_quick_path_that_loses_no_data_is_not_left() {
    let mut flow = Flow::new(0);
    let (_, asked) = flow.play(30_000 * MS);
    assert!(asked.is_empty(), "{asked:?}");
    assert_eq!(flow.pair.client.view().paths[1].held_by, Some(Reason::ImprovementTooSmall));
}
