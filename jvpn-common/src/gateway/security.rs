//! What a security team wants to see, and what was refused: said once, counted, never a flood.
//!
//! Owns the rule that a session has at most one record of a kind in [`SECURITY_EVERY`], with the number of
//! causes since the last one, which refusals are such a kind, and the rule by which two addresses are said to compete. Must
//! never change a session: an event is a record, whoever reads it decides.

use super::Engine;
use super::calendar::Due;
use super::command::Command;
use super::table::Live;
use super::view::Drop;
use crate::event::{Event, Record};
use crate::ids::{SessionId, Slot};
use crate::reason::Reason;
use crate::session::flap::Meter;
use crate::session::transition::{On, TABLE};
use crate::session::{Input, Path, Refusal, RefusalKind};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// How often a kind of security event or refusal of the same session is recorded. Ten seconds keep a flood from
/// filling the record and still show when it began and how long it lasted.
const SECURITY_EVERY: Duration = Duration::from_secs(10);

/// Addresses a session left by REBIND that are remembered. A NAT that forgets gives new ones; whoever
/// competes comes back to one of the last.
const LEFT_MAX: usize = 4;
/// How long. The window of the abuse limit is the same minute.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Returns to such an address within a minute that are a competition. A NAT that changes its mind and back is
/// one or two; half a minute of alternating sources is more.
const RETURNS: u32 = 3;

/// What was recorded of a kind last, and how much came since.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    at: Instant,
    waiting: u64,
}

/// What happened: an event, its code, and what exactly where the code does not say it; empty where it does.
type Kind = (Event, Reason, &'static str);

/// The security events and refusals of a session, by kind. There are as many as the source code names.
#[derive(Debug, Default)]
pub(super) struct Suspicions(BTreeMap<Kind, Suspicion>);

impl Suspicions {
    /// Counts causes; gives how many to record now.
    fn count(&mut self, kind: Kind, causes: u64, now: Instant) -> Option<u64> {
        let known = self.0.get(&kind).copied();
        let (at, waiting) = known.map_or((now, 0), |known| (known.at, known.waiting));
        let all = waiting.saturating_add(causes);
        let due = known.is_none() || at + SECURITY_EVERY <= now;
        let next = if due { Suspicion { at: now, waiting: 0 } } else { Suspicion { at, waiting: all } };
        self.0.insert(kind, next);
        due.then_some(all)
    }

    /// The kinds whose rest is due.
    fn due(&self, now: Instant) -> Vec<Kind> {
        let due = |suspicion: &Suspicion| suspicion.waiting > 0 && suspicion.at + SECURITY_EVERY <= now;
        self.0.iter().filter(|(_, suspicion)| due(suspicion)).map(|(&kind, _)| kind).collect()
    }

    /// When the next rest is due.
    fn next(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|suspicion| suspicion.waiting > 0);
        waiting.map(|suspicion| suspicion.at + SECURITY_EVERY).min()
    }
}

/// Addresses a slot's session left by REBIND, and how often it came back to one.
#[derive(Debug, Default)]
pub(super) struct Roam {
    left: VecDeque<(Path, Instant)>,
    returns: Meter,
}

impl Roam {
    /// The session went from one address to another under one locator; whether two compete for it.
    fn rebound(&mut self, from: Path, to: Path, now: Instant) -> bool {
        self.left.retain(|&(path, at)| path != from && now.since(at) < LEFT_FOR);
        if self.left.len() == LEFT_MAX {
            self.left.pop_front();
        }
        let back = self.left.iter().any(|&(path, _)| path == to);
        self.left.push_back((from, now));
        if back {
            self.returns.add(now);
        }
        back && self.returns.count(now) >= RETURNS
    }
}

impl Engine {
    /// Something suspicious about a session, once.
    pub(super) fn security(&mut self, session: SessionId, reason: Reason) {
        self.suspicious(session, (reason, ""), 1);
    }

