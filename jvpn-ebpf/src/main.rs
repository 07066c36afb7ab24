//! The kernel program: verdict to action.
//!
//! Owns the programs and the one match. Everything about a packet is decided by
//! [`jvpn_common::steer`], which runs in tests and in the tunnel worker too. Must never hold a decision.

#![no_std]
#![no_main]
// Stable for hosts only: packets need loads that are not aligned, see `frame`.
#![feature(asm_experimental_arch)]

#[cfg(feature = "bench")]
mod bench;
mod frame;
#[cfg(feature = "log")]
mod log;
#[cfg(feature = "bench")]
mod race;
mod route;
mod tables;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use frame::XdpFrame;
use jvpn_common::abi::Event;
use jvpn_common::steer::{Frame, NO_SLOT, describe, relay, steer};
use jvpn_common::verdict::{Class, Verdict};
use route::{Fib, ingress};
use tables::Maps;

/// The program on an interface towards clients.
#[xdp]
pub(crate) fn jvpn_wan(ctx: XdpContext) -> u32 {
    let judgement = steer(&mut XdpFrame { ctx: &ctx }, &Maps);
    #[cfg(feature = "log")]
    log::told(&ctx, &judgement);
    match judgement.verdict.class() {
        Class::Pass | Class::User => xdp_action::XDP_PASS,
        Class::Answer | Class::Forward => xdp_action::XDP_TX,
        Class::Drop => {
            sample(&ctx, judgement.entry.slot, judgement.verdict);
            xdp_action::XDP_DROP
        }
    }
}

/// The program of a relay, on every interface its packets come in by.
#[xdp]
#[inline(always)]
pub(crate) fn jvpn_relay(ctx: XdpContext) -> u32 {
    let relayed = relay(&mut XdpFrame { ctx: &ctx }, &Maps, &Fib { ctx: &ctx });
    let judgement = relayed.judgement;
    #[cfg(feature = "log")]
    log::told(&ctx, &judgement);
    match judgement.verdict.class() {
        Class::Pass | Class::User => {
            if let Verdict::NoNeighbour = judgement.verdict {
                sample(&ctx, judgement.entry.slot, judgement.verdict);
            }
            xdp_action::XDP_PASS
        }
        Class::Answer => xdp_action::XDP_TX,
        Class::Forward if relayed.ifindex == ingress(&ctx) => xdp_action::XDP_TX,
        Class::Forward => tables::redirect(relayed.ifindex),
        Class::Drop => {
            sample(&ctx, judgement.entry.slot, judgement.verdict);
            xdp_action::XDP_DROP
        }
    }
}

/// Tells the tick to whoever runs it by `BPF_PROG_TEST_RUN`: the first 8 bytes become it.
#[xdp]
pub(crate) fn jvpn_clock(ctx: XdpContext) -> u32 {
    let tick = tables::tick().to_le_bytes();
    match (XdpFrame { ctx: &ctx }).write(0, &tick) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Reports a drop that concerns a known session, or a way without a neighbour, at most once in this many ticks a slot: the record is for
/// people and for counters of attacks, and a flood must not cost more than it sends.
const EVENT_EVERY: u64 = 25;

#[inline(always)]
fn sample(ctx: &XdpContext, slot: u32, verdict: Verdict) {
    if slot == NO_SLOT || !tables::event_due(slot, EVENT_EVERY) {
        return;
    }
    let Some((source, locator)) = describe(&XdpFrame { ctx }, &Maps) else {
        return;
    };
    let event = Event {
        tick: tables::tick(),
        locator,
        source: source.address,
        slot,
        verdict: verdict as u16,
        port: source.port,
        ifindex: ingress(ctx),
        reserved: 0,
    };
    tables::report(ctx, event);
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence under which the kernel offers its helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
