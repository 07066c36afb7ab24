//! How verbs speak: data on standard output, talk on standard error, JSON when asked, colour only for people.
//!
//! Owns tables, envelopes and styles. Must never panic over a closed pipe.

use super::error::CliError;
use crate::api::model::Envelope;
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::Write as _;

/// Good news.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Bad news.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// In between.
pub(super) const MIDDLING: Style = AnsiColor::Yellow.on_default().bold();

/// A piece of text in a style; without colour it is the text alone.
#[must_use]
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints lines of data.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn data(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::pipe_closed(),
        _ => CliError::failed(format!("standard output: {error}")),
    })
}

/// Prints talk: what was done, what to do next.
pub(super) fn talk(text: &str) {
    // Nobody listening to talk is not a failure.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Prints an envelope that came from a daemon.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn value<T: Serialize>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| CliError::failed(error.to_string()))?;
    data(&text)
}

/// Prints a document that has no form of the API: the schema first, then its fields.
///
/// # Errors
/// Standard output cannot be written.
pub(super) fn document(schema: &str, fields: serde_json::Value) -> Result<(), CliError> {
    value(&Envelope { schema: schema.to_owned(), body: fields })
}

/// A table with headings and as many spaces as it needs.
#[must_use]
pub(super) fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    let lines: Vec<_> = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n")
}

/// A time without its date when it is from today, to milliseconds.
#[must_use]
pub(super) fn clock(ts: &str) -> String {
    let Ok(time) = ts.parse::<jiff::Timestamp>() else { return ts.to_owned() };
    let zone = jiff::tz::TimeZone::system();
    let (then, now) = (time.to_zoned(zone.clone()), jiff::Timestamp::now().to_zoned(zone));
    let form = if then.date() == now.date() { "%H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S%.3f" };
    then.strftime(form).to_string()
}

/// Bytes with a unit.
#[must_use]
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (count.max(1).ilog2() / 10).min(4);
    let unit = UNITS.get(step as usize).copied().unwrap_or("B");
    let whole = count >> (10 * step);
    if step == 0 {
        return format!("{whole} {unit}");
    }
    let tenth = ((count >> (10 * (step - 1))) % 1_024) * 10 / 1_024;
    format!("{whole}.{tenth} {unit}")
}

/// The start of an id that people type.
#[must_use]
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// An optional text, or a dash.
#[must_use]
pub(super) fn or_dash(text: Option<impl std::fmt::Display>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

/// A number with one digit after the point, or a dash.
#[must_use]
pub(super) fn tenth(number: Option<f64>) -> String {
    or_dash(number.map(|number| format!("{number:.1}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_has_no_space_at_its_ends() {
        let text = table(["name", "n"], [["a".into(), "1".into()], ["longer".into(), "22".into()]]);
        assert_eq!(text, "name    n\na       1\nlonger  22");
    }

    #[test]
    fn bytes_have_one_digit_and_the_right_unit() {
        assert_eq!([0, 1_023, 1_024, 1_536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }
}
