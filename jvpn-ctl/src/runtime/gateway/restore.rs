//! Sessions of an earlier start: from store, record and maps back into the engine.
//!
//! Owns which of the three is believed. The record has every acknowledged version and every end; the store has what
//! a power cut may have cost the record; the maps have the slots old locators still lead to. Must never let a
//! session that the record leaves live vanish without a word.

use crate::audit::{self, AuditError, Recovered};
use crate::dataplane::Adopted;
use crate::runtime::clock;
use crate::store::StoredSession;
use jvpn_common::event::{Record, replay};
use jvpn_common::gateway::Restored;
use jvpn_common::ids::{OwnerEpoch, PolicyVersion, SessionId, Version};
use jvpn_common::secret::PublicKey;
use jvpn_common::session::version::{self, Gap, continued};
use jvpn_common::session::{Elapsed, Policy, Session, State};
use jvpn_common::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What is known of earlier starts.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// From the store.
    pub stored: Vec<StoredSession>,
    /// From the record.
    pub recorded: BTreeMap<SessionId, Recorded>,
    /// How the record ended.
    pub recovered: &'a Recovered,
    /// From the maps.
    pub adopted: Vec<Adopted>,
    /// This boot.
    pub boot_id: &'a str,
    /// This owner.
    pub owner_epoch: OwnerEpoch,
}

/// What an earlier start left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Sessions to go on with.
    pub sessions: Vec<Restored>,
    /// Slots in the maps that belong to none of them.
    pub orphans: Vec<Adopted>,
    /// Sessions that the store has and the record says are over: the process died between the two.
    pub over: Vec<SessionId>,
}

/// What the record says last of a session.
#[derive(Debug)]
pub(super) struct Recorded {
    version: Version,
    at: Instant,
    /// Milliseconds since 1970; none if that is not to be read.
    wall_ms: Option<u64>,
    is_over: bool,
    /// The session then; none where the machine disagrees with the record.
    after: Option<Session>,
}

/// What the record says last of every session that is live there or in the store.
///
/// # Errors
/// A file of the record cannot be read.
pub(super) fn recorded(dir: &Path, stored: &[StoredSession]) -> Result<BTreeMap<SessionId, Recorded>, AuditError> {
    let stored: BTreeSet<SessionId> = stored.iter().map(|session| session.id).collect();
    let remembered = audit::remembered(dir, |id| stored.contains(id))?;
    let mut recorded = BTreeMap::new();
    remembered.each(|id, record| {
        recorded.insert(id, Recorded::of(record, &remembered.policies));
    })?;
    Ok(recorded)
}

impl Recorded {
    fn of(record: &Record, policies: &BTreeMap<PolicyVersion, Policy>) -> Self {
        let wall = record.ts.parse::<jiff::Timestamp>().ok();
        Self {
            version: record.state_version,
            at: record.at,
            wall_ms: wall.map(|ts| u64::try_from(ts.as_millisecond()).unwrap_or(0)),
            is_over: record.to == Some(State::Terminated),
            after: policies.get(&record.policy_version).and_then(|policy| after(record, policy)),
        }
    }
}

/// The session after a recorded transition.
fn after(record: &Record, policy: &Policy) -> Option<Session> {
    let again = replay(record, policy).map_err(|mismatch| {
        let session = record.session_id.map(|id| id.to_string()).unwrap_or_default();
        tracing::error!(session, seq = record.seq, %mismatch, "a record does not replay; the store is believed");
    });
    Some(again.ok()?.after)
}

/// A session as one source has it.
struct Picture {
    core: Session,
    /// Boot time it belongs to.
    then: Instant,
    /// Wall time it belongs to, in milliseconds since 1970.
    wall_ms: u64,
    /// Whether that boot is this one.
    same_boot: bool,
    ceiling: Version,
}

