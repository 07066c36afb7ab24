//! What takes an operation back.
//!
//! Owns the data of it. Must never hold more than what the operation overwrote.

use jvpn_common::abi::{ActiveWord, Binding, LocatorEntry, SessionInfo, SteeringKeys};
use jvpn_common::ids::{Generation, Locator, Slot};

/// How to take one operation back; opaque to all but the executor.
#[derive(Debug)]
pub struct Undo(pub(super) Step);

/// The kinds of steps back.
#[derive(Debug)]
pub(super) enum Step {
    Empty(Slot),
    Remove(Vec<Locator>),
    Put(Vec<(Locator, LocatorEntry)>),
    Binding(Slot, u8, Binding),
    Word(Slot, ActiveWord),
    Flags(Slot, Generation, u32),
    Info(Slot, Box<SessionInfo>),
    Fill(Box<Filled>),
}

/// All of a slot that was freed.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) flags: u32,
    pub(super) word: ActiveWord,
    pub(super) owner: u32,
    pub(super) bindings: [Binding; 3],
    pub(super) info: SessionInfo,
    pub(super) keys: SteeringKeys,
    pub(super) locators: Vec<(Locator, LocatorEntry)>,
}
