//! Carrying a commit out: maps, store, record, worker, datagrams, all of it or nothing.
//!
//! Owns the order and the way back, and that commits which wait for the disk wait together. A word that was stored and
//! not recorded was never acknowledged, so it is taken back and its version used again. Must never send before the record
//! is written.

use super::keeper::Keeper;
use super::sessions::Sessions;
use super::sockets::Sockets;
use crate::audit::Audit;
use crate::dataplane::{DataPlane, Undo};
use crate::runtime::clock;
use anyhow::{Context, Result};
use jvpn_common::event::Record;
use jvpn_common::gateway::command::Datagram;
use jvpn_common::gateway::{Commit, StoreOp, WorkerOp};
use jvpn_common::mapop::MapOp;
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

/// A commit whose maps are written, and what takes that back.
struct Begun {
    undo: Vec<Undo>,
    /// Whether anything of it is written to the store or the record, which may fail.
    writes: bool,
    records: Vec<Record>,
    strict: bool,
    send: Vec<Datagram>,
    done: Done,
}

impl Begun {
    /// It is in the record, whose last number is `last`.
    fn recorded(self, last: u64) -> Done {
        let Self { strict, send, done, .. } = self;
        Done { answer: Answer { after: last * u64::from(strict), send }, ..done }
    }
}

/// What is left to do of a commit that happened.
struct Done {
    maps: Vec<MapOp>,
    worker: Vec<WorkerOp>,
    ends: Vec<StoreOp>,
    answer: Answer,
}

/// Datagrams, and the record that must be on disk before they leave; 0 = none.
#[derive(Default)]
struct Answer {
    after: u64,
    send: Vec<Datagram>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Carries commits of different sessions out, each all or nothing, with one write into the store and one into the record
    /// for all of them that write; for each, whether it happened.
    pub(super) fn commit_all(&mut self, commits: Vec<Commit>) -> Vec<bool> {
        if commits.is_empty() {
            return Vec::new();
        }
        let (mut begun, mut puts) = (Vec::with_capacity(commits.len()), Vec::new());
        for commit in commits {
            begun.push(self.begin(commit, &mut puts));
        }
        let written = self.keeper.apply(puts).and_then(|()| {
            // The last step that can fail.
            let mut records = Vec::with_capacity(begun.iter().flatten().map(|begun| begun.records.len()).sum());
            begun.iter_mut().flatten().for_each(|begun| records.append(&mut begun.records));
            self.record(records)
        });
        let last = written.unwrap_or_else(|error| {
            self.complain(&error, "commits failed and are taken back");
            // Those that write nothing happened: nobody would ask for them again. They are of other slots.
            let failed = begun.iter_mut().rev().filter(|begun| begun.as_ref().is_some_and(|begun| begun.writes));
            failed.filter_map(Option::take).for_each(|begun| self.take_back(begun.undo));
            0
        });
        let recorded: Vec<_> = begun.into_iter().map(|begun| Some(begun?.recorded(last))).collect();
        // A session leaves the store when its end is recorded: whoever dies in between finds the end, not a session that
        // vanished.
        let ends = recorded.iter().flatten().flat_map(|done| done.ends.iter().cloned()).collect();
        if let Err(error) = self.keeper.apply(ends) {
            self.complain(&error, "ended sessions stay in the store until the next start");
        }
        let now = clock::boot();
        let answers: Vec<Option<Answer>> = recorded
            .into_iter()
            .map(|done| {
                let Done { maps, worker, answer, .. } = done?;
                self.sessions.commit(&maps, worker, now);
                Some(answer)
            })
            .collect();
        // The worker knows what a client acts on before that client is told.
        self.sessions.publish();
        answers.into_iter().map(|answer| answer.map(|answer| self.answer(answer)).is_some()).collect()
    }

