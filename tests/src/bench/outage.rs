//! `bench outage`: how long two 1 kHz flows stand still when a path dies, a link goes, a NAT forgets, a gateway is killed.
//! Owns the order of cells, resuming, and what is promised. Never breaks or measures anything itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::{Options, machine, wireguard};

pub mod cell;
mod ours;
mod stage;

use cell::{CELLS, Cell, Finished, Point, Trial, What};
use stage::{CAP, Outcome, Stage, Whom};

/// Trials of a cell: ours, and a rival's.
const TRIALS: (u32, u32) = (30, 10);
/// The machine stood still for so long, ms, in a trial that says nothing then: what the demo calls it, too.
const STALL_MAX_MS: f64 = 15.0;
/// Trials in a row that may be discarded before a cell is given up.
const DISCARDS_MAX: u32 = 10;
/// Trials of ours in which nothing came back, after which a cell without a promise is left: each takes half a minute.
const CAPPED_MAX: usize = 3;
const OURS: &str = "ours";
const RIVAL: &str = "gotatun";

/// The bench while it runs.
struct Bench<'a> {
    options: &'a Options,
    /// What programs call themselves.
    versions: BTreeMap<&'static str, String>,
    gotatun: Option<PathBuf>,
    finished: Vec<Finished>,
    taken_over: Vec<String>,
    errors: Vec<String>,
}

pub fn run(options: &Options) -> Result<Document> {
    let machine = machine::describe()?;
    let cells = chosen(options)?;
    let version = machine::product_version()?;
    // A quick run shows that ours works; rivals that never come back take half a minute each.
    let gotatun = if options.quick { None } else { wireguard::GOTATUN.find() };
    let mut versions = BTreeMap::from([(OURS, version.clone())]);
    if let Some(program) = &gotatun {
        versions.insert(RIVAL, wireguard::version(program)?);
    }
    let mut bench =
        Bench { options, versions, gotatun, finished: Vec::new(), taken_over: Vec::new(), errors: Vec::new() };
    if bench.gotatun.is_none() && !options.quick {
        bench.errors.push(format!("gotatun is not installed; run: {}", wireguard::GOTATUN.install));
    }
    bench.measure(&Whom::Ours, &cells);
    if let Some(program) = bench.gotatun.clone() {
        let cells: Vec<Cell> = cells.iter().copied().filter(|cell| cell.rival).collect();
        bench.measure(&Whom::Gotatun(program), &cells);
    }
    Ok(Document {
        machine,
        version,
        policy: format!("field, but {}", ours::POLICY.join(", ")),
        contenders: bench.contenders(),
        results: cells.iter().flat_map(|cell| bench.results(cell)).collect(),
        notes: bench.notes(),
        errors: bench.errors,
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

fn name_of(whom: &Whom) -> &'static str {
    match whom {
        Whom::Ours => OURS,
        Whom::Gotatun(_) => RIVAL,
    }
}

impl Bench<'_> {
    fn trials(&self, whom: &Whom) -> u32 {
        match (self.options.quick, whom) {
            (true, _) => self.options.rounds.unwrap_or(1),
            (false, Whom::Ours) => self.options.rounds.unwrap_or(TRIALS.0),
            (false, Whom::Gotatun(_)) => self.options.rounds.unwrap_or(TRIALS.1).min(TRIALS.1),
        }
    }

    /// All cells of one contender, on one stage a point.
    fn measure(&mut self, whom: &Whom, cells: &[Cell]) {
        let mut stage: Option<(Point, Stage)> = None;
        for cell in cells {
            if let Err(error) = self.cell(whom, cell, &mut stage) {
                let line = format!("{}, {}: {error:#}", cell.name(), name_of(whom));
                eprintln!("{line}");
                self.errors.push(line);
                // Whatever broke it, the next cell begins with a new one.
                stage = None;
            }
        }
        if let Some((_, stage)) = stage
            && let Err(error) = stage.close()
        {
            self.errors.push(format!("{}: {error:#}", name_of(whom)));
        }
    }

    fn cell(&mut self, whom: &Whom, cell: &Cell, stage: &mut Option<(Point, Stage)>) -> Result<()> {
        let (who, trials) = (name_of(whom), self.trials(whom));
        let version = self.versions.get(who).cloned().unwrap_or_default();
        let begun = Finished::begun(cell, who, &version, &ours::POLICY.join(", "));
        if let Some(found) = Finished::taken_over(self.options.report.as_deref(), &begun, trials) {
            eprintln!("{}, {who}: taken over, {} trials of an earlier run", cell.name(), found.trials.len());
            self.taken_over.push(format!("{} of {who}", cell.name()));
            self.finished.push(found);
            return Ok(());
        }
        let patient = whom != &Whom::Ours || cell.bound.is_some();
        let finished = played(begun, trials, patient, |number| {
            let on = stage.as_ref().map(|(point, _)| *point);
            if on != Some(cell.point) || cell.what.marks_for_minutes() {
                // The one before is gone before the next one comes.
                if let Some((_, old)) = stage.take() {
                    old.close()?;
                }
                *stage = Some((cell.point, Stage::set(whom, cell.point)?));
            }
            let (_, stage) = stage.as_mut().context("a stage was just set")?;
            let outcome = stage.trial(cell).with_context(|| format!("trial {number}"))?;
            if let Outcome::Seen(trial) = &outcome {
                eprintln!("{}, {who}, trial {number}: {}", cell.name(), told(trial));
            }
            Ok(outcome)
        })?;
        if cell.what.marks_for_minutes()
            && let Some((_, marked)) = stage.take()
        {
            marked.close()?;
        }
        if let Some(directory) = &self.options.report {
            finished.write(directory)?;
        }
        self.finished.push(finished);
        Ok(())
    }

    fn found(&self, cell: &Cell, who: &str) -> Option<&Finished> {
        self.finished.iter().find(|done| done.cell == cell.name() && done.contender == who)
    }

    fn results(&self, cell: &Cell) -> Vec<Metric> {
        let (ours, rival) = (self.found(cell, OURS), self.found(cell, RIVAL));
        metrics(cell, ours, rival)
    }

    fn contenders(&self) -> Vec<Contender> {
        let rival = self.versions.get(RIVAL).cloned();
        let rival = rival
            .unwrap_or_else(|| if self.options.quick { "not in a quick run".into() } else { "not installed".into() });
        vec![
            Contender::new(
                OURS,
                "serve and connect in the lab, both flows between client and a host behind the gateway",
            ),
            Contender::new(
                RIVAL,
                format!("{rival}, its defaults, follows the kernel's routes; flows to the gateway itself"),
            ),
            Contender::new(
                LIMIT,
                "what must hold, ms at the 99th percentile or packets; ours ÷ it is that percentile's",
            ),
        ]
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
        ];
        let mut points: Vec<Point> = CELLS.iter().map(|cell| cell.point).collect();
        points.dedup();
        notes.extend(points.iter().map(|point| format!("@{}: {}", point.name(), point.told())));
        for done in &self.finished {
            notes.extend(remarks(done));
        }
        if !self.taken_over.is_empty() {
            notes.push(format!("taken over from an earlier run: {}", self.taken_over.join(", ")));
        }
        notes
    }
}

