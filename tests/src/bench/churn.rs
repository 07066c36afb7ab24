//! `bench churn`: many sessions in one gateway that move, and that all come back at once. Owns the story: attach, steady
//! traffic, moves, a tenth that moves at once, a gateway that is killed and started, every path away. Never gives a figure of
//! a run in which one member was stranded, one session was bound twice, or the record does not hold.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use jvpn_common::message::Purpose;
use jvpn_ctl::runtime::clock::boot;

use super::control::crowd::Crowd;
use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::served::{Served, Wanted as Setting};
use super::stats::quantile;
use super::{Options, machine};

/// What a run plays.
struct Size {
    rounds: u32,
    members: usize,
    /// How long they move.
    moving: Duration,
    /// Of the curve: fewer members, who move for as long (a quick run leaves them out), and sessions of the engine alone.
    fewer: Option<(usize, Duration)>,
    alone: u32,
}

const FULL: Size = Size {
    rounds: 3,
    members: 10_000,
    moving: Duration::from_secs(60),
    fewer: Some((1_000, Duration::from_secs(5))),
    alone: 100_000,
};
const QUICK: Size = Size { rounds: 1, members: 200, moving: Duration::from_secs(3), fewer: None, alone: 100 };
/// Traffic of each member.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Traffic that nothing disturbs, to count what is lost of it.
const STEADY: Duration = Duration::from_secs(5);
/// One of so many members moves each second.
const MOVE_ONE_IN: usize = 10;
/// One of so many members loses its path at one moment, and until the others' PINGs are judged.
const TENTH: usize = 10;
const LOOKED_AT: Duration = Duration::from_secs(3);
/// How long a supervisor waits, and how long every path is away.
const AWAY: Duration = Duration::from_millis(500);
const OUTAGE: Duration = Duration::from_secs(3);
/// Seconds from the gateway's or the paths' return until 99 of 100 are served again: at most, and aimed at.
const MUST: f64 = 5.0;
const GOAL: f64 = 1.5;
/// Of the tenth that moves at once, where another path lives; and what the others may lose meanwhile, plus one.
const MUST_OF_TENTH: f64 = 0.5;
const MUST_OF_OTHERS: f64 = 1.0;
/// How many times its resident memory a gateway may have after everybody moved, several times: what is flat but for the
/// allocator's slack.
const MUST_OF_MEMORY: f64 = 1.1;

/// What one round gives, by the name of its metric.
type Figures = BTreeMap<&'static str, f64>;

/// Every metric with its unit, and what it must be.
const METRICS: [(&str, &str, Option<f64>); 23] = [
    ("restart_p99_s", "s from the gateway's start being done", Some(MUST)),
    ("outage_p99_s", "s from the paths' return", Some(MUST)),
    ("tenth_p99_s", "s from the loss of its path to the acknowledgement of a tenth of all", Some(MUST_OF_TENTH)),
    ("others_missed", "data PINGs without an answer among all others, plus one", Some(MUST_OF_OTHERS)),
    ("tenth_p50_s", "s", None),
    ("tenth_max_s", "s", None),
    ("restart_p50_s", "s", None),
    ("restart_max_s", "s", None),
    ("restart_from_kill_p99_s", "s from the kill, half a second of pause included", None),
    ("outage_p50_s", "s", None),
    ("outage_max_s", "s", None),
    ("attach_s", "s until everybody has a session", None),
    ("moves_per_s", "acknowledged moves a second", None),
    ("moving_lost_permille", "data PINGs lost of a thousand while members move", None),
    ("gateway_cpu_while_moving", "processors", None),
    ("resident_moves", "times as much resident memory after the moves as before them", Some(MUST_OF_MEMORY)),
    ("resident_outage", "times as much after the outage as after the restart", Some(MUST_OF_MEMORY)),
    ("resident_restart", "times as much after the restart as before the moves, another process", None),
    ("attach_1k_s", "s, a tenth as many members", None),
    ("restart_1k_p99_s", "s, a tenth as many members", None),
    ("outage_1k_p99_s", "s, a tenth as many members", None),
    ("restart_100k_engine_s", "s of one core until ten times as many have resumed, engine alone", None),
    ("outage_100k_engine_s", "s of one core until ten times as many have moved, engine alone", None),
];
/// What of a round with fewer members is on the curve, and its name there.
const FEWER: [(&str, &str); 3] =
    [("attach_s", "attach_1k_s"), ("restart_p99_s", "restart_1k_p99_s"), ("outage_p99_s", "outage_1k_p99_s")];

/// Median, 99th percentile and worst, in seconds.
fn figures(times: &[Duration]) -> [f64; 3] {
    let seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    [0.5, 0.99, 1.0].map(|share| quantile(&seconds, share).unwrap_or(f64::NAN))
}

