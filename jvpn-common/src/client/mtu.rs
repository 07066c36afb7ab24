//! The largest packet that passes on a path, and whether it still does.
//!
//! Owns the search and the doubt (RFC 8899, in small). Must never give a proven size up while the path is silent
//! altogether, nor for one lost probe.
//!
//! ```text
//! search ─ a size returns ─► proven ─ data is missing, or traffic has stopped ─► doubt: the proven size, four times
//!   ▲                           ▲                                                     │
//!   │                           └───────────────── it returns ────────────────────────┤
//!   └──────────────── none returns, and small probes do ──────────────────────────────┘
//! ```

use super::timing::{
    DOUBT_PAUSE, DOUBT_STALLED, DOUBT_STALLED_BYTES, DOUBT_TRIES, DOUBT_WAIT, MTU_RAISE, MTU_RETRY, MTU_TRIES,
};
use crate::limits::{PATH_MTU_MIN_V6_INSIDE, PATH_MTU_UNPROVEN};
use crate::time::{Duration, Instant};

/// Sizes tried beside the full one.
const SIZES: [u16; 3] = [1_400, 1_340, PATH_MTU_UNPROVEN];

/// Search for the largest packet that passes.
#[derive(Debug)]
pub(super) struct MtuSearch {
    /// All sizes, largest first.
    sizes: Vec<u16>,
    /// Those still open, largest first.
    open: Vec<u16>,
    proven: Option<u16>,
    tries: u32,
    due: Option<Instant>,
    doubt: Option<Doubt>,
    /// When the proven size last returned, and how much had been received when a stall last made it doubtful.
    returned: Option<Instant>,
    stalled: Option<(Instant, u64)>,
    /// Whether a proven size passes no longer: what still does is wanted soon, and the rest may come back.
    shrunk: bool,
}

/// The proven size is tried again.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    tries: u32,
    next: Instant,
}

impl MtuSearch {
    /// A search up to `full`, no larger than the link's own MTU.
    pub(super) fn new(full: u16, link: u16, now: Instant) -> Self {
        let mut sizes: Vec<u16> = SIZES.into_iter().filter(|&size| size < full && size <= link).collect();
        sizes.insert(0, full.min(link.max(PATH_MTU_UNPROVEN)));
        sizes.dedup();
        let open = sizes.clone();
        let (proven, tries, due) = (None, 0, Some(now));
        Self { sizes, open, proven, tries, due, doubt: None, returned: None, stalled: None, shrunk: false }
    }

