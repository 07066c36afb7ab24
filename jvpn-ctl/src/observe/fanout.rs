//! Everybody who hears of events while they happen: each has a queue of its own, and none can hold the writer up.
//!
//! Owns the queues and the count of what each of them lost. Offering an event only ever puts it into queues: one that is
//! full gives up its oldest event, counts it, and whoever reads it is told how many are missing before what follows them.
//! Must never wait for a reader, nor lose an event without counting it.
//!
//! ```text
//!             ┌─► [ newest 8,192 ] ─► reader of the stream ─► socket
//! append ─────┼─► [ newest 8,192 ] ─► thread ─► journald
//!             └─► [ newest 8,192 ] ─► thread ─► syslog
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events a reader may lag behind. The queues share their events, so that all of them together hold no more than some 11 MB.
/// Halved, a burst of 10,000 transitions/s overruns a reader that pauses for half a second; doubled, it is twice the memory.
pub const QUEUE_MAX: usize = 8_192;
/// Readers at once; each costs the writer a queue to put every event into.
pub const READERS_MAX: usize = 64;

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sink {
    /// `/v1/events` with `follow`.
    Api,
    /// systemd's journal.
    Journald,
    /// RFC 5424.
    Syslog,
}

impl Sink {
    /// Every sink.
    pub const ALL: [Self; 3] = [Self::Api, Self::Journald, Self::Syslog];

    /// The stable name, as metrics show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
        }
    }
}

/// What became of the events of one sink; its readers together.
#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The queues in use.
#[derive(Debug, Default)]
pub struct FanOut {
    queues: RwLock<Vec<Arc<Queue>>>,
    tallies: [Tally; Sink::ALL.len()],
}

/// More readers than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{READERS_MAX} readers follow the events already")]
pub struct TooMany;

impl FanOut {
    /// Puts an event into every queue. Takes no longer for a reader that stands still.
    pub fn offer(&self, line: &str) {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        // Nobody listening is the usual case.
        if queues.is_empty() {
            return;
        }
        let line: Arc<str> = line.into();
        for queue in queues.iter() {
            let lost = queue.push(&line);
            self.tally(queue.sink).dropped.fetch_add(lost, Relaxed);
        }
    }

    /// Everything that is offered from now on.
    ///
    /// # Errors
    /// [`READERS_MAX`] do so already.
    pub fn subscribe(self: &Arc<Self>, sink: Sink) -> Result<Reader, TooMany> {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if queues.len() >= READERS_MAX {
            return Err(TooMany);
        }
        let queue = Arc::new(Queue { sink, state: Mutex::default(), thread: Condvar::new(), task: Notify::new() });
        queues.push(Arc::clone(&queue));
        Ok(Reader { queue, fan: Arc::clone(self) })
    }

    /// Events that a sink's other side took.
    #[must_use]
    pub fn sent(&self, sink: Sink) -> u64 {
        self.tally(sink).sent.load(Relaxed)
    }

    /// Events that a sink lost.
    #[must_use]
    pub fn dropped(&self, sink: Sink) -> u64 {
        self.tally(sink).dropped.load(Relaxed)
    }

    fn tally(&self, sink: Sink) -> &Tally {
        let [api, journald, syslog] = &self.tallies;
        match sink {
            Sink::Api => api,
            Sink::Journald => journald,
            Sink::Syslog => syslog,
        }
    }
}

#[derive(Debug)]
struct Queue {
    sink: Sink,
    state: Mutex<State>,
    thread: Condvar,
    task: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<str>>,
    /// Lost since the reader was last told.
    lost: u64,
    closed: bool,
}

impl Queue {
    /// Held for as long as it takes to put in or take out one event.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events made room for this one.
    fn push(&self, line: &Arc<str>) -> u64 {
        let mut state = self.lock();
        let full = state.lines.len() >= QUEUE_MAX;
        if full {
            state.lines.pop_front();
            state.lost += 1;
        }
        let first = state.lines.is_empty();
        state.lines.push_back(Arc::clone(line));
        drop(state);
        // Who reads takes until there is nothing left, so that only the first one wakes.
        if first {
            self.thread.notify_one();
            self.task.notify_one();
        }
        full.into()
    }
}

/// What a reader finds next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// An event: a line of the record.
    Line(Arc<str>),
    /// This many events are missing here.
    Lost(u64),
}

/// One end of a queue. Dropped, the queue is gone.
#[derive(Debug)]
pub struct Reader {
    queue: Arc<Queue>,
    fan: Arc<FanOut>,
}

impl Reader {
    /// What is next, if there is anything: first how many were lost.
    pub fn try_take(&self) -> Option<Taken> {
        let mut state = self.queue.lock();
        match std::mem::take(&mut state.lost) {
            0 => state.lines.pop_front().map(Taken::Line),
            lost => Some(Taken::Lost(lost)),
        }
    }

