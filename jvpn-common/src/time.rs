//! Time as a parameter: boot time in nanoseconds.
//!
//! Owns the [`Instant`] everything is decided by. Must never read a clock. Boot time and not monotonic
//! time, since the latter stops while a laptop sleeps and a session's deadlines must not.

use core::fmt;
use core::ops::{Add, Sub};
pub use core::time::Duration;

/// Nanoseconds since the kernel booted, counted through suspend (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "engine", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "engine", serde(transparent))]
pub struct Instant(pub u64);

impl Instant {
    /// How long ago `earlier` was; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `ago` before this one, no earlier than boot.
    #[must_use]
    pub fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(ago)))
    }
}

/// A duration in whole nanoseconds, saturating after 584 years.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(nanos(after)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
