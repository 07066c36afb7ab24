//! A slot in use: its channel, its locators, and what is known of its client.
//!
//! Owns what lives and dies with a key set. Must never outlive its slot's generation.

use super::command::{DataKeys, Origin};
use super::outbox::Outbox;
use super::security::Roam;
use crate::abi::ActiveWord;
use crate::channel::Channel;
use crate::crypto::Suite;
use crate::ids::{Epoch, Generation, Locator, OwnerEpoch, PolicyVersion, SessionId, Slot, TransportIndex, Version};
use crate::limits::{LOCATORS_MAX, PATH_MTU_UNPROVEN, TRANSPORT_INDEX_MAX};
use crate::secret::PublicKey;
use crate::session::flap::Meter;
use crate::session::{Label, Path, Session};
use crate::time::{Duration, Instant};
use litemap::LiteMap;

/// Addresses of one session that answered a challenge and are remembered.
const VALIDATED_MAX: usize = 8;

/// Locators never used that an attachment should have, so that a client always finds one for a new network.
const SPARE_MIN: usize = 2;

/// A locator given to the client. There are six of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued {
    pub(super) locator: Locator,
    /// When something opened on it last.
    pub(super) used: Option<Instant>,
    /// Smoothed round trip in microseconds, as the client reports it.
    pub(super) srtt_us: u32,
    /// Proven path MTU of its transport.
    pub(super) mtu: u16,
}

impl Issued {
    const fn new(locator: Locator) -> Self {
        Self { locator, used: None, srtt_us: 0, mtu: PATH_MTU_UNPROVEN }
    }

    /// Smoothed round trip.
    pub(super) fn srtt(&self) -> Duration {
        Duration::from_micros(self.srtt_us.into())
    }
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
    /// When it left first.
    pub(super) offered: Instant,
    pub(super) ephemeral: [u8; 32],
    pub(super) timestamp: u64,
    /// Whether its slot is installed; message 2 has left then.
    pub(super) installed: bool,
    /// A session in BIRTH, or `None` for a resume.
    pub(super) birth: Option<Box<Session>>,
    /// Version and owner the client claimed, for a resume.
    pub(super) claimed: (Version, OwnerEpoch),
    /// The session that another owner has, as the client claimed; it ends with the CONFIRM.
    pub(super) owned: Option<(SessionId, OwnerEpoch)>,
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
    pub(super) locators: LiteMap<TransportIndex, Issued>,
    next_k: u32,
    pub(super) word: ActiveWord,
    /// Addresses that answered a challenge, oldest first, and what the client calls their transports.
    pub(super) validated: Vec<(Path, Label)>,
    /// Boxed: half of an idle session would be room for it.
    pub(super) pending: Option<Box<Pending>>,
    /// Where REBINDs of its session came from.
    pub(super) roam: Option<Box<Roam>>,
    /// What we say by ourselves and is not acknowledged yet.
    pub(super) outbox: Outbox,
    /// The version of policy its client has.
    pub(super) told: PolicyVersion,
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
    /// When the client was last asked for a rekey.
    pub(super) rekey_wanted: Option<Instant>,
    /// When the keys of the highest epoch given out die.
    pub(super) reject_after: Instant,
}

impl Attachment {
    pub(super) fn new(place: Place, channel: Channel, locators: Vec<(TransportIndex, Locator)>, now: Instant) -> Self {
        let Place { slot, generation, session, peer, suite } = place;
        let next_k = locators.iter().map(|(k, _)| u32::from(k.0) + 1).max().unwrap_or(0);
        let locators = locators.into_iter().map(|(k, locator)| (k, Issued::new(locator))).collect();
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
            roam: None,
            outbox: Outbox::default(),
            told: PolicyVersion::default(),
            last_opened: now,
            unanswered: None,
            requests: Meter::default(),
            rekeying: false,
            rekeyed: None,
            rekey_wanted: None,
            reject_after: now,
        }
    }

    /// Remembers that this address answered a challenge.
    pub(super) fn remember(&mut self, path: Path, label: Label) {
        self.validated.retain(|(known, _)| *known != path);
        if self.validated.len() == VALIDATED_MAX {
            self.validated.remove(0);
        }
        self.validated.reserve_exact(1);
        self.validated.push((path, label));
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
            self.locators.insert(k, Issued::new(locator));
            self.next_k = self.next_k.max(u32::from(k.0) + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locator_takes_forty_bytes_and_addresses_nobody_came_back_to_a_pointer() {
        assert!(size_of::<(TransportIndex, Issued)>() <= 40);
        assert_eq!(size_of::<Option<Box<Roam>>>(), size_of::<usize>());
    }
}
