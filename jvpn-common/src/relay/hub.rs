//! The owner's end: which relay must say yes before a commit may happen, and what the others hear afterwards.
//!
//! Owns the commits that wait for relays. A relay whose word becomes active must have stored it before the owner's
//! word is; one that loses the session is told after, so that a session is never bound nowhere and never twice: a
//! relay's word alone moves nothing, since the owner's worker judges what arrives. Must never wait without an end.
//!
//! ```text
//! begin ─┬─ no relay concerned ────────────────────────────► Ready
//!        ├─ Bind to the relay it goes through ─ acks ──────► Settled { done }   within 500 ms, or not at all
//!        └─ that relay is not connected ───────────────────► Refused
//! finish ─┬─ done: the other relays hear the new picture
//!         └─ not: those that heard the new one hear the old one again
//! ```

use super::frame::{Held, ToRelay};
use super::picture::{Delta, Gateways, Picture};
use crate::ids::{OpId, RelayId, Slot};
use crate::mapop::MapOp;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// How long a relay may take to acknowledge. Ten round trips of a bad wide-area link; the client asks again after
/// about as long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Frames on their way, in order.
pub type Frames = Vec<(RelayId, ToRelay)>;

/// What becomes of a commit now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Carry it out.
    Ready,
    /// Not yet: [`Settled`] says when.
    Waiting,
    /// It needs a relay that is not there.
    Refused,
}

/// A commit that waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which.
    pub op: OpId,
    /// Whether every relay it needs agreed.
    pub done: bool,
}

#[derive(Debug)]
struct Parked {
    delta: Delta,
    waiting: BTreeSet<(RelayId, u64)>,
    told: BTreeSet<RelayId>,
    deadline: Instant,
}

/// The owner's end of all streams.
#[derive(Debug)]
pub struct Hub {
    /// Whether there is any relay that could connect; without one, nothing is kept for it.
    any: bool,
    picture: Picture,
    connected: BTreeSet<RelayId>,
    parked: BTreeMap<OpId, Parked>,
    number: u64,
}

impl Hub {
    /// A hub for a gateway with `any` relay or none.
    #[must_use]
    pub fn new(any: bool) -> Self {
        Self { any, picture: Picture::default(), connected: BTreeSet::new(), parked: BTreeMap::new(), number: 0 }
    }

    /// A relay said HELLO: everything it should hold.
    pub fn connect(&mut self, relay: RelayId, gateways: Gateways<'_>) -> Vec<ToRelay> {
        self.connected.insert(relay);
        let slots: Vec<Slot> = self.picture.slots().collect();
        let mut frames: Vec<ToRelay> = Vec::with_capacity(slots.len() + 1);
        for slot in slots {
            let held = self.picture.held(slot, relay, gateways);
            frames.push(self.frame(slot, held).1);
        }
        frames.push(ToRelay::Complete);
        frames
    }

    /// A stream ended: what waited for that relay fails.
    pub fn disconnect(&mut self, relay: RelayId) -> Vec<Settled> {
        self.connected.remove(&relay);
        self.fail(|parked| parked.waiting.iter().any(|(waiting, _)| *waiting == relay))
    }

    /// The relays that are there.
    #[must_use]
    pub const fn connected(&self) -> &BTreeSet<RelayId> {
        &self.connected
    }

