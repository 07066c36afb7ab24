//! Answers to the API, from the engine and the counters.
//!
//! Owns the translation into the API's forms. Must never change a session but through the engine.

use super::Gateway;
use super::jump::Wish;
use crate::api::model::{Candidate, EndReason, PathView, Problem, Session, Status, Terminated, Transport};
use crate::api::{Caller, PAGE, Refused, Request};
use crate::config::Role;
use crate::runtime::clock;
use jvpn_common::gateway::SessionView;
use jvpn_common::gateway::command::{Input, Order};
use jvpn_common::ids::SessionId;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

impl Gateway {
    pub(super) fn serve(&mut self, request: Request) {
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Sessions { after, reply } => drop(reply.send(self.session_page(after))),
            Request::Metrics(reply) => drop(reply.send(self.metrics())),
            Request::Paths(reply) => drop(reply.send(self.path_list())),
            Request::Standing { session, reply } => {
                let standing = self.engine.standing(session, clock::boot());
                drop(reply.send(standing.iter().map(Into::into).collect()));
            }
            Request::Jump { session, to, dry_run, by, reply } => self.jump(Wish { session, to, dry_run, by }, reply),
            Request::Terminate { session, why, dry_run, by, reply } => {
                drop(reply.send(self.terminate(session, why, dry_run, by)));
            }
            Request::ReloadPeers { by, reply } => drop(reply.send(self.reload_peers(by))),
            Request::Reload { mode, dry_run, by, reply } => {
                drop(reply.send(self.reload(mode, dry_run, &by.to_string())));
            }
            Request::Policy { peer, reply } => drop(reply.send(self.policy(peer.as_deref()))),
            Request::Emergency(wish, reply) => drop(reply.send(self.emergency(&wish))),
        }
    }

    pub(super) fn status(&self) -> Status {
        let view = self.engine.view();
        let problems = self.problems();
        Status {
            role: Role::Gateway,
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.clone(),
            healthy: problems.is_empty(),
            problems,
            xdp: self.interfaces.xdp().next().cloned(),
            interfaces: self.interfaces.xdp().cloned().collect(),
            drops: self.drops(),
            sessions: view.states.iter().map(|(state, &count)| (state.name().to_owned(), count as u64)).collect(),
            session: None,
            incarnation: Some(self.incarnation.to_string()),
            emergencies: super::policy::frozen(&self.config, &self.told.emergency),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.audit().is_failing() {
            problems.push(Problem {
                problem: "the audit record cannot be written; no new sessions".to_owned(),
                fix: format!("free space on the disk of {}", self.paths.state_dir.display()),
            });
        }
        if self.executor.keeper.is_failing() {
            problems.push(Problem {
                problem: "the store cannot be written; no new sessions".to_owned(),
                fix: format!("free space on the disk of {}", self.paths.state_dir.display()),
            });
        }
        problems.extend(self.gone.problems());
        problems.extend(self.interfaces.problems());
        for (relay, _) in self.relays.each().filter(|(_, connected)| !connected) {
            problems.push(Problem {
                problem: format!("the relay {} is not connected", relay.name),
                fix: format!(
                    "on it: jvpn-ctl status; its [[owner]] needs this gateway's key and control = {}",
                    self.config.relay_listen
                ),
            });
        }
        problems.extend(self.interfaces.slow(self.config.xdp));
        problems
    }

    /// Drops by name: those of the kernel program and of the steering in the worker, then those of the worker.
    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = crate::runtime::drops(&self.workers.counters());
        drops.extend(crate::runtime::dropped(&*self.executor.plane));
        drops
    }

    fn session_page(&self, after: Option<SessionId>) -> Vec<Session> {
        self.engine.sessions_after(after).take(PAGE).map(|(id, view)| self.session(id, &view)).collect()
    }

    fn session(&self, id: SessionId, view: &SessionView<'_>) -> Session {
        let core = view.core;
        let data = view.slot.and_then(|slot| self.executor.sessions.entry(slot)).map(|entry| &entry.data);
        let transport = core.transport().map(|transport| Transport {
            name: transport.label.to_string(),
            local: self.engine.gateway_address(transport.path.gateway()).map(|at| at.to_string()).unwrap_or_default(),
            remote: transport.path.remote().to_string(),
            since: clock::text(transport.since),
        });
        let active = core.transport().map(|transport| transport.path);
        let candidates = view.validated.iter().filter(|(path, _)| Some(*path) != active);
        let candidates = candidates.map(|(path, label)| Candidate {
            name: label.to_string(),
            remote: path.remote().to_string(),
            validated: true,
        });
        Session {
            session_id: id.to_string(),
            peer: view.name.to_owned(),
            state: core.state().name().to_owned(),
            reason: view.reason.map(|reason| reason.name().to_owned()),
            state_version: core.version().0,
            transport,
            candidates: candidates.collect(),
            addresses: view.addresses.iter().map(ToString::to_string).collect(),
            created: clock::text(core.created_at()),
            switches: core.moves().into(),
            rx_bytes: data.map_or(0, |data| data.traffic().rx_bytes.load(Relaxed)),
            tx_bytes: data.map_or(0, |data| data.traffic().tx_bytes.load(Relaxed)),
            policy: view.policy.name.clone(),
            conditions: Vec::new(),
        }
    }

    fn path_list(&self) -> Vec<PathView> {
        let mut paths = Vec::new();
        for (id, view) in self.engine.sessions() {
            let Some(transport) = view.core.transport() else { continue };
            paths.push(PathView {
                name: transport.label.to_string(),
                session_id: Some(id.to_string()),
                interface: None,
                local: self
                    .engine
                    .gateway_address(transport.path.gateway())
                    .map(|at| at.to_string())
                    .unwrap_or_default(),
                remote: transport.path.remote().to_string(),
                class: transport.class.name().to_owned(),
                state: "active".to_owned(),
                rtt_ms: view.srtt.map(|srtt| srtt.as_secs_f64() * 1e3),
                loss_percent: None,
                data_loss_percent: None,
                jitter_ms: None,
                mtu: Some(transport.mtu),
                gateway_says: Some("bound".to_owned()),
                held_by: None,
                mapping_s: None,
                patience_ms: None,
            });
        }
        paths
    }

    fn terminate(&mut self, id: SessionId, why: EndReason, dry_run: bool, by: Caller) -> Result<Terminated, Refused> {
        let version = self.engine.sessions().find(|(known, _)| *known == id).map(|(_, view)| view.core.version());
        let version = version.ok_or_else(|| Refused::NotFound(format!("no session {id}")))?;
        let reason = why.code();
        if !dry_run {
            tracing::info!(session = %id, by = %by, "ending a session");
            self.input(Input::Order(Order::Terminate { session: id, reason }));
            self.carry_out();
            if self.engine.sessions().any(|(known, _)| known == id) {
                return Err(Refused::Failed("the end could not be committed; see the gateway's log".to_owned()));
            }
        }
        let state_version = (!dry_run).then(|| version.next().0);
        Ok(Terminated { session_id: id.to_string(), reason: reason.name().to_owned(), state_version, dry_run })
    }
}
