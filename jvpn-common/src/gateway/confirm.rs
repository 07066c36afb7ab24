//! CONFIRM: the moment a pending slot becomes a session's.
//!
//! Owns the commit that binds a born or resumed session to its new slot: old active word to none, then the
//! new word, then the old slot is freed. Must never accept a CONFIRM from another address than message 2
//! went to.

use super::command::{Commit, Datagram, Origin, StoreOp, WorkerOp};
use super::commit::{Change, Stepped, Then, is_strict};
use super::table::Live;
use super::view::Drop;
use super::{Due, Engine};
use crate::crypto::suite::REJECT_AFTER;
use crate::event::{Event, Record};
use crate::ids::{SessionId, Slot, TransportIndex, Version};
use crate::mapop::MapOp;
use crate::message::{Control, Label, Message, Reject};
use crate::reason::Reason;
use crate::session::version::{self, Gap};
use crate::session::{Allowed, Confirmed, Input, Opened, Path, Refusal, Resume, Session, Step, Transport, TransportClass};

/// What CONFIRM says of its transport.
#[derive(Clone, Copy, Debug)]
pub(super) struct Says {
    pub(super) label: Label,
    pub(super) class: TransportClass,
    pub(super) mtu: u16,
}

/// A confirmed handshake on its way through its commit.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) slot: Slot,
    pub(super) stepped: Stepped,
    /// Another session of this peer that ends with it.
    superseded: Option<(SessionId, Vec<usize>)>,
    /// The slot the session leaves.
    left: Option<Slot>,
}

impl Engine {
    /// A CONFIRM that opened under the keys of `slot`, on transport `k`.
    pub(super) fn on_confirm(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64, says: Says) {
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        let (peer, session) = (attachment.peer, attachment.session);
        let Some(pending) = &attachment.pending else {
            // Its acknowledgement was lost.
            return self.acknowledge(slot, k, origin, asked, id);
        };
        if pending.origin != origin {
            return self.drop(Drop::Unconfirmed);
        }
        if self.table.sessions.get(&session).is_some_and(|live| live.busy.is_some()) {
            return self.drop(Drop::Busy);
        }
        let Some(path) = self.path(origin) else { return self.drop(Drop::GatewayAddress) };
        let transport = Transport { k, path, label: says.label, class: says.class, mtu: says.mtu, since: self.now };
        match self.confirmed(slot, transport, path) {
            Ok((step, gap)) => self.settle_commit(slot, k, origin, asked, id, step, gap),
            Err(refusal) => {
                self.drop(Drop::Refused);
                self.refuse_confirm(slot, k, origin, asked, id, refusal.reason);
                self.table.attachments.get(&slot).is_some_and(|held| held.peer == peer).then(|| self.abandon(slot));
            }
        }
    }

    /// What the core says to it.
    fn confirmed(&self, slot: Slot, transport: Transport, path: Path) -> Result<(Step, Option<Gap>), Refusal> {
        let gone = Refusal::new(crate::session::RefusalKind::Invalid, Reason::SessionNotFound);
        let attachment = self.table.attachments.get(&slot).ok_or(gone)?;
        let pending = attachment.pending.as_ref().ok_or(gone)?;
        let policy = self.policy(&attachment.peer);
        let allowed = Allowed::by(&policy, &transport)?;
        let confirmed = Confirmed::new(Opened::new(transport), path, allowed)?;
        let reject_after = self.now + REJECT_AFTER;
        if let Some(born) = &pending.birth {
            return Ok((born.step(&Input::Confirm { confirmed, reject_after }, &policy, self.now)?, None));
        }
        let live = self.table.sessions.get(&attachment.session).ok_or(gone)?;
        let (core, gap) = live.core.raised(pending.claimed, self.config.owner_epoch).ok_or(gone)?;
        let resume =
            Resume { peer: *attachment.peer.as_bytes(), confirmed, last_version: pending.claimed, reject_after };
        Ok((core.step(&Input::Resume(resume), &policy, self.now)?, gap))
    }

