//! Who is where: sessions, the slots they are attached to, and the locators that lead to a slot.
//!
//! Owns the indexes and their agreement. A session outlives its attachment: after a restart it has none
//! until its client resumes. Must never reuse a slot without a new generation.

use super::command::{DataKeys, Origin};
use crate::abi::ActiveWord;
use crate::channel::Channel;
use crate::crypto::{Entropy, Suite};
use crate::ids::{Epoch, Generation, Locator, OpId, OwnerEpoch, SessionId, Slot, TransportIndex, Version};
use crate::limits::{LOCATORS_MAX, TRANSPORT_INDEX_MAX};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::flap::Meter;
use crate::session::{Path, Session};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of one session that answered a challenge and are remembered.
const VALIDATED_MAX: usize = 8;

/// Locators never used that an attachment should have, so that a client always finds one for a new network.
const SPARE_MIN: usize = 2;

/// A locator given to the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued {
    pub(super) locator: Locator,
    /// When something opened on it last.
    pub(super) used: Option<Instant>,
    /// Smoothed round trip, as the client reports it.
    pub(super) srtt: Duration,
}

/// A locator on which something opened this recently is in use or draining.
const IN_USE: Duration = Duration::from_secs(30);

/// Why a slot is held though no session is attached yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// Where message 2 went; CONFIRM must come from there.
    pub(super) origin: Origin,
    /// Sent again when message 1 comes again.
    pub(super) message2: Vec<u8>,
    pub(super) ephemeral: [u8; 32],
    pub(super) timestamp: u64,
    /// Whether its slot is installed; message 2 has left then.
    pub(super) installed: bool,
    /// A session in BIRTH, or `None` for a resume.
    pub(super) birth: Option<Box<Session>>,
    /// Version and owner the client claimed, for a resume.
    pub(super) claimed: (Version, OwnerEpoch),
    /// For the worker; none while the commit of its CONFIRM is under way.
    pub(super) keys: Option<DataKeys>,
}

impl Pending {
    /// Whether its CONFIRM is being committed: it can neither be confirmed again nor abandoned.
    pub(super) const fn is_confirming(&self) -> bool {
        self.keys.is_none()
    }
}

/// Which slot, and whose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) session: SessionId,
    pub(super) peer: PublicKey,
    pub(super) suite: Suite,
}

/// A slot in use.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) session: SessionId,
    pub(super) peer: PublicKey,
    pub(super) suite: Suite,
    pub(super) channel: Channel,
    /// Highest epoch given out.
    pub(super) epoch: Epoch,
    /// Highest epoch anything opened under.
    pub(super) epoch_used: Epoch,
    /// Epochs to wipe, and when, earliest first.
    pub(super) wipe: Vec<(Instant, Epoch)>,
    pub(super) locators: BTreeMap<TransportIndex, Issued>,
    next_k: u32,
    pub(super) word: ActiveWord,
    /// Addresses that answered a challenge, oldest first.
    pub(super) validated: Vec<Path>,
    pub(super) pending: Option<Pending>,
    /// Number of the next message of ours that is not an answer.
    pub(super) next_id: u64,
    /// When anything authenticated came last.
    pub(super) last_opened: Instant,
    /// Since when inner packets have gone down without anything coming back.
    pub(super) unanswered: Option<Instant>,
    /// Requests that opened, for the abuse limit.
    pub(super) requests: Meter,
    /// Whether a rekey is being computed.
    pub(super) rekeying: bool,
    /// The last rekey: id of the request and the answer to it.
    pub(super) rekeyed: Option<(u64, Vec<u8>)>,
    /// When the keys of the highest epoch given out die.
    pub(super) reject_after: Instant,
}

impl Attachment {
    pub(super) fn new(
        place: Place,
        channel: Channel,
        locators: Vec<(TransportIndex, Locator)>,
        now: Instant,
    ) -> Self {
        let Place { slot, generation, session, peer, suite } = place;
        let next_k = locators.iter().map(|(k, _)| u32::from(k.0) + 1).max().unwrap_or(0);
        let locators = locators.into_iter().map(|(k, locator)| (k, Issued { locator, used: None, srtt: Duration::ZERO })).collect();
        Self {
            slot,
            generation,
            session,
            peer,
            suite,
            channel,
            epoch: Epoch(0),
            epoch_used: Epoch(0),
            wipe: Vec::new(),
            locators,
            next_k,
            word: ActiveWord::default(),
            validated: Vec::new(),
            pending: None,
            next_id: 1,
            last_opened: now,
            unanswered: None,
            requests: Meter::default(),
            rekeying: false,
            rekeyed: None,
            reject_after: now,
        }
    }

    /// Remembers that this address answered a challenge.
    pub(super) fn remember(&mut self, path: Path) {
        self.validated.retain(|known| *known != path);
        if self.validated.len() == VALIDATED_MAX {
            self.validated.remove(0);
        }
        self.validated.push(path);
    }

    /// Transport indexes to retire so that there is room for spare ones: the longest unused first, never
    /// one of `keep` (active, draining, and the one the request came on).
    pub(super) fn retirable(&self, keep: &[TransportIndex], now: Instant) -> Vec<TransportIndex> {
        let spare = self.locators.values().filter(|issued| issued.used.is_none()).count();
        let wanted = SPARE_MIN.saturating_sub(spare + LOCATORS_MAX.saturating_sub(self.locators.len()));
        let mut used: Vec<_> = self
            .locators
            .iter()
            .filter(|(k, _)| !keep.contains(k))
            .filter_map(|(&k, issued)| issued.used.map(|at| (at, k)))
            .filter(|(at, _)| now.since(*at) > IN_USE)
            .collect();
        used.sort_unstable();
        used.into_iter().map(|(_, k)| k).take(wanted).collect()
    }

