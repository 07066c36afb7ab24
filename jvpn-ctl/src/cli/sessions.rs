//! `sessions`: all of them, one of them, or the timeline of one.
//!
//! Owns the table and the timeline. Must never invent what a record does not say.

use super::error::CliError;
use super::{Context, output};
use crate::api::model::{Envelope, History, OneSession, Session, Sessions};
use crate::audit::{self, Step};
use clap::ValueEnum;
use std::path::PathBuf;

/// List sessions, show one, or the timeline of one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A session by the start of its id; its history also when it ended
    id: Option<String>,
    /// `history` shows its timeline
    what: Option<What>,
    /// Read the history from a record, or a copy of one, instead of asking the daemon
    #[arg(long, value_name = "DIR", requires = "what")]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    History,
}

/// The timeline of a session out of the files.
fn offline(id: &str, record: PathBuf, context: &Context) -> Result<(), CliError> {
    let dir = super::audit::record_dir(Some(record), context);
    let id = super::events::session_of(&dir, id)?;
    let history = History { session_id: id.to_string(), history: audit::history(&dir, id)? };
    if context.json { output::value(&Envelope::from(history)) } else { output::data(&timeline(&history)) }
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    if let (Some(id), Some(record)) = (&args.id, &args.record) {
        return offline(id, record.clone(), context);
    }
    context.wait(async {
        let client = context.client()?;
        match (args.id, args.what) {
            (None, _) => {
                let sessions: Envelope<Sessions> = client.get("/v1/sessions").await?;
                if context.json { output::value(&sessions) } else { output::data(&table(&sessions.body)) }
            }
            (Some(id), None) => {
                let session: Envelope<OneSession> =
                    client.get(&format!("/v1/sessions/{}", super::in_page(&id)?)).await?;
                if context.json { output::value(&session) } else { output::data(&details(&session.body)) }
            }
            (Some(id), Some(What::History)) => {
                let history: Envelope<History> =
                    client.get(&format!("/v1/sessions/{}/history", super::in_page(&id)?)).await?;
                if context.json { output::value(&history) } else { output::data(&timeline(&history.body)) }
            }
        }
    })
}

pub(super) fn table(sessions: &Sessions) -> String {
    let row = |session: &Session| {
        let transport = session.transport.as_ref();
        [
            output::short(&session.session_id).to_owned(),
            session.peer.clone(),
            session.state.clone(),
            output::or_dash(session.reason.as_ref()),
            session.state_version.to_string(),
            output::or_dash(transport.map(|transport| &transport.name)),
            output::or_dash(transport.map(|transport| &transport.remote)),
            session.switches.to_string(),
            output::bytes(session.rx_bytes),
            output::bytes(session.tx_bytes),
        ]
    };
    let headings = ["session", "peer", "state", "reason", "version", "transport", "remote", "switches", "rx", "tx"];
    output::table(headings, sessions.sessions.iter().map(row))
}

fn details(OneSession { session, bounds }: &OneSession) -> String {
    let transport = session.transport.as_ref().map(|transport| {
        format!(
            "{} {} -> {} since {}",
            transport.name,
            transport.local,
            transport.remote,
            output::clock(&transport.since)
        )
    });
    let candidates = session.candidates.iter().map(|candidate| format!("{} {}", candidate.name, candidate.remote));
    let candidates: Vec<_> = candidates.collect();
    let conditions = (!session.conditions.is_empty()).then(|| session.conditions.join(", "));
    let rows = [
        ["session", &session.session_id],
        ["peer", &session.peer],
        ["state", &session.state],
        ["reason", &output::or_dash(session.reason.as_ref())],
        ["conditions", &output::or_dash(conditions)],
        ["version", &session.state_version.to_string()],
        ["transport", &output::or_dash(transport)],
        ["candidates", &output::or_dash((!candidates.is_empty()).then(|| candidates.join(", ")))],
        ["addresses", &session.addresses.join(", ")],
        ["created", &output::clock(&session.created)],
        ["switches", &session.switches.to_string()],
        ["rx", &output::bytes(session.rx_bytes)],
        ["tx", &output::bytes(session.tx_bytes)],
        ["policy", &session.policy],
    ];
    let line = |name: &str, value: &str| format!("{name:<12}{value}");
    let mut lines: Vec<_> = rows.iter().map(|[name, value]| line(name, value)).collect();
    // What holds it back comes first: that is what is asked for.
    for holds in [false, true] {
        let name = if holds { "bound" } else { "held by" };
        lines.extend(bounds.iter().filter(|bound| bound.holds == holds).map(|bound| line(name, &bound.text)));
    }
    lines.join("\n")
}

fn timeline(history: &History) -> String {
    let row = |step: &Step| {
        let moves = matches!(step.event.as_str(), "STATE_CHANGE" | "TRANSPORT_SWITCH");
        let version = if moves { step.state_version.to_string() } else { format!("({})", step.state_version) };
        let change = match (&step.from, &step.to) {
            (Some(from), Some(to)) if from != to => format!("{from} -> {to}"),
            (_, Some(to)) => to.clone(),
            _ => "-".to_owned(),
        };
        // What only describes says what it is; two lines with one reason would look like two moves.
        let mut reason = match &step.reason {
            Some(reason) if moves => reason.clone(),
            Some(reason) if *reason != step.event => format!("{}: {reason}", step.event),
            _ => step.event.clone(),
        };
        for detail in &step.details {
            reason.push_str(" + ");
            reason.push_str(detail);
        }
        let took = [step.detect_ms, step.prove_ms, step.commit_ms].map(output::tenth).join(" / ");
        let took = if took == "- / - / -" { "-".to_owned() } else { took };
        [output::clock(&step.ts), version, change, reason, output::or_dash(step.transport.as_ref()), took]
    };
    let headings = ["time", "version", "state", "reason", "transport", "detect / prove / commit ms"];
    format!("session {}\n{}", history.session_id, output::table(headings, history.history.iter().map(row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_only_describes_names_itself_and_has_its_version_in_brackets() {
        let step = |event: &str, from: &str, to: &str| Step {
            ts: "2026-01-02T03:04:05.006Z".to_owned(),
            event: event.to_owned(),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            reason: Some("HANDSHAKE_OK".to_owned()),
            details: Vec::new(),
            transport: Some("wlan0".to_owned()),
            state_version: 1,
            detect_ms: None,
            prove_ms: Some(35.0),
            commit_ms: None,
        };
        let steps = vec![step("SESSION_CREATED", "ATTACHED", "ATTACHED"), step("STATE_CHANGE", "BIRTH", "ATTACHED")];
        let text = timeline(&History { session_id: "e535".to_owned(), history: steps });
        // A time of another day than today comes with its date.
        let is_time = |word: &&str| word.contains("03:04:05") || word.contains("2026-01");
        let words = |line| str::split_whitespace(line).skip_while(is_time).collect();
        let lines: Vec<Vec<&str>> = text.lines().skip(2).map(words).collect();
        assert_eq!(lines[0][..4], ["(1)", "ATTACHED", "SESSION_CREATED:", "HANDSHAKE_OK"], "{text}");
        assert_eq!(lines[1][..5], ["1", "BIRTH", "->", "ATTACHED", "HANDSHAKE_OK"], "{text}");
        assert_eq!(lines[1][6..], ["-", "/", "35.0", "/", "-"], "{text}");
    }
}
