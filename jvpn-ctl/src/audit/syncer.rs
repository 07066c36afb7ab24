//! The thread that brings the record to the disk, many records at a time.
//!
//! Owns the rhythm of syncs and of checkpoints. Must never hold the writer up while the disk is busy.

use super::Shared;
use super::sealer::End;
use crate::store::disk::{Use, ahead_of};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Least time between two syncs: one disk flush serves every record of 20 ms. Halved, a busy gateway flushes
/// twice as often; doubled, a power cut costs twice as many records.
const SYNC_EVERY: Duration = Duration::from_millis(20);

/// How far the disk is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Synced {
    pub(super) seq: u64,
    pub(super) failures: u64,
}

/// Syncs what was written, at most every [`SYNC_EVERY`], and signs where the disk has come to, until the record is
/// closed.
pub(super) fn run(shared: &Shared) {
    let mut done = shared.synced.borrow().seq;
    let mut rest_until: Option<Instant> = None;
    let mut on_disk: Option<End> = None;
    loop {
        let mut writer = shared.lock();
        loop {
            let rest = on_disk.as_ref().map(|_| writer.sealer.rest());
            if rest == Some(Duration::ZERO)
                && let Some(end) = on_disk.take()
            {
                writer.sealer.seal(&end);
            }
            if writer.written > done || writer.closing {
                break;
            }
            writer = match rest.filter(|rest| !rest.is_zero()) {
                Some(rest) => shared.dirty.wait_timeout(writer, rest).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.dirty.wait(writer).unwrap_or_else(PoisonError::into_inner),
            };
        }
        if writer.written <= done {
            on_disk.iter().for_each(|end| writer.sealer.seal(end));
            return;
        }
        if let Some(rest) = rest_until.and_then(|until| until.checked_duration_since(Instant::now()))
            && !writer.closing
        {
            drop(writer);
            std::thread::sleep(rest);
            writer = shared.lock();
        }
        let (end, file, closing) = (writer.end(), writer.segment.file.clone(), writer.closing);
        drop(writer);
        let synced = ahead_of(Use::Sync).and_then(|()| file.sync_data());
        rest_until = Some(Instant::now() + SYNC_EVERY);
        match synced {
            Ok(()) => {
                done = end.seq;
                shared.synced.send_modify(|now| now.seq = end.seq);
                on_disk = Some(end);
            }
            Err(error) => {
                tracing::error!(%error, "the record could not be synced");
                shared.synced.send_modify(|now| now.failures += 1);
                if closing {
                    return;
                }
            }
        }
    }
}
