//! Round trip and loss of a path.
//!
//! Owns the smoothing (RFC 6298, in integers) and the window of answered probes. Must never decide.

use crate::time::{Duration, nanos};

/// Probes whose fate makes up the loss: enough for single percents, few enough to forget a bad minute.
pub(super) const LOSS_WINDOW: u32 = 64;

/// Smoothed round trip and its variation, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    srtt: u64,
    rttvar: u64,
    measured: bool,
}

impl Rtt {
    /// Takes a sample.
    pub(super) fn sample(&mut self, round_trip: Duration) {
        let sample = nanos(round_trip);
        if self.measured {
            self.rttvar = (3 * self.rttvar + self.srtt.abs_diff(sample)) / 4;
            self.srtt = (7 * self.srtt + sample) / 8;
        } else {
            (self.srtt, self.rttvar, self.measured) = (sample, sample / 2, true);
        }
    }

    /// Smoothed round trip, once measured.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_nanos(self.srtt))
    }

    /// Its variation, once measured.
    pub(super) fn rttvar(&self) -> Option<Duration> {
        self.measured.then(|| Duration::from_nanos(self.rttvar))
    }

    /// `srtt + factor · rttvar`; zero while nothing was measured.
    pub(super) fn bound(&self, factor: u64) -> Duration {
        Duration::from_nanos(self.srtt + factor * self.rttvar)
    }

    /// Whether anything was measured.
    pub(super) const fn measured(&self) -> bool {
        self.measured
    }
}

/// Which of the last probes came back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loss {
    bits: u64,
    len: u32,
}

impl Loss {
    /// The fate of one more probe.
    pub(super) fn record(&mut self, answered: bool) {
        self.bits = self.bits << 1 | u64::from(!answered);
        self.len = (self.len + 1).min(LOSS_WINDOW);
    }

    /// Lost ones of the window, in 1/1000.
    pub(super) fn permille(&self) -> u16 {
        if self.len == 0 {
            return 0;
        }
        u16::try_from(self.bits.count_ones() * 1_000 / self.len).unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_is_the_round_trip_and_half_of_it_the_variation() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.srtt(), None);
        rtt.sample(Duration::from_millis(80));
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(Duration::from_millis(80)), Some(Duration::from_millis(40))));
    }

    #[test]
    fn later_samples_move_it_by_an_eighth_and_a_quarter() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_millis(80));
        rtt.sample(Duration::from_millis(160));
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(Duration::from_millis(90)), Some(Duration::from_millis(50))));
        assert_eq!(rtt.bound(4), Duration::from_millis(290));
    }

    #[test]
    fn loss_counts_the_last_sixty_four_only() {
        let mut loss = Loss::default();
        assert_eq!(loss.permille(), 0);
        (0..64).for_each(|_| loss.record(false));
        assert_eq!(loss.permille(), 1_000);
        (0..64).for_each(|n| loss.record(n % 4 != 0));
        assert_eq!(loss.permille(), 250);
    }
}
