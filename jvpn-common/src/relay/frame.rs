//! The frames of the stream, as bytes and back.
//!
//! Owns their numbers and layouts; little-endian, addresses as IPv4-mapped IPv6. Unknown or malformed frames end the
//! stream. Must never carry a data or control key: steering keys only, which protect against junk alone.

use crate::abi::{LAYOUT_HASH, SteeringKeys};
use crate::ids::{Generation, Incarnation, Locator, OwnerEpoch, SessionId, Slot, TransportIndex, Version};
use crate::limits::LOCATORS_MAX;
use crate::message::codec::{Reader, Writer};
use crate::secret::Secret;
use crate::time::{Duration, nanos};
use core::net::SocketAddr;

/// One transport of a session through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The client's outer address.
    pub client: SocketAddr,
    /// The relay's own address it uses.
    pub local: SocketAddr,
    /// Its transport index.
    pub k: TransportIndex,
    /// Proven path MTU.
    pub mtu: u16,
}

/// What a relay is to hold of one of the owner's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Generation of the owner's slot.
    pub generation: Generation,
    /// The session.
    pub session: SessionId,
    /// Its version, for people with bpftool.
    pub version: Version,
    /// Number of its state, for the same.
    pub state: u32,
    /// Steering keys.
    pub keys: SteeringKeys,
    /// Whether only CONFIRM may pass.
    pub pending: bool,
    /// Its locators, in order.
    pub locators: Vec<(TransportIndex, Locator)>,
    /// Where data goes, if it goes through this relay.
    pub active: Option<Way>,
    /// From where else data may come, and for how long.
    pub draining: Option<(Way, Duration)>,
}

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToOwner {
    /// First frame: this build's map layout, and the owner's UDP endpoints as the relay knows them.
    Hello {
        /// [`LAYOUT_HASH`].
        layout: u64,
        /// At most one of each family.
        endpoints: Vec<SocketAddr>,
    },
    /// Trailers call this address of the relay by this number.
    Local {
        /// Number.
        index: u16,
        /// Address with its port.
        address: SocketAddr,
    },
    /// What became of a Bind or Unbind.
    Ack {
        /// Its number.
        op: u64,
        /// Whether the maps say so now; else they say what they said before.
        done: bool,
    },
}

/// Who the owner is, and the keys of this stream's trailers.
#[derive(Debug)]
pub struct Welcome {
    /// Which start of the owner.
    pub incarnation: Incarnation,
    /// Which owner.
    pub owner_epoch: OwnerEpoch,
    /// Trailer key, relay to owner.
    pub up: Secret<32>,
    /// Trailer key, owner to relay.
    pub down: Secret<32>,
}

/// What an owner says.
#[derive(Debug)]
pub enum ToRelay {
    /// First frame.
    Welcome(Welcome),
    /// Hold this of a slot, whatever was held of it before.
    Bind {
        /// Comes back in [`ToOwner::Ack`].
        op: u64,
        /// The owner's slot.
        slot: Slot,
        /// What to hold.
        held: Box<Held>,
    },
    /// Hold nothing of a slot.
    Unbind {
        /// Comes back in [`ToOwner::Ack`].
        op: u64,
        /// The owner's slot.
        slot: Slot,
    },
    /// Every slot in use has been named since WELCOME; what was not is over.
    Complete,
    /// The owner's worker was alive just now and vouches for this long.
    Lease {
        /// From when it arrives.
        within: Duration,
    },
}

const HELLO: u8 = 1;
const LOCAL: u8 = 2;
const ACK: u8 = 3;
const WELCOME: u8 = 16;
const BIND: u8 = 17;
const UNBIND: u8 = 18;
const COMPLETE: u8 = 19;
const LEASE: u8 = 20;

fn write_socket(writer: &mut Writer, address: SocketAddr) {
    writer.address(address.ip()).u16(address.port());
}

fn read_socket(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let ip = reader.address()?;
    Some(SocketAddr::new(ip, reader.u16()?))
}

fn read_flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

impl Way {
    fn write(&self, writer: &mut Writer) {
        write_socket(writer, self.client);
        write_socket(writer, self.local);
        writer.u16(self.k.0).u16(self.mtu);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let client = read_socket(reader)?;
        let local = read_socket(reader)?;
        Some(Self { client, local, k: TransportIndex(reader.u16()?), mtu: reader.u16()? })
    }
}

