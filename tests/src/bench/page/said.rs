//! Owns what people wrote about single metrics (`docs/bench/limits.toml`): what limits them next, and what we lose at. Never
//! lets a must fail without a word, nor a word stay that is about nothing.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::bench::BENCHES;
use crate::bench::document::{Document, Metric, Verdict};

/// By bench and metric, a sentence.
type Sentences = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// What limits a figure next.
    #[serde(default)]
    pub limits: Sentences,
    /// At what a rival is better.
    #[serde(default)]
    pub losses: Sentences,
}

impl Said {
    /// Every must that fails has a sentence, and every sentence is about a metric that there is.
    pub fn check(&self, documents: &BTreeMap<String, Document>) -> Result<()> {
        for (bench, metric) in documents.values().flat_map(failing) {
            let said = self.limits.get(bench).is_some_and(|of| of.contains_key(metric));
            ensure!(
                said,
                "{metric:?} of bench {bench} fails: docs/bench/limits.toml has to say in [limits.{bench}] why"
            );
        }
        for (bench, metric) in [&self.limits, &self.losses].into_iter().flatten().flat_map(named) {
            let wanted = BENCHES.iter().filter(|known| known.name == bench).flat_map(|known| (known.unmeasured)());
            let measured = documents.get(bench).into_iter().flat_map(|document| document.results.clone());
            let known = wanted.chain(measured).any(|known: Metric| known.metric == metric);
            ensure!(known, "docs/bench/limits.toml speaks of {metric:?} of bench {bench:?}, which no bench has");
        }
        Ok(())
    }

    /// What is said of one bench, as a list.
    pub fn of(&self, bench: &str, indent: &str) -> String {
        let mut text = String::new();
        for (what, sentences) in [("What limits", &self.limits), ("What we lose at,", &self.losses)] {
            for (metric, sentence) in sentences.get(bench).into_iter().flatten() {
                let _ = writeln!(text, "{indent}- {what} `{metric}`: {sentence}");
            }
        }
        text
    }
}

fn failing(document: &Document) -> impl Iterator<Item = (&str, &str)> {
    let fails = |metric: &&Metric| metric.verdicts.values().any(|verdict| *verdict == Verdict::Fails);
    document.results.iter().filter(fails).map(|metric| (document.bench.as_str(), metric.metric.as_str()))
}

fn named<'a>((bench, of): (&'a String, &'a BTreeMap<String, String>)) -> impl Iterator<Item = (&'a str, &'a str)> {
    of.keys().map(move |metric| (bench.as_str(), metric.as_str()))
}
