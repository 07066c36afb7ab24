//! From message 1 to a confirmed session: BIRTH and RESUME.
//!
//! Owns pending handshakes. An unconfirmed message 2 disturbs nothing: its keys and locators live in a slot
//! of their own, and only CONFIRM from the address it went to makes a session of it. Must never change an
//! existing session before that.

use super::Engine;
use super::admission::{Meeting, Verdict};
use super::attachment::{Attachment, Pending, Place};
use super::calendar::{Due, SlotAlarm};
use super::command::{Command, Commit, DataKeys, Datagram, Origin};
use super::commit::{Change, Then};
use super::handshake::{Job, JobResult, Read};
use super::view::Drop;
use crate::channel::{Channel, Side};
use crate::crypto::cookie::MacKeys;
use crate::crypto::frame::{Frame, wrap};
use crate::crypto::noise::ephemeral;
use crate::crypto::{EpochKeys, Suite};
use crate::ids::{Epoch, Generation, Locator, OpId, OwnerEpoch, SessionId, Slot, TransportIndex, Version};
use crate::limits::{HANDSHAKE_LEN, LOCATORS_MAX, PENDING_PER_PEER_MAX, PENDING_TIMEOUT};
use crate::mapop::MapOp;
use crate::message::handshake::Outcome;
use crate::message::{Accepted, Answer, HandshakePurpose, Hello};
use crate::reason::Reason;
use crate::secret::{PresharedKey, PublicKey};
use crate::session::{Birth, Claim, Policy, Session};
use crate::wire::Kind;
use std::sync::Arc;

/// After how long a refused client should ask again.
const REFUSED_RETRY_MS: u32 = 5_000;

/// Facts of a message 1 that the answer needs.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) origin: Origin,
    pub(super) sender: u32,
    pub(super) ephemeral: [u8; 32],
    /// Whole message, for a cookie reply; empty when the source is proven.
    message: Vec<u8>,
}

/// What is being computed.
#[derive(Debug)]
pub(super) enum Computing {
    /// Message 1 is being opened.
    Read(Asked),
    /// A refusal is being sealed.
    Refuse { asked: Asked, peer: PublicKey },
    /// Message 2 of a birth or resume is being made.
    Answer(Box<Offer>),
    /// Message 2 of a rekey is being made.
    Rekey(super::rekey::Offer),
}

/// What a peer is offered.
#[derive(Debug)]
struct Terms {
    outcome: Outcome,
    slot: Slot,
    generation: Generation,
    session: SessionId,
    suite: Suite,
    locators: Vec<(TransportIndex, Locator)>,
    timestamp: u64,
    /// Version and owner the client has seen.
    claimed: (Version, OwnerEpoch),
    /// A session of its own that another owner has, as it says.
    owned: Option<(SessionId, OwnerEpoch)>,
    /// Policy whose snapshot it gets.
    policy: Arc<Policy>,
}

/// Terms on their way into a message 2.
#[derive(Debug)]
pub(super) struct Offer {
    asked: Asked,
    peer: PublicKey,
    terms: Terms,
}

impl Engine {
    pub(super) fn on_initiation(&mut self, origin: Origin, bytes: &[u8]) {
        let verdict = self.admission.judge(bytes, origin.client, self.computing.len(), &mut *self.entropy, self.now);
        let proven = match verdict {
            Verdict::Drop => return self.drop(Drop::Door),
            Verdict::Cookie(reply) => return self.send_cookie(origin, bytes.len(), reply),
            Verdict::Read { proven } => proven,
        };
        let Ok(Frame { index: sender, noise }) = self.admission.frame(bytes) else { return self.drop(Drop::Door) };
        let Some(&ephemeral) = ephemeral(noise) else { return self.drop(Drop::Door) };
        match self.admission.meet(&ephemeral, proven) {
            Meeting::New => {}
            Meeting::Again => return self.answer_again(origin, bytes.len(), &ephemeral),
            Meeting::AskedForCookie => return self.ask_for_cookie(origin, bytes),
        }
        let message = if proven { Vec::new() } else { bytes.to_vec() };
        let job = Job::Read { private: self.config.private_key.clone(), noise: noise.to_vec() };
        self.compute(job, Computing::Read(Asked { origin, sender, ephemeral, message }));
    }

