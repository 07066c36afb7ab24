//! Files that are read again while the gateway runs, and emergencies: everything of it or nothing.
//!
//! Owns the order: read, compare, refuse, record, then change. Must never change anything before every file was read
//! and found fine, nor let a session be decided under a policy whose text is not in the record.

use super::{Gateway, setup};
use crate::api::model::{EmergencyState, Reload, Reloaded};
use crate::api::{Caller, Refused, Wish};
use crate::config::diff::ends_session;
use crate::config::{Diff, Emergency, GatewayConfig};
use crate::runtime::clock;
use jvpn_common::gateway::Mode;
use jvpn_common::gateway::command::{Input, Order};
use jvpn_common::ids::{PolicyVersion, SessionId};
use jvpn_common::reason::Reason;
use jvpn_common::secret::PublicKey;
use jvpn_common::session::Policy;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the gateway was told beside its file, and what the record knows.
#[derive(Debug)]
pub(super) struct Told {
    /// Who is under emergency.
    pub(super) emergency: Emergency,
    /// Its own identity: a key file with another key is another gateway.
    public: PublicKey,
    /// Policies whose text this start has recorded.
    recorded: BTreeSet<PolicyVersion>,
}

impl Told {
    pub(super) fn new(emergency: Emergency, public: PublicKey, policies: &BTreeMap<PublicKey, Arc<Policy>>) -> Self {
        Self { emergency, public, recorded: policies.values().map(|policy| policy.version).collect() }
    }
}

impl Gateway {
    /// Reads the files again.
    pub(super) fn reload(&mut self, mode: Option<Mode>, dry_run: bool, by: &str) -> Result<Reload, Refused> {
        let invalid = |text: String| Refused::Invalid(format!("nothing was changed\n{text}"));
        let config = GatewayConfig::load(&self.paths.config).map_err(|report| invalid(report.to_string()))?;
        let keys = config.keys().map_err(|error| invalid(error.to_string()))?;
        let emergency = self.told.emergency.clone();
        let mut diff = Diff::between((&self.config, &emergency), (&config, &emergency));
        if keys.private.public() != self.told.public {
            let [from, to] = [self.told.public, keys.private.public()].map(|key| key.to_string());
            let key = "private_key_file (its public key)".to_owned();
            diff.restart.push(crate::config::diff::KeyChange { key, from, to });
        }
        let mode = mode.unwrap_or(config.reload);
        let answer = Reload { mode: mode.name().to_owned(), dry_run, diff };
        if dry_run {
            return Ok(answer);
        }
        if !answer.diff.restart.is_empty() {
            let lines = answer.diff.lines().into_iter().filter(|line| line.starts_with('!')).collect::<Vec<_>>();
            let text = format!("nothing was changed: start the gateway again for\n{}", lines.join("\n"));
            return Err(Refused::Conflict(text));
        }
        let policies = setup::policies(&config, &emergency);
        self.record_texts(&policies)?;
        let engine = setup::engine(&config, &emergency, keys, (self.incarnation, self.owner_epoch));
        let reborn = self.reborn(&config);
        self.config = config;
        for session in reborn {
            self.input(Input::Order(Order::Terminate { session, reason: Reason::PolicyTermination }));
        }
        self.engine.reload(engine.peers, mode, by);
        self.carry_out();
        tracing::info!(mode = mode.name(), by, changes = ?answer.diff.lines(), "the files were read again");
        Ok(answer)
    }

    /// Sessions whose inner addresses or routes are another peer's, or another's than they were born with.
    fn reborn(&self, new: &GatewayConfig) -> Vec<SessionId> {
        let ends = |key: &PublicKey| {
            let find = |config: &GatewayConfig| config.peers.iter().find(|peer| peer.public_key == *key).cloned();
            find(&self.config).zip(find(new)).is_some_and(|(old, new)| ends_session(&old, &new))
        };
        self.engine.sessions().filter(|(_, view)| ends(view.peer)).map(|(id, _)| id).collect()
    }

    /// On the record before anything is decided under them; each text once.
    fn record_texts(&mut self, policies: &BTreeMap<PublicKey, Arc<Policy>>) -> Result<(), Refused> {
        let news = policies.values().filter(|policy| !self.told.recorded.contains(&policy.version));
        let records = setup::policy_records(&self.config.name, news);
        let failed = |error| Refused::Failed(format!("nothing was changed: the record cannot be written: {error}"));
        self.audit().append_all(records).map_err(failed)?;
        self.told.recorded.extend(policies.values().map(|policy| policy.version));
        Ok(())
    }

    /// SIGHUP: what `reload` without words does, said in the log.
    pub(super) fn reload_by_signal(&mut self) {
        match self.reload(None, false, "SIGHUP") {
            Ok(_) => {}
            Err(Refused::Invalid(text) | Refused::Conflict(text) | Refused::Failed(text)) => {
                tracing::error!("SIGHUP: {text}");
            }
            Err(other) => tracing::error!("SIGHUP: {other:?}"),
        }
    }

    /// After `peer add` and `peer rm`.
    pub(super) fn reload_peers(&mut self, by: Caller) -> Result<Reloaded, Refused> {
        let Diff { added, removed, .. } = self.reload(None, false, &by.to_string())?.diff;
        Ok(Reloaded { added, removed })
    }

    /// Begins or ends an emergency. It counts at once, for reloads that wait with grace as well.
    pub(super) fn emergency(&mut self, wish: &Wish) -> Result<EmergencyState, Refused> {
        let old = self.told.emergency.clone();
        let mut new = old.clone();
        match (&wish.whom, wish.on) {
            (None, true) => new.begin(None, clock::text(clock::boot())),
            (None, false) => new = Emergency::default(),
            (Some(whom), on) => {
                let peer = self.peer_meant(whom)?;
                if !on && new.all {
                    let text = format!("everybody is under emergency; {peer} alone cannot be taken out: `--all`");
                    return Err(Refused::Conflict(text));
                }
                if on {
                    new.begin(Some(peer), clock::text(clock::boot()));
                } else if !new.end(&peer) {
                    return Err(Refused::Conflict(format!("{peer} is not under emergency")));
                }
            }
        }
        let diff = Diff::between((&self.config, &old), (&self.config, &new));
        let policies = setup::policies(&self.config, &new);
        let unkept = |error| Refused::Failed(format!("nothing was changed: {error}"));
        new.store(&self.paths.state_dir).map_err(unkept)?;
        if let Err(refused) = self.record_texts(&policies) {
            if let Err(error) = old.store(&self.paths.state_dir) {
                tracing::error!(%error, "an emergency that did not begin stays in the state directory");
            }
            return Err(refused);
        }
        self.told.emergency = new.clone();
        let by = format!("{}, emergency {}", wish.by, if wish.on { "on" } else { "off" });
        self.engine.set_policies(&policies, Mode::Strict, &by);
        self.carry_out();
        tracing::warn!(all = new.all, peers = ?new.peers, by, "emergency");
        Ok(EmergencyState { emergency: new, diff })
    }
}
