//! Who is where: sessions, the slots they are attached to, and the locators that lead to a slot.
//!
//! Owns the indexes and their agreement. A session outlives its attachment: after a restart it has none
//! until its client resumes. Must never reuse a slot without a new generation.

use super::attachment::{Attachment, Pending};
use super::reload::InForce;
use super::security::Suspicions;
use crate::crypto::Entropy;
use crate::ids::{Generation, Locator, OpId, OwnerEpoch, SessionId, Slot, TransportIndex, Version};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::{Claim, Session};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A session that is or was confirmed and has not ended.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) core: Session,
    pub(super) peer: PublicKey,
    pub(super) policy: InForce,
    pub(super) slot: Option<Slot>,
    /// Versions up to this one are on disk as a ceiling.
    pub(super) ceiling: Version,
    /// Reason of the last transition.
    pub(super) reason: Option<Reason>,
    /// A commit is under way; nothing else may change the session until its outcome is here.
    pub(super) busy: Option<OpId>,
    pub(super) waiting: Waiting,
    pub(super) suspicions: Suspicions,
}

impl Live {
    /// Whether this process confirmed a handshake of it: it knows all that was acknowledged since. Only a session that came
    /// from the store has no slot.
    pub(super) const fn is_held(&self) -> bool {
        self.slot.is_some()
    }

    /// What a client's claim means; none if it is beyond belief.
    pub(super) fn claimed(&self, (version, owner): (Version, OwnerEpoch)) -> Option<Claim> {
        self.core.claimed(version, owner, self.is_held())
    }
}

/// What came while a commit was under way, or whose own commit failed, and is not sent again by anybody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// The core has not heard yet that the controller was started again.
    pub(super) restarted: bool,
    /// Keys with this end are in use.
    pub(super) rekeyed: Option<Instant>,
    /// It has to end.
    pub(super) end: Option<Reason>,
}

impl Waiting {
    pub(super) const fn is_any(&self) -> bool {
        self.restarted || self.rekeyed.is_some() || self.end.is_some()
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Boxed: a tree's nodes are half empty, of pointers that costs nothing.
    pub(super) attachments: BTreeMap<Slot, Box<Attachment>>,
    pub(super) sessions: BTreeMap<SessionId, Box<Live>>,
    by_owner: BTreeMap<PublicKey, SessionId>,
    by_locator: BTreeMap<Locator, (Slot, TransportIndex)>,
    by_peer: BTreeSet<(PublicKey, Slot)>,
    /// Pending slots by the ephemeral key of their message 1.
    by_ephemeral: BTreeMap<[u8; 32], Slot>,
    generations: BTreeMap<Slot, Generation>,
    /// Slots below this were given out at least once, or reserved.
    given: u32,
    /// Those of them that were given back.
    free: BTreeSet<Slot>,
    /// Slots of a previous start: they echo the new incarnation and are not given out.
    reserved: BTreeMap<Slot, SessionId>,
    /// The same by session: all of them come back at once.
    by_session: BTreeMap<SessionId, BTreeSet<Slot>>,
}

impl Table {
    /// Takes a free slot below `max`, with its next generation.
    pub(super) fn take_slot(&mut self, max: u32) -> Option<(Slot, Generation)> {
        while self.reserved.contains_key(&Slot(self.given)) {
            self.given += 1;
        }
        let slot = match self.free.pop_first() {
            Some(slot) => slot,
            None if self.given < max => {
                self.given += 1;
                Slot(self.given - 1)
            }
            None => return None,
        };
        let last = self.generations.get(&slot).copied().unwrap_or_default();
        Some((slot, last.successor()))
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, slot: Slot) {
        if slot.0 < self.given {
            self.free.insert(slot);
        }
    }

    /// Fresh locators for these indexes: random, unique, of the slot's worker.
    pub(super) fn fresh_locators(
        &self,
        slot: Slot,
        workers: u32,
        indexes: &[TransportIndex],
        entropy: &mut dyn Entropy,
    ) -> Vec<(TransportIndex, Locator)> {
        let workers = workers.clamp(1, 256);
        let shard = u64::from(slot.0 % workers);
        let mut given: Vec<(TransportIndex, Locator)> = Vec::new();
        for &k in indexes {
            let locator = loop {
                let mut bytes = [0; 8];
                entropy.fill(&mut bytes);
                let random = u64::from_le_bytes(bytes);
                // Low byte ≡ shard, and otherwise random: 256 / workers values are left of it.
                let low = (random & 0xff) / u64::from(workers) * u64::from(workers) + shard;
                let locator = Locator(random & !0xff | low & 0xff);
                let taken = given.iter().any(|&(_, other)| other == locator);
                if low <= 0xff && locator.0 != 0 && !taken && !self.by_locator.contains_key(&locator) {
                    break locator;
                }
            };
            given.push((k, locator));
        }
        given
    }

