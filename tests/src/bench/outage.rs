//! `bench outage`: how long two 1 kHz flows stand still when a path dies, a link goes, a NAT forgets, a gateway is killed.
//! Owns who is measured where, and what is promised. Never breaks or measures anything itself.

use std::thread;

use anyhow::{Result, ensure};

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::rival::Kind;
use super::{Options, machine, wireguard};

pub mod cell;
mod ours;
mod play;
mod stage;

use cell::{CELLS, Cell, Finished, Point, Trial, What};
use play::{Played, STALL_MAX_MS, play};
use stage::{CAP, Whom};

const OURS: &str = "ours";
/// Those of which something is claimed, and what else its users may have.
const RIVALS: [Kind; 4] =
    [Kind::WireGuard(wireguard::GOTATUN), Kind::WireGuard(wireguard::WIREGUARD_GO), Kind::OpenVpn, Kind::Nebula];

/// The bench while it runs.
struct Bench<'a> {
    options: &'a Options,
    /// Contenders, and what each calls itself.
    rivals: Vec<(Whom, String)>,
    played: Played,
}

pub fn run(options: &Options) -> Result<Document> {
    let machine = machine::describe()?;
    let cells = chosen(options)?;
    let version = machine::product_version()?;
    let mut bench = Bench { options, rivals: Vec::new(), played: Played::default() };
    // A quick run shows that ours works; rivals that never come back take half a minute each.
    for kind in RIVALS.into_iter().filter(|_| !options.quick) {
        match kind.find() {
            Some(program) => {
                let told = kind.told(Some(&program))?;
                bench.rivals.push((Whom::Rival(kind, program), told));
            }
            None => {
                bench.played.errors.push(format!("{} is not installed; run: {}", kind.name(), kind.install()));
            }
        }
    }
    bench.played.add(play(options, &Whom::Ours, &version, &cells));
    bench.rivals(&cells);
    Ok(Document {
        machine,
        version,
        policy: format!("field, but {}", ours::POLICY.join(", ")),
        contenders: bench.contenders(),
        results: cells.iter().flat_map(|cell| bench.results(cell)).collect(),
        notes: bench.notes(),
        errors: bench.played.errors,
        ..machine::program_alone("outage")?
    })
}

/// The cells that were asked for.
fn chosen(options: &Options) -> Result<Vec<Cell>> {
    ensure!(options.rounds != Some(0), "--rounds must be at least 1");
    let all = CELLS.iter().filter(|cell| !options.quick || cell.quick);
    let names = || CELLS.iter().map(Cell::name).collect::<Vec<_>>().join(", ");
    for wanted in &options.only {
        ensure!(
            CELLS.iter().any(|cell| cell.name() == *wanted),
            "no cell is called {wanted:?}; there are: {}",
            names()
        );
    }
    let cells: Vec<Cell> =
        all.filter(|cell| options.only.is_empty() || options.only.contains(&cell.name())).copied().collect();
    ensure!(!cells.is_empty(), "none of these cells is in a quick run");
    Ok(cells)
}

impl Bench<'_> {
    /// Cells that take milliseconds one rival after the other; those that take seconds side by side, since they would take
    /// most of an hour.
    fn rivals(&mut self, cells: &[Cell]) {
        let cells = cells.iter().filter(|cell| cell.rival);
        let (long, short): (Vec<Cell>, Vec<Cell>) = cells.copied().partition(|cell| cell.what.takes_rivals_seconds());
        let Self { options, rivals, played } = self;
        let options: &Options = options;
        for (whom, told) in rivals.iter() {
            played.add(play(options, whom, told, &short));
        }
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (whom, told) in rivals.iter() {
                threads.push(scope.spawn(|| play(options, whom, told, &long)));
            }
            for thread in threads {
                played.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
    }

    fn found(&self, cell: &Cell, who: &str) -> Option<&Finished> {
        self.played.finished.iter().find(|done| done.cell == cell.name() && done.contender == who)
    }

    fn results(&self, cell: &Cell) -> Vec<Metric> {
        let rivals: Vec<&Finished> = RIVALS.iter().filter_map(|rival| self.found(cell, rival.name())).collect();
        metrics(cell, self.found(cell, OURS), &rivals)
    }

    fn contenders(&self) -> Vec<Contender> {
        let ours = Contender::new(
            OURS,
            "serve and connect in the lab, both flows between client and a host behind the gateway",
        );
        let rivals = RIVALS.iter().map(|kind| {
            let found = self.rivals.iter().find(|(whom, _)| whom.name() == kind.name());
            let told =
                found.map_or(if self.options.quick { "not in a quick run" } else { "not installed" }, |(_, told)| told);
            Contender::new(kind.name(), format!("{told}; follows the kernel's routes, flows to the gateway itself"))
        });
        let limit = Contender::new(
            LIMIT,
            "what must hold, ms at the 99th percentile or packets; ours ÷ it is that percentile's",
        );
        [ours].into_iter().chain(rivals).chain([limit]).collect()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "outage: longest gap between arrivals of a 1 kHz flow after the fault, the worse direction, less 1 ms"
                .to_owned(),
            format!(
                "below {} trials nothing is said of a 99th percentile; 300 are what one is claimed with",
                super::document::SAMPLES_FOR_TAIL
            ),
            "the policy lets a session move every few seconds, which `field` would deny and call DEGRADED".to_owned(),
            format!("rivals side by side, since they take seconds: {}", together().join(", ")),
        ];
        let mut points: Vec<Point> = CELLS.iter().map(|cell| cell.point).collect();
        points.dedup();
        notes.extend(points.iter().map(|point| format!("@{}: {}", point.name(), point.told())));
        for done in &self.played.finished {
            notes.extend(remarks(done));
        }
        if !self.played.taken_over.is_empty() {
            notes.push(format!("taken over from an earlier run: {}", self.played.taken_over.join(", ")));
        }
        notes
    }
}

