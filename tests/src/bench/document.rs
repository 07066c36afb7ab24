//! Owns the document of a bench (`jvpn.bench/1`) and how people see it. Never measures; a figure that is missing is
//! null and `errors` says why.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::stats::{paired, quantile, summary};

pub const SCHEMA: &str = "jvpn.bench/1";
/// Rounds below which no promise is called kept or broken: the machine's noise is larger than the figure.
pub const ROUNDS_FOR_VERDICT: usize = 9;
/// Stolen share from which on a round is said to be disturbed.
const DISTURBED: f64 = 0.02;
/// Samples below which nothing is said of a tail: with fewer the 99th percentile is an accident.
pub const SAMPLES_FOR_TAIL: usize = 30;
/// How far the lower quartile may lie beyond a bound that the median reaches.
const QUARTILE_SLACK: f64 = 0.10;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

impl Better {
    /// How a bound is written.
    pub fn sign(self) -> char {
        match self {
            Better::Higher => '≥',
            Better::Lower => '≤',
        }
    }

    /// Which way is good, at a glance.
    pub fn arrow(self) -> char {
        match self {
            Better::Higher => '↑',
            Better::Lower => '↓',
        }
    }

    /// Whether a figure is on the good side of a bound.
    pub fn reaches(self, figure: f64, bound: f64) -> bool {
        match self {
            Better::Higher => figure >= bound,
            Better::Lower => figure <= bound,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Holds,
    Fails,
    TooFewRounds,
    NotMeasured,
}

impl Verdict {
    /// For people.
    pub fn told(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Fails => "FAILS",
            Verdict::TooFewRounds => "too few rounds to say",
            Verdict::NotMeasured => "not measured",
        }
    }
}

/// What lies far out, where a median says too little.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// One figure against its rivals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metric {
    pub metric: String,
    pub unit: String,
    pub better: Better,
    /// Median.
    pub ours: Option<f64>,
    pub rivals: BTreeMap<String, Option<f64>>,
    /// Median of ours ÷ rival, paired by round.
    pub ratios: BTreeMap<String, Option<f64>>,
    /// Bounds of ratios, by rival.
    pub goal: BTreeMap<String, f64>,
    pub must: BTreeMap<String, f64>,
    /// What became of each must.
    pub verdicts: BTreeMap<String, Verdict>,
    pub rounds: usize,
    /// Quartiles of the paired ratios, and of our own figure under `ours`.
    pub spread: BTreeMap<String, [f64; 2]>,
    /// Of our own samples, where the tail is what is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
    /// Every figure, round by round.
    pub samples: BTreeMap<String, Vec<Option<f64>>>,
}

/// What is asked of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub metric: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// Rival, goal, must.
    pub bounds: &'static [(&'static str, f64, f64)],
}

/// The rival who always reaches what must be: a promise in units is a ratio to it.
pub const LIMIT: &str = "limit";

impl Metric {
    /// Beside [`LIMIT`], where there is one.
    pub fn limited(
        wanted: &Wanted,
        ours: Vec<Option<f64>>,
        mut rivals: BTreeMap<String, Vec<Option<f64>>>,
        must: Option<f64>,
    ) -> Metric {
        rivals.extend(must.map(|must| (LIMIT.to_owned(), vec![Some(must); ours.len()])));
        let mut metric = Metric::new(wanted, ours, rivals);
        // A promise is known before anything is measured.
        metric.rivals.extend(must.map(|must| (LIMIT.to_owned(), Some(must))));
        metric
    }

    /// A rival that something is promised against has its place, also where nothing was measured of it.
    pub fn new(wanted: &Wanted, ours: Vec<Option<f64>>, mut rivals: BTreeMap<String, Vec<Option<f64>>>) -> Metric {
        for (rival, ..) in wanted.bounds.iter().filter(|(rival, ..)| *rival != LIMIT) {
            rivals.entry((*rival).to_owned()).or_default();
        }
        let middle = |samples: &[Option<f64>]| summary(&samples.iter().flatten().copied().collect::<Vec<_>>());
        let mut metric = Metric {
            metric: wanted.metric.into(),
            unit: wanted.unit.into(),
            better: wanted.better,
            ours: middle(&ours).map(|all| all.median),
            rivals: BTreeMap::new(),
            ratios: BTreeMap::new(),
            goal: BTreeMap::new(),
            must: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            rounds: ours.len(),
            tail: None,
            spread: middle(&ours).map(|all| ("ours".into(), [all.lower, all.upper])).into_iter().collect(),
            samples: BTreeMap::new(),
        };
        for (name, theirs) in &rivals {
            let ratios = paired(&ours, theirs);
            let all = summary(&ratios);
            metric.rivals.insert(name.clone(), middle(theirs).map(|all| all.median));
            metric.ratios.insert(name.clone(), all.map(|all| all.median));
            if let Some(all) = all {
                metric.spread.insert(name.clone(), [all.lower, all.upper]);
            }
            if let Some((_, goal, must)) = wanted.bounds.iter().find(|(rival, ..)| rival == name) {
                metric.goal.insert(name.clone(), *goal);
                metric.must.insert(name.clone(), *must);
                metric.verdicts.insert(name.clone(), judge(&ratios, wanted.better, *must));
            }
        }
        metric.samples = rivals;
        metric.samples.insert("ours".into(), ours);
        metric
    }