/// Plays trials until there are enough, and says what was left out. Who is not `patient` leaves where nothing comes back.
fn played(
    mut done: Finished,
    wanted: u32,
    patient: bool,
    mut trial: impl FnMut(u32) -> Result<Outcome>,
) -> Result<Finished> {
    let (began, mut refused) = (Instant::now(), 0);
    let extra = wanted.max(3);
    while (done.trials.len() as u32) < wanted && !done.given_up {
        match trial(done.trials.len() as u32 + 1)? {
            Outcome::Discarded => {
                done.discarded += 1;
                refused += 1;
                ensure!(refused < DISCARDS_MAX, "{refused} trials in a row could not begin");
            }
            Outcome::Seen(seen) => {
                refused = 0;
                // What is less than a tenth of the outage changes nothing about it.
                let still = seen.stall_ms >= STALL_MAX_MS.max(seen.outage_ms / 10.0);
                if still && (done.disturbed.len() as u32) < extra {
                    done.disturbed.push(seen);
                } else {
                    done.disturbed_kept += u32::from(still);
                    done.trials.push(seen);
                }
                let capped = done.trials.iter().chain(&done.disturbed).filter(|trial| trial.capped).count();
                done.given_up = !patient && capped >= CAPPED_MAX;
            }
        }
    }
    done.took_s = began.elapsed().as_secs_f64();
    Ok(done)
}

fn told(trial: &Trial) -> String {
    let more = if trial.capped { "> " } else { "" };
    let ms = |value: Option<f64>| value.map_or_else(|| "–".into(), |ms| format!("{ms:.1}"));
    format!(
        "{more}{:.1} ms, {} lost, {} twice of {}; {} {}; detect {} prove {} commit {} ms; machine {:.1} ms",
        trial.outage_ms,
        trial.lost,
        trial.duplicated,
        trial.sent,
        trial.path,
        trial.reasons.join(" "),
        ms(trial.detect_ms),
        ms(trial.prove_ms),
        ms(trial.commit_ms),
        trial.stall_ms,
    )
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

/// What is published of a cell.
fn metrics(cell: &Cell, ours: Option<&Finished>, rival: Option<&Finished>) -> Vec<Metric> {
    let series =
        |done: Option<&Finished>, value: fn(&Trial) -> f64| done.map(|done| done.series(value)).unwrap_or_default();
    let metric = |name: String, unit: &str, value: fn(&Trial) -> f64, bound: Option<(f64, f64)>, at: f64| {
        let own = series(ours, value);
        let mut rivals = BTreeMap::new();
        if cell.rival && rival.is_some() {
            rivals.insert(RIVAL.to_owned(), series(rival, value));
        }
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
    CELLS.iter().flat_map(|cell| metrics(cell, None, None)).collect()
}

#[cfg(test)]
#[path = "outage/tests.rs"]
mod tests;
