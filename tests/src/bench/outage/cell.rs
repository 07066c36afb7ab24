//! Owns what is broken where, what is promised of it, and the file of one finished cell (`jvpn.outage-cell/1`).
//! Never breaks or measures anything.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::lab::topology::Path;

const SCHEMA: &str = "jvpn.outage-cell/1";

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Silent,
    SilentUp,
    SilentDown,
    LinkEvent,
    NatIdle,
    NatTraffic,
    Loss30,
    Mtu1300,
    PlannedJump,
    /// 90,000 packets a second up.
    FastJump,
    Crash,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::Silent => "silent",
            What::SilentUp => "silent_up",
            What::SilentDown => "silent_down",
            What::LinkEvent => "link_event",
            What::NatIdle => "nat_idle",
            What::NatTraffic => "nat_traffic",
            What::Loss30 => "loss_30",
            What::Mtu1300 => "mtu_1300",
            What::PlannedJump => "planned_jump",
            What::FastJump => "planned_jump_90k",
            What::Crash => "gateway_kill",
        }
    }

    /// The NAT is on path B.
    pub fn starts_on(self) -> Option<Path> {
        matches!(self, What::NatIdle | What::NatTraffic).then_some(Path::B)
    }

    /// Nothing may be lost or come twice, however long it takes.
    pub fn is_planned(self) -> bool {
        matches!(self, What::PlannedJump | What::FastJump)
    }

    /// A client remembers for minutes that a path lost its data, which is a trial's whole outcome: the next one needs
    /// another client.
    pub fn marks_for_minutes(self) -> bool {
        self == What::Mtu1300
    }

    /// Who has one path at a time comes back after seconds here, if at all.
    pub fn takes_rivals_seconds(self) -> bool {
        matches!(self, What::Silent | What::NatIdle | What::Crash)
    }

    /// How long is looked at least: until a second outage would have shown itself, and the fault is over.
    pub fn shortest(self) -> Duration {
        Duration::from_millis(match self {
            What::Loss30 => 5_000,
            What::Crash | What::Mtu1300 => 3_000,
            What::PlannedJump | What::FastJump => 1_500,
            _ => 2_000,
        })
    }
}

/// Where: the base point, or one thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    Base,
    V6,
    Rtt30,
    Rtt150,
    Paths3,
    Loss2,
    Apart60,
}

impl Point {
    pub fn name(self) -> &'static str {
        match self {
            Point::Base => "base",
            Point::V6 => "v6",
            Point::Rtt30 => "rtt_30",
            Point::Rtt150 => "rtt_150",
            Point::Paths3 => "paths_3",
            Point::Loss2 => "loss_2",
            Point::Apart60 => "apart_60",
        }
    }

    pub fn told(self) -> &'static str {
        match self {
            Point::Base => "2 paths of 0.3 ms, nothing lost, IPv4 outside",
            Point::V6 => "the base point with IPv6 outside, path B behind a NAT of IPv6",
            Point::Rtt30 => "the base point with a round trip of 30 ms on both paths",
            Point::Rtt150 => "the base point with a round trip of 150 ms on both paths",
            Point::Paths3 => "the base point with a third path",
            Point::Loss2 => "the base point with 2 % lost on both paths, each way",
            Point::Apart60 => "path B takes 60 ms longer than path A, each way",
        }
    }

    /// Delay of a path, each way, beyond the link's own.
    pub fn delay(self, path: Path) -> Option<Duration> {
        match (self, path) {
            (Point::Rtt30, _) => Some(Duration::from_millis(15)),
            (Point::Rtt150, _) => Some(Duration::from_millis(75)),
            (Point::Apart60, Path::B) => Some(Duration::from_millis(60)),
            _ => None,
        }
    }
}

/// One cell: what, where, and what of it is promised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    pub what: What,
    pub point: Point,
    /// Goal and must, ms, at the 99th percentile; for a planned jump the gap is only reported.
    pub bound: Option<(f64, f64)>,
    /// In `--quick`.
    pub quick: bool,
    /// A rival is measured here, too.
    pub rival: bool,
}

