//! `bench memory`: what an idle session costs, in user space and in the kernel, and whether a session that moves, and one
//! that follows another, leaves anything behind. Owns what is counted from where to where. Never counts a session that is not
//! bound, nor a client's memory as a gateway's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jvpn_common::message::Purpose;

use super::control::crowd::Crowd;
use super::control::{Client, Gateway};
use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::served::{self, Wanted as Setting};
use super::{Options, machine};
use crate::lab::sys::give_memory_back;
use crate::swarm::host::slots;
use crate::swarm::identities;
use jvpn_common::secret::PrivateKey;
use jvpn_ctl::runtime::entropy::System;

/// How much is done.
struct Size {
    rounds: u32,
    /// Sessions of the engine alone, from and to.
    alone: [usize; 2],
    /// Sessions of a gateway's process, from and to.
    served: [usize; 2],
    /// Jumps of one session.
    jumps: u32,
    /// Sessions at once, and how often each is followed by another.
    lives: [u32; 2],
}

const FULL: Size =
    Size { rounds: 9, alone: [1_000, 100_000], served: [1_000, 10_000], jumps: 1_000_000, lives: [1_000, 100] };
const QUICK: Size = Size { rounds: 1, alone: [500, 3_000], served: [50, 300], jumps: 3_000, lives: [50, 10] };
/// Moves of a session under one set of keys: at ten steps a second it is a minute and a half, and keys die after three.
const MOVES_OF_KEYS: u32 = 400;
/// A must in bytes, and the goal as a part of it.
type Bound = (f64, &'static [(&'static str, f64, f64)]);
/// Of a session: 6 KiB of user space, goal 3; 1 KiB of the kernel's, goal 0.9.
const USER: Bound = (6.0 * 1_024.0, &[(LIMIT, 0.5, 1.0)]);
const KERNEL: Bound = (1_024.0, &[(LIMIT, 0.9, 1.0)]);
/// Bytes that a jump and a life may leave behind: a million of the one and a hundred thousand of the other stay below what
/// an allocator keeps for itself.
const JUMP: Bound = (1.0, &[(LIMIT, 0.1, 1.0)]);
const LIFE: Bound = (10.0, &[(LIMIT, 0.1, 1.0)]);

/// Bytes for each, between two measurements.
fn slope(bytes: [u64; 2], count: [usize; 2]) -> f64 {
    let [more, of] = [bytes[1] as f64 - bytes[0] as f64, count[1] as f64 - count[0] as f64];
    more / of
}

/// Resident memory of this process.
fn own() -> Result<u64> {
    machine::resident(std::process::id())
}

/// Bytes a session of the engine takes: one client after the other attaches and is forgotten by the bench, so that what
/// grows is the engine.
fn alone([from, to]: [usize; 2]) -> Result<f64> {
    let key = PrivateKey::generate(&mut System);
    let peers = identities(to);
    give_memory_back();
    let mut gateway = Gateway::new(&key, &peers, u32::MAX);
    let mut first = None;
    for (number, peer) in peers.iter().enumerate() {
        let mut client = Client::new(u32::try_from(number)?, peer, key.public());
        let said = client.message1()?;
        let answer = gateway.take(vec![said]);
        client.take_message2(answer.first().context("no message 2")?)?;
        let answer = gateway.take(vec![client.confirm()?]);
        client.take_done(answer.first().context("CONFIRM was not acknowledged")?)?;
        if number + 1 == from {
            first = Some(own()?);
        }
    }
    ensure!(gateway.sessions() == to, "{} sessions of {to}", gateway.sessions());
    let last = own()?;
    Ok(slope([first.context("no sessions to begin with")?, last], [from, to]))
}

/// Bytes a session of a gateway's process takes: of user space, its peer's configuration and the worker's part included, and
/// of the kernel for each slot.
fn served(count: [usize; 2]) -> Result<[f64; 2]> {
    let (mut user, mut kernel) = ([0; 2], [0; 2]);
    for (at, members) in count.into_iter().enumerate() {
        let (probing, patience) = (["5s", "4s"], Duration::from_secs(120));
        let setting = Setting { members, ping_every: None, probing, xdp: "native", patience };
        let (crowd, _) = served::Served::up(&setting)?;
        crowd.no_dual_binding("idle")?;
        (user[at], kernel[at]) = (crowd.resident()?, crowd.map_memory()?);
    }
    Ok([slope(user, count), slope(kernel, count.map(slots))])
}

