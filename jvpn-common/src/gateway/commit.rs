//! One change of a session as one commit: worker, maps, store, record, datagrams, all of it or nothing.
//!
//! Owns how a proposal of the session core becomes a commit, and what the engine does with the outcome.
//! Must never keep a proposed session before its commit is done, and never start a second one meanwhile.
//!
//! ```text
//! Step (proposal) ─► maps: entry written, active word stored ─► record ─► ACK
//!                    any failure: everything undone, the engine stays as it was
//! ```

use super::Engine;
use super::calendar::{Due, SlotAlarm};
use super::command::{Command, Commit, Datagram, StoreOp, Stored};
use super::confirm::Settled;
use super::control::Came;
use super::table::Live;
use super::view::Drop;
use crate::abi::ActiveWord;
use crate::event::{Context, Record};
use crate::ids::{Epoch, Generation, Locator, OpId, SessionId, Slot, TransportIndex, Version};
use crate::mapop::MapOp;
use crate::message::{Control, Message};
use crate::reason::Reason;
use crate::sabotage::Bug;
use crate::secret::PublicKey;
use crate::session::policy::Audit;
use crate::session::transition::TABLE;
use crate::session::{Effect, Input, Policy, Session, State, Step, Transport, invariant, version};
use crate::time::{Duration, Instant};
use std::sync::Arc;

/// How long after a failed commit what made it is tried again. Maps or disk that failed once may fail for a
/// while, and each try writes.
const COMMIT_RETRY: Duration = Duration::from_secs(1);

/// What a commit changes in the engine once it is done.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing any more.
    Nothing,
    /// A pending slot was installed.
    Pending { slot: Slot, generation: Generation },
    /// The next keys of a slot were installed.
    Rekeyed { slot: Slot, generation: Generation, epoch: Epoch },
    /// A session moved, noted something, or ended.
    Stepped(Box<Stepped>),
    /// A handshake was confirmed: the slot is live, the session is attached to it.
    Confirmed(Box<Settled>),
}

/// The new picture of a session.
#[derive(Debug)]
pub(super) struct Stepped {
    pub(super) id: SessionId,
    pub(super) core: Session,
    pub(super) ceiling: Version,
    pub(super) word: Option<(Slot, ActiveWord)>,
    pub(super) issued: Vec<(TransportIndex, Locator)>,
    pub(super) retired: Vec<TransportIndex>,
    pub(super) ended: bool,
    /// Rows of the table that were taken.
    pub(super) rows: Vec<usize>,
}

/// A commit under way.
#[derive(Debug)]
pub(super) struct Change {
    then: Then,
    /// What it answers, and with which nonce: whoever asked is told when the commit failed.
    pub(super) asked: Option<(Came, u64)>,
}

impl Change {
    pub(super) const fn new(then: Then) -> Self {
        Self { then, asked: None }
    }

    /// The sessions it changes: a confirmed handshake may end another one.
    fn sessions(&self) -> [Option<SessionId>; 2] {
        match &self.then {
            Then::Stepped(stepped) => [Some(stepped.id), None],
            Then::Confirmed(settled) => [Some(settled.stepped.id), settled.superseded()],
            Then::Nothing | Then::Pending { .. } | Then::Rekeyed { .. } => [None, None],
        }
    }
}

impl Engine {
    /// Hands a commit out; the session is busy until its outcome is here.
    pub(super) fn commit(&mut self, change: Change, commit: Commit) {
        let op = self.op();
        self.mark(change.sessions(), Some(op));
        self.committing.insert(op, change);
        self.commands.push_back(Command::Commit { op, commit: Box::new(commit) });
    }

    pub(super) fn on_committed(&mut self, op: OpId, done: bool) {
        let Some(change) = self.committing.remove(&op) else { return self.drop(Drop::UnknownOutcome) };
        let sessions = change.sessions();
        self.mark(sessions, None);
        if done {
            self.on_done(change.then);
        } else {
            self.on_failed(change);
        }
        for id in sessions.into_iter().flatten().filter(|_| done) {
            self.catch_up(id);
        }
    }

    fn mark(&mut self, sessions: [Option<SessionId>; 2], busy: Option<OpId>) {
        for id in sessions.into_iter().flatten() {
            if let Some(live) = self.table.sessions.get_mut(&id) {
                live.busy = busy;
            }
        }
    }

