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

impl Event {
    /// The record of its bytes; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; size_of::<Self>()] = bytes.try_into().ok()?;
        let (tick, rest) = bytes.split_first_chunk::<8>()?;
        let (locator, rest) = rest.split_first_chunk::<8>()?;
        let (source, rest) = rest.split_first_chunk::<16>()?;
        let (slot, rest) = rest.split_first_chunk::<4>()?;
        let (verdict, rest) = rest.split_first_chunk::<2>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (ifindex, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            tick: u64::from_le_bytes(*tick),
            locator: u64::from_le_bytes(*locator),
            source: *source,
            slot: u32::from_le_bytes(*slot),
            verdict: u16::from_le_bytes(*verdict),
            port: u16::from_le_bytes(*port),
            ifindex: u32::from_le_bytes(*ifindex),
            reserved: 0,
        })
    }
}

const _: () = assert!(size_of::<Event>() == 48);
