//! What the packet path answers by itself: a probe with its echo, unbound data with a notice.
//!
//! Owns the arrival window of probes and both answers. An answer is never longer than its question, which
//! is asserted where it is made. It must never move anything: what it says is a hint.

use super::bind::{self, Relation};
use super::bucket::{self, Limit};
use super::{Datagram, Frame, Known, Life, Tables};
use crate::abi::{BucketField, PATHS_PER_SLOT, PathCounters, TrafficField};
use crate::limits::HEADER_LEN;
use crate::net::checksum;
use crate::tag::steering_tag;
use crate::verdict::Verdict;
use crate::wire::header::{FLAG_DOWN, Header, Kind};
use crate::wire::probe::{BODY_LEN, Body, STATUS_ALIVE, STATUS_BOUND, STATUS_DRAINING};

/// Bytes of a notice, and of the smallest probe: header and fixed body.
pub const ANSWER_LEN: usize = HEADER_LEN + BODY_LEN;

/// Echoes of a session to sources that are not bound: with the burst at most 50 in any second, and the
/// burst holds the four padded sizes of three candidates tried at once.
pub const ECHO_LIMIT: Limit = Limit { rate: 30, burst: 20 };

/// Notices of a session. One is enough for a client; the others are for when it is lost.
pub const NOTICE_LIMIT: Limit = Limit { rate: 10, burst: 10 };

/// Answers a probe whose tag has been verified, telling of whose `life` it asks about.
#[inline(always)]
pub(super) fn echo<T: Tables>(
    frame: &mut impl Frame,
    datagram: &Datagram<'_>,
    known: &Known<T>,
    asked: &Body,
    tables: &T,
    life: impl Fn(u64) -> Option<Life>,
) -> Verdict {
    if datagram.len > checksum::SUM_MAX {
        return Verdict::ProbeSize;
    }
    let place = u32::from(known.entry.k) % PATHS_PER_SLOT;
    let Some(path) = arrived(tables.path(known.entry.slot, place), known.entry.k, known.header.counter) else {
        return Verdict::ProbeReplay;
    };
    tables.set_path(known.entry.slot, place, &path);
    let Some(bound) = bind::words(&known.session) else {
        return Verdict::Torn;
    };
    let tick = tables.ticks();
    let standing = match bound.relation(&datagram.source.address, datagram.source.port, known.entry.k, tick) {
        Relation::Active => STATUS_BOUND,
        Relation::Draining => STATUS_DRAINING,
        Relation::Expired | Relation::Unbound => 0,
    };
    if standing == 0 && !withdraw(tables, known.entry.slot, BucketField::Echo, ECHO_LIMIT, tick) {
        return Verdict::EchoRate;
    }
    let Some(life) = life(tick) else {
        return Verdict::Unconfigured;
    };
    let alive = if life.alive { STATUS_ALIVE } else { 0 };
    let body = Body {
        client_time: asked.client_time,
        gateway_time: tables.now(),
        incarnation: life.incarnation,
        probes: path.probes,
        data: path.data as u32,
        status: standing | alive,
    };
    if answer(frame, datagram.at, Kind::Echo, known, &body, tables).is_none() {
        return Verdict::WriteFailed;
    }
    tables.add(known.entry.slot, TrafficField::Echoes, 1);
    Verdict::Echoed
}

/// Answers data from a source that is not bound, if it is long enough and one is due.
#[inline(always)]
pub(super) fn notice<T: Tables>(
    frame: &mut impl Frame,
    datagram: &Datagram<'_>,
    known: &Known<T>,
    tick: u64,
    incarnation: u64,
    tables: &T,
) -> Verdict {
    let slot = known.entry.slot;
    tables.add(slot, TrafficField::Unbound, 1);
    if datagram.len < ANSWER_LEN || !withdraw(tables, slot, BucketField::Notice, NOTICE_LIMIT, tick) {
        return Verdict::NotBound;
    }
    let body = Body { gateway_time: tables.now(), incarnation, status: STATUS_ALIVE, ..Body::default() };
    if answer(frame, datagram.at, Kind::Notice, known, &body, tables).is_none() {
        return Verdict::WriteFailed;
    }
    tables.add(slot, TrafficField::Notices, 1);
    Verdict::Noticed
}

