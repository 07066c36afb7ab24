//! The demo with the real product: every promise kept, a broken one noticed, nothing left. Needs root, like the lab,
//! and a built jvpn-ctl. Never judges outages itself.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use jvpn_tests::size;
use serde_json::Value;

const LAB: &str = env!("CARGO_BIN_EXE_jvpn-lab");

/// Runs the lab's command; `broken` names the act that must fail, if any.
fn lab(arguments: &[&str], broken: Option<&str>) -> Output {
    let mut command = Command::new(LAB);
    command.args(arguments).env_remove("JVPN_BREAK");
    if let Some(act) = broken {
        command.env("JVPN_BREAK", act);
    }
    command.output().expect("jvpn-lab runs")
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn pings_pass_inside_the_tunnel_both_ways_in_both_families() {
    for outside in [&["ping"][..], &["ping", "--outside-v6"], &["ping", "--xdp", "off"], &["ping", "--xdp", "generic"]]
    {
        let output = lab(outside, None);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{outside:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(said.lines().filter(|line| line.ends_with(" ms")).count(), 12, "{said}");
    }
}

#[test]
fn every_act_keeps_its_promise_and_is_recomputed_from_its_raw_files() {
    for _ in 0..size::of(1, 10) {
        play_and_recompute();
    }
}

fn play_and_recompute() {
    let out = tempfile::tempdir().expect("temporary directory");
    let output = lab(&["demo", "--json", "--out", text(out.path())], None);
    let document = document(&output);
    let acts = document["acts"].as_array().expect("acts");
    let names: Vec<&str> = acts.iter().filter_map(|act| act["name"].as_str()).collect();
    assert_eq!(names, ["silent_death", "nat_rebind", "planned_jump", "restart", "dead_gateway", "relay"]);
    for act in acts {
        assert_eq!(act["pass"], Value::Bool(true), "{act:#}");
    }
    assert_eq!(document["pass"], Value::Bool(true), "{document:#}");
    assert!(output.status.success());
    assert!(lab(&["recompute", text(out.path())], None).status.success());
}

#[test]
fn acts_keep_their_promises_with_xdp_detached() {
    // Not dead_gateway, which promises less without the kernel program; see the next test.
    let acts = ["silent_death", "nat_rebind", "planned_jump", "restart"];
    let arguments = ["demo", "--json", "--xdp", "off"].into_iter().chain(acts.iter().flat_map(|act| ["--act", *act]));
    let output = lab(&arguments.collect::<Vec<_>>(), None);
    let document = document(&output);
    assert_eq!(document["pass"], Value::Bool(true), "{document:#}");
    assert!(output.status.success());
}

/// Who answers for a frozen process is the kernel program. Without it the client cannot tell a frozen gateway from dead
/// paths: it says that its transport is lost, and the same session comes back when somebody answers.
#[test]
fn a_frozen_gateway_without_xdp_loses_neither_session_nor_connection() {
    let document = document(&lab(&["demo", "--json", "--xdp", "off", "--act", "dead_gateway"], None));
    let act = &document["acts"][0];
    assert!(act["error"].is_null(), "the act itself must have been played: {act:#}");
    assert_eq!(act["session_id_before"], act["session_id_after"], "{act:#}");
    assert_eq!(act["tcp_alive"], Value::Bool(true), "{act:#}");
    let back = act["checks"].as_array().expect("checks").iter().find(|check| check["promise"] == "traffic is back");
    assert_eq!(back.expect("that check")["kept"], Value::Bool(true), "{act:#}");
}

#[test]
fn a_broken_promise_makes_the_demo_fail() {
    let output = lab(&["demo", "--json", "--act", "silent_death"], Some("silent_death"));
    assert_eq!(output.status.code(), Some(1));
    let document = document(&output);
    assert_eq!(document["pass"], Value::Bool(false));
    assert_eq!(document["acts"][0]["pass"], Value::Bool(false));
    assert!(document["acts"][0]["error"].is_null(), "the act itself must have been played");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let mut child = Command::new(LAB).args(["demo", "--act", "silent_death"]).spawn().expect("jvpn-lab runs");
    let marker = format!("\"owner_pid\":{}", child.id());
    let entries = || {
        std::fs::read_dir("/run/jvpn-lab")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&marker)))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    while entries().is_empty() {
        assert!(child.try_wait().expect("its state").is_none(), "it ended before it had a lab");
        thread::sleep(Duration::from_millis(20));
    }
    let prefix = entries().remove(0);
    thread::sleep(Duration::from_secs(4));
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signalled.expect("kill runs").success());
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    assert_eq!(entries(), Vec::<String>::new());
    for directory in ["/run/netns", "/sys/fs/bpf", "/tmp"] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.contains(&prefix), "{directory}/{name} is left");
        }
    }
}
