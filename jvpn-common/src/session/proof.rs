//! Evidence as values: a switch of transport exists only where a message was opened, an address answered
//! and policy agreed.
//!
//! Owns the tokens. Must never make one without its evidence: every constructor takes what was checked, and
//! none of them is reachable from outside the crate.

use super::input::Request;
use super::policy::Policy;
use super::state::{Path, Transport};
use super::{Refusal, RefusalKind};
use crate::reason::Reason;
use crate::time::Instant;

/// A message that opened under the session's control keys, past the replay window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<M>(M);

impl<M> Opened<M> {
    /// Only what `crypto` opened may be wrapped.
    pub(crate) const fn new(message: M) -> Self {
        Self(message)
    }

    /// What was said.
    pub const fn message(&self) -> &M {
        &self.0
    }
}

/// A transport whose exact 4-tuple showed that it receives what is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validated(Transport);

impl Validated {
    /// The cookie of a challenge came back from `from`, sealed, in time, bound to this session and purpose.
    pub(crate) fn answered(transport: Transport, from: Path) -> Result<Self, Refusal> {
        if transport.path == from { Ok(Self(transport)) } else { Err(unvalidated()) }
    }

    /// The path answered a challenge before (`answered`), and the request quotes the gateway time of an
    /// echo sent to it no longer ago than `path_validity`. Both, so that neither an old proof nor an echo seen on the way is
    /// enough.
    pub(crate) fn fresh(
        transport: Transport,
        answered: Path,
        echo: Instant,
        policy: &Policy,
        now: Instant,
    ) -> Result<Self, Refusal> {
        let recent = echo <= now && now.since(echo) <= policy.path_validity;
        if transport.path == answered && recent { Ok(Self(transport)) } else { Err(unvalidated()) }
    }

    /// The transport.
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.0
    }
}

fn unvalidated() -> Refusal {
    Refusal::new(RefusalKind::Invalid, Reason::PathUnvalidated)
}

/// Policy lets this peer use this transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(Transport);

impl Allowed {
    /// Asks policy.
    pub fn by(policy: &Policy, transport: &Transport) -> Result<Self, Refusal> {
        if policy.allowed_transports.contains(transport.class) {
            return Ok(Self(*transport));
        }
        Err(Refusal::new(RefusalKind::Invalid, Reason::PolicyDeny).because(Reason::PolicyDenied))
    }
}

/// A switch that may be proposed to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    request: Request,
    transport: Transport,
}

impl Switch {
    /// All three pieces of evidence, about one transport.
    pub fn new(opened: Opened<Request>, validated: Validated, allowed: Allowed) -> Result<Self, Refusal> {
        if validated.0 != allowed.0 {
            return Err(unvalidated());
        }
        Ok(Self { request: opened.0, transport: validated.0 })
    }

    /// What a record says was switched once: replay only.
    pub(crate) const fn recorded(request: Request, transport: Transport) -> Self {
        Self { request, transport }
    }

    /// What was asked for.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Where to.
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.transport
    }
}

/// A confirmed handshake: CONFIRM opened under the new keys, which is key confirmation and the address's
/// answer in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed(Transport);

impl Confirmed {
    /// CONFIRM came from `asked`, the address message 2 went to.
    pub fn new(opened: Opened<Transport>, asked: Path, allowed: Allowed) -> Result<Self, Refusal> {
        if opened.0.path != asked || opened.0 != allowed.0 {
            return Err(unvalidated());
        }
        Ok(Self(opened.0))
    }

    /// What a record says was confirmed once: replay only.
    pub(crate) const fn recorded(transport: Transport) -> Self {
        Self(transport)
    }

    /// The transport.
    #[must_use]
    pub const fn transport(&self) -> &Transport {
        &self.0
    }
}
