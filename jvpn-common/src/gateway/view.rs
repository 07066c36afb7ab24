//! What the engine shows of itself: sessions, counts of what it dropped.
//!
//! Owns read-only pictures for `status` and `sessions`. Must never show a key.

use super::Engine;
use super::attachment::Issued;
use crate::ids::{PolicyVersion, SessionId, Slot};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::account;
use crate::session::{Label, Path, Policy, Session, State};
use crate::time::{Duration, Instant};
use core::ops::Bound;
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Why the engine dropped or refused a datagram without changing anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// A type that is not for a gateway's controller.
    Kind,
    /// Handshake: wrong length, mac1, version, or too many under computation.
    Door,
    /// Handshake: answered with a cookie instead.
    CookieSent,
    /// Handshake: message 1 came again and nothing is pending for it.
    HandshakeRepeated,
    /// Handshake: does not open, or says nothing known.
    HandshakeForged,
    /// Handshake: refused with a reason.
    HandshakeRefused,
    /// Handshake: a newer one of this peer is pending.
    HandshakeOlder,
    /// Control: no such locator.
    UnknownLocator,
    /// Control: wrong steering tag.
    ForgedTag,
    /// Control: header, epoch or flags.
    ControlHeader,
    /// Control: seen before.
    Replayed,
    /// Control: does not open.
    Forged,
    /// Control: opens and says nothing known.
    ControlFormat,
    /// Control: not allowed on a pending slot, or CONFIRM from another address.
    Unconfirmed,
    /// Control: a commit of this session is under way.
    Busy,
    /// Control: more local addresses than can be told apart.
    GatewayAddress,
    /// A cookie that is wrong or expired.
    Cookie,
    /// Control: over the peer's limit of requests.
    RateLimited,
    /// Refused by the session core.
    Refused,
    /// A message of our own that was given up: its acknowledgement never came, or newer ones took its room.
    Unacknowledged,
    /// A commit failed and was rolled back.
    CommitFailed,
    /// An answer that would have been larger than its question: a bug.
    AnswerTooLarge,
    /// An outcome nobody waits for: a bug of the runtime.
    UnknownOutcome,
}

/// One session as people see it.
#[derive(Clone, Debug)]
pub struct SessionView<'a> {
    /// The core.
    pub core: &'a Session,
    /// Its peer.
    pub peer: &'a PublicKey,
    /// Name of the peer.
    pub name: &'a str,
    /// Slot in the maps, if it is attached.
    pub slot: Option<Slot>,
    /// Addresses that answered a challenge, oldest first, and what the client calls their transports.
    pub validated: &'a [(Path, Label)],
    /// Reason of the last transition.
    pub reason: Option<Reason>,
    /// Inner addresses.
    pub addresses: &'a [IpNet],
    /// The policy it is decided under.
    pub policy: &'a Policy,
    /// The one that counts after its next transition.
    pub policy_next: Option<&'a Policy>,
    /// The version of policy its client has; none while it has no keys.
    pub policy_told: Option<PolicyVersion>,
    /// Smoothed round trip of the active transport, as the client reports it.
    pub srtt: Option<Duration>,
    /// When anything authenticated came last.
    pub last_opened: Option<Instant>,
}

/// The engine as people see it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Sessions in each state.
    pub states: BTreeMap<State, usize>,
    /// Unconfirmed handshakes.
    pub pending: usize,
    /// What was dropped.
    pub drops: BTreeMap<Drop, u64>,
    /// Rows of the transition table taken, by index.
    pub rows: BTreeMap<usize, u64>,
    /// Messages opened, by kind.
    pub seen: BTreeMap<&'static str, u64>,
}

impl Engine {
    /// Where a session stands with its policy now; nothing of one that is unknown.
    #[must_use]
    pub fn standing(&self, id: SessionId, now: Instant) -> Vec<account::Bound> {
        let Some(live) = self.table.sessions.get(&id) else { return Vec::new() };
        live.core.standing(&self.policy_of(id), now)
    }

    /// Counts.
    #[must_use]
    pub fn view(&self) -> View {
        let (drops, rows, seen) = (self.drops.clone(), self.rows.clone(), self.seen.clone());
        let mut view = View { drops, rows, seen, ..View::default() };
        for live in self.table.sessions.values() {
            *view.states.entry(live.core.state()).or_default() += 1;
        }
        view.pending = self.table.attachments.values().filter(|held| held.pending.is_some()).count();
        view
    }

    /// Every session, in order of id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionView<'_>)> {
        self.sessions_after(None)
    }

    /// Those behind an id, in order.
    pub fn sessions_after(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, SessionView<'_>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.table.sessions.range((from, Bound::Unbounded)).map(|(&id, live)| {
            let attachment = live.slot.and_then(|slot| self.table.attachments.get(&slot));
            let active = live.core.transport().map(|transport| transport.k);
            let srtt = attachment.zip(active).and_then(|(held, k)| held.locators.get(&k)).map(Issued::srtt);
            let peer = self.config.peers.get(&live.peer);
            let view = SessionView {
                core: &live.core,
                peer: &live.peer,
                name: peer.map_or("", |peer| &peer.name),
                slot: live.slot,
                validated: attachment.map_or(&[], |held| held.validated.as_slice()),
                reason: live.reason,
                addresses: peer.map_or(&[], |peer| peer.addresses.as_slice()),
                policy: &live.policy.now,
                policy_next: live.policy.next.as_deref(),
                policy_told: attachment.map(|held| held.told),
                srtt: srtt.filter(|srtt| !srtt.is_zero()),
                last_opened: attachment.map(|held| held.last_opened),
            };
            (id, view)
        })
    }
}
