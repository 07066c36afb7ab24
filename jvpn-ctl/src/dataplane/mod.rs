//! The maps both data paths read, and the one executor of operations on them.
//!
//! ```text
//! engine ── MapOp ──► DataPlane ──► Shared (mmap or heap) ◄── WorkerTables (tunnel worker)
//!                         └───────► LOCATORS (mmap), KEYS by syscall ◄── kernel program
//! ```
//!
//! [`memory`] serves tests and hosts without the kernel program; [`kernel`] is the product. Both pass one
//! contract suite. Owns undo: a plan is applied whole or not at all. It must never decide a binding.

mod active;
pub mod attach;
mod attach_error;
pub mod cost;
mod detach;
pub mod held;
pub mod kernel;
pub mod link;
pub mod locators;
pub mod memory;
pub mod pins;
mod plane;
mod region;
mod relay;
mod restore;
mod shared;
mod slots;
mod sweep;
pub mod ticks;
pub mod trial;
mod undo;
mod worker;

pub use plane::{Backing, Plane};
pub use shared::{Settings, Shared};
pub use sweep::{Reader, Suspects, Tampered};
pub use undo::Undo;
pub use worker::{Batch, Slot as WorkerSlot, Turn, WorkerTables};

use jvpn_common::abi::{ActiveWord, Event, PathCounters, SessionInfo, Traffic};
use jvpn_common::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::{Committed, MapOp};
use jvpn_common::verdict::{VERDICTS_MAX, Verdict};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Why an operation on the maps was refused or failed. Nothing of it was kept.
#[derive(Debug, Error)]
pub enum DataPlaneError {
    /// The slot is not below the capacity the maps were loaded with.
    #[error("slot {slot} is beyond the {capacity} the maps were loaded for; raise max_sessions and load again")]
    SlotOutOfRange {
        /// Slot.
        slot: Slot,
        /// Slots of the maps.
        capacity: u32,
    },
    /// The slot holds a session.
    #[error("slot {0} is in use")]
    SlotInUse(Slot),
    /// The slot holds none, or one of another generation.
    #[error("slot {0} holds no such session")]
    SlotFree(Slot),
    /// The locator stands for something already.
    #[error("a locator is in use")]
    LocatorInUse(Locator),
    /// Every cell in which the locator may lie is taken.
    #[error("no cell of LOCATORS is free where a locator may lie")]
    LocatorsFull(Locator),
    /// The binding entry is named by the active word, or is not 1 to 3.
    #[error("binding entry {entry} of slot {slot} may not be written")]
    EntryNamed {
        /// Slot.
        slot: Slot,
        /// Entry.
        entry: u8,
    },
    /// A word naming entries that do not exist, or one entry twice.
    #[error("not an active word")]
    BadWord(ActiveWord),
    /// The kernel refused.
    #[error("{what} of map {map}: {error}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        error: String,
    },
}

/// Packets per verdict, of the kernel program and of the workers of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts {
    /// Counted by the kernel program, all processors together.
    pub kernel: [u64; VERDICTS_MAX as usize],
    /// Counted by the workers.
    pub worker: [u64; VERDICTS_MAX as usize],
}

impl Verdicts {
    /// Packets of the kernel program with this verdict.
    #[must_use]
    pub fn kernel(&self, verdict: Verdict) -> u64 {
        self.kernel.get(usize::from(verdict as u16)).copied().unwrap_or(0)
    }

    /// Packets of the workers with this verdict.
    #[must_use]
    pub fn worker(&self, verdict: Verdict) -> u64 {
        self.worker.get(usize::from(verdict as u16)).copied().unwrap_or(0)
    }
}

/// A session found in the maps that an earlier process left; unbound by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The session.
    pub session: SessionId,
    /// Its slot, not to be given out before it is freed.
    pub slot: Slot,
    /// Generation of the slot.
    pub generation: Generation,
    /// Cold facts, with the version and incarnation of the earlier process.
    pub info: SessionInfo,
    /// The word it left.
    pub word: ActiveWord,
    /// Its locators.
    pub locators: Vec<(TransportIndex, Locator)>,
}

/// The maps as the controller sees them.
pub trait DataPlane: Send {
    /// Applies one operation, or nothing of it.
    fn apply(&mut self, op: &MapOp) -> Result<Undo, DataPlaneError>;

    /// Takes back what an operation did.
    fn undo(&mut self, undo: Undo) -> Result<(), DataPlaneError>;

    /// Applies a plan in order; after a failure what was done is taken back in reverse.
    fn apply_all(&mut self, ops: &[MapOp]) -> Result<(), DataPlaneError> {
        let mut done = Vec::with_capacity(ops.len());
        for op in ops {
            match self.apply(op) {
                Ok(undo) => done.push(undo),
                Err(error) => {
                    for undo in done.into_iter().rev() {
                        if let Err(second) = self.undo(undo) {
                            tracing::error!(%second, "could not take back a map operation");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What workers and observers read and the liveness they refresh, without a syscall.
    fn shared(&self) -> &Arc<Shared>;

    /// Fills in the configuration; the kernel program answers and refuses from now on.
    fn configure(&mut self, settings: &Settings);

    /// Whether a slot holds what was committed: generation, active word, the binding it names.
    fn agrees(&self, slot: Slot, committed: &Committed) -> bool {
        self.differs(slot, committed).is_none()
    }

    /// What of a slot is not as it was committed, the first thing that is not.
    fn differs(&self, slot: Slot, committed: &Committed) -> Option<&'static str> {
        restore::differs(self, slot, committed)
    }

    /// Makes a slot what was committed, whatever it holds.
    fn restore(&mut self, slot: Slot, committed: &Committed) -> Result<(), DataPlaneError>;

    /// What reads the kernel's own LOCATORS and KEYS on another thread; none where the mirror is all there is.
    fn reader(&self) -> Option<Arc<Reader>>;

    /// Puts back every locator and key that was found to be something else than was written, if it still is.
    fn mend(&mut self, suspects: Suspects) -> Vec<Tampered>;

    /// Puts the steering keys of one slot back, if they are not those that were written.
    fn mend_keys(&mut self, slot: Slot) -> Option<Tampered>;

    /// Empties every one of these slots that is not in use and holds something.
    fn mend_unused(&mut self, slots: Range<u32>) -> Vec<Tampered>;

    /// Takes the sessions an earlier process left: unbinds them and reports them; what was never confirmed
    /// is freed.
    fn adopt(&mut self) -> Result<Vec<Adopted>, DataPlaneError>;

    /// Packets per verdict so far.
    fn verdicts(&self) -> Result<Verdicts, DataPlaneError>;

    /// Events the kernel program sampled since the last call, at most a thousand.
    fn events(&mut self) -> Vec<Event>;

    /// The active word of a slot; zero for one that does not exist.
    fn word(&self, slot: Slot) -> ActiveWord {
        self.shared().word(slot)
    }

    /// Cold facts of a slot.
    fn info(&self, slot: Slot) -> SessionInfo {
        self.shared().info(slot)
    }

    /// Counters of a transport of a slot; zero when the record is about another.
    fn path(&self, slot: Slot, k: TransportIndex) -> PathCounters {
        self.shared().path(slot, k)
    }

    /// Counters of a slot.
    fn traffic(&self, slot: Slot) -> Traffic {
        self.shared().traffic(slot)
    }

    /// Slots of the maps.
    fn capacity(&self) -> u32 {
        self.shared().capacity()
    }
}

/// The kernel program embedded at build time; `None` in a build that had none.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"))
}
