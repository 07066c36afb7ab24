//! A client by hand: it says exactly what a test tells it to say, right or wrong.
//!
//! Owns keys and counters of one client. Must never decide anything.

use super::{WALL, World, key};
use crate::channel::{Channel, Side};
use crate::crypto::EpochKeys;
use crate::crypto::cookie::{Cookie, MacKeys};
use crate::crypto::frame::{unwrap, wrap};
use crate::crypto::noise::Initiator;
use crate::crypto::test_entropy::Fixed;
use crate::gateway::command::{Datagram, Origin};
use crate::ids::{Locator, SessionId, TransportIndex, Version};
use crate::message::handshake::{HELLO_LEN, HELLO_REKEY_LEN};
use crate::message::{
    Accepted, Ack, Answer, Control, Evidence, HandshakePurpose, Hello, Label, Message, Purpose, Reject, Request,
};
use crate::reason::Reason;
use crate::secret::{PresharedKey, PrivateKey, PublicKey};
use crate::wire::{Header, Kind};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) struct Client {
    pub(super) private: Arc<PrivateKey>,
    pub(super) gateway: PublicKey,
    pub(super) at: Origin,
    pub(super) timestamp: u64,
    entropy: Fixed,
    noise: Option<Initiator>,
    pub(super) mac1: [u8; 16],
    pub(super) suites: Vec<u8>,
    pub(super) channel: Option<Channel>,
    pub(super) session: SessionId,
    pub(super) version: Version,
    pub(super) locators: BTreeMap<TransportIndex, Locator>,
    pub(super) accepted: Option<Accepted>,
    pub(super) nonce: u64,
    pub(super) id: u64,
    pub(super) quoted: u64,
}

impl Client {
    pub(super) fn new(seed: u8, at: Origin) -> Self {
        Self {
            private: key(seed),
            gateway: key(1).public(),
            at,
            timestamp: WALL,
            entropy: Fixed::new(seed + 100),
            noise: None,
            mac1: [0; 16],
            suites: vec![2],
            channel: None,
            session: SessionId::default(),
            version: Version(0),
            locators: BTreeMap::new(),
            accepted: None,
            nonce: 0,
            id: 0,
            quoted: 0,
        }
    }

    /// Another client with the same static key.
    pub(super) fn twin(&self, seed: u8, at: Origin) -> Self {
        Self { private: self.private.clone(), timestamp: self.timestamp, ..Self::new(seed, at) }
    }

    /// Message 1 of a new handshake, with a timestamp above the last one's.
    pub(super) fn message1(&mut self, purpose: HandshakePurpose, cookie: Option<&Cookie>) -> Vec<u8> {
        self.timestamp += 1;
        let noise = self.initiate(purpose, HELLO_LEN);
        self.wrapped(&noise, cookie)
    }

    pub(super) fn wrapped(&mut self, noise: &[u8], cookie: Option<&Cookie>) -> Vec<u8> {
        let (bytes, mac1) = wrap(Kind::Initiation, 5, noise, &MacKeys::new(&self.gateway), cookie);
        self.mac1 = mac1;
        bytes
    }

    pub(super) fn initiate(&mut self, purpose: HandshakePurpose, len: usize) -> Vec<u8> {
        let psk = PresharedKey::none();
        let mut noise = Initiator::new(&self.private, &self.gateway, &psk, &mut self.entropy).unwrap();
        let hello = Hello { purpose, timestamp: self.timestamp, suites: self.suites.clone() };
        let message = noise.message1(&hello.encode(len)).unwrap();
        self.noise = Some(noise);
        message
    }

    /// The cookie of a reply to the last message 1.
    pub(super) fn cookie(&self, sent: &[Datagram]) -> Cookie {
        assert_eq!(sent.len(), 1);
        MacKeys::new(&self.gateway).open_reply(&sent[0].bytes, &self.mac1).unwrap().1
    }

    /// Reads message 2.
    pub(super) fn read2(&mut self, datagram: &[u8]) -> Result<(), Reason> {
        let frame = unwrap(Kind::Response, datagram, &MacKeys::new(&self.private.public())).unwrap();
        assert_eq!(frame.index, 5);
        let (payload, split) = self.noise.as_mut().unwrap().read2(frame.noise).unwrap();
        let accepted = match Answer::decode(&payload).unwrap() {
            Answer::Accepted(accepted) => *accepted,
            Answer::Refused { reason, .. } => return Err(reason),
        };
        let keys = EpochKeys::derive(split);
        let steering = keys.steering_words();
        self.channel = Some(Channel::new(Side::Client, accepted.epoch, keys.control, steering));
        self.session = accepted.session;
        self.version = accepted.version;
        self.locators = accepted.locators.iter().copied().collect();
        (self.nonce, self.id) = (0, 0);
        self.accepted = Some(accepted);
        Ok(())
    }

    /// Message 1 there and message 2 back.
    pub(super) fn shake(&mut self, world: &mut World, purpose: HandshakePurpose) -> Result<(), Reason> {
        let first = self.message1(purpose, None);
        let sent = world.deliver(self.at, &first);
        assert_eq!(sent.len(), 1, "message 2");
        self.read2(&sent[0].bytes)
    }

    pub(super) fn birth(&mut self, world: &mut World) {
        self.shake(world, HandshakePurpose::Birth).unwrap();
        assert_eq!(self.confirm(world), Some(Control::Done));
    }

