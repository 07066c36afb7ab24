//! The gateway's maps in a simulation: the product's own in memory, and what only a simulation does with them.
//!
//! Owns comparing a slot with what was committed, changing it as somebody with root would, and refusing operations that
//! no engine may ask for. It does not prove that a kernel does the same: that is the contract suite's part.

use jvpn_common::abi::{ActiveWord, Binding, PENDING};
use jvpn_common::ids::{Locator, Slot, TransportIndex};
use jvpn_common::mapop::{Committed, MapOp};
pub use jvpn_common::scenario::maps::Maps;

/// The locator of a transport index of a slot.
#[must_use]
pub fn locator_of(maps: &Maps, slot: Slot, k: u16) -> Option<Locator> {
    let generation = maps.entry(slot)?.generation;
    let mut all = maps.locators().iter();
    all.find(|(_, entry)| entry.slot == slot.0 && entry.k == k && entry.generation == generation)
        .map(|(&locator, _)| Locator(locator))
}

/// Whether a slot holds what was committed.
#[must_use]
pub fn agrees(maps: &Maps, slot: Slot, committed: &Committed) -> bool {
    let Some(entry) = maps.entry(slot) else { return false };
    let named = usize::from(committed.word.active()).checked_sub(1).map(|place| entry.bindings[place]);
    let bare = |binding: Binding| Binding { drain_until: 0, ..binding };
    let flags = if committed.pending { PENDING } else { 0 };
    entry.active == committed.word.0
        && (entry.generation, entry.flags) == (committed.generation.0, flags)
        && named.map(bare) == committed.active.map(bare)
}

/// Makes a slot what was committed.
pub fn put_back(maps: &mut Maps, slot: Slot, committed: &Committed) {
    let entry = maps.entry_mut(slot).expect("a slot of theirs");
    (entry.generation, entry.active) = (committed.generation.0, committed.word.0);
    entry.flags = if committed.pending { PENDING } else { 0 };
    if let (Some(place), Some(binding)) = (usize::from(committed.word.active()).checked_sub(1), committed.active) {
        entry.bindings[place] = binding;
    }
}

/// Somebody writes into a slot what nobody committed: no binding, another one, or another address.
pub fn tamper(maps: &mut Maps, slot: Slot, how: u64) {
    let entry = maps.entry_mut(slot).expect("a slot of theirs");
    let word = ActiveWord(entry.active);
    match how {
        0 => entry.active = word.successor(0, 0).0,
        1 => entry.active = word.successor(0, word.spare()).0,
        _ => entry.bindings.iter_mut().for_each(|binding| binding.port ^= 1),
    }
}

/// All active words to none: a restart.
pub fn unbind_all(maps: &mut Maps) {
    let bound: Vec<Slot> = maps.used().filter(|(.., entry)| entry.active != 0).map(|(slot, ..)| slot).collect();
    for slot in bound {
        let entry = maps.entry_mut(slot).expect("it is there");
        entry.active = ActiveWord(entry.active).successor(0, 0).0;
    }
}

/// Carries one operation out that an engine may ask for.
///
/// # Panics
/// When a locator is given out twice, or a transport index gets a second one.
pub fn apply(maps: &mut Maps, op: &MapOp) {
    if let MapOp::Install { slot, generation, locators, .. } | MapOp::AddLocators { slot, generation, locators } = op {
        for (k, locator) in locators {
            sole(maps, *slot, generation.0, *k, *locator);
        }
    }
    maps.apply(op);
}

fn sole(maps: &Maps, slot: Slot, generation: u32, k: TransportIndex, locator: Locator) {
    let twin = maps.locators().values().any(|old| old.slot == slot.0 && old.generation == generation && old.k == k.0);
    assert!(!twin, "two locators for k {} of {slot:?} generation {generation}", k.0);
    let old = maps.locators().get(&locator.0);
    assert!(old.is_none_or(|old| old.slot == slot.0), "a locator was given out twice");
}