/// PINGs sent and answered so far.
fn pings(served: &Served) -> [u64; 2] {
    let book = served.swarm.book();
    [book.pinged, book.opened.0]
}

/// What was lost between two counts, of a thousand. An answer under way at one of them counts for either.
fn lost_permille(before: [u64; 2], after: [u64; 2]) -> f64 {
    let [sent, answered] = [0, 1].map(|at: usize| after[at].saturating_sub(before[at]) as f64);
    (1.0 - answered / sent.max(1.0)).max(0.0) * 1_000.0
}

fn ratio(after: u64, before: u64) -> f64 {
    after as f64 / before.max(1) as f64
}

fn round(setting: &Setting, moving: Duration) -> Result<Figures> {
    let mut figures_of = Figures::new();
    let (mut served, attach) = Served::up(setting)?;
    figures_of.insert("attach_s", attach.as_secs_f64());
    served.all_served("after they attached")?;

    let before = pings(&served);
    std::thread::sleep(STEADY);
    let lost = lost_permille(before, pings(&served));
    // One interval's answers may be under way at either end.
    ensure!(lost < 50.0, "{lost:.1} of a thousand PINGs are lost though nothing happens");
    let settled = served.resident()?;

    let (before, [gateway, _]) = (pings(&served), served.processor_time()?);
    let (switches, began) = (served.swarm.book().switches(), boot());
    served.swarm.pace(u32::try_from(setting.members / MOVE_ONE_IN)?);
    std::thread::sleep(moving);
    served.swarm.pace(0);
    let (took, moved) = (boot().since(began).as_secs_f64(), served.swarm.book().switches() - switches);
    ensure!(moved > 0, "nobody moved");
    figures_of.insert("moves_per_s", moved as f64 / took);
    figures_of.insert("moving_lost_permille", lost_permille(before, pings(&served)));
    let used = served.processor_time()?[0].saturating_sub(gateway);
    figures_of.insert("gateway_cpu_while_moving", used.as_secs_f64() / took);
    served.all_attached("after they moved")?;
    served.all_served("after they moved")?;
    served.no_dual_binding("after they moved")?;

    let (times, missed) = tenth(&served, setting)?;
    let [p50, p99, max] = figures(&times);
    figures_of.extend([("tenth_p50_s", p50), ("tenth_p99_s", p99), ("tenth_max_s", max)]);
    figures_of.insert("others_missed", missed as f64 + 1.0);
    served.no_dual_binding("after a tenth moved")?;
    figures_of.insert("resident_moves", ratio(served.resident()?, settled));

    let killed = boot();
    served.host.kill()?;
    std::thread::sleep(AWAY);
    served.host.start()?;
    let up = served.host.wait_up(setting.patience)?;
    let [p50, p99, max] = figures(&served.all_back(killed, up, "after the restart")?);
    figures_of.extend([("restart_p50_s", p50), ("restart_p99_s", p99), ("restart_max_s", max)]);
    figures_of.insert("restart_from_kill_p99_s", p99 + up.since(killed).as_secs_f64());
    served.all_attached("after the restart")?;
    served.all_served("after the restart")?;
    served.no_dual_binding("after the restart")?;
    let restarted = served.resident()?;
    figures_of.insert("resident_restart", ratio(restarted, settled));

    served.swarm.paths(false);
    std::thread::sleep(OUTAGE);
    let back = boot();
    served.swarm.paths(true);
    let [p50, p99, max] = figures(&served.all_back(back, back, "after the outage")?);
    figures_of.extend([("outage_p50_s", p50), ("outage_p99_s", p99), ("outage_max_s", max)]);
    served.all_attached("after the outage")?;
    served.all_served("after the outage")?;
    served.no_dual_binding("after the outage")?;
    figures_of.insert("resident_outage", ratio(served.resident()?, restarted));
    ensure!(!served.host.log().contains("panicked"), "the gateway panicked\n{}", served.host.log_tail());
    Ok(figures_of)
}

/// A tenth of all loses its path at one moment and has another: how long each took to be acknowledged on it, in order, and
/// how often one of the others heard nothing from one PING to the next.
fn tenth(served: &Served, setting: &Setting) -> Result<(Vec<Duration>, usize)> {
    let (before, began) = (served.swarm.book().took.len(), boot());
    served.swarm.move_each(TENTH);
    std::thread::sleep(LOOKED_AT);
    served.all_attached("after a tenth moved")?;
    let times = served.moves_since(before)?;
    let wanted = setting.members.div_ceil(TENTH);
    ensure!(times.len() == wanted, "{} of {wanted} were acknowledged", times.len());
    let book = served.swarm.book();
    let others = book.missed.iter().filter(|(at, member)| *at >= began && member % TENTH != 0);
    Ok((times, others.count()))
}