/// Bytes that each jump of one session leaves behind, after the first tenth of them.
fn jumps(count: u32) -> Result<f64> {
    give_memory_back();
    let mut crowd = Crowd::new(1, u32::MAX);
    let mut first = None;
    for number in 0..count {
        if number % MOVES_OF_KEYS == 0 {
            crowd.attach(false)?;
        }
        if number == count / 10 {
            first = Some(own()?);
        }
        crowd.reattach(Purpose::BetterQuality)?;
    }
    Ok(slope([first.context("no jumps")?, own()?], [usize::try_from(count / 10)?, usize::try_from(count)?]))
}

/// Bytes that each life of a session leaves behind, after the first tenth of them.
fn lives([sessions, times]: [u32; 2]) -> Result<f64> {
    give_memory_back();
    let mut crowd = Crowd::new(sessions, u32::MAX);
    let mut first = None;
    for number in 0..times {
        if number == times / 10 {
            first = Some(own()?);
        }
        crowd.attach(false)?;
        crowd.close()?;
    }
    let count = [times / 10, times].map(|times| sessions as usize * times as usize);
    Ok(slope([first.context("no lives")?, own()?], count))
}

pub fn run(options: &Options) -> Result<Document> {
    let size = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(size.rounds)?;
    let mut samples: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    let mut note = |metric, figure| samples.entry(metric).or_default().push(Some(figure));
    for _ in 0..rounds {
        let engine = alone(size.alone)?;
        ensure!(engine > 0.0, "sessions took no memory: they lie where an earlier round's did");
        note("engine_bytes_per_session", engine);
        let [user, kernel] = served(size.served)?;
        note("user_bytes_per_session", user);
        note("kernel_bytes_per_slot", kernel);
        note("bytes_left_by_a_jump", jumps(size.jumps)?);
        note("bytes_left_by_a_life", lives(size.lives)?);
    }
    let Size { alone: [few, many], served: [less, more], .. } = size;
    Ok(Document {
        results: results(samples),
        contenders: vec![
            Contender::new("ours", "resident memory, and the kernel's accounting of maps"),
            Contender::new(LIMIT, "the must in bytes; its ratio must not be above 1"),
        ],
        notes: vec![
            format!("user: a gateway's process with {less} and {more} idle sessions, their peers configured"),
            format!("engine: {few} and {many} sessions of the engine alone, their peers configured before"),
            format!("kernel: maps for {} and {} slots; sockets are one for all sessions", slots(less), slots(more)),
            format!("{} jumps of one session; {} lives of {} sessions", size.jumps, size.lives[1], size.lives[0]),
        ],
        policy: "bench".into(),
        ..machine::program_alone("memory")?
    })
}

fn results(mut samples: BTreeMap<&str, Vec<Option<f64>>>) -> Vec<Metric> {
    let mut result = |metric, (must, bounds): Bound| {
        let ours = samples.remove(metric).unwrap_or_default();
        let wanted = Wanted { metric, unit: "bytes", better: Better::Lower, bounds };
        Metric::limited(&wanted, ours, BTreeMap::new(), Some(must))
    };
    vec![
        result("user_bytes_per_session", USER),
        result("engine_bytes_per_session", USER),
        result("kernel_bytes_per_slot", KERNEL),
        result("bytes_left_by_a_jump", JUMP),
        result("bytes_left_by_a_life", LIFE),
    ]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_bytes_for_each_and_may_fall() {
        assert!((slope([1_000, 4_000], [10, 40]) - 100.0).abs() < 1e-9);
        assert!((slope([4_000, 1_000], [10, 40]) + 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_engine_s_part_of_every_figure_comes_about() {
        assert!(alone([1, 20]).unwrap().is_finite());
        assert!(jumps(20).unwrap().is_finite());
        assert!(lives([2, 10]).unwrap().is_finite());
    }
}
