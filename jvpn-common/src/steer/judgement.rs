//! What is said of a packet, and what is known of it on the way there.
//!
//! Owns the types, none of the decisions. Must never grow by what only one step needs: a packet carries all of it
//! through the kernel's small stack.

use super::{Address, Tables};
use crate::abi::LocatorEntry;
use crate::verdict::Verdict;
use crate::wire::header::Header;

/// Where a datagram came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Address; IPv4 as IPv4-mapped IPv6.
    pub address: [u8; 16],
    /// UDP port.
    pub port: u16,
}

impl Source {
    /// Whether the address is of IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        Address::of(&self.address).is_v4()
    }
}

/// Slot of a [`Judgement`] about a packet of no session.
pub const NO_SLOT: u32 = u32::MAX;

/// A verdict and what was learned on the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// Where the locator led; slot [`NO_SLOT`] if nowhere.
    pub entry: LocatorEntry,
    /// The header, if the type has one and it was read; all zero otherwise.
    pub header: Header,
    /// Whether data came from the draining binding.
    pub draining: bool,
}

impl Judgement {
    pub(super) const fn of(verdict: Verdict) -> Self {
        let entry = LocatorEntry { slot: NO_SLOT, generation: 0, k: 0 };
        let header = Header { kind: 0, epoch: 0, flags: 0, tag: 0, locator: 0, counter: 0 };
        Self { verdict, entry, header, draining: false }
    }
}

/// A session that a datagram's header led to.
pub(super) struct Known<T: Tables> {
    /// The header.
    pub header: Header,
    /// What the locator stands for.
    pub entry: LocatorEntry,
    /// The slot.
    pub session: T::Session,
}

/// Where in a frame a datagram's payload is, and who sent it.
pub(super) struct Datagram<'a> {
    pub at: usize,
    pub len: usize,
    pub source: &'a Source,
}

/// Who behind this node serves a session, and whether it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    /// Which start of it.
    pub incarnation: u64,
    /// Whether it said so in time.
    pub alive: bool,
}

impl Life {
    /// This node's own worker.
    #[inline(always)]
    pub(super) fn own<T: Tables>(locator: u64, tick: u64, tables: &T) -> Option<Self> {
        let config = tables.config()?;
        Some(Self { incarnation: config.incarnation, alive: config.alive(locator, tick) })
    }
}
