//! Whether data arrives: what the worker sealed for a transport against what the gateway's packet path counted.
//!
//! A path may deliver every small probe and lose every third packet of data. Each echo says how much data of its transport
//! had been counted when its probe was answered; how much had been sealed when the probe left is known here. The two
//! differ by what is lost, what is on its way, and what had been sealed a moment earlier, and only the first of them grows.
//!
//! ```text
//!            ◄─── first half ───────►◄────── second half ───►
//!  slots   │ old │  …  │  …  │  …  │ mid │  …  │  …  │  …  │ new │ open
//!             most missing          least  most          least
//!
//!  lost in a half = least missing at its end − most missing at its beginning          said: the smaller of both
//! ```
//!
//! Owns the comparison. Must never call lost what is on its way, came in another order, or was not counted at all; must
//! never say anything after one spike, which is in one half only.

use super::command::{Sealed, SetId};
use crate::ids::{Epoch, TransportIndex};
use crate::time::{Duration, Instant};
use core::net::SocketAddr;
use std::collections::VecDeque;

/// Echoes that are compared as one: at the pace of probes beside traffic eight and more, enough to see past an order that
/// the network changed. A spike no longer than this is never in both halves.
const SLOT: Duration = Duration::from_millis(500);
/// At a slower pace a slot lasts until it has so many: of one or two, each may have been overtaken.
const ECHOES_MIN: u32 = 4;
/// Slots from the beginning of a half to its end: two seconds, longer than the burst of losses with which a transfer
/// finds its pace.
const HALF: usize = 4;
/// Oldest slot that is compared: with echoes missing, slots are further apart, up to this.
const AGE_MAX: Duration = Duration::from_secs(10);
/// Data packets of a half that say something: among fewer, a lost one or two would be beyond the default threshold.
const PACKETS_MIN: u64 = 50;
/// How long it stands for the path in use: until the next one is due, also after a rekey, which starts it anew.
const SAID_FOR: Duration = Duration::from_secs(6);
/// How long it is remembered of a path that was left: as long as standby probes at the default pace take to forget
/// theirs. Its probes would say at once that nothing is wrong with it, and the session would be back.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// What is counted together: other keys, another transport or another gateway's address are other counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stream {
    set: SetId,
    epoch: Epoch,
    k: TransportIndex,
    to: SocketAddr,
}

impl Stream {
    const fn of(sealed: &Sealed, to: SocketAddr) -> Self {
        Self { set: sealed.set, epoch: sealed.epoch, k: sealed.k, to }
    }
}

/// How much had been sealed around the moment a probe was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    stream: Stream,
    before: u64,
    /// None until the worker was looked at again.
    after: Option<u64>,
}

impl Mark {
    /// Of a probe that leaves now.
    pub(super) const fn new(sealed: &Sealed, to: SocketAddr) -> Self {
        Self { stream: Stream::of(sealed, to), before: sealed.next, after: None }
    }

    /// The worker is looked at again; `false` if that was done before.
    pub(super) fn look(&mut self, sealed: &Sealed) -> bool {
        if self.after.is_some() {
            return false;
        }
        let same = self.stream == Stream::of(sealed, self.stream.to);
        self.after = Some(if same { sealed.next.max(self.before) } else { self.before });
        true
    }
}

/// What an echo said of the gateway's counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// Gateway's clock.
    pub(super) at: u64,
    /// Probes of the transport.
    pub(super) probes: u32,
    /// Data of the transport.
    pub(super) data: u32,
}

/// Echoes of half a second.
#[derive(Clone, Copy, Debug)]
struct Slot {
    began: Instant,
    echoes: u32,
    /// Sealed before the first and after the last of its probes.
    first: u64,
    last: u64,
    /// Sealed and not counted, at least and at most.
    least: i64,
    most: i64,
}

