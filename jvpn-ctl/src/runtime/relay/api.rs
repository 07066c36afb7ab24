//! Answers to the API about a relay.
//!
//! Owns the translation into the API's forms. A relay has no sessions of its own and moves none. Must never say that
//! an owner is there whose lease has run out.

use super::Relay;
use crate::api::model::{Problem, Status};
use crate::api::{Refused, Request};
use crate::config::Role;
use std::collections::BTreeMap;

const NOT_HERE: &str = "a relay has no policies, and moves and ends no session: ask the gateway that owns it";

impl Relay {
    pub(super) fn serve(&self, request: Request) {
        let refused = || Refused::Failed(NOT_HERE.to_owned());
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Sessions { reply, .. } => drop(reply.send(Vec::new())),
            Request::Metrics(reply) => drop(reply.send(self.metrics())),
            Request::Paths(reply) => drop(reply.send(Vec::new())),
            Request::Standing { reply, .. } => drop(reply.send(Vec::new())),
            Request::Jump { reply, .. } => drop(reply.send(Err(refused()))),
            Request::Terminate { reply, .. } => drop(reply.send(Err(refused()))),
            Request::ReloadPeers { reply, .. } => drop(reply.send(Err(refused()))),
            Request::Reload { reply, .. } => drop(reply.send(Err(refused()))),
            Request::Policy { reply, .. } => drop(reply.send(Err(refused()))),
            Request::Emergency(_, reply) => drop(reply.send(Err(refused()))),
        }
    }

    pub(super) fn status(&self) -> Status {
        let problems = self.problems();
        let names = self.owners.iter().map(|state| format!("held of {}", state.peer.name));
        let counts = (0_u16..).map(|owner| self.hold.of_owner(owner) as u64);
        Status {
            role: Role::Relay,
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started.clone(),
            healthy: problems.is_empty(),
            problems,
            xdp: self.interfaces.xdp().next().cloned(),
            interfaces: self.interfaces.xdp().cloned().collect(),
            drops: self.drops(),
            sessions: names.zip(counts).collect(),
            session: None,
            incarnation: None,
            emergencies: Vec::new(),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.interfaces.problems().collect();
        for state in self.owners.iter().filter(|state| state.say.is_none()) {
            problems.push(Problem {
                problem: format!("no stream to the owner {}: {}", state.peer.name, state.why),
                fix: format!(
                    "is {} reachable, and does it have a table [[relay]] with this relay's key?",
                    state.peer.control
                ),
            });
        }
        if self.hold.is_full() {
            problems.push(Problem {
                problem: format!(
                    "all {} sessions there is room for are held; owners are refused more",
                    self.hold.len()
                ),
                fix: "stop the relay, jvpn-ctl unload each interface, raise max_sessions, start it again".to_owned(),
            });
        }
        problems.extend(self.interfaces.slow(self.config.xdp));
        problems
    }

    /// Drops by verdict, and what the process did not pass on.
    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::from([
            ("relay_refused".to_owned(), self.forward.refused),
            ("relay_unsent".to_owned(), self.forward.unsent),
        ]);
        drops.retain(|_, count| *count > 0);
        drops.extend(crate::runtime::dropped(&*self.plane));
        drops
    }
}
