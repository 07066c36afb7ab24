//! CONFIRM: the moment a pending slot becomes a session's.
//!
//! Owns the commit that binds a born or resumed session to its new slot: old active word to none, then the
//! new word, then the old slot is freed. Must never accept a CONFIRM from another address than message 2
//! went to.

use super::Engine;
use super::calendar::{Due, SlotAlarm};
use super::command::{Commit, DataKeys, Datagram, StoreOp, WorkerOp};
use super::commit::{Change, Stepped, Then, is_strict};
use super::control::Came;
use super::reattach::proved;
use super::table::{Live, Waiting};
use super::view::Drop;
use crate::abi::ActiveWord;
use crate::crypto::suite::REJECT_AFTER;
use crate::event::{Event, Record};
use crate::ids::{OwnerEpoch, SessionId, Slot, Version};
use crate::limits::PATH_MTU_UNPROVEN;
use crate::mapop::MapOp;
use crate::message::{Control, Label, Message};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::transition::TABLE;
use crate::session::version::{self, Gap};
use crate::session::{
    Allowed, Claim, Confirmed, Input, Opened, Path, Refusal, RefusalKind, Resume, Session, Step, Transport,
    TransportClass, invariant,
};
use std::borrow::Cow;

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

impl Settled {
    /// The session that ends with it.
    pub(super) fn superseded(&self) -> Option<SessionId> {
        self.superseded.as_ref().map(|(id, _)| *id)
    }
}

/// A store that is older than what a client saw of its session.
#[derive(Debug)]
struct Rolled {
    claimed: (Version, OwnerEpoch),
    gap: Option<Gap>,
}

/// A step of which every invariant holds; nothing is born or resumed by another.
fn sound(before: &Session, step: Step) -> Result<Step, Refusal> {
    let broken = Refusal::new(RefusalKind::Invalid, Reason::FatalProtocolError);
    invariant::check(before, &step).map_err(|_| broken)?;
    Ok(step)
}

impl Engine {
    /// A CONFIRM that opened under the keys of a slot.
    pub(super) fn on_confirm(&mut self, came: Came, says: Says) {
        let Came { slot, k, origin, .. } = came;
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        let (peer, session) = (attachment.peer, attachment.session);
        let Some(pending) = &attachment.pending else {
            // Its acknowledgement was lost.
            return self.acknowledge(came);
        };
        if pending.origin != origin {
            return self.drop(Drop::Unconfirmed);
        }
        let other = self.table.session_of(&peer).filter(|other| *other != session);
        let is_busy = |id: &SessionId| self.table.sessions.get(id).is_some_and(|live| live.busy.is_some());
        let confirming = self.table.pending_of(&peer).any(|(_, pending)| pending.is_confirming());
        if confirming || is_busy(&session) || other.as_ref().is_some_and(is_busy) {
            return self.drop(Drop::Busy);
        }
        if let Some(other) = other
            && !self.admission.may_supersede(&peer, self.now)
        {
            self.drop(Drop::RateLimited);
            self.security(other, Reason::SecDuplicateIdentity);
            return self.refuse_message(came, 0, Reason::RateLimited);
        }
        let Some(path) = self.path(origin) else { return self.drop(Drop::GatewayAddress) };
        let mtu = says.mtu.max(PATH_MTU_UNPROVEN);
        let transport = Transport { k, path, label: says.label, class: says.class, mtu, since: self.now };
        match self.confirmed(slot, transport, path) {
            Ok((step, rolled)) => self.settle_commit(came, step, rolled),
            Err(refusal) => {
                self.turned_away(session, refusal.reason, "CONFIRM");
                self.refuse_message(came, 0, refusal.reason);
                self.abandon(slot);
            }
        }
    }

    /// What the core says to it.
    fn confirmed(&self, slot: Slot, transport: Transport, path: Path) -> Result<(Step, Option<Rolled>), Refusal> {
        let gone = Refusal::new(RefusalKind::Invalid, Reason::SessionNotFound);
        let attachment = self.table.attachments.get(&slot).ok_or(gone)?;
        let pending = attachment.pending.as_ref().ok_or(gone)?;
        let policy = self.deciding(attachment.session, &attachment.peer);
        let allowed = Allowed::by(&policy, &transport)?;
        let confirmed = Confirmed::new(Opened::new(transport), path, allowed)?;
        let reject_after = self.now + REJECT_AFTER;
        if let Some(born) = &pending.birth {
            let step = born.step(&Input::Confirm { confirmed, reject_after }, &policy, self.now)?;
            return sound(born, step).map(|step| (step, None));
        }
        let live = self.table.sessions.get(&attachment.session).ok_or(gone)?;
        let last_version = pending.claimed.0;
        let resume = Resume { peer: *attachment.peer.as_bytes(), confirmed, last_version, reject_after };
        let (core, rolled) = match live.claimed(pending.claimed).ok_or(gone)? {
            Claim::Known => (Cow::Borrowed(&live.core), None),
            Claim::Behind(core, gap) => (Cow::Owned(*core), Some(Rolled { claimed: pending.claimed, gap })),
            Claim::Owned(_) => return Err(Refusal::new(RefusalKind::Invalid, Reason::OwnershipConflict)),
        };
        let step = core.step(&Input::Resume(resume), &policy, self.now)?;
        sound(&core, step).map(|step| (step, rolled))
    }