    /// When sizes are to be tried again.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.due, self.doubt.map(|doubt| doubt.next)].into_iter().flatten().min()
    }

    /// The sizes to try now; `answered` is when the newest small probe that came back was sent.
    pub(super) fn attempt(&mut self, now: Instant, rtt: Duration, answered: Option<Instant>) -> Vec<u16> {
        if let Some(doubt) = self.doubt.filter(|doubt| doubt.next <= now) {
            if doubt.tries < DOUBT_TRIES {
                self.doubt = Some(Doubt { tries: doubt.tries + 1, next: now + DOUBT_WAIT.max(rtt), ..doubt });
                return self.proven.into_iter().collect();
            }
            self.doubt = None;
            // A path that returns nothing at all says nothing of sizes.
            if answered.is_some_and(|sent| sent > doubt.since) {
                (self.open, self.proven, self.tries) = (self.sizes.clone(), None, 0);
                (self.due, self.shrunk) = (Some(now), true);
            }
        }
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.tries = self.tries.saturating_add(1);
        let pause = if self.shrunk { DOUBT_WAIT.max(rtt) } else { MTU_RETRY.max(rtt * 2) };
        self.due = match self.tries < MTU_TRIES {
            true => Some(now + pause),
            false => self.shrunk.then(|| now + MTU_RAISE),
        };
        self.open.clone()
    }

    /// A size came back.
    pub(super) fn came_back(&mut self, size: u16, now: Instant) {
        self.proven = self.proven.max(Some(size));
        if self.proven == Some(size) {
            (self.doubt, self.returned) = (None, Some(now));
        }
        self.open.retain(|&open| open > size);
        if self.open.is_empty() {
            (self.due, self.shrunk) = (None, false);
        }
    }

    /// The interface came back, in another network perhaps: what returned before says nothing of this one.
    pub(super) fn doubt_all(&mut self, now: Instant) {
        (self.doubt, self.returned) = (None, None);
        self.doubt(now);
    }

    /// Data is missing at the other end: does the proven size still pass?
    pub(super) fn doubt(&mut self, now: Instant) {
        let lately = self.returned.is_some_and(|at| now.since(at) < DOUBT_PAUSE);
        if self.doubt.is_none() && !lately && self.proven.is_some_and(|size| size > PATH_MTU_UNPROVEN) {
            self.doubt = Some(Doubt { since: now, tries: 0, next: now });
        }
    }

    /// Traffic has stopped, as it does when it is over, and when its packets have become too large. So many bytes had come.
    pub(super) fn doubt_stalled(&mut self, received: u64, now: Instant) {
        let worth = self.stalled.is_none_or(|(at, before)| {
            received.saturating_sub(before) >= DOUBT_STALLED_BYTES || now.since(at) >= DOUBT_STALLED
        });
        if worth {
            self.stalled = Some((now, received));
            self.doubt(now);
        }
    }

    /// Tries again what has not come back, after a path was silent.
    pub(super) fn again(&mut self, now: Instant) {
        if self.proven.is_none() && (self.due.is_none() || self.tries >= MTU_TRIES) {
            (self.tries, self.due) = (0, Some(now));
        }
    }

    /// What is proven.
    pub(super) const fn proven(&self) -> Option<u16> {
        self.proven
    }

    /// Whether a size came back and no larger one is awaited at once.
    pub(super) fn settled(&self) -> bool {
        self.proven.is_some() && (self.due.is_none() || self.tries > 1)
    }

    /// Whether the path can carry a session.
    pub(super) fn carries(&self, v6_inside: bool) -> bool {
        self.proven.is_some_and(|mtu| !v6_inside || mtu >= PATH_MTU_MIN_V6_INSIDE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(5_000_000_000);
    const RTT: Duration = Duration::from_millis(10);

    /// A path of 1,500 that was proven at once.
    fn proven() -> MtuSearch {
        let mut search = MtuSearch::new(1_500, 1_500, NOW);
        search.attempt(NOW, RTT, None);
        search.came_back(1_500, NOW);
        search
    }

    #[test]
    fn the_largest_size_that_returns_is_the_path_mtu() {
        let mut search = MtuSearch::new(1_500, 1_500, NOW);
        assert_eq!(search.attempt(NOW, Duration::ZERO, None), [1_500, 1_400, 1_340, 1_280]);
        search.came_back(1_340, NOW);
        search.came_back(1_280, NOW);
        assert_eq!((search.proven(), search.settled(), search.carries(true)), (Some(1_340), false, false));
        let later = NOW + MTU_RETRY;
        assert_eq!(search.attempt(later, Duration::ZERO, None), [1_500, 1_400]);
        search.came_back(1_500, later);
        assert_eq!((search.due(), search.carries(true)), (None, true));
    }

    #[test]
    fn no_size_above_the_link_is_tried() {
        let mut search = MtuSearch::new(1_500, 1_400, NOW);
        assert_eq!(search.attempt(NOW, Duration::ZERO, None), [1_400, 1_340, 1_280]);
    }

    #[test]
    fn a_proven_size_that_returns_ends_the_doubt_and_is_not_doubted_again_at_once() {
        let (mut search, at) = (proven(), NOW + DOUBT_PAUSE);
        search.doubt(at.before(RTT));
        assert_eq!(search.due(), None, "it has only just returned");
        search.doubt(at);
        assert_eq!(search.attempt(at, RTT, None), [1_500]);
        search.came_back(1_500, at + RTT);
        assert_eq!((search.due(), search.proven()), (None, Some(1_500)));
        search.doubt(at + RTT + RTT);
        assert_eq!(search.due(), None);
    }

    /// Doubts until it is given up or kept; the sizes of the last attempt.
    fn unanswered(search: &mut MtuSearch, answered: Option<Instant>) -> Vec<u16> {
        let at = NOW + DOUBT_PAUSE;
        search.doubt(at);
        for _ in 0..DOUBT_TRIES {
            let now = search.due().unwrap();
            assert_eq!(search.attempt(now, RTT, answered), [1_500]);
        }
        let now = search.due().unwrap();
        search.attempt(now, RTT, answered)
    }

    #[test]
    fn a_proven_size_that_does_not_return_while_the_path_lives_is_searched_anew_and_again_in_ten_minutes() {
        let mut search = proven();
        assert_eq!(unanswered(&mut search, Some(NOW + DOUBT_PAUSE + RTT)), [1_500, 1_400, 1_340, 1_280]);
        assert_eq!((search.proven(), search.settled()), (None, false));
        let at = search.due().unwrap().before(DOUBT_WAIT);
        search.came_back(1_280, at + RTT);
        while !search.settled() {
            let now = search.due().unwrap();
            assert!(now <= at + DOUBT_WAIT, "the gateway is told soon");
            assert_eq!(search.attempt(now, RTT, None), [1_500, 1_400, 1_340]);
        }
        for _ in 2..MTU_TRIES {
            let now = search.due().unwrap();
            search.attempt(now, RTT, None);
        }
        let raise = search.due().unwrap();
        assert!(raise.since(at) > MTU_RAISE, "{raise:?}");
        assert_eq!(search.attempt(raise, RTT, None), [1_500, 1_400, 1_340]);
        search.came_back(1_500, raise + RTT);
        assert_eq!((search.due(), search.proven()), (None, Some(1_500)));
    }

    #[test]
    fn a_silent_path_keeps_its_size() {
        let mut search = proven();
        assert_eq!(unanswered(&mut search, Some(NOW)), [] as [u16; 0]);
        assert_eq!((search.due(), search.proven()), (None, Some(1_500)));
    }

    #[test]
    fn a_size_that_was_given_up_as_the_path_fell_silent_is_searched_again_with_its_return() {
        let mut search = proven();
        unanswered(&mut search, Some(NOW + DOUBT_PAUSE + RTT));
        while search.due().unwrap().since(NOW) < MTU_RAISE {
            let now = search.due().unwrap();
            search.attempt(now, RTT, None);
        }
        let back = NOW + MTU_RAISE.saturating_sub(RTT);
        search.again(back);
        assert_eq!(search.attempt(back, RTT, None), [1_500, 1_400, 1_340, 1_280]);
    }

    #[test]
    fn an_interface_that_comes_back_is_a_doubt_whatever_was_doubted_or_returned_before() {
        let mut search = proven();
        search.doubt_all(NOW);
        assert_eq!((search.due(), search.attempt(NOW, RTT, None)), (Some(NOW), vec![1_500]));
        search.doubt_all(NOW + RTT);
        assert_eq!(search.due(), Some(NOW + RTT));
    }

    #[test]
    fn a_stall_is_a_doubt_once_a_minute_and_after_every_transfer() {
        let (mut search, mut now) = (proven(), NOW + DOUBT_PAUSE);
        let mut stall = |after: Duration, received: u64| {
            now = now + after;
            search.doubt_stalled(received, now);
            let doubted = search.due().is_some();
            search.came_back(1_500, now);
            doubted
        };
        let short = DOUBT_PAUSE * 2;
        assert!(stall(short, 10), "the first one");
        assert!(!stall(short, 11));
        assert!(stall(short, 10 + DOUBT_STALLED_BYTES));
        assert!(!stall(short, 11 + DOUBT_STALLED_BYTES));
        assert!(stall(DOUBT_STALLED, 11 + DOUBT_STALLED_BYTES));
    }

    #[test]
    fn the_smallest_size_is_never_doubted() {
        let mut search = MtuSearch::new(1_280, 1_500, NOW);
        search.attempt(NOW, RTT, None);
        search.came_back(1_280, NOW);
        search.doubt(NOW + DOUBT_PAUSE);
        assert_eq!(search.due(), None);
    }
}
