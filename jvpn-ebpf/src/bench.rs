//! Programs that are measured and never shipped (`cargo xtask bench steer`, `jump`).
//!
//! Owns the turn: each run writes the next of many prepared headers over the packet's and then goes the way of every
//! packet, so that one `BPF_PROG_TEST_RUN` meets as many sessions as there are rows. The empty program writes them too
//! and does nothing else; the difference is the price. What is written has the widths in which it is read: a load that
//! spans two stores waits for both, and that would be the harness's price. Must never be in a release build.

use crate::frame::XdpFrame;
use crate::route::{Fib, ingress};
use crate::tables::Maps;
use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use jvpn_common::abi::{Bucket, BucketField};
use jvpn_common::steer::{Frame, Tables, relay, steer};
use jvpn_common::verdict::{Class, Verdict};

/// Words of a row: datagram header, body of a probe, Ethernet, IPv4 and UDP header, each from a word's beginning.
const WORDS: usize = 16;
/// Where in a frame over IPv4 they stand.
const IP_AT: usize = 14;
const UDP_AT: usize = 34;
const HEADER_AT: usize = 42;
const BODY_AT: usize = 66;
/// Nothing is written: the packet is as it was handed in.
const WRITES_NOTHING: u64 = 0;
/// The datagram's header is written.
const WRITES_HEADER: u64 = 1;
/// All headers are written, over IPv6; otherwise all of them and the body, over IPv4.
const WRITES_ALL_V6: u64 = 3;
/// Where they stand in a frame over IPv6.
const UDP_AT_V6: usize = 54;
const HEADER_AT_V6: usize = 62;
/// Slot 0 holds no session here: its buckets count turns and keep the mark.
const OWN: u32 = 0;

#[btf_map]
static FRAMES: Array<[u64; WORDS], 1> = Array::new();

/// What of a packet is written; by default all of it.
#[unsafe(no_mangle)]
static BENCH_WRITES: Global<u64> = Global::new(0);
/// Rows less one; their number is a power of two.
#[unsafe(no_mangle)]
static BENCH_MASK: Global<u64> = Global::new(0);
/// Not zero: every frame is dropped in the end, so that live frames cost nothing behind the program.
#[unsafe(no_mangle)]
static BENCH_DROP: Global<u64> = Global::new(0);

/// Writes what has its turn over the packet.
#[inline(always)]
fn next(frame: &mut XdpFrame<'_>) -> Option<()> {
    let turn = Maps.slot_bucket(OWN, BucketField::Echo).at;
    Maps.set_slot_bucket(OWN, BucketField::Echo, &Bucket { at: turn.wrapping_add(1), tokens: 0 });
    let [h0, h1, h2, b0, b1, b2, b3, b4, b5, e0, e1, i0, i1, i2, u0, _] =
        FRAMES.get((turn & BENCH_MASK.load()) as u32)?;
    let writes = BENCH_WRITES.load();
    if writes == WRITES_NOTHING {
        return Some(());
    }
    if writes == WRITES_ALL_V6 {
        words(frame, HEADER_AT_V6, [*h0, *h1, *h2])?;
        words(frame, IP_AT, [*b0, *b1, *b2, *b3, *b4])?;
        words(frame, UDP_AT_V6, [*b5])?;
        return stations(frame, *e0, *e1);
    }
    words(frame, HEADER_AT, [*h0, *h1, *h2])?;
    if writes == WRITES_HEADER {
        return Some(());
    }
    words(frame, BODY_AT, [*b0, *b1, *b2, *b3, *b4, *b5])?;
    words(frame, IP_AT, [*i0, *i1])?;
    frame.write(IP_AT + 16, &(*i2 as u32).to_le_bytes())?;
    words(frame, UDP_AT, [*u0])?;
    stations(frame, *e0, *e1)
}

/// Writes whole words.
#[inline(always)]
fn words<const N: usize>(frame: &mut XdpFrame<'_>, at: usize, words: [u64; N]) -> Option<()> {
    let mut i = 0;
    while i < N {
        frame.write(at + i * 8, &words[i].to_le_bytes())?;
        i += 1;
    }
    Some(())
}

/// Writes the Ethernet header.
#[inline(always)]
fn stations(frame: &mut XdpFrame<'_>, first: u64, rest: u64) -> Option<()> {
    frame.write(0, &first.to_le_bytes())?;
    frame.write(8, &(rest as u32).to_le_bytes())?;
    frame.write(12, &((rest >> 32) as u16).to_le_bytes())
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
    let judgement = steer(&mut frame, &Maps);
    // As the product does: a drop that concerns a session is reported now and then.
    if let Class::Drop = judgement.verdict.class() {
        crate::sample(&ctx, judgement.entry.slot, judgement.verdict);
    }
    action(judgement.verdict)
}

/// The next frame, through a relay.
#[xdp]
pub(crate) fn jvpn_bench_relay(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame { ctx: &ctx };
    if next(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    let relayed = relay(&mut frame, &Maps, &Fib { ctx: &ctx });
    let verdict = relayed.judgement.verdict;
    match verdict.class() {
        Class::Forward if relayed.ifindex == ingress(&ctx) || BENCH_DROP.load() != 0 => action(verdict),
        Class::Forward => crate::tables::redirect(relayed.ifindex),
        Class::Pass | Class::User | Class::Answer | Class::Drop => action(verdict),
    }
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
