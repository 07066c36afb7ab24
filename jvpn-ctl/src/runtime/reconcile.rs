//! Comparing kernel maps, pins and attached programs with what this process made of them, on a gateway and on a relay.
//!
//! Owns when that is done, putting back what differs, and how often a finding is recorded: each kind at most once in a
//! while, with its number. Must never decide what a difference means for a session.

use super::clock;
use super::interfaces::Interfaces;
use crate::dataplane::{DataPlane, DataPlaneError, Reader, Shared, Suspects, Tampered};
use jvpn_common::event::{Context, Event, Record};
use jvpn_common::ids::{SessionId, Slot};
use jvpn_common::mapop::Committed;
use jvpn_common::reason::Reason;
use jvpn_common::time::Instant;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How often the maps are compared with what was committed. Whoever changes them is root already; two seconds
/// bound how long a session is bound to what nobody proved.
const RECONCILE_EVERY: Duration = Duration::from_secs(2);

/// How often the same finding is recorded.
const RECORD_EVERY: Duration = Duration::from_secs(10);

/// Kinds of findings told apart. Those of the node are few, as its maps and interfaces are; sessions are not, and those
/// beyond this are recorded without their name.
const KINDS_MAX: usize = 64;

/// What a finding is about, and what it is.
type Kind = (Option<SessionId>, String);

/// How often a kind of finding came up since it was recorded.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    recorded: Instant,
    count: u64,
}

/// What one look found. All of it is put back.
#[derive(Debug)]
pub(super) struct Found {
    /// In the maps, each with the slot it belongs to.
    pub(super) slots: Vec<Tampered>,
    /// Of the node itself, in words.
    pub(super) node: Vec<String>,
    /// Committed slots are to be compared now, by [`compare`].
    pub(super) due: bool,
}

/// What is under way and what was found before.
#[derive(Debug)]
pub(super) struct Reconcile {
    /// How often [`Self::look`] is called.
    every: Duration,
    last: Instant,
    reading: Option<Receiver<Result<Suspects, DataPlaneError>>>,
    kinds: BTreeMap<Kind, Waiting>,
    /// The first slot that is looked at next.
    slot: u32,
}

impl Reconcile {
    pub(super) fn every(every: Duration) -> Self {
        Self { every, last: Instant::default(), reading: None, kinds: BTreeMap::new(), slot: 0 }
    }

    /// The slots to look at this time: all of them in two seconds, since a million at once would hold the event loop.
    fn share(&mut self, capacity: u32) -> Range<u32> {
        let looks = u32::try_from(RECONCILE_EVERY.as_millis() / self.every.as_millis().max(1)).unwrap_or(1).max(1);
        let from = if self.slot < capacity { self.slot } else { 0 };
        self.slot = from.saturating_add(capacity.div_ceil(looks));
        from..self.slot
    }

    fn read(&mut self, reader: Arc<Reader>, shared: Arc<Shared>) {
        let (sender, receiver) = mpsc::channel();
        // Nobody listens any more when the node ends meanwhile.
        tokio::task::spawn_blocking(move || drop(sender.send(reader.read(&shared))));
        self.reading = Some(receiver);
    }

    /// What reading found, once it is complete.
    fn suspects(&mut self) -> Option<Suspects> {
        match self.reading.as_ref()?.try_recv() {
            Err(mpsc::TryRecvError::Empty) => return None,
            read => {
                self.reading = None;
                match read {
                    Ok(Ok(suspects)) => return Some(suspects),
                    Ok(Err(error)) => tracing::warn!(%error, "the maps could not be read for comparison"),
                    Err(_) => {}
                }
            }
        }
        None
    }

    /// Compares, every two seconds; in between only a share of the unused slots, and what was read meanwhile.
    pub(super) fn look(&mut self, plane: &mut dyn DataPlane, interfaces: &mut Interfaces, now: Instant) -> Found {
        let mut slots = self.suspects().map(|suspects| plane.mend(suspects)).unwrap_or_default();
        slots.extend(plane.mend_unused(self.share(plane.capacity())));
        let mut node = interfaces.check(now);
        let due = self.last + RECONCILE_EVERY <= now;
        if due {
            self.last = now;
            node.extend(plane.shared().mend_config().then(|| "configuration".to_owned()));
            node.extend(plane.shared().mend_ways().into_iter().map(str::to_owned));
            if let (None, Some(reader)) = (&self.reading, plane.reader()) {
                self.read(reader, Arc::clone(plane.shared()));
            }
        }
        Found { slots, node, due }
    }

    /// Counts a finding; how many to record now, and of what.
    fn count(&mut self, kind: Kind, causes: u64, now: Instant) -> Option<(Kind, u64)> {
        let fresh = |waiting: &Waiting| now.since(waiting.recorded) < RECORD_EVERY;
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS_MAX {
            self.kinds.retain(|_, waiting| waiting.count > 0 || fresh(waiting));
        }
        let room = self.kinds.len() < KINDS_MAX;
        let kind = if room || self.kinds.contains_key(&kind) { kind } else { (None, kind.1) };
        let Some(waiting) = self.kinds.get_mut(&kind) else {
            if causes > 0 {
                self.kinds.insert(kind.clone(), Waiting { recorded: now, count: 0 });
            }
            return (causes > 0).then_some((kind, causes));
        };
        waiting.count += causes;
        if waiting.count == 0 || fresh(waiting) {
            return None;
        }
        waiting.recorded = now;
        let count = std::mem::take(&mut waiting.count);
        Some((kind, count))
    }