    /// So many causes of a security event of a session.
    pub(super) fn suspicious(&mut self, id: SessionId, (reason, what): (Reason, &'static str), causes: u64) {
        self.noticed(id, (Event::SecurityEvent, reason, what), causes, None);
    }

    /// An input of a session that was refused: counted, and on its record. Not on the record is what was answered before, what
    /// waits for a timer, and a report in a place that takes reports but says nothing: each comes again by itself.
    pub(super) fn refused(&mut self, id: SessionId, input: &Input, refusal: &Refusal) {
        self.drop(Drop::Refused);
        let Some(live) = self.table.sessions.get(&id) else { return };
        let again = match refusal.kind {
            RefusalKind::Repeat | RefusalKind::TimerDue => true,
            RefusalKind::NoOp => live.core.lists(input),
            RefusalKind::Invalid => false,
        };
        if !again {
            let written = Record::refused(&self.context(&live.peer), &live.core, input, refusal);
            self.noticed(id, (Event::ReattachReject, refusal.reason, input.name()), 1, Some(written));
        }
    }

    /// A request that was refused before it was an input: counted, and on the record of its session.
    pub(super) fn turned_away(&mut self, id: SessionId, reason: Reason, what: &'static str) {
        self.drop(Drop::Refused);
        self.noticed(id, (Event::ReattachReject, reason, what), 1, None);
    }

    /// So many causes of a kind, and the record of the last one if it says more than its kind.
    fn noticed(&mut self, id: SessionId, kind: Kind, causes: u64, written: Option<Record>) {
        let now = self.now;
        let Some(live) = self.table.sessions.get_mut(&id).filter(|_| causes > 0) else { return };
        match (live.suspicions.count(kind, causes, now), written) {
            (Some(all), Some(record)) => {
                self.commands.push_back(Command::Record(Box::new(record.with("count", all.into()))));
            }
            (Some(all), None) => self.record_suspicion(id, kind, all),
            (None, _) => {}
        }
        self.arm_suspicions(id);
    }

    /// The rest of a flood that ended.
    pub(super) fn on_suspicions(&mut self, id: SessionId) {
        let due = self.table.sessions.get(&id).map(|live| live.suspicions.due(self.now)).unwrap_or_default();
        for kind in due {
            let now = self.now;
            let live = self.table.sessions.get_mut(&id);
            if let Some(all) = live.and_then(|live| live.suspicions.count(kind, 0, now)) {
                self.record_suspicion(id, kind, all);
            }
        }
        self.arm_suspicions(id);
    }

    fn arm_suspicions(&mut self, id: SessionId) {
        let next = self.table.sessions.get(&id).and_then(|live| live.suspicions.next());
        self.alarms.set(Due::Suspicions(id), next);
    }

    /// The session is over: what was not recorded yet is now.
    pub(super) fn last_suspicions(&mut self, id: SessionId, live: &Live) {
        self.alarms.set(Due::Suspicions(id), None);
        let rest = live.suspicions.0.iter().filter(|(_, suspicion)| suspicion.waiting > 0);
        let records: Vec<Record> =
            rest.map(|(&kind, suspicion)| self.suspicion(live, kind, suspicion.waiting)).collect();
        self.commands.extend(records.into_iter().map(|record| Command::Record(Box::new(record))));
    }

    fn record_suspicion(&mut self, id: SessionId, kind: Kind, causes: u64) {
        let Some(live) = self.table.sessions.get(&id) else { return };
        let record = self.suspicion(live, kind, causes);
        self.commands.push_back(Command::Record(Box::new(record)));
    }

    fn suspicion(&self, live: &Live, (event, reason, what): Kind, causes: u64) -> Record {
        let record =
            Record::about(&self.context(&live.peer), &live.core, event, Some(reason)).with("count", causes.into());
        if what.is_empty() { record } else { record.with("what", what.into()) }
    }

    /// A session that was bound elsewhere moved by these rows: a REBIND may be one of two that compete.
    pub(super) fn roamed(&mut self, id: SessionId, slot: Slot, rows: &[usize], from: Path, to: Path) {
        let rebind = rows.iter().any(|&row| TABLE.get(row).is_some_and(|row| row.on == On::Rebind));
        let now = self.now;
        let Some(attachment) = self.table.attachments.get_mut(&slot).filter(|_| rebind && from != to) else { return };
        if attachment.roam.get_or_insert_default().rebound(from, to, now) {
            self.security(id, Reason::SecHostileRoam);
        }
    }
}
