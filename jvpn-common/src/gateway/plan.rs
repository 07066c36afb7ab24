//! What a change means for the maps and the worker.
//!
//! Owns the order of map writes: every state in between is one that the kernel refuses. Must never decide
//! whether a change is allowed.

use super::Engine;
use super::command::{Commit, StoreOp, WorkerOp};
use crate::abi::{ACTIVE_NONE, ActiveWord, Binding, SessionInfo};
use crate::ids::{SessionId, Slot};
use crate::limits::{DRAIN_MAX, DRAIN_MIN};
use crate::mapop::MapOp;
use crate::session::{Effect, Session, Transport};
use crate::time::Duration;

impl Engine {
    /// Map writes that empty a slot, in an order in which every state in between is refused by the kernel.
    /// `word` is the active word it has by then, if not the one it has now.
    pub(super) fn free_maps(&self, slot: Slot, word: Option<ActiveWord>) -> Vec<MapOp> {
        let Some(attachment) = self.table.attachments.get(&slot) else { return Vec::new() };
        let locators = attachment.locators.values().map(|issued| issued.locator).collect();
        vec![
            MapOp::Activate { slot, word: word.unwrap_or(attachment.word).successor(ACTIVE_NONE, ACTIVE_NONE) },
            MapOp::RemoveLocators { slot, locators },
            MapOp::Free { slot },
        ]
    }

    /// Makes one effect of a step part of its commit; gives the active word after it.
    pub(super) fn effect(
        &self,
        id: SessionId,
        effect: &Effect,
        word: Option<(Slot, ActiveWord)>,
        commit: &mut Commit,
    ) -> Option<(Slot, ActiveWord)> {
        let next = word.map(|(slot, current)| match effect {
            Effect::Bind { to, previous } => {
                (slot, self.bind_maps(slot, current, to, previous.as_ref(), &mut commit.maps))
            }
            Effect::Unbind { .. } => {
                let next = current.successor(ACTIVE_NONE, ACTIVE_NONE);
                commit.maps.push(MapOp::Activate { slot, word: next });
                (slot, next)
            }
            Effect::DropKeys => {
                commit.worker.push(WorkerOp::WipeAll { slot });
                (slot, current)
            }
            Effect::End { .. } => {
                commit.maps.extend(self.free_maps(slot, Some(current)));
                commit.worker.push(WorkerOp::Free { slot });
                (slot, current)
            }
        });
        if matches!(effect, Effect::End { .. }) {
            commit.maps.extend(self.table.reserved_of(id).into_iter().map(|slot| MapOp::Free { slot }));
            commit.store.push(StoreOp::Remove(id));
        }
        next
    }

    /// Map writes of a jump: the spare entry, then the word. Gives the word.
    pub(super) fn bind_maps(
        &self,
        slot: Slot,
        word: ActiveWord,
        to: &Transport,
        previous: Option<&Transport>,
        maps: &mut Vec<MapOp>,
    ) -> ActiveWord {
        let entry = word.spare();
        maps.push(MapOp::Binding { slot, entry, binding: binding(to) });
        let draining = if previous.is_some() { word.active() } else { ACTIVE_NONE };
        if draining != ACTIVE_NONE {
            maps.push(MapOp::Drain { slot, entry: draining, within: self.drain(slot, previous) });
        }
        let next = word.successor(draining, entry);
        maps.push(MapOp::Activate { slot, word: next });
        next
    }

    /// How long the previous binding may still be received from: twice its round trip, within bounds.
    fn drain(&self, slot: Slot, previous: Option<&Transport>) -> Duration {
        let attachment = self.table.attachments.get(&slot);
        let issued = previous.and_then(|transport| attachment.and_then(|held| held.locators.get(&transport.k)));
        issued.map_or(DRAIN_MIN, |issued| (issued.srtt() * 2).clamp(DRAIN_MIN, DRAIN_MAX))
    }

    pub(super) fn info(&self, slot: Slot, core: &Session) -> MapOp {
        let generation = self.table.attachments.get(&slot).map_or(0, |held| held.generation.0);
        let info = SessionInfo {
            session_id: core.id().0,
            state_version: core.version().0,
            incarnation: self.config.incarnation.0,
            state: u32::from(core.state().number()),
            generation,
        };
        MapOp::Info { slot, info }
    }
}

/// A transport as the kernel knows it.
pub(super) fn binding(transport: &Transport) -> Binding {
    Binding {
        address: crate::abi::mapped(transport.path.remote().ip()),
        port: transport.path.remote().port(),
        gateway: transport.path.gateway(),
        k: transport.k.0,
        mtu: transport.mtu,
        drain_until: 0,
    }
}