/// Writes header and body of an answer over the question's.
#[inline(always)]
fn answer<T: Tables>(
    frame: &mut impl Frame,
    at: usize,
    kind: Kind,
    known: &Known<T>,
    body: &Body,
    tables: &T,
) -> Option<()> {
    let words = body.words();
    let asked = &known.header;
    let keys = tables.keys(known.entry.slot)?;
    let kind = kind as u8;
    let tag = steering_tag(keys.down, asked.counter, kind, asked.epoch, FLAG_DOWN, known.entry.k, Some(&words));
    let header = Header { kind, flags: FLAG_DOWN, tag, ..*asked };
    frame.write(at, &header.to_bytes())?;
    // Word by word: an array of 48 bytes would not fit the kernel's stack beside the rest.
    for (i, word) in words.iter().enumerate() {
        frame.write(at + HEADER_LEN + i * 8, &word.to_le_bytes())?;
    }
    Some(())
}

/// The path record after probe `sequence` under transport index `k`, or `None` for a replay.
#[must_use]
#[inline(always)]
pub fn arrived(path: PathCounters, k: u16, sequence: u64) -> Option<PathCounters> {
    let mut path = of_transport(path, k);
    if sequence > path.highest {
        let ahead = sequence - path.highest;
        path.window = if ahead < 64 { path.window << ahead | 1 } else { 1 };
        path.highest = sequence;
    } else {
        let behind = path.highest - sequence;
        if behind >= 64 || path.window >> behind & 1 == 1 {
            return None;
        }
        path.window |= 1 << behind;
    }
    path.probes = path.probes.wrapping_add(1);
    Some(path)
}

/// The record if it is about `k`, else a new one.
#[must_use]
#[inline(always)]
pub fn of_transport(path: PathCounters, k: u16) -> PathCounters {
    if path.k == u32::from(k) { path } else { PathCounters { k: u32::from(k), ..PathCounters::default() } }
}

#[inline(always)]
fn withdraw(tables: &impl Tables, slot: u32, which: BucketField, limit: Limit, tick: u64) -> bool {
    let Some(config) = tables.config() else {
        return false;
    };
    let before = tables.slot_bucket(slot, which);
    let Some(after) = bucket::take(&before, limit, tick, config.hz) else {
        return false;
    };
    tables.set_slot_bucket(slot, which, &after);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_ahead_forgets_nothing_that_is_still_within_the_window() {
        let first = arrived(PathCounters { k: 7, ..PathCounters::default() }, 7, 10).unwrap();
        for (ahead, window) in [(2, 0b101), (63, 1 << 63 | 1), (64, 1), (65, 1)] {
            let path = arrived(first, 7, 10 + ahead).unwrap();
            assert_eq!((path.window, path.highest), (window, 10 + ahead), "{ahead} ahead");
            assert_eq!(arrived(path, 7, 10), None, "again, {ahead} ahead");
        }
        let path = arrived(first, 7, 12).unwrap();
        assert_eq!(arrived(path, 7, 11).map(|path| path.window), Some(0b111));
    }

    #[test]
    fn each_sequence_arrives_once_within_the_window_and_never_below_it() {
        let mut path = PathCounters::default();
        for sequence in [0, 1, 5, 3, 100, 37] {
            path = arrived(path, 7, sequence).unwrap();
            assert_eq!(arrived(path, 7, sequence), None, "{sequence}");
        }
        assert_eq!(arrived(path, 7, 36), None);
        assert_eq!((path.k, path.probes, path.highest), (7, 6, 100));
        assert_eq!(arrived(path, 7, u64::MAX).map(|path| path.window), Some(1));
    }

    #[test]
    fn another_transport_starts_its_record_anew() {
        let path = PathCounters { k: 3, probes: 9, highest: 50, window: 1, data: 8 };
        let other = arrived(path, 7, 2).unwrap();
        assert_eq!(other, PathCounters { k: 7, probes: 1, highest: 2, window: 1, data: 0 });
    }
}
