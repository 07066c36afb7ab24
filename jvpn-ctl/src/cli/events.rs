//! `events`: the record as a stream.
//!
//! Owns its text form. Must never drop a line silently: what the stream lost is a line of its own.

use super::error::CliError;
use super::{Context, in_page, output};
use clap::ValueEnum;
use serde_json::Value;

/// Show what happened; with -f what happens
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Not older than a time (2026-01-02T03:04:05Z) or a duration (10m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Of one session, by the start of its id
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// With this reason code
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only the first N, then end
    #[arg(long, value_name = "N")]
    first: Option<usize>,
    /// Form of a line; --json is the same as --format json
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let mut page = format!("/v1/events?follow={}", args.follow);
    for (key, value) in [("since", &args.since), ("session", &args.session), ("reason", &args.reason)] {
        if let Some(value) = value {
            page.push_str(&format!("&{key}={}", in_page(value)?));
        }
    }
    if let Some(first) = args.first {
        page.push_str(&format!("&first={first}"));
    }
    let json = context.json || args.format == Format::Json;
    let print = |line: &str| {
        let printed = if json { output::data(line) } else { output::data(&text(line)) };
        printed.map_err(|error| std::io::Error::other(error.message))
    };
    context.wait(async { Ok(context.client()?.lines(&page, print).await?) })
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
}
