//! REKEY: a handshake inside the session.
//!
//! Owns the gateway's half: one at a time, idempotent by id. The next keys are installed when the answer
//! leaves and used for sending after the first packet that opens under them. Only a client starts one; what
//! the gateway alone knows of (its own packets, failed opens, an age that its client missed) is a wish.
//! Must never touch the binding.

use super::Engine;
use super::birth::Computing;
use super::calendar::{Due, SlotAlarm};
use super::command::{Commit, DataKeys, WorkerOp};
use super::commit::{Change, Then};
use super::control::Came;
use super::handshake::{Job, JobResult, Read};
use super::view::Drop;
use crate::crypto::EpochKeys;
use crate::crypto::noise::Responder;
use crate::crypto::suite::REJECT_AFTER;
use crate::event::{Event, Record};
use crate::ids::{Epoch, Generation, Slot, Version};
use crate::message::handshake::Outcome;
use crate::message::{Accepted, Answer, Control, HandshakePurpose, Hello};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::{Input, Keys};
use crate::time::{Duration, Instant};

/// How long after `rekey_after` a client that did not rekey by itself is asked to. A rekey takes a round trip;
/// this leaves it time to be repeated, and the keys 40 s or more to live.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// How long after a wish the next one may follow: as long as one is repeated (`outbox`).
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A rekey under computation.
#[derive(Debug)]
pub(super) struct Offer {
    came: Came,
    generation: Generation,
}

impl Engine {
    pub(super) fn on_rekey(&mut self, came: Came, noise: &[u8]) {
        let Some(attachment) = self.table.attachments.get_mut(&came.slot) else { return };
        let (known, answer) = attachment.rekeyed.as_ref().map_or((0, None), |(id, answer)| (*id, Some(answer)));
        if let Some(answer) = answer
            && known == came.id
        {
            let body = Control::Rekey(answer.clone());
            return self.send_sealed(came, body);
        }
        // One outstanding, and no more than three epochs at once: previous, current, next. A newer id while
        // `next` is unused replaces it: its client gave the older one up.
        if attachment.rekeying || !attachment.wipe.is_empty() || came.id <= known {
            return self.drop(Drop::Busy);
        }
        let (session, generation) = (attachment.session, attachment.generation);
        if self.table.sessions.get(&session).is_none_or(|live| live.core.keys() == Keys::Stale) {
            self.turned_away(session, Reason::KeysStale, "REKEY");
            return self.refuse_message(came, 0, Reason::KeysStale);
        }
        self.rekeying(came.slot, true);
        let job = Job::Read { private: self.config.private_key.clone(), noise: noise.to_vec() };
        self.compute(job, Computing::Rekey(Offer { came, generation }));
    }

    fn rekeying(&mut self, slot: Slot, whether: bool) {
        if let Some(attachment) = self.table.attachments.get_mut(&slot) {
            attachment.rekeying = whether;
        }
    }

    pub(super) fn on_rekey_computed(&mut self, offer: Offer, result: JobResult) {
        let attachment = self.table.attachments.get(&offer.came.slot);
        if attachment.is_none_or(|held| held.generation != offer.generation) {
            return self.drop(Drop::HandshakeForged);
        }
        self.rekeying(offer.came.slot, false);
        match result {
            JobResult::Read(Ok(read)) => self.on_rekey_read(offer, read),
            JobResult::Answered(Ok((noise, keys))) => self.on_rekey_answered(&offer, noise, keys),
            JobResult::Read(_) | JobResult::Answered(_) => self.drop(Drop::HandshakeForged),
        }
    }

    fn on_rekey_read(&mut self, offer: Offer, read: Read) {
        let slot = offer.came.slot;
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        let (session, peer) = (attachment.session, attachment.peer);
        let hello = Hello::decode(&read.payload);
        let meant = hello.is_some_and(|hello| hello.purpose == HandshakePurpose::Rekey { session });
        if !meant || read.peer != peer {
            return self.drop(Drop::HandshakeForged);
        }
        let Some(live) = self.table.sessions.get(&session) else { return };
        let accepted = Accepted {
            outcome: Outcome::Rekeyed,
            session,
            version: live.core.version(),
            epoch: Epoch(attachment.epoch.0 + 1),
            owner_epoch: live.core.owner_epoch(),
            incarnation: self.config.incarnation,
            suite: attachment.suite as u8,
            mtu: self.config.mtu,
            addresses: Vec::new(),
            locators: Vec::new(),
            policy: Vec::new(),
        };
        let payload = Answer::Accepted(Box::new(accepted)).encode();
        let preshared_key = self.preshared_key(&peer);
        let responder: Box<Responder> = read.responder;
        self.rekeying(slot, true);
        self.compute(Job::Answer { responder, preshared_key, payload }, Computing::Rekey(offer));
    }