/// What is known of the data of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    newest: Option<(Stream, Counted)>,
    /// Sealed at the first echo, and counted since.
    base: u64,
    counted: u64,
    /// Sealed and not counted at the last echo, at least.
    missing: i64,
    /// Oldest first; the last one is open.
    slots: VecDeque<Slot>,
    /// Permille lost, and until when that stands.
    said: Option<(u16, Instant)>,
}

impl Delivery {
    /// Lost data, in 1/1000; none where nothing can be said.
    pub(super) fn lost(&self, now: Instant) -> Option<u16> {
        self.said.filter(|&(_, until)| now < until).map(|(permille, _)| permille)
    }

    /// What comes is not compared with what was; what was said stands for its time.
    pub(super) fn restart(&mut self) {
        self.newest = None;
        self.slots.clear();
    }

    /// The session leaves the path: nothing will say how it does.
    pub(super) fn leave(&mut self, now: Instant) {
        self.restart();
        self.said = self.lost(now).map(|permille| (permille, now + REMEMBERED_FOR));
    }

    /// An echo: the counts at the gateway when its probe came, and how much had been sealed when it left. Says whether more
    /// is missing than at the last one, which may also be on its way still.
    pub(super) fn compare(&mut self, mark: &Mark, counted: Counted, now: Instant) -> bool {
        let (same, delta) = match self.newest {
            Some((stream, newest)) if stream == mark.stream => {
                if counted.at <= newest.at {
                    return false;
                }
                // Counts never go back, unless they were begun anew.
                let [data, probes] =
                    [(counted.data, newest.data), (counted.probes, newest.probes)].map(|(a, b)| a.wrapping_sub(b));
                (data.cast_signed() >= 0 && probes.cast_signed() >= 0, data)
            }
            _ => (false, 0),
        };
        if same {
            self.counted += u64::from(delta);
        } else {
            self.restart();
            (self.base, self.counted) = (mark.before, 0);
        }
        self.newest = Some((mark.stream, counted));
        let after = mark.after.unwrap_or(mark.before);
        let missing = |sealed: u64| sealed.wrapping_sub(self.base).wrapping_sub(self.counted).cast_signed();
        let (least, most) = (missing(mark.before), missing(after));
        // Where nobody has counted anything yet, nobody does.
        let more = same && self.counted > 0 && least > self.missing;
        self.missing = least;
        let open = |slot: &&mut Slot| now.since(slot.began) < SLOT || slot.echoes < ECHOES_MIN;
        match self.slots.back_mut().filter(open) {
            Some(slot) => {
                slot.echoes += 1;
                slot.last = slot.last.max(after);
                slot.least = slot.least.min(least);
                slot.most = slot.most.max(most);
            }
            None => {
                self.judge(now);
                if self.slots.len() > 2 * HALF {
                    self.slots.pop_front();
                }
                self.slots.push_back(Slot { began: now, echoes: 1, first: mark.before, last: after, least, most });
            }
        }
        more
    }

    /// Says what both halves have in common, if each is long enough.
    fn judge(&mut self, now: Instant) {
        let mut back = self.slots.iter().rev().step_by(HALF);
        let (Some(new), Some(mid), Some(old)) = (back.next(), back.next(), back.next()) else { return };
        if now.since(old.began) > AGE_MAX {
            return;
        }
        if let (Some(first), Some(second)) = (lost_between(old, mid), lost_between(mid, new)) {
            self.said = Some((first.min(second), now + SAID_FOR));
        }
    }
}

/// Lost from one slot to another, in 1/1000.
fn lost_between(from: &Slot, to: &Slot) -> Option<u16> {
    let sealed = to.first.checked_sub(from.last).filter(|&sealed| sealed >= PACKETS_MIN)?;
    let lost = u64::try_from(to.least - from.most).unwrap_or(0);
    // Not one of them: where packets go by the kernel's program, nobody counts, and where really none arrives, the
    // silence of the data keys says so.
    (lost < sealed).then(|| u16::try_from(lost * 1_000 / sealed).unwrap_or(1_000))
}

#[cfg(test)]
mod tests;
