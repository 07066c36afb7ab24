//! Peers and policies that change while sessions live.
//!
//! Owns which policy counts for which session, and whether its client knows. A change of policy is a record, never a
//! transition: what the new bounds do to a session its own timers and requests decide. Must never touch a session
//! that keeps its policy, nor decide anything under a text that is not in the record (the caller writes it first).

use super::command::Command;
use super::table::Live;
use super::{Engine, Peer};
use crate::event::{Event, Record};
use crate::ids::SessionId;
use crate::message::Control;
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::state::named;
use crate::session::{Input, Policy};
use std::collections::BTreeMap;
use std::sync::Arc;

named! {
    /// When the new bounds count for sessions that live.
    Mode {
        /// At once: timers are set anew, and what is overdue under the new bounds fires.
        Strict = 1 "strict",
        /// After each session's next transition, which is still decided under the old ones.
        Grace = 2 "grace",
    }
}

/// The policies of a session.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    /// What it is decided under.
    pub(super) now: Arc<Policy>,
    /// What comes after its next transition.
    pub(super) next: Option<Arc<Policy>>,
}

impl InForce {
    /// One that nothing waits behind.
    pub(super) const fn only(now: Arc<Policy>) -> Self {
        Self { now, next: None }
    }

    /// Takes a policy that was configured; gives what it replaces, if it is news.
    fn take(&mut self, to: &Arc<Policy>, mode: Mode) -> Option<Arc<Policy>> {
        let expected = self.next.as_ref().unwrap_or(&self.now).clone();
        let news = match mode {
            Mode::Strict => self.now.version != to.version || self.next.is_some(),
            Mode::Grace => expected.version != to.version,
        };
        let back = self.now.version == to.version;
        match mode {
            Mode::Strict => *self = Self::only(to.clone()),
            // What is in force already has nothing to wait for.
            Mode::Grace => self.next = (!back).then(|| to.clone()),
        }
        news.then_some(expected)
    }
}

impl Engine {
    /// Replaces the peers and their policies; sessions of those that are gone end, confirmed or not. `by` is who
    /// wants it, for the record.
    pub fn reload(&mut self, peers: BTreeMap<PublicKey, Peer>, mode: Mode, by: &str) {
        self.config.peers = peers;
        let known: Vec<PublicKey> = self.config.peers.keys().copied().collect();
        self.end_births(&Input::PeerRemoved, |peer| known.binary_search(peer).is_err());
        let ids: Vec<SessionId> = self.table.sessions.keys().copied().collect();
        for id in ids {
            self.renew(id, mode, by);
        }
        let gone = |live: &Live| !self.config.peers.contains_key(&live.peer);
        let gone: Vec<SessionId> =
            self.table.sessions.iter().filter(|(_, live)| gone(live)).map(|(&id, _)| id).collect();
        for id in gone {
            self.terminate(id, Reason::PolicyTermination);
        }
    }

    /// Replaces the policies of peers that stay what they are.
    pub fn set_policies(&mut self, policies: &BTreeMap<PublicKey, Arc<Policy>>, mode: Mode, by: &str) {
        for (key, peer) in &mut self.config.peers {
            peer.policy = policies.get(key).unwrap_or(&peer.policy).clone();
        }
        let ids: Vec<SessionId> = self.table.sessions.keys().copied().collect();
        ids.into_iter().for_each(|id| self.renew(id, mode, by));
    }

    /// Gives a session the policy that is configured for its peer.
    fn renew(&mut self, id: SessionId, mode: Mode, by: &str) {
        let Some(live) = self.table.sessions.get_mut(&id) else { return };
        let Some(to) = self.config.peers.get(&live.peer).map(|peer| peer.policy.clone()) else { return };
        let Some(from) = live.policy.take(&to, mode) else { return };
        let peer = live.peer;
        let Some(live) = self.table.sessions.get(&id) else { return };
        let changed = from.changes(&to).into_iter();
        let changed: serde_json::Map<String, serde_json::Value> =
            changed.map(|(key, old, new)| (key.to_owned(), format!("{old} → {new}").into())).collect();
        let mut record = Record::about(&self.context(&peer), &live.core, Event::PolicyEvent, None)
            .with("policy", to.name.clone().into())
            .with("mode", mode.name().into())
            .with("from_version", from.version.0.into())
            .with("changed", changed.into())
            .with("by", by.into());
        record.policy_version = to.version;
        self.commands.push_back(Command::Record(Box::new(record)));
        if mode == Mode::Strict {
            self.tell_policy(id);
            // What ran out under the new bounds fires with the next input; a commit under way arms once it is done.
            self.arm(id);
        }
    }

    /// A session made a transition: what waited for it counts from now on, and its client should know.
    pub(super) fn advance_policy(&mut self, id: SessionId) {
        if let Some(live) = self.table.sessions.get_mut(&id)
            && let Some(next) = live.policy.next.take()
        {
            live.policy.now = next;
        }
        self.tell_policy(id);
    }

    /// Sends a bound session's client the policy in force, unless it has it or it is on its way.
    pub(super) fn tell_policy(&mut self, id: SessionId) {
        let Some(live) = self.table.sessions.get(&id).filter(|live| live.core.is_bound()) else { return };
        let Some(attachment) = live.slot.and_then(|slot| self.table.attachments.get(&slot)) else { return };
        if attachment.told == live.policy.now.version {
            return;
        }
        let body = Control::PolicyUpdate(live.policy.now.encode());
        if !attachment.outbox.holds(&body) {
            self.push(id, body);
        }
    }

    /// The policy of a session; one that is unknown has the defaults.
    pub(super) fn policy_of(&self, id: SessionId) -> Arc<Policy> {
        self.table.sessions.get(&id).map_or_else(|| Arc::new(Policy::field()), |live| live.policy.now.clone())
    }

    /// The policy a peer's next session has; a removed peer has the defaults.
    pub(super) fn policy(&self, peer: &PublicKey) -> Arc<Policy> {
        self.config.peers.get(peer).map_or_else(|| Arc::new(Policy::field()), |peer| peer.policy.clone())
    }

    /// The policy a CONFIRM is decided under: a resumed session's own, or the one its peer's next session has.
    pub(super) fn deciding(&self, id: SessionId, peer: &PublicKey) -> Arc<Policy> {
        if self.table.sessions.contains_key(&id) { self.policy_of(id) } else { self.policy(peer) }
    }

    /// The policies a confirmed session goes on with: its peer's, or what it had when the peer is gone.
    pub(super) fn confirmed_policy(&self, id: SessionId, peer: &PublicKey) -> InForce {
        let configured = self.config.peers.get(peer).map(|peer| peer.policy.clone());
        InForce::only(configured.unwrap_or_else(|| self.policy_of(id)))
    }
}
