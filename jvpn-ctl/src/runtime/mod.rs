//! The event loops of gateway and client: engines on one side, the world on the other.
//!
//! Owns clocks, entropy, timers, and the order in which inputs reach an engine. Must never decide what a
//! session does: an engine is asked, its commands are carried out, each outcome goes back.

pub mod alarm;
pub mod client;
pub mod clock;
pub mod curve;
pub mod entropy;
mod events;
pub mod firewall;
pub mod gateway;
mod interfaces;
mod netlink;
mod node;
mod reconcile;
pub mod relay;
pub mod stop;
mod stream;
mod sys;
mod trailers;

pub use node::wanted;

use crate::dataplane::DataPlane;
use crate::tunnel::Counters;
use jvpn_common::time::Duration;
use jvpn_common::verdict::{Class, Verdict};
use std::collections::BTreeMap;

/// How long an operator waits for a jump.
const JUMP_MAX: Duration = Duration::from_secs(5);

/// What the kernel program and the steering in user space dropped so far, by verdict; never is left out.
fn dropped(plane: &dyn DataPlane) -> BTreeMap<String, u64> {
    let Ok(verdicts) = plane.verdicts() else { return BTreeMap::new() };
    let drops = Verdict::ALL.iter().filter(|verdict| verdict.class() == Class::Drop);
    let counted =
        drops.map(|&verdict| (verdict.name().to_owned(), verdicts.kernel(verdict) + verdicts.worker(verdict)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// What a worker dropped so far, by name; never is left out.
fn drops(counters: &Counters) -> BTreeMap<String, u64> {
    let dropped = counters.iter().filter(|(name, count)| name.starts_with("drop_") && *count > 0);
    dropped.map(|(name, count)| (name.to_owned(), count)).collect()
}
