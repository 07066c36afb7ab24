//! One line of log for each packet: the debug build of the programs (`cargo xtask build --log`).
//!
//! Owns what is in the line. Must never be in a release build: a line costs more than a packet's whole way.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use jvpn_common::steer::Judgement;

/// Writes verdict and slot of a packet into the ring that `jvpn-ctl trace --live` reads.
#[inline(always)]
pub(crate) fn told(ctx: &XdpContext, judgement: &Judgement) {
    let Judgement { verdict, entry, header, .. } = judgement;
    info!(ctx, "verdict {} slot {} locator {} counter {}", *verdict as u32, entry.slot, header.locator, header.counter);
}
