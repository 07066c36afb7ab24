//! A client by hand: real messages of the protocol, sealed and opened by the product's own code, one step at a time.
//!
//! Owns the keys, counters and addresses of one client. Must never decide anything, and never take an answer for another
//! one than the one it waits for.

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::channel::{Channel, Side};
use jvpn_common::crypto::EpochKeys;
use jvpn_common::crypto::cookie::{Cookie, MAC_LEN, MacKeys};
use jvpn_common::crypto::frame::{unwrap, wrap};
use jvpn_common::crypto::noise::Initiator;
use jvpn_common::gateway::command::{Datagram, Hop, Origin};
use jvpn_common::ids::{Locator, OwnerEpoch, SessionId, TransportIndex, Version};
use jvpn_common::message::handshake::{HELLO_LEN, Outcome};
use jvpn_common::message::{Answer, Control, Evidence, HandshakePurpose, Hello, Label, Message, Purpose, Request};
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::wire::{Header, Kind};
use jvpn_ctl::runtime::entropy::System;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::WALL;

/// Where every gateway of a bench listens.
const GATEWAY: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 51_821);
/// Its place in the list of suites a client offers.
const AES: u8 = jvpn_common::crypto::Suite::Aes256Gcm as u8;

/// A client.
#[derive(Debug)]
pub struct Client {
    private: PrivateKey,
    gateway: PublicKey,
    /// Host part of its two addresses.
    number: u32,
    timestamp: u64,
    noise: Option<Initiator>,
    mac1: [u8; MAC_LEN],
    cookie: Option<Cookie>,
    channel: Option<Channel>,
    locators: BTreeMap<TransportIndex, Locator>,
    version: Version,
    /// Its session, and the owner of it, for a resume.
    session: Option<(SessionId, OwnerEpoch)>,
    /// Which of its transports is bound: 0 or 1.
    bound: u16,
    nonce: u64,
    id: u64,
    request: Option<Request>,
}

impl Client {
    #[must_use]
    pub fn new(number: u32, private: &PrivateKey, gateway: PublicKey) -> Client {
        Client {
            private: private.duplicate(),
            gateway,
            number,
            timestamp: WALL,
            noise: None,
            mac1: [0; MAC_LEN],
            cookie: None,
            channel: None,
            locators: BTreeMap::new(),
            version: Version(0),
            session: None,
            bound: 0,
            nonce: 0,
            id: 0,
            request: None,
        }
    }

    /// Where it sends from on a transport; each has an address of its own.
    fn at(&self, k: u16) -> Origin {
        let address = Ipv4Addr::from_bits(0x0a42_0000 + 2 * self.number + u32::from(k));
        Origin { hop: Hop::Local, client: (address, 40_000).into(), gateway: GATEWAY.into() }
    }

    /// Message 1 for its session under new keys, or for a new one; with the cookie it was sent, if it was.
    ///
    /// # Errors
    /// When the handshake's own code refuses, here and below.
    pub fn message1(&mut self) -> Result<(Origin, Vec<u8>)> {
        self.timestamp += 1;
        let mut noise = Initiator::new(&self.private, &self.gateway, &PresharedKey::none(), &mut System)?;
        let purpose = match self.session {
            Some((session, owner_epoch)) => HandshakePurpose::Resume { session, version: self.version, owner_epoch },
            None => HandshakePurpose::Birth,
        };
        let hello = Hello { purpose, timestamp: self.timestamp, suites: vec![AES] };
        let message = noise.message1(&hello.encode(HELLO_LEN))?;
        let keys = MacKeys::new(&self.gateway);
        let (bytes, mac1) = wrap(Kind::Initiation, self.number, &message, &keys, self.cookie.take().as_ref());
        (self.noise, self.mac1) = (Some(noise), mac1);
        Ok((self.at(0), bytes))
    }

    /// Takes the cookie a gateway under load answers with.
    pub fn take_cookie(&mut self, answer: &Datagram) -> Result<()> {
        let (_, cookie) = MacKeys::new(&self.gateway).open_reply(&answer.bytes, &self.mac1).context("not a cookie")?;
        self.cookie = Some(cookie);
        Ok(())
    }

