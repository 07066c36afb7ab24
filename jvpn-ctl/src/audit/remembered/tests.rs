//! What a start remembers, compared with reading every line as JSON.
//!
//! Owns no product code. Must never compare the fast reader with itself.

use super::*;
use crate::audit::reader::{Filter, read};
use crate::audit::{Audit, dir_of, tests::small};
use jvpn_common::event::Context;
use jvpn_common::reason::Reason;
use jvpn_common::session::{Birth, Ender, Input, Session};
use jvpn_common::time::Instant;
use std::fs::OpenOptions;
use std::io::Write as _;

const NODE: &str = "gw \"event\":\"POLICY_EVENT\"";

fn context(at: u64) -> Context<'static> {
    Context { ts: "2026-01-02T03:04:05.000000006Z", at: Instant(at), node: NODE, seq: 0, peer: "\"after\":\"till\"" }
}

fn born(id: u8) -> Session {
    let birth = Birth { id: SessionId([id; 16]), peer: [id; 32], owner_epoch: jvpn_common::ids::OwnerEpoch(1) };
    Session::born(birth, &Policy::field(), Instant(7))
}

/// The record of a session's end.
fn end(id: u8, at: u64) -> Record {
    let input = Input::Terminate { by: Ender::Operator };
    let step = born(id).step(&input, &Policy::field(), Instant(at)).expect("it ends");
    Record::transition(&context(at), &step.transitions[0])
}

/// The record of a transition that leaves it live; which one does not matter to who only looks for it.
fn going_on(id: u8, at: u64) -> Record {
    Record { to: Some(State::Attached), reason: Some(Reason::HandshakeOk), ..end(id, at) }
}

/// A record that changes nothing.
fn refused(id: u8, at: u64) -> Record {
    Record::about(&context(at), &born(id), Event::ReattachReject, Some(Reason::RateLimited))
}

/// Every line as JSON, the newest of each session kept: what the fast reader must come to.
fn slow(
    dir: &Path,
    is_kept: impl Fn(&SessionId) -> bool,
) -> (BTreeMap<PolicyVersion, Policy>, BTreeMap<SessionId, Record>) {
    let (mut policies, mut last) = (BTreeMap::new(), BTreeMap::new());
    read(dir, &Filter::default(), |line, _| {
        let Some(record) = whole(line) else { return ControlFlow::Continue(()) };
        if let Some(policy) = policy(&record) {
            policies.insert(policy.version, policy);
        } else if let (Some(id), true) = (record.session_id, record.after.is_some()) {
            last.insert(id, record);
        }
        ControlFlow::Continue(())
    })
    .expect("reads");
    last.retain(|id, record| record.to != Some(State::Terminated) || is_kept(id));
    (policies, last)
}

fn fast(
    dir: &Path,
    is_kept: impl Fn(&SessionId) -> bool,
) -> (BTreeMap<PolicyVersion, Policy>, BTreeMap<SessionId, Record>) {
    let remembered = remembered(dir, is_kept).expect("reads");
    let mut last = BTreeMap::new();
    remembered.each(|id, record| assert_eq!(last.insert(id, record.clone()), None, "once")).expect("reads");
    (remembered.policies, last)
}

#[test]
fn the_newest_transition_of_each_session_is_found_over_segments_and_among_records_that_change_nothing() {
    let state = tempfile::tempdir().expect("a directory");
    let (audit, _) = Audit::open_with(state.path(), small()).expect("opens");
    let policies = [Policy::field(), Policy { version: PolicyVersion(9), ..Policy::field() }];
    let mut records: Vec<Record> = policies.iter().map(|policy| Record::policy(&context(1), policy)).collect();
    for at in 10..14 {
        records.extend([1, 2, 3].map(|id| going_on(id, at)));
        records.extend([refused(1, at), refused(4, at)]);
    }
    records.extend([end(2, 20), end(3, 21), refused(3, 22)]);
    for record in records {
        audit.append(record).expect("written");
    }
    let dir = dir_of(state.path());
    let kept = |id: &SessionId| *id == SessionId([3; 16]);
    let found = fast(&dir, kept);
    assert_eq!(found, slow(&dir, kept));
    let times: Vec<_> = found.1.iter().map(|(id, record)| (id.0[0], record.at.0, record.to)).collect();
    assert_eq!(times, [(1, 13, Some(State::Attached)), (3, 21, Some(State::Terminated))], "2 is over, 4 never moved");
    assert_eq!(found.0.len(), 2);
    assert_eq!(fast(&dir, |_| true), slow(&dir, |_| true));
}

#[test]
fn where_the_last_line_of_a_session_is_none_of_this_version_the_one_before_it_is_believed() {
    let state = tempfile::tempdir().expect("a directory");
    let dir = dir_of(state.path());
    {
        let (audit, _) = Audit::open(state.path()).expect("opens");
        audit.append_all(vec![going_on(1, 10), going_on(1, 11)]).expect("written");
    }
    let path = crate::audit::segment::list(&dir).expect("lists").pop().expect("one");
    let lines = std::fs::read_to_string(&path).expect("reads");
    let newer = lines.lines().last().expect("a line").replacen("{\"ts\"", "{\"later\":1,\"ts\"", 1);
    let mut file = OpenOptions::new().append(true).open(&path).expect("opens");
    writeln!(file, "{newer}").and_then(|()| write!(file, "{newer}")).expect("written");
    let found = fast(&dir, |_| false);
    assert_eq!(found, slow(&dir, |_| false));
    assert_eq!(found.1[&SessionId([1; 16])].at, Instant(11));
}

#[test]
fn a_line_of_two_halves_ends_no_session() {
    let state = tempfile::tempdir().expect("a directory");
    let dir = dir_of(state.path());
    {
        let (audit, _) = Audit::open(state.path()).expect("opens");
        audit.append_all(vec![going_on(1, 10), going_on(1, 11), end(2, 12)]).expect("written");
    }
    let path = crate::audit::segment::list(&dir).expect("lists").pop().expect("one");
    let lines = std::fs::read_to_string(&path).expect("reads");
    let (first, rest) = lines.split_once('\n').expect("lines");
    let (second, third) = rest.split_once('\n').expect("lines");
    let half = second.split_once("\"peer\"").expect("a peer").0;
    std::fs::write(&path, format!("{first}\n{half}{third}")).expect("written");
    assert_eq!(transition(&format!("{half}{third}")), Some((SessionId([1; 16]), true)), "as it looks");
    let found = fast(&dir, |_| false);
    assert_eq!(found.1[&SessionId([1; 16])].at, Instant(10));
    assert_eq!(found.1.len(), 1);
}
