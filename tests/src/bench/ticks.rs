//! Owns the reading of /proc/stat: how long all processors were busy, and how long the host of a virtual machine kept them.
//! Never knows who was busy.

use std::fs;

use anyhow::{Context, Result, bail};

/// Ticks a second: fixed by the ABI on every Linux of this architecture.
const USER_HZ: f64 = 100.0;

/// Ticks of all processors since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    stolen: u64,
    all: u64,
}

impl Ticks {
    pub fn read() -> Result<Ticks> {
        Ticks::parse(&fs::read_to_string("/proc/stat").context("read /proc/stat")?)
    }

    /// Order in the file: user nice system idle iowait irq softirq steal; guests are in user.
    fn parse(stat: &str) -> Result<Ticks> {
        let line = stat.lines().next().context("empty /proc/stat")?;
        let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).take(8).collect();
        let [user, nice, system, idle, wait, irq, soft, stolen] = fields[..] else {
            bail!("unknown first line of /proc/stat: {line}");
        };
        let busy = user + nice + system + irq + soft;
        Ok(Ticks { busy, stolen, all: busy + idle + wait + stolen })
    }

    /// Seconds of processor time, everybody's.
    #[must_use]
    pub fn seconds_since(self, before: Ticks) -> f64 {
        self.busy.saturating_sub(before.busy) as f64 / USER_HZ
    }

    /// Share of the machine that was busy.
    #[must_use]
    pub fn busy_since(self, before: Ticks) -> f64 {
        self.busy.saturating_sub(before.busy) as f64 / self.all.saturating_sub(before.all).max(1) as f64
    }

    /// Share of the machine that was given to others.
    #[must_use]
    pub fn stolen_since(self, before: Ticks) -> f64 {
        self.stolen.saturating_sub(before.stolen) as f64 / self.all.saturating_sub(before.all).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_stolen_time_is_not_busy() {
        let ticks = Ticks::parse("cpu  1 2 3 100 50 4 5 7 9 9\ncpu0 0\n").unwrap();
        assert_eq!(ticks, Ticks { busy: 15, stolen: 7, all: 172 });
        assert!(Ticks::parse("cpu one\n").is_err());
        let later = Ticks { busy: 40, stolen: 12, all: 222 };
        assert!((later.busy_since(ticks) - 0.5).abs() < 1e-9 && (later.stolen_since(ticks) - 0.1).abs() < 1e-9);
        assert!((later.seconds_since(ticks) - 0.25).abs() < 1e-9);
    }
}
