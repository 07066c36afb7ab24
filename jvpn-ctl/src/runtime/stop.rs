//! The signals a daemon answers to: two that end it in order, one that has a gateway read its files again.
//!
//! Owns SIGTERM, SIGINT and SIGHUP. Must never end the process itself: the loop does, after its last words.

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

/// The signal that asks a daemon to read its files again.
#[derive(Debug)]
pub struct Again(Signal);

impl Again {
    /// Catches it from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for it; several that came meanwhile are one.
    pub async fn asked(&mut self) {
        self.0.recv().await;
    }
}

/// The answer of a daemon that reads its file only when it starts.
pub fn unread(what: &str) {
    tracing::warn!(
        "SIGHUP: a {what} reads its file when it starts; there is nothing to reload, and it goes on as it is"
    );
}
