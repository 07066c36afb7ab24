//! Payloads of handshake messages 1 and 2: what travels inside Noise.
//!
//! Owns their fields and padding. BIRTH, RESUME and REKEY are the same two messages with another purpose.
//! Must never know keys; suites travel here, inside the transcript, so that nobody can lower them.

use super::codec::{Reader, Writer};
use super::reattach::{read_locators, write_locators};
use crate::ids::{Epoch, Incarnation, Locator, OwnerEpoch, SessionId, TransportIndex, Version};
use crate::limits::{ADDRESSES_MAX, HANDSHAKE_LEN};
use crate::reason::Reason;
use ipnet::IpNet;

/// Bytes of framing (type, version, index, mac1, mac2) and Noise (ephemeral, static, two tags) in message 1.
const OVERHEAD_1: usize = 8 + 32 + 32 + 48 + 16;
/// Plaintext of message 1, so that its UDP payload is exactly [`HANDSHAKE_LEN`].
pub const HELLO_LEN: usize = HANDSHAKE_LEN - OVERHEAD_1;
/// Plaintext of message 1 inside REKEY: header, AEAD tag, kind, id and length come on top.
pub const HELLO_REKEY_LEN: usize = HELLO_LEN - 24 - 16 - 11;
/// Longest encoded policy snapshot.
pub const POLICY_LEN_MAX: usize = 400;
/// Most suites a client may offer.
const SUITES_MAX: usize = 8;

/// Why a handshake is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakePurpose {
    /// A new session.
    Birth,
    /// The same session again, with new keys.
    Resume {
        /// Which one.
        session: SessionId,
        /// Highest version the client has seen.
        version: Version,
        /// Highest owner epoch the client has seen.
        owner_epoch: OwnerEpoch,
    },
    /// New keys inside a running session.
    Rekey {
        /// Which one.
        session: SessionId,
    },
}

/// Payload of message 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Why.
    pub purpose: HandshakePurpose,
    /// Client's wall clock in nanoseconds since 1970: a hint, never proof.
    pub timestamp: u64,
    /// Suites the client can do, any order; the gateway chooses by its own.
    pub suites: Vec<u8>,
}

impl Hello {
    /// The plaintext, padded to `len` ([`HELLO_LEN`] or [`HELLO_REKEY_LEN`]).
    #[must_use]
    pub fn encode(&self, len: usize) -> Vec<u8> {
        let mut writer = Writer::new();
        let (number, session, version, owner) = match self.purpose {
            HandshakePurpose::Birth => (1, SessionId::default(), Version(0), OwnerEpoch(0)),
            HandshakePurpose::Resume { session, version, owner_epoch } => (2, session, version, owner_epoch),
            HandshakePurpose::Rekey { session } => (3, session, Version(0), OwnerEpoch(0)),
        };
        writer.u8(number).bytes(&session.0).u64(version.0).u64(owner.0).u64(self.timestamp).short(&self.suites);
        writer.pad_to(len).finish()
    }

    /// The payload of a plaintext.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(plaintext);
        let number = reader.u8()?;
        let session = SessionId(reader.array()?);
        let (version, owner_epoch) = (Version(reader.u64()?), OwnerEpoch(reader.u64()?));
        let purpose = match number {
            1 => HandshakePurpose::Birth,
            2 => HandshakePurpose::Resume { session, version, owner_epoch },
            3 => HandshakePurpose::Rekey { session },
            _ => return None,
        };
        let timestamp = reader.u64()?;
        let suites = reader.short(SUITES_MAX)?.to_vec();
        reader.rest_is_padding().then_some(Self { purpose, timestamp, suites })
    }
}

/// How a handshake was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new session; if the client asked to resume, why the old one is gone.
    New(Option<Reason>),
    /// The same session.
    Resumed,
    /// The same session, same locators, next epoch.
    Rekeyed,
}

/// What a client needs to run the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// New, resumed or rekeyed.
    pub outcome: Outcome,
    /// The session.
    pub session: SessionId,
    /// Its version, for RESUMED.
    pub version: Version,
    /// Number of the keys.
    pub epoch: Epoch,
    /// Owner of the session.
    pub owner_epoch: OwnerEpoch,
    /// Which start of the gateway this is.
    pub incarnation: Incarnation,
    /// Suite chosen.
    pub suite: u8,
    /// Inner MTU.
    pub mtu: u16,
    /// Inner addresses.
    pub addresses: Vec<IpNet>,
    /// Locators to use.
    pub locators: Vec<(TransportIndex, Locator)>,
    /// Policy snapshot in its own encoding.
    pub policy: Vec<u8>,
}

/// Payload of message 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on with CONFIRM.
    Accepted(Box<Accepted>),
    /// No, and why.
    Refused {
        /// Why.
        reason: Reason,
        /// When asking again makes sense, milliseconds.
        retry_after_ms: u32,
    },
}

