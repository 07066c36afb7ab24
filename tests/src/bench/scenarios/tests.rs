//! Judgement over results made by hand: what is right passes, each wrong thing breaks one promise. Never runs a lab.

use super::*;
use crate::bench::records::Records;

fn broken(name: &str, seen: &Seen, evidence: &Evidence) -> Vec<String> {
    let plan = Plan::shipped(name).or_else(|_| Plan::healthy(name)).unwrap();
    let checks = judged(&plan, seen, evidence).unwrap();
    checks.into_iter().filter(|one| !one.kept).map(|one| one.promise).collect()
}

fn seen() -> Seen {
    Seen { outages_ms: vec![60.0; 10], records: vec![Records::new().record(0)], ..Seen::default() }
}

#[test]
fn a_recovery_that_took_too_long_an_end_and_a_void_each_break_their_promise() {
    let good = Evidence::default();
    assert_eq!(broken("hard_death", &seen(), &good), Vec::<String>::new());
    let slow = Seen { outages_ms: vec![60.0, 60.0, 900.0], ..seen() };
    assert_eq!(broken("hard_death", &slow, &good), ["recovery p99 below 500ms"]);
    let ended = Evidence { terminations: [("TTL_SESSION_EXPIRED".to_owned(), 1)].into(), ..good.clone() };
    assert_eq!(broken("hard_death", &seen(), &ended), ["no session ends"]);
    let void = Evidence { voids: vec!["dual binding".into()], ..good };
    assert_eq!(broken("hard_death", &seen(), &void), ["no dual binding, ambiguous owner or silent reset"]);
    assert_eq!(broken("hard_death", &Seen::default(), &Evidence::default()).len(), 2, "nothing was seen");
}

#[test]
fn an_end_must_have_the_right_cause_and_come_on_time() {
    let end = |reason: &str, after| Evidence { first_end: Some((reason.into(), after)), ..Evidence::default() };
    let ttl = "TTL_TRANSPORT_LOSS_EXPIRED";
    assert!(broken("loss_ttl", &seen(), &end(ttl, 12.9)).is_empty());
    for wrong in [end(ttl, 13.1), end(ttl, 10.9), end("TTL_SESSION_EXPIRED", 12.0), Evidence::default()] {
        assert_eq!(broken("loss_ttl", &seen(), &wrong).len(), 1, "{wrong:?}");
    }
}

#[test]
fn a_copy_that_was_not_refused_and_a_packet_that_came_twice_are_broken_promises() {
    let flood = Seen { copies: 1_000, refused: 995, ..seen() };
    assert!(broken("replay_flood", &flood, &Evidence::default()).is_empty());
    let passed = Seen { refused: 900, ..flood.clone() };
    let twice = Seen { duplicated: 1, ..flood };
    assert_eq!(broken("replay_flood", &passed, &Evidence::default()).len(), 1);
    assert_eq!(broken("replay_flood", &twice, &Evidence::default()).len(), 1);
    assert_eq!(broken("replay_flood", &seen(), &Evidence::default()).len(), 1, "no copy was sent");
}

#[test]
fn a_healthy_path_that_is_given_up_and_a_network_that_was_not_so_bad_are_broken_promises() {
    let slow = |longest| Seen { network: Network { delay_ms: vec![10.0, longest], ..Network::default() }, ..seen() };
    assert!(broken("healthy_pauses", &slow(310.0), &Evidence::default()).is_empty());
    assert_eq!(broken("healthy_pauses", &slow(290.0), &Evidence::default()), ["a packet takes 300ms or longer"]);
    let left = Evidence { given_up: 1, ..Evidence::default() };
    assert_eq!(broken("healthy_pauses", &slow(310.0), &left), ["at most 0 paths given up for lost"]);
}

#[test]
fn what_came_before_and_after_a_run_is_not_of_it() {
    let made = Records::new();
    let records: Vec<_> = (0..8).map(|number| made.record(number)).collect();
    let run = Seen { span_ns: (records[2].at.0, records[7].at.0), ..seen() };
    let during = Evidence::of(&run.during(&records));
    assert_eq!((during.transitions, during.terminations.len()), (5, 0), "the last one, its end, came afterwards");
}

#[test]
fn a_scenario_that_could_not_be_played_has_not_passed() {
    let metric = verdict("hard_death", None, true);
    assert_eq!((metric.ours, metric.verdicts["limit"]), (None, Verdict::NotMeasured));
    let one = [check("a", true, ""), check("b", false, "")];
    assert_eq!(verdict("hard_death", Some(&one), false).verdicts["limit"], Verdict::Fails);
    assert_eq!(verdict("hard_death", Some(&one), true).verdicts["limit"], Verdict::TooFewRounds, "nothing is decided");
    assert_eq!(verdict("hard_death", Some(&one[..1]), false).verdicts["limit"], Verdict::Holds);
}
