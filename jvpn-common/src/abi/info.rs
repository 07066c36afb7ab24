//! What people and a restarted controller want to know of a slot; the packet path never reads it.
//!
//! Owns the value of `SESSION_INFO`. Must never be padded to a cache line: nothing hot reads it, and a session may take
//! a kibibyte of kernel memory in all.

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
}

/// Words of a [`SessionInfo`].
pub const INFO_WORDS: usize = size_of::<SessionInfo>() / 8;

impl SessionInfo {
    /// The facts as their words in memory.
    #[must_use]
    pub fn to_words(&self) -> [u64; INFO_WORDS] {
        let id = u128::from_le_bytes(self.session_id);
        let head = u64::from(self.state) | u64::from(self.generation) << 32;
        [id as u64, (id >> 64) as u64, self.state_version, self.incarnation, head]
    }

    /// The facts of their words.
    #[must_use]
    pub const fn from_words(words: &[u64; INFO_WORDS]) -> Self {
        let [id_low, id_high, state_version, incarnation, head] = *words;
        Self {
            session_id: (id_low as u128 | (id_high as u128) << 64).to_le_bytes(),
            state_version,
            incarnation,
            state: head as u32,
            generation: (head >> 32) as u32,
        }
    }
}

const _: () = assert!(size_of::<SessionInfo>() == 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_back_from_their_words() {
        let info =
            SessionInfo { session_id: *b"0123456789abcdef", state_version: 1, incarnation: 2, state: 3, generation: 4 };
        assert_eq!(SessionInfo::from_words(&info.to_words()), info);
    }
}
