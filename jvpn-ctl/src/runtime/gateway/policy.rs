//! The policy of a peer as people ask for it: every value and where it comes from.
//!
//! Owns finding the peer that is meant. Must never show what is configured for what is in force.

use super::Gateway;
use crate::api::Refused;
use crate::api::model::{PolicyValue, PolicyView};
use crate::config::report::did_you_mean;
use crate::config::{Emergency, GatewayConfig, PeerConfig};
use jvpn_common::gateway::SessionView;
use jvpn_common::ids::SessionId;
use jvpn_common::session::Policy;

impl Gateway {
    /// The name of a peer, from it or from the start of its session's id.
    pub(super) fn peer_meant(&self, word: &str) -> Result<String, Refused> {
        if self.config.peers.iter().any(|peer| peer.name == word) {
            return Ok(word.to_owned());
        }
        let prefix = word.to_ascii_lowercase();
        let mut sessions = self.engine.sessions().filter(|(id, _)| id.to_string().starts_with(&prefix));
        match (sessions.next(), sessions.next()) {
            (Some((_, view)), None) => Ok(view.name.to_owned()),
            (Some((one, _)), Some((other, _))) => {
                Err(Refused::Invalid(format!("`{word}` is short for {one} and {other}")))
            }
            (None, _) => {
                let guess = did_you_mean(word, self.config.peers.iter().map(|peer| peer.name.as_str()));
                let guess = guess.map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
                Err(Refused::NotFound(format!("no peer is called `{word}`, and no session's id starts so{guess}")))
            }
        }
    }

    pub(super) fn policy(&self, word: Option<&str>) -> Result<PolicyView, Refused> {
        let Some(word) = word else {
            return Err(Refused::Invalid("whose? name a peer, or the start of its session's id".to_owned()));
        };
        let name = self.peer_meant(word)?;
        let peer = self.config.peers.iter().find(|peer| peer.name == name);
        let peer = peer.ok_or_else(|| Refused::NotFound(format!("{name} is not configured any more")))?;
        let session = self.engine.sessions().find(|(_, view)| *view.peer == peer.public_key);
        Ok(shown(&self.config, &self.told.emergency, peer, session.as_ref()))
    }
}

/// What is in force for a peer.
pub(crate) fn shown(
    config: &GatewayConfig,
    emergency: &Emergency,
    peer: &PeerConfig,
    session: Option<&(SessionId, SessionView<'_>)>,
) -> PolicyView {
    let configured = emergency.policy_of(config, peer);
    let view = session.map(|(_, view)| view);
    let now = view.map_or(&configured, |view| view.policy);
    let next = view.and_then(|view| view.policy_next);
    let later = next.map(Policy::values);
    let class = config.policies.get(&peer.policy).cloned().unwrap_or_default();
    let source = |key: &str, value: &String| {
        let of = |policy: &Policy| policy.values().into_iter().find(|(name, _)| *name == key).map(|(_, value)| value);
        if of(&class).as_ref() == Some(value) {
            config.origins.get(&peer.policy).map_or_else(|| "default".to_owned(), |origin| origin.of(key, &class))
        } else if of(&configured).as_ref() == Some(value) {
            "emergency".to_owned()
        } else {
            "before the last reload".to_owned()
        }
    };
    let values = now.values().into_iter().enumerate().map(|(place, (key, value))| {
        let next = later.as_ref().and_then(|later| later.get(place)).map(|(_, next)| next.clone());
        let source = source(key, &value);
        PolicyValue { key: key.to_owned(), source, next: next.filter(|next| *next != value), value }
    });
    PolicyView {
        peer: peer.name.clone(),
        policy: now.name.clone(),
        policy_version: now.version.0,
        next_version: next.map(|next| next.version.0),
        emergency: emergency.covers(&peer.name),
        session_id: session.map(|(id, _)| id.to_string()),
        client_version: view.and_then(|view| view.policy_told).map(|version| version.0),
        received: None,
        values: values.collect(),
    }
}