    /// Enters an attachment and its locators.
    pub(super) fn attach(&mut self, attachment: Attachment) {
        for (&k, issued) in &attachment.locators {
            self.by_locator.insert(issued.locator, (attachment.slot, k));
        }
        self.generations.insert(attachment.slot, attachment.generation);
        self.by_peer.insert((attachment.peer, attachment.slot));
        if let Some(pending) = &attachment.pending {
            self.by_ephemeral.insert(pending.ephemeral, attachment.slot);
        }
        self.attachments.insert(attachment.slot, Box::new(attachment));
    }

    /// Takes an attachment out; its keys are wiped with it.
    pub(super) fn detach(&mut self, slot: Slot) -> Option<Box<Attachment>> {
        let attachment = self.attachments.remove(&slot)?;
        for issued in attachment.locators.values() {
            self.by_locator.remove(&issued.locator);
        }
        self.by_peer.remove(&(attachment.peer, slot));
        if let Some(pending) = &attachment.pending {
            self.by_ephemeral.remove(&pending.ephemeral);
        }
        self.release(slot);
        Some(attachment)
    }

    /// The handshake of a slot was confirmed.
    pub(super) fn confirm(&mut self, slot: Slot) -> Option<&mut Attachment> {
        let attachment = self.attachments.get_mut(&slot)?;
        if let Some(pending) = attachment.pending.take() {
            self.by_ephemeral.remove(&pending.ephemeral);
        }
        Some(attachment)
    }

    /// The pending handshake whose message 1 had this ephemeral key.
    pub(super) fn pending_with(&self, ephemeral: &[u8; 32]) -> Option<&Pending> {
        let slot = self.by_ephemeral.get(ephemeral)?;
        self.attachments.get(slot)?.pending.as_deref()
    }

    /// Where a locator leads.
    pub(super) fn find(&self, locator: Locator) -> Option<(Slot, TransportIndex)> {
        self.by_locator.get(&locator).copied()
    }

    /// Locators that lead to these indexes of a slot.
    pub(super) fn locators_of(&self, slot: Slot, indexes: &[TransportIndex]) -> Vec<Locator> {
        let attachment = self.attachments.get(&slot);
        indexes
            .iter()
            .filter_map(|k| attachment.and_then(|held| held.locators.get(k)).map(|issued| issued.locator))
            .collect()
    }

    /// Changes the locators of a slot.
    pub(super) fn exchange(&mut self, slot: Slot, issued: &[(TransportIndex, Locator)], retired: &[TransportIndex]) {
        for locator in self.locators_of(slot, retired) {
            self.by_locator.remove(&locator);
        }
        if let Some(attachment) = self.attachments.get_mut(&slot) {
            attachment.exchange(issued, retired);
            for &(k, locator) in issued {
                self.by_locator.insert(locator, (slot, k));
            }
        }
    }

    /// Pending handshakes of a peer.
    pub(super) fn pending_of(&self, peer: &PublicKey) -> impl Iterator<Item = (Slot, &Pending)> {
        self.slots_of(peer).filter_map(|held| held.pending.as_deref().map(|pending| (held.slot, pending)))
    }

    /// All slots of a peer.
    pub(super) fn slots_of(&self, peer: &PublicKey) -> impl Iterator<Item = &Attachment> {
        let slots = self.by_peer.range((*peer, Slot(0))..=(*peer, Slot(u32::MAX)));
        slots.filter_map(|(_, slot)| self.attachments.get(slot).map(Box::as_ref))
    }

    /// The live session of a peer.
    pub(super) fn session_of(&self, peer: &PublicKey) -> Option<SessionId> {
        self.by_owner.get(peer).copied()
    }

    /// Enters a session; a peer has at most one.
    pub(super) fn enlist(&mut self, id: SessionId, live: Live) {
        self.by_owner.insert(live.peer, id);
        self.sessions.insert(id, Box::new(live));
    }

    /// Takes a session out.
    pub(super) fn delist(&mut self, id: SessionId) -> Option<Box<Live>> {
        let live = self.sessions.remove(&id)?;
        if self.by_owner.get(&live.peer) == Some(&id) {
            self.by_owner.remove(&live.peer);
        }
        Some(live)
    }

    /// Keeps a slot of a previous start out of use until its session resumes or ends.
    pub(super) fn reserve(&mut self, slot: Slot, generation: Generation, session: SessionId) {
        self.generations.insert(slot, generation);
        if let Some(other) = self.reserved.insert(slot, session) {
            self.no_longer_reserved(slot, other);
        }
        self.by_session.entry(session).or_default().insert(slot);
    }

    fn no_longer_reserved(&mut self, slot: Slot, session: SessionId) {
        if let Some(slots) = self.by_session.get_mut(&session) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }

    /// Reserved slots of a session.
    pub(super) fn reserved_of(&self, session: SessionId) -> Vec<Slot> {
        self.by_session.get(&session).into_iter().flatten().copied().collect()
    }

    /// Gives back the reserved slots of a session.
    pub(super) fn unreserve(&mut self, session: SessionId) {
        for slot in self.reserved_of(session) {
            self.reserved.remove(&slot);
            self.no_longer_reserved(slot, session);
            self.release(slot);
        }
    }
}
