//! Why sessions ended, for a client that did not hear it.
//!
//! Owns the reasons of the last sessions, without anything of them but id and peer. TERMINATE is sealed with
//! keys that are wiped in the same commit and cannot be repeated; its client hears nothing more, resumes, and
//! is told why it gets a new session. Must never keep a key, nor tell a reason to another peer.

use crate::ids::SessionId;
use crate::reason::Reason;
use crate::secret::PublicKey;
use std::collections::{BTreeMap, VecDeque};

/// Ends remembered. A client resumes within seconds of its end, or with its next network; one whose end is
/// forgotten is told SESSION_NOT_FOUND, which leads to the same new session.
const ENDED_MAX: usize = 1_024;

/// The last ends, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ended {
    reasons: BTreeMap<SessionId, (PublicKey, Reason)>,
    order: VecDeque<SessionId>,
}

impl Ended {
    /// Remembers an end.
    pub(super) fn remember(&mut self, session: SessionId, peer: PublicKey, reason: Reason) {
        if self.reasons.insert(session, (peer, reason)).is_some() {
            return;
        }
        self.order.push_back(session);
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.reasons.remove(&oldest);
        }
    }

    /// Why a session of this peer ended.
    pub(super) fn reason(&self, session: SessionId, peer: &PublicKey) -> Option<Reason> {
        self.reasons.get(&session).filter(|(owner, _)| owner == peer).map(|&(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::test_entropy::Fixed;
    use crate::secret::PrivateKey;

    #[test]
    fn the_last_ends_are_remembered_for_their_own_peer_and_no_more_than_the_bound() {
        let id = |n: u64| SessionId(u128::from(n).to_le_bytes());
        let key = |seed| PrivateKey::generate(&mut Fixed::new(seed)).public();
        let (ours, theirs) = (key(1), key(2));
        let mut ended = Ended::default();
        for n in 0..=ENDED_MAX as u64 {
            ended.remember(id(n), ours, Reason::OperatorTermination);
        }
        assert_eq!(ended.reason(id(1), &ours), Some(Reason::OperatorTermination));
        assert_eq!(ended.reason(id(1), &theirs), None);
        assert_eq!(ended.reason(id(0), &ours), None, "the oldest made room");
        assert_eq!((ended.reasons.len(), ended.order.len()), (ENDED_MAX, ENDED_MAX));
    }
}
