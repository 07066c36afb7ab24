//! What the maps must say, for whoever compares.
//!
//! Owns the picture of every slot as it was last committed. Must never show a slot while a commit of its
//! session is under way: both pictures are right then.

use super::Engine;
use super::plan::binding;
use crate::ids::{SessionId, Slot};
use crate::mapop::Committed;

impl Engine {
    /// Every slot in use as it was last committed.
    pub fn committed(&self) -> impl Iterator<Item = (SessionId, Slot, Committed)> {
        self.table.attachments.values().filter_map(|held| {
            let live = self.table.sessions.get(&held.session);
            if live.is_some_and(|live| live.busy.is_some()) {
                return None;
            }
            let core = live.filter(|live| live.slot == Some(held.slot)).map(|live| &live.core);
            let pending = match &held.pending {
                // Its slot is being installed, or confirmed.
                Some(pending) if !pending.installed || pending.is_confirming() => return None,
                pending => pending.is_some(),
            };
            let active = core.and_then(|core| core.transport()).map(binding);
            let (generation, word) = (held.generation, held.word);
            Some((held.session, held.slot, Committed { generation, pending, word, active, owner: 0 }))
        })
    }
}
