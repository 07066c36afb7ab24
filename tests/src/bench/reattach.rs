//! `bench reattach`: verified moves a second that one core makes of real requests and proofs, in the engine alone and in a
//! gateway's process through sockets, and how long one takes beside a flood of handshakes. Owns the rounds. Never counts a
//! move without its acknowledgement, and in the engine alone without its challenge and its commit.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use jvpn_common::message::Purpose;

use super::control::crowd::Crowd;
use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::served::{self, Wanted as Setting};
use super::{Options, machine};

pub mod flood;
pub mod latency;

use latency::{Seen, Size};

/// Rounds, sessions, and moves of each session in a round.
const FULL: (u32, u32, u32) = (9, 1_000, 20);
const QUICK: (u32, u32, u32) = (3, 200, 3);
/// Moves a second of one core that must be reached, and what is aimed at.
const MUST: f64 = 50_000.0;
const GOAL: f64 = 200_000.0;
/// The same through sockets; the goal is four times the must, too.
const MUST_OF_SOCKETS: f64 = 25_000.0;
/// Members of the swarm, moves a second that are begun one after the other, and for how long each.
const FULL_OF_SOCKETS: (usize, &[u32], Duration) =
    (1_000, &[1_000, 5_000, 10_000, 15_000, 20_000, 30_000], Duration::from_secs(5));
const QUICK_OF_SOCKETS: (usize, &[u32], Duration) = (100, &[100, 400], Duration::from_secs(2));

/// A move beside a flood may take so many times as long as alone.
const MUST_BESIDE_FLOOD: f64 = 3.0;
const FULL_OF_FLOOD: Size = Size { members: 200, pace: 200, each: Duration::from_secs(5), rate: 5_000 };
/// The gateway reads the first thousand of a second without a cookie: a flood is several times that.
const QUICK_OF_FLOOD: Size = Size { members: 50, pace: 50, each: Duration::from_secs(2), rate: 4_000 };

/// One round; moves a second of the engine's processor time.
fn round(count: u32, moves: u32, purpose: Purpose) -> Result<f64> {
    let mut crowd = Crowd::new(count, u32::MAX);
    crowd.attach(false)?;
    // The first move finds everything cold: tables that grow, an allocator that asks the system.
    crowd.reattach(purpose)?;
    crowd.gateway.spent();
    for _ in 0..moves {
        crowd.reattach(purpose)?;
    }
    Ok(f64::from(count) * f64::from(moves) / crowd.gateway.spent().as_secs_f64())
}

/// One round through sockets, at rising pace: the most moves a second of the gateway's processor time, the most a second of
/// the clock, and the processors that the swarm took then.
fn sockets((members, paces, each): (usize, &[u32], Duration)) -> Result<[f64; 3]> {
    let (crowd, _) = served::Served::up(&setting(members))?;
    let mut best = [0.0_f64; 3];
    for &pace in paces {
        let ([gateway, swarm], switches) = (crowd.processor_time()?, crowd.swarm.book().switches());
        let began = std::time::Instant::now();
        crowd.swarm.pace(pace);
        std::thread::sleep(each);
        let (took, moved) = (began.elapsed().as_secs_f64(), crowd.swarm.book().switches() - switches);
        let [gateway_after, swarm_after] = crowd.processor_time()?;
        ensure!(moved > 0, "nobody moved at {pace} a second");
        let used = gateway_after.saturating_sub(gateway).as_secs_f64();
        best[0] = best[0].max(moved as f64 / used.max(0.01));
        if moved as f64 / took > best[1] {
            best[1] = moved as f64 / took;
            best[2] = swarm_after.saturating_sub(swarm).as_secs_f64() / took;
        }
    }
    crowd.swarm.pace(0);
    crowd.all_attached("after they moved")?;
    crowd.no_dual_binding("after they moved")?;
    Ok(best)
}

