//! The door: who gets a Diffie-Hellman.
//!
//! Owns mac1, mac2, cookies, the load meter, timestamps and the memory of recent ephemerals. Everything here
//! costs a hash; nothing here knows a session. Must never refuse a valid mac2 for its timestamp: a device
//! whose clock was once wrong would be locked out.

use crate::crypto::Entropy;
use crate::crypto::cookie::{CookieSecret, MacKeys, ROTATE_EVERY};
use crate::crypto::frame::{Frame, FrameError, unwrap};
use crate::limits::HANDSHAKE_LEN;
use crate::secret::PublicKey;
use crate::session::flap::Meter;
use crate::time::{Duration, Instant};
use crate::wire::Kind;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// Ephemerals remembered, so that a repeated message 1 costs no second Diffie-Hellman. At 5,000 handshakes a
/// second this is a second's worth; a copy that comes later is told apart by its timestamp.
const RECENT_MAX: usize = 4_096;

/// A timestamp further ahead of the gateway's wall clock than this is not remembered.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Messages 1 under computation at once. More are dropped and counted: clients retry.
pub(super) const COMPUTING_MAX: usize = 256;

/// Times a minute a peer's new session may end its old one. A device that restarts in a loop stays below;
/// two devices with one key do not.
const SUPERSEDING_PER_MIN: u32 = 12;

/// What to do with a message 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not one, or not for us.
    Drop,
    /// Compute; whether its source address is proven by mac2.
    Read { proven: bool },
    /// Answer with a cookie; nothing is computed.
    Cookie(Vec<u8>),
}

/// What became of a message 1 with a certain ephemeral key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It was computed.
    Computed,
    /// It was answered with a cookie for its timestamp; it may come once more with mac2.
    CookieAsked,
}

/// Whether a message 1 came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// It did not, or it comes back with the cookie it was asked for.
    New,
    /// It did.
    Again,
    /// It did, and still has not brought its cookie.
    AskedForCookie,
}

/// State of the door.
#[derive(Debug)]
pub(super) struct Admission {
    ours: MacKeys,
    cookies: CookieSecret,
    rotate_at: Instant,
    recent: BTreeMap<[u8; 32], Seen>,
    order: VecDeque<[u8; 32]>,
    timestamps: BTreeMap<PublicKey, u64>,
    superseding: BTreeMap<PublicKey, Meter>,
    second: u64,
    seen: u32,
    threshold: u32,
}

impl Admission {
    pub(super) fn new(public: &PublicKey, threshold: u32, entropy: &mut dyn Entropy, now: Instant) -> Self {
        Self {
            ours: MacKeys::new(public),
            cookies: CookieSecret::new(entropy),
            rotate_at: now + ROTATE_EVERY,
            recent: BTreeMap::new(),
            order: VecDeque::new(),
            timestamps: BTreeMap::new(),
            superseding: BTreeMap::new(),
            second: 0,
            seen: 0,
            threshold,
        }
    }

    /// A message 1 whose framing and mac1 are right.
    pub(super) fn frame<'m>(&self, message: &'m [u8]) -> Result<Frame<'m>, FrameError> {
        unwrap(Kind::Initiation, message, &self.ours)
    }

    pub(super) fn rotate_if_due(&mut self, entropy: &mut dyn Entropy, now: Instant) {
        if now >= self.rotate_at {
            self.cookies.rotate(entropy);
            self.rotate_at = now + ROTATE_EVERY;
        }
    }

    /// Judges a message 1 by its bytes and its source.
    pub(super) fn judge(
        &mut self,
        message: &[u8],
        source: SocketAddr,
        computing: usize,
        entropy: &mut dyn Entropy,
        now: Instant,
    ) -> Verdict {
        if message.len() != HANDSHAKE_LEN || self.frame(message).is_err() {
            return Verdict::Drop;
        }
        self.rotate_if_due(entropy, now);
        let second = now.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.seen) = (second, 0);
        }
        self.seen = self.seen.saturating_add(1);
        if self.cookies.verify_mac2(message, source) {
            return if computing < COMPUTING_MAX { Verdict::Read { proven: true } } else { Verdict::Drop };
        }
        let loaded = self.seen > self.threshold || computing >= COMPUTING_MAX / 2;
        if loaded { self.cookie(message, source, entropy) } else { Verdict::Read { proven: false } }
    }

    /// The cookie reply to a message whose mac1 was right.
    pub(super) fn cookie(&mut self, message: &[u8], source: SocketAddr, entropy: &mut dyn Entropy) -> Verdict {
        let Ok(frame) = self.frame(message) else { return Verdict::Drop };
        match self.cookies.reply(&self.ours, message, frame.index, source, entropy) {
            Some(reply) => Verdict::Cookie(reply.to_vec()),
            None => Verdict::Drop,
        }
    }

    /// Whether a message 1 with this ephemeral was met lately; remembers it.
    pub(super) fn meet(&mut self, ephemeral: &[u8; 32], proven: bool) -> Meeting {
        match self.recent.get_mut(ephemeral) {
            Some(seen @ Seen::CookieAsked) if proven => *seen = Seen::Computed,
            Some(Seen::CookieAsked) => return Meeting::AskedForCookie,
            Some(Seen::Computed) => return Meeting::Again,
            None => {
                if self.order.len() == RECENT_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.recent.remove(&oldest);
                }
                self.order.push_back(*ephemeral);
                self.recent.insert(*ephemeral, Seen::Computed);
            }
        }
        Meeting::New
    }

    /// A message 1 was answered with a cookie after it was computed.
    pub(super) fn asked_for_cookie(&mut self, ephemeral: &[u8; 32]) {
        if let Some(seen) = self.recent.get_mut(ephemeral) {
            *seen = Seen::CookieAsked;
        }
    }

    /// Whether a new session of this peer may end its old one now; counts it.
    pub(super) fn may_supersede(&mut self, peer: &PublicKey, now: Instant) -> bool {
        self.superseding.entry(*peer).or_default().admit(SUPERSEDING_PER_MIN, now)
    }

    /// Whether the timestamp is above the last one of this peer; remembers it unless it lies in the future.
    /// Ask for configured peers only: they bound what is remembered.
    pub(super) fn fresh(&mut self, peer: &PublicKey, timestamp: u64, wall: u64) -> bool {
        let last = self.timestamps.get(peer).copied().unwrap_or(0);
        if timestamp <= last {
            return false;
        }
        if timestamp <= wall.saturating_add(crate::time::nanos(AHEAD_MAX)) {
            self.timestamps.insert(*peer, timestamp);
        }
        true
    }
}
