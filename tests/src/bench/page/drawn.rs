//! Owns which chart a run has: the curve of `steer`, ranges where the tail is what counts, else bars beside rivals. Never
//! draws what was not measured.

use std::collections::BTreeMap;

use crate::bench::chart::bars::{self, Bar, Mark, Panel};
use crate::bench::chart::ranges::{self, Range};
use crate::bench::chart::svg;
use crate::bench::document::{Document, LIMIT, Metric};
use crate::bench::stats::summary;
use crate::bench::steer;

/// The chart of a run; none where there is nothing to compare with.
pub fn chart(document: &Document) -> Option<String> {
    let day = document.day.as_deref().unwrap_or("day unknown");
    let title = format!("{}, {day}", document.bench);
    if document.bench == "steer" {
        return Some(svg(&steer::curves(&document.results)));
    }
    let ranges: Vec<Range> = document.results.iter().filter_map(range).collect();
    if !ranges.is_empty() {
        return Some(ranges::svg(&title, "ms", &ranges));
    }
    let panels: Vec<Panel> = document.results.iter().filter_map(panel).collect();
    (!panels.is_empty()).then(|| bars::svg(&title, &panels))
}

/// A metric beside its rivals.
fn panel(metric: &Metric) -> Option<Panel> {
    let row = |name: &str| {
        let samples: Vec<f64> = metric.samples.get(name)?.iter().copied().flatten().collect();
        let all = summary(&samples)?;
        Some(Bar { low: all.lower, middle: all.median, high: all.upper })
    };
    let marks = |rival: &str, theirs: Option<f64>| {
        let of = |bounds: &BTreeMap<String, f64>, is_must| {
            let at = bounds.get(rival).copied().zip(theirs).map(|(ratio, theirs)| ratio * theirs);
            at.map(|at| Mark { at, is_must })
        };
        [of(&metric.goal, false), of(&metric.must, true)].into_iter().flatten().collect()
    };
    let ours = bars::Row { name: "ours".into(), bar: Some(row("ours")?), marks: Vec::new() };
    // A limit is no contender: of its row only the marks are drawn.
    let rivals = metric.rivals.iter().map(|(name, theirs)| bars::Row {
        name: name.clone(),
        bar: row(name).filter(|_| name != LIMIT),
        marks: marks(name, *theirs),
    });
    let rows: Vec<bars::Row> = [ours].into_iter().chain(rivals).collect();
    let title = format!("{}, {} {}", metric.metric, metric.unit, metric.better.arrow());
    (rows.len() > 1).then_some(Panel { title, rows })
}

/// A metric in ms that is judged by its tail.
fn range(metric: &Metric) -> Option<Range> {
    let tail = metric.tail.filter(|_| metric.unit == "ms")?;
    let limit = metric.rivals.get(LIMIT).copied().flatten();
    let at = |bounds: &BTreeMap<String, f64>| bounds.get(LIMIT).copied().zip(limit).map(|(ratio, limit)| ratio * limit);
    let rivals = metric.rivals.iter().filter(|(name, _)| *name != LIMIT);
    Some(Range {
        name: metric.metric.clone(),
        p50: tail.p50,
        p99: tail.p99,
        max: tail.max,
        goal: at(&metric.goal),
        must: at(&metric.must),
        rivals: rivals.filter_map(|(name, theirs)| Some((name.clone(), (*theirs)?))).collect(),
    })
}
