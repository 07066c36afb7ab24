//! What the kernel program reports of single packets.
//!
//! Owns emptying its ring: a full one takes nothing more, and then people who look at `EVENT_TAP` see nothing more
//! either. Must never draw conclusions from samples: counters are there for that.

use crate::dataplane::DataPlane;
use jvpn_common::verdict::Verdict;
use std::net::{Ipv6Addr, SocketAddr};

/// Takes what was reported since the last time, and logs it for whoever wants to know that much.
pub(super) fn drain(plane: &mut dyn DataPlane) {
    for event in plane.events() {
        let verdict = Verdict::from_number(event.verdict).map_or("unknown", Verdict::name);
        let source = SocketAddr::new(Ipv6Addr::from(event.source).to_canonical(), event.port);
        tracing::debug!(verdict, slot = event.slot, %source, "the kernel program reports");
    }
}
