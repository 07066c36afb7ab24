//! A sampled report from the packet path to the controller.
//!
//! Owns the record of `EVENTS` and `EVENT_TAP`. Lossy by design: nothing that moves a session reads it.

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// Tick at which it happened.
    pub tick: u64,
    /// Locator of the datagram, 0 if it had none.
    pub locator: u64,
    /// Source address, IPv4-mapped.
    pub source: [u8; 16],
    /// Slot, or `u32::MAX`.
    pub slot: u32,
    /// Number of the verdict.
    pub verdict: u16,
    /// Source port.
    pub port: u16,
    /// Interface the frame came in on.
    pub ifindex: u32,
    /// For later; zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Event>() == 48);
