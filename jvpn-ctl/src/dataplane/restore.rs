//! Comparing a slot with what was committed, and making it that again.
//!
//! Owns what is compared: generation, active word, the binding it names, whose session it is. Must never leave a state in between
//! that two bindings could be read from, and never believe the maps over the engine.

use super::plane::{Backing, Plane};
use super::{DataPlane, DataPlaneError};
use jvpn_common::abi::{ACTIVE_NONE, Binding, PENDING};
use jvpn_common::ids::Slot;
use jvpn_common::mapop::Committed;

fn flags(committed: &Committed) -> u32 {
    if committed.pending { PENDING } else { 0 }
}

/// The first thing of a slot that is not as it was committed. While an entry is active its `drain_until` means nothing.
pub(super) fn differs(plane: &(impl DataPlane + ?Sized), slot: Slot, committed: &Committed) -> Option<&'static str> {
    let shared = plane.shared();
    let entry = committed.word.active();
    let named = (entry != ACTIVE_NONE).then(|| Binding { drain_until: 0, ..shared.binding(slot, entry) });
    let wanted = committed.active.map(|binding| Binding { drain_until: 0, ..binding });
    let differs = [
        ("active word", shared.word(slot) != committed.word),
        ("generation", shared.generation(slot) != (committed.generation, flags(committed))),
        ("binding", entry != ACTIVE_NONE && named != wanted),
        ("owner", shared.session_owner(slot) != committed.owner),
    ];
    differs.into_iter().find_map(|(what, differs)| differs.then_some(what))
}

impl<B: Backing> Plane<B> {
    /// Unbound, then written anew, then bound as it was; nothing drains afterwards.
    pub(super) fn put_back(&self, slot: Slot, committed: &Committed) -> Result<(), DataPlaneError> {
        self.in_range(slot)?;
        let word = committed.word;
        self.shared.set_word(slot, word.successor(ACTIVE_NONE, ACTIVE_NONE));
        self.shared.set_generation(slot, committed.generation, flags(committed));
        self.shared.set_session_owner(slot, committed.owner);
        for entry in [word.draining(), word.active()].into_iter().filter(|&entry| entry != ACTIVE_NONE) {
            let before = Binding { drain_until: 0, ..self.shared.binding(slot, entry) };
            let binding = committed.active.filter(|_| entry == word.active()).unwrap_or(before);
            self.shared.set_binding(slot, entry, &binding);
        }
        self.shared.set_word(slot, word);
        Ok(())
    }
}