impl Answer {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Refused { reason, retry_after_ms } => {
                writer.u8(0).u16(*reason as u16).u32(*retry_after_ms);
            }
            Self::Accepted(accepted) => accepted.write(&mut writer),
        }
        writer.finish()
    }

    /// The payload of a plaintext.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(plaintext);
        let answer = match reader.u8()? {
            0 => Self::Refused { reason: Reason::from_number(reader.u16()?)?, retry_after_ms: reader.u32()? },
            number => Self::Accepted(Box::new(Accepted::read(number, &mut reader)?)),
        };
        reader.rest_is_padding().then_some(answer)
    }
}

impl Accepted {
    fn write(&self, writer: &mut Writer) {
        let (number, ended) = match self.outcome {
            Outcome::New(ended) => (1, ended),
            Outcome::Resumed => (2, None),
            Outcome::Rekeyed => (3, None),
        };
        writer.u8(number).u16(ended.map_or(0, |code| code as u16)).bytes(&self.session.0);
        writer.u64(self.version.0).u32(self.epoch.0).u64(self.owner_epoch.0).u64(self.incarnation.0);
        writer.u8(self.suite).u16(self.mtu);
        let addresses = self.addresses.get(..self.addresses.len().min(ADDRESSES_MAX)).unwrap_or_default();
        writer.u8(addresses.len() as u8);
        for address in addresses {
            writer.address(address.addr()).u8(address.prefix_len());
        }
        write_locators(writer, &self.locators);
        writer.u16(self.policy.len() as u16).bytes(&self.policy);
    }

    fn read(number: u8, reader: &mut Reader<'_>) -> Option<Self> {
        let ended = match reader.u16()? {
            0 => None,
            code => Some(Reason::from_number(code)?),
        };
        let outcome = match number {
            1 => Outcome::New(ended),
            2 => Outcome::Resumed,
            3 => Outcome::Rekeyed,
            _ => return None,
        };
        let session = SessionId(reader.array()?);
        let (version, epoch) = (Version(reader.u64()?), Epoch(reader.u32()?));
        let (owner_epoch, incarnation) = (OwnerEpoch(reader.u64()?), Incarnation(reader.u64()?));
        let (suite, mtu) = (reader.u8()?, reader.u16()?);
        let count = usize::from(reader.u8()?);
        if count > ADDRESSES_MAX {
            return None;
        }
        let addresses = (0..count).map(|_| IpNet::new(reader.address()?, reader.u8()?).ok()).collect::<Option<_>>()?;
        let locators = read_locators(reader)?;
        let len = usize::from(reader.u16()?);
        let policy = if len > POLICY_LEN_MAX { None } else { reader.slice(len) }?.to_vec();
        Some(Self {
            outcome,
            session,
            version,
            epoch,
            owner_epoch,
            incarnation,
            suite,
            mtu,
            addresses,
            locators,
            policy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Answer {
        Answer::Accepted(Box::new(Accepted {
            outcome: Outcome::New(Some(Reason::SessionExpired)),
            session: SessionId([3; 16]),
            version: Version(9),
            epoch: Epoch(2),
            owner_epoch: OwnerEpoch(1),
            incarnation: Incarnation(8),
            suite: 1,
            mtu: 1_412,
            addresses: vec!["10.77.0.17/32".parse().unwrap(), "fd77::17/128".parse().unwrap()],
            locators: (0..6).map(|k| (TransportIndex(k), Locator(99))).collect(),
            policy: vec![1; POLICY_LEN_MAX],
        }))
    }

    #[test]
    fn payloads_read_back_what_they_wrote() {
        let session = SessionId([3; 16]);
        for purpose in [
            HandshakePurpose::Birth,
            HandshakePurpose::Resume { session, version: Version(3), owner_epoch: OwnerEpoch(4) },
            HandshakePurpose::Rekey { session },
        ] {
            let hello = Hello { purpose, timestamp: 5, suites: vec![1, 2] };
            let bytes = hello.encode(HELLO_LEN);
            assert_eq!((Hello::decode(&bytes), bytes.len()), (Some(hello), HELLO_LEN));
        }
        for answer in [accepted(), Answer::Refused { reason: Reason::UnknownPeer, retry_after_ms: 7 }] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn the_largest_answer_fits_message_2() {
        // type, index, ephemeral, tag, mac1, mac2
        assert!(accepted().encode().len() + 12 + 32 + 16 + 32 <= HANDSHAKE_LEN);
    }

    #[test]
    fn every_truncated_answer_is_refused() {
        let bytes = accepted().encode();
        for len in 0..bytes.len() {
            assert_eq!(Answer::decode(&bytes[..len]), None, "cut to {len}");
        }
        assert_eq!(Hello::decode(&[9; 64]), None);
    }
}
