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

/// Time that stands still while the host sleeps; what boot time is more of is how long it slept.
#[must_use]
pub fn monotonic() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    Instant(nanoseconds(time.tv_sec, time.tv_nsec))
}

/// A boot instant as wall time, RFC 3339.
#[must_use]
pub fn text(at: Instant) -> String {
    let ago = boot().since(at).as_nanos();
    let then = i128::from(wall()) - i128::try_from(ago).unwrap_or(0);
    jiff::Timestamp::from_nanosecond(then).map(|ts| ts.to_string()).unwrap_or_default()
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
