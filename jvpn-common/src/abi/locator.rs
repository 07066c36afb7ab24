//! What a locator on the wire stands for.
//!
//! Owns the value of `LOCATORS`. Must never hold more than the way to the session: 72 bytes a locator and a bucket are
//! the largest part of a session's kernel memory.

/// slot, transport index and generation of a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LocatorEntry {
    /// Index into the arrays.
    pub slot: u32,
    /// Must equal the session entry's.
    pub generation: u32,
    /// Transport index *k* of this locator.
    pub k: u16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<LocatorEntry>() == 12);
