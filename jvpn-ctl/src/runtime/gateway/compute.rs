//! Handshake cryptography on a thread of its own, so that reattach and rekey never queue behind it.
//!
//! Owns the thread and both queues. Must never touch the engine.

use crate::runtime::entropy::System;
use jvpn_common::gateway::handshake::{Job, JobResult};
use jvpn_common::ids::OpId;
use std::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The thread's queues. The engine bounds how many jobs are under way.
#[derive(Debug)]
pub(super) struct Compute {
    jobs: mpsc::Sender<(OpId, Box<Job>)>,
    results: UnboundedReceiver<(OpId, JobResult)>,
}

impl Compute {
    /// Starts it; it ends when this value is dropped.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, work) = mpsc::channel::<(OpId, Box<Job>)>();
        let (done, results): (UnboundedSender<_>, _) = unbounded_channel();
        std::thread::Builder::new().name("handshake".into()).spawn(move || {
            while let Ok((op, job)) = work.recv() {
                if done.send((op, job.run(&mut System))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, results })
    }

    /// Hands a job over.
    pub(super) fn submit(&self, op: OpId, job: Box<Job>) {
        if self.jobs.send((op, job)).is_err() {
            tracing::error!("the handshake thread is gone; no new sessions until a restart");
        }
    }

    /// The next result; never, once the thread is gone.
    pub(super) async fn next(&mut self) -> (OpId, JobResult) {
        match self.results.recv().await {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }
}
