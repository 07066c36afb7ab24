//! The policy of a peer as people ask for it: every value and where it comes from.
//!
//! Owns finding the peer that is meant. Must never show what is configured for what is in force.

use super::Gateway;
use crate::api::Refused;
use crate::api::model::{PolicyValue, PolicyView};
use crate::config::report::did_you_mean;
use crate::config::{Emergency, Frozen, GatewayConfig, PeerConfig};
use jvpn_common::gateway::SessionView;
use jvpn_common::ids::SessionId;
use jvpn_common::session::Policy;
use jvpn_common::session::policy::BetterSwitching;

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

/// Whose optional moves are frozen, by an emergency or by their own class.
pub(super) fn frozen(config: &GatewayConfig, emergency: &Emergency) -> Vec<Frozen> {
    let class_of = |name: &str| config.peers.iter().find(|peer| peer.name == name).map(|peer| peer.policy.clone());
    let end = |whom: &str| {
        let whom = if emergency.all { "--all" } else { whom };
        format!("jvpn-ctl policy emergency off {whom}")
    };
    let everybody = emergency.all.then(|| Frozen {
        peers: Vec::new(),
        policy: None,
        since: emergency.all_since.clone(),
        end: end("--all"),
    });
    let named = emergency.peers.iter().map(|name| Frozen {
        peers: vec![name.clone()],
        policy: class_of(name),
        since: emergency.since.get(name).cloned(),
        end: end(name),
    });
    let by_class = config.policies.iter().filter(|(_, policy)| policy.better_switching == BetterSwitching::Frozen);
    let by_class = by_class.map(|(class, _)| Frozen {
        peers: config.peers.iter().filter(|peer| peer.policy == *class).map(|peer| peer.name.clone()).collect(),
        policy: Some(class.clone()),
        since: None,
        end: "another class or better_switching in the gateway's file, then jvpn-ctl reload".to_owned(),
    });
    everybody.into_iter().chain(named).chain(by_class.filter(|frozen| !frozen.peers.is_empty())).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GatewayConfig {
        let peer = |name: &str, key: &str, n: u8, class: &str| {
            format!(
                "[[peer]]\nname = \"{name}\"\npublic_key = \"{key}\"\naddresses = [\"10.77.0.{n}/32\"]\npolicy = \"{class}\"\n"
            )
        };
        let key = |n: u8| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [n; 32]);
        let text = format!(
            "[gateway]\nname = \"gw\"\nprivate_key_file = \"key\"\ninterfaces = [\"eth0\"]\naddresses = [\"10.77.0.1/24\"]\n\n{}{}",
            peer("till", &key(8), 7, "field"),
            peer("van", &key(9), 9, "emergency"),
        );
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, text).expect("written");
        GatewayConfig::load(&file).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn an_emergency_is_shown_with_whom_since_when_over_what_and_how_it_ends() {
        let (config, mut emergency) = (config(), Emergency::default());
        let shown = |emergency: &Emergency| frozen(&config, emergency);
        let [by_class] = &shown(&emergency)[..] else { panic!("{:?}", shown(&emergency)) };
        assert_eq!(
            (by_class.peers.as_slice(), by_class.policy.as_deref()),
            (&["van".to_owned()][..], Some("emergency"))
        );
        assert!(by_class.since.is_none() && by_class.end.contains("jvpn-ctl reload"));

        emergency.begin(Some("till".to_owned()), "2026-01-02T03:04:05Z".to_owned());
        let named = shown(&emergency).remove(0);
        assert_eq!((named.peers.as_slice(), named.policy.as_deref()), (&["till".to_owned()][..], Some("field")));
        assert_eq!(named.since.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(named.end, "jvpn-ctl policy emergency off till");

        emergency.begin(None, "2026-01-02T03:05:00Z".to_owned());
        let all = shown(&emergency);
        assert!(all[0].peers.is_empty() && all[0].policy.is_none());
        assert_eq!(all[0].since.as_deref(), Some("2026-01-02T03:05:00Z"));
        let ends: Vec<&str> = all[..2].iter().map(|frozen| frozen.end.as_str()).collect();
        assert_eq!(ends, ["jvpn-ctl policy emergency off --all"; 2], "one alone cannot be taken out of it");
    }
}