    /// Median of ours ÷ rival, where both were measured.
    pub fn ratio(&self, rival: &str) -> Option<f64> {
        self.ratios.get(rival).copied().flatten()
    }

    /// The same, judged by what all but the share above `at` reach: 0.99, or 1 for every single one. The ratio to `limit`
    /// and what becomes of its must are then those of the tail, never of medians.
    #[must_use]
    pub fn judged_at(mut self, at: f64, limit: Option<f64>) -> Metric {
        let mut sorted: Vec<f64> = self.samples.get("ours").into_iter().flatten().flatten().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let of = |share| quantile(&sorted, share);
        let all = of(0.5).zip(of(0.95)).zip(of(0.99).zip(of(1.0)));
        self.tail = all.map(|((p50, p95), (p99, max))| Tail { p50, p95, p99, max });
        if let Some(limit) = limit {
            let (far, few) = (of(at), sorted.len() < SAMPLES_FOR_TAIL);
            let verdict = match far {
                None => Verdict::NotMeasured,
                Some(_) if few => Verdict::TooFewRounds,
                Some(far) if far <= limit => Verdict::Holds,
                Some(_) => Verdict::Fails,
            };
            self.ratios.insert(LIMIT.into(), far.filter(|_| limit > 0.0).map(|far| far / limit));
            self.spread.remove(LIMIT);
            self.verdicts.insert(LIMIT.into(), verdict);
        }
        self
    }
}

/// Whether paired ratios keep a bound: the median reaches it and the worse quartile is within a tenth of it.
fn judge(ratios: &[f64], better: Better, bound: f64) -> Verdict {
    let Some(all) = summary(ratios) else { return Verdict::NotMeasured };
    let kept = match better {
        Better::Higher => all.median >= bound && all.lower >= bound * (1.0 - QUARTILE_SLACK),
        Better::Lower => all.median <= bound && all.upper <= bound * (1.0 + QUARTILE_SLACK),
    };
    match (ratios.len() < ROUNDS_FOR_VERDICT, kept) {
        (true, _) => Verdict::TooFewRounds,
        (false, true) => Verdict::Holds,
        (false, false) => Verdict::Fails,
    }
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_mib: u64,
    pub load_1min: f64,
    /// Share of the machine others used just before each round.
    pub busy_before_rounds: Vec<f64>,
    /// Share of each round that the host of this virtual machine gave to others.
    pub stolen_in_rounds: Vec<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    /// What it is, in one line: cipher, version, kernel program.
    pub what: String,
}