    /// The first step: the maps. What goes to the store is added to `puts`.
    fn begin(&mut self, commit: Commit, puts: &mut Vec<StoreOp>) -> Option<Begun> {
        let Commit { worker, maps, store, records, strict, send } = commit;
        let mut undo = Vec::with_capacity(maps.len());
        for op in &maps {
            match self.plane.apply(op).with_context(|| format!("map operation {op:?}")) {
                Ok(step) => undo.push(step),
                Err(error) => {
                    self.complain(&error, "a commit failed and is taken back");
                    self.take_back(undo);
                    return None;
                }
            }
        }
        // What records nothing waits for no record of another commit.
        let strict = strict && !records.is_empty();
        let (ends, rows): (Vec<_>, Vec<_>) = store.into_iter().partition(|op| matches!(op, StoreOp::Remove(_)));
        let writes = !records.is_empty() || !rows.is_empty();
        puts.extend(rows);
        Some(Begun {
            undo,
            writes,
            records,
            strict,
            send,
            done: Done { maps, worker, ends, answer: Answer::default() },
        })
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
                record.note("commit_us", u64::try_from(micros).unwrap_or(u64::MAX).into());
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

    fn answer(&self, Answer { after, send }: Answer) {
        if after == 0 || send.is_empty() {
            return send.iter().for_each(|datagram| self.sockets.send(datagram));
        }
        let (audit, sockets) = (Arc::clone(&self.audit), self.sockets.clone());
        tokio::task::spawn_local(async move {
            match audit.wait_synced(after).await {
                Ok(()) => send.iter().for_each(|datagram| sockets.send(datagram)),
                Err(error) => tracing::error!(%error, "an acknowledgement is withheld: policy is audit = strict"),
            }
        });
    }
}

/// A change a user sees, as a log line.
fn log(record: &Record) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::memory::Memory;
    use crate::runtime::gateway::keeper::tests::stored;
    use crate::store::Store;
    use jvpn_common::abi::SteeringKeys;
    use jvpn_common::ids::{Generation, SessionId, Slot};
    use std::collections::BTreeSet;

    const SLOTS: u32 = 4;

    fn executor(dir: &std::path::Path) -> (Arc<Store>, Executor) {
        let store = Arc::new(Store::open(dir).unwrap());
        let keeper = Keeper::start(Arc::clone(&store), "this".into()).unwrap();
        let audit = Arc::new(Audit::open(dir).unwrap().0);
        let (plane, sessions, sockets) = (Box::new(Memory::new(SLOTS)), Sessions::default(), Sockets::default());
        (store, Executor { plane, keeper, audit, sessions, sockets, complained: None })
    }

    fn birth(slot: u32, id: u8) -> Commit {
        let (slot, generation, session) = (Slot(slot), Generation(1), SessionId([id; 16]));
        let install = MapOp::Install {
            slot,
            generation,
            keys: SteeringKeys::default(),
            locators: vec![],
            pending: true,
            session,
        };
        let store = vec![StoreOp::Put { stored: stored(id, 1), durable: true }];
        Commit { maps: vec![install], store, ..Commit::default() }
    }

    fn ids(store: &Store) -> BTreeSet<u8> {
        store.load_all().unwrap().iter().map(|session| session.id.0[0]).collect()
    }

    #[test]
    fn commits_of_a_turn_wait_for_the_disk_once_and_one_that_fails_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, mut executor) = executor(dir.path());
        let before = store.syncs();
        let commits = vec![birth(0, 1), birth(SLOTS, 2), birth(1, 3)];
        assert_eq!(executor.commit_all(commits), [true, false, true], "there is no such slot");
        assert_eq!((store.syncs() - before, ids(&store)), (1, BTreeSet::from([1, 3])));
        let used = |slot| executor.plane.shared().generation(Slot(slot)).0 != Generation(0);
        assert_eq!([0, 1, 2].map(used), [true, true, false]);

        // One that cannot be written takes those with it that are written together, and none that writes nothing.
        let mut broken = stored(4, 1);
        broken.core = vec![1];
        let bad = Commit { store: vec![StoreOp::Put { stored: broken, durable: true }], ..Commit::default() };
        let free = Commit { maps: vec![MapOp::Free { slot: Slot(1) }], ..Commit::default() };
        assert_eq!(executor.commit_all(vec![free, birth(2, 5), bad]), [true, false, false]);
        let used = |slot| executor.plane.shared().generation(Slot(slot)).0 != Generation(0);
        assert_eq!(([1, 2].map(used), ids(&store)), ([false, false], BTreeSet::from([1, 3])));

        let end = |id| Commit { store: vec![StoreOp::Remove(SessionId([id; 16]))], ..Commit::default() };
        assert_eq!(executor.commit_all(vec![end(1), end(3)]), [true, true]);
        assert_eq!((store.syncs() - before, ids(&store)), (2, BTreeSet::new()));
    }
}