    fn settle_commit(&mut self, came: Came, step: Step, rolled: Option<Rolled>) {
        let slot = came.slot;
        let done = self.seal_to(came, Control::Done);
        let done = self.fitting(done, came.len);
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let (session, peer) = (attachment.session, attachment.peer);
        let Some(pending) = &mut attachment.pending else { return };
        let (prove, owned) = (self.now.since(pending.offered), pending.owned);
        let Some(keys) = pending.keys.take() else { return self.drop(Drop::Busy) };
        // Nothing ends this handshake now but the outcome of its commit.
        self.alarms.set(Due::Slot(SlotAlarm::Pending, slot), None);
        let policy = self.deciding(session, &peer);
        let mut commit = Commit { strict: is_strict(&policy), send: done.into_iter().collect(), ..Commit::default() };
        let live = self.table.sessions.get(&session);
        let (reserved, is_new) = (live.map_or(Version(0), |live| live.ceiling), live.is_none());
        let left = live.and_then(|live| live.slot).filter(|old| *old != slot);
        self.rollback_records(&step.session, &peer, rolled, &mut commit);
        let superseded = self.supersede(session, &peer, owned, &mut commit);
        let word = self.switch_maps(slot, left, &step.session, &mut commit);
        self.install(slot, keys, &mut commit);
        let ceiling = version::ceiling(step.session.version(), reserved).unwrap_or(reserved);
        let stored = Box::new(self.stored(&step.session, &peer, ceiling));
        // A resume's may wait like any other picture: a thousand clients that come back at once wait for no disk.
        commit.store.push(StoreOp::Put { stored, durable: is_new || ceiling > reserved });
        if is_new {
            let context = self.context(&peer);
            let created = Record::about(&context, &step.session, Event::SessionCreated, Some(Reason::HandshakeOk));
            commit.records.push(created);
        }
        let mut records = self.records(&step, &peer);
        records.iter_mut().for_each(|record| proved(record, prove));
        commit.records.append(&mut records);
        let stepped = Stepped {
            id: session,
            rows: step.transitions.iter().map(|transition| transition.row).collect(),
            core: step.session,
            ceiling,
            word: word.map(|word| (slot, word)),
            issued: Vec::new(),
            retired: Vec::new(),
            ended: false,
        };
        let mut change = Change::new(Then::Confirmed(Box::new(Settled { slot, stepped, superseded, left })));
        change.asked = Some((came, 0));
        self.commit(change, commit);
    }

    /// Map writes that move a session to its new slot: the old active word to none, the new word, then the
    /// old slot is freed. Gives the new word.
    fn switch_maps(&self, slot: Slot, left: Option<Slot>, core: &Session, commit: &mut Commit) -> Option<ActiveWord> {
        let mut freed = left.map(|old| self.free_maps(old, None)).unwrap_or_default().into_iter();
        commit.maps.extend(freed.next());
        let word = self.table.attachments.get(&slot).map(|held| held.word).unwrap_or_default();
        let word = core.transport().map(|to| self.bind_maps(slot, word, to, None, &mut commit.maps));
        commit.maps.push(self.info(slot, core));
        commit.maps.push(MapOp::Confirm { slot });
        commit.maps.extend(freed);
        commit.maps.extend(self.table.reserved_of(core.id()).into_iter().map(|slot| MapOp::Free { slot }));
        commit.worker.extend(left.map(|slot| WorkerOp::Free { slot }));
        word
    }

    fn install(&self, slot: Slot, keys: DataKeys, commit: &mut Commit) {
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        let (generation, session) = (attachment.generation, attachment.session);
        let prefixes = self.prefixes(&attachment.peer);
        commit.worker.push(WorkerOp::Install { slot, generation, session, keys, prefixes });
    }

    /// A client that knows more than the store: the store was restored from a backup.
    fn rollback_records(&self, core: &Session, peer: &PublicKey, rolled: Option<Rolled>, commit: &mut Commit) {
        let Some(Rolled { claimed: (version, owner), gap }) = rolled else { return };
        let context = self.context(peer);
        let told = Record::about(&context, core, Event::SecurityEvent, Some(Reason::SecStoreRollback))
            .with("seen_version", version.to_string().into())
            .with("seen_owner_epoch", owner.to_string().into())
            .with("owner_epoch", core.owner_epoch().to_string().into());
        commit.records.push(told);
        commit.records.extend(gap.map(|gap| Record::gap(&context, core, gap)));
    }

