//! A timer on boot time, to the microsecond.
//!
//! Owns one timerfd. tokio's timers round to a millisecond and stop while the host sleeps; probes are 3 ms
//! apart, and a session's deadlines do not wait for a lid to open.

use super::clock;
use super::sys::watch;
use jvpn_common::time::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// One alarm.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
    /// What the kernel was told, on its own clock.
    set: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { fd: watch(fd)?, set: None })
    }

    /// Sets it to `at`; an instant that has passed fires at once.
    ///
    /// # Errors
    /// Never, for a timer the kernel made.
    pub fn set(&mut self, at: Option<Instant>) -> io::Result<()> {
        let at = at.map(clock::of_kernel);
        if self.set == at {
            return Ok(());
        }
        self.set = at;
        // Zero would disarm it.
        let nanoseconds = at.map_or(0, |at| at.0.max(1));
        let it_value = Timespec {
            tv_sec: i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanoseconds % 1_000_000_000).unwrap_or(0),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Waits until it fires.
    ///
    /// # Errors
    /// Never, for a timer the kernel made.
    pub async fn fired(&mut self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut count = [0; 8];
        let _ = rustix::io::read(ready.get_inner(), &mut count);
        ready.clear_ready();
        self.set = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::boot;
    use jvpn_common::time::Duration;

    #[tokio::test]
    async fn an_alarm_fires_no_earlier_than_set_and_at_once_when_late() {
        let mut alarm = Alarm::new().unwrap();
        let at = boot() + Duration::from_millis(5);
        alarm.set(Some(at)).unwrap();
        alarm.fired().await.unwrap();
        assert!(boot() >= at);
        alarm.set(Some(Instant(1))).unwrap();
        alarm.fired().await.unwrap();
    }
}
