//! The client engine against a gateway that does only what it is told.
//!
//! Owns the scripted gateway: the real handshake, the real control channel, answers by hand.

use super::command::EventKind;
use super::*;
use crate::abi::SteeringKeys;
use crate::channel::{Channel, Side};
use crate::crypto::noise::Responder;
use crate::crypto::test_entropy::Fixed;
use crate::crypto::{EpochKeys, Suite, frame};
use crate::ids::{Epoch, Incarnation, Locator, OwnerEpoch, SessionId, TransportIndex, Version};
use crate::message::handshake::Outcome;
use crate::message::reattach::Purpose;
use crate::message::{Accepted, Ack, Answer, Control, Label, Message};
use crate::sabotage::{Bug, Sabotage};
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use crate::session::{Policy, State};
use crate::tag::steering_tag;
use crate::wire::header::FLAG_DOWN;
use crate::wire::probe::{self, Body, STATUS_ALIVE, STATUS_BOUND};
use crate::wire::{Header, Kind};
use core::net::SocketAddr;

mod delivery;
mod mapping;
mod mtu;
mod owners;
mod refusing;

const A: PathId = PathId(1);
const B: PathId = PathId(2);
const START: Instant = Instant(10_000_000_000);
const MS: Duration = Duration::from_millis(1);

struct Pair {
    client: Engine,
    now: Instant,
    private: PrivateKey,
    peer: PublicKey,
    channel: Option<Channel>,
    steering: SteeringKeys,
    /// Datagrams the client sent and nobody answered yet.
    sent: Vec<(PathId, Vec<u8>)>,
    others: Vec<Command>,
    /// Which owner of the session answers.
    owner: OwnerEpoch,
}

fn endpoint() -> SocketAddr {
    "192.0.2.1:51821".parse().unwrap()
}

fn locator(k: u16) -> Locator {
    Locator(0x100 + u64::from(k))
}

impl Pair {
    fn new() -> Self {
        let private = PrivateKey::generate(&mut Fixed::new(1));
        let key = PrivateKey::generate(&mut Fixed::new(2));
        let config = Config {
            name: "test".into(),
            private_key: key.duplicate(),
            gateway: private.public(),
            psk: PresharedKey::none(),
            endpoints: vec![endpoint()],
            suites: vec![Suite::ChaCha20Poly1305],
        };
        let client = Engine::new(config, Box::new(Fixed::new(3)), START);
        let (sent, others) = (Vec::new(), Vec::new());
        let steering = SteeringKeys::default();
        let (peer, owner) = (key.public(), OwnerEpoch(1));
        Self { client, now: START, private, peer, channel: None, steering, sent, others, owner }
    }

    fn give(&mut self, input: Input<'_>) {
        self.client.handle(self.now, input);
        while let Some(command) = self.client.poll() {
            match command {
                Command::Send { path, bytes, .. } => self.sent.push((path, bytes)),
                other => self.others.push(other),
            }
        }
    }

