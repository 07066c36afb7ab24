//! The one reader of clocks.
//!
//! Owns boot time (which decides) and wall time (which labels). Must never let anything else read them: a
//! build with the feature `lab-clock` adds an offset here, so that tests can make hosts sleep.

use jvpn_common::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Boot time: it goes on while the host sleeps.
#[must_use]
pub fn boot() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant(nanoseconds(time.tv_sec, time.tv_nsec))
}

/// Wall time in nanoseconds since 1970; it may jump.
#[must_use]
pub fn wall() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    nanoseconds(time.tv_sec, time.tv_nsec)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanoseconds).unwrap_or(0)
}

/// The kernel's name for this boot: the same one means that only the process died.
///
/// # Errors
/// Without `/proc`.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
