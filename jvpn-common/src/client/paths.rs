//! The paths a client has, and what is known of each.
//!
//! Owns a path's locator, probes, round trip, loss, delivery, path MTU, and when it was last heard. Must never decide
//! which path to use: it answers questions of those who do.

use super::command::{PathClass, PathId, PathUp};
use super::delivery::Delivery;
use super::mapping::Mapping;
use super::mtu::MtuSearch;
use super::patience::Patience;
use super::probes::Probes;
use super::rtt::{Loss, Rtt};
use super::timing::{ANSWER_MAX, ANSWER_MIN, ANSWER_UNKNOWN, PROBE_LOST, RETRANSMISSION};
use crate::crypto::cookie::Cookie;
use crate::ids::{Locator, TransportIndex};
use crate::limits::PATH_MTU_UNPROVEN;
use crate::time::{Duration, Instant, nanos};
use core::net::SocketAddr;
use std::collections::VecDeque;

/// Questions a path owes an answer to that are remembered; the oldest one is what counts.
const OWED_MAX: usize = 16;

/// A locator in use on a path.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) k: TransportIndex,
    pub(super) locator: Locator,
    pub(super) probes: Probes,
    pub(super) mtu: MtuSearch,
    /// Whether the gateway has acknowledged anything on it.
    pub(super) acked: bool,
    /// Whether its 4-tuple has answered a challenge.
    pub(super) validated: bool,
    /// Gateway time of the newest echo, and when its probe was sent.
    pub(super) quote: Option<(u64, Instant)>,
    /// Path MTU the gateway was told.
    pub(super) told_mtu: u16,
    /// Whether the last echo said it is the active binding.
    pub(super) bound: bool,
}

impl Link {
    /// A locator that was not used before.
    pub(super) fn new(k: TransportIndex, locator: Locator, offset: u64, mtu: MtuSearch) -> Self {
        Self {
            k,
            locator,
            probes: Probes::new(offset),
            mtu,
            acked: false,
            validated: false,
            quote: None,
            told_mtu: PATH_MTU_UNPROVEN,
            bound: false,
        }
    }

    /// Path MTU to work with.
    pub(super) fn path_mtu(&self) -> u16 {
        self.mtu.proven().unwrap_or(PATH_MTU_UNPROVEN)
    }
}

/// A path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) info: PathUp,
    pub(super) up: bool,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) link: Option<Link>,
    pub(super) cookie: Option<(Cookie, Instant)>,
    pub(super) rtt: Rtt,
    pub(super) loss: Loss,
    pub(super) delivery: Delivery,
    /// When anything authenticated last came from it.
    pub(super) heard: Option<Instant>,
    /// When an echo last came from it.
    pub(super) echoed: Option<Instant>,
    /// When the newest small probe that was answered was sent.
    pub(super) answered: Option<Instant>,
    /// When what must be answered and is not was sent, oldest first.
    owed: VecDeque<Instant>,
    /// When it was last probed.
    pub(super) probed: Option<Instant>,
    /// Its last echo said that nobody behind it works: a dead worker, or a relay whose owner is silent.
    pub(super) refuses: bool,
    /// Small probes lost in a row.
    pub(super) missed: u32,
    /// Until when the gateway or a failed request bars it from BETTER and VALIDATE.
    pub(super) barred: Option<Instant>,
    /// How often in a row it was better than the active one.
    pub(super) streak: u32,
    /// The NAT's mapping of its port.
    pub(super) mapping: Mapping,
    /// Pauses it is known for.
    pub(super) patience: Patience,
}

impl Path {
    /// A path that has just come up.
    pub(super) fn new(info: PathUp, endpoint: Option<SocketAddr>) -> Self {
        Self {
            info,
            up: true,
            endpoint,
            link: None,
            cookie: None,
            rtt: Rtt::default(),
            loss: Loss::default(),
            delivery: Delivery::default(),
            heard: None,
            echoed: None,
            answered: None,
            owed: VecDeque::new(),
            probed: None,
            refuses: false,
            missed: 0,
            barred: None,
            streak: 0,
            mapping: Mapping::default(),
            patience: Patience::default(),
        }
    }

    /// Name.
    pub(super) const fn id(&self) -> PathId {
        self.info.path
    }

    /// Whether it can be used at all.
    pub(super) fn usable(&self) -> bool {
        self.up && self.info.class != PathClass::Never && self.endpoint.is_some()
    }

    /// Forgets what a link event made worthless.
    pub(super) fn reset(&mut self) {
        self.heard = None;
        (self.echoed, self.answered) = (None, None);
        self.owed.clear();
        self.probed = None;
        self.refuses = false;
        self.missed = 0;
        self.barred = None;
        self.streak = 0;
        self.mapping = self.mapping.beside();
        self.patience = Patience::default();
        self.delivery.restart();
        if let Some(link) = &mut self.link {
            link.bound = false;
        }
    }

    /// Something authenticated came at `at`: whatever was asked before is answered.
    pub(super) fn hear(&mut self, at: Instant) {
        self.heard = self.heard.max(Some(at));
        self.owed.retain(|&asked| asked > at);
        self.missed = 0;
    }

    /// Something was asked that must be answered.
    pub(super) fn owe(&mut self, now: Instant) {
        if self.owed.len() == OWED_MAX {
            // The oldest decides when the path is suspect; the newest is the one to forget.
            self.owed.pop_back();
        }
        self.owed.push_back(now);
    }

    /// Since when an answer is owed to what was asked after an instant; what was asked before hides nothing.
    pub(super) fn owing_since(&self, after: Instant) -> Option<Instant> {
        self.owed.iter().copied().find(|&asked| asked > after)
    }

    /// Whether it answered lately and has missed nothing since.
    pub(super) fn alive(&self, now: Instant, within: Duration) -> bool {
        self.usable() && !self.refuses && self.missed == 0 && self.heard.is_some_and(|heard| now.since(heard) <= within)
    }

    /// After which time a probe is lost.
    pub(super) fn probe_lost_after(&self) -> Duration {
        PROBE_LOST.max(self.rtt.bound(4))
    }

    /// First wait for an answer to a sealed request.
    pub(super) fn answer_wait(&self) -> Duration {
        if self.rtt.measured() { (self.rtt.bound(2) * 2).clamp(ANSWER_MIN, ANSWER_MAX) } else { ANSWER_UNKNOWN }
    }

    /// What it loses, in 1/1000: of probes both ways or of data up, whichever is worse. A path that loses only large
    /// packets, or only when there are many, loses no probe.
    pub(super) fn loss_permille(&self, now: Instant) -> u16 {
        self.loss.permille().max(self.delivery.lost(now).unwrap_or(0))
    }

    /// How bad it is, in microseconds that are weighted by loss and class: lower is better.
    pub(super) fn score(&self, now: Instant) -> u64 {
        let round_trip = nanos(self.rtt.bound(2)) / 1_000;
        let loss = u64::from(self.loss_permille(now));
        let waited = u64::from(self.delivery.lost(now).unwrap_or(0)) * nanos(RETRANSMISSION) / 1_000_000;
        let weight = match self.info.class {
            PathClass::Primary => 1,
            PathClass::Secondary => 2,
            PathClass::Backup | PathClass::Never => 8,
        };
        // A tenth lost makes a path twice as bad, and whoever lost data waits, however short the round trip is.
        ((round_trip + 1) * (100 + loss) / 100 + waited) * weight
    }
}
