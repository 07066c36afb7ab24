//! `bench jump`: from the store of the active word to the first packet that is steered by it.
//! Owns the race of one processor that jumps and one that steers. Never counts a jump that nobody was steering during.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::abi::{ActiveWord, Binding, ROLE_GATEWAY, mapped};
use jvpn_common::ids::{Generation, Locator, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_ctl::dataplane::DataPlane;
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::runtime::clock;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::program::{JUMP, MARK, Measured, Shape, Writes};
use super::stats::summary;
use super::{Options, machine};
use crate::packet::{self, CLIENT_V4, GATEWAY_V4, KEYS};

/// Rounds, and jumps of one.
const FULL: (u32, u32) = (9, 500);
const QUICK: (u32, u32) = (3, 30);
/// What is aimed at, µs; no time must be kept.
const AIM: f64 = 1.0;
/// Packets of one run; runs follow each other until the jump is made, and one more does.
const PACKETS: u32 = 20_000;
/// So many packets were refused before the store: by then they run.
const HEAD_START: u64 = 1_000;
/// A processor that others use may be ours only after a while.
const PATIENCE: Duration = Duration::from_secs(10);

const SLOT: Slot = Slot(1);
const LOCATOR: u64 = 0x5a00_0000_0000_0100;

fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).context("two processors: one jumps, one steers")
}

fn binding(port: u16) -> Binding {
    Binding { address: mapped(CLIENT_V4.ip()), port, ..Binding::default() }
}

/// One session whose packets come from entry 2 while entry 1 is active.
fn prepare() -> Result<(Measured, Kernel)> {
    // Shorter than a notice, so that what is not bound is dropped and the frame stays as it is.
    let frame = packet::frame(CLIENT_V4, GATEWAY_V4, false, &packet::data(LOCATOR, 0, 1, 20));
    let measured =
        Measured::load(Shape { slots: 8, rows: 1, writes: Writes::Nothing, drop: false }, ROLE_GATEWAY, &frame)?;
    let mut plane = Kernel::open(measured.pins())?;
    let locators = vec![(TransportIndex(0), Locator(LOCATOR))];
    let (generation, session) = (Generation(1), SessionId([1; 16]));
    plane.apply_all(&[
        MapOp::Install { slot: SLOT, generation, keys: KEYS, locators, pending: false, session },
        MapOp::Binding { slot: SLOT, entry: 1, binding: binding(1) },
        MapOp::Binding { slot: SLOT, entry: 2, binding: binding(CLIENT_V4.port()) },
    ])?;
    Ok((measured, plane))
}

/// One jump, in µs.
fn jump(measured: &mut Measured, plane: &mut Kernel) -> Result<f64> {
    measured.forget()?;
    let away = plane.word(SLOT).successor(0, 1);
    plane.apply(&MapOp::Activate { slot: SLOT, word: away })?;
    let (started, stored) = (Barrier::new(2), AtomicBool::new(false));
    let before = thread::scope(|scope| {
        let steering = scope.spawn(|| {
            stay_on(1)?;
            started.wait();
            loop {
                let was_stored = stored.load(Acquire);
                measured.run(JUMP, PACKETS, false)?;
                if was_stored {
                    return anyhow::Ok(());
                }
            }
        });
        let already = plane.traffic(SLOT).unbound;
        started.wait();
        let begin = Instant::now();
        while plane.traffic(SLOT).unbound < already + HEAD_START && begin.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        let word: ActiveWord = away.successor(0, 2);
        let before = clock::boot();
        let outcome = plane.apply(&MapOp::Activate { slot: SLOT, word });
        stored.store(true, Release);
        outcome?;
        steering.join().map_err(|_| anyhow::anyhow!("the steering thread died"))??;
        anyhow::Ok(before)
    })?;
    let mark = measured.counted()?[MARK];
    // A mark before the store is one that a packet made which was judged by another word.
    ensure!(mark >= before.0, "no packet was steered anew, or one was before the store");
    Ok((mark - before.0) as f64 / 1_000.0)
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, jumps) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let (mut measured, mut plane) = prepare()?;
    stay_on(0)?;
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut took = Vec::new();
        for _ in 0..jumps {
            took.push(jump(&mut measured, &mut plane)?);
        }
        medians.push(summary(&took).map(|all| all.median));
        took.sort_by(f64::total_cmp);
        tails.push(super::stats::quantile(&took, 0.99));
    }
    Ok(Document {
        contenders: vec![
            Contender::new("ours", "the clock before the store to the clock in the first packet"),
            Contender::new(LIMIT, "what is aimed at, µs"),
        ],
        results: results(medians, tails),
        notes: vec![
            format!(
                "{rounds} rounds of {jumps} jumps; a busy machine shows in the tail, where a processor was taken away"
            ),
            "packets come one after another on the other processor; two readings of the clock are in the figure".into(),
            "what must hold, that nothing is torn, is shown by the suite `active`".into(),
        ],
        ..machine::program_alone("jump")?
    })
}

fn results(medians: Vec<Option<f64>>, tails: Vec<Option<f64>>) -> Vec<Metric> {
    let wanted = |metric| Wanted { metric, unit: "µs", better: Better::Lower, bounds: &[] };
    let mut median = Metric::limited(&wanted("store_to_steer_us"), medians, BTreeMap::new(), Some(AIM));
    median.goal.insert(LIMIT.into(), 1.0);
    vec![median, Metric::new(&wanted("store_to_steer_p99_us"), tails, BTreeMap::new())]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new(), Vec::new())
}