    pub(super) fn compute(&mut self, job: Job, then: Computing) {
        let op = self.op();
        self.computing.insert(op, then);
        self.commands.push_back(Command::Compute { op, job: Box::new(job) });
    }

    fn ask_for_cookie(&mut self, origin: Origin, message: &[u8]) {
        if let Verdict::Cookie(reply) = self.admission.cookie(message, origin.client, &mut *self.entropy) {
            self.send_cookie(origin, message.len(), reply);
        }
    }

    fn send_cookie(&mut self, origin: Origin, asked: usize, reply: Vec<u8>) {
        self.drop(Drop::CookieSent);
        self.answer(origin, asked, reply);
    }

    /// The same message 1 gets the same message 2, at no cost.
    fn answer_again(&mut self, origin: Origin, asked: usize, ephemeral: &[u8; 32]) {
        let pending = self.table.pending_with(ephemeral);
        let message2 = pending.filter(|pending| pending.origin == origin && pending.installed);
        match message2.map(|pending| pending.message2.clone()) {
            Some(bytes) => self.answer(origin, asked, bytes),
            None => self.drop(Drop::HandshakeRepeated),
        }
    }

    pub(super) fn on_computed(&mut self, op: OpId, result: JobResult) {
        match (self.computing.remove(&op), result) {
            (Some(Computing::Read(asked)), JobResult::Read(Ok(read))) => self.on_hello(asked, read),
            (Some(Computing::Refuse { asked, peer }), JobResult::Answered(Ok((noise, _)))) => {
                let bytes = response(&noise, asked.sender, &peer);
                self.answer(asked.origin, HANDSHAKE_LEN, bytes);
            }
            (Some(Computing::Answer(offer)), JobResult::Answered(Ok((noise, keys)))) => {
                self.on_offer(*offer, &noise, keys);
            }
            (Some(Computing::Rekey(offer)), result) => self.on_rekey_computed(offer, result),
            (Some(Computing::Answer(offer)), _) => {
                self.table.release(offer.terms.slot);
                self.drop(Drop::HandshakeForged);
            }
            (Some(_), _) => self.drop(Drop::HandshakeForged),
            (None, _) => self.drop(Drop::UnknownOutcome),
        }
    }

    fn on_hello(&mut self, asked: Asked, read: Read) {
        let Some(hello) = Hello::decode(&read.payload) else { return self.drop(Drop::HandshakeForged) };
        let known = self.config.peers.contains_key(&read.peer);
        let fresh = !known || self.admission.fresh(&read.peer, hello.timestamp, self.wall);
        if !fresh && !asked.message.is_empty() {
            // Perhaps a replay, perhaps a dead clock battery: whoever receives at the address may go on.
            self.admission.asked_for_cookie(&asked.ephemeral);
            return self.ask_for_cookie(asked.origin, &asked.message);
        }
        let responder = read.responder;
        match self.terms(&read.peer, &hello) {
            Ok(terms) => {
                let payload = Answer::Accepted(Box::new(self.accepted(&read.peer, &terms))).encode();
                let preshared_key = self.preshared_key(&read.peer);
                let offer = Box::new(Offer { asked, peer: read.peer, terms });
                self.compute(Job::Answer { responder, preshared_key, payload }, Computing::Answer(offer));
            }
            Err(None) => self.drop(Drop::HandshakeOlder),
            Err(Some(reason)) => {
                self.drop(Drop::HandshakeRefused);
                let preshared_key = self.preshared_key(&read.peer);
                let payload = Answer::Refused { reason, retry_after_ms: REFUSED_RETRY_MS }.encode();
                let job = Job::Answer { responder, preshared_key, payload };
                self.compute(job, Computing::Refuse { asked, peer: read.peer });
            }
        }
    }

