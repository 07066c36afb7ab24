//! What a worker asks of its owner: gateway and client differ here and nowhere else in the data path.
//!
//! Owns the questions. Must never hand out anything that outlives a batch but sessions, which are shared.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jvpn_common::ids::{Locator, SessionId};
use jvpn_common::time::{Duration, Instant};

use super::inner::Inner;
use super::session::SessionData;

/// Name of one UDP socket of a worker; chosen by whoever adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u32);

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The socket it arrived on.
    pub socket: SocketId,
    /// Its source.
    pub remote: SocketAddr,
    /// The local address it was sent to, when the kernel said.
    pub local: Option<IpAddr>,
}

/// What to do with one received datagram.
#[derive(Debug)]
pub enum Inbound<'a> {
    /// Data of this session on this transport; binding and steering tag were checked.
    Open {
        /// The session.
        session: &'a Arc<SessionData>,
        /// Transport index of the locator.
        k: u16,
    },
    /// An answer was written in place; this much of it goes back to where it came from.
    Reply(usize),
    /// Not for the data path: to the controller's queue.
    Control,
    /// Refused, and counted by the role under its reason.
    Drop,
}

/// Where sealed packets of a session go now.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The session.
    pub session: &'a Arc<SessionData>,
    /// Locator of the transport.
    pub locator: Locator,
    /// Its index: the number space to seal under.
    pub k: u16,
    /// Steering key of the direction we send in.
    pub steering: [u64; 2],
    /// The socket to send on.
    pub socket: SocketId,
    /// The peer's outer address.
    pub remote: SocketAddr,
    /// Our outer address, where the socket has several.
    pub local: Option<IpAddr>,
    /// Proven path MTU of the transport, IP header included.
    pub path_mtu: u16,
}

/// The part of a worker that knows sessions and bindings.
pub trait Role: Send {
    /// `FLAG_DOWN` on a gateway, 0 on a client: what we set in headers we send.
    const DIRECTION: u16;

    /// A turn of the loop begins: read snapshots, refresh the lease, note the time. What the turn receives may have `waited` for
    /// so long: since the sockets were last seen empty.
    fn begin(&mut self, now: Instant, waited: Duration);

    /// Judges one datagram. A reply is written over it.
    fn inbound(&mut self, origin: &Origin, datagram: &mut [u8]) -> Inbound<'_>;

    /// The route of an inner packet, by its destination (gateway) or the one session (client).
    fn outbound(&mut self, inner: &Inner) -> Option<Route<'_>>;

    /// The route of a session, for pings and their answers.
    fn route_of(&mut self, session: SessionId) -> Option<Route<'_>>;

    /// Whether inner packets must wait: the active transport is lost and another is being proven. While they
    /// do, the worker keeps them in a [`jvpn_common::client::HoldQueue`] and asks for no route.
    fn holds(&self) -> bool {
        false
    }
}
