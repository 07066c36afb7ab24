//! The two signals that end a daemon in order.
//!
//! Owns SIGTERM and SIGINT. Must never end the process itself: the loop does, after its last words.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals.
#[derive(Debug)]
pub struct Stop {
    term: Signal,
    int: Signal,
}

impl Stop {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