    /// A peer has one session: the other one ends in the same commit, as one that is superseded or that another owner
    /// has.
    fn supersede(
        &self,
        session: SessionId,
        peer: &PublicKey,
        owned: Option<(SessionId, OwnerEpoch)>,
        commit: &mut Commit,
    ) -> Option<(SessionId, Vec<usize>)> {
        let other = self.table.session_of(peer).filter(|other| *other != session)?;
        let live = self.table.sessions.get(&other)?;
        let newer = owned.filter(|&(id, epoch)| id == other && epoch > live.core.owner_epoch());
        let input = newer.map_or(Input::Superseded, |(_, epoch)| Input::NewerOwner { epoch });
        let step = live.core.step(&input, &live.policy.now, self.now).ok()?;
        if let Some((_, epoch)) = newer {
            let told =
                Record::about(&self.context(peer), &live.core, Event::SecurityEvent, Some(Reason::SecOwnershipAnomaly))
                    .with("owner_epoch", live.core.owner_epoch().to_string().into())
                    .with("seen_owner_epoch", epoch.to_string().into());
            commit.records.push(told);
        }
        commit.send.extend(self.last_word(other, &step));
        if let Some(old) = live.slot {
            commit.maps.extend(self.free_maps(old, None));
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
            let reason = rows.last().and_then(|&row| TABLE.get(row)).map(|row| row.reason);
            self.forget(other, reason);
        }
        if let Some(left) = left {
            self.release_slot(left);
        }
        let id = stepped.id;
        self.table.unreserve(id);
        self.alarms.set(Due::Slot(SlotAlarm::Pending, slot), None);
        let now = self.now;
        let Some(attachment) = self.table.confirm(slot) else { return };
        attachment.last_opened = now;
        attachment.reject_after = stepped.core.reject_after();
        let peer = attachment.peer;
        if let Some(transport) = stepped.core.transport() {
            attachment.remember(transport.path, transport.label);
        }
        let policy = self.confirmed_policy(id, &peer);
        // An order to end it stands; what else waited went with the old keys.
        let old = self.table.delist(id);
        let removed = (!self.config.peers.contains_key(&peer)).then_some(Reason::PolicyTermination);
        let end = old.as_ref().and_then(|live| live.waiting.end).or(removed);
        let waiting = Waiting { end, ..Waiting::default() };
        let suspicions = old.map(|live| live.suspicions).unwrap_or_default();
        let live = Live {
            core: stepped.core.clone(),
            peer,
            policy,
            slot: Some(slot),
            ceiling: stepped.ceiling,
            reason: None,
            busy: None,
            waiting,
            suspicions,
        };
        self.table.enlist(id, live);
        self.keep(stepped);
    }

    /// The commit failed. The keys went with it and may have sealed before it was taken back, so they are
    /// not given out again: the client begins anew, and an older session stays as it was.
    pub(super) fn unsettled(&mut self, settled: &Settled) {
        let slot = settled.slot;
        let maps = self.free_maps(slot, None);
        self.release_slot(slot);
        self.commit(Change::new(Then::Nothing), Commit { maps, ..Commit::default() });
        for id in [Some(settled.stepped.id), settled.superseded()].into_iter().flatten() {
            self.arm_later(id);
        }
    }

    /// Tells a client that what it asked for with this nonce, 0 = with none, was refused.
    pub(super) fn refuse_message(&mut self, came: Came, nonce: u64, reason: Reason) {
        let reject = self.reject(came.slot, nonce, reason);
        self.send_sealed(came, Control::Reject(reject));
    }

    /// Seals a message along the way a request came, with the request's id.
    pub(super) fn seal_to(&self, came: Came, body: Control) -> Option<Datagram> {
        let attachment = self.table.attachments.get(&came.slot)?;
        let issued = attachment.locators.get(&came.k)?;
        let bytes = attachment.channel.seal(came.k, issued.locator, &Message { id: came.id, body })?;
        Some(Datagram { origin: came.origin, bytes })
    }

    /// "The message with this id arrived."
    pub(super) fn acknowledge(&mut self, came: Came) {
        self.send_sealed(came, Control::Done);
    }

    /// Seals a message along the way a request came and sends it, if it is no larger than the request.
    pub(super) fn send_sealed(&mut self, came: Came, body: Control) {
        if let Some(datagram) = self.seal_to(came, body) {
            self.answer(datagram.origin, came.len, datagram.bytes);
        }
    }
}
