//! Owns horizontal bars as SVG: a panel for each metric, from zero, ours on top and every rival below. A whisker shows the
//! quartiles, marks show what ours has to reach beside the rival in whose row they stand. Never computes what it draws.

use std::fmt::Write;

use super::{GOAL, MUST, OURS, RIGHT, THEIRS, TOP, ceiling, escaped, head, legend};
use crate::bench::page::table::number;

/// Quartiles and median.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// What ours has to reach, or aims at, in units.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub at: f64,
    pub is_must: bool,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// None of who was not measured, or is only a limit.
    pub bar: Option<Bar>,
    pub marks: Vec<Mark>,
}

/// One metric; ours is the first row.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    pub rows: Vec<Row>,
}

/// Where bars begin.
const LEFT: f64 = 120.0;
/// Height of a panel's title, of a row, of a bar in it, and of the space below a panel.
const TITLE: f64 = 24.0;
const ROW: f64 = 20.0;
const THICK: f64 = 12.0;
const GAP: f64 = 16.0;

/// The chart.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|panel| TITLE + ROW * panel.rows.len() as f64 + GAP).sum();
    let mut out = head(TOP + height, title);
    legend(&mut out, "median and quartiles; what ours is asked beside each:");
    let mut y = TOP;
    for panel in panels {
        y = draw(&mut out, panel, y);
    }
    out.push_str("</svg>\n");
    out
}

/// One panel from `y` on; where the next one begins.
fn draw(out: &mut String, panel: &Panel, y: f64) -> f64 {
    let highs = panel.rows.iter().filter_map(|row| row.bar).map(|bar| bar.high);
    let marks = panel.rows.iter().flat_map(|row| &row.marks).map(|mark| mark.at);
    let top = ceiling(highs.chain(marks).fold(0.0, f64::max));
    let at_x = |value: f64| LEFT + (value / top).clamp(0.0, 1.0) * (RIGHT - LEFT);
    let _ = writeln!(out, "<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", y + 14.0, escaped(&panel.title));
    let mut y = y + TITLE;
    let foot = y + ROW * panel.rows.len() as f64;
    let _ = writeln!(out, "<line x1=\"{LEFT}\" x2=\"{LEFT}\" y1=\"{y:.1}\" y2=\"{foot:.1}\" stroke=\"#888888\"/>");
    if let Some(ours) = panel.rows.first().and_then(|row| row.bar) {
        // Ours runs through all rows, to be held against the marks.
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{y:.1}\" y2=\"{foot:.1}\" stroke=\"{OURS}\" stroke-opacity=\"0.35\"/>",
            at_x(ours.middle)
        );
    }
    for (number, row) in panel.rows.iter().enumerate() {
        line(out, row, y, if number == 0 { OURS } else { THEIRS }, &at_x);
        y += ROW;
    }
    y + GAP
}

fn line(out: &mut String, row: &Row, y: f64, colour: &str, at_x: &dyn Fn(f64) -> f64) {
    let (middle, text) = (y + ROW / 2.0, y + ROW / 2.0 + 4.0);
    let name = escaped(&row.name);
    let _ = writeln!(out, "<text x=\"{}\" y=\"{text:.1}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0);
    if let Some(bar) = row.bar {
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{THICK}\" fill=\"{colour}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222222\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
            middle - THICK / 2.0,
            at_x(bar.middle) - LEFT,
            at_x(bar.low),
            at_x(bar.high),
            RIGHT + 10.0,
            number(bar.middle)
        );
    } else if row.marks.is_empty() {
        let _ = writeln!(out, "<text x=\"{}\" y=\"{text:.1}\" fill=\"#555555\">not measured</text>", LEFT + 8.0);
    }
    for mark in &row.marks {
        let style = if mark.is_must { MUST } else { GOAL };
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" {style}/>",
            at_x(mark.at),
            y + 1.0,
            y + ROW - 1.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_ends_where_its_value_is_and_who_is_missing_keeps_a_row() {
        let bar = |middle| Some(Bar { low: middle, middle, high: middle });
        let must = Mark { at: 5.0, is_must: true };
        let rows = vec![
            Row { name: "ours".into(), bar: bar(10.0), marks: Vec::new() },
            Row { name: "a<b".into(), bar: bar(2.5), marks: vec![must] },
            Row { name: "gone".into(), bar: None, marks: Vec::new() },
        ];
        let text = svg("t", &[Panel { title: "m".into(), rows }]);
        let widths: Vec<f64> = text
            .split("width=\"")
            .filter_map(|rest| rest.split_once("\" height=\"12\"").and_then(|(width, _)| width.parse().ok()))
            .collect();
        assert_eq!(widths, [RIGHT - LEFT, (RIGHT - LEFT) / 4.0].map(|width| (width * 10.0).round() / 10.0));
        let half = format!("<line x1=\"{:.1}\"", LEFT + (RIGHT - LEFT) / 2.0);
        assert!(text.lines().any(|line| line.starts_with(&half) && line.contains(MUST)), "{text}");
        assert!(text.contains(">gone<") && text.contains(">not measured<") && text.contains("a&lt;b"));
    }
}