fn setting(members: usize) -> Setting {
    let (probing, patience) = (["5s", "4s"], Duration::from_secs(60));
    Setting { members, ping_every: None, probing, xdp: "native", patience }
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, count, moves) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let (mut lost, mut better, mut through) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new(), Vec::new()]);
    let (of_sockets, of_flood) =
        if options.quick { (QUICK_OF_SOCKETS, QUICK_OF_FLOOD) } else { (FULL_OF_SOCKETS, FULL_OF_FLOOD) };
    let mut beside = Vec::new();
    // A lab for each round, of which a quick run needs one only.
    for _ in 0..if options.quick { 1 } else { rounds } {
        let figures = sockets(of_sockets)?;
        through.iter_mut().zip(figures).for_each(|(samples, figure)| samples.push(Some(figure)));
        beside.push(latency::round(&of_flood, &setting(of_flood.members))?);
    }
    for _ in 0..rounds {
        lost.push(Some(round(count, moves, Purpose::Lost)?));
        better.push(Some(round(count, moves, Purpose::BetterQuality)?));
    }
    Ok(Document {
        contenders: vec![
            Contender::new(
                "ours",
                "the gateway's engine: request, challenge, proof, commit, acknowledgement; no socket, no disk",
            ),
            Contender::new(LIMIT, "the must in moves a second; beside a flood, as a multiple of the time without"),
        ],
        results: results(lost, better, through, &beside),
        notes: vec![
            format!("{rounds} rounds, {count} sessions, {moves} moves each; processor time of the gateway's side only"),
            "every address is challenged: none is taken for proven because it was before".into(),
            format!(
                "through sockets: {} members, one path of each up at a time, {:?} moves a second begun for {} s each; all threads of the \
                 gateway's process, probes and disk included",
                of_sockets.0,
                of_sockets.1,
                of_sockets.2.as_secs()
            ),
            format!(
                "beside a flood: {} members, {} moves a second, each of them timed from the loss of its path to its acknowledgement; \
                 {} messages 1 a second of strangers from 64 addresses, who do not come back with their cookie (`asked`) or do \
                 (`proven`), on the same processors",
                of_flood.members, of_flood.pace, of_flood.rate
            ),
            "lost: two transitions and two records a move; better: one".into(),
        ],
        policy: setting(of_sockets.0).policy_line(),
        ..machine::program_alone("reattach")?
    })
}

type Series = Vec<Option<f64>>;

fn results(lost: Series, better: Series, through: [Series; 3], beside: &[Seen]) -> Vec<Metric> {
    let result = |metric, unit, must: Option<f64>, samples| {
        let better = if metric == "swarm_processors" { Better::Lower } else { Better::Higher };
        let wanted = Wanted { metric, unit, better, bounds: &[(LIMIT, GOAL / MUST, 1.0)] };
        Metric::limited(&wanted, samples, BTreeMap::new(), must)
    };
    let flooded = |metric, value: fn(&Seen) -> f64| {
        let (goal, unit) = (1.0 / MUST_BESIDE_FLOOD, "99th percentile, as a multiple of that without a flood");
        let wanted = Wanted { metric, unit, better: Better::Lower, bounds: Vec::leak(vec![(LIMIT, goal, 1.0)]) };
        let samples = beside.iter().map(|seen| Some(value(seen))).collect();
        Metric::limited(&wanted, samples, BTreeMap::new(), Some(MUST_BESIDE_FLOOD))
    };
    let idle = Wanted { metric: "reattach_idle_p99", unit: "ms", better: Better::Lower, bounds: &[] };
    let idle_samples = beside.iter().map(|seen| Some(seen.idle_ms)).collect();
    let core = "moves a second of one core";
    let [of_core, of_clock, swarm] = through;
    vec![
        result("reattaches_lost_per_s", core, Some(MUST), lost),
        result("reattaches_better_per_s", core, Some(MUST), better),
        result("socket_reattaches_per_cpu_s", "moves a second of processor time", Some(MUST_OF_SOCKETS), of_core),
        result("socket_reattaches_per_s", "moves a second of the clock", None, of_clock),
        result("swarm_processors", "processors the clients took then", None, swarm),
        Metric::new(&idle, idle_samples, BTreeMap::new()),
        flooded("reattach_p99_beside_asked", |seen| seen.asked),
        flooded("reattach_p99_beside_proven", |seen| seen.proven),
    ]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new(), Vec::new(), Default::default(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_moving_have_a_figure() {
        for purpose in [Purpose::Lost, Purpose::BetterQuality] {
            let rate = round(4, 2, purpose).unwrap();
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }
}
