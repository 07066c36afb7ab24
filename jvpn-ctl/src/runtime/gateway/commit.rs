//! Carrying a commit out: maps, store, record, worker, datagrams, all of it or nothing.
//!
//! Owns the order and the way back. A word that was stored and not recorded was never acknowledged, so it
//! is taken back and its version used again. Must never send before the record is written.

use super::keeper::Keeper;
use super::sessions::Sessions;
use super::sockets::Sockets;
use crate::audit::Audit;
use crate::dataplane::{DataPlane, Undo};
use crate::runtime::clock;
use anyhow::{Context, Result};
use jvpn_common::event::Record;
use jvpn_common::gateway::command::Datagram;
use jvpn_common::gateway::{Commit, StoreOp};
use jvpn_common::time::Instant;
use std::sync::Arc;
use std::time::Duration;

/// How often a failure that goes on is told as an error: a full disk fails every commit until it has room.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Everything a commit touches.
pub(super) struct Executor {
    /// The maps.
    pub plane: Box<dyn DataPlane>,
    /// The store.
    pub keeper: Keeper,
    /// The record.
    pub audit: Arc<Audit>,
    /// The worker's sessions.
    pub sessions: Sessions,
    /// Where datagrams leave.
    pub sockets: Sockets,
    /// When a failure was last told.
    pub complained: Option<Instant>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Carries it out; false when nothing of it happened.
    pub(super) fn commit(&mut self, commit: Commit) -> bool {
        let Commit { worker, maps, store, records, strict, send } = commit;
        // A session leaves the store when its end is recorded: whoever dies in between finds the end, not a session that
        // vanished.
        let (ends, puts): (Vec<_>, Vec<_>) = store.into_iter().partition(|op| matches!(op, StoreOp::Remove(_)));
        let mut undo = Vec::with_capacity(maps.len());
        let done = (|| -> Result<u64> {
            for op in &maps {
                undo.push(self.plane.apply(op).with_context(|| format!("map operation {op:?}"))?);
            }
            self.keeper.apply(puts)?;
            self.record(records)
        })();
        let last = match done {
            Ok(last) => last,
            Err(error) => {
                self.complain(&error, "a commit failed and is taken back");
                self.take_back(undo);
                return false;
            }
        };
        if let Err(error) = self.keeper.apply(ends) {
            self.complain(&error, "an ended session stays in the store until the next start");
        }
        self.sessions.commit(&maps, worker, clock::boot());
        if strict && last > 0 && !send.is_empty() {
            self.send_when_synced(last, send);
        } else {
            send.iter().for_each(|datagram| self.sockets.send(datagram));
        }
        true
    }

    /// Writes records, all or none; the number of the last one, 0 when there are none.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub(super) fn record(&self, mut records: Vec<Record>) -> Result<u64> {
        if records.is_empty() {
            return Ok(0);
        }
        let ts =
            jiff::Timestamp::from_nanosecond(i128::from(clock::wall())).map(|ts| ts.to_string()).unwrap_or_default();
        for record in &mut records {
            record.ts.clone_from(&ts);
            if record.input.is_some() {
                let micros = clock::boot().since(record.at).as_micros();
                record.details.insert("commit_us".into(), u64::try_from(micros).unwrap_or(u64::MAX).into());
            }
            log(record);
        }
        Ok(self.audit.append_all(records)?)
    }

    /// Tells a failure, as an error now and then.
    pub(super) fn complain(&mut self, error: &anyhow::Error, what: &str) {
        let now = clock::boot();
        if self.complained.is_some_and(|last| now.since(last) < COMPLAIN_EVERY) {
            return tracing::debug!(error = format!("{error:#}"), "{what}");
        }
        self.complained = Some(now);
        tracing::error!(error = format!("{error:#}"), "{what}");
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for undo in undo.into_iter().rev() {
            if let Err(error) = self.plane.undo(undo) {
                tracing::error!(%error, "could not take back a map operation");
            }
        }
    }

    fn send_when_synced(&self, seq: u64, send: Vec<Datagram>) {
        let (audit, sockets) = (Arc::clone(&self.audit), self.sockets.clone());
        tokio::task::spawn_local(async move {
            match audit.wait_synced(seq).await {
                Ok(()) => send.iter().for_each(|datagram| sockets.send(datagram)),
                Err(error) => tracing::error!(%error, "an acknowledgement is withheld: policy is audit = strict"),
            }
        });
    }
}

/// A change a user sees, as a log line.
fn log(record: &Record) {
    let session = record.session_id.map(|id| id.to_string()).unwrap_or_default();
    let transport = record.transport.to.as_ref().map(|to| format!("{} {}", to.label, to.remote)).unwrap_or_default();
    tracing::info!(
        event = record.event.name(),
        session,
        peer = record.peer,
        from = record.from.map_or("", |state| state.name()),
        to = record.to.map_or("", |state| state.name()),
        reason = record.reason.map_or("", |reason| reason.name()),
        version = record.state_version.0,
        transport,
    );
}
