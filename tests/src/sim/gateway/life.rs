//! How a gateway's process dies and comes back, and what of it survives.
//!
//! Owns store, disk and record of the host. Must never bring back what was not written.

use super::{GatewayHost, Out, SLOTS};
use crate::sim::Bug;
use crate::sim::check::Checker;
use crate::sim::cover::Cover;
use crate::sim::maps::Maps;
use crate::sim::net::PORT;
use jvpn_common::event::{Event, Record};
use jvpn_common::gateway::{Restored, StoreOp, Stored};
use jvpn_common::ids::{Generation, Slot, Version};
use jvpn_common::mapop::MapOp;
use jvpn_common::session::version::continued;
use jvpn_common::session::{Elapsed, Session, State};
use jvpn_common::time::{Duration, Instant};

/// How long a record may wait for the disk.
const GROUP: Duration = Duration::from_millis(20);

impl GatewayHost {
    /// The process dies; what is not on disk or in the kernel is gone.
    pub fn crash(&mut self, power: bool, now: Instant, cover: &mut Cover) {
        cover.note(now, || format!("gateway dies, power cut {power}"));
        self.collect(cover);
        self.engine = None;
        self.later.clear();
        self.slots.clear();
        self.tampered.clear();
        self.forged.clear();
        self.backlog.clear();
        self.frozen = None;
        if power || self.rng.chance(300) {
            self.store = self.disk.clone();
        } else {
            self.disk = self.store.clone();
        }
        if power {
            self.maps = Maps::new(SLOTS, PORT, now);
            self.maps.config.role = 0;
            for versions in self.recorded.values_mut() {
                versions.retain(|(at, _)| *at + GROUP < now);
            }
            self.gaps.retain(|_, (at, _)| *at + GROUP < now);
        }
    }

    /// The process starts again.
    pub fn restart(&mut self, power: bool, now: Instant, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        self.incarnation = self.incarnation.wrapping_add(2);
        if power {
            self.maps = Maps::new(SLOTS, PORT, now);
        }
        self.start(now);
        let restored: Vec<Restored> =
            self.store.values().filter_map(|stored| self.restore(stored, power, now)).collect();
        // Reconcile: what no session adopts is emptied, or its locators would outlive it.
        let adopted: Vec<Slot> = restored.iter().flat_map(|restored| &restored.slots).map(|&(slot, _)| slot).collect();
        let orphans: Vec<Slot> =
            self.maps.used().map(|(slot, ..)| slot).filter(|slot| !adopted.contains(slot)).collect();
        orphans.into_iter().for_each(|slot| self.maps.apply(&MapOp::Free { slot }));
        for restored in &restored {
            checker.restored(restored.core.id(), restored.core.version(), power);
        }
        cover.note(now, || format!("gateway starts with {} sessions", restored.len()));
        if let Some(engine) = &mut self.engine {
            engine.restore(restored);
        }
        self.run(now, checker, cover)
    }

    fn restore(&self, stored: &Stored, power: bool, now: Instant) -> Option<Restored> {
        let kept = Session::decode(&stored.core)?;
        let recorded =
            self.recorded.get(&stored.session).and_then(|all| all.last()).map(|(_, session)| session.clone());
        let recorded = recorded.filter(|_| self.bug != Bug::VersionNotPersisted);
        let newest = recorded.filter(|recorded| recorded.version() > kept.version()).unwrap_or(kept);
        if newest.state() == State::Terminated {
            return None;
        }
        let whole = !power || self.bug == Bug::VersionNotPersisted;
        let skipped = self.gaps.get(&stored.session).map_or(Version(0), |(_, last)| *last);
        let (version, gap) = continued(newest.version().max(skipped), stored.ceiling, whole);
        let elapsed = Elapsed { then: now, now, between: Duration::ZERO };
        let slots = self.maps.used().filter(|(_, info, _)| info.session_id == stored.session.0);
        let slots = slots.map(|(slot, info, _)| (slot, Generation(info.generation))).collect();
        let core = newest.restored(elapsed, version, newest.next_owner());
        Some(Restored { core, peer: stored.peer, ceiling: stored.ceiling, gap, slots })
    }

    pub(super) fn keep(&mut self, op: StoreOp) {
        match op {
            StoreOp::Put { stored, durable } => {
                if durable {
                    self.disk.insert(stored.session, (*stored).clone());
                }
                self.store.insert(stored.session, *stored);
            }
            StoreOp::Remove(session) => {
                self.store.remove(&session);
                self.disk.remove(&session);
            }
        }
    }

    pub(super) fn record(&mut self, now: Instant, record: &Record, checker: &mut Checker, cover: &mut Cover) {
        cover.note(now, || {
            format!(
                "record {} {:?} {:?}→{:?} {:?} v{} {:?}",
                record.event,
                record.session_id,
                record.from,
                record.to,
                record.reason,
                record.state_version,
                record.details
            )
        });
        if let (Event::Gap, Some(id)) = (record.event, record.session_id)
            && let Some(last) = record.details.get("last").and_then(|last| last.as_str()?.parse().ok())
        {
            self.gaps.insert(id, (now, Version(last)));
        }
        let policy = self.texts.get(&record.policy_version).cloned();
        if let Some(after) = checker.record(record, policy.as_deref(), now, cover) {
            let versions = self.recorded.entry(after.id()).or_default();
            versions.push((now, after));
            if versions.len() > 64 {
                versions.remove(0);
            }
        }
    }
}