    /// A commit with these map operations wants to happen; datagrams that belong to it leave through `answers`.
    pub fn begin(
        &mut self,
        op: OpId,
        maps: &[MapOp],
        answers: &BTreeSet<RelayId>,
        gateways: Gateways<'_>,
        now: Instant,
    ) -> (Begin, Frames) {
        if !self.any {
            return (Begin::Ready, Frames::new());
        }
        let delta = self.picture.delta(maps);
        let mut frames = Frames::new();
        let (mut waiting, mut told) = (BTreeSet::new(), BTreeSet::new());
        for relay in needed(&self.picture, &delta, answers, gateways) {
            if !self.connected.contains(&relay) {
                return (Begin::Refused, Frames::new());
            }
            for slot in delta.slots() {
                let (before, after) = (self.picture.held(slot, relay, gateways), delta.held(slot, relay, gateways));
                if before != after {
                    let (number, frame) = self.frame(slot, after);
                    frames.push((relay, frame));
                    waiting.insert((relay, number));
                    told.insert(relay);
                }
            }
        }
        let begin = if waiting.is_empty() { Begin::Ready } else { Begin::Waiting };
        self.parked.insert(op, Parked { delta, waiting, told, deadline: now + PATIENCE });
        (begin, frames)
    }

    /// A relay answered.
    pub fn ack(&mut self, relay: RelayId, number: u64, done: bool) -> Option<Settled> {
        let (&op, parked) = self.parked.iter_mut().find(|(_, parked)| parked.waiting.contains(&(relay, number)))?;
        if !done {
            parked.waiting.clear();
            return Some(Settled { op, done: false });
        }
        parked.waiting.remove(&(relay, number));
        parked.waiting.is_empty().then_some(Settled { op, done: true })
    }

    /// What nobody answered in time.
    pub fn expire(&mut self, now: Instant) -> Vec<Settled> {
        self.fail(|parked| !parked.waiting.is_empty() && parked.deadline <= now)
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        self.parked.values().filter(|parked| !parked.waiting.is_empty()).map(|parked| parked.deadline).min()
    }

    /// The commit was carried out, or was not; what relays hear of it.
    pub fn finish(&mut self, op: OpId, done: bool, gateways: Gateways<'_>) -> Frames {
        let Some(Parked { delta, told, .. }) = self.parked.remove(&op) else { return Frames::new() };
        let slots: Vec<Slot> = delta.slots().collect();
        let relays: Vec<RelayId> =
            self.connected.iter().copied().filter(|relay| told.contains(relay) != done).collect();
        let mut changes = Vec::new();
        for &relay in &relays {
            for &slot in &slots {
                let (old, new) = (self.picture.held(slot, relay, gateways), delta.held(slot, relay, gateways));
                if old != new {
                    changes.push((relay, slot, if done { new } else { old }));
                }
            }
        }
        if done {
            self.picture.keep(delta);
        }
        changes.into_iter().map(|(relay, slot, held)| (relay, self.frame(slot, held).1)).collect()
    }

    fn fail(&mut self, which: impl Fn(&Parked) -> bool) -> Vec<Settled> {
        let failed = self.parked.iter_mut().filter(|(_, parked)| which(parked));
        failed
            .map(|(&op, parked)| {
                parked.waiting.clear();
                Settled { op, done: false }
            })
            .collect()
    }

    fn frame(&mut self, slot: Slot, held: Option<Held>) -> (u64, ToRelay) {
        self.number += 1;
        let op = self.number;
        let frame = match held {
            Some(held) => ToRelay::Bind { op, slot, held: Box::new(held) },
            None => ToRelay::Unbind { op, slot },
        };
        (op, frame)
    }
}

/// The relays without which a change may not happen: those a session becomes bound through, and those whose clients
/// are answered with something the relay must know first.
fn needed(picture: &Picture, delta: &Delta, answers: &BTreeSet<RelayId>, gateways: Gateways<'_>) -> BTreeSet<RelayId> {
    let relays: BTreeSet<RelayId> = gateways.iter().filter_map(|(hop, _)| hop.relay()).collect();
    let gains = |relay: RelayId| {
        delta.slots().any(|slot| {
            let active = |held: Option<Held>| held.and_then(|held| held.active);
            let after = active(delta.held(slot, relay, gateways));
            after.is_some() && after != active(picture.held(slot, relay, gateways))
        })
    };
    relays.into_iter().filter(|relay| answers.contains(relay) || gains(*relay)).collect()
}