    fn up(&mut self, path: PathId, label: &str, class: PathClass) {
        let label = Label::new(label);
        self.give(Input::PathUp(PathUp {
            path,
            label,
            class,
            metered: false,
            v6: false,
            endpoint: None,
            beside: None,
            link_mtu: 1_500,
        }));
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.client.wakeup().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.give(Input::Wakeup);
        }
        self.now = until;
    }

    /// Answers the oldest message 1.
    fn answer_initiation(&mut self, outcome: Outcome) {
        let place = self.sent.iter().position(|(_, bytes)| bytes[0] == 1).expect("a message 1");
        let (path, bytes) = self.sent.remove(place);
        let ours = MacKeys::new(&self.private.public());
        let framed = frame::unwrap(Kind::Initiation, &bytes, &ours).unwrap();
        let (peer, _, responder) = Responder::read1(&self.private, framed.noise, &mut Fixed::new(4)).unwrap();
        assert_eq!(peer, self.peer);
        let accepted = Accepted {
            outcome,
            session: SessionId([7; 16]),
            version: Version(1),
            epoch: Epoch(0),
            owner_epoch: self.owner,
            incarnation: Incarnation(5),
            suite: Suite::ChaCha20Poly1305 as u8,
            mtu: 1_412,
            addresses: vec!["10.77.0.9/32".parse().unwrap()],
            locators: (0..6).map(|k| (TransportIndex(k), locator(k))).collect(),
            policy: Policy::field().encode(),
        };
        let payload = Answer::Accepted(Box::new(accepted)).encode();
        let (noise, split) = responder.answer(&PresharedKey::none(), &payload).unwrap();
        let keys = EpochKeys::derive(split);
        self.steering = keys.steering_words();
        self.channel = Some(Channel::new(Side::Gateway, Epoch(0), keys.control, self.steering));
        let theirs = MacKeys::new(&self.peer);
        let (mut datagram, _) = frame::wrap(Kind::Response, framed.index, &noise, &theirs, None);
        self.give(Input::Datagram { path, from: endpoint(), bytes: &mut datagram });
    }

    /// Control messages the client sent, opened.
    fn controls(&mut self) -> Vec<(PathId, TransportIndex, Message)> {
        let (controls, rest) = core::mem::take(&mut self.sent).into_iter().partition(|(_, bytes)| bytes[0] == 5);
        self.sent = rest;
        let controls: Vec<(PathId, Vec<u8>)> = controls;
        let channel = self.channel.as_mut().expect("a handshake");
        let open = |(path, mut bytes): (PathId, Vec<u8>)| {
            let (header, _) = Header::parse(&bytes).unwrap();
            let k = TransportIndex(u16::try_from(header.locator - 0x100).unwrap());
            (path, k, channel.open(k, &mut bytes).unwrap().1)
        };
        controls.into_iter().map(open).collect()
    }

    fn say(&mut self, path: PathId, k: TransportIndex, message: &Message) {
        let channel = self.channel.as_ref().expect("a handshake");
        let mut bytes = channel.seal(k, locator(k.0), message).unwrap();
        self.give(Input::Datagram { path, from: endpoint(), bytes: &mut bytes });
    }

    /// Echoes every probe on the paths named.
    fn echo(&mut self, paths: &[PathId], status: u32) {
        let (probes, rest): (Vec<_>, Vec<_>) =
            core::mem::take(&mut self.sent).into_iter().partition(|(_, bytes)| bytes[0] == 6);
        self.sent = rest;
        for (path, bytes) in probes.into_iter().filter(|(path, _)| paths.contains(path)) {
            let mut echo = self.echo_of(&bytes, status);
            self.give(Input::Datagram { path, from: endpoint(), bytes: &mut echo });
        }
    }

    fn echo_of(&self, bytes: &[u8], status: u32) -> Vec<u8> {
        let (header, rest) = Header::parse(bytes).unwrap();
        let asked = Body::from_words(&probe::words(rest.first_chunk().unwrap()));
        let body = Body { gateway_time: self.now.0, incarnation: 5, status, ..asked };
        self.hint(Kind::Echo, header, &body, bytes.len())
    }

    fn hint(&self, kind: Kind, header: Header, body: &Body, len: usize) -> Vec<u8> {
        let (words, k) = (body.words(), (header.locator - 0x100) as u16);
        let kind = kind as u8;
        let tag = steering_tag(self.steering.down, header.counter, kind, header.epoch, FLAG_DOWN, k, Some(&words));
        let mut bytes = Header { kind, flags: FLAG_DOWN, tag, ..header }.to_bytes().to_vec();
        bytes.extend(probe::bytes(&words));
        bytes.resize(len.max(bytes.len()), 0);
        bytes
    }

    /// Two paths, a session on the first, both probed.
    fn connected() -> Self {
        let mut pair = Self::new();
        pair.up(A, "wifi", PathClass::Primary);
        pair.up(B, "lte", PathClass::Secondary);
        pair.answer_initiation(Outcome::New(None));
        let (path, k, confirm) = pair.controls().remove(0);
        pair.say(path, k, &Message { id: confirm.id, body: Control::Done });
        pair.echo(&[A, B], STATUS_ALIVE | STATUS_BOUND);
        pair.settle();
        pair.others.clear();
        pair
    }

    /// Acknowledges whatever is asked until nothing is.
    fn settle(&mut self) {
        loop {
            let asked = self.controls();
            if asked.is_empty() {
                return;
            }
            for (path, k, message) in asked {
                let reply = match message.body {
                    Control::Validate(request) | Control::Reattach(request) => Control::Ack(ack(&request, 1)),
                    _ => Control::Done,
                };
                self.say(path, k, &Message { id: message.id, body: reply });
            }
        }
    }

    fn phase(&self) -> Phase {
        self.client.view().phase
    }

    fn requests(&mut self) -> Vec<(PathId, TransportIndex, u64, crate::message::Request)> {
        let asked = self.controls().into_iter();
        let request = |(path, k, message): (PathId, TransportIndex, Message)| match message.body {
            Control::Reattach(request) | Control::Validate(request) | Control::Prove { request, .. } => {
                Some((path, k, message.id, request))
            }
            _ => None,
        };
        asked.filter_map(request).collect()
    }

    fn used(&mut self) -> Option<PathId> {
        let used = self.others.iter().rev().find_map(|command| match command {
            Command::Use(transport) => Some(transport.path),
            _ => None,
        });
        self.others.clear();
        used
    }
}

