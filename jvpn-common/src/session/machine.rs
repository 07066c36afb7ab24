//! The machine: reads the table and builds the next session.
//!
//! Owns the order of things in one step. Must never know a rule of its own: what moves a session stands in
//! [`super::transition::TABLE`].

use super::guard::{View, invalid};
use super::input::{Cause, Class, Ender, Input, Side};
use super::policy::Policy;
use super::quality::Quality;
use super::state::{Keys, State, Transport};
use super::transition::{Act, On, Place, Row, TABLE, TIMERS};
use super::{Effect, Refusal, RefusalKind, Session, Step, Transition};
use crate::reason::Reason;
use crate::time::{Duration, Instant};

impl Session {
    /// Applies one input. The session itself does not change: keep the step's once its effects are committed.
    pub fn step(&self, input: &Input, policy: &Policy, now: Instant) -> Result<Step, Refusal> {
        if *input == Input::Tick {
            return self.tick(policy, now).ok_or_else(|| Refusal::new(RefusalKind::NoOp, Reason::SessionExpired));
        }
        if TIMERS.iter().any(|&timer| self.precedes(timer, input, policy, now)) {
            return Err(Refusal::new(RefusalKind::TimerDue, Reason::CommitFailed));
        }
        if let Some(first) = self.first_half(input) {
            View { session: self, input, policy, now }.admitted()?;
            let lost = self.transition(On::TransportLost, &first, policy, now)?;
            let between = lost.after.clone();
            // A transport lost after its session's last second is not worth a second half.
            let accepted = between.transition(On::Accept, input, policy, now)?;
            return Ok(self.proposed(vec![lost, accepted]));
        }
        let on = self.on(input);
        match on.map(|on| self.transition(on, input, policy, now)) {
            Some(Ok(transition)) => Ok(self.proposed(vec![transition])),
            Some(Err(refusal)) => self.noted(input, policy, now).ok_or(refusal),
            None => self.noted(input, policy, now).ok_or_else(|| self.unlisted(input)),
        }
    }

    /// Fires the first timer that is due.
    #[must_use]
    pub fn tick(&self, policy: &Policy, now: Instant) -> Option<Step> {
        let fire = |timer: &On| self.transition(*timer, &Input::Tick, policy, now).ok();
        TIMERS.iter().find_map(fire).map(|transition| self.proposed(vec![transition]))
    }

    /// When the next timer fires.
    #[must_use]
    pub fn next_deadline(&self, policy: &Policy) -> Option<Instant> {
        TIMERS.iter().filter_map(|&timer| self.deadline(timer, policy)).min()
    }

    /// Whether a timer is due.
    #[must_use]
    pub fn is_due(&self, policy: &Policy, now: Instant) -> bool {
        self.next_deadline(policy).is_some_and(|at| at <= now)
    }

    /// Whether a timer fires before an input. A restart comes before all but the ends of a life: while nobody
    /// ran the timers nothing else was decided, and a session without keys must not stay bound for a timer's sake.
    fn precedes(&self, timer: On, input: &Input, policy: &Policy, now: Instant) -> bool {
        let ends = matches!(timer, On::SessionTtl | On::LossTtl);
        let counts = match input {
            Input::ControllerRestarted => ends,
            // What is not sound is not judged by its timers either.
            Input::InvariantBroken { .. } => false,
            _ => true,
        };
        counts && self.deadline(timer, policy).is_some_and(|at| at <= now)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        match (self.state, self.is_bound()) {
            (State::Birth, _) => Place::Birth,
            (State::Attached, _) => Place::Attached,
            (State::Volatile, _) => Place::Volatile,
            (State::Recovering, _) => Place::Recovering,
            (State::Degraded, true) => Place::DegradedBound,
            (State::Degraded, false) => Place::DegradedUnbound,
            (State::Terminated, _) => Place::Terminated,
        }
    }

    /// Whether there is a row for an input here, whatever its guard says, or a fact that it may add to.
    #[must_use]
    pub fn lists(&self, input: &Input) -> bool {
        let row = |on| TABLE.iter().any(|row| row.concerns(self.place(), on));
        match input {
            Input::Tick => true,
            Input::Quality(_) => self.is_bound(),
            Input::Rekeyed { .. } => self.is_live() && self.keys == Keys::Live,
            Input::NonceFloor { .. } => self.is_live(),
            _ => self.first_half(input).is_some() || self.on(input).is_some_and(row),
        }
    }

    /// LOST and RESUME of a bound session are two steps in one commit; this is the first one's input.
    fn first_half(&self, input: &Input) -> Option<Input> {
        let evidence = match input {
            Input::Reattach(switch) if switch.request().class == Class::Lost => switch.request().evidence,
            Input::Resume(_) => Some(Reason::NoDelivery),
            _ => return None,
        };
        let bound = self.is_bound() && self.is_live();
        bound.then_some(Input::TransportLost { by: Side::Client, evidence })
    }

