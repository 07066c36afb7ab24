//! What would happen to a session: both real engines, the real packet path and real messages over a described network,
//! in virtual time.
//!
//! Owns the description and the order of what happens. Everything comes from the seed: the same scenario, policy and seed
//! are the same outcome, byte for byte. Must never decide what an engine decides, nor be used for anything but trying.
//!
//! ```text
//! client engine ─► path: delay, jitter, loss, faults ─► steer ─► gateway engine ─► commits ─► maps, records ─► outcome
//! ```

mod hosts;
pub mod maps;
mod network;
mod outcome;
pub mod rng;
mod world;

#[cfg(test)]
mod tests;

pub use outcome::{Met, Moment, Outage, Outcome, Verdict, What};

use crate::client::PathClass;
use crate::message::Label;
use crate::session::Policy;
use crate::time::Duration;

/// Paths a scenario may have: as many as a client keeps ready.
pub const PATHS_MAX: usize = 4;
/// Longest scenario: an hour is a million steps.
pub const DURATION_MAX: Duration = Duration::from_secs(3_600);
/// Beginnings of faults, repetitions counted.
pub const FAULTS_MAX: usize = 10_000;

/// A path of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What people call it.
    pub name: Label,
    /// How much it is wanted.
    pub class: PathClass,
    /// Whether bytes cost money.
    pub metered: bool,
    /// One way.
    pub delay: Duration,
    /// Its variation, added at random up to this.
    pub jitter: Duration,
    /// Losses in 1/1000, each way.
    pub loss: u16,
}

/// Which way a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    Both,
    /// Client to gateway.
    Up,
    /// Gateway to client.
    Down,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing passes, and nobody says so.
    Death(Direction),
    /// The interface is gone; the client is told.
    Link,
    /// So many of 1,000 are lost.
    Loss(Direction, u16),
    /// It takes longer, one way.
    Delay(Duration),
    /// It varies more.
    Jitter(Duration),
    /// Nothing passes until it is over, and then all of it: a radio that sleeps, or hands over.
    Pause,
    /// The NAT gives another port; lasts no time.
    Rebind,
}

/// Something that goes wrong, once or again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Indexes of the paths.
    pub paths: Vec<usize>,
    /// What.
    pub kind: Kind,
    /// When it begins first, after the start.
    pub at: Duration,
    /// How long it lasts each time.
    pub lasts: Duration,
    /// From one beginning to the next; none is once.
    pub every: Option<Duration>,
}

/// A described network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// How long it plays.
    pub duration: Duration,
    /// An inner packet each way this often; none is an idle tunnel.
    pub traffic: Option<Duration>,
    /// The client's paths, in its order.
    pub paths: Vec<Path>,
    /// What goes wrong with them.
    pub faults: Vec<Fault>,
}

impl Scenario {
    /// How often something begins to go wrong.
    #[must_use]
    pub fn beginnings(&self) -> usize {
        self.faults.iter().map(|fault| fault.beginnings(self.duration).count()).sum()
    }

    /// A path's name, of what is said of it.
    fn name_of(&self, label: &str) -> &str {
        let known = self.paths.iter().find(|path| path.name.as_str() == label);
        known.map_or("its path", |path| path.name.as_str())
    }

    /// Names of the paths a fault concerns.
    fn names(&self, fault: &Fault) -> String {
        let paths = fault.paths.iter().filter_map(|&path| self.paths.get(path));
        paths.map(|path| path.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Fault {
    /// When it begins, within a scenario of a length; no more than [`FAULTS_MAX`] times and one.
    pub(crate) fn beginnings(&self, duration: Duration) -> impl Iterator<Item = Duration> {
        let (at, every) = (self.at, self.every);
        let times = (0..=u32::try_from(FAULTS_MAX).unwrap_or(u32::MAX)).map_while(move |n| match every {
            Some(every) => every.checked_mul(n).map(|passed| at.saturating_add(passed)),
            None => (n == 0).then_some(at),
        });
        times.take_while(move |at| *at < duration)
    }
}

/// Plays a scenario under a policy.
#[must_use]
pub fn run(scenario: &Scenario, policy: &Policy, seed: u64) -> Outcome {
    world::World::new(scenario, policy, seed).play()
}