    #[expect(clippy::too_many_arguments, reason = "the facts of one datagram, each used once")]
    fn settle_commit(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64, step: Step, gap: Option<Gap>) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let (session, peer, generation) = (attachment.session, attachment.peer, attachment.generation);
        let Some(keys) = attachment.pending.as_mut().and_then(|pending| pending.keys.take()) else {
            return self.drop(Drop::Busy);
        };
        let done = self.seal_to(slot, k, origin, &Message { id, body: Control::Done });
        let policy = self.policy(&peer);
        let mut commit = Commit { strict: is_strict(&policy), send: done.into_iter().collect(), ..Commit::default() };
        let (live_slot, reserved) = self.table.sessions.get(&session).map_or((None, Version(0)), |live| (live.slot, live.ceiling));
        let left = live_slot.filter(|old| *old != slot);
        self.rollback_records(&step.session, &peer, gap, &mut commit);
        let superseded = self.supersede(session, &peer, &mut commit);
        if let Some(old) = left {
            commit.maps.extend(self.free_maps(old));
            commit.worker.push(WorkerOp::Free { slot: old });
        }
        let word = self.table.attachments.get(&slot).map(|held| held.word).unwrap_or_default();
        let word = step.session.transport().map(|to| self.bind_maps(slot, word, to, None, &mut commit.maps));
        commit.maps.push(self.info(slot, &step.session));
        commit.maps.push(MapOp::Confirm { slot });
        commit.maps.extend(self.table.reserved_of(session).into_iter().map(|slot| MapOp::Free { slot }));
        let prefixes = self.prefixes(&peer);
        commit.worker.push(WorkerOp::Install { slot, generation, session, keys, prefixes });
        let ceiling = version::ceiling(step.session.version(), reserved).unwrap_or(reserved);
        let stored = Box::new(self.stored(&step.session, &peer, ceiling));
        commit.store.push(StoreOp::Put { stored, durable: true });
        if live_slot.is_none() && !self.table.sessions.contains_key(&session) {
            commit.records.push(Record::about(&self.context(&peer), &step.session, Event::SessionCreated, Some(Reason::HandshakeOk)));
        }
        commit.records.extend(self.records(&step, &peer));
        let rows = step.transitions.iter().map(|transition| transition.row).collect();
        let stepped = Stepped {
            id: session,
            core: step.session,
            ceiling,
            word: word.map(|word| (slot, word)),
            issued: Vec::new(),
            retired: Vec::new(),
            ended: false,
            rows,
        };
        let mut change = Change::new(Then::Confirmed(Box::new(Settled { slot, stepped, superseded, left })));
        let reject = self.reject(slot, 0, Reason::CommitFailed);
        let failed = self.seal_to(slot, k, origin, &Message { id, body: Control::Reject(reject) });
        change.failed = failed.map(|datagram| (datagram, asked));
        self.commit(change, commit);
    }

    /// A client that knows more than the store: the store was restored from a backup.
    fn rollback_records(&self, core: &Session, peer: &crate::secret::PublicKey, gap: Option<Gap>, commit: &mut Commit) {
        let Some(gap) = gap else { return };
        let context = self.context(peer);
        commit.records.push(Record::about(&context, core, Event::SecurityEvent, Some(Reason::SecStoreRollback)));
        commit.records.push(Record::gap(&context, core, gap));
    }

    /// A peer has one session: the other one ends in the same commit.
    fn supersede(&self, session: SessionId, peer: &crate::secret::PublicKey, commit: &mut Commit) -> Option<(SessionId, Vec<usize>)> {
        let other = self.table.session_of(peer).filter(|other| *other != session)?;
        let live = self.table.sessions.get(&other)?;
        let step = live.core.step(&Input::Superseded, &self.policy(peer), self.now).ok()?;
        if let Some(old) = live.slot {
            commit.maps.extend(self.free_maps(old));
            commit.worker.push(WorkerOp::Free { slot: old });
        }
        commit.maps.extend(self.table.reserved_of(other).into_iter().map(|slot| MapOp::Free { slot }));
        commit.store.push(StoreOp::Remove(other));
        commit.records.extend(self.records(&step, peer));
        Some((other, step.transitions.iter().map(|transition| transition.row).collect()))
    }

    /// The commit is done: the slot is live.
    pub(super) fn settle(&mut self, settled: Settled) {
        let Settled { slot, stepped, superseded, left } = settled;
        if let Some((other, rows)) = superseded {
            self.count_rows(&rows);
            self.forget(other);
        }
        if let Some(left) = left {
            self.release_slot(left);
        }
        let id = stepped.id;
        self.table.unreserve(id);
        self.alarms.set(Due::Pending(slot), None);
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        attachment.pending = None;
        attachment.last_opened = self.now;
        let peer = attachment.peer;
        if let Some(transport) = stepped.core.transport() {
            attachment.remember(transport.path);
        }
        let live = Live { core: stepped.core.clone(), peer, slot: Some(slot), ceiling: stepped.ceiling, reason: None, busy: None };
        self.table.enlist(id, live);
        self.keep(stepped);
    }

    /// Tells a client whose CONFIRM the core refused.
    fn refuse_confirm(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64, reason: Reason) {
        let reject: Reject = self.reject(slot, 0, reason);
        if let Some(datagram) = self.seal_to(slot, k, origin, &Message { id, body: Control::Reject(reject) }) {
            self.answer(origin, asked, datagram.bytes);
        }
    }

    /// Seals a message along the way a request came.
    pub(super) fn seal_to(&self, slot: Slot, k: TransportIndex, origin: Origin, message: &Message) -> Option<Datagram> {
        let attachment = self.table.attachments.get(&slot)?;
        let issued = attachment.locators.get(&k)?;
        let bytes = attachment.channel.seal(k, issued.locator, message)?;
        Some(Datagram { origin, bytes })
    }

    /// "The message with this id arrived."
    pub(super) fn acknowledge(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64) {
        if let Some(datagram) = self.seal_to(slot, k, origin, &Message { id, body: Control::Done }) {
            self.answer(origin, asked, datagram.bytes);
        }
    }
}
