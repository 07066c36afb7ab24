//! The table without a kernel: every base frame and every edge gets its verdict, its answer is right, and the maps change
//! as the verdict says. What `cargo xtask mutants` changes in the steering function has to be seen here.

use jvpn_common::abi::{ROLE_GATEWAY, ROLE_RELAY};
use jvpn_common::verdict::Class;

use crate::cases::{self, Case};
use crate::edges::{self, Edge};
use crate::host::{judge, prove};
use crate::maps::{HostMaps, State};
use crate::relay;

/// One case; whether it was answered or forwarded.
fn check(case: &Case) -> bool {
    let Case { verdict, v6, state, frame } = case;
    let host = HostMaps::new(state);
    let outcome = judge(&host, frame);
    assert_eq!(outcome.judgement.verdict, *verdict, "IPv6: {v6}, {}", hex::encode(frame));
    prove(frame, &outcome, state)
}

fn check_all(cases: &[Case]) {
    let answers = cases.iter().filter(|case| check(case)).count();
    let answered = |case: &&Case| matches!(case.verdict.class(), Class::Answer | Class::Forward);
    assert_eq!(answers, cases.iter().filter(answered).count());
    assert!(cases.len() > 100 && answers > 10);
}

#[test]
fn every_base_frame_of_a_gateway_ends_as_the_table_says() {
    check_all(&cases::all());
}

#[test]
fn every_base_frame_of_a_relay_ends_as_the_table_says() {
    check_all(&relay::all());
}

#[test]
fn every_edge_ends_as_the_table_says_in_both_programs() {
    for Edge { name, v6, frame, gateway, relay: relayed } in edges::all() {
        println!("IPv{} {name}", if v6 { 6 } else { 4 });
        for (role, verdict, state) in [(ROLE_GATEWAY, gateway, State::world()), (ROLE_RELAY, relayed, relay::world())] {
            assert_eq!(state.config.role, role);
            check(&Case { verdict, v6, state, frame: frame.clone() });
        }
    }
}
