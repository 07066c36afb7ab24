//! How long a move takes while nobody else asks for anything, and beside a flood of handshakes. Owns the phases. Never leaves a
//! move out because it takes long: a phase is over when each that was begun is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::served::{Served, Wanted as Setting};
use super::super::stats::quantile;
use super::flood::{Flood, Shots, Told};
use crate::lab::topology::{GATEWAY_PORT, GATEWAY_V4};

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub members: usize,
    /// Moves a second, far below what the gateway can do.
    pub pace: u32,
    pub each: Duration,
    /// Handshakes a second that the flood asks for.
    pub rate: u32,
}

/// A flood may be slower than it was told, but not by more than this share.
const ASKED_MIN: f64 = 0.8;
/// Of the moves that should be begun, at least this share is: the machine stood still otherwise.
const BEGUN_MIN: f64 = 0.5;

/// How much longer a flood can last than it should, should moves take long.
const SPARE: Duration = Duration::from_secs(5);

/// What one round showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// 99th percentile of moves beside nothing, ms.
    pub idle_ms: f64,
    /// The same beside strangers who do not come back with their cookie, as a multiple of it.
    pub asked: f64,
    /// Beside strangers who do.
    pub proven: f64,
}

/// One round on a gateway of its own.
pub fn round(size: &Size, setting: &Setting) -> Result<Seen> {
    let (crowd, _) = Served::up(setting)?;
    let shots = (2 * size.each + SPARE).as_secs_f64() * f64::from(size.rate);
    let shots = Arc::new(Shots::make(shots as usize, crowd.host.key)?);
    // The first moves find everything cold.
    moves(&crowd, size)?;
    let idle_ms = moves(&crowd, size)?;
    let beside = |proves| -> Result<f64> {
        let gateway = (GATEWAY_V4.parse::<std::net::Ipv4Addr>()?, GATEWAY_PORT).into();
        let began = Instant::now();
        let flood = Flood::begin(crowd.clients(), gateway, Arc::clone(&shots), size.rate, proves);
        let p99 = moves(&crowd, size);
        let (told, wanted) = (flood.end()?, began.elapsed().as_secs_f64() * f64::from(size.rate));
        judge(told, wanted, proves)?;
        Ok(p99? / idle_ms)
    };
    let seen = Seen { idle_ms, asked: beside(false)?, proven: beside(true)? };
    crowd.no_dual_binding("after the flood")?;
    Ok(seen)
}

/// Whether it was a flood.
fn judge(told: Told, wanted: f64, proves: bool) -> Result<()> {
    ensure!(told.asked as f64 >= ASKED_MIN * wanted, "the flood came to {told:?} of {wanted:.0}");
    ensure!(!proves || told.proven * 2 >= told.asked, "most of the flood was not asked for a cookie: {told:?}");
    Ok(())
}

/// The 99th percentile of moves begun for a while, in ms.
fn moves(crowd: &Served, size: &Size) -> Result<f64> {
    let before = crowd.swarm.book().took.len();
    crowd.swarm.pace(size.pace);
    std::thread::sleep(size.each);
    crowd.swarm.pace(0);
    let took: Vec<f64> = crowd.moves_since(before)?.iter().map(|took| took.as_secs_f64() * 1e3).collect();
    let wanted = f64::from(size.pace) * size.each.as_secs_f64();
    ensure!(took.len() as f64 >= BEGUN_MIN * wanted, "{} moves of {wanted:.0}", took.len());
    quantile(&took, 0.99).context("no moves")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_no_flood() {
        let told = Told { asked: 900, cookies: 700, proven: 700 };
        assert!(judge(told, 1_000.0, true).is_ok());
        assert!(judge(told, 2_000.0, true).is_err(), "too few were sent");
        assert!(judge(Told { proven: 400, ..told }, 1_000.0, true).is_err(), "too few were computed");
        assert!(judge(Told { proven: 0, ..told }, 1_000.0, false).is_ok());
    }
}
