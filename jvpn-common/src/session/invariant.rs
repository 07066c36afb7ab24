//! What is true of every session and of every step, whatever happened.
//!
//! Owns the checkers of the invariants that one node can break. Must never repair: a broken invariant ends
//! that session and is reported.

use core::fmt;

use super::policy::Policy;
use super::state::{Keys, State};
use super::transition::{Place, TABLE};
use super::{Effect, Input, Session, Step, Transition};
use crate::time::Instant;

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number in `docs/lifecycle.md`.
    pub which: u8,
    /// What was seen.
    pub what: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}", self.which, self.what)
    }
}

impl core::error::Error for Broken {}

const fn must(holds: bool, which: u8, what: &'static str) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { which, what }) }
}

/// What holds of every session on its own.
pub fn sound(session: &Session) -> Result<(), Broken> {
    let bound = session.transport.is_some();
    let wants = match session.state {
        State::Attached | State::Volatile => bound,
        State::Birth | State::Recovering | State::Terminated => !bound,
        State::Degraded => true,
    };
    must(wants, 3, "the state and the binding disagree")?;
    must(session.lost_at.is_some() == (session.is_live() && !bound), 3, "lost_at is set exactly while unbound")?;
    must(!bound || session.keys == Keys::Live, 8, "bound with stale keys")?;
    must(session.state != State::Terminated || session.keys == Keys::Stale, 12, "terminated with live keys")?;
    must((session.state == State::Birth) == (session.version.0 == 0), 10, "a version without a transition")
}

/// What holds of every step that was proposed for `before`.
pub fn check(before: &Session, step: &Step) -> Result<(), Broken> {
    let after = &step.session;
    sound(after)?;
    must(after.id == before.id && after.peer == before.peer, 1, "the identity changed")?;
    must(after.created_at == before.created_at && after.expires_at == before.expires_at, 5, "the life was extended")?;
    must(before.state != State::Terminated, 12, "a terminated session moved")?;
    must(step.transitions.len() <= 2, 4, "more than two transitions in a step")?;
    must(after.owner_epoch == before.owner_epoch, 10, "the owner changed within a step")?;
    let mut last = before;
    for transition in &step.transitions {
        listed(transition)?;
        must(transition.before.place() == last.place(), 4, "a transition does not start where the last one ended")?;
        must(transition.version == last.version.next(), 10, "a version is not the next one")?;
        must(transition.after.version == transition.version, 10, "a transition's version is not the session's")?;
        last = &transition.after;
    }
    if step.transitions.is_empty() {
        must(after.version == before.version, 10, "a version without a transition")?;
        must(after.place() == before.place() && after.transport == before.transport, 4, "moved without a transition")?;
    } else {
        must(last == after, 7, "the step's session is not its last transition's")?;
    }
    keys(before, step)?;
    effects(before, step)
}

/// A transition is a row of the table.
fn listed(transition: &Transition) -> Result<(), Broken> {
    let Some(row) = TABLE.get(transition.row) else {
        return must(false, 4, "a row that is not in the table");
    };
    let from = transition.before.place();
    must(
        row.from.contains(&from) && row.to.unwrap_or(from) == transition.after.place(),
        4,
        "places that are not the row's",
    )?;
    must(row.reason == transition.reason, 4, "a reason that is not the row's")?;
    must(
        from.state() == transition.from && transition.after.state == transition.to,
        4,
        "states that are not the places'",
    )
}

/// A binding is replaced without touching keys; only RESUME brings new ones.
fn keys(before: &Session, step: &Step) -> Result<(), Broken> {
    let after = &step.session;
    let resumed = step.transitions.iter().any(|t| matches!(t.input, Input::Resume(_) | Input::Confirm { .. }));
    let rekeyed = step.transitions.is_empty();
    must(resumed || rekeyed || after.reject_after == before.reject_after, 8, "a binding changed the keys' life")?;
    must(resumed || before.keys == Keys::Live || after.keys == Keys::Stale, 8, "stale keys came back to life")?;
    must(resumed || after.nonce >= before.nonce, 11, "a nonce was taken back")
}

/// The effects are what became different.
fn effects(before: &Session, step: &Step) -> Result<(), Broken> {
    let after = &step.session;
    let bind =
        step.effects.iter().any(|effect| matches!(effect, Effect::Bind { to, .. } if Some(*to) == after.transport));
    let unbind = step.effects.iter().any(|effect| matches!(effect, Effect::Unbind { .. }));
    let end = step.effects.iter().any(|effect| matches!(effect, Effect::End { .. }));
    must(
        bind == (after.transport.is_some() && after.transport != before.transport),
        3,
        "a binding without its effect",
    )?;
    must(unbind == (after.transport.is_none() && before.transport.is_some()), 3, "an unbinding without its effect")?;
    must(end == (after.place() == Place::Terminated), 6, "an end without its effect")
}

/// Replaying each transition's input on the session before it gives the same transition.
pub fn replays(step: &Step, policy: &Policy, now: Instant) -> Result<(), Broken> {
    for transition in &step.transitions {
        let again = transition.before.step(&transition.input, policy, now);
        let same =
            again.is_ok_and(|again| again.transitions.first() == Some(transition) && again.transitions.len() == 1);
        must(same, 9, "the same input gave another transition")?;
    }
    Ok(())
}
