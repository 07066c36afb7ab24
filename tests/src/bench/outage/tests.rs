//! Trials made by hand: what counts, what is left out, and what a must says of it. Never runs a lab.

use anyhow::Context;

use super::play::{CAPPED_MAX, DISCARDS_MAX, played};
use super::stage::Outcome;
use super::*;
use crate::bench::document::Verdict;

fn trial(outage_ms: f64, stall_ms: f64) -> Trial {
    Trial { outage_ms, stall_ms, sent: 1_000, ..Trial::default() }
}

fn of(name: &str) -> Cell {
    *CELLS.iter().find(|cell| cell.name() == name).unwrap()
}

fn done(cell: &Cell, trials: Vec<Trial>) -> Finished {
    Finished { trials, ..Finished::begun(cell, OURS, "v", "p") }
}

fn play(wanted: u32, mut outcomes: Vec<Outcome>) -> Result<Finished> {
    outcomes.reverse();
    let begun = Finished::begun(&CELLS[0], OURS, "v", "p");
    played(begun, wanted, true, |_| outcomes.pop().context("more trials than there were"))
}

#[test]
fn trials_that_could_not_begin_are_counted_and_replaced() {
    let outcomes = vec![Outcome::Seen(trial(60.0, 1.0)), Outcome::Discarded, Outcome::Seen(trial(61.0, 1.0))];
    let done = play(2, outcomes).unwrap();
    assert_eq!((done.trials.len(), done.discarded, done.disturbed.len()), (2, 1, 0));
    assert!(remarks(&done)[0].contains("1 trials discarded"), "{:?}", remarks(&done));
    let never = (0..DISCARDS_MAX).map(|_| Outcome::Discarded).collect();
    assert!(play(1, never).is_err(), "a cell in which nothing can begin has no figure");
}

#[test]
fn a_trial_in_which_the_machine_stood_still_is_left_out_and_told_of_unless_all_are() {
    let outcomes = vec![Outcome::Seen(trial(90.0, 40.0)), Outcome::Seen(trial(60.0, 2.0))];
    let one = play(1, outcomes).unwrap();
    assert_eq!((one.trials[0].outage_ms, one.disturbed[0].outage_ms, one.disturbed_kept), (60.0, 90.0, 0));
    assert!(remarks(&one)[0].contains("longest outage among them 90.0 ms"), "{:?}", remarks(&one));
    let long = play(1, vec![Outcome::Seen(trial(29_940.0, 104.0))]).unwrap();
    assert_eq!((long.trials.len(), long.disturbed.len()), (1, 0), "a tenth of a second in thirty");
    let noisy = play(1, (0..4).map(|_| Outcome::Seen(trial(90.0, 40.0))).collect()).unwrap();
    assert_eq!((noisy.trials.len(), noisy.disturbed.len(), noisy.disturbed_kept), (1, 3, 1));
}

#[test]
fn a_fault_that_was_not_in_force_leaves_no_figure_and_no_pass() {
    let outcome = played(Finished::begun(&CELLS[0], OURS, "v", "p"), 3, true, |_| anyhow::bail!("PathA still answers"));
    assert!(outcome.is_err());
    let nothing = metrics(&CELLS[0], None, &[]);
    assert_eq!(nothing[0].ours, None);
    assert_eq!(nothing[0].verdicts["limit"], Verdict::NotMeasured);
}

#[test]
fn a_silent_death_is_judged_by_its_99th_percentile_against_100_ms() {
    let cell = of("silent@base");
    let mut trials = vec![trial(60.0, 1.0); 30];
    let kept = &metrics(&cell, Some(&done(&cell, trials.clone())), &[])[0];
    assert_eq!((kept.verdicts["limit"], kept.must["limit"], kept.goal["limit"]), (Verdict::Holds, 1.0, 0.6));
    trials[3].outage_ms = 180.0;
    let late = &metrics(&cell, Some(&done(&cell, trials.clone())), &[])[0];
    assert_eq!(late.verdicts["limit"], Verdict::Fails);
    trials.truncate(10);
    assert_eq!(metrics(&cell, Some(&done(&cell, trials)), &[])[0].verdicts["limit"], Verdict::TooFewRounds);
}