    /// Reads message 2.
    pub fn take_message2(&mut self, answer: &Datagram) -> Result<()> {
        let frame = unwrap(Kind::Response, &answer.bytes, &MacKeys::new(&self.private.public()));
        let frame = frame.context("not a message 2")?;
        ensure!(frame.index == self.number, "message 2 of {} came to {}", frame.index, self.number);
        let mut noise = self.noise.take().context("message 2 without message 1")?;
        let (payload, split) = noise.read2(frame.noise)?;
        let accepted = match Answer::decode(&payload).context("message 2 without a meaning")? {
            Answer::Accepted(accepted) => *accepted,
            Answer::Refused { reason, .. } => bail!("refused: {reason}"),
        };
        let keys = EpochKeys::derive(split);
        let steering = keys.steering_words();
        self.channel = Some(Channel::new(Side::Client, accepted.epoch, keys.control, steering));
        let resumed = accepted.outcome == Outcome::Resumed;
        ensure!(resumed == self.session.is_some(), "{:?} instead of what was asked for", accepted.outcome);
        self.version = accepted.version;
        self.session = Some((accepted.session, accepted.owner_epoch));
        self.locators = accepted.locators.into_iter().collect();
        (self.nonce, self.id, self.bound) = (0, 0, 0);
        Ok(())
    }

    /// CONFIRM on the first transport.
    pub fn confirm(&mut self) -> Result<(Origin, Vec<u8>)> {
        let body = Control::Confirm { label: Label::new("wifi"), class: 1, mtu: 1_400 };
        Ok((self.at(0), self.seal(0, body)?))
    }

    /// The acknowledgement of CONFIRM or CLOSE.
    pub fn take_done(&mut self, answer: &Datagram) -> Result<()> {
        match self.open(answer)? {
            Control::Done => Ok(()),
            other => bail!("{} instead of DONE", name(other)),
        }
    }

    /// Ends its session; the next handshake is for a new one.
    pub fn close(&mut self) -> Result<(Origin, Vec<u8>)> {
        self.session = None;
        Ok((self.at(self.bound), self.seal(self.bound, Control::Close)?))
    }

    /// Asks to move to its other transport.
    pub fn reattach(&mut self, purpose: Purpose) -> Result<(Origin, Vec<u8>)> {
        self.nonce += 1;
        let request = Request {
            purpose,
            nonce: self.nonce,
            nonce_floor: 0,
            last_version: self.version,
            // None: the address is challenged each time.
            quoted_echo: 0,
            label: Label::new(if self.bound == 0 { "lte" } else { "wifi" }),
            class: 1,
            mtu: 1_400,
            evidence: Evidence { improvement_permille: 500, detect_us: 30_000, ..Evidence::default() },
        };
        self.request = Some(request);
        let k = 1 - self.bound;
        Ok((self.at(k), self.seal(k, Control::Reattach(request))?))
    }

    /// The proof that answers a challenge.
    pub fn prove(&mut self, answer: &Datagram) -> Result<(Origin, Vec<u8>)> {
        let request = self.request.context("a challenge without a request")?;
        let (cookie, cookie_time) = match self.open(answer)? {
            Control::Challenge { nonce, cookie, cookie_time } if nonce == request.nonce => (cookie, cookie_time),
            other => bail!("{} instead of the challenge", name(other)),
        };
        let k = 1 - self.bound;
        Ok((self.at(k), self.seal(k, Control::Prove { request, cookie, cookie_time })?))
    }

    /// The acknowledgement of the move: the session is bound to the other transport and its version went up.
    pub fn take_ack(&mut self, answer: &Datagram) -> Result<()> {
        let nonce = self.request.take().context("an acknowledgement without a request")?.nonce;
        let ack = match self.open(answer)? {
            Control::Ack(ack) => ack,
            Control::Reject(reject) => bail!("rejected: {}", reject.reason),
            other => bail!("{} instead of the acknowledgement", name(other)),
        };
        ensure!(ack.nonce == nonce, "the acknowledgement of another request");
        ensure!(ack.version > self.version, "acknowledged, but version {} did not go up", self.version);
        self.version = ack.version;
        self.locators.extend(ack.locators.iter().copied());
        self.locators.retain(|k, _| !ack.retired.contains(k));
        self.bound = 1 - self.bound;
        Ok(())
    }

    fn seal(&mut self, k: u16, body: Control) -> Result<Vec<u8>> {
        self.id += 1;
        let (k, message) = (TransportIndex(k), Message { id: self.id, body });
        let locator = *self.locators.get(&k).context("no locator")?;
        let channel = self.channel.as_ref().context("no keys")?;
        channel.seal(k, locator, &message).context("the keys are worn out")
    }

    fn open(&mut self, answer: &Datagram) -> Result<Control> {
        let mut bytes = answer.bytes.clone();
        let (header, _) = Header::parse(&bytes).context("no header")?;
        let known = self.locators.iter().find(|(_, locator)| locator.0 == header.locator);
        let (&k, _) = known.context("somebody else's locator")?;
        let channel = self.channel.as_mut().context("no keys")?;
        let (_, message) = channel.open(k, &mut bytes).map_err(|error| anyhow::anyhow!("an answer: {error}"))?;
        ensure!(message.id == self.id, "an answer to another question");
        Ok(message.body)
    }
}

fn name(body: Control) -> &'static str {
    Message { id: 0, body }.body.name()
}
