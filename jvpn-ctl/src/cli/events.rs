//! `events`: the record as a stream.
//!
//! Owns its text form. Must never drop a line silently: what the stream lost is a line of its own.

use super::error::{CliError, Kind};
use super::{Context, in_page, output};
use crate::api::parse_since;
use crate::audit::verify::segments_of;
use crate::audit::{Filter, read, sessions};
use crate::observe::ocsf;
use clap::ValueEnum;
use jvpn_common::event::Severity;
use jvpn_common::ids::SessionId;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Show what happened; with -f what happens
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Not older than a time (2026-01-02T03:04:05Z) or a duration (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Not younger than a time or a duration
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Of one session, by the start of its id; also one that ended
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Of one peer
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// With this reason code
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// That matter at least this much: informational, low, medium, high, critical
    #[arg(long, value_name = "LEVEL")]
    severity: Option<Severity>,
    /// Only the first N, then end
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// Read a record, or a copy of one, instead of asking the daemon
    #[arg(long, value_name = "DIR", conflicts_with = "follow")]
    record: Option<PathBuf>,
    /// Form of a line; --json is the same as --format json. ocsf: OCSF 1.7.0, class 4014 (Tunnel Activity)
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
    Ocsf,
}

impl Format {
    fn line(self, line: &str) -> String {
        match (self, serde_json::from_str(line)) {
            (Self::Text, _) => text(line),
            (Self::Ocsf, Ok(record)) => ocsf::event(&record, jiff::Timestamp::now()).to_string(),
            (Self::Json, _) | (Self::Ocsf, Err(_)) => line.to_owned(),
        }
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let format = if context.json && args.format == Format::Text { Format::Json } else { args.format };
    if args.record.is_some() {
        return offline(args, format, context);
    }
    let mut page = format!("/v1/events?follow={}", args.follow);
    let severity = args.severity.map(|severity| severity.name().to_owned());
    for (key, value) in [
        ("since", &args.since),
        ("until", &args.until),
        ("session", &args.session),
        ("peer", &args.peer),
        ("reason", &args.reason),
        ("severity", &severity),
    ] {
        if let Some(value) = value {
            page.push_str(&format!("&{key}={}", in_page(value)?));
        }
    }
    if let Some(first) = args.first {
        page.push_str(&format!("&first={first}"));
    }
    let print = |line: &str| output::data(&format.line(line)).map_err(|error| std::io::Error::other(error.message));
    context.wait(async { Ok(context.client()?.lines(&page, print).await?) })
}

/// The same from the files: for records that were moved elsewhere.
fn offline(args: Args, format: Format, context: &Context) -> Result<(), CliError> {
    let dir = super::audit::record_dir(args.record, context);
    if segments_of(&dir)?.is_empty() {
        return Err(super::audit::no_record(&dir));
    }
    let session = args.session.as_deref().map(|prefix| session_of(&dir, prefix)).transpose()?;
    let reason = args.reason.as_deref().map(str::parse).transpose();
    let reason = reason.map_err(|error: &str| CliError::usage(error).hint("`jvpn-ctl explain` lists them"))?;
    let time = |text: Option<String>| text.as_deref().map(parse_since).transpose().map_err(CliError::usage);
    let (since, until) = (time(args.since)?, time(args.until)?);
    let filter = Filter { session, peer: args.peer, reason, since, until, severity: args.severity };
    let mut left = args.first.unwrap_or(usize::MAX);
    let mut printed = Ok(());
    read(&dir, &filter, |line, _| {
        if left > 0 {
            left -= 1;
            printed = output::data(&format.line(line));
        }
        if left > 0 && printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    printed
}

/// The one session of a record whose id starts with a prefix.
pub(super) fn session_of(dir: &Path, prefix: &str) -> Result<SessionId, CliError> {
    let prefix = in_page(prefix)?.to_ascii_lowercase();
    let mut found = sessions(dir, &prefix, 2)?.into_iter();
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(one), Some(other)) => Err(CliError::usage(format!("`{prefix}` is short for {one} and {other}"))),
        (None, _) => Err(CliError::new(Kind::NotFound, format!("no session starts with `{prefix}` in this record"))),
    }
}

/// One line for people.
fn text(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let field = |key: &str| record.get(key).and_then(Value::as_str);
    let event = field("event").unwrap_or("?");
    if event == "DROPPED" {
        return format!(
            "-- {} events were too fast for this stream; `jvpn-ctl events --since` has them",
            record["count"]
        );
    }
    let mut parts = vec![output::clock(field("ts").unwrap_or("-"))];
    parts.extend(field("session_id").map(|id| output::short(id).to_owned()));
    parts.extend(field("peer").filter(|peer| !peer.is_empty()).map(str::to_owned));
    parts.push(event.to_owned());
    match (field("from"), field("to")) {
        (Some(from), Some(to)) if from != to => parts.push(format!("{from} -> {to}")),
        (_, Some(to)) => parts.push(to.to_owned()),
        _ => {}
    }
    parts.extend(field("reason").map(str::to_owned));
    let codes = record.pointer("/details/reasons").and_then(Value::as_array);
    parts.extend(codes.into_iter().flatten().filter_map(Value::as_str).map(|code| format!("+ {code}")));
    parts.extend(record.pointer("/transport/to/label").and_then(Value::as_str).map(|label| format!("on {label}")));
    parts.extend(field("state_version").filter(|version| *version != "0").map(|version| format!("v{version}")));
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_says_when_who_what_and_why() {
        let line = r#"{"ts":"x","session_id":"0123456789abcdef","peer":"till","event":"TRANSPORT_SWITCH","from":"ATTACHED","to":"RECOVERING","reason":"RECOVERY_START","details":{"reasons":["NO_DELIVERY"]},"state_version":"3","transport":{"from":null,"to":{"label":"lte"}}}"#;
        assert_eq!(
            text(line),
            "x  01234567  till  TRANSPORT_SWITCH  ATTACHED -> RECOVERING  RECOVERY_START  + NO_DELIVERY  on lte  v3"
        );
        assert!(text("{\"event\":\"DROPPED\",\"count\":7}").starts_with("-- 7 events"));
        assert_eq!(text("junk"), "junk");
    }

    #[test]
    fn a_form_is_what_was_asked_for_and_a_foreign_line_stays_as_it_is() {
        let line = r#"{"ts":"2026-01-02T03:04:05Z","node":"gw","event":"GAP"}"#;
        assert_eq!(Format::Json.line(line), line);
        let ocsf: Value = serde_json::from_str(&Format::Ocsf.line(line)).expect("JSON");
        assert_eq!((&ocsf["class_uid"], &ocsf["metadata"]["event_code"]), (&4014.into(), &"GAP".into()));
        assert_eq!(Format::Ocsf.line("junk"), "junk");
    }
}
