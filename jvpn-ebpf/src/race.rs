//! Programs that read one slot's binding over and over while somebody jumps, and count what they saw: suite `active`.
//!
//! Owns the counting, in slot 0, which holds no session there. The reading is the product's own. Must never be in a
//! release build.

use crate::tables::Maps;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use jvpn_common::abi::{ActiveWord, Binding, Bucket, BucketField, TrafficField};
use jvpn_common::steer::{Session, Tables, bind};

/// Slot of the counters, and slot that is read.
const OWN: u32 = 0;
const READ: u32 = 2;
/// Reads of one run: against them the harness around a run is short.
const READS: u32 = 32;

/// What a run counts, and the words of slot 0 in which it stands.
const SEEN: TrafficField = TrafficField::DataPackets;
const RETRIED: TrafficField = TrafficField::Unbound;
const TORN: TrafficField = TrafficField::Forged;
const GIVEN_UP: TrafficField = TrafficField::Echoes;
const RETIRED: TrafficField = TrafficField::Notices;

/// Whether every part of a binding tells the number of the word that named it.
#[inline(always)]
fn tells(binding: &Binding, seq: u32) -> bool {
    let (wide, short) = (u64::from(seq) | u64::from(seq) << 32, u64::from(seq as u16));
    // A binding that is written anew has no deadline yet.
    binding.to_words() == [wide, wide, short * 0x0001_0001_0001_0001, 0]
}

#[inline(always)]
fn judge(word: ActiveWord, binding: &Binding) {
    if word.active() == 0 {
        return;
    }
    Maps.add(OWN, SEEN, 1);
    if !tells(binding, word.seq()) {
        Maps.add(OWN, TORN, 1);
    }
    // One processor reads: a number below the last one would be a binding that was replaced before.
    let last = Maps.slot_bucket(OWN, BucketField::Echo).at;
    if u64::from(word.seq()) < last {
        Maps.add(OWN, RETIRED, 1);
    }
    Maps.set_slot_bucket(OWN, BucketField::Echo, &Bucket { at: u64::from(word.seq()), tokens: 0 });
}

/// Reads as every packet does, with the retry counted.
#[xdp]
pub(crate) fn jvpn_race(_: XdpContext) -> u32 {
    let Some(session) = Maps.session(READ) else {
        return xdp_action::XDP_ABORTED;
    };
    let mut read = 0;
    while read < READS {
        let bound = match bind::read_once(&session) {
            Some(bound) => Some(bound),
            None => {
                Maps.add(OWN, RETRIED, 1);
                bind::read_once(&session)
            }
        };
        match bound {
            Some(bound) => judge(bound.word, &bound.active),
            None => Maps.add(OWN, GIVEN_UP, 1),
        }
        read += 1;
    }
    xdp_action::XDP_DROP
}

/// The same without the second look, which must be seen to tear.
#[xdp]
pub(crate) fn jvpn_race_blind(_: XdpContext) -> u32 {
    let Some(session) = Maps.session(READ) else {
        return xdp_action::XDP_ABORTED;
    };
    let mut read = 0;
    while read < READS {
        let word = ActiveWord(session.word());
        judge(word, &session.entry(word.active()));
        read += 1;
    }
    xdp_action::XDP_DROP
}
