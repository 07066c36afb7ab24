//! What the controller looks at by itself: the worker's counters, and whether maps and programs are what it made of them.
//!
//! Owns the memory of what was counted last, so that the engine hears differences and each cause once, and which finding
//! goes to the engine and which straight into the record. Must never decide what a difference means.

use super::Gateway;
use super::commit::Executor;
use super::sessions::Entry;
use crate::dataplane::{DataPlane, Tampered};
use crate::runtime::reconcile::{Found, compare};
use crate::runtime::{clock, events};
use crate::store::has_room;
use jvpn_common::event::Record;
use jvpn_common::gateway::command::{Input, Order};
use jvpn_common::ids::{Epoch, Generation, SessionId, Slot};
use jvpn_common::mapop::Committed;
use jvpn_common::reason::Reason;
use jvpn_common::time::Instant;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How often the worker's counters are read for the engine. Silence is judged in seconds.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Counters of a slot as they were read last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    forged: u64,
    spoofed: u64,
}

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Watch {
    unanswered: BTreeMap<Slot, Instant>,
    counted: BTreeMap<(Slot, Generation), Counted>,
}

/// What the worker did with a slot since the last time.
struct Seen {
    slot: Slot,
    opened: Option<Instant>,
    unanswered: Option<Instant>,
    epoch: Epoch,
    worn: Option<bool>,
}

impl Watch {
    fn seen(&mut self, slot: Slot, entry: &Entry, now: Instant) -> Option<Seen> {
        let key = entry.data.sealing()?;
        let (epoch, spent) = (key.epoch(), key.spent(now));
        let opened = entry.data.last_heard();
        let sealed = Instant(entry.data.traffic().last_sealed.load(Relaxed));
        let waiting = sealed.0 != 0 && opened.is_none_or(|at| sealed > at);
        let since = self.unanswered.get(&slot).copied().filter(|since| opened.is_none_or(|at| *since > at));
        let unanswered = waiting.then(|| since.unwrap_or(sealed.min(now)));
        match unanswered {
            Some(at) => self.unanswered.insert(slot, at),
            None => self.unanswered.remove(&slot),
        };
        Some(Seen { slot, opened, unanswered, epoch, worn: (spent || key.worn()).then_some(spent) })
    }

    /// What was counted against a session since the last time.
    fn causes(&mut self, slot: Slot, entry: &Entry, plane: &dyn DataPlane) -> [(Reason, u64); 2] {
        let spoofed = entry.data.traffic().spoofed.load(Relaxed);
        let now = Counted { forged: plane.traffic(slot).forged, spoofed };
        let key = (slot, entry.generation);
        let last = self.counted.get(&key).copied().unwrap_or_default();
        // Of most sessions nothing was ever counted: they need no room.
        if now != last {
            self.counted.insert(key, now);
        }
        [
            (Reason::SecForgedTag, now.forged.saturating_sub(last.forged)),
            (Reason::SecInnerSpoof, now.spoofed.saturating_sub(last.spoofed)),
        ]
    }
}

impl Gateway {
    /// Tells the engine what worker and kernel program saw of every slot. Nothing is collected of those of which there is
    /// nothing to tell: lists of a hundred thousand sessions, made and freed four times a second, are memory that stays.
    pub(super) fn look(&mut self) {
        let (now, wall) = (clock::boot(), clock::wall());
        events::drain(&mut *self.executor.plane);
        let (mut causes, mut forged) = (Vec::new(), Vec::new());
        let Self { executor: Executor { sessions, plane, .. }, watch, engine, .. } = self;
        for (slot, entry) in sessions.iter() {
            if let Some(Seen { slot, opened, unanswered, epoch, worn }) = watch.seen(slot, entry, now) {
                engine.handle(now, wall, Input::Activity { slot, opened, unanswered, epoch });
                if let Some(spent) = worn {
                    engine.handle(now, wall, Input::Worn { slot, epoch, spent });
                }
            }
            for (reason, n) in watch.causes(slot, entry, &**plane).into_iter().filter(|&(_, n)| n > 0) {
                forged.extend((reason == Reason::SecForgedTag).then_some(slot));
                causes.push((entry.data.id(), reason, n));
            }
        }
        let live = |slot: Slot, generation| sessions.entry(slot).is_some_and(|entry| entry.generation == generation);
        watch.counted.retain(|&(slot, generation), _| live(slot, generation));
        watch.unanswered.retain(|&slot, _| sessions.entry(slot).is_some());
        for (session, reason, causes) in causes {
            self.suspect(session, reason, causes, "");
        }
        // With other keys in the map every tag looks forged: that must not wait for the next comparison.
        let plane = &mut self.executor.plane;
        let found: Vec<_> = forged.into_iter().filter_map(|slot| plane.mend_keys(slot)).collect();
        self.tampered(&found);
        self.interfaces.look(now);
        self.reconcile(now);
        self.open_sockets();
        self.look_at_storage();
        let available = !self.executor.audit.is_failing() && !self.executor.keeper.is_failing();
        self.input(Input::Order(Order::Storage { available }));
    }

    /// A record that could not be written goes on once there is room, even when nothing happens.
    fn look_at_storage(&self) {
        if self.executor.audit.is_failing() && has_room(&self.paths.state_dir) {
            let resumed = self.executor.audit.resume(&clock::text(clock::boot()), clock::boot(), &self.config.name);
            match resumed {
                Ok(()) => tracing::info!("the record goes on; a GAP names what was lost"),
                Err(error) => tracing::debug!(%error, "the record cannot be written yet"),
            }
        }
    }

    /// Compares maps, pins and programs with what was made of them; what differed is put back by now.
    fn reconcile(&mut self, now: Instant) {
        self.carry_out();
        let Found { slots, node, due } = self.reconcile.look(&mut *self.executor.plane, &mut self.interfaces, now);
        self.tampered(&slots);
        for what in node {
            self.found(what);
        }
        let rest = self.reconcile.rest(&self.config.name, now);
        self.record_all(rest);
        if !due {
            return;
        }
        // What waits to be carried out is not committed yet.
        self.carry_out();
        let (relays, gateways) = (&self.relays, self.engine.gateways());
        let local = |binding| relays.local_binding(binding, gateways);
        let committed = self.engine.committed().map(|(session, slot, committed)| {
            (session, slot, Committed { active: committed.active.map(local), ..committed })
        });
        for (session, what) in compare(&mut *self.executor.plane, committed) {
            self.suspect(session, Reason::SecMapTampered, 1, what);
        }
    }

    /// Records what was changed, each for the session it belongs to, if there is one.
    fn tampered(&mut self, found: &[Tampered]) {
        for Tampered { slot, what } in found {
            tracing::warn!(?slot, what, "a map holds what nobody wrote; it is put back");
            let session = |slot: Slot| self.executor.sessions.entry(slot).map(|entry| entry.data.id());
            match slot.and_then(session) {
                Some(session) => self.suspect(session, Reason::SecMapTampered, 1, what),
                None => self.found((*what).to_owned()),
            }
        }
    }

    /// Something that was done to this gateway and not to one session.
    fn found(&mut self, what: String) {
        let record = self.reconcile.found(&self.config.name, (None, what), 1, clock::boot());
        self.record_all(record.into_iter().collect());
    }

    fn record_all(&mut self, records: Vec<Record>) {
        if let Err(error) = self.executor.record(records) {
            self.executor.complain(&error, "a record could not be written");
        }
    }

    pub(super) fn suspect(&mut self, session: SessionId, reason: Reason, causes: u64, what: &'static str) {
        if causes > 0 {
            self.input(Input::Suspicious { session, reason, causes, what });
        }
    }
}
