//! Owns what the record of a run says: times of each phase, ends by cause, and what would void the run. Never looks at
//! the lab.

use std::collections::BTreeMap;

use jvpn_common::event::{Event, Record};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::session::State;
use serde::Serialize;

/// What a record says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Evidence {
    /// From the first sign to the decision, to the proof, to the store; ms, of every move that has them.
    pub detect_ms: Vec<f64>,
    pub prove_ms: Vec<f64>,
    pub switch_ms: Vec<f64>,
    pub transitions: u64,
    /// How often a path was given up for lost.
    pub given_up: u64,
    /// Moves to another transport, and most of them in any minute.
    pub switches: u64,
    pub switches_per_min: u64,
    /// Refusals since the last move was too recent.
    pub cooldown_hits: u64,
    /// Refusals since there were too many requests or switches, and how often that was called an abuse.
    pub rate_limited: u64,
    pub abuses: u64,
    /// Ended sessions by reason.
    pub terminations: BTreeMap<String, u64>,
    /// Reason of the first end, and how long after the loss of the transport, s.
    pub first_end: Option<(String, f64)>,
    /// Why nothing of the run counts.
    pub voids: Vec<String>,
}

impl Evidence {
    /// Of the records of some sessions, in the order in which they were written.
    pub fn of(records: &[Record]) -> Evidence {
        let mut evidence = Evidence { voids: voids(records), ..Evidence::default() };
        let (mut lost, mut moved): (BTreeMap<SessionId, u64>, Vec<u64>) = (BTreeMap::new(), Vec::new());
        for record in records {
            let says = |reason: Reason| {
                let more = record.details.get("reasons").and_then(|all| all.as_array());
                record.reason == Some(reason) || more.is_some_and(|all| all.iter().any(|one| one == reason.name()))
            };
            if !is_transition(record) {
                evidence.cooldown_hits += u64::from(says(Reason::CooldownActive));
                evidence.rate_limited += u64::from(says(Reason::RateLimited) || says(Reason::SwitchRateLimited));
                evidence.abuses += u64::from(says(Reason::SecAbuseControlPlane));
                continue;
            }
            evidence.transitions += 1;
            let ms = |key: &str| record.details.get(key).and_then(serde_json::Value::as_f64).map(|us| us / 1e3);
            if record.transport.to.is_some() && ms("commit_us").is_some() {
                evidence.detect_ms.extend(ms("detect_us"));
                evidence.prove_ms.extend(ms("prove_us"));
                evidence.switch_ms.extend(ms("commit_us"));
            }
            if record.event == Event::TransportSwitch || says(Reason::ReattachAccept) {
                moved.push(record.at.0);
            }
            let Some(session) = record.session_id else { continue };
            match record.to {
                Some(State::Recovering) => {
                    evidence.given_up += 1;
                    lost.entry(session).or_insert(record.at.0);
                }
                Some(State::Terminated) => {
                    let reason = record.reason.map_or_else(|| "none".into(), |reason| reason.name().to_owned());
                    let after = lost.get(&session).map_or(0.0, |since| (record.at.0 - since) as f64 / 1e9);
                    evidence.first_end.get_or_insert((reason.clone(), after));
                    *evidence.terminations.entry(reason).or_default() += 1;
                }
                Some(State::Attached) => drop(lost.remove(&session)),
                _ => {}
            }
        }
        evidence.switches = moved.len() as u64;
        let in_minute =
            |from: &u64| moved.iter().filter(|at| (*from..from + 60_000_000_000).contains(at)).count() as u64;
        evidence.switches_per_min = moved.iter().map(in_minute).max().unwrap_or(0);
        evidence
    }
}

pub fn is_transition(record: &Record) -> bool {
    matches!(record.event, Event::StateChange | Event::TransportSwitch)
}

/// What must never be: a session bound twice, one with two owners, one that began anew without a word.
fn voids(records: &[Record]) -> Vec<String> {
    let mut voids = Vec::new();
    let mut last: BTreeMap<SessionId, &Record> = BTreeMap::new();
    let mut alive: BTreeMap<&str, SessionId> = BTreeMap::new();
    for record in records.iter().filter(|record| is_transition(record)) {
        let Some(session) = record.session_id else { continue };
        if let Some(before) = last.insert(session, record) {
            let (version, previous) = (record.state_version.0, before.state_version.0);
            if version != previous + 1 {
                voids.push(format!("ambiguous: {session} goes from version {previous} to {version}"));
            }
            if before.node != record.node {
                voids.push(format!("two owners: {session} is {}'s and {}'s", before.node, record.node));
            }
            let place = |of: &Option<jvpn_common::event::TransportText>| of.as_ref().map(|at| (at.k, at.remote));
            if let (Some(from), Some(to)) = (place(&record.transport.from), place(&before.transport.to))
                && from != to
            {
                voids.push(format!("dual binding: {session} leaves {from:?} and was bound to {to:?}"));
            }
        }
        match alive.get(record.peer.as_str()) {
            Some(other) if *other != session => {
                voids.push(format!("silent reset: {} has {session} while {other} has not ended", record.peer));
            }
            _ => {}
        }
        if record.to == Some(State::Terminated) {
            alive.remove(record.peer.as_str());
        } else {
            alive.insert(&record.peer, session);
        }
    }
    voids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::records::Records;

    /// Records of two sessions of one peer after each other, each moved seven times and ended.
    fn records() -> Vec<Record> {
        let made = Records::new();
        let mut records: Vec<Record> = (0..16).map(|number| made.record(number)).collect();
        let mut at = None;
        for record in &mut records {
            record.transport.from = at.take();
            at.clone_from(&record.transport.to);
            if record.to == Some(State::Terminated) {
                at = None;
            }
            if record.event == Event::TransportSwitch {
                record.from = Some(State::Attached);
            }
        }
        records
    }

    #[test]
    fn phases_switches_and_ends_are_counted() {
        let seen = Evidence::of(&records());
        assert_eq!(seen.voids, Vec::<String>::new());
        assert_eq!((seen.transitions, seen.switches, seen.switches_per_min), (16, 14, 14));
        assert_eq!((seen.detect_ms[0], seen.prove_ms[0], seen.switch_ms[0]), (31.25, 44.1, 0.212));
        assert_eq!(seen.terminations, [("OPERATOR_TERMINATION".to_owned(), 2)].into());
    }

    #[test]
    fn a_session_that_was_lost_ends_so_long_after_it() {
        let mut records = records();
        records.truncate(8);
        records[6].to = Some(State::Recovering);
        records[7].at.0 = records[6].at.0 + 12_000_000_000;
        let (reason, after) = Evidence::of(&records).first_end.unwrap();
        assert_eq!((reason.as_str(), after), ("OPERATOR_TERMINATION", 12.0));
    }

    #[test]
    fn whatever_may_never_be_voids_a_run() {
        let void = |spoil: &dyn Fn(&mut Vec<Record>)| {
            let mut records = records();
            spoil(&mut records);
            Evidence::of(&records).voids.join("; ")
        };
        assert!(void(&|all| drop(all.remove(3))).contains("ambiguous"));
        assert!(void(&|all| all[3].node = "gw-2".into()).contains("two owners"));
        assert!(void(&|all| drop(all.remove(7))).contains("silent reset"));
        let elsewhere = void(&|all| {
            if let Some(from) = &mut all[3].transport.from {
                from.remote.set_port(9);
            }
        });
        assert!(elsewhere.contains("dual binding"), "{elsewhere}");
    }
}