impl Known<'_> {
    /// What to go on with, and what to clear away.
    #[must_use]
    pub(super) fn left(mut self) -> Left {
        let (mut restored, mut over) = (BTreeMap::new(), Vec::new());
        for stored in std::mem::take(&mut self.stored) {
            match self.stored(&stored).and_then(|picture| self.session(picture)) {
                Some(session) if session.core.is_live() => drop(restored.insert(stored.id, session)),
                Some(_) => over.push(stored.id),
                None => tracing::error!(session = %stored.id, "a stored session does not decode; the record is asked"),
            }
        }
        for (id, recorded) in &self.recorded {
            if restored.contains_key(id) || recorded.is_over {
                continue;
            }
            match of_record(recorded).and_then(|picture| self.session(picture)) {
                Some(session) => {
                    tracing::warn!(session = %id, "not in the store; it is restored from the record");
                    restored.insert(*id, session);
                }
                None => tracing::error!(session = %id, "live in the record, and neither store nor record restores it"),
            }
        }
        let mut orphans = Vec::new();
        for slot in std::mem::take(&mut self.adopted) {
            match restored.get_mut(&slot.session) {
                Some(session) => session.slots.push((slot.slot, slot.generation)),
                None => orphans.push(slot),
            }
        }
        Left { sessions: restored.into_values().collect(), orphans, over }
    }

    fn session(&self, picture: Picture) -> Option<Restored> {
        let Picture { core, then, wall_ms, same_boot, ceiling } = picture;
        let peer = PublicKey::from_bytes(*core.peer()).ok()?;
        let whole = same_boot && self.recovered.torn.is_none();
        let recorded = self.recorded.get(&core.id()).map_or(core.version(), |recorded| recorded.version);
        let (version, gap) = onwards(recorded, core.version(), ceiling, whole);
        let now = clock::boot();
        let elapsed = if same_boot {
            Elapsed { then: now, now, between: Duration::ZERO }
        } else {
            let wall = (clock::wall() / 1_000_000).saturating_sub(wall_ms);
            Elapsed { then, now, between: Duration::from_millis(wall) }
        };
        if !core.is_live() {
            return Some(Restored { core, peer, ceiling, gap: None, slots: Vec::new() });
        }
        let core = core.restored(elapsed, version, core.next_owner().max(self.owner_epoch));
        Some(Restored { core, peer, ceiling: ceiling.max(version), gap, slots: Vec::new() })
    }

    /// The newer picture of store and record.
    fn stored(&self, stored: &StoredSession) -> Option<Picture> {
        let core = Session::decode(&stored.core).filter(|core| core.id() == stored.id)?;
        let recorded = self.recorded.get(&stored.id).and_then(|last| Some((last.after.clone()?, last.at)));
        let (core, then) = recorded.filter(|(after, _)| after.version() > core.version()).unwrap_or((core, stored.at));
        let same_boot = stored.boot_id == self.boot_id;
        Some(Picture { core, then, wall_ms: stored.wall_ms, same_boot, ceiling: stored.ceiling })
    }
}

