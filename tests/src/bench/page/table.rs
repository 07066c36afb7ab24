//! Owns how one run looks on a page: the table of its figures and the conditions they were made under. Never drops a
//! contender, a round or an error because something is missing or wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::bench::document::{Document, LIMIT, Metric, Tail, Verdict};

/// Three digits that count, thousands apart.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        size if size < 0.01 => 4,
        size if size < 0.9995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, rest) = digits.find('.').map_or((digits, ""), |at| digits.split_at(at));
    let mut out = sign.to_owned();
    for (at, digit) in whole.char_indices() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// A median with its quartiles.
pub fn figure(value: Option<f64>, spread: Option<&[f64; 2]>) -> String {
    match (value, spread) {
        (None, _) => "–".into(),
        (Some(value), None) => number(value),
        (Some(value), Some([lower, upper])) => {
            format!("{} ({}–{})", number(value), number(*lower), number(*upper))
        }
    }
}

/// A bound against a rival, if there is one: in units where the rival is the limit.
pub fn bound(metric: &Metric, rival: &str, bounds: &BTreeMap<String, f64>) -> String {
    let unit = if rival == LIMIT { metric.rivals.get(LIMIT).copied().flatten() } else { Some(1.0) };
    let value = bounds.get(rival).copied().zip(unit).map(|(ratio, unit)| ratio * unit);
    value.map_or_else(String::new, |value| {
        let text = number(value);
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{} {text}", metric.better.sign())
    })
}

/// The table of a run: a row for each metric and each of its rivals.
pub fn rows(document: &Document) -> String {
    let mut text = String::from(
        "| metric | ours, median (quartiles) | rounds | beside | theirs | ours ÷ it | goal | must | verdict |\n\
         |---|--:|--:|---|--:|--:|--:|--:|---|\n",
    );
    for metric in &document.results {
        let name = format!("`{}`, {} {}", metric.metric, metric.unit, metric.better.arrow());
        let mut first = format!("| {name} | {} | {} |", ours(metric), metric.rounds);
        if metric.rivals.is_empty() {
            let _ = writeln!(text, "{first} | | | | | |");
        }
        for (rival, theirs) in &metric.rivals {
            let [goal, must] = [&metric.goal, &metric.must].map(|bounds| bound(metric, rival, bounds));
            let verdict = match metric.verdicts.get(rival) {
                Some(Verdict::Fails) => "**fails**",
                Some(verdict) => verdict.told(),
                None => "",
            };
            let _ = writeln!(
                text,
                "{first} {rival} | {} | {} | {goal} | {must} | {verdict} |",
                figure(*theirs, None),
                figure(metric.ratio(rival), metric.spread.get(rival))
            );
            first = "| | | |".into();
        }
    }
    text
}

fn ours(metric: &Metric) -> String {
    let middle = figure(metric.ours, metric.spread.get("ours"));
    metric.tail.map_or(middle.clone(), |Tail { p50: _, p95, p99, max }| {
        format!("{middle}; p95 {}, p99 {}, max {}", number(p95), number(p99), number(max))
    })
}

/// Where, when and how a run was made, who took part, and everything that was noted.
pub fn conditions(document: &Document) -> String {
    let machine = &document.machine;
    let mut text = format!(
        "- `{}`, {}, version {}, policy: {}\n- {}, {} processors, {} MiB, Linux {}; load before {}",
        document.command,
        document.day.as_deref().unwrap_or("day unknown"),
        document.version,
        document.policy,
        machine.processor,
        machine.processors,
        number(machine.memory_mib as f64),
        document.kernel,
        number(machine.load_1min),
    );
    if let Some(busy) = machine.busy_before_rounds.iter().copied().reduce(f64::max) {
        let _ = write!(text, ", at most {:.1} % of it busy before a round", busy * 100.0);
    }
    let disturbed: Vec<String> =
        document.disturbed().map(|(round, share)| format!("round {round} ({:.1} % of it)", share * 100.0)).collect();
    let taken = if disturbed.is_empty() { "none that is known of".into() } else { disturbed.join(", ") };
    let _ = writeln!(text, "\n- rounds disturbed by the host of this machine: {taken}");
    for contender in &document.contenders {
        let missing = missing(document, &contender.name);
        let _ = writeln!(text, "- {}: {}{missing}", contender.name, contender.what);
    }
    let there: BTreeSet<&String> = document.contenders.iter().map(|contender| &contender.name).collect();
    let named: BTreeSet<&String> = document.results.iter().flat_map(|metric| metric.rivals.keys()).collect();
    for absent in named.difference(&there).filter(|name| **name != LIMIT) {
        let _ = writeln!(text, "- {absent}: **not among the contenders of this run**");
    }
    for (kind, lines) in [("", &document.notes), ("**error:** ", &document.errors)] {
        for line in lines {
            let _ = writeln!(text, "- {kind}{}", first_line(line));
        }
    }
    text
}

/// What is missing of a contender's figures.
fn missing(document: &Document, name: &str) -> String {
    let series: Vec<_> = document.results.iter().filter_map(|metric| metric.samples.get(name)).collect();
    let failed = |series: &Vec<Option<f64>>| series.iter().filter(|sample| sample.is_none()).count();
    let Some(worst) = series.iter().max_by_key(|series| failed(series)).filter(|_| name != LIMIT) else {
        return String::new();
    };
    match (series.iter().any(|series| series.iter().any(Option::is_some)), failed(worst)) {
        (false, _) => " (**no figure: missing or failed in every round**)".into(),
        (true, 0) => String::new(),
        (true, failed) => format!(" (**no figure in {failed} of {} rounds**)", worst.len()),
    }
}

/// Logs are in the document; a page has the line that names them.
fn first_line(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() { first + " […]" } else { first }
}