impl Held {
    fn write(&self, writer: &mut Writer) {
        writer.u32(self.generation.0).bytes(&self.session.0).u64(self.version.0).u32(self.state);
        for word in self.keys.to_words() {
            writer.u64(word);
        }
        writer.u8(u8::from(self.pending)).u8(self.locators.len() as u8);
        for (k, locator) in &self.locators {
            writer.u16(k.0).u64(locator.0);
        }
        writer.u8(u8::from(self.active.is_some()));
        if let Some(way) = &self.active {
            way.write(writer);
        }
        writer.u8(u8::from(self.draining.is_some()));
        if let Some((way, within)) = &self.draining {
            way.write(writer);
            writer.u64(nanos(*within));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let generation = Generation(reader.u32()?);
        let session = SessionId(reader.array()?);
        let (version, state) = (Version(reader.u64()?), reader.u32()?);
        let keys = SteeringKeys::from_words([reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?]);
        let pending = read_flag(reader)?;
        let count = usize::from(reader.u8()?);
        if count > LOCATORS_MAX || generation.0 == 0 {
            return None;
        }
        let mut locators = Vec::with_capacity(count);
        for _ in 0..count {
            locators.push((TransportIndex(reader.u16()?), Locator(reader.u64()?)));
        }
        let active = if read_flag(reader)? { Some(Way::read(reader)?) } else { None };
        let draining = if read_flag(reader)? {
            let way = Way::read(reader)?;
            Some((way, Duration::from_nanos(reader.u64()?)))
        } else {
            None
        };
        Some(Self { generation, session, version, state, keys, pending, locators, active, draining })
    }
}

impl ToOwner {
    /// The first frame of this build.
    #[must_use]
    pub const fn hello(endpoints: Vec<SocketAddr>) -> Self {
        Self::Hello { layout: LAYOUT_HASH, endpoints }
    }

    /// The frame as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Hello { layout, endpoints } => {
                writer.u8(HELLO).u64(*layout).u8(endpoints.len() as u8);
                endpoints.iter().for_each(|endpoint| write_socket(&mut writer, *endpoint));
            }
            Self::Local { index, address } => {
                writer.u8(LOCAL).u16(*index);
                write_socket(&mut writer, *address);
            }
            Self::Ack { op, done } => {
                writer.u8(ACK).u64(*op).u8(u8::from(*done));
            }
        }
        writer.finish()
    }

    /// The frame of these bytes; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let frame = match reader.u8()? {
            HELLO => {
                let layout = reader.u64()?;
                let count = usize::from(reader.u8()?);
                if count > 2 {
                    return None;
                }
                let endpoints = (0..count).map(|_| read_socket(&mut reader)).collect::<Option<_>>()?;
                Self::Hello { layout, endpoints }
            }
            LOCAL => Self::Local { index: reader.u16()?, address: read_socket(&mut reader)? },
            ACK => Self::Ack { op: reader.u64()?, done: read_flag(&mut reader)? },
            _ => return None,
        };
        reader.rest().is_empty().then_some(frame)
    }
}

impl ToRelay {
    /// The frame as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Welcome(welcome) => {
                writer.u8(WELCOME).u64(welcome.incarnation.0).u64(welcome.owner_epoch.0);
                writer.bytes(welcome.up.expose()).bytes(welcome.down.expose());
            }
            Self::Bind { op, slot, held } => {
                writer.u8(BIND).u64(*op).u32(slot.0);
                held.write(&mut writer);
            }
            Self::Unbind { op, slot } => {
                writer.u8(UNBIND).u64(*op).u32(slot.0);
            }
            Self::Complete => {
                writer.u8(COMPLETE);
            }
            Self::Lease { within } => {
                writer.u8(LEASE).u64(nanos(*within));
            }
        }
        writer.finish()
    }

    /// The frame of these bytes; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let frame = match reader.u8()? {
            WELCOME => Self::Welcome(Welcome {
                incarnation: Incarnation(reader.u64()?),
                owner_epoch: OwnerEpoch(reader.u64()?),
                up: Secret::take(&mut reader.array()?),
                down: Secret::take(&mut reader.array()?),
            }),
            BIND => {
                let (op, slot) = (reader.u64()?, Slot(reader.u32()?));
                Self::Bind { op, slot, held: Box::new(Held::read(&mut reader)?) }
            }
            UNBIND => Self::Unbind { op: reader.u64()?, slot: Slot(reader.u32()?) },
            COMPLETE => Self::Complete,
            LEASE => Self::Lease { within: Duration::from_nanos(reader.u64()?) },
            _ => return None,
        };
        reader.rest().is_empty().then_some(frame)
    }
}
