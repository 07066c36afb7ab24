//! Reference pages as text: the table, its graph, the policy keys, the reason codes, the verdicts.
//!
//! Owns how they look. Must never say a thing that is not read from the table it describes: the files under
//! `docs/` are compared with this by a test.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use super::policy::{KEYS, Policy};
use super::transition::{Act, Place, Row, TABLE, TIMERS};
use crate::reason::{Class, Reason};
use crate::verdict::{self, Verdict};

/// The places of a row in as few words as the glossary has for them.
fn from(row: &Row) -> String {
    use Place::{Attached, DegradedBound, DegradedUnbound, Recovering, Volatile};
    let is = |places: &[Place]| row.from.iter().copied().eq(places.iter().copied());
    if is(&[Attached, Volatile, DegradedBound]) {
        "*bound*".into()
    } else if is(&[Recovering, DegradedUnbound]) {
        "*unbound*".into()
    } else if is(&[Attached, Volatile, Recovering, DegradedBound, DegradedUnbound]) {
        "*live*".into()
    } else {
        row.from.iter().map(|place| place.name()).collect::<Vec<_>>().join(", ")
    }
}

/// What a row does beside the state.
const fn act(act: Act) -> &'static str {
    match act {
        Act::Bind => "new binding",
        Act::Unbind => "no binding",
        Act::StaleKeys => "keys stale",
        Act::CountRecovery => "one recovery used",
        Act::Spend => "switch budget spent",
        Act::Refill => "budgets refill",
    }
}

/// The transition table.
#[must_use]
pub fn transitions() -> String {
    let mut page = String::from("| # | from | on | guard | to | also | reason |\n|--:|---|---|---|---|---|---|\n");
    for (number, row) in TABLE.iter().enumerate() {
        let to = row.to.map_or("unchanged", Place::name);
        let also = row.acts.iter().map(|&what| act(what)).collect::<Vec<_>>().join(", ");
        let detail = row.detail.map_or_else(String::new, |detail| format!(" + {detail}"));
        let (from, on, guard, reason) = (from(row), row.on, row.guard, row.reason);
        let _ = writeln!(page, "| {} | {from} | {on} | {guard} | {to} | {also} | {reason}{detail} |", number + 1);
    }
    page
}

const fn class_of(verdict: Verdict) -> &'static str {
    match verdict.class() {
        verdict::Class::Pass => "pass",
        verdict::Class::User => "user",
        verdict::Class::Answer => "answer",
        verdict::Class::Forward => "forward",
        verdict::Class::Drop => "drop",
    }
}

/// What becomes of a packet, by number.
#[must_use]
pub fn verdicts() -> String {
    let mut page = String::from("| number | verdict | class | meaning |\n|--:|---|---|---|\n");
    for &verdict in Verdict::ALL {
        let (number, class, meaning) = (verdict as u16, class_of(verdict), verdict.meaning());
        let _ = writeln!(page, "| {number} | `{verdict}` | {class} | {meaning} |");
    }
    page
}

/// What to do about it.
#[must_use]
pub fn verdict_advice() -> String {
    let mut page = String::from("| verdict | class | meaning | what to do |\n|---|---|---|---|\n");
    for &verdict in Verdict::ALL {
        let (class, meaning, advice) = (class_of(verdict), verdict.meaning(), verdict.advice());
        let _ = writeln!(page, "| `{verdict}` | {class} | {meaning} | {advice} |");
    }
    page
}

/// The order in which timers fire.
#[must_use]
pub fn timers() -> String {
    TIMERS
        .iter()
        .enumerate()
        .map(|(n, timer)| format!("{}. {}\n", n + 1, timer.name().trim_start_matches("timer: ")))
        .collect()
}

/// The graph of the table: one arrow per pair of places, with its reasons.
#[must_use]
pub fn graph() -> String {
    let mut arrows: BTreeMap<(Place, Place), Vec<&'static str>> = BTreeMap::new();
    for row in TABLE {
        // Every live place leads to the end; drawn once, below.
        let ends = row.to == Some(Place::Terminated) && row.from.len() > 1;
        for &from in row.from.iter().filter(|_| !ends) {
            let reasons = arrows.entry((from, row.to.unwrap_or(from))).or_default();
            if !reasons.contains(&row.reason.name()) {
                reasons.push(row.reason.name());
            }
        }
    }
    let node = |place: Place| place.name().replace(['(', ')'], "_").trim_end_matches('_').to_owned();
    let mut page = String::from("```mermaid\nstateDiagram-v2\n    [*] --> BIRTH\n");
    for ((from, to), reasons) in &arrows {
        let _ = writeln!(page, "    {} --> {}: {}", node(*from), node(*to), reasons.join("<br/>"));
    }
    page.push_str("    TERMINATED --> [*]\n    note right of TERMINATED\n        every live place leads here:\n");
    for row in TABLE.iter().filter(|row| row.to == Some(Place::Terminated) && row.from.len() > 1) {
        let _ = writeln!(page, "        {}", row.reason);
    }
    page.push_str("    end note\n```\n");
    page
}

/// The policy keys with their values in the shipped classes.
#[must_use]
pub fn policy() -> String {
    let classes =
        ["field", "fast", "metered", "emergency"].map(|name| Policy::shipped(name).unwrap_or_default().values());
    let mut page = String::from(
        "| key | `field` | `fast` | `metered` | `emergency` | range | what it bounds |\n|---|---|---|---|---|---|---|\n",
    );
    for (n, key) in KEYS.iter().enumerate() {
        let [field, fast, metered, emergency] =
            classes.each_ref().map(|values| values.get(n).map_or("", |value| &value.1));
        let other = |value| if value == field { "" } else { value };
        let (name, min, max) = (key.name, (key.min)(), (key.max)());
        let _ = writeln!(
            page,
            "| `{name}` | {field} | {} | {} | {} | {min} … {max} | {} |",
            other(fast),
            other(metered),
            other(emergency),
            key.meaning
        );
    }
    page
}

/// The reason codes, by class.
#[must_use]
pub fn reasons() -> String {
    let classes = [
        (Class::Transition, "Transitions", "Primary reasons: every change of state has exactly one."),
        (Class::Reattach, "Reattach and handshake", "Why a request was refused; nothing moved."),
        (Class::Switching, "Switching", "Why a wanted switch did not happen; the session stays where it is."),
        (Class::Detail, "Details", "More about another code."),
        (Class::Security, "Security", "What a security team wants to see."),
        (Class::Audit, "Audit", "What the record says about itself."),
    ];
    let mut page = String::from(
        "# Reason codes\n\nEvery code is stable: it is never renamed or renumbered, only added. `jvpn-ctl explain CODE` prints the same \
         text.\nThis page is generated from `jvpn-common/src/reason.rs`.\n",
    );
    for (class, title, says) in classes {
        let _ = write!(page, "\n## {title}\n\n{says}\n\n| number | code | meaning | advice |\n|--:|---|---|---|\n");
        for code in Reason::ALL.iter().filter(|code| code.class() == class) {
            let _ = writeln!(page, "| {} | `{code}` | {} | {} |", *code as u16, code.meaning(), code.advice());
        }
    }
    page
}

/// A page with the block of a name replaced; none if the page has no such block.
#[must_use]
pub fn fill(page: &str, block: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- begin generated: {block} -->\n");
    let end = format!("<!-- end generated: {block} -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}{end}{after}"))
}
