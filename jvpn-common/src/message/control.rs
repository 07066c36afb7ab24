//! The sealed control message: `kind:8 ‖ id:64 ‖ body ‖ zero padding`.
//!
//! Owns the numbers of the kinds and the sizes: requests that will be answered are padded to a UDP payload
//! of [`CONTROL_LEN`], so that no answer is larger. Must never seal: `crypto::control` does.

use super::codec::{Reader, Writer};
use super::reattach::{Ack, Reject, Request, read_label, write_label};
use crate::ids::TransportIndex;
use crate::limits::{CONTROL_LEN, HANDSHAKE_LEN, HEADER_LEN, PATHS_MAX, TAG_LEN};
use crate::reason::Reason;
use crate::session::Label;

/// Plaintext of a padded request.
const PADDED: usize = CONTROL_LEN - HEADER_LEN - TAG_LEN;
/// Plaintext of a padded REKEY.
const PADDED_REKEY: usize = HANDSHAKE_LEN - HEADER_LEN - TAG_LEN;

/// One path as the client measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PathQuality {
    /// Transport index of its locator.
    pub k: TransportIndex,
    /// Loss in 1/1000.
    pub loss_permille: u16,
    /// Smoothed round trip, microseconds.
    pub srtt_us: u32,
    /// Its variation, microseconds.
    pub jitter_us: u32,
    /// Whether it delivered anything since the last report.
    pub delivered: bool,
}

/// A control message's kind and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Confirms a handshake: the transport's name and proven path MTU.
    Confirm { label: Label, class: u8, mtu: u16 },
    /// Asks to move.
    Reattach(Request),
    /// Asks to answer from where it came.
    Challenge { nonce: u64, cookie: [u8; 16], cookie_time: u64 },
    /// Answers a challenge.
    Prove { request: Request, cookie: [u8; 16], cookie_time: u64 },
    /// Done.
    Ack(Ack),
    /// Refused.
    Reject(Reject),
    /// Asks to prove an address without moving.
    Validate(Request),
    /// A handshake inside the session: message 1 up, message 2 down.
    Rekey(Vec<u8>),
    /// What the client measures.
    PathReport(Vec<PathQuality>),
    /// New policy snapshot in its own encoding.
    PolicyUpdate(Vec<u8>),
    /// An operator asks the client to move.
    JumpRequest { label: Label },
    /// The gateway will be back.
    GoingAway,
    /// The client ends the session.
    Close,
    /// The gateway ended the session.
    Terminate { reason: Reason },
    /// The message with this envelope's id arrived.
    Done,
    /// The gateway asks the client to start a rekey.
    RekeyWanted,
}

/// A control message with the id it is acknowledged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Idempotency: the same id means the same message.
    pub id: u64,
    /// What it says.
    pub body: Control,
}

impl Message {
    /// The plaintext, padded as its kind asks.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_room(PADDED);
        writer.u8(self.body.number()).u64(self.id);
        self.body.write(&mut writer);
        match self.body {
            Control::Confirm { .. }
            | Control::Reattach(_)
            | Control::Prove { .. }
            | Control::Validate(_)
            | Control::PathReport(_)
            | Control::Close => writer.pad_to(PADDED),
            Control::Rekey(_) => writer.pad_to(PADDED_REKEY),
            _ => &mut writer,
        };
        writer.finish()
    }

    /// The message of a plaintext; `None` when anything about it is not as it should be.
    #[must_use]
    pub fn decode(plaintext: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(plaintext);
        let (number, id) = (reader.u8()?, reader.u64()?);
        let body = Control::read(number, &mut reader)?;
        reader.rest_is_padding().then_some(Self { id, body })
    }
}

impl Control {
    const fn number(&self) -> u8 {
        match self {
            Self::Confirm { .. } => 1,
            Self::Reattach(_) => 2,
            Self::Challenge { .. } => 3,
            Self::Prove { .. } => 4,
            Self::Ack(_) => 5,
            Self::Reject(_) => 6,
            Self::Validate(_) => 7,
            Self::Rekey(_) => 8,
            Self::PathReport(_) => 9,
            Self::PolicyUpdate(_) => 10,
            Self::JumpRequest { .. } => 11,
            Self::GoingAway => 12,
            Self::Close => 13,
            Self::Terminate { .. } => 14,
            Self::Done => 15,
            Self::RekeyWanted => 16,
        }
    }