    /// A finding about the node, or about a session nobody else keeps a count for; its record, if it is due.
    pub(super) fn found(&mut self, node: &str, kind: Kind, causes: u64, now: Instant) -> Option<Record> {
        let ((session, what), count) = self.count(kind, causes, now)?;
        let ts = clock::text(now);
        let context = Context { ts: &ts, at: now, node, seq: 0, peer: "" };
        let mut record = Record::plain(&context, Event::SecurityEvent).with("count", count.into());
        record.note("what", what.into());
        (record.reason, record.session_id) = (Some(Reason::SecMapTampered), session);
        Some(record)
    }

    /// The records of repetitions whose time has come.
    pub(super) fn rest(&mut self, node: &str, now: Instant) -> Vec<Record> {
        let waiting = self.kinds.iter().filter(|(_, waiting)| waiting.count > 0);
        let kinds: Vec<Kind> = waiting.map(|(kind, _)| kind.clone()).collect();
        kinds.into_iter().filter_map(|kind| self.found(node, kind, 0, now)).collect()
    }
}

/// Compares committed slots with the maps; what differs is put back. Whose slots they were, and what differed.
pub(super) fn compare(
    plane: &mut dyn DataPlane,
    committed: impl Iterator<Item = (SessionId, Slot, Committed)>,
) -> Vec<(SessionId, &'static str)> {
    let differing: Vec<_> = committed
        .filter_map(|(session, slot, committed)| Some((session, slot, committed, plane.differs(slot, &committed)?)))
        .collect();
    for (session, slot, committed, what) in &differing {
        let found = plane.word(*slot);
        tracing::warn!(%session, %slot, what, ?found, ?committed, "a map holds what nobody committed; it is put back");
        if let Err(error) = plane.restore(*slot, committed) {
            tracing::error!(%error, %session, "could not put a slot back");
        }
    }
    differing.into_iter().map(|(session, _, _, what)| (session, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn node(what: &str) -> Kind {
        (None, what.to_owned())
    }

    #[test]
    fn every_slot_is_looked_at_within_two_seconds() {
        for (every, looks) in [(250, 8), (500, 4), (5_000, 1)] {
            for capacity in [1, 7, 8, 4_096, 1_048_576] {
                let mut reconcile = Reconcile::every(Duration::from_millis(every));
                for _ in 0..3 {
                    let seen: Vec<_> = (0..looks).map(|_| reconcile.share(capacity)).collect();
                    let all = |slot: u32| seen.iter().any(|share| share.contains(&slot));
                    assert!((0..capacity).step_by(3).chain([capacity - 1]).all(all), "{capacity}: {seen:?}");
                }
            }
        }
    }

    #[test]
    fn a_finding_is_recorded_at_once_and_its_repetitions_with_their_number() {
        let mut reconcile = Reconcile::every(RECONCILE_EVERY);
        let mut count = |what, causes, second| reconcile.count(node(what), causes, at(second)).map(|(_, count)| count);
        assert_eq!(count("pin of KEYS", 1, 100), Some(1));
        assert_eq!(count("configuration", 1, 101), Some(1), "another kind waits for nothing");
        for second in 101..110 {
            assert_eq!(count("pin of KEYS", 1, second), None);
        }
        assert_eq!((count("pin of KEYS", 0, 110), count("pin of KEYS", 0, 130)), (Some(9), None));
        let found = |reconcile: &mut Reconcile, second| reconcile.found("n", node("keys"), 1, at(second)).is_some();
        assert!(found(&mut reconcile, 130) && !found(&mut reconcile, 131));
        assert_eq!(reconcile.rest("n", at(139)).len(), 0);
        let rest = reconcile.rest("n", at(140));
        assert_eq!((rest.len(), rest[0].details["count"].as_u64()), (1, Some(1)));
        assert_eq!(reconcile.rest("n", at(160)).len(), 0);
    }

    #[test]
    fn sessions_beyond_the_bound_are_counted_without_their_name_and_forgotten_when_nothing_waits() {
        let mut reconcile = Reconcile::every(RECONCILE_EVERY);
        let kind = |number: u8| (Some(SessionId([number; 16])), "keys".to_owned());
        let all: Vec<_> = (0..100).filter_map(|number| reconcile.count(kind(number), 1, at(100))).collect();
        let named = all.iter().filter(|((session, _), _)| session.is_some()).count();
        let known = KINDS_MAX + 1;
        assert_eq!((named, all.len(), reconcile.kinds.len()), (KINDS_MAX, known, known));
        assert_eq!(reconcile.count(node("keys"), 0, at(110)), Some((node("keys"), 100 - known as u64)));
        assert_eq!(reconcile.count(kind(200), 1, at(200)), Some((kind(200), 1)), "the others are over");
        assert_eq!(reconcile.kinds.len(), 1);
    }
}
