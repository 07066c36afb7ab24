//! Bodies of REATTACH, VALIDATE, PROVE, ACK and REJECT.
//!
//! ```text
//!  client                                   gateway
//!    │ REATTACH request ───────────────────►│   opened under the session's control key
//!    │◄──────────────── CHALLENGE cookie    │   bound to session, 4-tuple, nonce, purpose, incarnation
//!    │ PROVE request, cookie ──────────────►│   the request again, so that the gateway keeps nothing
//!    │◄──────────────── ACK or REJECT       │
//! ```
//!
//! Owns their fields. Must never decide whether a request is fresh, allowed or proven.

use super::codec::{Reader, Writer};
use crate::ids::{Locator, OwnerEpoch, TransportIndex, Version};
use crate::limits::{LABEL_MAX, LOCATORS_MAX};
use crate::reason::Reason;
use crate::session::Label;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Purpose {
    /// Same locator, another source: a NAT gave another mapping.
    Rebind = 1,
    /// My active transport is gone.
    Lost = 2,
    /// My active transport lives, this one is better.
    BetterQuality = 3,
    /// Somebody asked for it.
    BetterOperator = 4,
    /// Nothing moves: only prove this address ahead of need.
    Validate = 5,
    /// My active transport's NAT is about to forget its mapping; this is another port of the same transport.
    BetterMapping = 6,
}

impl Purpose {
    /// The purpose of a byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Rebind,
            2 => Self::Lost,
            3 => Self::BetterQuality,
            4 => Self::BetterOperator,
            5 => Self::Validate,
            6 => Self::BetterMapping,
            _ => return None,
        })
    }
}

/// Appends a label behind its length.
pub(super) fn write_label(writer: &mut Writer, label: &Label) {
    writer.short(label.as_str().as_bytes());
}

/// Reads a label; one that would have to be changed to be printable is refused.
pub(super) fn read_label(reader: &mut Reader<'_>) -> Option<Label> {
    let bytes = reader.short(LABEL_MAX)?;
    let label = Label::new(bytes);
    (label.as_str().as_bytes() == bytes).then_some(label)
}

/// What the client saw: kept for the record, never trusted for more than the client's own good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Evidence {
    /// What failed or why the other is better.
    pub what: Option<Reason>,
    /// Microseconds between the first sign and the decision.
    pub detect_us: u32,
    /// Smoothed round trip of the path asked for, microseconds.
    pub srtt_us: u32,
    /// Its variation, microseconds.
    pub jitter_us: u32,
    /// Its loss, in 1/1000.
    pub loss_permille: u16,
    /// How much better than the active one, in 1/1000.
    pub improvement_permille: u16,
    /// Candidates the client had.
    pub candidates: u8,
}

impl Evidence {
    fn write(&self, writer: &mut Writer) {
        writer
            .u16(self.what.map_or(0, |code| code as u16))
            .u32(self.detect_us)
            .u32(self.srtt_us)
            .u32(self.jitter_us)
            .u16(self.loss_permille)
            .u16(self.improvement_permille)
            .u8(self.candidates);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            what: match reader.u16()? {
                0 => None,
                number => Some(Reason::from_number(number)?),
            },
            detect_us: reader.u32()?,
            srtt_us: reader.u32()?,
            jitter_us: reader.u32()?,
            loss_permille: reader.u16()?,
            improvement_permille: reader.u16()?,
            candidates: reader.u8()?,
        })
    }
}

/// The client asks; sent in REATTACH or VALIDATE, and once more in PROVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// What it wants.
    pub purpose: Purpose,
    /// Strictly growing within a key set; the highest accepted wins.
    pub nonce: u64,
    /// Requests up to this nonce are abandoned.
    pub nonce_floor: u64,
    /// Last version the client has seen.
    pub last_version: Version,
    /// Gateway time of a recent echo on this path, 0 = none.
    pub quoted_echo: u64,
    /// The transport's name.
    pub label: Label,
    /// Its class, as [`crate::session::TransportClass`] numbers them.
    pub class: u8,
    /// Its proven path MTU.
    pub mtu: u16,
    /// What the client saw.
    pub evidence: Evidence,
}

