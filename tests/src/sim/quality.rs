//! One client on two described paths, without any other fault: what the gateway's counts of data lead to.
//!
//! Owns the description and what is told of the run. Must never judge it.

use super::{Bug, Size, What, World};
use jvpn_common::client::{PathClass, PathView};
use jvpn_common::session::policy::Policy;
use jvpn_common::time::{Duration, Instant};

/// How the first path treats what goes up on it.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Datagrams lost that are longer than a probe, in 1/1000.
    pub loses: u64,
    /// Held back by up to 40 ms on both paths, in 1/1000.
    pub reorders: u64,
    /// Added to each at random on both paths, up to this.
    pub jitter: Duration,
}

/// What became of it.
#[derive(Debug)]
pub struct Told {
    /// Whether policy lets the client move to a better path at all.
    pub policy: Policy,
    /// Reasons in the record: of transitions, and what they name beside.
    pub reasons: Vec<&'static str>,
    /// The path in use as the client saw it, twice a second.
    pub seen: Vec<PathView>,
    /// Whether the session was on the second path at the end.
    pub moved: bool,
}

/// Runs a minute of a packet every ten milliseconds both ways.
///
/// # Errors
/// The first thing that was wrong.
pub fn run(seed: u64, way: Way) -> Result<Told, String> {
    let size = Size { faulty: Duration::ZERO, calm: Duration::from_secs(60), clients: 1 };
    let mut world = World::built(seed, size, Bug::None, false);
    let (host, rng) = (&mut world.clients[0], &mut world.rng);
    host.paths.truncate(2);
    for (path, number) in host.paths.iter_mut().zip(0..) {
        (path.delay, path.jitter, path.mtu, path.metered) = (Duration::from_millis(10), way.jitter, 1_500, false);
        (path.class, path.v6) = (PathClass::Primary, false);
        path.renumber(0, number, rng);
    }
    let ever = Instant(u64::MAX);
    for path in &mut host.paths {
        (path.to_gateway.reorder, path.to_gateway.odd_until) = (way.reorders, ever);
    }
    let up = &mut host.paths[0].to_gateway;
    (up.loss, up.large_only, up.lossy_until) = (way.loses, true, ever);
    world.begin(size);
    let random = |what: &What| matches!(what, What::Phase { .. } | What::Fault | What::Calm | What::LastFlows);
    world.events.retain(|_, what| !random(what));
    world.flows(0, true, true, Duration::from_millis(10));
    watch(&mut world)
}

fn watch(world: &mut World) -> Result<Told, String> {
    let mut seen = Vec::new();
    let mut look = world.now;
    while let Some(next) = world.next().filter(|&next| next <= world.end) {
        world.now = world.now.max(next);
        world.step();
        if let Some(wrong) = world.checker.wrong.take() {
            return Err(wrong);
        }
        if world.now >= look {
            look = world.now + Duration::from_millis(500);
            seen.extend(world.clients[0].engine.view().paths.into_iter().filter(|path| path.active));
        }
    }
    let view = world.clients[0].engine.view();
    let moved = view.paths.iter().any(|path| path.active && path.label == world.clients[0].paths[1].label);
    let reasons = world.cover.reasons.keys().copied().collect();
    Ok(Told { policy: Policy::decode(&view.policy).unwrap_or_default(), reasons, seen, moved })
}