    pub(super) fn resume(&self) -> HandshakePurpose {
        let owner_epoch = self.accepted.as_ref().unwrap().owner_epoch;
        HandshakePurpose::Resume { session: self.session, version: self.version, owner_epoch }
    }

    /// CONFIRM on transport 0; what is answered.
    pub(super) fn confirm(&mut self, world: &mut World) -> Option<Control> {
        let confirm = self.confirmation();
        self.ask(world, self.at, 0, confirm)
    }

    pub(super) fn confirmation(&self) -> Control {
        Control::Confirm { label: Label::new("wifi"), class: 1, mtu: 1_400 }
    }

    /// A sealed message on transport `k`.
    pub(super) fn seal(&mut self, k: u16, body: Control) -> Vec<u8> {
        self.id += 1;
        self.sealed(k, self.id, body)
    }

    pub(super) fn sealed(&self, k: u16, id: u64, body: Control) -> Vec<u8> {
        let k = TransportIndex(k);
        self.channel.as_ref().unwrap().seal(k, self.locators[&k], &Message { id, body }).unwrap()
    }

    /// Sends a message from `from` on transport `k`; what is answered.
    pub(super) fn ask(&mut self, world: &mut World, from: Origin, k: u16, body: Control) -> Option<Control> {
        let bytes = self.seal(k, body);
        let mut sent = world.deliver(from, &bytes);
        // What is said to a session that ends with this one is none of ours.
        sent.retain(|datagram| self.knows(datagram));
        assert!(sent.len() <= 1);
        sent.first().map(|datagram| {
            let message = self.open(datagram);
            assert_eq!(message.id, self.id, "an answer has its question's id");
            message.body
        })
    }

    fn knows(&self, datagram: &Datagram) -> bool {
        let header = Header::parse(&datagram.bytes).map(|(header, _)| header);
        header.is_some_and(|header| self.locators.values().any(|locator| locator.0 == header.locator))
    }

    pub(super) fn open(&mut self, datagram: &Datagram) -> Message {
        let mut bytes = datagram.bytes.clone();
        let (header, _) = Header::parse(&bytes).unwrap();
        let (&k, _) = self.locators.iter().find(|(_, locator)| locator.0 == header.locator).unwrap();
        let message = self.channel.as_mut().unwrap().open(k, &mut bytes).unwrap().1;
        if let Control::Ack(ack) = &message.body {
            self.learn(ack);
        }
        message
    }

    fn learn(&mut self, ack: &Ack) {
        self.version = ack.version;
        self.locators.extend(ack.locators.iter().copied());
        self.locators.retain(|k, _| !ack.retired.contains(k));
    }

    /// A request with the next nonce.
    pub(super) fn request(&mut self, purpose: Purpose) -> Request {
        self.nonce += 1;
        Request {
            purpose,
            nonce: self.nonce,
            nonce_floor: 0,
            last_version: self.version,
            quoted_echo: self.quoted,
            label: Label::new("lte"),
            class: 2,
            mtu: 1_400,
            evidence: Evidence { improvement_permille: 500, detect_us: 30_000, ..Evidence::default() },
        }
    }

    pub(super) fn asking(request: Request) -> Control {
        match request.purpose {
            Purpose::Validate => Control::Validate(request),
            _ => Control::Reattach(request),
        }
    }

    /// The proof that answers a challenge.
    pub(super) fn proof(request: Request, challenge: &Control) -> Control {
        let Control::Challenge { nonce, cookie, cookie_time } = *challenge else { panic!("{challenge:?}") };
        assert_eq!(nonce, request.nonce);
        Control::Prove { request, cookie, cookie_time }
    }

    /// A whole request: asks, answers the challenge, gives the last answer.
    pub(super) fn go(&mut self, world: &mut World, from: Origin, k: u16, purpose: Purpose) -> Control {
        let request = self.request(purpose);
        self.go_with(world, from, k, request)
    }

    pub(super) fn go_with(&mut self, world: &mut World, from: Origin, k: u16, request: Request) -> Control {
        match self.ask(world, from, k, Self::asking(request)).unwrap() {
            challenge @ Control::Challenge { .. } => {
                self.ask(world, from, k, Self::proof(request, &challenge)).unwrap()
            }
            other => other,
        }
    }

    /// A request that is acknowledged.
    pub(super) fn moved(&mut self, world: &mut World, from: Origin, k: u16, purpose: Purpose) -> Ack {
        match self.go(world, from, k, purpose) {
            Control::Ack(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// A request that is refused.
    pub(super) fn refused(&mut self, world: &mut World, from: Origin, k: u16, purpose: Purpose) -> Reject {
        match self.go(world, from, k, purpose) {
            Control::Reject(reject) => reject,
            other => panic!("{other:?}"),
        }
    }

    /// The Noise message of a REKEY.
    pub(super) fn rekey1(&mut self) -> Vec<u8> {
        self.timestamp += 1;
        self.initiate(HandshakePurpose::Rekey { session: self.session }, HELLO_REKEY_LEN)
    }

    /// Takes the next keys out of an answer.
    pub(super) fn rekeyed(&mut self, answer: &Control) -> Accepted {
        let Control::Rekey(noise) = answer else { panic!("{answer:?}") };
        let (payload, split) = self.noise.as_mut().unwrap().read2(noise).unwrap();
        let Some(Answer::Accepted(accepted)) = Answer::decode(&payload) else { panic!("refused") };
        self.channel.as_mut().unwrap().add(accepted.epoch, EpochKeys::derive(split).control);
        *accepted
    }
}
