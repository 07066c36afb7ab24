//! Replaying a record: the same input on the same session must give the same transition.
//!
//! Owns the comparison. Must never believe a record's own summary over what the machine says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Record;
use crate::session::{Policy, Session, Transition};

/// Where a record and the machine part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It is not the record of a transition.
    #[error("the record is not one of a transition")]
    NotATransition,
    /// `before` is not the encoding of a session.
    #[error("the session before cannot be read")]
    Before,
    /// `input` cannot be an input.
    #[error("the input cannot be read")]
    Input,
    /// It was decided under another policy.
    #[error("the policy is not the one the record names")]
    Policy,
    /// The machine refuses the input.
    #[error("the machine refuses this input")]
    Refused,
    /// The machine does something else.
    #[error("the machine disagrees about `{0}`")]
    Field(&'static str),
}

/// Replays the record of one transition under the policy it names; gives the transition it stands for.
pub fn replay(record: &Record, policy: &Policy) -> Result<Transition, Mismatch> {
    let transition = again(record, policy)?;
    let again = Record::transition(&record.context(), &transition);
    for (same, name) in [
        (again.session_id == record.session_id, "session_id"),
        (again.from == record.from, "from"),
        (again.to == record.to, "to"),
        (again.reason == record.reason, "reason"),
        (again.state_version == record.state_version, "state_version"),
        (again.transport == record.transport, "transport"),
        (again.event == record.event, "event"),
        (again.details.get("reasons") == record.details.get("reasons"), "reasons"),
        (again.after == record.after, "after"),
    ] {
        if !same {
            return Err(Mismatch::Field(name));
        }
    }
    Ok(transition)
}

/// The record the machine would write, for saying how it differs from the one that was found; none where the machine
/// does not come to one.
#[must_use]
pub fn replayed(record: &Record, policy: &Policy) -> Option<Record> {
    again(record, policy).ok().map(|transition| Record::transition(&record.context(), &transition))
}

/// What the machine does with what the record holds.
fn again(record: &Record, policy: &Policy) -> Result<Transition, Mismatch> {
    let (Some(before), Some(input)) = (&record.before, &record.input) else {
        return Err(Mismatch::NotATransition);
    };
    if record.policy_version != policy.version {
        return Err(Mismatch::Policy);
    }
    let before = STANDARD.decode(before).ok().and_then(|bytes| Session::decode(&bytes)).ok_or(Mismatch::Before)?;
    let input = input.replayed().ok_or(Mismatch::Input)?;
    let step = before.step(&input, policy, record.at).map_err(|_| Mismatch::Refused)?;
    <[Transition; 1]>::try_from(step.transitions).map(|[transition]| transition).map_err(|_| Mismatch::Refused)
}
