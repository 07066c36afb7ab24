//! Judgement over evidence made by hand: what is right passes, and each single wrong thing fails. Never runs a lab.

use super::*;

fn session(state: &str, version: u64, transport: &str) -> Session {
    Session {
        id: "5e55".into(),
        state: state.into(),
        state_version: version,
        transport: Some(transport.into()),
        addresses: vec!["10.77.0.17".into()],
    }
}

fn transition(version: u64, reason: &str, to: &str) -> Record {
    Record {
        event: "STATE_CHANGE".into(),
        to: Some(to.into()),
        reason: Some(reason.into()),
        state_version: Some(version),
        ..Record::default()
    }
}

fn right() -> (Evidence, Account) {
    let evidence = Evidence {
        act: "silent_death".into(),
        fault_ns: 0,
        done: String::new(),
        session_before: session("ATTACHED", 7, "path-a"),
        session_after: session("ATTACHED", 9, "path-b"),
        addresses_before: vec!["10.77.0.17".into()],
        addresses_after: vec!["10.77.0.17".into()],
        records: vec![transition(8, "RECOVERY_START", "RECOVERING"), transition(9, "REATTACH_ACCEPT", "ATTACHED")],
        tcp: Tcp { alive: true, same_connection: true, advanced_before: true, advanced_after: true },
        noticed_ms: None,
        back: true,
        relay: None,
    };
    (evidence, Account { outage_ms: 90.0, sent: 9_000, lost: 90, ..Account::default() })
}

fn broken(act: &str, evidence: &Evidence, account: &Account) -> usize {
    let act = named(act).expect("an act of this name");
    judge(act, evidence, account).iter().filter(|check| !check.kept).count()
}

#[test]
fn a_good_act_keeps_every_promise() {
    let (evidence, account) = right();
    assert_eq!(broken("silent_death", &evidence, &account), 0);
}

#[test]
fn each_single_wrong_thing_breaks_exactly_one_promise() {
    let wrongs: [fn(&mut Evidence, &mut Account); 12] = [
        |_, account| account.outage_ms = 200.1,
        |evidence, _| evidence.back = false,
        |evidence, _| evidence.session_after.id = "0ther".into(),
        |evidence, _| evidence.session_after.addresses.clear(),
        |evidence, _| evidence.addresses_after = vec!["10.77.0.18".into()],
        |evidence, _| evidence.tcp.alive = false,
        |evidence, _| evidence.tcp.same_connection = false,
        |evidence, _| evidence.tcp.advanced_before = false,
        |evidence, _| evidence.tcp.advanced_after = false,
        |evidence, _| evidence.session_after.state = "VOLATILE".into(),
        |evidence, _| evidence.records[0].reason = Some("CONTROLLER_RESTART".into()),
        |evidence, _| evidence.records[0].state_version = Some(9),
    ];
    for (number, wrong) in wrongs.iter().enumerate() {
        let (mut evidence, mut account) = right();
        wrong(&mut evidence, &mut account);
        assert_eq!(broken("silent_death", &evidence, &account), 1, "wrong thing {number}");
    }
}

#[test]
fn reasons_must_come_in_their_order() {
    let seen = ["RECOVERY_START".to_owned(), "REATTACH_ACCEPT".to_owned()];
    assert!(in_order(&["RECOVERY_START", "REATTACH_ACCEPT"], &seen));
    assert!(!in_order(&["REATTACH_ACCEPT", "RECOVERY_START"], &seen));
    assert!(in_order(&[], &seen));
}

#[test]
fn a_planned_jump_may_lose_nothing_and_repeat_nothing() {
    let (mut evidence, mut account) = right();
    evidence.records = vec![transition(8, "TRANSPORT_SWITCH_OK", "ATTACHED")];
    evidence.session_after.state_version = 8;
    account.lost = 0;
    assert_eq!(broken("planned_jump", &evidence, &account), 0);
    account.lost = 1;
    assert_eq!(broken("planned_jump", &evidence, &account), 1);
    (account.lost, account.duplicated) = (0, 1);
    assert_eq!(broken("planned_jump", &evidence, &account), 1);
    // A flow that never ran also lost nothing.
    account = Account::default();
    assert_eq!(broken("planned_jump", &evidence, &account), 1);
}

#[test]
fn a_dead_gateway_must_be_noticed_in_time_and_cause_no_jump() {
    let (mut evidence, account) = right();
    evidence.records.clear();
    evidence.session_after = evidence.session_before.clone();
    assert_eq!(broken("dead_gateway", &evidence, &account), 1, "never noticed");
    evidence.noticed_ms = Some(1_001.0);
    assert_eq!(broken("dead_gateway", &evidence, &account), 1, "noticed late");
    evidence.noticed_ms = Some(400.0);
    assert_eq!(broken("dead_gateway", &evidence, &account), 0);
    evidence.session_after.transport = Some("path-b".into());
    assert_eq!(broken("dead_gateway", &evidence, &account), 1, "jumped");
}