fn ack(request: &crate::message::Request, version: u64) -> Ack {
    let (nonce, purpose) = (request.nonce, request.purpose);
    let (version, owner_epoch) = (Version(version), OwnerEpoch(1));
    Ack { nonce, purpose, version, state: 2, owner_epoch, locators: Vec::new(), retired: Vec::new() }
}

#[test]
fn a_birth_sends_1200_bytes_and_uses_the_keys_only_after_its_confirm_is_acknowledged() {
    let mut pair = Pair::new();
    pair.up(A, "wifi", PathClass::Primary);
    assert_eq!((pair.sent.len(), pair.sent[0].1.len()), (1, 1_200));
    pair.answer_initiation(Outcome::New(None));
    let (path, k, confirm) = pair.controls().remove(0);
    assert!(matches!(confirm.body, Control::Confirm { .. }));
    assert_eq!((path, pair.used(), pair.phase()), (A, None, Phase::Connecting));
    pair.wait(700 * MS);
    let again = pair.controls();
    assert!(again.iter().all(|(_, _, message)| *message == confirm) && !again.is_empty(), "{again:?}");
    pair.say(path, k, &Message { id: confirm.id, body: Control::Done });
    assert_eq!((pair.used(), pair.phase()), (Some(A), Phase::Connected));
}

#[test]
fn an_unanswered_handshake_goes_on_to_the_next_path() {
    let mut pair = Pair::new();
    pair.up(A, "wifi", PathClass::Primary);
    pair.up(B, "lte", PathClass::Secondary);
    pair.wait(1_200 * MS);
    let paths: Vec<PathId> = pair.sent.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths[..2], [A, B]);
}

#[test]
fn a_link_that_goes_down_is_answered_by_lost_from_the_other_path_in_the_same_turn() {
    let mut pair = Pair::connected();
    pair.give(Input::PathDown { path: A, reason: Reason::LinkDown });
    let (path, k, id, request) = pair.requests().remove(0);
    assert_eq!((path, request.purpose, request.quoted_echo != 0), (B, Purpose::Lost, true));
    assert!(pair.others.iter().any(|command| matches!(command, Command::Hold)));
    assert_eq!(pair.used(), None);
    pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 3)) });
    assert_eq!((pair.used(), pair.client.view().version), (Some(B), Version(3)));
}

#[test]
fn an_acknowledgement_with_a_lower_version_moves_nothing() {
    let mut pair = Pair::connected();
    pair.give(Input::Jump { label: Label::new("lte") });
    let (path, k, id, request) = pair.requests().remove(0);
    assert_eq!((path, request.purpose), (B, Purpose::BetterOperator));
    pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 0)) });
    assert_eq!((pair.used(), pair.client.view().version), (None, Version(1)));
    pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 2)) });
    assert_eq!(pair.used(), Some(B));
}

#[test]
fn a_client_that_believes_every_acknowledgement_is_moved_by_an_old_one() {
    let mut pair = Pair::connected();
    pair.client.sabotage(Sabotage::with(Bug::AcceptsOldAck));
    pair.give(Input::Jump { label: Label::new("lte") });
    let (path, k, id, request) = pair.requests().remove(0);
    pair.say(path, k, &Message { id, body: Control::Ack(ack(&request, 0)) });
    assert_eq!(pair.used(), Some(B), "or the test above would find no such bug");
}

#[test]
fn a_planned_jump_keeps_the_old_transport_until_it_is_acknowledged() {
    let mut pair = Pair::connected();
    pair.give(Input::Jump { label: Label::new("lte") });
    assert!(!pair.others.iter().any(|command| matches!(command, Command::Hold | Command::Use(_))));
}

#[test]
fn a_silent_path_is_left_only_for_one_that_answers() {
    for answering in [true, false] {
        let mut pair = Pair::connected();
        let activity = Activity { inner_sent: Some(pair.now), ..Activity::default() };
        pair.give(Input::Activity(activity));
        pair.give(Input::TrafficStarted);
        for _ in 0..100 {
            pair.wait(2 * MS);
            pair.echo(if answering { &[B] } else { &[] }, STATUS_ALIVE);
        }
        let moved = pair.requests().iter().any(|(path, _, _, request)| (*path, request.purpose) == (B, Purpose::Lost));
        assert_eq!(moved, answering);
    }
}

