//! The one reader of clocks.
//!
//! Owns boot time (which decides) and wall time (which labels). Must never let anything else read them: a
//! build with the feature `lab-clock` adds an offset here, so that tests can make hosts sleep. No release has it.

use jvpn_common::time::Instant;
use rustix::time::{ClockId, clock_gettime};

/// Boot time: it goes on while the host sleeps.
#[must_use]
pub fn boot() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant(nanoseconds(time.tv_sec, time.tv_nsec).saturating_add(offsets().0))
}

/// The instant of the kernel's own boot clock that an instant of [`boot`] is: for its timers.
#[must_use]
pub fn of_kernel(at: Instant) -> Instant {
    Instant(at.0.saturating_sub(offsets().0))
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
    nanoseconds(time.tv_sec, time.tv_nsec).saturating_add_signed(offsets().1)
}

/// What a lab adds to boot time and to wall time, in nanoseconds.
#[cfg(not(feature = "lab-clock"))]
const fn offsets() -> (u64, i64) {
    (0, 0)
}

/// The same, from the file that `JVPN_LAB_CLOCK` names: two numbers, written in one piece by the lab.
#[cfg(feature = "lab-clock")]
fn offsets() -> (u64, i64) {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;
    use std::sync::OnceLock;
    static SHARED: OnceLock<Option<File>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| std::env::var_os("JVPN_LAB_CLOCK").and_then(|path| File::open(path).ok()));
    let mut bytes = [0; 64];
    let length = shared.as_ref().and_then(|file| file.read_at(&mut bytes, 0).ok()).unwrap_or(0);
    let text = bytes.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let mut numbers = text.split_whitespace();
    let boot = numbers.next().and_then(|number| number.parse().ok());
    let wall = numbers.next().and_then(|number| number.parse().ok());
    (boot.unwrap_or(0), wall.unwrap_or(0))
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1_000_000_000 + u64::try_from(nanoseconds).unwrap_or(0)
}

/// The kernel's name for this boot and its clock: the same one means that only the process died. A time namespace has a
/// boot clock of its own: instants of another one mean nothing here.
///
/// # Errors
/// Without `/proc`.
pub fn boot_id() -> std::io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    // Kernels without time namespaces have one clock.
    let clock = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Ok(format!("{} {}", boot.trim(), clock.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_named_with_its_clock_and_the_kernels_timers_are_set_by_the_kernels_own() {
        let id = boot_id().unwrap();
        assert!(id.len() > 36 && id.contains(' '), "{id}");
        assert_eq!(id, boot_id().unwrap());
        // Nothing names a file with offsets here, feature or not.
        let now = boot();
        assert_eq!(of_kernel(now), now);
    }
}
