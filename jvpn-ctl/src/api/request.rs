//! What the API asks of the event loop that owns the sessions.
//!
//! Owns the questions and how an answer comes back. Must never answer itself.

use super::model;
use crate::observe::metrics::Exposition;
use jvpn_common::gateway::Mode;
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use tokio::sync::oneshot;

/// Questions that wait for the event loop; past it, callers are told that it is busy.
pub const REQUESTS_MAX: usize = 64;

/// Where an answer goes. Dropped unanswered, the caller is told so.
pub type Reply<T> = oneshot::Sender<T>;

/// One question or command; exactly one answer is sent back for each.
#[derive(Debug)]
pub enum Request {
    /// How is it?
    Status(Reply<model::Status>),
    /// Live sessions in order of id, at most [`PAGE`](super::PAGE) of them.
    Sessions {
        /// Those behind this one.
        after: Option<SessionId>,
        /// The answer; empty behind the last one.
        reply: Reply<Vec<model::Session>>,
    },
    /// What it counts.
    Metrics(Reply<Exposition>),
    /// Where a session stands with its policy; nothing on a client, which knows only what the gateway acknowledged.
    Standing {
        /// Which.
        session: SessionId,
        /// The answer.
        reply: Reply<Vec<model::BoundView>>,
    },
    /// Every path.
    Paths(Reply<Vec<model::PathView>>),
    /// Move a session to a transport of that name.
    Jump {
        /// Which; on a client there is one.
        session: Option<SessionId>,
        /// Name of the transport.
        to: String,
        /// Only say what would happen.
        dry_run: bool,
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: Reply<Result<model::Jumped, Refused>>,
    },
    /// End a session.
    Terminate {
        /// Which.
        session: SessionId,
        /// Why.
        why: model::EndReason,
        /// Only say what would happen.
        dry_run: bool,
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: Reply<Result<model::Terminated, Refused>>,
    },
    /// Read the files again.
    Reload {
        /// When it counts for live sessions; none is what the file says.
        mode: Option<Mode>,
        /// Only say what would change.
        dry_run: bool,
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: Reply<Result<model::Reload, Refused>>,
    },
    /// The policy of a peer; on a client its own.
    Policy {
        /// Name of the peer, or the start of its session's id.
        peer: Option<String>,
        /// The answer.
        reply: Reply<Result<model::PolicyView, Refused>>,
    },
    /// Begin or end an emergency.
    Emergency(Wish, Reply<Result<model::EmergencyState, Refused>>),
    /// Read the peers again; sessions of removed ones end with POLICY_TERMINATION.
    ReloadPeers {
        /// Who asks.
        by: Caller,
        /// The answer.
        reply: Reply<Result<model::Reloaded, Refused>>,
    },
}

/// Whose emergency begins or ends.
#[derive(Debug)]
pub struct Wish {
    /// Whether it begins.
    pub on: bool,
    /// Name of a peer, or the start of a session's id; none is everybody.
    pub whom: Option<String>,
    /// Who asks.
    pub by: Caller,
}

/// Why something was not done; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such session or transport.
    NotFound(String),
    /// The question or the files are wrong: in words, with their places.
    Invalid(String),
    /// It cannot be done while this is so.
    Conflict(String),
    /// A bound or the state does not allow it.
    Denied {
        /// The primary code.
        reason: Reason,
        /// The bound.
        detail: Option<Reason>,
        /// In words, with the bound's value.
        text: String,
    },
    /// It was tried and failed.
    Failed(String),
}

/// Who is at the other end of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Process, when the kernel says so.
    pub pid: Option<i32>,
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
    }
}
