//! The fault switch of tests: an input that only another gateway, or a bug, could cause.
//!
//! Owns the one way past the wire into a session's core; a product build does not have it. Must never be
//! used for what a datagram, an order or time can cause.

use super::Engine;
use crate::ids::SessionId;
use crate::session::Input;
use crate::time::Instant;

impl Engine {
    /// Gives an input to the core of a session as if it had happened; says whether it was taken.
    pub fn inject(&mut self, now: Instant, session: SessionId, input: &Input) -> bool {
        self.now = self.now.max(now);
        self.fire_due();
        self.apply(session, input, Vec::new())
    }
}