    /// Its name in counters and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Confirm { .. } => "CONFIRM",
            Self::Reattach(_) => "REATTACH",
            Self::Challenge { .. } => "CHALLENGE",
            Self::Prove { .. } => "PROVE",
            Self::Ack(_) => "ACK",
            Self::Reject(_) => "REJECT",
            Self::Validate(_) => "VALIDATE",
            Self::Rekey(_) => "REKEY",
            Self::PathReport(_) => "PATH_REPORT",
            Self::PolicyUpdate(_) => "POLICY_UPDATE",
            Self::JumpRequest { .. } => "JUMP_REQUEST",
            Self::GoingAway => "GOING_AWAY",
            Self::Close => "CLOSE",
            Self::Terminate { .. } => "TERMINATE",
            Self::Done => "DONE",
            Self::RekeyWanted => "REKEY_WANTED",
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Confirm { label, class, mtu } => write_label(writer.u8(*class).u16(*mtu), label),
            Self::Reattach(request) | Self::Validate(request) => request.write(writer),
            Self::Challenge { nonce, cookie, cookie_time } => {
                writer.u64(*nonce).bytes(cookie).u64(*cookie_time);
            }
            Self::Prove { request, cookie, cookie_time } => {
                writer.bytes(cookie).u64(*cookie_time);
                request.write(writer);
            }
            Self::Ack(ack) => ack.write(writer),
            Self::Reject(reject) => reject.write(writer),
            Self::Rekey(bytes) | Self::PolicyUpdate(bytes) => {
                writer.u16(bytes.len() as u16).bytes(bytes);
            }
            Self::PathReport(paths) => {
                let shown = paths.get(..paths.len().min(PATHS_MAX)).unwrap_or_default();
                writer.u8(shown.len() as u8);
                for path in shown {
                    writer.u16(path.k.0).u16(path.loss_permille).u32(path.srtt_us).u32(path.jitter_us);
                    writer.u8(u8::from(path.delivered));
                }
            }
            Self::JumpRequest { label } => write_label(writer, label),
            Self::Terminate { reason } => {
                writer.u16(*reason as u16);
            }
            Self::GoingAway | Self::Close | Self::Done | Self::RekeyWanted => {}
        }
    }

    fn read(number: u8, reader: &mut Reader<'_>) -> Option<Self> {
        Some(match number {
            1 => {
                let (class, mtu) = (reader.u8()?, reader.u16()?);
                Self::Confirm { class, mtu, label: read_label(reader)? }
            }
            2 => Self::Reattach(Request::read(reader)?),
            3 => Self::Challenge { nonce: reader.u64()?, cookie: reader.array()?, cookie_time: reader.u64()? },
            4 => {
                let (cookie, cookie_time) = (reader.array()?, reader.u64()?);
                Self::Prove { cookie, cookie_time, request: Request::read(reader)? }
            }
            5 => Self::Ack(Ack::read(reader)?),
            6 => Self::Reject(Reject::read(reader)?),
            7 => Self::Validate(Request::read(reader)?),
            8 => Self::Rekey(read_long(reader)?),
            9 => Self::PathReport(read_paths(reader)?),
            10 => Self::PolicyUpdate(read_long(reader)?),
            11 => Self::JumpRequest { label: read_label(reader)? },
            12 => Self::GoingAway,
            13 => Self::Close,
            14 => Self::Terminate { reason: Reason::from_number(reader.u16()?)? },
            15 => Self::Done,
            16 => Self::RekeyWanted,
            _ => return None,
        })
    }
}

fn read_long(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let len = usize::from(reader.u16()?);
    reader.slice(len).map(<[u8]>::to_vec)
}

fn read_paths(reader: &mut Reader<'_>) -> Option<Vec<PathQuality>> {
    let count = usize::from(reader.u8()?);
    if count > PATHS_MAX {
        return None;
    }
    (0..count)
        .map(|_| {
            Some(PathQuality {
                k: TransportIndex(reader.u16()?),
                loss_permille: reader.u16()?,
                srtt_us: reader.u32()?,
                jitter_us: reader.u32()?,
                delivered: reader.u8()? == 1,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
