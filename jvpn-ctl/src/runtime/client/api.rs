//! Answers to the API, from the engine's view.
//!
//! Owns the translation into the API's forms, and the one jump an operator waits for.

use super::Client;
use crate::api::model::{
    Candidate, EndReason, Jumped, PathView, PolicyValue, PolicyView, Problem, Session, Status, Terminated, Transport,
};
use crate::api::{Refused, Reply, Request};
use crate::config::Role;
use crate::runtime::{JUMP_MAX, clock};
use jvpn_common::client::command::{Input, PathClass};
use jvpn_common::client::view::{PathState, PathView as Seen, Phase, View};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::policy::BetterSwitching;
use jvpn_common::session::{Label, Policy, State};
use jvpn_common::time::Instant;
use std::sync::atomic::Ordering::Relaxed;

/// Why a client does not do it.
const GATEWAYS: &str = "a client's policy comes from its gateway: do it there";

/// A jump somebody waits for.
pub(super) struct PendingJump {
    to: Label,
    from: Option<String>,
    since: Instant,
    version: u64,
    reply: Reply<Result<Jumped, Refused>>,
}

impl Client {
    pub(super) fn serve(&mut self, request: Request) {
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Sessions { after, reply } => {
                // There is one; ids as text have the order they have as numbers.
                let behind = |session: &Session| after.is_none_or(|after| session.session_id > after.to_string());
                let page = self.session().into_iter().filter(behind);
                drop(reply.send(page.collect()));
            }
            Request::Metrics(reply) => drop(reply.send(self.metrics())),
            Request::Paths(reply) => drop(reply.send(self.path_list())),
            Request::Standing { reply, .. } => drop(reply.send(Vec::new())),
            Request::Jump { to, dry_run, reply, .. } => self.jump(&to, dry_run, reply),
            Request::Terminate { session, why, dry_run, reply, .. } => {
                drop(reply.send(self.terminate(session, why, dry_run)));
            }
            Request::ReloadPeers { reply, .. } => {
                drop(reply.send(Err(Refused::Failed("a client has no peers".to_owned()))));
            }
            Request::Policy { reply, .. } => drop(reply.send(self.policy())),
            Request::Reload { reply, .. } => drop(reply.send(Err(Refused::Conflict(GATEWAYS.to_owned())))),
            Request::Emergency(_, reply) => drop(reply.send(Err(Refused::Conflict(GATEWAYS.to_owned())))),
        }
    }

    pub(super) fn status(&self) -> Status {
        let view = self.engine.view();
        let session = self.session();
        let problems = problems(&view);
        Status {
            role: Role::Client,
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.clone(),
            healthy: problems.is_empty(),
            problems,
            xdp: None,
            interfaces: Vec::new(),
            drops: crate::runtime::drops(&self.counters),
            sessions: session.iter().map(|session| (session.state.clone(), 1)).collect(),
            session,
            incarnation: Some(view.incarnation.to_string()),
            emergencies: Vec::new(),
        }
    }

    fn session(&self) -> Option<Session> {
        let view = self.engine.view();
        let id = view.session?;
        let active = view.paths.iter().find(|path| path.active);
        let snapshot = self.sets.snapshot();
        let sum = |count: fn(&crate::tunnel::Traffic) -> &std::sync::atomic::AtomicU64| {
            snapshot.sets.values().map(|set| count(set.data.traffic()).load(Relaxed)).sum()
        };
        Some(Session {
            session_id: id.to_string(),
            peer: self.config.name.clone(),
            state: State::from_number(view.state).map_or("", |state| state.name()).to_owned(),
            reason: view.reasons.first().map(|reason| reason.name().to_owned()),
            state_version: view.version.0,
            transport: active.map(|path| Transport {
                name: path.label.to_string(),
                local: self.local(path),
                remote: path.endpoint.map(|at| at.to_string()).unwrap_or_default(),
                since: view.since.map(clock::text).unwrap_or_default(),
            }),
            candidates: view.paths.iter().filter(|path| !path.active).map(candidate).collect(),
            addresses: view.addresses.iter().map(ToString::to_string).collect(),
            created: view.since.map(clock::text).unwrap_or_default(),
            switches: view.switches.into(),
            rx_bytes: sum(|traffic| &traffic.rx_bytes),
            tx_bytes: sum(|traffic| &traffic.tx_bytes),
            policy: Policy::decode(&view.policy).map(|policy| policy.name).unwrap_or_default(),
            conditions: view.conditions.iter().map(|reason| reason.name().to_owned()).collect(),
        })
    }

    /// The snapshot the gateway sent last.
    fn policy(&self) -> Result<PolicyView, Refused> {
        let view = self.engine.view();
        let none = || Refused::NotFound("there is no session, and a policy comes with one".to_owned());
        let (id, policy) = view.session.zip(Policy::decode(&view.policy)).ok_or_else(none)?;
        let value = |(key, value): (&str, String)| PolicyValue {
            key: key.to_owned(),
            value,
            source: "the gateway's snapshot".to_owned(),
            next: None,
        };
        Ok(PolicyView {
            peer: self.config.name.clone(),
            policy_version: policy.version.0,
            next_version: None,
            emergency: policy.better_switching == BetterSwitching::Frozen,
            session_id: Some(id.to_string()),
            client_version: Some(policy.version.0),
            received: view.policy_at.map(clock::text),
            values: policy.values().into_iter().map(value).collect(),
            policy: policy.name,
        })
    }

    fn local(&self, path: &Seen) -> String {
        let path = self.networks.path(path.path);
        path.map(|path| {
            let port = path.port.local_addr().map(|at| at.port()).unwrap_or(0);
            std::net::SocketAddr::new(path.candidate.network.address, port).to_string()
        })
        .unwrap_or_default()
    }

    fn path_list(&self) -> Vec<PathView> {
        let view = self.engine.view();
        let shown = |path: &Seen| PathView {
            name: path.label.to_string(),
            session_id: view.session.map(|id| id.to_string()),
            interface: self.networks.path(path.path).map(|path| path.candidate.network.interface.clone()),
            local: self.local(path),
            remote: path.endpoint.map(|at| at.to_string()).unwrap_or_default(),
            class: class(path.class).to_owned(),
            state: path_state(path).to_owned(),
            rtt_ms: path.srtt.map(|srtt| srtt.as_secs_f64() * 1e3),
            loss_percent: Some(f64::from(path.loss_permille) / 10.0),
            data_loss_percent: path.data_loss_permille.map(|permille| f64::from(permille) / 10.0),
            jitter_ms: path.jitter.map(|jitter| jitter.as_secs_f64() * 1e3),
            mtu: path.mtu,
            gateway_says: Some(if path.bound { "bound" } else { "not bound" }.to_owned()),
            held_by: path.held_by.map(|reason| reason.name().to_owned()),
            mapping_s: path.mapping.map(|life| life.as_secs_f64()),
            patience_ms: path.patience.map(|waits| waits.as_secs_f64() * 1e3),
        };
        view.paths.iter().map(shown).collect()
    }

    fn jump(&mut self, to: &str, dry_run: bool, reply: Reply<Result<Jumped, Refused>>) {
        let view = self.engine.view();
        let from = view.paths.iter().find(|path| path.active).map(|path| path.label.to_string());
        // Two ports of one transport have one name; the one in use says whether the session is there.
        let named = view.paths.iter().filter(|path| path.label.as_str() == to);
        let Some(wanted) = named.max_by_key(|path| path.active) else {
            let names: Vec<_> = view.paths.iter().map(|path| path.label.to_string()).collect();
            let text = format!("no transport `{to}`; there are: {}", names.join(", "));
            return drop(reply.send(Err(Refused::NotFound(text))));
        };
        let session_id = view.session.map(|id| id.to_string()).unwrap_or_default();
        if wanted.active || dry_run {
            let answer = Jumped { session_id, from, to: to.to_owned(), state_version: None, took_ms: None, dry_run };
            return drop(reply.send(Ok(answer)));
        }
        self.jump = Some(PendingJump { to: wanted.label, from, since: clock::boot(), version: view.version.0, reply });
        let label = wanted.label;
        self.input(Input::Jump { label });
    }

    /// Answers whoever waits for a jump, once it is known.
    pub(super) fn answer_jump(&mut self) {
        let Some(jump) = self.jump.take() else { return };
        let view = self.engine.view();
        let waited = clock::boot().since(jump.since);
        let there = view.paths.iter().any(|path| path.active && path.label == jump.to);
        if there && view.version.0 > jump.version {
            let answer = Jumped {
                session_id: view.session.map(|id| id.to_string()).unwrap_or_default(),
                from: jump.from,
                to: jump.to.to_string(),
                state_version: Some(view.version.0),
                took_ms: Some(waited.as_secs_f64() * 1e3),
                dry_run: false,
            };
            drop(jump.reply.send(Ok(answer)));
        } else if waited > JUMP_MAX {
            let reason = view.reasons.first().copied().unwrap_or(Reason::NoValidCandidate);
            let text = format!("the session did not move within {} s; see `paths`", JUMP_MAX.as_secs());
            drop(jump.reply.send(Err(Refused::Denied { reason, detail: None, text })));
        } else {
            self.jump = Some(jump);
        }
    }

    fn terminate(&mut self, session: SessionId, why: EndReason, dry_run: bool) -> Result<Terminated, Refused> {
        let view = self.engine.view();
        if view.session != Some(session) {
            return Err(Refused::NotFound(format!("no session {session}")));
        }
        if why != EndReason::Operator {
            let text = format!("a client ends its session with {}; say why on the gateway", Reason::ClientTermination);
            return Err(Refused::Failed(text));
        }
        if !dry_run {
            self.input(Input::Close);
        }
        let reason = Reason::ClientTermination.name().to_owned();
        let state_version = (!dry_run).then(|| view.version.next().0);
        Ok(Terminated { session_id: session.to_string(), reason, state_version, dry_run })
    }
}

