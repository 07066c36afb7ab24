//! The session core alone, without cryptography: what explores it, what judges it, and paths that flap beneath it.
//!
//! Owns the policy, the peer and the transports of both. Must never decide anything a session decides: the judge keeps
//! books of its own.
//!
//! ```text
//!   client ──ask──► wire: lost, twice, in any order ──deliver──► Core::step ──► judge (books of its own)
//!   restart, silence, reports, ends, time ───────────────────────┘
//! ```

pub mod explore;
pub mod flap;
pub mod judge;
pub mod world;

use jvpn_common::ids::{OwnerEpoch, SessionId, TransportIndex};
use jvpn_common::session::state::Label;
use jvpn_common::session::{Birth, Confirmed, Input, Path, Policy, Session, Transport, TransportClass};
use jvpn_common::time::{Duration, Instant};
use std::net::SocketAddr;

/// When everything begins: late enough that looking back a minute stays after boot.
pub const T0: Instant = Instant(1_000_000_000_000);

/// The peer's key.
pub const PEER: [u8; 32] = [7; 32];

/// The owner's epoch.
pub const EPOCH: OwnerEpoch = OwnerEpoch(3);

/// A session whose message 2 is about to leave.
#[must_use]
pub fn born(policy: &Policy) -> Session {
    Session::born(Birth { id: SessionId(*b"a session's name"), peer: PEER, owner_epoch: EPOCH }, policy, T0)
}

/// Transport `k` as it is seen from a port.
#[must_use]
pub fn transport(k: u16, port: u16) -> Transport {
    Transport {
        k: TransportIndex(k),
        path: path(k, port),
        label: Label::new(b"path"),
        class: TransportClass::Primary,
        mtu: 1_400,
        since: T0,
    }
}

/// The 4-tuple of transport `k` from a port.
#[must_use]
pub fn path(k: u16, port: u16) -> Path {
    let [_, host] = k.to_be_bytes();
    Path::new(SocketAddr::from(([192, 0, 2, host + 1], 40_000 + port)), 0)
}

/// The handshake is confirmed on a transport.
#[must_use]
pub fn confirm(to: Transport, now: Instant, keys: Duration) -> Input {
    Input::Confirm { confirmed: Confirmed::supposed(to), reject_after: now + keys }
}
