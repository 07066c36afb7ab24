//! Sessions of an earlier start: from store, record and maps back into the engine.
//!
//! Owns which of the three is believed. The record has every acknowledged version; the store has what a
//! power cut may have cost the record; the maps have the slots old locators still lead to.

use crate::audit::Recovered;
use crate::dataplane::Adopted;
use crate::runtime::clock;
use crate::store::StoredSession;
use jvpn_common::event::{Record, replay};
use jvpn_common::gateway::Restored;
use jvpn_common::ids::{OwnerEpoch, SessionId, Version};
use jvpn_common::secret::PublicKey;
use jvpn_common::session::version::{Gap, continued};
use jvpn_common::session::{Elapsed, Policy, Session};
use jvpn_common::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of earlier starts.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// From the store.
    pub stored: Vec<StoredSession>,
    /// Last transition of each session, from the record.
    pub transitions: BTreeMap<SessionId, Record>,
    /// How the record ended.
    pub recovered: &'a Recovered,
    /// From the maps.
    pub adopted: Vec<Adopted>,
    /// Policies by peer.
    pub policies: &'a BTreeMap<[u8; 32], Arc<Policy>>,
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
        let (version, _) = continued(core.version(), stored.ceiling, whole);
        let gap = self.unrecorded(stored.id, core.version(), version);
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

    /// The versions that are in no record: the store may be ahead of it by what a crash or a power cut cost.
    fn unrecorded(&self, id: SessionId, known: Version, version: Version) -> Option<Gap> {
        let recorded = self.transitions.get(&id).map_or(known, |record| record.state_version);
        (version > recorded).then(|| Gap { first: recorded.next(), last: version })
    }

    /// The newer picture of store and record, and the boot time it belongs to.
    fn newest(&self, stored: &StoredSession) -> Option<(Session, Instant)> {
        let core = Session::decode(&stored.core)?;
        let recorded = self.transitions.get(&stored.id).and_then(|record| {
            let policy = self.policies.get(&stored.peer)?;
            let after = replay(record, policy).ok()?.after;
            Some((after, record.at))
        });
        match recorded {
            Some((after, at)) if after.version() > core.version() => Some((after, at)),
            _ => Some((core, stored.at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jvpn_common::event::{Context, Event};

    #[test]
    fn versions_the_store_knows_and_the_record_lost_are_named_by_the_gap() {
        let (id, policies) = (SessionId([7; 16]), BTreeMap::new());
        let context = Context { ts: "", at: Instant(1), node: "gw", seq: 0, peer: "" };
        let mut record = Record::plain(&context, Event::StateChange);
        record.state_version = Version(5);
        let recovered = Recovered::default();
        let known = Known {
            stored: Vec::new(),
            transitions: BTreeMap::from([(id, record)]),
            recovered: &recovered,
            adopted: Vec::new(),
            policies: &policies,
            boot_id: "",
            owner_epoch: OwnerEpoch(1),
        };
        let gap = |known_version, version| known.unrecorded(id, Version(known_version), Version(version));
        assert_eq!(gap(5, 5), None, "the record is whole");
        assert_eq!(gap(6, 6), Some(Gap { first: Version(6), last: Version(6) }), "a crash between store and record");
        assert_eq!(gap(6, 1_024), Some(Gap { first: Version(6), last: Version(1_024) }));
        let other = known.unrecorded(SessionId([8; 16]), Version(6), Version(6));
        assert_eq!(other, None, "a session whose records are kept elsewhere");
    }
}