#[test]
fn an_echo_of_the_active_path_that_is_not_bound_is_answered_by_rebind_under_the_same_locator() {
    let mut pair = Pair::connected();
    pair.wait(MS);
    pair.give(Input::TrafficStarted);
    let k = pair.client.view().paths[0].locator;
    pair.echo(&[A], STATUS_ALIVE);
    let (path, index, _, request) = pair.requests().remove(0);
    assert_eq!((path, request.purpose, Some(index)), (A, Purpose::Rebind, k.map(|(k, _)| k)));
}

#[test]
fn a_notice_is_believed_only_for_a_counter_sent_lately_and_only_once() {
    let notice = |pair: &mut Pair, counter| {
        let header = Header { kind: 8, epoch: 0, flags: 0, tag: 0, locator: locator(0).0, counter };
        let mut bytes = pair.hint(Kind::Notice, header, &Body::default(), 72);
        pair.give(Input::Datagram { path: A, from: endpoint(), bytes: &mut bytes });
        pair.requests().into_iter().filter(|(_, _, _, request)| request.purpose == Purpose::Rebind).count()
    };
    let mut pair = Pair::connected();
    let set = SetId(1);
    for next in [10, 20] {
        pair.wait(1_500 * MS);
        pair.settle();
        let sealed = Some(Sealed { set, epoch: Epoch(0), k: TransportIndex(0), next });
        pair.give(Input::Activity(Activity { sealed, ..Activity::default() }));
        pair.settle();
    }
    assert_eq!((notice(&mut pair, 20), notice(&mut pair, 3)), (0, 0), "not sent, or sent long ago");
    assert_eq!((notice(&mut pair, 15), notice(&mut pair, 15)), (1, 0));
}

#[test]
fn a_gateway_whose_worker_is_dead_is_a_condition_and_no_jump() {
    let mut pair = Pair::connected();
    pair.give(Input::Activity(Activity { inner_sent: Some(pair.now), ..Activity::default() }));
    pair.give(Input::TrafficStarted);
    for _ in 0..100 {
        pair.wait(5 * MS);
        pair.echo(&[A, B], STATUS_BOUND);
    }
    assert_eq!(pair.client.view().conditions, [Reason::GatewayUnresponsive]);
    assert!(!pair.requests().iter().any(|(_, _, _, request)| request.purpose != Purpose::Validate));
    pair.wait(20 * MS);
    pair.give(Input::TrafficStarted);
    pair.echo(&[A], STATUS_BOUND | STATUS_ALIVE);
    assert!(pair.client.view().conditions.is_empty());
}

#[test]
fn another_incarnation_in_an_echo_is_answered_by_resume_at_once() {
    let mut pair = Pair::connected();
    pair.wait(MS);
    pair.give(Input::TrafficStarted);
    let place = pair.sent.iter().position(|(path, bytes)| *path == A && bytes[0] == 6).expect("a probe");
    let bytes = pair.sent[place].1.clone();
    let (header, _) = Header::parse(&bytes).unwrap();
    let asked = Body::from_words(&probe::words(bytes[24..].first_chunk().unwrap()));
    let mut echo = pair.hint(Kind::Echo, header, &Body { incarnation: 6, ..asked }, bytes.len());
    pair.sent.clear();
    pair.give(Input::Datagram { path: A, from: endpoint(), bytes: &mut echo.clone() });
    assert!(pair.sent.iter().any(|(path, bytes)| *path == A && bytes[0] == 1));
    pair.answer_initiation(Outcome::Resumed);
    assert_eq!(pair.client.view().session, Some(SessionId([7; 16])));
    pair.sent.clear();
    pair.give(Input::Datagram { path: A, from: endpoint(), bytes: &mut echo });
    assert!(pair.sent.iter().all(|(_, bytes)| bytes[0] != 1), "an echo is believed once");
}