    /// The next transport indexes, up to six locators together; fewer when the numbers run out.
    pub(super) fn next_indexes(&self, retired: usize) -> Vec<TransportIndex> {
        let room = LOCATORS_MAX.saturating_sub(self.locators.len().saturating_sub(retired));
        (self.next_k..=u32::from(TRANSPORT_INDEX_MAX))
            .take(room)
            .filter_map(|k| u16::try_from(k).ok().map(TransportIndex))
            .collect()
    }

    /// Takes note of locators given out and taken back.
    pub(super) fn exchange(&mut self, issued: &[(TransportIndex, Locator)], retired: &[TransportIndex]) {
        self.locators.retain(|k, _| !retired.contains(k));
        for &(k, locator) in issued {
            self.locators.insert(k, Issued { locator, used: None, srtt: Duration::ZERO });
            self.next_k = self.next_k.max(u32::from(k.0) + 1);
        }
    }
}

/// A session that is or was confirmed and has not ended.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) core: Session,
    pub(super) peer: PublicKey,
    pub(super) slot: Option<Slot>,
    /// Versions up to this one are on disk as a ceiling.
    pub(super) ceiling: Version,
    /// Reason of the last transition.
    pub(super) reason: Option<Reason>,
    /// A commit is under way; nothing else may change the session until its outcome is here.
    pub(super) busy: Option<OpId>,
    pub(super) waiting: Waiting,
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
    pub(super) attachments: BTreeMap<Slot, Attachment>,
    pub(super) sessions: BTreeMap<SessionId, Live>,
    by_owner: BTreeMap<PublicKey, SessionId>,
    by_locator: BTreeMap<Locator, (Slot, TransportIndex)>,
    by_peer: BTreeMap<PublicKey, BTreeSet<Slot>>,
    /// Pending slots by the ephemeral key of their message 1.
    by_ephemeral: BTreeMap<[u8; 32], Slot>,
    generations: BTreeMap<Slot, Generation>,
    /// Slots below this were given out at least once, or reserved.
    given: u32,
    /// Those of them that were given back.
    free: BTreeSet<Slot>,
    /// Slots of a previous start: they echo the new incarnation and are not given out.
    reserved: BTreeMap<Slot, SessionId>,
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
        let last = self.generations.get(&slot).map_or(0, |generation| generation.0);
        Some((slot, Generation(last.wrapping_add(1).max(1))))
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
        self.by_peer.entry(attachment.peer).or_default().insert(attachment.slot);
        if let Some(pending) = &attachment.pending {
            self.by_ephemeral.insert(pending.ephemeral, attachment.slot);
        }
        self.attachments.insert(attachment.slot, attachment);
    }

    /// Takes an attachment out; its keys are wiped with it.
    pub(super) fn detach(&mut self, slot: Slot) -> Option<Attachment> {
        let attachment = self.attachments.remove(&slot)?;
        for issued in attachment.locators.values() {
            self.by_locator.remove(&issued.locator);
        }
        if let Some(slots) = self.by_peer.get_mut(&attachment.peer) {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_peer.remove(&attachment.peer);
            }
        }
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
        self.attachments.get(slot)?.pending.as_ref()
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
    pub(super) fn exchange(
        &mut self,
        slot: Slot,
        issued: &[(TransportIndex, Locator)],
        retired: &[TransportIndex],
    ) {
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
        self.slots_of(peer).filter_map(|held| held.pending.as_ref().map(|pending| (held.slot, pending)))
    }

    /// All slots of a peer.
    pub(super) fn slots_of(&self, peer: &PublicKey) -> impl Iterator<Item = &Attachment> {
        self.by_peer.get(peer).into_iter().flatten().filter_map(|slot| self.attachments.get(slot))
    }

    /// The live session of a peer.
    pub(super) fn session_of(&self, peer: &PublicKey) -> Option<SessionId> {
        self.by_owner.get(peer).copied()
    }

    /// Enters a session; a peer has at most one.
    pub(super) fn enlist(&mut self, id: SessionId, live: Live) {
        self.by_owner.insert(live.peer, id);
        self.sessions.insert(id, live);
    }

    /// Takes a session out.
    pub(super) fn delist(&mut self, id: SessionId) -> Option<Live> {
        let live = self.sessions.remove(&id)?;
        if self.by_owner.get(&live.peer) == Some(&id) {
            self.by_owner.remove(&live.peer);
        }
        Some(live)
    }

    /// Keeps a slot of a previous start out of use until its session resumes or ends.
    pub(super) fn reserve(&mut self, slot: Slot, generation: Generation, session: SessionId) {
        self.generations.insert(slot, generation);
        self.reserved.insert(slot, session);
    }

    /// Reserved slots of a session.
    pub(super) fn reserved_of(&self, session: SessionId) -> Vec<Slot> {
        self.reserved.iter().filter(|(_, held)| **held == session).map(|(&slot, _)| slot).collect()
    }

    /// Gives back the reserved slots of a session.
    pub(super) fn unreserve(&mut self, session: SessionId) {
        for slot in self.reserved_of(session) {
            self.reserved.remove(&slot);
            self.release(slot);
        }
    }
}