    /// The same, waiting in a task.
    pub async fn take(&self) -> Taken {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            self.queue.task.notified().await;
        }
    }

    /// The same, waiting in a thread; none once the queue was closed and is empty.
    pub fn wait(&self) -> Option<Taken> {
        loop {
            if let Some(taken) = self.try_take() {
                return Some(taken);
            }
            let state = self.queue.lock();
            if state.lines.is_empty() {
                if state.closed {
                    return None;
                }
                drop(self.queue.thread.wait(state).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Waits this long, or until the queue is closed; whether it is.
    pub fn pause(&self, length: Duration) -> bool {
        let until = Instant::now() + length;
        let mut state = self.queue.lock();
        while !state.closed {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            state = self.queue.thread.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.closed
    }

    /// Lets a thread that waits here end.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.queue))
    }

    /// Counts an event that the other side has.
    pub fn sent(&self) {
        self.fan.tally(self.queue.sink).sent.fetch_add(1, Relaxed);
    }

    /// Counts events that were taken and cannot be handed on; the next thing that is taken says so.
    pub fn lost(&self, count: u64) {
        self.queue.lock().lost += count;
        self.fan.tally(self.queue.sink).dropped.fetch_add(count, Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut queues = self.fan.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
    }
}

/// Ends what a thread reads.
#[derive(Debug)]
pub struct Closer(Arc<Queue>);

impl Closer {
    /// Nothing more comes; what is in the queue may still be taken.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.thread.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(taken: Option<Taken>) -> String {
        match taken {
            Some(Taken::Line(line)) => line.to_string(),
            other => panic!("not a line: {other:?}"),
        }
    }

    #[test]
    fn a_full_queue_gives_up_its_oldest_and_says_so_before_the_rest() {
        let fan = Arc::<FanOut>::default();
        let (slow, quick) = (fan.subscribe(Sink::Journald).expect("room"), fan.subscribe(Sink::Api).expect("room"));
        for number in 0..QUEUE_MAX + 3 {
            fan.offer(&number.to_string());
            assert_eq!(line(quick.try_take()), number.to_string());
            quick.sent();
        }
        assert_eq!([Sink::Journald, Sink::Api, Sink::Syslog].map(|sink| fan.dropped(sink)), [3, 0, 0]);
        assert_eq!(fan.sent(Sink::Api), QUEUE_MAX as u64 + 3);
        assert_eq!(slow.try_take(), Some(Taken::Lost(3)));
        for number in 3..QUEUE_MAX + 3 {
            assert_eq!(line(slow.try_take()), number.to_string());
        }
        assert_eq!((slow.try_take(), quick.try_take()), (None, None));
    }

    #[test]
    fn what_a_reader_could_not_hand_on_is_said_by_the_next_thing_it_takes() {
        let fan = Arc::<FanOut>::default();
        let reader = fan.subscribe(Sink::Syslog).expect("room");
        fan.offer("a");
        assert_eq!(line(reader.try_take()), "a");
        reader.lost(1);
        fan.offer("b");
        assert_eq!(reader.try_take(), Some(Taken::Lost(1)));
        assert_eq!((line(reader.try_take()), fan.dropped(Sink::Syslog)), ("b".into(), 1));
    }

    #[test]
    fn a_reader_that_went_costs_nothing_and_one_too_many_is_refused() {
        let fan = Arc::<FanOut>::default();
        let mut readers: Vec<_> = (0..READERS_MAX).map(|_| fan.subscribe(Sink::Api).expect("room")).collect();
        assert_eq!(fan.subscribe(Sink::Api).expect_err("full"), TooMany);
        readers.pop();
        readers.push(fan.subscribe(Sink::Api).expect("room again"));
        drop(readers);
        for number in 0..2 * QUEUE_MAX {
            fan.offer(&number.to_string());
        }
        assert_eq!(fan.dropped(Sink::Api), 0);
    }

    #[test]
    fn a_closed_queue_is_read_to_its_end_and_wakes_who_waits() {
        let fan = Arc::<FanOut>::default();
        let reader = fan.subscribe(Sink::Syslog).expect("room");
        let closer = reader.closer();
        let thread = std::thread::spawn(move || {
            let mut taken = Vec::new();
            while let Some(one) = reader.wait() {
                taken.push(line(Some(one)));
            }
            assert!(reader.pause(Duration::from_secs(3_600)), "a pause ends with the queue");
            taken
        });
        fan.offer("a");
        fan.offer("b");
        closer.close();
        assert_eq!(thread.join().expect("ends"), ["a", "b"]);
    }
}