const fn cell(what: What, point: Point, bound: Option<(f64, f64)>) -> Cell {
    Cell { what, point, bound, quick: false, rival: false }
}

const fn base(what: What, bound: Option<(f64, f64)>, quick: bool, rival: bool) -> Cell {
    Cell { what, point: Point::Base, bound, quick, rival }
}

/// All of them, those of one point together: a lab is built for each point once.
pub const CELLS: [Cell; 27] = [
    base(What::Silent, Some((60.0, 100.0)), true, true),
    base(What::SilentUp, Some((60.0, 100.0)), false, false),
    base(What::SilentDown, Some((60.0, 100.0)), false, false),
    base(What::LinkEvent, Some((5.0, 20.0)), true, true),
    base(What::NatTraffic, Some((6.0, 50.0)), true, true),
    base(What::NatIdle, Some((21.0, 100.0)), false, true),
    base(What::Loss30, None, false, false),
    base(What::Mtu1300, None, false, false),
    base(What::PlannedJump, None, true, false),
    base(What::Crash, None, false, true),
    cell(What::Silent, Point::V6, Some((60.0, 100.0))),
    cell(What::LinkEvent, Point::V6, Some((5.0, 20.0))),
    cell(What::NatTraffic, Point::V6, Some((6.0, 50.0))),
    cell(What::PlannedJump, Point::V6, None),
    cell(What::Silent, Point::Rtt30, Some((160.0, 200.0))),
    cell(What::NatTraffic, Point::Rtt30, None),
    cell(What::PlannedJump, Point::Rtt30, None),
    cell(What::Silent, Point::Rtt150, None),
    cell(What::NatTraffic, Point::Rtt150, None),
    cell(What::PlannedJump, Point::Rtt150, None),
    cell(What::Silent, Point::Paths3, None),
    cell(What::NatTraffic, Point::Paths3, None),
    cell(What::PlannedJump, Point::Paths3, None),
    cell(What::Silent, Point::Loss2, None),
    cell(What::NatTraffic, Point::Loss2, None),
    cell(What::PlannedJump, Point::Loss2, None),
    cell(What::FastJump, Point::Apart60, None),
];

impl Cell {
    pub fn name(&self) -> String {
        format!("{}@{}", self.what.name(), self.point.name())
    }

    /// Whether a jump may lose nothing here: where the network loses, it does.
    pub fn lossless(&self) -> bool {
        self.what.is_planned() && self.point != Point::Loss2
    }
}

/// What one trial showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub outage_ms: f64,
    /// Nothing came back while it was looked at; the outage is longer.
    pub capped: bool,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// What the lab's own links dropped from the jump to the last straggler, where that was looked at: of what is judged it is
    /// among the lost.
    #[serde(default)]
    pub dropped_by_lab: u64,
    /// How long the machine itself stood still.
    pub stall_ms: f64,
    pub window_ms: u64,
    /// Transport the session was on.
    pub path: String,
    /// Of the session's transitions in it, and what the gateway recorded of the times they took.
    pub reasons: Vec<String>,
    pub detect_ms: Option<f64>,
    pub prove_ms: Option<f64>,
    pub commit_ms: Option<f64>,
}

/// What one cell showed of one contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub schema: String,
    pub cell: String,
    pub contender: String,
    /// Program and policy it was measured with: another one's figures are not taken over.
    pub version: String,
    pub policy: String,
    pub trials: Vec<Trial>,
    /// The session was not ATTACHED when a trial was to begin.
    pub discarded: u32,
    /// The machine stood still in these: they are not among the trials.
    pub disturbed: Vec<Trial>,
    /// There was no quieter time: so many of the trials are disturbed ones.
    pub disturbed_kept: u32,
    /// Nothing came back too often to go on.
    pub given_up: bool,
    pub took_s: f64,
}

