//! docs/telemetry.md: prose from beside, lists from the code.

use super::fanout::{QUEUE_MAX, READERS_MAX};
use super::said::message_id;
use super::table::Metric;
use crate::config::Role;
use jvpn_common::event::Event;
use std::fmt::Write as _;

fn metrics() -> String {
    let mut table = String::from("| metric | kind | labels | of | meaning |\n|---|---|---|---|---|\n");
    for metric in Metric::ALL {
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let roles = [(Role::Gateway, "gateway"), (Role::Relay, "relay"), (Role::Client, "client")];
        let roles: Vec<_> = roles.into_iter().filter(|(role, _)| metric.is_of(*role)).map(|(_, name)| name).collect();
        let (sample, kind) = (metric.sample(), metric.kind().name());
        let _ = writeln!(
            table,
            "| `{sample}` | {kind} | {} | {} | {} |",
            labels.join(", "),
            roles.join(", "),
            metric.help()
        );
    }
    table
}

fn message_ids() -> String {
    let mut table = String::from("| `JVPN_EVENT` | `MESSAGE_ID` |\n|---|---|\n");
    for name in Event::ALL.iter().map(|event| event.name()).chain(["DROPPED"]) {
        let _ = writeln!(table, "| `{name}` | `{}` |", message_id(name));
    }
    table
}

#[test]
fn the_page_lists_every_metric_and_every_message_id() {
    let page = include_str!("telemetry.md.in")
        .replace("{queue}", &QUEUE_MAX.to_string())
        .replace("{readers}", &READERS_MAX.to_string());
    let page = page.replace("{metrics}\n", &metrics()).replace("{message_ids}\n", &message_ids());
    assert!(Metric::ALL.iter().all(|metric| page.contains(&format!("| `{}` |", metric.sample()))));
    crate::cli::snapshot("docs/telemetry.md", &page);
}
