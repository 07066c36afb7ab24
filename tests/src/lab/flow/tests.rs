//! Accounting over flows made by hand. Never runs a socket or reads a clock.

use super::*;

const FAULT: u64 = 10_000_000_000;
const MS: u64 = 1_000_000;

/// A perfect flow from 9 s to 15 s, each packet 0.2 ms on its way.
fn perfect() -> Trace {
    let mut trace = Trace::default();
    for sequence in 0..6_000 {
        let at_ns = FAULT - 1_000 * MS + sequence * MS;
        trace.sent.push(Sent { sequence, at_ns });
        trace.arrived.push(Arrived { sequence, sent_ns: at_ns, at_ns: at_ns + MS / 5 });
    }
    trace
}

#[test]
fn a_perfect_flow_has_no_outage_and_loses_nothing() {
    let account = perfect().account(FAULT);
    assert_eq!(account, Account { outage_ms: 0.0, sent: 4_500, ..Account::default() });
}

#[test]
fn an_outage_is_the_longest_gap_less_one_period() {
    let mut trace = perfect();
    trace.arrived.retain(|a| !(FAULT..FAULT + 150 * MS).contains(&a.sent_ns));
    trace.arrived.retain(|a| !(FAULT + 900 * MS..FAULT + 940 * MS).contains(&a.sent_ns));
    let account = trace.account(FAULT);
    assert!((account.outage_ms - 150.0).abs() < 0.001, "{account:?}");
    assert_eq!((account.lost, account.duplicated, account.reordered), (190, 0, 0));
}

#[test]
fn a_flow_that_never_comes_back_is_out_until_the_end_of_the_window() {
    let mut trace = perfect();
    trace.arrived.retain(|a| a.at_ns < FAULT + 100 * MS);
    let account = trace.account(FAULT);
    assert!(account.outage_ms > 4_890.0, "{account:?}");
    trace.arrived.clear();
    assert!((trace.account(FAULT).outage_ms - 4_999.0).abs() < 0.001);
}

#[test]
fn a_gap_before_the_fault_is_not_its_outage() {
    let mut trace = perfect();
    trace.arrived.retain(|a| !(FAULT - 600 * MS..FAULT - 300 * MS).contains(&a.sent_ns));
    let account = trace.account(FAULT);
    assert!(account.outage_ms < 0.001, "{account:?}");
    assert_eq!(account.lost, 0);
}

#[test]
fn packets_sent_just_before_the_end_may_still_be_on_their_way() {
    let mut trace = perfect();
    trace.arrived.retain(|a| a.sent_ns < FAULT + WINDOW_NS - 10 * MS);
    assert_eq!(trace.account(FAULT).lost, 0);
}

#[test]
fn copies_and_swaps_are_told_apart() {
    let mut trace = perfect();
    trace.arrived.swap(2_000, 2_001);
    let copy = trace.arrived[3_000];
    trace.arrived.insert(3_005, copy);
    let account = trace.account(FAULT);
    assert_eq!((account.lost, account.duplicated, account.reordered), (0, 1, 1));
}

#[test]
fn the_worse_direction_counts_and_losses_add_up() {
    let up = Account { outage_ms: 3.0, sent: 10, lost: 1, duplicated: 0, reordered: 2, stall_ms: 1.0 };
    let down = Account { outage_ms: 7.0, sent: 10, lost: 2, duplicated: 1, reordered: 0, stall_ms: 4.0 };
    let joined = up.join(down);
    assert_eq!(joined, Account { outage_ms: 7.0, sent: 20, lost: 3, duplicated: 1, reordered: 2, stall_ms: 4.0 });
}

#[test]
fn a_packet_is_read_back_as_it_was_written_and_a_short_one_is_refused() {
    let mut packet = vec![0u8; 16];
    packet[7] = 5;
    packet[15] = 9;
    assert_eq!(parse(&packet, 11), Some(Arrived { sequence: 5, sent_ns: 9, at_ns: 11 }));
    assert_eq!(parse(&packet[..15], 11), None);
}

#[test]
fn a_sender_that_stood_still_is_told_from_a_path_that_did() {
    let mut silent = perfect();
    silent.arrived.retain(|a| !(FAULT..FAULT + 150 * MS).contains(&a.sent_ns));
    let account = silent.account(FAULT);
    assert_eq!((account.outage_ms.round(), account.stall_ms), (150.0, 0.0));
    let mut stalled = perfect();
    stalled.sent.retain(|sent| !(FAULT + 1_000 * MS..FAULT + 1_030 * MS).contains(&sent.at_ns));
    assert_eq!(stalled.account(FAULT).stall_ms, 30.0);
}
