//! Owns the order in which one contender's cells are played, resuming, and which trials count. Never breaks or measures
//! anything itself.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::OURS;
use super::cell::{Cell, Finished, Point, Trial, What};
use super::ours::POLICY;
use super::stage::{Outcome, Stage, Whom};
use crate::bench::Options;

/// Trials of a cell: ours, and a rival's.
const TRIALS: (u32, u32) = (30, 10);
/// The machine stood still for so long, ms, in a trial that says nothing then: what the demo calls it, too.
pub(super) const STALL_MAX_MS: f64 = 15.0;
/// Trials in a row that may be discarded before a cell is given up.
pub(super) const DISCARDS_MAX: u32 = 10;
/// Trials of ours in which nothing came back, after which a cell without a promise is left: each takes half a minute.
pub(super) const CAPPED_MAX: usize = 3;

/// What was played.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) finished: Vec<Finished>,
    pub(super) taken_over: Vec<String>,
    pub(super) errors: Vec<String>,
}

impl Played {
    pub(super) fn add(&mut self, other: Played) {
        self.finished.extend(other.finished);
        self.taken_over.extend(other.taken_over);
        self.errors.extend(other.errors);
    }
}

/// All cells of one contender, on one stage a point.
pub(super) fn play(options: &Options, whom: &Whom, version: &str, cells: &[Cell]) -> Played {
    let mut player = Player { options, whom, version, stage: None, played: Played::default() };
    for cell in cells {
        if let Err(error) = player.cell(cell) {
            let line = format!("{}, {}: {error:#}", cell.name(), whom.name());
            eprintln!("{line}");
            player.played.errors.push(line);
            // Whatever broke it, the next cell begins with a new one.
            player.stage = None;
        }
    }
    let closed = player.leave();
    let mut played = player.played;
    played.errors.extend(closed.err().map(|error| format!("{}: {error:#}", whom.name())));
    played
}

struct Player<'a> {
    options: &'a Options,
    whom: &'a Whom,
    version: &'a str,
    stage: Option<(Point, Stage)>,
    played: Played,
}

impl Player<'_> {
    fn trials(&self) -> u32 {
        match (self.options.quick, self.whom) {
            (true, _) => self.options.rounds.unwrap_or(1),
            (false, Whom::Ours) => self.options.rounds.unwrap_or(TRIALS.0),
            (false, Whom::Rival(..)) => self.options.rounds.unwrap_or(TRIALS.1).min(TRIALS.1),
        }
    }

    fn cell(&mut self, cell: &Cell) -> Result<()> {
        let (who, trials) = (self.whom.name(), self.trials());
        let begun = Finished::begun(cell, who, self.version, &POLICY.join(", "));
        if let Some(found) = Finished::taken_over(self.options.report.as_deref(), &begun, trials) {
            eprintln!("{}, {who}: taken over, {} trials of an earlier run", cell.name(), found.trials.len());
            self.played.taken_over.push(format!("{} of {who}", cell.name()));
            self.played.finished.push(found);
            return Ok(());
        }
        let patient = who != OURS || cell.bound.is_some();
        let finished = played(begun, trials, patient, |number| {
            let outcome = self.on_stage(cell)?.trial(cell).with_context(|| format!("trial {number}"))?;
            if let Outcome::Seen(trial) = &outcome {
                eprintln!("{}, {who}, trial {number}: {}", cell.name(), told(trial));
                // Who did not come back in half a minute may take a minute more.
                if cell.what == What::Crash && trial.capped {
                    self.leave()?;
                }
            }
            Ok(outcome)
        })?;
        if cell.what.marks_for_minutes() {
            self.leave()?;
        }
        if let Some(directory) = &self.options.report {
            finished.write(directory)?;
        }
        self.played.finished.push(finished);
        Ok(())
    }

    /// The stage a trial of the cell is played on.
    fn on_stage(&mut self, cell: &Cell) -> Result<&mut Stage> {
        if self.stage.as_ref().map(|(point, _)| *point) != Some(cell.point) || cell.what.marks_for_minutes() {
            // The one before is gone before the next one comes.
            self.leave()?;
            self.stage = Some((cell.point, Stage::set(self.whom, cell.point)?));
        }
        self.stage.as_mut().map(|(_, stage)| stage).context("a stage was just set")
    }

    fn leave(&mut self) -> Result<()> {
        self.stage.take().map_or(Ok(()), |(_, stage)| stage.close())
    }
}

/// Plays trials until there are enough, and says what was left out. Who is not `patient` leaves where nothing comes back.
pub(super) fn played(
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
