//! What every place answers to every input, as a reviewed snapshot.
//!
//! Owns the drawing. Must never be regenerated without being read: `INSTA_UPDATE=always cargo test -p
//! jvpn-common --features engine answers`.

use super::*;

/// One of every input.
pub(crate) fn inputs(now: Instant) -> Vec<Input> {
    let to = transport(1, 2);
    let operator = Request { cause: Cause::Operator, ..request(Class::Better, 20) };
    vec![
        Input::Tick,
        confirm(now),
        quality(0),
        quality(300),
        reattach(Class::Rebind, 20, transport(0, 33)),
        reattach(Class::Rebind, 20, to),
        reattach(Class::Lost, 20, to),
        reattach(Class::Better, 20, to),
        Input::Reattach(switch(operator, to)),
        resume(now),
        Input::Rekeyed { reject_after: now + Duration::from_secs(180) },
        Input::NonceFloor { nonce: 20 },
        Input::AttemptFailed,
        LOST,
        Input::TransportLost { by: Side::Gateway, evidence: None },
        Input::ControllerRestarted,
        Input::Shutdown,
        Input::Terminate { by: Ender::Client },
        Input::Terminate { by: Ender::Operator },
        Input::Terminate { by: Ender::Policy },
        Input::PeerRemoved,
        Input::Superseded,
        Input::NewerOwner { epoch: OwnerEpoch(3) },
        Input::NewerOwner { epoch: OwnerEpoch(4) },
        Input::CompromiseSuspected,
        Input::InvariantBroken { which: 3 },
    ]
}

/// A short name of an input.
fn name(input: &Input) -> String {
    match input {
        Input::Reattach(switch) if switch.request().cause == Cause::Operator => "reattach BETTER by operator".into(),
        Input::Reattach(switch) => {
            let other = if switch.request().class == Class::Rebind && switch.transport().k.0 == 1 {
                ", other locator"
            } else {
                ""
            };
            format!("reattach {}{other}", switch.request().class)
        }
        Input::Quality(report) => format!("quality, loss {} ‰", report.loss),
        Input::Confirm { .. } => "confirm".into(),
        Input::Resume(_) => "resume".into(),
        Input::Rekeyed { .. } => "rekeyed".into(),
        other => format!("{other:?}"),
    }
}

fn answer(session: &Session, input: &Input, now: Instant) -> String {
    match session.step(input, &Policy::field(), now) {
        Err(refusal) => format!("{:?} {refusal}", refusal.kind),
        Ok(step) if step.transitions.is_empty() => "noted".into(),
        Ok(step) => {
            let parts = step.transitions.iter().map(|t| {
                let details: Vec<_> = t.details.iter().map(|detail| format!(" + {detail}")).collect();
                let keys = if t.after.keys == Keys::Stale { ", keys stale" } else { "" };
                format!("{} ({}{}{keys})", t.after.place(), t.reason, details.concat())
            });
            format!("→ {}", parts.collect::<Vec<_>>().join(" → "))
        }
    }
}

#[test]
fn every_place_answers_every_input() {
    let mut text = String::new();
    for session in everywhere() {
        let now = session.state_since + Duration::from_secs(1);
        text.push_str(&format!("{}\n", session.place()));
        for input in inputs(now) {
            text.push_str(&format!("  {:34} {}\n", name(&input), answer(&session, &input, now)));
        }
    }
    insta::assert_snapshot!("answers", text);
}
