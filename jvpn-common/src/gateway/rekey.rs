//! REKEY: a handshake inside the session.
//!
//! Owns the gateway's half: one at a time, idempotent by id. The next keys are installed when the answer
//! leaves and used for sending after the first packet that opens under them. Must never touch the binding.

use super::birth::Computing;
use super::command::{Commit, DataKeys, Origin, WorkerOp};
use super::commit::{Change, Then};
use super::handshake::{Job, JobResult, Read};
use super::view::Drop;
use super::Engine;
use crate::crypto::noise::Responder;
use crate::crypto::suite::REJECT_AFTER;
use crate::event::{Event, Record};
use crate::ids::{Epoch, Slot, TransportIndex, Version};
use crate::message::handshake::Outcome;
use crate::message::{Accepted, Answer, Control, HandshakePurpose, Hello, Message};
use crate::secret::PublicKey;
use crate::session::Input;

/// A rekey under computation.
#[derive(Debug)]
pub(super) struct Offer {
    slot: Slot,
    generation: crate::ids::Generation,
    k: TransportIndex,
    origin: Origin,
    asked: usize,
    id: u64,
}

impl Engine {
    pub(super) fn on_rekey(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64, noise: &[u8]) {
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        if let Some((known, answer)) = &attachment.rekeyed
            && *known == id
        {
            let message = Message { id, body: Control::Rekey(answer.clone()) };
            if let Some(datagram) = self.seal_to(slot, k, origin, &message) {
                self.answer(origin, asked, datagram.bytes);
            }
            return;
        }
        let running = self.computing.values().any(|job| matches!(job, Computing::Rekey(offer) if offer.slot == slot));
        if running || attachment.epoch != attachment.channel.epoch() {
            // One outstanding: the last one is being computed, or nothing has come under its keys yet.
            return self.drop(Drop::Busy);
        }
        let generation = attachment.generation;
        let job = Job::Read { private: self.config.private_key.clone(), noise: noise.to_vec() };
        self.compute(job, Computing::Rekey(Offer { slot, generation, k, origin, asked, id }));
    }

    pub(super) fn on_rekey_computed(&mut self, offer: Offer, result: JobResult) {
        let current = self.table.attachments.get(&offer.slot).is_some_and(|held| held.generation == offer.generation);
        match result {
            JobResult::Read(Ok(read)) if current => self.on_rekey_read(offer, read),
            JobResult::Answered(Ok((noise, keys))) if current => self.on_rekey_answered(offer, noise, keys),
            JobResult::Read(_) | JobResult::Answered(_) => self.drop(Drop::HandshakeForged),
        }
    }

    fn on_rekey_read(&mut self, offer: Offer, read: Read) {
        let Some(attachment) = self.table.attachments.get(&offer.slot) else { return };
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
        self.compute(Job::Answer { responder, preshared_key, payload }, Computing::Rekey(offer));
    }

    fn on_rekey_answered(&mut self, offer: Offer, noise: Vec<u8>, keys: crate::crypto::EpochKeys) {
        let Offer { slot, k, origin, asked, id, .. } = offer;
        let message = Message { id, body: Control::Rekey(noise.clone()) };
        let Some(answer) = self.seal_to(slot, k, origin, &message) else { return };
        if answer.bytes.len() > asked {
            return self.drop(Drop::AnswerTooLarge);
        }
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let epoch = Epoch(attachment.epoch.0 + 1);
        attachment.epoch = epoch;
        attachment.channel.add(epoch, keys.control);
        attachment.rekeyed = Some((id, noise));
        let (suite, session, peer) = (attachment.suite, attachment.session, attachment.peer);
        let keys = DataKeys { epoch, suite, up: keys.data.up, down: keys.data.down };
        let record = self.rekey_record(session, &peer);
        let commit = Commit {
            worker: vec![WorkerOp::Next { slot, keys }],
            records: record.into_iter().collect(),
            send: vec![answer],
            ..Commit::default()
        };
        self.commit(Change::new(Then::Nothing), commit);
        self.apply(session, &Input::Rekeyed { reject_after: self.now + REJECT_AFTER }, Vec::new());
    }

    fn rekey_record(&self, session: crate::ids::SessionId, peer: &PublicKey) -> Option<Record> {
        let core = &self.table.sessions.get(&session)?.core;
        let version: Version = core.version();
        let mut record = Record::about(&self.context(peer), core, Event::KeyRotated, None);
        record.state_version = version;
        Some(record)
    }
}
