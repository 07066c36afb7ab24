//! Sessions of an earlier start: from store, record and maps back into the engine.
//!
//! Owns which of the three is believed. The record has every acknowledged version; the store has what a
//! power cut may have cost the record; the maps have the slots old locators still lead to.

use crate::audit::{Recovered, Remembered};
use crate::dataplane::Adopted;
use crate::runtime::clock;
use crate::store::StoredSession;
use jvpn_common::event::replay;
use jvpn_common::gateway::Restored;
use jvpn_common::ids::{OwnerEpoch, SessionId, Version};
use jvpn_common::secret::PublicKey;
use jvpn_common::session::version::{Gap, continued};
use jvpn_common::session::{Elapsed, Session};
use jvpn_common::time::{Duration, Instant};

/// What is known of earlier starts.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// From the store.
    pub stored: Vec<StoredSession>,
    /// Last transition of each session and the policies, from the record.
    pub remembered: Remembered,
    /// How the record ended.
    pub recovered: &'a Recovered,
    /// From the maps.
    pub adopted: Vec<Adopted>,
    /// This boot.
    pub boot_id: &'a str,
    /// This owner.
    pub owner_epoch: OwnerEpoch,
}

impl Known<'_> {
    /// The sessions to go on with, and adopted slots that belong to none.
    #[must_use]
    pub(super) fn sessions(mut self) -> (Vec<Restored>, Vec<Adopted>) {
        let mut restored = Vec::new();
        for stored in std::mem::take(&mut self.stored) {
            match self.session(&stored) {
                Some(session) => restored.push(session),
                None => tracing::error!(session = %stored.id, "a stored session does not decode; it is left out"),
            }
        }
        let known = |id: &SessionId| restored.iter().any(|session: &Restored| session.core.id() == *id);
        let orphans = std::mem::take(&mut self.adopted).into_iter().filter(|slot| !known(&slot.session)).collect();
        (restored, orphans)
    }

    fn session(&self, stored: &StoredSession) -> Option<Restored> {
        let peer = PublicKey::from_bytes(stored.peer).ok()?;
        let (core, then) = self.newest(stored)?;
        let same_boot = stored.boot_id == self.boot_id;
        let whole = same_boot && self.recovered.torn.is_none();
        let recorded =
            self.remembered.transitions.get(&stored.id).map_or(core.version(), |record| record.state_version);
        let (version, gap) = onwards(recorded, core.version(), stored.ceiling, whole);
        let now = clock::boot();
        let elapsed = if same_boot {
            Elapsed { then: now, now, between: Duration::ZERO }
        } else {
            let wall = (clock::wall() / 1_000_000).saturating_sub(stored.wall_ms);
            Elapsed { then, now, between: Duration::from_millis(wall) }
        };
        let core = core.restored(elapsed, version, self.owner_epoch);
        let slots = self.adopted.iter().filter(|slot| slot.session == stored.id);
        let slots = slots.map(|slot| (slot.slot, slot.generation)).collect();
        Some(Restored { core, peer, ceiling: stored.ceiling.max(version), gap, slots })
    }

    /// The newer picture of store and record, and the boot time it belongs to.
    fn newest(&self, stored: &StoredSession) -> Option<(Session, Instant)> {
        let core = Session::decode(&stored.core)?;
        let recorded = self.remembered.transitions.get(&stored.id).and_then(|record| {
            let policy = self.remembered.policies.get(&record.policy_version)?;
            let after = replay(record, policy).map_err(|mismatch| {
                tracing::error!(session = %stored.id, seq = record.seq, %mismatch, "a record does not replay; the store is believed");
            });
            Some((after.ok()?.after, record.at))
        });
        match recorded {
            Some((after, at)) if after.version() > core.version() => Some((after, at)),
            _ => Some((core, stored.at)),
        }
    }
}

/// Where versions go on, and those that are in no record: the store may be ahead of it by what a crash or a power cut
/// cost, and behind it, since it is written lazily.
fn onwards(recorded: Version, stored: Version, ceiling: Version, whole: bool) -> (Version, Option<Gap>) {
    let (version, _) = continued(recorded.max(stored), ceiling, whole);
    (version, (version > recorded).then(|| Gap { first: recorded.next(), last: version }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_on_above_record_and_store_and_what_is_in_no_record_is_named() {
        let onwards = |recorded, stored, whole| {
            let (version, gap) = onwards(Version(recorded), Version(stored), Version(1_024), whole);
            (version.0, gap.map(|gap| (gap.first.0, gap.last.0)))
        };
        assert_eq!(onwards(5, 5, true), (5, None), "nothing is missing");
        assert_eq!(onwards(5, 3, true), (5, None), "the store is written lazily; no version is given twice");
        assert_eq!(onwards(5, 6, true), (6, Some((6, 6))), "a crash between store and record");
        assert_eq!(onwards(5, 6, false), (1_024, Some((6, 1_024))), "a power cut");
    }
}