impl Request {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer
            .u8(self.purpose as u8)
            .u64(self.nonce)
            .u64(self.nonce_floor)
            .u64(self.last_version.0)
            .u64(self.quoted_echo)
            .u8(self.class)
            .u16(self.mtu);
        self.evidence.write(writer);
        write_label(writer, &self.label);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            purpose: Purpose::from_byte(reader.u8()?)?,
            nonce: reader.u64()?,
            nonce_floor: reader.u64()?,
            last_version: Version(reader.u64()?),
            quoted_echo: reader.u64()?,
            class: reader.u8()?,
            mtu: reader.u16()?,
            evidence: Evidence::read(reader)?,
            label: read_label(reader)?,
        })
    }
}

/// The gateway did it, or (purpose VALIDATE) believes the address now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The request's nonce.
    pub nonce: u64,
    /// The request's purpose.
    pub purpose: Purpose,
    /// Version after the commit.
    pub version: Version,
    /// Number of the state after the commit.
    pub state: u8,
    /// Owner of the session.
    pub owner_epoch: OwnerEpoch,
    /// Locators on top of those in use, so that there are six together.
    pub locators: Vec<(TransportIndex, Locator)>,
    /// Transport indexes that are no longer valid.
    pub retired: Vec<TransportIndex>,
}

/// The gateway refused a proven sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The request's nonce.
    pub nonce: u64,
    /// Why.
    pub reason: Reason,
    /// More about why.
    pub detail: Option<Reason>,
    /// Milliseconds after which asking again makes sense.
    pub retry_after_ms: u32,
    /// Current version.
    pub version: Version,
    /// Number of the current state.
    pub state: u8,
    /// Transport index of the active binding.
    pub bound: Option<TransportIndex>,
}

pub(crate) fn write_locators(writer: &mut Writer, locators: &[(TransportIndex, Locator)]) {
    let shown = locators.get(..locators.len().min(LOCATORS_MAX)).unwrap_or_default();
    writer.u8(shown.len() as u8);
    for (k, locator) in shown {
        writer.u16(k.0).u64(locator.0);
    }
}

pub(crate) fn read_locators(reader: &mut Reader<'_>) -> Option<Vec<(TransportIndex, Locator)>> {
    let count = usize::from(reader.u8()?);
    if count > LOCATORS_MAX {
        return None;
    }
    (0..count).map(|_| Some((TransportIndex(reader.u16()?), Locator(reader.u64()?)))).collect()
}

impl Ack {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u64(self.nonce).u8(self.purpose as u8).u64(self.version.0).u8(self.state).u64(self.owner_epoch.0);
        write_locators(writer, &self.locators);
        let retired = self.retired.get(..self.retired.len().min(LOCATORS_MAX)).unwrap_or_default();
        writer.u8(retired.len() as u8);
        for k in retired {
            writer.u16(k.0);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (nonce, purpose) = (reader.u64()?, Purpose::from_byte(reader.u8()?)?);
        let (version, state, owner_epoch) = (Version(reader.u64()?), reader.u8()?, OwnerEpoch(reader.u64()?));
        let locators = read_locators(reader)?;
        let count = usize::from(reader.u8()?);
        if count > LOCATORS_MAX {
            return None;
        }
        let retired = (0..count).map(|_| reader.u16().map(TransportIndex)).collect::<Option<_>>()?;
        Some(Self { nonce, purpose, version, state, owner_epoch, locators, retired })
    }
}

impl Reject {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer
            .u64(self.nonce)
            .u16(self.reason as u16)
            .u16(self.detail.map_or(0, |code| code as u16))
            .u32(self.retry_after_ms)
            .u64(self.version.0)
            .u8(self.state)
            .u8(u8::from(self.bound.is_some()))
            .u16(self.bound.map_or(0, |k| k.0));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            nonce: reader.u64()?,
            reason: Reason::from_number(reader.u16()?)?,
            detail: match reader.u16()? {
                0 => None,
                number => Some(Reason::from_number(number)?),
            },
            retry_after_ms: reader.u32()?,
            version: Version(reader.u64()?),
            state: reader.u8()?,
            bound: match (reader.u8()?, reader.u16()?) {
                (0, _) => None,
                (_, k) => Some(TransportIndex(k)),
            },
        })
    }
}