    /// What of the table an input is about.
    fn on(&self, input: &Input) -> Option<On> {
        Some(match input {
            Input::Confirm { .. } => On::Confirm,
            Input::Quality(_) => On::Quality,
            Input::Reattach(switch) => match (self.transport, switch.request().class) {
                (None, _) => On::Accept,
                (Some(active), Class::Rebind) if active.k == switch.transport().k => On::Rebind,
                _ => On::Better,
            },
            Input::Resume(_) => On::Accept,
            Input::TransportLost { .. } => On::TransportLost,
            Input::AttemptFailed => On::AttemptFailed,
            Input::ControllerRestarted => On::Restarted,
            Input::Shutdown => On::Abandon,
            Input::Terminate { .. } | Input::PeerRemoved if self.state == State::Birth => On::Abandon,
            Input::Terminate { by: Ender::Client } => On::ClientEnds,
            Input::Terminate { by: Ender::Operator } => On::OperatorEnds,
            Input::Terminate { by: Ender::Policy } | Input::PeerRemoved => On::PolicyEnds,
            Input::Superseded => On::Superseded,
            Input::NewerOwner { .. } => On::NewerOwner,
            Input::CompromiseSuspected => On::Compromise,
            Input::InvariantBroken { .. } => On::Broken,
            Input::Tick | Input::Rekeyed { .. } | Input::NonceFloor { .. } => return None,
        })
    }

    /// The first row that holds, applied.
    pub(super) fn transition(
        &self,
        on: On,
        input: &Input,
        policy: &Policy,
        now: Instant,
    ) -> Result<Transition, Refusal> {
        let place = self.place();
        if !TABLE.iter().any(|row| row.concerns(place, on)) {
            return Err(self.unlisted(input));
        }
        View { session: self, input, policy, now }.admitted()?;
        let seen = self.seen(input, policy, now);
        let view = View { session: &seen, input, policy, now };
        let mut refusal = None;
        for (index, row) in TABLE.iter().enumerate().filter(|(_, row)| row.concerns(place, on)) {
            match view.holds(row.guard, on) {
                Ok(()) => return Ok(self.taken(index, row, seen, input, policy, now)),
                Err(because) => refusal = refusal.or(Some(because)),
            }
        }
        Err(refusal.unwrap_or_else(|| self.unlisted(input)))
    }

    /// The session with what the input says, before the table is asked.
    pub(super) fn seen(&self, input: &Input, policy: &Policy, now: Instant) -> Self {
        let mut seen = self.clone();
        match input {
            Input::Quality(report) if self.is_bound() => seen.quality = self.quality.with(*report, policy, now),
            Input::AttemptFailed => seen.attempts = self.attempts.saturating_add(1),
            _ => {}
        }
        seen
    }

    /// Inputs that add to what is known without moving the session.
    fn noted(&self, input: &Input, policy: &Policy, now: Instant) -> Option<Step> {
        let mut session = self.seen(input, policy, now);
        match *input {
            Input::Quality(report) if self.is_bound() && !report.is_empty() => {}
            Input::AttemptFailed if self.state == State::Recovering => {}
            Input::Rekeyed { reject_after } if self.is_live() && self.keys == Keys::Live && reject_after >= now => {
                session.reject_after = reject_after;
            }
            Input::NonceFloor { nonce } if self.is_live() && nonce > self.nonce => {
                (session.nonce, session.nonce_path) = (nonce, None);
            }
            _ => return None,
        }
        Some(Step { session, transitions: Vec::new(), effects: Vec::new() })
    }

    /// Makes one transition of a row.
    fn taken(&self, index: usize, row: &Row, seen: Self, input: &Input, policy: &Policy, now: Instant) -> Transition {
        let mut after = seen;
        let place = row.to.unwrap_or(self.place());
        after.state = place.state();
        after.version = self.version.next();
        after.policy_version = policy.version;
        if place != self.place() {
            after.state_since = now;
        }
        if place == Place::Recovering && self.place() != Place::Recovering {
            after.attempts = 0;
        }
        for act in row.acts {
            after.perform(*act, input, now);
        }
        if place == Place::Terminated {
            after.found(now);
        }
        Transition {
            row: index,
            from: self.state,
            to: after.state,
            reason: row.reason,
            details: details(row, input, &after, policy),
            version: after.version,
            input: *input,
            before: self.clone(),
            after,
        }
    }

