//! What people and a restarted controller want to know of a slot; the packet path never reads it.
//!
//! Owns the value of `SESSION_INFO`.

/// Cold facts of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SessionInfo {
    /// Session id; all zero while the slot is free.
    pub session_id: [u8; 16],
    /// Version of the last committed transition.
    pub state_version: u64,
    /// Incarnation of the controller that installed it.
    pub incarnation: u64,
    /// Number of the state (`session::State`), 0 = none.
    pub state: u32,
    /// Generation the rest belongs to.
    pub generation: u32,
    /// For later; zero.
    pub reserved: [u8; 24],
}

const _: () = assert!(size_of::<SessionInfo>() == 64);