#[test]
fn a_confirm_is_given_up_for_a_gateway_that_started_again_and_for_no_older_one() {
    let asks_again = |incarnation| {
        let mut pair = Pair::connected();
        pair.wait(MS);
        pair.give(Input::TrafficStarted);
        let (_, bytes) = pair.sent.iter().find(|(path, bytes)| *path == A && bytes[0] == 6).expect("a probe");
        let (header, rest) = Header::parse(bytes).unwrap();
        let asked = Body::from_words(&probe::words(rest.first_chunk().unwrap()));
        let mut echo = pair.hint(Kind::Echo, header, &Body { incarnation, ..asked }, bytes.len());
        pair.give(Input::Activity(Activity { rekey_due: true, key_spent: true, ..Activity::default() }));
        pair.answer_initiation(Outcome::Resumed);
        pair.sent.clear();
        pair.give(Input::Datagram { path: A, from: endpoint(), bytes: &mut echo });
        pair.sent.iter().any(|(path, bytes)| *path == A && bytes[0] == 1)
    };
    assert!(asks_again(6), "what answered is gone");
    assert!(!asks_again(4), "late news of an earlier start");
}

#[test]
fn keys_that_are_spent_are_replaced_once_and_the_new_ones_are_not_blamed_for_them() {
    let mut pair = Pair::connected();
    let spent = Activity { rekey_due: true, key_spent: true, ..Activity::default() };
    pair.give(Input::Activity(spent.clone()));
    assert!(pair.sent.iter().any(|(_, bytes)| bytes[0] == 1), "spent keys are resumed");
    pair.answer_initiation(Outcome::Resumed);
    let confirm = pair.controls().pop().expect("a CONFIRM");
    pair.sent.clear();
    // Read before the input that makes new keys, as the runtime does.
    pair.give(Input::Activity(spent));
    pair.say(confirm.0, confirm.1, &Message { id: confirm.2.id, body: Control::Done });
    assert_eq!(pair.phase(), Phase::Connected);
    assert!(pair.sent.iter().all(|(_, bytes)| bytes[0] != 1), "once is enough");
}

#[test]
fn three_unanswered_requests_lead_to_a_resume_after_a_second() {
    let mut pair = Pair::connected();
    pair.give(Input::PathDown { path: A, reason: Reason::LinkDown });
    let asked = |pair: &Pair| pair.sent.iter().any(|(_, bytes)| bytes[0] == 1);
    pair.wait(900 * MS);
    assert!(!asked(&pair));
    pair.wait(1_500 * MS);
    assert!(asked(&pair));
    assert!(pair.requests().len() >= 3);
}

#[test]
fn a_gateway_that_dies_right_after_a_birth_is_noticed_by_an_idle_client() {
    let mut pair = Pair::new();
    pair.up(A, "wifi", PathClass::Primary);
    pair.answer_initiation(Outcome::New(None));
    let (path, k, confirm) = pair.controls().remove(0);
    // What was asked in this very instant is never answered, nor is anything after it.
    pair.say(path, k, &Message { id: confirm.id, body: Control::Done });
    pair.sent.clear();
    pair.wait(Policy::field().standby_interval + Duration::from_secs(10));
    assert!(pair.sent.iter().any(|(_, bytes)| bytes[0] == 1), "it asks for its session");
}

#[test]
fn a_close_is_repeated_and_then_over() {
    let mut pair = Pair::connected();
    pair.give(Input::Close);
    pair.wait(Duration::from_secs(2));
    let closes = pair.controls().into_iter().filter(|(_, _, message)| message.body == Control::Close).count();
    assert_eq!((closes, pair.phase(), pair.client.wakeup()), (3, Phase::Closed, None));
    let ended = |command: &Command| matches!(command, Command::Ended { reason: Reason::ClientTermination, .. });
    assert!(pair.others.iter().any(ended));
    let told = pair.others.iter().filter_map(|command| match command {
        Command::Event(event) if event.kind == EventKind::Termination => Some((event.state, event.acknowledged)),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [(State::Terminated.number(), true)]);
}

#[test]
fn a_repeated_wish_of_the_gateway_is_acknowledged_every_time_and_acted_on_once() {
    let mut pair = Pair::connected();
    let wish = Message { id: 1, body: Control::JumpRequest { label: Label::new("lte") } };
    let mut jumps = 0;
    for _ in 0..3 {
        pair.say(A, TransportIndex(0), &wish);
        let said = pair.controls();
        assert_eq!(said.iter().filter(|(.., m)| m.id == 1 && m.body == Control::Done).count(), 1, "{said:?}");
        jumps += said.iter().filter(|(.., message)| matches!(message.body, Control::Reattach(_))).count();
    }
    assert_eq!(jumps, 1);
    // Another number is another wish.
    pair.say(A, TransportIndex(0), &Message { id: 2, ..wish });
    assert!(pair.controls().iter().any(|(.., message)| matches!(message.body, Control::Reattach(_))));
}