    /// Does one act of a row.
    fn perform(&mut self, act: Act, input: &Input, now: Instant) {
        match act {
            Act::Bind => self.bind(input, now),
            Act::Unbind => {
                if self.transport.take().is_some() {
                    self.lost_at = Some(now);
                    self.quality = Quality::default();
                }
            }
            Act::StaleKeys => self.keys = Keys::Stale,
            Act::CountRecovery => self.recoveries = self.recoveries.saturating_add(1),
            Act::Spend => self.spent = true,
            Act::Refill => {
                (self.recoveries, self.spent) = (0, false);
                self.switches = super::Meter::default();
            }
        }
    }

    /// Binds it to what the input proved.
    fn bind(&mut self, input: &Input, now: Instant) {
        let transport = match input {
            Input::Confirm { confirmed, reject_after } => {
                self.reject_after = *reject_after;
                confirmed.transport()
            }
            Input::Resume(resume) => {
                (self.reject_after, self.keys) = (resume.reject_after, Keys::Live);
                // Nonces restart with the keys.
                (self.nonce, self.nonce_path) = (0, None);
                self.moves = self.moves.saturating_add(1);
                resume.confirmed.transport()
            }
            Input::Reattach(switch) => {
                (self.nonce, self.nonce_path) = (switch.request().nonce, Some(switch.transport().path));
                self.moves = self.moves.saturating_add(1);
                self.requests.add(now);
                if switch.request().class != Class::Rebind {
                    self.switches.add(now);
                    self.last_switch = Some(now);
                }
                switch.transport()
            }
            _ => return,
        };
        self.transport = Some(Transport { since: now, ..*transport });
        self.quality = Quality::restarted(now);
        self.found(now);
    }

    /// It is not unbound any more.
    fn found(&mut self, now: Instant) {
        if let Some(at) = self.lost_at.take() {
            self.unbound = self.unbound.saturating_add(now.since(at)).saturating_add(self.lost_before);
        }
        self.lost_before = Duration::ZERO;
    }

    /// The proposal of one or two transitions, with what has to become true for it.
    pub(super) fn proposed(&self, transitions: Vec<Transition>) -> Step {
        let Some(last) = transitions.last() else {
            return Step { session: self.clone(), transitions, effects: Vec::new() };
        };
        let after = last.after.clone();
        let mut effects = Vec::new();
        match (self.transport, after.transport) {
            (previous, Some(to)) if previous != Some(to) => effects.push(Effect::Bind { to, previous }),
            (Some(previous), None) => effects.push(Effect::Unbind { previous }),
            _ => {}
        }
        if self.keys == Keys::Live && after.keys == Keys::Stale {
            effects.push(Effect::DropKeys);
        }
        if after.state == State::Terminated {
            effects.push(Effect::End {
                reason: last.reason,
                lifetime: after.state_since.since(after.created_at),
                switches: after.moves,
                unbound: after.unbound,
            });
        }
        Step { session: after, transitions, effects }
    }

    /// The answer to what no row lists.
    fn unlisted(&self, input: &Input) -> Refusal {
        let noop = |reason| Refusal::new(RefusalKind::NoOp, reason);
        match (self.state, input) {
            (State::Terminated, _) => noop(Reason::SessionExpired),
            (State::Birth, _) => invalid(Reason::SessionNotFound),
            (_, Input::Confirm { .. }) => noop(Reason::HandshakeOk),
            (_, Input::Shutdown) => noop(Reason::ControllerRestart),
            (_, Input::TransportLost { .. }) => noop(Reason::RecoveryStart),
            (_, Input::Quality(_) | Input::AttemptFailed) => noop(Reason::NoDelivery),
            (_, Input::NonceFloor { .. }) => noop(Reason::FreshnessInvalid),
            (_, Input::Rekeyed { .. }) => invalid(Reason::KeysStale),
            _ => invalid(Reason::PolicyDenied),
        }
    }
}

/// The details of a transition: the row's own, then what the input says.
fn details(row: &Row, input: &Input, after: &Session, policy: &Policy) -> Vec<Reason> {
    let said = match input {
        Input::TransportLost { by: Side::Gateway, evidence: None } => Some(Reason::NoDelivery),
        Input::TransportLost { evidence, .. } => *evidence,
        Input::Quality(_) => after.quality.worst(policy),
        Input::Reattach(switch) => match switch.request() {
            request if row.on == On::Better && request.cause == Cause::Operator => Some(Reason::OperatorRequest),
            request if row.on == On::Better && request.cause == Cause::Mapping => Some(Reason::MappingLifetime),
            _ if row.on == On::Better => Some(Reason::BetterPath),
            request => request.evidence,
        },
        _ => None,
    };
    let mut details: Vec<Reason> = row.detail.into_iter().chain(said).collect();
    details.dedup();
    details
}
