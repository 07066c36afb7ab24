//! Inputs as the record keeps them.
//!
//! Owns their JSON form. Must never give a proof to the outside: a written input becomes one again only for
//! a replay, inside this crate.

use serde::{Deserialize, Serialize};

use super::{TransportText, hex, wide};
use crate::ids::{OwnerEpoch, Version};
use crate::reason::Reason;
use crate::session::proof::{Confirmed, Switch};
use crate::session::{Cause, Class, Ender, Input, Report, Request, Resume, Side};
use crate::time::{Duration, Instant, nanos};

/// An input, as `{kind, fields}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "fields", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
#[allow(missing_docs, reason = "field by field the session's inputs")]
pub enum Written {
    Tick,
    Confirm {
        transport: TransportText,
        #[serde(with = "wide")]
        reject_after: Instant,
    },
    Quality {
        loss_permille: u16,
        #[serde(with = "wide")]
        rtt_ns: u64,
        #[serde(with = "wide")]
        jitter_ns: u64,
        delivered: u32,
    },
    Reattach {
        class: Class,
        cause: Cause,
        improvement_permille: u16,
        #[serde(with = "wide")]
        nonce: u64,
        #[serde(with = "wide")]
        last_version: Version,
        evidence: Option<Reason>,
        transport: TransportText,
    },
    Resume {
        peer: String,
        transport: TransportText,
        #[serde(with = "wide")]
        last_version: Version,
        #[serde(with = "wide")]
        reject_after: Instant,
    },
    Rekeyed {
        #[serde(with = "wide")]
        reject_after: Instant,
    },
    NonceFloor {
        #[serde(with = "wide")]
        nonce: u64,
    },
    AttemptFailed,
    TransportLost {
        by: Side,
        evidence: Option<Reason>,
    },
    ControllerRestarted,
    Shutdown,
    Terminate {
        by: Ender,
    },
    PeerRemoved,
    Superseded,
    NewerOwner {
        #[serde(with = "wide")]
        epoch: OwnerEpoch,
    },
    CompromiseSuspected,
    InvariantBroken {
        which: u8,
    },
}

impl From<&Input> for Written {
    fn from(input: &Input) -> Self {
        match *input {
            Input::Tick => Self::Tick,
            Input::Confirm { confirmed, reject_after } => {
                Self::Confirm { transport: confirmed.transport().into(), reject_after }
            }
            Input::Quality(report) => Self::Quality {
                loss_permille: report.loss,
                rtt_ns: nanos(report.rtt),
                jitter_ns: nanos(report.jitter),
                delivered: report.delivered,
            },
            Input::Reattach(switch) => {
                let Request { class, cause, improvement, nonce, last_version, evidence } = *switch.request();
                let transport = switch.transport().into();
                Self::Reattach {
                    class,
                    cause,
                    improvement_permille: improvement,
                    nonce,
                    last_version,
                    evidence,
                    transport,
                }
            }
            Input::Resume(resume) => Self::Resume {
                peer: hex(&resume.peer),
                transport: resume.confirmed.transport().into(),
                last_version: resume.last_version,
                reject_after: resume.reject_after,
            },
            Input::Rekeyed { reject_after } => Self::Rekeyed { reject_after },
            Input::NonceFloor { nonce } => Self::NonceFloor { nonce },
            Input::AttemptFailed => Self::AttemptFailed,
            Input::TransportLost { by, evidence } => Self::TransportLost { by, evidence },
            Input::ControllerRestarted => Self::ControllerRestarted,
            Input::Shutdown => Self::Shutdown,
            Input::Terminate { by } => Self::Terminate { by },
            Input::PeerRemoved => Self::PeerRemoved,
            Input::Superseded => Self::Superseded,
            Input::NewerOwner { epoch } => Self::NewerOwner { epoch },
            Input::CompromiseSuspected => Self::CompromiseSuspected,
            Input::InvariantBroken { which } => Self::InvariantBroken { which },
        }
    }
}

impl Written {
    /// The input again, for a replay; none if the peer's key is not one.
    pub(crate) fn replayed(&self) -> Option<Input> {
        Some(match self {
            Self::Tick => Input::Tick,
            Self::Confirm { transport, reject_after } => {
                Input::Confirm { confirmed: Confirmed::recorded(transport.into()), reject_after: *reject_after }
            }
            Self::Quality { loss_permille, rtt_ns, jitter_ns, delivered } => Input::Quality(Report {
                loss: *loss_permille,
                rtt: Duration::from_nanos(*rtt_ns),
                jitter: Duration::from_nanos(*jitter_ns),
                delivered: *delivered,
            }),
            Self::Reattach { class, cause, improvement_permille, nonce, last_version, evidence, transport } => {
                let request = Request {
                    class: *class,
                    cause: *cause,
                    improvement: *improvement_permille,
                    nonce: *nonce,
                    last_version: *last_version,
                    evidence: *evidence,
                };
                Input::Reattach(Switch::recorded(request, transport.into()))
            }
            Self::Resume { peer, transport, last_version, reject_after } => Input::Resume(Resume {
                peer: super::chain::unhex(peer.as_bytes())?,
                confirmed: Confirmed::recorded(transport.into()),
                last_version: *last_version,
                reject_after: *reject_after,
            }),
            Self::Rekeyed { reject_after } => Input::Rekeyed { reject_after: *reject_after },
            Self::NonceFloor { nonce } => Input::NonceFloor { nonce: *nonce },
            Self::AttemptFailed => Input::AttemptFailed,
            Self::TransportLost { by, evidence } => Input::TransportLost { by: *by, evidence: *evidence },
            Self::ControllerRestarted => Input::ControllerRestarted,
            Self::Shutdown => Input::Shutdown,
            Self::Terminate { by } => Input::Terminate { by: *by },
            Self::PeerRemoved => Input::PeerRemoved,
            Self::Superseded => Input::Superseded,
            Self::NewerOwner { epoch } => Input::NewerOwner { epoch: *epoch },
            Self::CompromiseSuspected => Input::CompromiseSuspected,
            Self::InvariantBroken { which } => Input::InvariantBroken { which: *which },
        })
    }
}
