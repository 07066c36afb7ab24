//! What an engine wants written into the maps, as data.
//!
//! Owns the operations; an executor applies them in order and can take back what it did. Must never name a
//! file, a map or a tick: deadlines are durations from the moment of execution.

use crate::abi::{ActiveWord, Binding, SessionInfo, SteeringKeys};
use crate::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use crate::time::Duration;

/// One operation on a slot.
///
/// Order within a plan keeps every intermediate state one that the kernel refuses: keys and entry before
/// locators, a binding before the word that names it, the word to none before a slot is freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Fills a slot: counters to zero, keys, generation, unbound; then its locators.
    Install {
        /// Slot, free until now.
        slot: Slot,
        /// A generation this slot never had; not zero.
        generation: Generation,
        /// Steering keys.
        keys: SteeringKeys,
        /// Its locators.
        locators: Vec<(TransportIndex, Locator)>,
        /// Whether only CONFIRM may pass for now.
        pending: bool,
        /// The session.
        session: SessionId,
    },
    /// Adds locators to a slot.
    AddLocators {
        /// Slot.
        slot: Slot,
        /// Generation of the slot.
        generation: Generation,
        /// New locators.
        locators: Vec<(TransportIndex, Locator)>,
    },
    /// Removes locators of a slot.
    RemoveLocators {
        /// Slot.
        slot: Slot,
        /// Locators; those that are not there are ignored.
        locators: Vec<Locator>,
    },
    /// Writes a binding entry that the active word does not name.
    Binding {
        /// Slot.
        slot: Slot,
        /// Entry, 1 to 3.
        entry: u8,
        /// Its new contents; `drain_until` is ignored, see [`MapOp::Drain`].
        binding: Binding,
    },
    /// Lets an entry be received from for a while after the next word names it draining.
    Drain {
        /// Slot.
        slot: Slot,
        /// Entry, 1 to 3.
        entry: u8,
        /// From now on.
        within: Duration,
    },
    /// Stores the active word: the one store that moves a session.
    Activate {
        /// Slot.
        slot: Slot,
        /// New word.
        word: ActiveWord,
    },
    /// The handshake was confirmed: everything may pass.
    Confirm {
        /// Slot.
        slot: Slot,
    },
    /// Cold facts for people and for the next controller.
    Info {
        /// Slot.
        slot: Slot,
        /// New facts.
        info: SessionInfo,
    },
    /// Empties a slot: word to none, locators out, keys wiped, generation cleared.
    Free {
        /// Slot.
        slot: Slot,
    },
}

/// What a slot holds once its last commit is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Generation of the slot.
    pub generation: Generation,
    /// Whether only CONFIRM may pass.
    pub pending: bool,
    /// The active word.
    pub word: ActiveWord,
    /// The binding it names; none when it names none.
    pub active: Option<Binding>,
    /// Whose session it is: place in `OWNERS` + 1, 0 = this node's own.
    pub owner: u32,
}