    pub(super) fn preshared_key(&self, peer: &PublicKey) -> PresharedKey {
        self.config.peers.get(peer).map_or_else(PresharedKey::none, |peer| peer.preshared_key.duplicate())
    }

    /// What this peer is offered; `Err(None)` is silence.
    fn terms(&mut self, peer: &PublicKey, hello: &Hello) -> Result<Terms, Option<Reason>> {
        let Some(known) = self.config.peers.get(peer) else { return Err(Some(Reason::UnknownPeer)) };
        let policy = known.policy.clone();
        let suite = Suite::choose(&self.config.suites, &hello.suites).ok_or(Reason::NoCommonSuite)?;
        let resumed = match hello.purpose {
            HandshakePurpose::Rekey { .. } => return Err(None),
            HandshakePurpose::Birth => None,
            HandshakePurpose::Resume { session, version, owner_epoch } => Some((session, version, owner_epoch)),
        };
        let unclaimed = (Version(0), OwnerEpoch(0));
        let mut owned = None;
        let (session, outcome, claimed) = match resumed.map(|(id, ..)| self.resumable(peer, id)) {
            None => (self.random_session(), Outcome::New(None), unclaimed),
            Some(Err(ended)) => (self.random_session(), Outcome::New(Some(ended)), unclaimed),
            Some(Ok(id)) => {
                let claimed = resumed.map_or(unclaimed, |(_, version, owner)| (version, owner));
                let live = self.table.sessions.get(&id).ok_or(Reason::SessionNotFound)?;
                match live.claimed(claimed).ok_or(Reason::VersionFuture)? {
                    // Not here any more: it ends once the client has proven to be the one that says so.
                    Claim::Owned(epoch) => {
                        owned = Some((id, epoch));
                        (self.random_session(), Outcome::New(Some(Reason::OwnershipConflict)), unclaimed)
                    }
                    Claim::Known | Claim::Behind(..) => (id, Outcome::Resumed, claimed),
                }
            }
        };
        if outcome != Outcome::Resumed && !self.storage {
            return Err(Some(Reason::StorageUnavailable));
        }
        self.make_room(peer, hello.timestamp)?;
        let (slot, generation) = self.table.take_slot(self.config.max_sessions).ok_or(Reason::CapacityReached)?;
        let indexes: Vec<_> = (0..LOCATORS_MAX as u16).map(TransportIndex).collect();
        let locators = self.table.fresh_locators(slot, self.config.workers, &indexes, &mut *self.entropy);
        let timestamp = hello.timestamp;
        Ok(Terms { outcome, slot, generation, session, suite, locators, timestamp, claimed, owned, policy })
    }

    /// Whether `peer` may resume this session, or why it has to start anew.
    fn resumable(&mut self, peer: &PublicKey, id: SessionId) -> Result<SessionId, Reason> {
        match self.table.sessions.get(&id) {
            None => Err(self.ended.reason(id, peer).unwrap_or(Reason::SessionNotFound)),
            Some(live) if live.peer != *peer => {
                self.security(id, Reason::SecSessionFixationAttempt);
                Err(Reason::SessionNotFound)
            }
            Some(live) if !live.core.is_live() => Err(Reason::SessionExpired),
            Some(_) => Ok(id),
        }
    }

    fn random_session(&mut self) -> SessionId {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        SessionId(id)
    }

    /// At most two pending handshakes of a peer; the oldest gives way, but only to a newer one.
    fn make_room(&mut self, peer: &PublicKey, timestamp: u64) -> Result<(), Option<Reason>> {
        if self.table.pending_of(peer).count() < PENDING_PER_PEER_MAX {
            return Ok(());
        }
        let abandonable = self.table.pending_of(peer).filter(|(_, pending)| !pending.is_confirming());
        let oldest = abandonable.map(|(slot, pending)| (pending.timestamp, slot)).min();
        let (_, slot) = oldest.filter(|(oldest, _)| *oldest <= timestamp).ok_or(None)?;
        self.abandon(slot);
        Ok(())
    }

