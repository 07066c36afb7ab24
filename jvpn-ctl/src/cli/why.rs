//! `why`: what a session is in, and what brought it there.
//!
//! Owns the words around the account. Must never explain what the engine does not confirm.

use super::audit::{no_record, record_dir};
use super::error::{CliError, Kind};
use super::{Context, output};
use crate::api::model::{Body, Envelope};
use crate::audit::verify::segments_of;
use crate::audit::why::{Why, WhyError, WhyStep, why};
use std::path::PathBuf;

/// Explain why a session is as it is: replay its record through the engine and show input, guard, bounds and numbers. Reads only the
/// record's files: no daemon is asked
///
/// A copy of the record is as good. Every transition of the session is
/// replayed from what was recorded and must reach the recorded state, reasons and version; a record that does not is
/// an error that names the first difference (exit code 6).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The session, by the start of its id; also one that ended
    id: String,
    /// As it was at a time (2026-01-02T03:04:05Z) or that long ago (10m) [default: at the end of the record]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The record's directory, or the state directory [default: --state-dir]
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Explain every transition, not only the last
    #[arg(long)]
    all: bool,
}

impl Body for Why {
    const SCHEMA: &'static str = "jvpn.why/1";
}

#[cfg(test)]
pub(super) fn schema() -> (&'static str, schemars::Schema) {
    (Why::SCHEMA, schemars::schema_for!(Envelope<Why>))
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let prefix = super::in_page(&args.id)?;
    let at = args.at.as_deref().map(crate::api::parse_since).transpose().map_err(CliError::usage)?;
    let dir = record_dir(args.record, context);
    if segments_of(&dir)?.is_empty() {
        return Err(no_record(&dir));
    }
    let why = why(&dir, prefix, at)?;
    if context.json { output::value(&Envelope::from(why)) } else { output::data(&text(&why, args.all)) }
}

impl From<WhyError> for CliError {
    fn from(error: WhyError) -> Self {
        let text = error.to_string();
        match error {
            WhyError::Audit(error) => error.into(),
            WhyError::NotFound(_) | WhyError::TooEarly(_) => Self::new(Kind::NotFound, text),
            WhyError::Ambiguous { .. } => Self::usage(text),
            WhyError::NoInputs(_) => Self::new(Kind::NotFound, text).hint("ask on the gateway"),
            WhyError::Differs { .. } => {
                Self::new(Kind::Unhealthy, text).hint("`jvpn-ctl audit verify` says whether it was changed")
            }
        }
    }
}

fn text(why: &Why, all: bool) -> String {
    let transport = why.transport.as_ref().map(|on| format!(" on {on}")).unwrap_or_default();
    let mut lines = vec![format!(
        "session {} of {}: {}{transport}, version {}, policy {}",
        why.session_id,
        why.peer,
        output::styled(output::MIDDLING, &why.state),
        why.state_version,
        why.policy
    )];
    let from = if all { 0 } else { why.steps.len().saturating_sub(1) };
    for step in why.steps.iter().skip(from) {
        explain(step, &mut lines);
    }
    for (index, next) in why.next.iter().enumerate() {
        let head = if index == 0 { "next" } else { "" };
        let key = if next.key.is_empty() { String::new() } else { format!(" ({} {})", next.key, next.limit) };
        lines.push(format!("{head:<8}{} at {}{key}", next.timer, output::clock(&next.at)));
    }
    let transitions = if why.replayed == 1 { "1 transition" } else { &format!("{} transitions", why.replayed) };
    lines.push(format!("replayed {transitions}: the engine reaches every recorded state, reason and version"));
    lines.extend(why.notes.iter().map(|note| format!("note    {note}")));
    lines.join("\n")
}

fn explain(step: &WhyStep, lines: &mut Vec<String>) {
    let codes = step.details.iter().fold(step.reason.clone(), |codes, detail| format!("{codes} + {detail}"));
    lines.push(format!(
        "{}  version {}: {} -> {}, {codes}",
        output::clock(&step.ts),
        step.state_version,
        step.from,
        step.to
    ));
    lines.push(format!("meaning {}", step.meaning));
    lines.push(format!("input   {}", step.input));
    for row in &step.asked {
        let mark = if row.taken { "taken" } else { "no" };
        let guard = if row.guard.is_empty() { "nothing more" } else { &row.guard };
        lines.push(format!("row {:<3} {}, if {guard}: {mark}", row.row, row.on));
        lines.extend(row.bounds.iter().map(|bound| format!("bound   {bound}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::why::{Next, Row};

    #[test]
    fn the_account_shows_input_guard_bound_and_numbers() {
        let step = WhyStep {
            ts: "x".into(),
            seq: 9,
            state_version: 4,
            from: "RECOVERING".into(),
            to: "DEGRADED(unbound)".into(),
            reason: "RECOVERY_BOUNDS_EXCEEDED".into(),
            details: Vec::new(),
            meaning: "Recovery ran past.".into(),
            input: "time passed".into(),
            asked: vec![Row {
                row: 21,
                on: "timer: recovery window".into(),
                taken: true,
                guard: "due".into(),
                bounds: vec!["max_recovery_window: 30.002s at least 30s".into()],
            }],
        };
        let next = Next {
            timer: "timer: loss TTL".into(),
            key: "transport_loss_ttl".into(),
            limit: "15m".into(),
            at: "y".into(),
        };
        let why = Why {
            session_id: "ab".into(),
            peer: "till".into(),
            state: "DEGRADED(unbound)".into(),
            state_version: 4,
            transport: None,
            policy: "field (version 1)".into(),
            replayed: 2,
            steps: vec![WhyStep { state_version: 3, ..step.clone() }, step],
            next: vec![next],
            notes: vec!["n".into()],
        };
        let lines = anstream::adapter::strip_str(&text(&why, false)).to_string();
        for line in [
            "session ab of till: DEGRADED(unbound), version 4, policy field (version 1)",
            "x  version 4: RECOVERING -> DEGRADED(unbound), RECOVERY_BOUNDS_EXCEEDED",
            "input   time passed",
            "row 21  timer: recovery window, if due: taken",
            "bound   max_recovery_window: 30.002s at least 30s",
            "next    timer: loss TTL at y (transport_loss_ttl 15m)",
            "replayed 2 transitions: the engine reaches every recorded state, reason and version",
            "note    n",
        ] {
            assert!(lines.lines().any(|known| known == line), "{line}\nis not in\n{lines}");
        }
        assert!(!lines.contains("version 3:") && text(&why, true).contains("version 3:"));
    }
}
