//! What records say in numbers: how many of what, how long switches took, how long sessions were without a transport.
//!
//! Owns the counters that only grow. Each record is counted once, when it was written; nothing is read back. Must never
//! claim to know more than the record: where a length is the client's own word, the metric's help says so.

use jvpn_common::event::{Event, Record};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::State;
use jvpn_common::time::{Duration, Instant};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Upper bounds in seconds: from what a commit takes to the longest a session may be lost by default.
pub const BUCKETS: [f64; 20] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0,
];

/// Sessions without a transport whose beginning is remembered: as many as a gateway can have. Past it they are not measured.
const UNBOUND_MAX: usize = 1 << 20;

/// Parts of a switch.
pub const PHASES: [&str; 3] = ["detect", "prove", "commit"];

/// Lengths, by how long they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Sum of all, seconds.
    pub sum: f64,
    /// In each of [`BUCKETS`] and above the last one; not yet added up.
    pub counts: [u64; BUCKETS.len() + 1],
}

impl Histogram {
    fn add(&mut self, length: Duration) {
        let seconds = length.as_secs_f64();
        let at = BUCKETS.iter().position(|most| seconds <= *most).unwrap_or(BUCKETS.len());
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The numbers.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Records, by event and reason.
    pub events: BTreeMap<(Event, Option<Reason>), u64>,
    /// Transitions, by state before, state after and reason.
    pub transitions: BTreeMap<(State, State, Reason), u64>,
    /// Parts of switches, in the order of [`PHASES`].
    pub phases: [Histogram; PHASES.len()],
    /// Times without a transport that ended in one, by what caused them.
    pub outages: BTreeMap<Reason, Histogram>,
    /// Since when a session has no transport, and why.
    unbound: BTreeMap<SessionId, (Instant, Reason)>,
}

/// The numbers so far.
#[derive(Debug, Default)]
pub struct Counted(Mutex<Counts>);

impl Counted {
    /// Counts a record that was written.
    pub fn count(&self, record: &Record) {
        self.lock().count(record);
    }

    /// A copy.
    #[must_use]
    pub fn now(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A measured length in a record's details.
fn micros(record: &Record, key: &str) -> Option<Duration> {
    record.details.get(key).and_then(Value::as_u64).map(Duration::from_micros)
}

/// What the record says first beside its reason.
fn detail(record: &Record) -> Option<Reason> {
    let codes = record.details.get("reasons").and_then(Value::as_array)?;
    codes.first()?.as_str()?.parse().ok()
}

/// What a record means for a session's transport.
enum Change {
    Lost,
    Bound,
    Ended,
    Nothing,
}

impl Change {
    fn of(record: &Record) -> Self {
        let ended = record.event == Event::Termination || record.to == Some(State::Terminated);
        // Only a client's record says who acknowledged it; it names paths instead of transports.
        let (lost, bound) = match record.details.get("acknowledged").and_then(Value::as_bool) {
            Some(acknowledged) => {
                let moved = record.event == Event::StateChange;
                (moved && !acknowledged, record.event == Event::TransportSwitch || moved && acknowledged)
            }
            None if record.after.is_some() && record.from != Some(State::Birth) => {
                let (from, to) = (&record.transport.from, &record.transport.to);
                (from.is_some() && to.is_none(), to.is_some() && record.event == Event::TransportSwitch)
            }
            None => (false, false),
        };
        match (ended, lost, bound) {
            (true, ..) => Self::Ended,
            (_, true, _) => Self::Lost,
            (_, _, true) => Self::Bound,
            _ => Self::Nothing,
        }
    }
}

impl Counts {
    fn count(&mut self, record: &Record) {
        *self.events.entry((record.event, record.reason)).or_default() += 1;
        if let (Some(from), Some(to), Some(reason), true) =
            (record.from, record.to, record.reason, record.after.is_some())
        {
            *self.transitions.entry((from, to, reason)).or_default() += 1;
        }
        if record.event == Event::TransportSwitch && record.from != Some(State::Birth) {
            for (key, phase) in ["detect_us", "prove_us", "commit_us"].into_iter().zip(&mut self.phases) {
                if let Some(length) = micros(record, key) {
                    phase.add(length);
                }
            }
        }
        self.transport(record);
    }

    fn transport(&mut self, record: &Record) {
        let (Some(session), Some(reason)) = (record.session_id, record.reason) else { return };
        let silent = micros(record, "detect_us").unwrap_or_default();
        match Change::of(record) {
            Change::Lost => {
                // What the client saw before it gave up counts where its own record says so.
                let client = record.details.contains_key("acknowledged");
                let ago = if client { silent } else { Duration::ZERO };
                let since = record.at.before(ago);
                if self.unbound.len() < UNBOUND_MAX {
                    self.unbound.entry(session).or_insert((since, detail(record).unwrap_or(reason)));
                }
            }
            Change::Bound => {
                let lost = self.unbound.remove(&session);
                let cause = detail(record).unwrap_or(reason);
                // A switch that somebody wished is none.
                let necessary = reason == Reason::ReattachAccept || cause == Reason::SourceChanged;
                if lost.is_some() || necessary {
                    let silent = silent + micros(record, "prove_us").unwrap_or_default();
                    let unbound = lost.map_or(Duration::ZERO, |(since, _)| record.at.since(since));
                    let length = silent.max(unbound) + micros(record, "commit_us").unwrap_or_default();
                    self.outages.entry(lost.map_or(cause, |(_, cause)| cause)).or_default().add(length);
                }
            }
            Change::Ended => drop(self.unbound.remove(&session)),
            Change::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests;
