//! Comparing kernel maps, pins and attached programs with what this gateway made of them.
//!
//! Owns when that is done, and what is recorded of what was found: a session's own finding through the engine, the
//! host's here, each kind at most once in a while. Must never decide what a difference means for a session.

use super::Gateway;
use super::watch::LOOK_EVERY;
use crate::dataplane::{DataPlaneError, Picture, Reader, Tampered};
use crate::runtime::clock;
use jvpn_common::event::{Context, Event, Record};
use jvpn_common::ids::Slot;
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

/// How often the same finding about the host is recorded, as for those of a session.
const RECORD_EVERY: Duration = Duration::from_secs(10);

/// Kinds of findings remembered; names of maps and interfaces are in them, and both are few.
const KINDS_MAX: usize = 64;

/// How often a kind of finding came up since it was recorded.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    recorded: Instant,
    count: u64,
}

/// What is under way and what was found before.
#[derive(Debug, Default)]
pub(super) struct Reconcile {
    last: Instant,
    reading: Option<Receiver<Result<Picture, DataPlaneError>>>,
    host: BTreeMap<String, Waiting>,
    /// The first slot that is looked at next.
    slot: u32,
}

impl Reconcile {
    /// The slots to look at this time: all of them in two seconds, since a million at once would hold the event loop.
    fn share(&mut self, capacity: u32) -> Range<u32> {
        let looks = u32::try_from(RECONCILE_EVERY.as_millis() / LOOK_EVERY.as_millis()).unwrap_or(1);
        let from = if self.slot < capacity { self.slot } else { 0 };
        self.slot = from.saturating_add(capacity.div_ceil(looks));
        from..self.slot
    }

    fn read(&mut self, reader: Arc<Reader>) {
        let (sender, receiver) = mpsc::channel();
        // Nobody listens any more when the gateway ends meanwhile.
        tokio::task::spawn_blocking(move || drop(sender.send(reader.read())));
        self.reading = Some(receiver);
    }

    /// The picture, once it is complete.
    fn picture(&mut self) -> Option<Picture> {
        match self.reading.as_ref()?.try_recv() {
            Err(mpsc::TryRecvError::Empty) => return None,
            read => {
                self.reading = None;
                match read {
                    Ok(Ok(picture)) => return Some(picture),
                    Ok(Err(error)) => tracing::warn!(%error, "the maps could not be read for comparison"),
                    Err(_) => {}
                }
            }
        }
        None
    }

    /// Counts a finding about the host; how many to record now.
    fn count(&mut self, what: &str, causes: u64, now: Instant) -> Option<u64> {
        let Some(waiting) = self.host.get_mut(what) else {
            if self.host.len() >= KINDS_MAX {
                return None;
            }
            self.host.insert(what.to_owned(), Waiting { recorded: now, count: 0 });
            return Some(causes);
        };
        waiting.count += causes;
        if waiting.count == 0 || now.since(waiting.recorded) < RECORD_EVERY {
            return None;
        }
        waiting.recorded = now;
        Some(std::mem::take(&mut waiting.count))
    }

    /// The kinds whose rest may be due.
    fn waiting(&self) -> Vec<String> {
        self.host.iter().filter(|(_, waiting)| waiting.count > 0).map(|(what, _)| what.clone()).collect()
    }
}

impl Gateway {
    /// Compares, every two seconds; in between only takes up a picture that is complete.
    pub(super) fn reconcile(&mut self, now: Instant) {
        if let Some(picture) = self.reconcile.picture() {
            self.carry_out();
            let found = self.executor.plane.mend(&picture);
            self.tampered(&found);
        }
        for what in self.reconcile.waiting() {
            self.host_tampered(&what, 0);
        }
        self.carry_out();
        let slots = self.reconcile.share(self.executor.plane.capacity());
        let found = self.executor.plane.mend_unused(slots);
        self.tampered(&found);
        for what in self.interfaces.check(now) {
            self.host_tampered(&what, 1);
        }
        if self.reconcile.last + RECONCILE_EVERY > now {
            return;
        }
        self.reconcile.last = now;
        self.reconcile_slots();
        if self.executor.plane.shared().mend_config() {
            self.host_tampered("configuration", 1);
        }
        if self.reconcile.reading.is_none()
            && let Some(reader) = self.executor.plane.reader()
        {
            self.reconcile.read(reader);
        }
    }

