//! Owns a process that goes with whoever holds it. Never leaves one behind, also when a test fails.

use std::process::Child;

/// Killed and waited for when it is dropped.
#[derive(Debug)]
pub struct KillOnDrop(pub Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have ended by itself, or with its namespace.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