impl Contender {
    pub fn new(name: &str, what: impl Into<String>) -> Contender {
        Contender { name: name.into(), what: what.into() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    pub schema: String,
    pub bench: String,
    /// When it was measured, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    pub machine: Machine,
    pub kernel: String,
    pub version: String,
    pub command: String,
    pub policy: String,
    pub contenders: Vec<Contender>,
    pub results: Vec<Metric>,
    pub notes: Vec<String>,
    pub errors: Vec<String>,
}

impl Document {
    /// Whether ours was measured and no must is broken.
    pub fn pass(&self) -> bool {
        let broken = |metric: &Metric| metric.verdicts.values().any(|verdict| *verdict == Verdict::Fails);
        self.results.iter().all(|metric| metric.ours.is_some() && !broken(metric))
    }

    /// Rounds that the host of a virtual machine disturbed, and the share of each that it took; the first one is 1.
    pub fn disturbed(&self) -> impl Iterator<Item = (usize, f64)> {
        (1..).zip(self.machine.stolen_in_rounds.iter().copied()).filter(|(_, stolen)| *stolen > DISTURBED)
    }

    /// For people.
    pub fn human(&self) -> String {
        let day = self.day.as_deref().map_or_else(String::new, |day| format!(", {day}"));
        let mut text = format!("{}: {}, Linux {}{day}\n", self.bench, self.machine.processor, self.kernel);
        for contender in &self.contenders {
            let _ = writeln!(text, "  {:<10} {}", contender.name, contender.what);
        }
        for metric in &self.results {
            let _ = writeln!(
                text,
                "\n{} ({}), median of {} rounds\n  {:<10} {}",
                metric.metric,
                metric.unit,
                metric.rounds,
                "ours",
                figure(metric.ours)
            );
            if let Some(Tail { p50, p95, p99, max }) = metric.tail {
                let _ = writeln!(text, "  {:<10} p50 {p50:.1}  p95 {p95:.1}  p99 {p99:.1}  max {max:.1}", "");
            }
            for (name, value) in &metric.rivals {
                let _ = write!(text, "  {name:<10} {:>8}   ours ÷ it {}", figure(*value), figure(metric.ratio(name)));
                if let Some([lower, upper]) = metric.spread.get(name) {
                    let _ = write!(text, " ({lower:.2}–{upper:.2})");
                }
                if let (Some(must), Some(goal)) = (metric.must.get(name), metric.goal.get(name)) {
                    let sign = metric.better.sign();
                    let verdict = metric.verdicts.get(name).copied().unwrap_or(Verdict::NotMeasured).told();
                    let _ = write!(text, "   must {sign} {must}: {verdict} (goal {goal})");
                }
                text.push('\n');
            }
        }
        for (round, stolen) in self.disturbed() {
            let _ = writeln!(text, "disturbed: round {round}, {:.1} % of it was stolen by the host", stolen * 100.0);
        }
        for (kind, lines) in [("note", &self.notes), ("error", &self.errors)] {
            for line in lines {
                let _ = writeln!(text, "{kind}: {line}");
            }
        }
        text
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { metric: "m", unit: "u", better: Better::Higher, bounds: &[("rival", 3.0, 1.5)] };

    fn metric(ours: &[f64], rival: Vec<Option<f64>>) -> Metric {
        let ours = ours.iter().copied().map(Some).collect();
        Metric::new(&WANTED, ours, [("rival".to_owned(), rival)].into())
    }

    #[test]
    fn a_must_holds_by_median_and_worse_quartile() {
        let good = metric(&[2.0; 9], vec![Some(1.0); 9]);
        assert_eq!(good.verdicts["rival"], Verdict::Holds);
        let mut ours = [2.0; 9];
        ours[..4].fill(1.0);
        assert_eq!(metric(&ours, vec![Some(1.0); 9]).verdicts["rival"], Verdict::Fails, "the quartile is too low");
        assert_eq!(metric(&[1.4; 9], vec![Some(1.0); 9]).verdicts["rival"], Verdict::Fails);
        assert_eq!(judge(&[0.5; 9], Better::Lower, 0.5), Verdict::Holds);
        assert_eq!(judge(&[0.6; 9], Better::Lower, 0.5), Verdict::Fails);
    }

    #[test]
    fn a_tail_is_judged_by_its_far_end_and_not_by_the_median() {
        let wanted = Wanted { metric: "m", unit: "ms", better: Better::Lower, bounds: &[("limit", 0.6, 1.0)] };
        let of = |samples: &[f64], at, limit| {
            let ours = samples.iter().copied().map(Some).collect();
            let rivals = [("limit".to_owned(), vec![Some(limit); samples.len()])].into();
            Metric::new(&wanted, ours, rivals).judged_at(at, Some(limit))
        };
        let mut samples = [50.0; 40];
        assert_eq!(of(&samples, 0.99, 100.0).verdicts["limit"], Verdict::Holds);
        samples[7] = 200.0;
        let one_late = of(&samples, 0.99, 100.0);
        assert_eq!(one_late.verdicts["limit"], Verdict::Fails, "of forty the worst one is the 99th percentile");
        assert_eq!(one_late.tail.map(|tail| (tail.p50, tail.max)), Some((50.0, 200.0)));
        assert_eq!(of(&samples[..29], 0.99, 100.0).verdicts["limit"], Verdict::TooFewRounds);
        assert_eq!(of(&[0.0; 30], 1.0, 0.0).verdicts["limit"], Verdict::Holds, "none may be lost, and none was");
        let mut lost = [0.0; 30];
        lost[3] = 1.0;
        let lost = of(&lost, 1.0, 0.0);
        assert_eq!((lost.verdicts["limit"], lost.ratios["limit"]), (Verdict::Fails, None));
        assert_eq!(of(&[], 0.99, 1.0).verdicts["limit"], Verdict::NotMeasured);
    }

    #[test]
    fn a_promise_is_known_before_anything_is_measured() {
        let nothing = Metric::new(&WANTED, Vec::new(), BTreeMap::new());
        assert_eq!((nothing.must["rival"], nothing.verdicts["rival"]), (1.5, Verdict::NotMeasured));
        assert_eq!(nothing.rivals["rival"], None, "who was not there is not left out");
        let limit = Wanted { bounds: &[(LIMIT, 0.5, 1.0)], ..WANTED };
        let limited = Metric::limited(&limit, Vec::new(), BTreeMap::new(), Some(7.0));
        assert_eq!((limited.rivals[LIMIT], limited.verdicts[LIMIT]), (Some(7.0), Verdict::NotMeasured));
        let free = Metric::limited(&limit, vec![Some(1.0)], BTreeMap::new(), None);
        assert!(free.must.is_empty() && free.rivals.is_empty(), "without a limit nothing is promised");
    }

    #[test]
    fn few_rounds_say_nothing_and_a_missing_rival_is_null() {
        assert_eq!(metric(&[9.0; 3], vec![Some(1.0); 3]).verdicts["rival"], Verdict::TooFewRounds);
        let missing = metric(&[9.0; 9], vec![None; 9]);
        assert_eq!(missing.verdicts["rival"], Verdict::NotMeasured);
        let json = serde_json::to_value(&missing).unwrap();
        assert!(json["rivals"]["rival"].is_null() && json["ratios"]["rival"].is_null());
        assert_eq!(json["ours"], 9.0);
    }
}
