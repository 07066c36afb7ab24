//! The sockets of a worker, and how often each is looked at.
//!
//! Owns which sockets there are. Must never decide which one a packet leaves by.

use std::sync::Arc;

use super::role::SocketId;
use super::udp::UdpPort;

/// Looks in a row that found a socket empty, after which it counts as quiet.
const QUIET_AFTER: u32 = 16;
/// A quiet socket is looked at in every fourth turn while another has work: an empty `recvmmsg` per turn and
/// family costs as much as sealing a packet. Four turns of bulk are about a millisecond, the latency of bulk itself.
const LOOK_EVERY: u32 = 4;

/// The sockets of a worker.
#[derive(Debug, Default)]
pub(super) struct Ports(pub(super) Vec<Port>);

/// One socket, and how long it has been silent.
#[derive(Debug)]
pub(super) struct Port {
    pub id: SocketId,
    pub port: Arc<UdpPort>,
    /// Looks in a row that found nothing.
    pub empty: u32,
}

/// Whether to look in turn number `turn` at a socket that was found empty so often; `busy`: the turn before found
/// work somewhere.
pub(super) fn due(empty: u32, turn: u32, busy: bool) -> bool {
    !busy || empty < QUIET_AFTER || turn.is_multiple_of(LOOK_EVERY)
}

impl Ports {
    pub(super) fn find(&self, id: SocketId) -> Option<&UdpPort> {
        self.0.iter().find(|known| known.id == id).map(|known| known.port.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_socket_waits_a_few_turns_of_work_and_none_before_sleep() {
        let looks = |empty, busy| (0..8).filter(|&turn| due(empty, turn, busy)).count();
        assert_eq!(looks(QUIET_AFTER, true), 2);
        assert_eq!(looks(QUIET_AFTER - 1, true), 8, "one that had something lately is looked at always");
        assert_eq!(looks(u32::MAX, false), 8, "nothing is left unseen when the worker may sleep");
    }
}