#[test]
fn one_lost_packet_breaks_a_planned_jump_and_a_lossy_network_excuses_it() {
    let lossy = of("planned_jump@loss_2");
    let cell = of("planned_jump@base");
    let mut trials = vec![trial(4.0, 1.0); 30];
    let verdicts = |cell: &Cell, trials: &[Trial]| -> Vec<Option<Verdict>> {
        let all = metrics(cell, Some(&done(cell, trials.to_vec())), &[]);
        all.iter().map(|metric| metric.verdicts.get("limit").copied()).collect()
    };
    assert_eq!(verdicts(&cell, &trials), [None, Some(Verdict::Holds), Some(Verdict::Holds)]);
    trials[9].lost = 1;
    assert_eq!(verdicts(&cell, &trials), [None, Some(Verdict::Fails), Some(Verdict::Holds)]);
    assert_eq!(verdicts(&lossy, &trials), [None, None, None]);
}

#[test]
fn what_the_lab_itself_dropped_is_told_and_still_lost() {
    let cell = of("planned_jump_90k@apart_60");
    let mut trials = vec![trial(0.0, 1.0); 30];
    assert_eq!(remarks(&done(&cell, trials.clone())), [""; 0]);
    for (number, count) in [(4, 40), (9, 6)] {
        (trials[number].lost, trials[number].dropped_by_lab) = (count, count);
    }
    let done = done(&cell, trials);
    assert!(remarks(&done)[0].contains("dropped 46 packets in 2 trials"), "{:?}", remarks(&done));
    let lost = &metrics(&cell, Some(&done), &[])[0];
    assert_eq!((lost.ours, lost.verdicts["limit"]), (Some(0.0), Verdict::Fails));
}

#[test]
fn where_nothing_comes_back_and_nothing_is_promised_a_cell_is_left_and_says_so() {
    let never = || Ok(Outcome::Seen(Trial { capped: true, ..trial(29_990.0, 1.0) }));
    let begun = || Finished::begun(&CELLS[0], OURS, "v", "p");
    let left = played(begun(), 30, false, |_| never()).unwrap();
    assert!(left.given_up && left.trials.len() == CAPPED_MAX, "{}", left.trials.len());
    assert!(remarks(&left).iter().any(|line| line.ends_with("left after these")));
    assert!(!played(begun(), 5, true, |_| never()).unwrap().given_up);
    let directory = tempfile::tempdir().unwrap();
    left.write(directory.path()).unwrap();
    assert_eq!(Finished::taken_over(Some(directory.path()), &begun(), 30), Some(left), "it is not tried again");
}

#[test]
fn what_never_came_back_is_said_to_be_longer() {
    let cell = of("silent@base");
    let never = Trial { capped: true, ..trial(29_990.0, 1.0) };
    let rival = Finished { contender: "gotatun".into(), ..done(&cell, vec![never; 2]) };
    assert_eq!(remarks(&rival), ["silent@base, gotatun: > 30 s in 2 of 2 trials"]);
    let both = &metrics(&cell, Some(&done(&cell, vec![trial(60.0, 1.0); 30])), &[&rival])[0];
    assert_eq!(both.rivals["gotatun"], Some(29_990.0));
}

#[test]
fn only_known_cells_can_be_asked_for() {
    let only = |names: &[&str], quick| {
        let only = names.iter().map(|&name| name.to_owned()).collect();
        chosen(&Options { only, quick, ..Options::default() })
    };
    assert_eq!(only(&["silent@base"], false).unwrap(), [of("silent@base")]);
    assert!(only(&["silent"], false).is_err_and(|error| error.to_string().contains("silent@base")));
    assert!(only(&["silent@rtt_30"], true).is_err(), "not in a quick run");
    assert_eq!(only(&[], true).unwrap().len(), 4);
}

#[test]
fn who_is_not_installed_is_named_and_what_takes_rivals_seconds_is_said() {
    let options = Options::default();
    let bench = Bench { options: &options, rivals: Vec::new(), played: Played::default() };
    let told = bench.contenders();
    let names: Vec<&str> = told.iter().map(|contender| contender.name.as_str()).collect();
    assert_eq!(names, ["ours", "gotatun", "wireguard-go", "openvpn", "nebula", "limit"]);
    assert!(told[1..5].iter().all(|rival| rival.what.contains("not installed")), "{told:?}");
    assert_eq!(together(), ["silent@base", "nat_idle@base", "gateway_kill@base"]);
}
