//! Programs that are measured and never shipped (`cargo xtask bench steer`, `jump`).
//!
//! Owns the turn: each run writes the next of a row of prepared frames over the packet and then goes the way of every
//! packet, so that one `BPF_PROG_TEST_RUN` meets as many sessions as there are frames. The empty program writes the
//! frames and does nothing else; the difference is the price. Must never be in a release build.

use crate::frame::XdpFrame;
use crate::tables::Maps;
use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use jvpn_common::abi::{Bucket, BucketField};
use jvpn_common::steer::{Frame, Tables, steer};
use jvpn_common::verdict::{Class, Verdict};

/// Words of a prepared frame: 128 bytes, headers and the body of a probe in IPv4.
const WORDS: usize = 16;
/// Slot 0 holds no session here: its buckets count turns and keep the mark.
const OWN: u32 = 0;

#[btf_map]
static FRAMES: Array<[u64; WORDS], 1> = Array::new();

/// Frames less one; their number is a power of two.
#[unsafe(no_mangle)]
static BENCH_MASK: Global<u64> = Global::new(0);
/// Not zero: every frame is dropped in the end, so that live frames cost nothing behind the program.
#[unsafe(no_mangle)]
static BENCH_DROP: Global<u64> = Global::new(0);

/// Writes the frame whose turn it is over the packet.
#[inline(always)]
fn next(frame: &mut XdpFrame<'_>) -> Option<()> {
    let turn = Maps.slot_bucket(OWN, BucketField::Echo).at;
    Maps.set_slot_bucket(OWN, BucketField::Echo, &Bucket { at: turn.wrapping_add(1), tokens: 0 });
    let words = FRAMES.get((turn & BENCH_MASK.load()) as u32)?;
    let mut at = 0;
    while at < WORDS {
        frame.write(at * 8, &words[at].to_le_bytes())?;
        at += 1;
    }
    Some(())
}

#[inline(always)]
fn action(verdict: Verdict) -> u32 {
    if BENCH_DROP.load() != 0 {
        return xdp_action::XDP_DROP;
    }
    match verdict.class() {
        Class::Pass | Class::User => xdp_action::XDP_PASS,
        Class::Answer | Class::Forward => xdp_action::XDP_TX,
        Class::Drop => xdp_action::XDP_DROP,
    }
}

/// The next frame, steered.
#[xdp]
pub(crate) fn jvpn_bench(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame { ctx: &ctx };
    if next(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    action(steer(&mut frame, &Maps).verdict)
}

/// The next frame, and nothing else.
#[xdp]
pub(crate) fn jvpn_bench_empty(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame { ctx: &ctx };
    if next(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    action(Verdict::Foreign)
}

/// The next frame, steered; keeps the time at which the first one was data.
#[xdp]
pub(crate) fn jvpn_bench_jump(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame { ctx: &ctx };
    if next(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    let verdict = steer(&mut frame, &Maps).verdict;
    if let Verdict::Data = verdict
        && Maps.slot_bucket(OWN, BucketField::Notice).at == 0
    {
        Maps.set_slot_bucket(OWN, BucketField::Notice, &Bucket { at: Maps.now(), tokens: 0 });
    }
    action(verdict)
}
