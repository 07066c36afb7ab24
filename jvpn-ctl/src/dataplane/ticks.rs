//! The kernel's ticks, told without asking the kernel program.
//!
//! Owns the conversion of durations into jiffies. Jiffies advance with the monotonic clock: after one look
//! at both they stay `base + monotonic / period`. Must never be used for what a session's life hangs on,
//! since this clock stops in suspend; a deadline here is one that a living loop refreshes.

use jvpn_common::time::{Duration, nanos};
use rustix::time::{ClockId, clock_getres, clock_gettime};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A source of ticks.
#[derive(Debug)]
pub struct Ticks {
    source: Source,
    period_ns: u64,
}

#[derive(Debug)]
enum Source {
    Monotonic { base: u64 },
    Manual(AtomicU64),
}

/// A tick of a kernel that reports none: HZ = 250.
const PERIOD_FALLBACK_NS: u64 = 4_000_000;

/// Length of a kernel tick in nanoseconds: the resolution of the coarse clocks.
#[must_use]
pub fn period_ns() -> u64 {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    match u64::try_from(resolution.tv_nsec) {
        Ok(ns) if ns > 1_000 => ns,
        _ => PERIOD_FALLBACK_NS,
    }
}

/// The monotonic clock as of the last tick.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Ticks {
    /// Ticks that agree with a kernel in which `jiffies` was seen when the monotonic clock was `at_ns`.
    #[must_use]
    pub fn aligned(jiffies: u64, at_ns: u64) -> Self {
        let period_ns = period_ns();
        Self { source: Source::Monotonic { base: jiffies.wrapping_sub(at_ns / period_ns) }, period_ns }
    }

    /// Ticks of this process's own, where no kernel program reads them. They do not begin at zero: zero
    /// means "never".
    #[must_use]
    pub fn own() -> Self {
        Self::aligned(1_000_000, 0)
    }

    /// Ticks that only move when told, 250 a second.
    #[must_use]
    pub fn manual(tick: u64) -> Self {
        Self { source: Source::Manual(AtomicU64::new(tick)), period_ns: PERIOD_FALLBACK_NS }
    }

    /// The tick now.
    #[must_use]
    pub fn now(&self) -> u64 {
        match &self.source {
            Source::Monotonic { base } => base.wrapping_add(monotonic_ns() / self.period_ns),
            Source::Manual(tick) => tick.load(Relaxed),
        }
    }

    /// Moves manual ticks; others move by themselves.
    pub fn set(&self, to: u64) {
        if let Source::Manual(tick) = &self.source {
            tick.store(to, Relaxed);
        }
    }

    /// The first tick not before `within` from now.
    #[must_use]
    pub fn after(&self, within: Duration) -> u64 {
        self.now().saturating_add(self.covering(within))
    }

    /// Ticks that cover `time`.
    #[must_use]
    pub fn covering(&self, time: Duration) -> u64 {
        nanos(time).div_ceil(self.period_ns)
    }

    /// The time to a tick, rounded down; zero for one that has passed.
    #[must_use]
    pub fn until(&self, tick: u64) -> Duration {
        Duration::from_nanos(tick.saturating_sub(self.now()).saturating_mul(self.period_ns))
    }

    /// Ticks a second.
    #[must_use]
    pub fn hz(&self) -> u32 {
        u32::try_from(1_000_000_000 / self.period_ns).unwrap_or(250)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        let ticks = Ticks::manual(100);
        assert_eq!(ticks.after(Duration::from_millis(500)), 225);
        assert_eq!(ticks.after(Duration::from_millis(1)), 101);
        assert_eq!([0, 4, 5].map(|ms| ticks.covering(Duration::from_millis(ms))), [0, 1, 2]);
        assert_eq!(ticks.until(225), Duration::from_millis(500));
        assert_eq!(ticks.until(99), Duration::ZERO);
        ticks.set(200);
        assert_eq!(ticks.after(Duration::ZERO), 200);
        assert_eq!(ticks.hz(), 250);
    }
}