fn candidate(path: &Seen) -> Candidate {
    Candidate {
        name: path.label.to_string(),
        remote: path.endpoint.map(|at| at.to_string()).unwrap_or_default(),
        validated: path.validated,
    }
}

fn problems(view: &View) -> Vec<Problem> {
    let mut problems: Vec<Problem> = view
        .conditions
        .iter()
        .map(|reason| Problem {
            problem: format!("{}: {}", reason.name(), reason.meaning()),
            fix: reason.advice().to_owned(),
        })
        .collect();
    let (problem, fix) = match view.phase {
        Phase::Connected => return problems,
        Phase::Waiting => ("no network leads to the gateway", "connect a network; `paths` lists what is seen"),
        // It did answer, with what is above.
        Phase::Connecting if !problems.is_empty() => return problems,
        Phase::Connecting => {
            ("the gateway has not answered yet", "check endpoints and public_key; is the gateway running?")
        }
        Phase::Recovering => ("the transport is lost; another one is being proven", "wait, or see `paths`"),
        Phase::Closed => ("the session was closed", "start `jvpn-ctl connect` again"),
    };
    problems.push(Problem { problem: problem.to_owned(), fix: fix.to_owned() });
    problems
}

const fn class(class: PathClass) -> &'static str {
    match class {
        PathClass::Primary => "primary",
        PathClass::Secondary => "secondary",
        PathClass::Backup => "backup",
        PathClass::Never => "never",
    }
}

pub(super) const fn path_state(path: &Seen) -> &'static str {
    match path.state {
        PathState::Alive if path.active => "active",
        PathState::Alive if path.beside => "second port",
        PathState::Alive => "standby",
        PathState::New => "unproven",
        PathState::Suspect => "suspect",
        PathState::Dead | PathState::Down => "dead",
    }
}