    fn on_done(&mut self, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Pending { slot, generation } => {
                let held = self.table.attachments.get_mut(&slot).filter(|held| held.generation == generation);
                if let Some(pending) = held.and_then(|held| held.pending.as_mut()) {
                    pending.installed = true;
                }
            }
            Then::Rekeyed { .. } => {}
            Then::Stepped(stepped) => self.keep(*stepped),
            Then::Confirmed(settled) => self.settle(*settled),
        }
    }

    fn on_failed(&mut self, change: Change) {
        self.drop(Drop::CommitFailed);
        let was_asked = change.asked.is_some();
        if let Some((came, nonce)) = change.asked {
            // Sealed now and not beforehand: nearly every commit happens.
            self.refuse_message(came, nonce, Reason::CommitFailed);
        }
        match change.then {
            Then::Nothing => {}
            Then::Pending { slot, generation } => {
                if self.table.attachments.get(&slot).is_some_and(|held| held.generation == generation) {
                    self.release_slot(slot);
                }
            }
            Then::Rekeyed { slot, generation, epoch } => self.unrekeyed(slot, generation, epoch),
            Then::Stepped(stepped) => {
                self.arm_later(stepped.id);
                let live = self.table.sessions.get(&stepped.id);
                let recovering = live.is_some_and(|live| live.core.state() == State::Recovering);
                if was_asked && recovering && !stepped.rows.is_empty() {
                    self.apply(stepped.id, &Input::AttemptFailed, Vec::new());
                }
            }
            Then::Confirmed(settled) => self.unsettled(&settled),
        }
    }

    /// The session is what was committed.
    pub(super) fn keep(&mut self, stepped: Stepped) {
        let Stepped { id, core, ceiling, word, issued, retired, ended, rows } = stepped;
        let reason = rows.last().and_then(|&row| TABLE.get(row)).map(|row| row.reason);
        self.count_rows(&rows);
        let left = self.table.sessions.get(&id).and_then(|live| live.core.transport().copied());
        let moved = core.transport().is_some() && left != core.transport().copied();
        if let Some((slot, word)) = word {
            self.table.exchange(slot, &issued, &retired);
            self.moved(slot, moved, left);
            if let Some((left, to)) = left.zip(core.transport()) {
                self.roamed(id, slot, &rows, left.path, to.path);
            }
            if let Some(attachment) = self.table.attachments.get_mut(&slot) {
                attachment.word = word;
            }
        }
        if ended {
            return self.forget(id, reason);
        }
        if let Some(live) = self.table.sessions.get_mut(&id) {
            (live.core, live.ceiling) = (core, ceiling);
            live.reason = reason.or(live.reason);
        }
        if reason.is_some() {
            self.advance_policy(id);
        }
        self.arm(id);
    }

    /// A slot has another transport, which just showed that it lives; the one it left was in use until now.
    fn moved(&mut self, slot: Slot, moved: bool, left: Option<Transport>) {
        let now = self.now;
        let Some(attachment) = self.table.attachments.get_mut(&slot).filter(|_| moved) else { return };
        attachment.last_opened = now;
        attachment.unanswered = None;
        if let Some(issued) = left.and_then(|left| attachment.locators.get_mut(&left.k)) {
            issued.used = Some(now);
        }
    }

    /// Sets the alarms of a session.
    pub(super) fn arm(&mut self, id: SessionId) {
        self.arm_from(id, Instant(0));
    }

    /// The same after a commit that failed: what is due is tried again, but not at once.
    pub(super) fn arm_later(&mut self, id: SessionId) {
        self.arm_from(id, self.now + COMMIT_RETRY);
    }

    fn arm_from(&mut self, id: SessionId, earliest: Instant) {
        let Some(live) = self.table.sessions.get(&id) else { return };
        let policy = &live.policy.now;
        let waiting = live.waiting.is_any().then_some(earliest);
        let at = live.core.next_deadline(policy).into_iter().chain(waiting).min();
        let slot = live.slot;
        self.alarms.set(Due::Session(id), at.map(|at| at.max(earliest)));
        if let Some(slot) = slot {
            self.arm_silence(slot, earliest);
            self.arm_aged(slot);
        }
    }

    /// A session is over: nothing of it is left but its records, and why.
    pub(super) fn forget(&mut self, id: SessionId, reason: Option<Reason>) {
        self.alarms.set(Due::Session(id), None);
        if let Some(live) = self.table.delist(id) {
            self.last_suspicions(id, &live);
            self.ended.remember(id, live.peer, reason.unwrap_or(Reason::SessionExpired));
            live.slot.into_iter().for_each(|slot| self.release_slot(slot));
        }
        self.table.unreserve(id);
    }

    pub(super) fn release_slot(&mut self, slot: Slot) {
        SlotAlarm::ALL.into_iter().for_each(|what| self.alarms.set(Due::Slot(what, slot), None));
        self.table.detach(slot);
    }

    /// A proposal of the core as a commit, with what is sent when it is done.
    pub(super) fn propose(
        &self,
        id: SessionId,
        step: Step,
        locators: Locators,
        send: Vec<Datagram>,
    ) -> (Change, Commit) {
        let Some(live) = self.table.sessions.get(&id) else { return (Change::new(Then::Nothing), Commit::default()) };
        let policy = &live.policy.now;
        let (step, locators, send) = match self.checked(live, step) {
            Ok(step) => (step, locators, send),
            Err(ending) => (*ending, Locators::default(), Vec::new()),
        };
        let mut commit = Commit { strict: is_strict(policy), send, ..Commit::default() };
        let attachment = live.slot.and_then(|slot| self.table.attachments.get(&slot));
        let mut word = attachment.map(|held| (held.slot, held.word));
        if let Some(held) = attachment {
            locators.maps(
                held.slot,
                held.generation,
                self.table.locators_of(held.slot, &locators.retired),
                &mut commit.maps,
            );
        }
        for effect in &step.effects {
            word = self.effect(id, effect, word, &mut commit);
        }
        let ended = step.effects.iter().any(|effect| matches!(effect, Effect::End { .. }));
        commit.send.extend(self.last_word(id, &step));
        let ceiling = version::ceiling(step.session.version(), live.ceiling);
        if !ended && !step.transitions.is_empty() {
            let stored = Box::new(self.stored(&step.session, &live.peer, ceiling.unwrap_or(live.ceiling)));
            commit.store.push(StoreOp::Put { stored, durable: ceiling.is_some() });
        }
        if let (Some((slot, _)), false, false) = (word, ended, step.transitions.is_empty()) {
            commit.maps.push(self.info(slot, &step.session));
        }
        commit.records = self.records(&step, &live.peer);
        let ceiling = ceiling.unwrap_or(live.ceiling);
        let Locators { issued, retired } = locators;
        let rows = step.transitions.iter().map(|transition| transition.row).collect();
        let stepped = Stepped { id, core: step.session, ceiling, word, issued, retired, ended, rows };
        (Change::new(Then::Stepped(Box::new(stepped))), commit)
    }

    /// The step, if every invariant holds of it; else the one that ends its session, and only its session.
    pub(super) fn checked(&self, live: &Live, mut step: Step) -> Result<Step, Box<Step>> {
        if self.sabotage.is(Bug::ForgetsIdentity) {
            step.session = step.session.renamed();
        }
        let Err(broken) = invariant::check(&live.core, &step) else { return Ok(step) };
        let ending = Input::InvariantBroken { which: broken.which };
        // A session that is over cannot be ended again: then the step is all there is.
        Err(Box::new(live.core.step(&ending, &live.policy.now, self.now).unwrap_or(step)))
    }

    /// TERMINATE, sealed while there are keys, for a step that ends a session; a client that ends it by itself
    /// is answered instead.
    pub(super) fn last_word(&self, id: SessionId, step: &Step) -> Option<Datagram> {
        let end = |effect: &Effect| if let Effect::End { reason, .. } = effect { Some(*reason) } else { None };
        let reason = step.effects.iter().find_map(end).filter(|reason| *reason != Reason::ClientTermination)?;
        let slot = self.table.sessions.get(&id)?.slot?;
        let number = self.table.attachments.get(&slot)?.outbox.next_id();
        self.sealed_to_active(id, &Message { id: number, body: Control::Terminate { reason } })
    }

    pub(super) fn stored(&self, core: &Session, peer: &PublicKey, ceiling: Version) -> Stored {
        let known = self.config.peers.get(peer).map(|peer| (peer.addresses.clone(), Arc::clone(&peer.policy)));
        let (addresses, policy) = known.unzip();
        let addresses = addresses.unwrap_or_default();
        Stored { session: core.id(), peer: *peer, addresses, policy, ceiling, core: core.encode(), at: self.now }
    }

    /// The records of a step, in the order in which it happened. Time of day and number are the writer's.
    pub(super) fn records(&self, step: &Step, peer: &PublicKey) -> Vec<Record> {
        let context = self.context(peer);
        let mut records = Record::transitions(&context, &step.transitions);
        records.extend(step.effects.iter().filter_map(|effect| Record::ended(&context, &step.session, effect)));
        records
    }

    pub(super) fn context(&self, peer: &PublicKey) -> Context<'_> {
        let peer = self.config.peers.get(peer).map_or("", |peer| peer.name.as_str());
        Context { ts: "", at: self.now, node: &self.config.node, seq: 0, peer }
    }
}

/// Locators an ACK gives and takes back.
#[derive(Clone, Debug, Default)]
pub(super) struct Locators {
    pub(super) issued: Vec<(TransportIndex, Locator)>,
    pub(super) retired: Vec<TransportIndex>,
}

impl Locators {
    fn maps(&self, slot: Slot, generation: Generation, retired: Vec<Locator>, maps: &mut Vec<MapOp>) {
        if !retired.is_empty() {
            maps.push(MapOp::RemoveLocators { slot, locators: retired });
        }
        if !self.issued.is_empty() {
            maps.push(MapOp::AddLocators { slot, generation, locators: self.issued.clone() });
        }
    }
}

/// Whether answers wait for the disk.
pub(super) fn is_strict(policy: &Policy) -> bool {
    policy.audit == Audit::Strict
}