/// Two more points of the curve: fewer members through sockets, and more sessions than sockets can be had for, in the engine
/// alone, who all resume after a restart's loss of their keys and all move.
fn curve(size: &Size, setting: &Setting) -> Result<Figures> {
    let mut figures = Figures::new();
    if let Some((members, moving)) = size.fewer {
        let fewer = round(&Setting { members, ..setting.clone() }, moving)?;
        figures.extend(FEWER.into_iter().filter_map(|(of, name)| Some((name, *fewer.get(of)?))));
    }
    let mut crowd = Crowd::new(size.alone, 0);
    crowd.attach(true)?;
    crowd.gateway.spent();
    crowd.resume(true)?;
    figures.insert("restart_100k_engine_s", crowd.gateway.spent().as_secs_f64());
    crowd.reattach(Purpose::Lost)?;
    figures.insert("outage_100k_engine_s", crowd.gateway.spent().as_secs_f64());
    Ok(figures)
}

pub fn run(options: &Options) -> Result<Document> {
    let size = if options.quick { QUICK } else { FULL };
    let (members, moving) = (size.members, size.moving);
    let rounds = options.rounds(size.rounds)?;
    let setting = Setting {
        members,
        ping_every: Some(PING_EVERY),
        probing: ["1s", "2s"],
        xdp: "native",
        patience: Duration::from_secs(60),
    };
    let numbered = |number| {
        eprintln!("round {number} of {rounds}");
        round(&setting, moving)
    };
    let mut all = (1..=rounds).map(numbered).collect::<Result<Vec<_>>>()?;
    // Once: nothing is promised of it, and it takes as long as a round.
    if let Some(first) = all.first_mut() {
        first.extend(curve(&size, &setting)?);
    }
    Ok(Document {
        results: results(&all),
        contenders: vec![
            Contender::new("ours", "one gateway process, its clients in another, native XDP on veth"),
            Contender::new(LIMIT, "the must in seconds; its ratio must not be above 1"),
        ],
        notes: vec![
            format!("tenth: {} members lose their path at one moment and have another one", members / TENTH),
            format!("{rounds} rounds, {members} members, one path of each up at a time, a data PING each second"),
            format!(
                "{} moves a second are begun for {} s, each to a path that just came while the one in use goes",
                members / MOVE_ONE_IN,
                moving.as_secs()
            ),
            "nobody was stranded, nobody bound twice, the record verified after each step: a run without that has no figures".into(),
            "clients run on the same processors as the gateway".into(),
            format!(
                "the curve, once: {} members through sockets, and {} sessions of the engine alone, where time is the gateway's processor time",
                size.fewer.map_or(0, |(members, _)| members),
                size.alone
            ),
        ],
        policy: setting.policy_line(),
        ..machine::program_alone("churn")?
    })
}

fn results(all: &[Figures]) -> Vec<Metric> {
    let of = |&(metric, unit, must): &(&'static str, &'static str, Option<f64>)| {
        let samples: Vec<_> = all.iter().map(|figures| figures.get(metric).copied()).collect();
        let better = if metric == "moves_per_s" { Better::Higher } else { Better::Lower };
        let of_recovery: &[_] = &[(LIMIT, GOAL / MUST, 1.0)];
        let bounds = if must == Some(MUST) { of_recovery } else { &[(LIMIT, 1.0, 1.0)] };
        Metric::limited(&Wanted { metric, unit, better, bounds }, samples, BTreeMap::new(), must)
    };
    let played = |(name, ..): &&(&str, _, _)| all.is_empty() || all.iter().any(|figures| figures.contains_key(name));
    METRICS.iter().filter(played).map(of).collect()
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_counted_between_two_looks() {
        assert!((lost_permille([100, 90], [300, 270]) - 100.0).abs() < 1e-9);
        assert!(lost_permille([100, 90], [300, 291]).abs() < 1e-9, "an answer that was under way is no gain");
        assert!(lost_permille([5, 5], [5, 5]) <= 1_000.0);
    }

    #[test]
    fn times_are_told_in_seconds_by_their_rank() {
        let times: Vec<_> = (0..=100).map(|n| Duration::from_millis(10 * n)).collect();
        let [p50, p99, max] = figures(&times);
        assert!((p50 - 0.5).abs() < 1e-9 && (p99 - 0.99).abs() < 1e-9 && (max - 1.0).abs() < 1e-9);
        assert!(figures(&[])[0].is_nan());
    }

    #[test]
    fn every_metric_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), METRICS.len());
    }
}