/// The picture of the record alone. Nothing says of which boot it is, so wall time says how old it is, and versions go
/// on behind the block that its last one lies in.
fn of_record(recorded: &Recorded) -> Option<Picture> {
    let core = recorded.after.clone()?;
    let ceiling = version::ceiling(core.version(), Version(0)).unwrap_or_default();
    Some(Picture { core, then: recorded.at, wall_ms: recorded.wall_ms?, same_boot: false, ceiling })
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
    use crate::runtime::entropy::System;
    use jvpn_common::event::{Context, replayed};
    use jvpn_common::secret::PrivateKey;
    use jvpn_common::session::{Birth, Ender, Input};

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

    /// A session that was confirmed, with the record of that: the machine's own, of an input as a record has it.
    fn attached() -> (Session, Record, Policy) {
        let (policy, at) = (Policy::field(), Instant(7));
        let peer = *PrivateKey::generate(&mut System).public().as_bytes();
        let birth = Birth { id: SessionId([7; 16]), peer, owner_epoch: OwnerEpoch(1) };
        let born = Session::born(birth, &policy, at);
        let step = born.step(&Input::Terminate { by: Ender::Operator }, &policy, at).unwrap();
        let ts = audit::wall_clock();
        let context = Context { ts: &ts, at, node: "gw", seq: 1, peer: "till" };
        let mut record = Record::transition(&context, &step.transitions[0]);
        let transport = serde_json::json!({
            "k": 0, "remote": "192.0.2.1:7", "gateway": 0, "label": "path", "class": "primary", "mtu": 1_280, "since": "7"
        });
        let input =
            serde_json::json!({"kind": "CONFIRM", "fields": {"transport": transport, "reject_after": "180000000000"}});
        record.input = Some(serde_json::from_value(input).unwrap());
        let record = replayed(&record, &policy).unwrap();
        (replay(&record, &policy).unwrap().after, record, policy)
    }

    fn known(stored: Vec<StoredSession>, record: Record, policy: Policy, recovered: &Recovered) -> Known<'_> {
        let policies = [(policy.version, policy)].into();
        let recorded = [(record.session_id.unwrap(), Recorded::of(&record, &policies))].into();
        Known { stored, recorded, recovered, adopted: Vec::new(), boot_id: "this", owner_epoch: OwnerEpoch(1) }
    }

    fn row(core: &Session) -> StoredSession {
        StoredSession {
            id: core.id(),
            peer: *core.peer(),
            addresses: Vec::new(),
            policy: "field".into(),
            policy_version: core.policy_version(),
            state: core.state().name().into(),
            session_ttl_left_ms: 1,
            loss_ttl_left_ms: None,
            wall_ms: clock::wall() / 1_000_000,
            at: Instant(7),
            ceiling: Version(1_024),
            boot_id: "this".into(),
            core: core.encode(),
        }
    }

    #[test]
    fn a_session_that_only_the_record_has_comes_back_behind_the_block_of_its_last_version() {
        let (core, record, policy) = attached();
        let recovered = Recovered::default();
        let left = known(Vec::new(), record.clone(), policy.clone(), &recovered).left();
        let [session] = left.sessions.as_slice() else { panic!("{left:?}") };
        assert_eq!(
            (session.core.id(), session.core.version(), session.ceiling),
            (core.id(), Version(1_024), Version(1_024))
        );
        let named = session.gap.map(|gap| (gap.first, gap.last));
        assert_eq!(named, Some((core.version().next(), Version(1_024))));

        let broken = StoredSession { core: vec![1, 2, 3], ..row(&core) };
        let left = known(vec![broken], record.clone(), policy.clone(), &recovered).left();
        assert_eq!((left.sessions.len(), left.over.len()), (1, 0), "nor is one that does not decode left out");
        let left = known(vec![row(&core)], record, policy, &recovered).left();
        assert_eq!((left.sessions[0].core.version(), left.sessions[0].gap), (core.version(), None), "both have it");
    }

    #[test]
    fn a_session_whose_end_is_recorded_does_not_come_back_from_the_store() {
        let (core, _, policy) = attached();
        let step = core.step(&Input::Terminate { by: Ender::Operator }, &policy, Instant(9)).unwrap();
        let ts = audit::wall_clock();
        let context = Context { ts: &ts, at: Instant(9), node: "gw", seq: 2, peer: "till" };
        let record = Record::transition(&context, step.transitions.last().unwrap());
        let recovered = Recovered::default();
        let left = known(vec![row(&core)], record.clone(), policy.clone(), &recovered).left();
        assert_eq!((left.sessions.len(), left.over), (0, vec![core.id()]));
        let left = known(Vec::new(), record, policy, &recovered).left();
        assert_eq!((left.sessions.len(), left.over.len()), (0, 0));
    }
}