    fn on_rekey_answered(&mut self, offer: &Offer, noise: Vec<u8>, keys: EpochKeys) {
        let Came { slot, id, len, .. } = offer.came;
        let answer = self.seal_to(offer.came, Control::Rekey(noise.clone()));
        let Some(answer) = self.fitting(answer, len) else { return };
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let mut worker = Vec::new();
        if attachment.epoch > attachment.epoch_used {
            // The client never used these, and asks anew.
            attachment.channel.wipe(attachment.epoch);
            worker.push(WorkerOp::Wipe { slot, epoch: attachment.epoch });
        }
        let epoch = Epoch(attachment.epoch.0 + 1);
        attachment.epoch = epoch;
        attachment.channel.add(epoch, keys.control);
        attachment.rekeyed = Some((id, noise));
        attachment.reject_after = self.now + REJECT_AFTER;
        let (suite, session, peer) = (attachment.suite, attachment.session, attachment.peer);
        let keys = DataKeys { epoch, suite, up: keys.data.up, down: keys.data.down };
        worker.push(WorkerOp::Next { slot, keys });
        let records = self.rekey_record(session, &peer).into_iter().collect();
        let commit = Commit { worker, records, send: vec![answer], ..Commit::default() };
        self.commit(Change::new(Then::Rekeyed { slot, generation: offer.generation, epoch }), commit);
    }

    /// The next keys could not be installed: nobody has them, and the same request may be answered anew.
    pub(super) fn unrekeyed(&mut self, slot: Slot, generation: Generation, epoch: Epoch) {
        let held = self.table.attachments.get_mut(&slot).filter(|held| held.generation == generation);
        if let Some(attachment) = held
            && attachment.epoch == epoch
        {
            attachment.channel.wipe(epoch);
            attachment.rekeyed = None;
        }
    }

    /// What the worker says of the keys of an epoch; only the newest matter, others are being replaced.
    pub(super) fn on_worn(&mut self, slot: Slot, epoch: Epoch, spent: bool) {
        let Some(attachment) = self.table.attachments.get(&slot).filter(|held| held.epoch == epoch) else { return };
        let session = attachment.session;
        let Some(live) = self.table.sessions.get(&session).filter(|live| live.slot == Some(slot)) else { return };
        if !spent {
            self.want_rekey(slot);
        } else if live.core.keys() == Keys::Live {
            // Their time is over, whatever the clock says: the timer of the keys is due.
            self.apply(session, &Input::Rekeyed { reject_after: self.now }, Vec::new());
        }
    }

    /// Keys in use have reached an age at which their client should have renewed them.
    pub(super) fn on_aged(&mut self, slot: Slot) {
        if self.aged_at(slot).is_some_and(|at| at <= self.now) {
            self.want_rekey(slot);
        }
        self.arm_aged(slot);
    }

    /// Asks the client for a rekey, unless it was asked lately or one is being computed.
    fn want_rekey(&mut self, slot: Slot) {
        let now = self.now;
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        if attachment.rekey_wanted.is_some_and(|at| at + ASK_AGAIN > now) {
            return;
        }
        // Noted even if it comes by itself: the alarm for the next time stands on this, and would fire again at once.
        attachment.rekey_wanted = Some(now);
        if !attachment.rekeying {
            let session = attachment.session;
            self.push(session, Control::RekeyWanted);
        }
    }

    /// When the client of a slot is asked for a rekey: while it is bound, and its keys still live then.
    fn aged_at(&self, slot: Slot) -> Option<Instant> {
        let attachment = self.table.attachments.get(&slot)?;
        let live = self.table.sessions.get(&attachment.session)?;
        let core = &live.core;
        let made = core.reject_after().before(REJECT_AFTER);
        let due = made + live.policy.now.rekey_after + ASK_AFTER;
        let at = attachment.rekey_wanted.map_or(due, |asked| due.max(asked + ASK_AGAIN));
        (live.slot == Some(slot) && core.is_bound() && at < core.reject_after()).then_some(at)
    }

    pub(super) fn arm_aged(&mut self, slot: Slot) {
        let at = self.aged_at(slot);
        self.alarms.set(Due::Slot(SlotAlarm::Aged, slot), at);
    }

    fn rekey_record(&self, session: crate::ids::SessionId, peer: &PublicKey) -> Option<Record> {
        let core = &self.table.sessions.get(&session)?.core;
        let version: Version = core.version();
        let mut record = Record::about(&self.context(peer), core, Event::KeyRotated, None);
        record.state_version = version;
        Some(record)
    }
}