impl Finished {
    pub fn begun(cell: &Cell, contender: &str, version: &str, policy: &str) -> Finished {
        Finished {
            schema: SCHEMA.into(),
            cell: cell.name(),
            contender: contender.into(),
            version: version.into(),
            policy: policy.into(),
            ..Finished::default()
        }
    }

    fn file(directory: &FilePath, cell: &str, contender: &str) -> PathBuf {
        directory.join(format!("cell-{}-{contender}.json", cell.replace('@', "-")))
    }

    pub fn write(&self, directory: &FilePath) -> Result<()> {
        let file = Self::file(directory, &self.cell, &self.contender);
        // Whole or not at all: a run that is killed leaves no half of it.
        let partial = file.with_extension("partial");
        fs::write(&partial, serde_json::to_string_pretty(self)?)
            .and_then(|()| fs::rename(&partial, &file))
            .with_context(|| format!("write {}", file.display()))
    }

    /// What an earlier run found, if it is of the same program and policy and has enough trials.
    pub fn taken_over(directory: Option<&FilePath>, like: &Finished, trials: u32) -> Option<Finished> {
        let text = fs::read_to_string(Self::file(directory?, &like.cell, &like.contender)).ok()?;
        let found: Finished = serde_json::from_str(&text).ok()?;
        let same = (&found.schema, &found.cell, &found.contender, &found.version, &found.policy)
            == (&like.schema, &like.cell, &like.contender, &like.version, &like.policy);
        (same && (found.given_up || found.trials.len() >= trials as usize)).then_some(found)
    }

    /// One figure of every trial.
    pub fn series(&self, value: impl Fn(&Trial) -> f64) -> Vec<Option<f64>> {
        self.trials.iter().map(|trial| Some(value(trial))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_names_of_their_own_and_those_of_a_point_stand_together() {
        let names: std::collections::BTreeSet<String> = CELLS.iter().map(Cell::name).collect();
        assert_eq!(names.len(), CELLS.len());
        let mut points: Vec<Point> = CELLS.iter().map(|cell| cell.point).collect();
        points.dedup();
        let once: std::collections::BTreeSet<Point> = points.iter().copied().collect();
        assert_eq!(points.len(), once.len(), "a lab for each point once: {points:?}");
    }

    #[test]
    fn a_finished_cell_is_taken_over_only_by_the_same_program_policy_and_number_of_trials() {
        let directory = tempfile::tempdir().unwrap();
        let at = Some(directory.path());
        let begun = Finished::begun(&CELLS[0], "ours", "0.1.0 abc", "field");
        assert_eq!(Finished::taken_over(at, &begun, 1), None, "nothing is there");
        let done = Finished { trials: vec![Trial { outage_ms: 61.5, ..Trial::default() }; 3], ..begun.clone() };
        done.write(directory.path()).unwrap();
        assert_eq!(Finished::taken_over(at, &begun, 3), Some(done));
        assert_eq!(Finished::taken_over(at, &begun, 4), None, "too few trials");
        assert_eq!(Finished::taken_over(None, &begun, 1), None, "no directory was named");
        for other in [
            Finished { version: "0.1.0 abd".into(), ..begun.clone() },
            Finished { policy: "fast".into(), ..begun.clone() },
            Finished { contender: "gotatun".into(), ..begun.clone() },
            Finished { cell: CELLS[1].name(), ..begun },
        ] {
            assert_eq!(Finished::taken_over(at, &other, 1), None, "{other:?}");
        }
    }

    #[test]
    fn half_a_file_is_no_finished_cell() {
        let directory = tempfile::tempdir().unwrap();
        let begun = Finished::begun(&CELLS[0], "ours", "v", "p");
        fs::write(Finished::file(directory.path(), &begun.cell, "ours"), "{\"schema\": \"jvpn").unwrap();
        assert_eq!(Finished::taken_over(Some(directory.path()), &begun, 0), None);
    }
}