    /// Compares every committed slot with the maps; what differs is put back and recorded.
    fn reconcile_slots(&mut self) {
        let differing: Vec<_> = {
            let plane = &self.executor.plane;
            let differs = |slot, committed: &_| plane.differs(slot, committed);
            let (relays, gateways) = (&self.relays, self.engine.gateways());
            let local = |binding| relays.local_binding(binding, gateways);
            let all = self.engine.committed().map(|(id, slot, committed)| {
                (id, slot, Committed { active: committed.active.map(local), ..committed })
            });
            all.filter_map(|(id, slot, committed)| Some((id, slot, committed, differs(slot, &committed)?))).collect()
        };
        for (session, slot, committed, what) in differing {
            let found = self.executor.plane.word(slot);
            tracing::warn!(%session, %slot, what, ?found, ?committed, "a map holds what nobody committed; it is put back");
            if let Err(error) = self.executor.plane.restore(slot, &committed) {
                tracing::error!(%error, %session, "could not put a slot back");
            }
            self.suspect(session, Reason::SecMapTampered, 1, what);
        }
    }

    /// Records what was changed, each for the session it belongs to, if there is one.
    pub(super) fn tampered(&mut self, found: &[Tampered]) {
        for Tampered { slot, what } in found {
            tracing::warn!(?slot, what, "a map holds what nobody wrote; it is put back");
            let session = |slot: Slot| self.executor.sessions.entry(slot).map(|entry| entry.data.id());
            match slot.and_then(session) {
                Some(session) => self.suspect(session, Reason::SecMapTampered, 1, what),
                None => self.host_tampered(what, 1),
            }
        }
    }

    /// Records something that was done to this gateway and not to one session.
    fn host_tampered(&mut self, what: &str, causes: u64) {
        let now = clock::boot();
        let Some(count) = self.reconcile.count(what, causes, now) else { return };
        let ts = clock::text(now);
        let context = Context { ts: &ts, at: now, node: &self.config.name, seq: 0, peer: "" };
        let mut record = Record::plain(&context, Event::SecurityEvent).with("count", count.into());
        record = record.with("what", what.into());
        record.reason = Some(Reason::SecMapTampered);
        if let Err(error) = self.executor.record(vec![record]) {
            self.executor.complain(&error, "a record could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_looked_at_within_two_seconds() {
        for capacity in [1, 7, 8, 4_096, 1_048_576] {
            let mut reconcile = Reconcile::default();
            for _ in 0..3 {
                let seen: Vec<_> = (0..8).map(|_| reconcile.share(capacity)).collect();
                let all = |slot: u32| seen.iter().any(|share| share.contains(&slot));
                assert!((0..capacity).step_by(3).chain([capacity - 1]).all(all), "{capacity}: {seen:?}");
            }
        }
    }

    #[test]
    fn a_finding_is_recorded_at_once_and_its_repetitions_with_their_number() {
        let mut reconcile = Reconcile::default();
        let at = |s: u64| Instant(s * 1_000_000_000);
        assert_eq!(reconcile.count("pin of KEYS", 1, at(100)), Some(1));
        assert_eq!(reconcile.count("configuration", 1, at(101)), Some(1), "another kind waits for nothing");
        for second in 101..110 {
            assert_eq!(reconcile.count("pin of KEYS", 1, at(second)), None);
        }
        assert_eq!(reconcile.waiting(), ["pin of KEYS"]);
        assert_eq!(reconcile.count("pin of KEYS", 0, at(110)), Some(9));
        assert_eq!((reconcile.count("pin of KEYS", 0, at(130)), reconcile.waiting().len()), (None, 0));
    }
}
