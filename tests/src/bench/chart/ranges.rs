//! Owns ranges on a logarithmic axis as SVG: p50 to p99 thick, to the worst one thin, and marks where it must end. Never
//! computes what it draws.

use std::fmt::Write;

use super::{GOAL, MUST, OURS, RIGHT, THEIRS, TOP, escaped, head, legend};
use crate::bench::page::table::number;

/// One metric.
#[derive(Clone, Debug)]
pub struct Range {
    pub name: String,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    pub goal: Option<f64>,
    pub must: Option<f64>,
    /// Medians of others.
    pub rivals: Vec<(String, f64)>,
}

const LEFT: f64 = 250.0;
const ROW: f64 = 22.0;
/// Room for the axis.
const FOOT: f64 = 40.0;
/// A logarithm needs an end: less than this is drawn there.
const LEAST: f64 = 0.1;

/// The chart.
pub fn svg(title: &str, unit: &str, ranges: &[Range]) -> String {
    let all = || ranges.iter().flat_map(values).map(|value| value.max(LEAST).log10());
    let (first, last) = (all().fold(f64::INFINITY, f64::min).floor(), all().fold(0.0, f64::max).ceil());
    let at_x = |value: f64| {
        let place = (value.max(LEAST).log10() - first) / (last - first).max(1.0);
        LEFT + place * (RIGHT - LEFT)
    };
    let foot = TOP + ROW * ranges.len() as f64;
    let mut out = head(foot + FOOT, title);
    legend(&mut out, &format!("{unit}: p50 to p99 (at the right) thick, worst thin; p50 of rivals"));
    for decade in first as i32..=last as i32 {
        let value = 10_f64.powi(decade);
        let _ = writeln!(
            out,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{foot:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"middle\">{value}</text>",
            at_x(value),
            foot + 20.0
        );
    }
    for (at, range) in ranges.iter().enumerate() {
        draw(&mut out, range, TOP + ROW * (at as f64 + 0.5), &at_x);
    }
    out.push_str("</svg>\n");
    out
}

/// Everything that has to be on the axis.
fn values(range: &Range) -> impl Iterator<Item = f64> {
    let marks = range.goal.into_iter().chain(range.must);
    [range.p50, range.max].into_iter().chain(marks).chain(range.rivals.iter().map(|(_, value)| *value))
}

fn draw(out: &mut String, range: &Range, y: f64, at_x: &dyn Fn(f64) -> f64) {
    let [p50, p99, max] = [range.p50, range.p99, range.max].map(at_x);
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <line x1=\"{p50:.1}\" x2=\"{max:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{OURS}\"/>\
         <line x1=\"{p50:.1}\" x2=\"{p99:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{OURS}\" stroke-width=\"7\"/>\
         <circle cx=\"{p50:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{OURS}\"/>\
         <text x=\"{}\" y=\"{1:.1}\">{}</text>",
        LEFT - 8.0,
        y + 4.0,
        escaped(&range.name),
        RIGHT + 10.0,
        number(range.p99)
    );
    for (at, style) in [(range.goal, GOAL), (range.must, MUST)] {
        if let Some(at) = at.filter(|at| *at > 0.0).map(at_x) {
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" {style}/>",
                y - 9.0,
                y + 9.0
            );
        }
    }
    for (name, value) in &range.rivals {
        let x = at_x(*value);
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"none\" stroke=\"{THEIRS}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555555\" text-anchor=\"end\">{}</text>",
            x - 8.0,
            y + 4.0,
            escaped(name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_goes_from_its_middle_to_its_far_end_and_ten_times_is_a_step() {
        let range = |p50: f64, must| Range {
            name: "a".into(),
            p50,
            p99: p50 * 10.0,
            max: p50 * 100.0,
            goal: None,
            must,
            rivals: vec![("they".into(), 10_000.0)],
        };
        let text = svg("t", "ms", &[range(1.0, Some(10.0)), range(0.0, None)]);
        let step = (RIGHT - LEFT) / 5.0;
        let thick = format!("<line x1=\"{:.1}\" x2=\"{:.1}\"", LEFT + step, LEFT + 2.0 * step);
        assert!(text.lines().any(|line| line.contains(&thick) && line.contains("stroke-width=\"7\"")), "{text}");
        let must = format!("<line x1=\"{0:.1}\" x2=\"{0:.1}\"", LEFT + 2.0 * step);
        assert!(text.lines().any(|line| line.starts_with(&must) && line.contains(MUST)), "{text}");
        assert!(text.contains(">they<"), "a rival has its circle");
        assert!(!text.contains("inf") && !text.contains("NaN"), "what takes no time is drawn at the least");
    }
}