/// What of a cell a reader must know beside its figures.
fn remarks(done: &Finished) -> Vec<String> {
    let mut parts = Vec::new();
    let capped = done.trials.iter().filter(|trial| trial.capped).count();
    if capped > 0 {
        parts.push(format!("> {} s in {capped} of {} trials", CAP.as_secs(), done.trials.len()));
    }
    if done.given_up {
        parts.push("left after these".into());
    }
    if done.discarded > 0 {
        parts.push(format!("{} trials discarded, the session was not ATTACHED or the way not clean", done.discarded));
    }
    if !done.disturbed.is_empty() {
        let worst = done.disturbed.iter().map(|trial| trial.outage_ms).fold(0.0, f64::max);
        parts.push(format!(
            "{} trials left out in which the machine stood still for {STALL_MAX_MS} ms or more (longest outage among them {worst:.1} ms)",
            done.disturbed.len()
        ));
    }
    let dropped: Vec<u64> = done.trials.iter().map(|trial| trial.dropped_by_lab).filter(|count| *count > 0).collect();
    if !dropped.is_empty() {
        let (all, among) = (dropped.iter().sum::<u64>(), dropped.len());
        parts.push(format!(
            "the lab's own links dropped {all} packets in {among} trials; those of the judged time count as lost like others"
        ));
    }
    if done.disturbed_kept > 0 {
        parts.push(format!("{} such trials counted, there was no quieter time", done.disturbed_kept));
    }
    let said = |part: String| format!("{}, {}: {part}", done.cell, done.contender);
    parts.into_iter().map(said).collect()
}

/// Cells in which rivals are measured side by side.
fn together() -> Vec<String> {
    CELLS.iter().filter(|cell| cell.rival && cell.what.takes_rivals_seconds()).map(Cell::name).collect()
}

/// What is published of a cell.
fn metrics(cell: &Cell, ours: Option<&Finished>, rivals: &[&Finished]) -> Vec<Metric> {
    let metric = |name: String, unit: &str, value: fn(&Trial) -> f64, bound: Option<(f64, f64)>, at: f64| {
        let own = ours.map(|done| done.series(value)).unwrap_or_default();
        let rivals = rivals.iter().map(|done| (done.contender.clone(), done.series(value))).collect();
        let must = bound.map(|(_, must)| must);
        let wanted = Wanted { metric: "", unit: "", better: Better::Lower, bounds: &[(LIMIT, 1.0, 1.0)] };
        let mut metric = Metric::limited(&wanted, own, rivals, must).judged_at(at, must);
        (metric.metric, metric.unit) = (name, unit.into());
        if let Some((goal, must)) = bound.filter(|(_, must)| *must > 0.0) {
            metric.goal.insert(LIMIT.into(), goal / must);
        }
        metric
    };
    let mut metrics = Vec::new();
    if cell.what != What::FastJump {
        metrics.push(metric(format!("outage_ms {}", cell.name()), "ms", |trial| trial.outage_ms, cell.bound, 0.99));
    }
    if cell.what.is_planned() {
        let none = cell.lossless().then_some((0.0, 0.0));
        metrics.push(metric(format!("lost {}", cell.name()), "packets", |trial| trial.lost as f64, none, 1.0));
        metrics.push(metric(
            format!("duplicated {}", cell.name()),
            "packets",
            |trial| trial.duplicated as f64,
            none,
            1.0,
        ));
    }
    metrics
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    CELLS.iter().flat_map(|cell| metrics(cell, None, &[])).collect()
}

#[cfg(test)]
#[path = "outage/tests.rs"]
mod tests;
