//! Owns everything that is asked of every bench, and what became of it. The bounds are those of the benches themselves,
//! from what each says before it measured anything. Never judges.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{bound, figure, number};
use crate::bench::BENCHES;
use crate::bench::document::{Document, LIMIT, Metric, Verdict};

/// One promise or aim: a metric against one rival.
#[derive(Clone, Debug)]
pub struct Asked {
    pub bench: &'static str,
    /// As it is before anything is measured.
    pub metric: Metric,
    pub rival: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Judged(Verdict),
    /// No must, and whether the goal was reached.
    Aimed(bool),
    /// It was judged by another bound than the one that holds now.
    Changed,
    NoRun,
}

/// All of them, in the order of the benches.
pub fn all() -> Vec<Asked> {
    let of = |bench: &'static crate::bench::Bench| {
        (bench.unmeasured)().into_iter().flat_map(move |metric| {
            let rivals: BTreeSet<String> = metric.goal.keys().chain(metric.must.keys()).cloned().collect();
            rivals.into_iter().map(move |rival| Asked { bench: bench.name, metric: metric.clone(), rival })
        })
    };
    BENCHES.iter().flat_map(of).collect()
}

impl Asked {
    fn found<'a>(&self, documents: &'a BTreeMap<String, Document>) -> Option<&'a Metric> {
        documents.get(self.bench)?.results.iter().find(|metric| metric.metric == self.metric.metric)
    }

    /// What is asked, to be compared.
    fn bounds(&self, metric: &Metric) -> [Option<f64>; 3] {
        let limit = metric.rivals.get(LIMIT).copied().flatten().filter(|_| self.rival == LIMIT);
        [metric.goal.get(&self.rival).copied(), metric.must.get(&self.rival).copied(), limit]
    }

    pub fn standing(&self, documents: &BTreeMap<String, Document>) -> Standing {
        let Some(metric) = self.found(documents) else { return Standing::NoRun };
        if self.bounds(metric) != self.bounds(&self.metric) {
            return Standing::Changed;
        }
        match metric.verdicts.get(&self.rival) {
            Some(verdict) => Standing::Judged(*verdict),
            None if metric.ratio(&self.rival).is_none() => Standing::Judged(Verdict::NotMeasured),
            None => Standing::Aimed(self.reached(metric)),
        }
    }

    fn reached(&self, metric: &Metric) -> bool {
        let goal = metric.goal.get(&self.rival).copied();
        metric.ratio(&self.rival).zip(goal).is_some_and(|(ratio, goal)| metric.better.reaches(ratio, goal))
    }

    /// Its line in the table.
    pub fn row(&self, standing: Standing, documents: &BTreeMap<String, Document>) -> String {
        let (metric, rival) = (&self.metric, self.rival.as_str());
        let unit = if rival == LIMIT { metric.unit.clone() } else { format!("× {rival}") };
        let [goal, must] = [&metric.goal, &metric.must].map(|bounds| bound(metric, rival, bounds));
        let found = self.found(documents);
        let verdict = match standing {
            Standing::Judged(Verdict::Fails) => "**fails**".to_owned(),
            Standing::Judged(Verdict::Holds) if found.is_some_and(|metric| self.reached(metric)) => {
                "holds, goal reached".to_owned()
            }
            Standing::Judged(verdict) => verdict.told().to_owned(),
            Standing::Aimed(true) => "goal reached".to_owned(),
            Standing::Aimed(false) => "goal missed".to_owned(),
            Standing::Changed => "judged by another bound".to_owned(),
            Standing::NoRun => "not measured".to_owned(),
        };
        let measured = found.map_or_else(|| "–".to_owned(), |metric| self.measured(metric));
        format!("| {} | `{}` | {unit} | {goal} | {must} | {measured} | {verdict} |", self.bench, metric.metric)
    }

    /// The figure that is judged: of a limit ours in its unit, the tail where that is what counts, else the ratio.
    fn measured(&self, metric: &Metric) -> String {
        let ratio = metric.ratio(&self.rival);
        if self.rival != LIMIT {
            return figure(ratio, metric.spread.get(&self.rival));
        }
        match (metric.tail, metric.rivals.get(LIMIT).copied().flatten()) {
            (Some(tail), limit) => number(ratio.zip(limit).map_or(tail.max, |(ratio, limit)| ratio * limit)),
            (None, _) => figure(metric.ours, metric.spread.get("ours")),
        }
    }
}
