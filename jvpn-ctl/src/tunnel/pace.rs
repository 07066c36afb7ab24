//! When the worker lets datagrams gather before it looks again.
//!
//! Owns the judgement that all there is is a storm of control. Must never hold up a session that carries more packets than
//! there is control, nor a single message: who comes into a calm is served at once.
//!
//! Where everybody moves at once, each datagram wakes the worker, the worker wakes the controller, and both do one datagram:
//! waking costs as much as the work.

use jvpn_common::time::{Duration, Instant};

/// How long control is counted before it is judged. Ten times as long, a storm is over before it is noticed.
const WINDOW: Duration = Duration::from_millis(10);
/// Control datagrams in that time that are a storm, 4,000 a second: fewer wake the worker less often than a rest does.
const STORM: u64 = 40;
/// How long the worker rests in a storm, with what the kernel's timer adds half as much again. Halved, twice the wake-ups;
/// doubled, a client of the storm waits a millisecond for its two answers.
const REST: Duration = Duration::from_micros(200);
/// The same while the controller has more than it can do: whatever was handed over earlier would wait there.
const REST_BEHIND: Duration = Duration::from_micros(600);

/// What came in the present window.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Instant,
    /// Control datagrams and packets of sessions, all that ever came, when the window began.
    counted: [u64; 2],
    storm: bool,
    /// After the last rest the controller had not come to the end of what it was given before.
    behind: bool,
}

impl Pace {
    /// Rests, then asks whether the controller still has something of what it was given before.
    pub(super) fn rest(&mut self, is_behind: impl FnOnce() -> bool) {
        std::thread::sleep(self.length());
        self.rested(is_behind());
    }

    const fn rested(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// How long the next rest is.
    const fn length(&self) -> Duration {
        if self.behind { REST_BEHIND } else { REST }
    }

    /// Whether to rest, where so much control and so many packets have come since the worker began.
    pub(super) fn rests(&mut self, now: Instant, counted: [u64; 2]) -> bool {
        if now.since(self.since) >= WINDOW {
            let ([control, packets], [before, carried]) = (counted, self.counted);
            // A window that was slept through says nothing of a storm.
            let recent = now.since(self.since) < 2 * WINDOW;
            self.storm = recent && control - before >= STORM.max(packets - carried + 1);
            (self.since, self.counted) = (now, counted);
        }
        self.storm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it rests after a window with so much control and so many packets.
    fn rests(pace: &mut Pace, at: u64, control: u64, packets: u64) -> bool {
        let [known, carried] = pace.counted;
        pace.rests(Instant(at * 1_000_000), [known + control, carried + packets])
    }

    #[test]
    fn who_is_behind_is_given_more_at_once_and_who_caught_up_is_not() {
        let mut pace = Pace::default();
        let mut next = |behind| {
            pace.rested(behind);
            pace.length()
        };
        assert_eq!([true, true, false, true].map(&mut next), [REST_BEHIND, REST_BEHIND, REST, REST_BEHIND]);
    }

    #[test]
    fn only_a_storm_of_control_lets_the_worker_rest_and_only_while_it_lasts() {
        let mut pace = Pace::default();
        assert!(!rests(&mut pace, 10, STORM - 1, 0));
        assert!(rests(&mut pace, 20, STORM, 0));
        assert!(rests(&mut pace, 29, 0, 0), "it is judged once a window");
        assert!(!rests(&mut pace, 30, STORM, STORM), "sessions that carry as much are not held up");
        assert!(rests(&mut pace, 40, STORM, STORM - 1));
        assert!(!rests(&mut pace, 50, 0, 0));
        assert!(!rests(&mut pace, 5_000, 10 * STORM, 0), "what gathered while it slept is no storm");
    }
}