    fn accepted(&self, peer: &PublicKey, terms: &Terms) -> Accepted {
        let addresses = self.config.peers.get(peer).map(|peer| peer.addresses.clone()).unwrap_or_default();
        let live = self.table.sessions.get(&terms.session);
        let above = live.and_then(|live| match live.claimed(terms.claimed)? {
            Claim::Behind(core, _) => Some((core.version(), core.owner_epoch())),
            Claim::Known | Claim::Owned(_) => Some((live.core.version(), live.core.owner_epoch())),
        });
        let (version, owner_epoch) = above.unwrap_or((Version(0), self.config.owner_epoch));
        Accepted {
            outcome: terms.outcome,
            session: terms.session,
            version,
            epoch: Epoch(0),
            owner_epoch,
            incarnation: self.config.incarnation,
            suite: terms.suite as u8,
            mtu: self.config.mtu,
            addresses,
            locators: terms.locators.clone(),
            policy: terms.policy.encode(),
        }
    }

    /// Message 2 is made: its keys and locators are installed before it leaves.
    fn on_offer(&mut self, offer: Offer, noise: &[u8], keys: EpochKeys) {
        let Offer { asked, peer, terms } = offer;
        let message2 = response(noise, asked.sender, &peer);
        let datagram = Datagram { origin: asked.origin, bytes: message2.clone() };
        let answer = self.fitting(Some(datagram), HANDSHAKE_LEN);
        // Others of this peer may have become pending while this one was computed.
        if answer.is_none() || self.make_room(&peer, terms.timestamp).is_err() {
            self.table.release(terms.slot);
            return self.drop(Drop::HandshakeOlder);
        }
        let steering = keys.steering_words();
        let EpochKeys { data, control, .. } = keys;
        let channel = Channel::new(Side::Gateway, Epoch(0), control, steering);
        let (slot, generation) = (terms.slot, terms.generation);
        let maps = vec![MapOp::Install {
            slot,
            generation,
            keys: steering,
            locators: terms.locators.clone(),
            pending: true,
            session: terms.session,
        }];
        let born = Birth { id: terms.session, peer: *peer.as_bytes(), owner_epoch: self.config.owner_epoch };
        let birth =
            (terms.outcome != Outcome::Resumed).then(|| Box::new(Session::born(born, &self.policy(&peer), self.now)));
        let place = Place { slot, generation, session: terms.session, peer, suite: terms.suite };
        let mut attachment = Attachment::new(place, channel, terms.locators, self.now);
        attachment.told = terms.policy.version;
        attachment.pending = Some(Box::new(Pending {
            origin: asked.origin,
            message2,
            offered: self.now,
            ephemeral: asked.ephemeral,
            timestamp: terms.timestamp,
            installed: false,
            birth,
            claimed: terms.claimed,
            owned: terms.owned,
            keys: Some(DataKeys { epoch: Epoch(0), suite: terms.suite, up: data.up, down: data.down }),
        }));
        self.table.attach(attachment);
        self.alarms.set(Due::Slot(SlotAlarm::Pending, slot), Some(self.now + PENDING_TIMEOUT));
        let send = answer.into_iter().collect();
        self.commit(Change::new(Then::Pending { slot, generation }), Commit { maps, send, ..Commit::default() });
    }

    /// Forgets a pending handshake: nobody confirmed it, nothing is recorded.
    pub(super) fn abandon(&mut self, slot: Slot) {
        let pending = self.table.attachments.get(&slot).and_then(|held| held.pending.as_ref());
        if pending.is_some_and(|pending| !pending.is_confirming()) {
            let maps = self.free_maps(slot, None);
            self.alarms.set(Due::Slot(SlotAlarm::Pending, slot), None);
            self.table.detach(slot);
            self.commit(Change::new(Then::Nothing), Commit { maps, ..Commit::default() });
        }
    }
}

/// Message 2 in its framing, with mac1 for `peer`.
fn response(noise: &[u8], receiver: u32, peer: &PublicKey) -> Vec<u8> {
    wrap(Kind::Response, receiver, noise, &MacKeys::new(peer), None).0
}
