//! Everything of a daemon that others can ask or hear: the socket, metrics over TCP, events to journald and syslog.
//!
//! Owns their start and their end: dropped, nobody is answered any more, and what the sinks still hold is handed on as far as
//! the other side takes it at once. Must never keep the daemon from starting because nobody listens to its events.

use super::request::{REQUESTS_MAX, Request};
use super::server::{Handle, serve};
use super::{Socket, metrics};
use crate::audit::Feed;
use crate::config::TelemetryConfig;
use crate::observe::sink::Sinks;
use anyhow::{Context as _, Result};
use std::path::Path;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What is open.
#[derive(Debug)]
pub(crate) struct Pages {
    tasks: Vec<JoinHandle<()>>,
    #[expect(dead_code, reason = "held for its drop")]
    sinks: Sinks,
}

impl Pages {
    /// Opens all of it; questions arrive at the receiver.
    ///
    /// # Errors
    /// The socket or the address is taken.
    pub(crate) fn open(
        path: &Path,
        telemetry: &TelemetryConfig,
        feed: Feed,
    ) -> Result<(Self, mpsc::Receiver<Request>)> {
        let socket = Socket::bind(path)?;
        let listener = telemetry.metrics.map(|at| metrics::bind(at).with_context(|| format!("metrics = \"{at}\"")));
        let listener = listener.transpose()?;
        let sinks = Sinks::start(telemetry, feed.fan()).context("events of the record")?;
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let handle = Handle { requests, feed };
        let mut tasks = Vec::new();
        if let Some(listener) = listener {
            let handle = handle.clone();
            tasks.push(tokio::task::spawn_local(async {
                if let Err(error) = metrics::serve(listener, handle).await {
                    tracing::error!(%error, "metrics are not answered over TCP any more");
                }
            }));
        }
        tasks.push(tokio::task::spawn_local(async {
            if let Err(error) = serve(socket, handle).await {
                tracing::error!(%error, "the API socket is not answered any more");
            }
        }));
        Ok((Self { tasks, sinks }, asked))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
