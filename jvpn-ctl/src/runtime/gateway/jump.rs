//! An operator on the gateway asks a client to move, and waits for what comes of it.
//!
//! Owns the question until it is answered. Only the client moves a session, and only the client knows all of its
//! transports: the gateway knows those whose addresses answered a challenge. Must never say that a session moved before
//! it did.

use super::Gateway;
use crate::api::model::Jumped;
use crate::api::{Caller, REQUESTS_MAX, Refused, Reply};
use crate::runtime::{JUMP_MAX, clock};
use jvpn_common::gateway::SessionView;
use jvpn_common::gateway::command::{Input, Order};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::Label;
use jvpn_common::session::policy::BetterSwitching;
use jvpn_common::time::Instant;
use std::collections::BTreeSet;

/// What was asked.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) session: Option<SessionId>,
    pub(super) to: String,
    pub(super) dry_run: bool,
    pub(super) by: Caller,
}

/// What a wish comes to.
#[derive(Debug)]
struct Plan {
    session: SessionId,
    to: Label,
    version: u64,
    /// What is answered at once, or once the session moved.
    answer: Jumped,
    /// Whether the client has to be asked.
    asks: bool,
}

/// A jump somebody waits for.
#[derive(Debug)]
pub(super) struct PendingJump {
    plan: Plan,
    since: Instant,
    reply: Reply<Result<Jumped, Refused>>,
}

fn denied(text: String) -> Refused {
    Refused::Denied { reason: Reason::TransportSwitchDenied, detail: Some(Reason::NoValidCandidate), text }
}

/// Names of the transports a client has shown.
fn shown(view: &SessionView<'_>) -> String {
    let active = view.core.transport().map(|transport| transport.label);
    let validated = view.validated.iter().map(|(_, label)| *label);
    let names: BTreeSet<String> = active.into_iter().chain(validated).map(|label| label.to_string()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl Gateway {
    pub(super) fn jump(&mut self, wish: Wish, reply: Reply<Result<Jumped, Refused>>) {
        match self.plan_jump(&wish) {
            Err(refused) => drop(reply.send(Err(refused))),
            Ok(plan) if !plan.asks => drop(reply.send(Ok(plan.answer))),
            Ok(_) if self.jumps.len() >= REQUESTS_MAX => {
                drop(reply.send(Err(Refused::Failed("too many jumps are waited for; ask again".to_owned()))));
            }
            Ok(plan) => {
                let Plan { session, to: label, .. } = plan;
                tracing::info!(%session, to = wish.to, by = %wish.by, "asking the client to jump");
                self.jumps.push(PendingJump { plan, since: clock::boot(), reply });
                self.input(Input::Order(Order::Jump { session, label }));
            }
        }
    }

    fn plan_jump(&self, wish: &Wish) -> Result<Plan, Refused> {
        let session = self.session_meant(wish.session)?;
        let (_, view) =
            self.engine.sessions().find(|(known, _)| *known == session).ok_or_else(|| no_session(session))?;
        if !view.core.is_bound() {
            return Err(denied("the session has no transport; its client is asked nothing".to_owned()));
        }
        if view.policy.better_switching == BetterSwitching::Frozen {
            let text = format!("better_switching is frozen for {}; see `policy show {}`", view.name, view.name);
            let detail = Some(Reason::SwitchingFrozen);
            return Err(Refused::Denied { reason: Reason::TransportSwitchDenied, detail, text });
        }
        let (to, from) = (Label::new(&wish.to), view.core.transport().map(|transport| transport.label));
        let there = from == Some(to);
        if wish.dry_run && !there && !view.validated.iter().any(|(_, label)| *label == to) {
            let names = shown(&view);
            return Err(denied(format!("the client has shown no transport `{}`; it has shown: {names}", wish.to)));
        }
        let answer = Jumped {
            session_id: session.to_string(),
            from: from.map(|label| label.to_string()),
            to: wish.to.clone(),
            state_version: None,
            took_ms: None,
            dry_run: wish.dry_run,
        };
        // The client may have one that it did not show yet.
        Ok(Plan { session, to, version: view.core.version().0, answer, asks: !there && !wish.dry_run })
    }

    fn session_meant(&self, session: Option<SessionId>) -> Result<SessionId, Refused> {
        let mut all = self.engine.sessions().map(|(id, _)| id);
        match (session, all.next(), all.next()) {
            (Some(id), ..) | (None, Some(id), None) => Ok(id),
            (None, None, _) => Err(Refused::NotFound("there is no session".to_owned())),
            (None, Some(_), Some(_)) => {
                Err(Refused::NotFound("there are several sessions: name one by the start of its id".to_owned()))
            }
        }
    }

    /// Answers whoever waits for a jump, once it is known.
    pub(super) fn answer_jumps(&mut self) {
        for jump in std::mem::take(&mut self.jumps) {
            let view = self.engine.sessions().find(|(known, _)| *known == jump.plan.session).map(|(_, view)| view);
            match outcome(&jump, view.as_ref()) {
                // Whoever asked may be gone.
                Some(answer) => drop(jump.reply.send(answer)),
                None => self.jumps.push(jump),
            }
        }
    }
}

fn no_session(id: SessionId) -> Refused {
    Refused::NotFound(format!("no session {id}"))
}

fn outcome(jump: &PendingJump, view: Option<&SessionView<'_>>) -> Option<Result<Jumped, Refused>> {
    let PendingJump { plan, since, .. } = jump;
    let waited = clock::boot().since(*since);
    let Some(view) = view else { return Some(Err(no_session(plan.session))) };
    let (there, version) =
        (view.core.transport().is_some_and(|transport| transport.label == plan.to), view.core.version().0);
    if there && version > plan.version {
        let took_ms = Some(waited.as_secs_f64() * 1e3);
        let to = plan.to.to_string();
        return Some(Ok(Jumped { to, state_version: Some(version), took_ms, ..plan.answer.clone() }));
    }
    (waited > JUMP_MAX).then(|| {
        let (to, within, names) = (plan.to, JUMP_MAX.as_secs(), shown(view));
        let text = format!(
            "the client was asked and did not move to `{to}` within {within} s; transports it has shown: {names}; all \
             of them, and what is wrong with each: `jvpn-ctl paths` on the client"
        );
        Err(denied(text))
    })
}
