//! Ways out of a relay that only the kernel knows.
//!
//! Owns the question to its routes and neighbours, which costs more than all the rest of a packet's way and is
//! asked only where the controller has not resolved one. Must never send by an interface that the controller did
//! not name, the one the frame came in by aside: not every interface takes frames from here.

use crate::tables::{FIB_WORDS, fib_lookup};
use aya_ebpf::programs::XdpContext;
use jvpn_common::abi::Hop;
use jvpn_common::steer::{Address, Exit, Route};

/// `AF_INET` and `AF_INET6`, in the argument's first byte.
const FAMILY_V4: u64 = 2;
const FAMILY_V6: u64 = 10;
/// UDP, in its second.
const PROTOCOL_UDP: u64 = 17 << 8;
/// `BPF_FIB_LKUP_RET_SUCCESS`. Anything else is left to the host's stack, which tells the sender what it is.
const FOUND: i64 = 0;

/// The interface a frame came in by.
#[inline(always)]
pub(crate) fn ingress(ctx: &XdpContext) -> u32 {
    ctx.ingress_ifindex() as u32
}

/// The kernel's routes, as a frame sees them.
pub(crate) struct Fib<'a> {
    pub(crate) ctx: &'a XdpContext,
}

impl Route for Fib<'_> {
    #[inline(always)]
    fn ingress(&self) -> u32 {
        ingress(self.ctx)
    }

    #[inline(always)]
    fn resolve(&self, hop: &Hop, to: Address, len: u16) -> Option<Exit> {
        let from = Address::of(&hop.source);
        // struct bpf_fib_lookup: family, protocol, ports, length | interface, type of service | source | destination
        // | VLAN, and then what is found: stations. Written whole, since the verifier asks about every byte.
        let mut asked: [u64; FIB_WORDS] = if to.is_v4() {
            [FAMILY_V4, 0, u64::from(from.v4()), 0, u64::from(to.v4()), 0, 0, 0]
        } else {
            [FAMILY_V6, 0, from.0, from.1, to.0, to.1, 0, 0]
        };
        asked[0] |= PROTOCOL_UDP | u64::from(len) << 48;
        asked[1] = u64::from(self.ingress());
        if fib_lookup(self.ctx, &mut asked) != FOUND {
            return None;
        }
        let ifindex = asked[1] as u32;
        if ifindex != self.ingress() && ifindex != hop.ifindex {
            return None;
        }
        // The source's station comes first there, the destination's in a frame.
        let source = asked[6] >> 32 | (asked[7] & 0xffff) << 32;
        let destination = asked[7] >> 16;
        Some(Exit { ifindex, mtu: 0, stations: (destination | source << 48, (source >> 16) as u32) })
    }
}
