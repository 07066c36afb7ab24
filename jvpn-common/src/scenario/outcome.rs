//! What came of it: moments, outages, refusals, and one word for all of it.
//!
//! Owns the measure of an outage and the verdict. Must never judge by anything but what the engines did.

use crate::event::{Event, Record, replay};
use crate::message::Label;
use crate::reason::Reason;
use crate::session::{Input, Policy, Session, State};
use crate::time::{Duration, Instant, nanos};
use std::collections::BTreeMap;

/// Shortest gap between arrivals that a user feels and that is not the network's own jitter.
const OUTAGE_MIN: Duration = Duration::from_millis(60);
/// Inner packets that must be missing for it.
const MISSING_MIN: u32 = 3;
/// Moments that are kept; a run with more says how many it left out.
const MOMENTS_MAX: usize = 2_000;

/// Who or what a moment is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Something began or ended to be wrong.
    Network,
    /// The client saw something nobody has acknowledged yet.
    Client,
    /// A transition of the session.
    Transition,
    /// A wish that was refused.
    Refusal,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// After the start.
    pub at: Duration,
    /// Who or what it is about.
    pub what: What,
    /// In words, for the network and the client.
    pub text: String,
    /// States before and after.
    pub states: Option<(State, State)>,
    /// Why.
    pub reason: Option<Reason>,
    /// More about it.
    pub details: Vec<Reason>,
    /// Transport afterwards.
    pub transport: Option<String>,
    /// Version afterwards.
    pub version: u64,
    /// The bounds that decided it, with both numbers.
    pub bounds: Vec<String>,
}

/// A time without inner packets in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Whether it is client to gateway.
    pub up: bool,
    /// Last arrival before it, after the start.
    pub at: Duration,
    /// To the next one, or to the end.
    pub lasts: Duration,
}

/// The network as inner packets met it, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// How many took so long, in tenths of a millisecond.
    pub delays: BTreeMap<u64, u64>,
    /// How often so many in a row were lost.
    pub lost_in_a_row: BTreeMap<u64, u64>,
}

/// One word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session lived through it and was never DEGRADED.
    Kept,
    /// It lived through it, but was DEGRADED on the way.
    Degraded,
    /// It had no transport when the time was over.
    Unbound,
    /// It ended.
    Ended,
    /// There never was one.
    NeverConnected,
}

/// Everything that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened, in order.
    pub moments: Vec<Moment>,
    /// Moments beyond those that are kept.
    pub left_out: u64,
    /// Times without inner packets, in order.
    pub outages: Vec<Outage>,
    /// Inner packets that were sent and arrived: up, then down.
    pub packets: [(u64, u64); 2],
    /// What became of them on their way.
    pub met: Met,
    /// Datagrams that the tunnel sent by itself (handshakes, messages, probes and their echoes) and their bytes, with headers
    /// of IPv4 and UDP: up, then down.
    pub control: [(u64, u64); 2],
    /// Moves to another transport.
    pub switches: u32,
    /// Most of them within one minute.
    pub switches_per_min: u32,
    /// How often the client gave a path up.
    pub given_up: u32,
    /// Refusals by the bound that refused.
    pub refusals: BTreeMap<Reason, u32>,
    /// State at the end.
    pub state: Option<State>,
    /// Transport at the end.
    pub transport: Option<Label>,
    /// Sessions that were born.
    pub sessions: u32,
    /// In one word.
    pub verdict: Verdict,
    /// Whether an engine did not come to rest: a bug.
    pub stuck: bool,
}

/// Bytes of the headers around a datagram.
const IPV4_AND_UDP: u64 = 28;

/// Collects while it happens.
#[derive(Debug)]
pub(super) struct Seen {
    start: Instant,
    interval: Duration,
    out: Outcome,
    moved: Vec<Instant>,
    /// The last transport.
    on: Option<Label>,
    arrived: [Option<Instant>; 2],
    /// Packets that were lost since the last one that was not: up, then down.
    lost: [u64; 2],
    degraded: bool,
    ended: bool,
}

impl Seen {
    pub(super) fn new(start: Instant, interval: Option<Duration>) -> Self {
        let out = Outcome {
            moments: Vec::new(),
            left_out: 0,
            outages: Vec::new(),
            packets: [(0, 0); 2],
            met: Met::default(),
            control: [(0, 0); 2],
            switches: 0,
            switches_per_min: 0,
            given_up: 0,
            refusals: BTreeMap::new(),
            state: None,
            transport: None,
            sessions: 0,
            verdict: Verdict::NeverConnected,
            stuck: false,
        };
        let interval = interval.unwrap_or_default();
        Self {
            start,
            interval,
            out,
            moved: Vec::new(),
            on: None,
            arrived: [None; 2],
            lost: [0; 2],
            degraded: false,
            ended: false,
        }
    }

    fn push(&mut self, moment: Moment) {
        if self.out.moments.len() < MOMENTS_MAX {
            self.out.moments.push(moment);
        } else {
            self.out.left_out += 1;
        }
    }

    /// Something that is said in words.
    pub(super) fn say(&mut self, now: Instant, what: What, reason: Option<Reason>, text: String) {
        let at = now.since(self.start);
        self.out.given_up += u32::from(what == What::Client);
        let (states, details, transport, bounds) = (None, Vec::new(), None, Vec::new());
        self.push(Moment { at, what, text, states, reason, details, transport, version: 0, bounds });
    }

