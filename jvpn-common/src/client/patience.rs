//! How patient detection is with a path that was once given up too early.
//!
//! Owns what a late answer teaches. A path that was left for its silence, and then answers what it had been asked before, was
//! not dead: it had paused, as a radio does that sleeps or hands over. From then on its answers may be owed for longer,
//! until an hour has passed without such a pause (RFC 3522 lets a TCP notice in the same way that it repeated too early).
//! Must never learn from a path that does not answer.

use super::timing::{PATIENCE_FOR, PATIENCE_MAX};
use crate::time::{Duration, Instant};

/// What is known of a path's pauses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// When it was given up for its silence.
    left: Option<Instant>,
    /// How long an answer may be owed, and until when that counts.
    waits: Option<(Duration, Instant)>,
}

impl Patience {
    /// The path is given up for its silence.
    pub(super) const fn leave(&mut self, now: Instant) {
        self.left = Some(now);
    }

    /// An answer came to what was asked at `sent`; `usual` is how long it may be owed without anything learned.
    pub(super) fn answered(&mut self, sent: Instant, usual: Option<Duration>, now: Instant) {
        let (late, waits) = (now.since(sent), self.waits(now));
        let too_early = self.left.is_some_and(|left| sent <= left);
        if usual.is_some_and(|usual| late > usual) && (too_early || waits.is_some()) {
            // Half as much again: what was late was asked some time after the pause began.
            let wanted = (late * 3 / 2).min(PATIENCE_MAX);
            self.waits = Some((waits.map_or(wanted, |waits| waits.max(wanted)), now + PATIENCE_FOR));
        }
    }

    /// How long its answers may be owed at least, once that was learned.
    pub(super) fn waits(&self, now: Instant) -> Option<Duration> {
        self.waits.filter(|&(_, until)| now < until).map(|(waits, _)| waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Instant = Instant(10_000_000_000);
    const USUAL: Option<Duration> = Some(Duration::from_millis(60));

    /// Left after 40 ms, answered after 240.
    fn taught() -> Patience {
        let mut patience = Patience::default();
        patience.leave(NOW + 40 * MS);
        patience.answered(NOW, USUAL, NOW + 240 * MS);
        patience
    }

    #[test]
    fn an_answer_to_what_was_asked_before_it_was_left_teaches_and_one_to_a_later_question_does_not() {
        assert_eq!(taught().waits(NOW + 240 * MS), Some(360 * MS));
        let mut patience = Patience::default();
        patience.answered(NOW, USUAL, NOW + 240 * MS);
        assert_eq!(patience.waits(NOW + 240 * MS), None, "late, and it was not left");
        patience.leave(NOW + 40 * MS);
        patience.answered(NOW + 41 * MS, USUAL, NOW + 145 * MS);
        assert_eq!(patience.waits(NOW + 145 * MS), None, "it was dead, and is back");
        patience.answered(NOW + 20 * MS, USUAL, NOW + 80 * MS);
        assert_eq!(patience.waits(NOW + 80 * MS), None, "as late as ever");
    }

    #[test]
    fn it_is_forgotten_an_hour_after_the_last_pause() {
        let (mut patience, learned) = (taught(), NOW + 240 * MS);
        let end = learned + PATIENCE_FOR;
        patience.answered(end.before(100 * MS), USUAL, end.before(90 * MS));
        assert_eq!((patience.waits(end.before(MS)), patience.waits(end)), (Some(360 * MS), None));
        let mut patience = taught();
        patience.answered(end.before(500 * MS), USUAL, end.before(300 * MS));
        assert_eq!(patience.waits(end + 1_000 * MS), Some(360 * MS));
        patience.answered(end, USUAL, end + 320 * MS);
        assert_eq!(patience.waits(end + 1_000 * MS), Some(480 * MS));
    }

    #[test]
    fn it_has_a_limit() {
        let mut patience = Patience::default();
        patience.leave(NOW + 40 * MS);
        patience.answered(NOW, USUAL, NOW + 900 * MS);
        assert_eq!(patience.waits(NOW + 900 * MS), Some(PATIENCE_MAX));
    }
}