    /// A record of the gateway; `core` is its session as it is now.
    pub(super) fn record(&mut self, record: &Record, core: Option<&Session>, policy: &Policy) {
        let (what, bounds) = match record.event {
            Event::StateChange | Event::TransportSwitch => (What::Transition, self.transition(record, policy)),
            Event::TransportSwitchDenied | Event::ReattachReject => (What::Refusal, held_back(record, core, policy)),
            Event::SessionCreated => {
                self.out.sessions += 1;
                return;
            }
            _ => return,
        };
        let codes = record.details.get("reasons").and_then(|list| list.as_array()).into_iter().flatten();
        let details: Vec<Reason> = codes.filter_map(|code| code.as_str()?.parse().ok()).collect();
        if let (What::Refusal, Some(reason)) = (what, details.first().copied().or(record.reason)) {
            *self.out.refusals.entry(reason).or_default() += 1;
        }
        self.push(Moment {
            at: record.at.since(self.start),
            what,
            text: String::new(),
            states: record.from.zip(record.to),
            reason: record.reason,
            details,
            transport: record.transport.to.as_ref().map(|to| to.label.to_string()),
            version: record.state_version.0,
            bounds,
        });
    }

    /// Counts a transition; gives the bounds of the row that was taken.
    fn transition(&mut self, record: &Record, policy: &Policy) -> Vec<String> {
        let to = record.transport.to.as_ref();
        // A move that ends a loss leaves nothing: where it was before is what counts.
        let other = to.is_some_and(|to| self.on.is_some_and(|on| on != to.label));
        self.on = to.map(|to| to.label).or(self.on);
        if record.event == Event::TransportSwitch && other {
            self.out.switches += 1;
            self.moved.push(record.at);
            let minute = self.moved.iter().filter(|at| record.at.since(**at) < Duration::from_secs(60)).count();
            self.out.switches_per_min = self.out.switches_per_min.max(u32::try_from(minute).unwrap_or(u32::MAX));
        }
        self.degraded |= record.to == Some(State::Degraded);
        self.ended |= record.to == Some(State::Terminated);
        let asked = replay(record, policy).map(|transition| transition.asked(policy, record.at));
        let taken = asked.ok().and_then(|mut asked| asked.pop());
        taken.map(|row| row.bounds.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    /// An inner packet leaves.
    pub(super) const fn sent(&mut self, up: bool) {
        let [way_up, way_down] = &mut self.out.packets;
        let way = if up { way_up } else { way_down };
        way.0 += 1;
    }

    /// The network takes so long for an inner packet, or loses it.
    pub(super) fn met(&mut self, up: bool, takes: Option<Duration>) {
        let [lost_up, lost_down] = &mut self.lost;
        let lost = if up { lost_up } else { lost_down };
        let Some(takes) = takes else {
            *lost += 1;
            return;
        };
        *self.out.met.delays.entry(nanos(takes) / 100_000).or_default() += 1;
        match core::mem::take(lost) {
            0 => {}
            row => *self.out.met.lost_in_a_row.entry(row).or_default() += 1,
        }
    }

    /// The tunnel says something by itself, in so many bytes.
    pub(super) const fn control(&mut self, up: bool, len: usize) {
        let [way_up, way_down] = &mut self.out.control;
        let way = if up { way_up } else { way_down };
        way.0 += 1;
        way.1 += IPV4_AND_UDP + len as u64;
    }

    /// An inner packet arrives.
    pub(super) fn came(&mut self, up: bool, now: Instant) {
        let [way_up, way_down] = &mut self.out.packets;
        let way = if up { way_up } else { way_down };
        way.1 += 1;
        self.gap(up, now);
        let [arrived_up, arrived_down] = &mut self.arrived;
        *(if up { arrived_up } else { arrived_down }) = Some(now);
    }

    fn gap(&mut self, up: bool, now: Instant) {
        let [arrived_up, arrived_down] = self.arrived;
        let Some(last) = (if up { arrived_up } else { arrived_down }) else { return };
        let lasts = now.since(last);
        if lasts >= OUTAGE_MIN && lasts > self.interval * MISSING_MIN {
            self.out.outages.push(Outage { up, at: last.since(self.start), lasts });
        }
    }

    /// It is over.
    pub(super) fn finish(mut self, now: Instant, core: Option<&Session>, stuck: bool) -> Outcome {
        for up in [true, false] {
            self.gap(up, now);
        }
        self.out.outages.sort_by_key(|outage| (outage.at, !outage.up));
        self.out.state = core.map(Session::state);
        self.out.transport = core.and_then(|core| core.transport().map(|transport| transport.label));
        self.out.stuck = stuck;
        self.out.verdict = match core {
            _ if self.out.sessions == 0 => Verdict::NeverConnected,
            _ if self.ended => Verdict::Ended,
            None => Verdict::Ended,
            Some(core) if !core.is_bound() => Verdict::Unbound,
            Some(_) if self.degraded => Verdict::Degraded,
            Some(_) => Verdict::Kept,
        };
        self.out
    }
}

/// The bounds that held a wish back.
fn held_back(record: &Record, core: Option<&Session>, policy: &Policy) -> Vec<String> {
    let input: Option<Input> = record.input.as_ref().and_then(crate::event::Written::replayed);
    let bounds = core.zip(input).map(|(core, input)| core.held_back(&input, policy, record.at));
    bounds.unwrap_or_default().iter().map(ToString::to_string).collect()
}
