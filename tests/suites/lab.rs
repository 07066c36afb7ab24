//! The lab itself, without the product: it leaves nothing, its faults are what they say, its flows count right.
//! Needs root and says so. Never skips.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jvpn_tests::lab::canary::Probe;
use jvpn_tests::lab::clock::now_ns;
use jvpn_tests::lab::delay::trial;
use jvpn_tests::lab::fault::Way;
use jvpn_tests::lab::flow::{Account, Direction, Flows};
use jvpn_tests::lab::http::{Download, Server};
use jvpn_tests::lab::mode::{self, Xdp};
use jvpn_tests::lab::netns::run;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::topology::{GATEWAY_V4, GATEWAY_V6, Path};
use jvpn_tests::lab::{Lab, pass, require_root};
use jvpn_tests::size;
use serde_json::json;

const LAB: &str = env!("CARGO_BIN_EXE_jvpn-lab");

/// Until something that takes milliseconds has happened on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

#[track_caller]
fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn up() -> Lab {
    if let Err(error) = require_root() {
        panic!("{error:#}");
    }
    Lab::up().expect("a lab")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address of the lab")
}

/// Everything on the machine that carries the prefix of one lab.
fn left_of(prefix: &str) -> Vec<String> {
    let mut left = Vec::new();
    for directory in ["/run/netns", "/run/jvpn-lab", "/sys/fs/bpf", "/tmp"] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(prefix) {
                left.push(format!("{directory}/{name}"));
            }
        }
    }
    left
}

/// What a lab must never touch: links and firewall of the machine itself.
fn host() -> (String, String) {
    let links = run(&["ip", "-o", "link", "show"], None).expect("links");
    let rules = run(&["nft", "list", "ruleset"], None).expect("rules");
    (links, rules)
}

/// A lab held by another process, and its prefix.
fn held() -> (Child, String) {
    let mut child = Command::new(LAB).arg("up").stdout(Stdio::piped()).spawn().expect("jvpn-lab up");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its stdout")).read_line(&mut line).expect("its name");
    (child, line.trim().to_owned())
}

fn kill(child: &Child, signal: &str) {
    run(&["kill", signal, &child.id().to_string()], None).expect("kill");
}

#[test]
fn a_lab_leaves_nothing_and_touches_nothing_of_the_machine() {
    let before = host();
    let lab = up();
    let prefix = lab.prefix().to_owned();
    assert!(left_of(&prefix).len() >= 8, "six namespaces, an entry, a directory: {:?}", left_of(&prefix));
    assert_eq!(host(), before, "the machine's own links or rules changed");
    lab.down().expect("removal");
    assert_eq!(left_of(&prefix), Vec::<String>::new());
    assert_eq!(host(), before);
}

#[test]
fn a_panic_removes_the_lab_and_the_processes_in_it() {
    let lab = up();
    let prefix = lab.prefix().to_owned();
    let mut sleeper =
        lab.topology.client().enter(|| Ok(Command::new("sleep").arg("600").spawn()?)).expect("a process in the lab");
    let panicked = thread::spawn(move || {
        let _lab = lab;
        panic!("on purpose");
    })
    .join();
    assert!(panicked.is_err());
    assert_eq!(left_of(&prefix), Vec::<String>::new());
    assert!(!sleeper.wait().expect("its end").success(), "the process outlived its lab");
}

#[test]
fn signals_remove_the_lab() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let (mut child, prefix) = held();
        assert!(!left_of(&prefix).is_empty());
        kill(&child, signal);
        assert_eq!(child.wait().expect("its end").code(), Some(code));
        assert_eq!(left_of(&prefix), Vec::<String>::new());
    }
}

#[test]
fn a_signal_while_the_lab_is_being_built_leaves_nothing() {
    for delay in [0, 20, 60, 120, 200] {
        let mut child = Command::new(LAB).arg("up").stdout(Stdio::null()).spawn().expect("jvpn-lab up");
        let owner = format!("\"owner_pid\":{},", child.id());
        let prefix = loop {
            let found = std::fs::read_dir("/run/jvpn-lab")
                .into_iter()
                .flatten()
                .flatten()
                .find(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&owner)));
            if let Some(entry) = found {
                break entry.file_name().to_string_lossy().into_owned();
            }
            assert!(child.try_wait().expect("its state").is_none(), "it ended without a lab");
            thread::yield_now();
        };
        thread::sleep(Duration::from_millis(delay));
        kill(&child, "-TERM");
        assert_eq!(child.wait().expect("its end").code(), Some(143));
        assert_eq!(left_of(&prefix), Vec::<String>::new(), "after {delay} ms");
    }
}

#[test]
fn clean_removes_what_a_killed_run_left_and_spares_a_lab_in_use() {
    let (mut killed, left) = held();
    let lab = up();
    kill(&killed, "-KILL");
    killed.wait().expect("its end");
    assert!(!left_of(&left).is_empty(), "SIGKILL leaves a lab behind");
    let output = Command::new(LAB).arg("clean").output().expect("jvpn-lab clean");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(left_of(&left), Vec::<String>::new());
    lab.canary.prove_both_paths().expect("the lab in use still works");
}

#[test]
fn the_mode_of_a_program_is_read_back_from_the_kernel_and_another_than_asked_for_is_an_error() {
    let lab = up();
    let (space, program) = (lab.topology.lan(), pass::load().expect("a program"));
    let modes = [Xdp::Detached, Xdp::Native, Xdp::Generic];
    for is in modes {
        match is {
            Xdp::Native => pass::attach(&space, "lan", &program).expect("attached"),
            Xdp::Generic => pass::attach_generic(&space, "lan", &program).expect("attached"),
            _ => {}
        }
        assert_eq!(mode::attached(&space, "lan").expect("asked"), is);
        let key = is.key().expect("a mode");
        let says = |key: &str| json!({ "interfaces": [{ "iface": "lan", "mode": key }] });
        let status = if is == Xdp::Detached { json!({ "interfaces": [] }) } else { says(key) };
        for asked in modes {
            let proven = mode::prove(asked, &space, "lan", &status);
            assert_eq!(proven.is_ok(), asked == is, "asked for {asked:?}, is {is:?}: {proven:?}");
        }
        assert_eq!(mode::prove(Xdp::Auto, &space, "lan", &status).is_ok(), is != Xdp::Detached);
        mode::prove(is, &space, "lan", &says("missing")).expect_err("a status that says something else");
        space.run(&["ip", "link", "set", "dev", "lan", "xdp", "off"], None).expect("off");
    }
}

#[test]
fn two_labs_at_once_do_not_meet() {
    let (one, two) = (up(), up());
    let _silent = one.silence(Path::A, Way::Both).expect("silence");
    two.canary.prove_both_paths().expect("the other lab");
}

#[test]
fn each_fault_is_in_force_while_held_and_gone_afterwards() {
    let lab = up();
    for path in Path::BOTH {
        for way in [Way::Up, Way::Down, Way::Both] {
            let fault = lab.silence(path, way).expect("silence");
            lab.canary.prove(path.other()).expect("the other path must not notice");
            fault.undo().expect("undo");
            lab.canary.prove_both_paths().expect("both paths after silence");
        }
        let fault = lab.link_down(path).expect("link down");
        let uplink = lab.topology.client().run(&["ip", "link", "show", path.uplink()], None).expect("uplink");
        assert!(uplink.contains("LOWER_UP"), "the client must see no link event: {uplink}");
        fault.undo().expect("undo");
        lab.canary.prove_both_paths().expect("both paths after link down");

        lab.loss(path, 0.05).expect("loss").undo().expect("undo");
        lab.loss_of(path, 0.2, 121..=199).expect("loss of some sizes").undo().expect("undo");
        lab.mtu(path, 1_300).expect("mtu").undo().expect("undo");
        lab.rate(path, 10_000_000).expect("rate").undo().expect("undo");
        let all = lab.canary.burst(path, 200, 1_400, PATIENCE).expect("burst");
        assert_eq!(all.len(), 200, "nothing may be lost without a fault");
    }
}

#[test]
fn a_slow_path_holds_every_packet_and_loses_none() {
    let lab = up();
    for path in Path::BOTH {
        let delay = Duration::from_millis(60);
        let slow = lab.delay(path, delay).expect("delay");
        for v6 in [false, true] {
            let mut fastest = Duration::MAX;
            wait_until("an answer in time", || {
                let probe = lab.canary.probe_within(path, v6, 1_400, Duration::from_secs(2)).expect("probe");
                fastest = fastest.min(probe.round_trip.unwrap_or(Duration::MAX));
                fastest < delay * 2 + Duration::from_millis(500)
            });
            assert!(fastest >= delay * 2, "{fastest:?}");
        }
        // It can be narrow as well: proved by `rate` itself, which is undone before what it lies on.
        lab.rate(path, 10_000_000).expect("rate").undo().expect("undo");
        let fast = |path| {
            let quick = |probe: &Probe| probe.round_trip.is_some_and(|took| took < delay);
            lab.canary.probe_until(path, false, 64, quick).is_ok_and(|probe| quick(&probe))
        };
        assert!(fast(path.other()), "the other path must not be slow");
        let arrived = lab.canary.burst(path, 3_000, 200, PATIENCE).expect("burst");
        assert_eq!(arrived.len(), 3_000);
        slow.undo().expect("undo");
        lab.canary.prove_both_paths().expect("both paths");
        assert!(fast(path), "the path must be as fast as before");
        lab.canary.prove_both_paths().expect("both paths");
    }
}

#[test]
fn a_pause_holds_everything_and_loses_nothing() {
    let lab = up();
    assert!(lab.pause(Path::A).is_err(), "only what a delay forwards can be held");
    let slow = lab.delay(Path::A, Duration::from_millis(5)).expect("delay");
    let pause = lab.pause(Path::A).expect("pause");
    let held = lab.canary.probe(Path::A, false, 64).expect("probe");
    assert!(!held.arrived && held.round_trip.is_none(), "{held:?}");
    lab.canary.prove(Path::B).expect("the other path goes on");
    pause.undo().expect("what waited is let go");
    let arrived = lab.canary.burst(Path::A, 200, 200, PATIENCE).expect("burst");
    assert_eq!(arrived.len(), 200);
    slow.undo().expect("undo");
    assert!(lab.pause(Path::A).is_err(), "the delay is gone");
}

#[test]
fn the_delay_loses_and_reorders_nothing_and_is_as_long_as_it_says() {
    if let Err(error) = require_root() {
        panic!("{error:#}");
    }
    // Everything runs on this machine: the full rate wants it for itself.
    let (rate, seconds, late_us) = size::of((20_000, 2, 50_000), (90_000, 10, 2_000));
    let trial = trial::run(rate, Duration::from_secs(seconds), Duration::from_millis(60)).expect("a trial");
    println!("{trial:?}");
    assert_eq!((trial.arrived, trial.disordered, trial.lost), (trial.sent, 0, 0), "{trial:?}");
    assert_eq!(trial.early, 0, "{trial:?}");
    assert!(trial.late_p99_us <= late_us, "{trial:?}");
}

#[test]
fn a_nat_that_forgets_shows_the_gateway_another_port_each_time() {
    let lab = up();
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push(lab.canary.seen_port(Path::B).expect("a port"));
        lab.nat_forget().expect("another port");
    }
    assert!((20_000..30_000).contains(&ports[0]), "{ports:?}");
    assert!((30_000..40_000).contains(&ports[1]), "{ports:?}");
    let direct = lab.canary.seen_port(Path::A).expect("a port");
    lab.nat_forget().expect("another port");
    assert_eq!(lab.canary.seen_port(Path::A).expect("a port"), direct, "path A has no NAT");
}

#[test]
fn a_frozen_process_is_stopped_and_goes_on_afterwards() {
    let lab = up();
    let mut child = Command::new("sleep").arg("600").spawn().expect("a process");
    let state = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
        stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).expect("a state")
    };
    let frozen = lab.freeze(child.id()).expect("freeze");
    assert_eq!(state(child.id()), 'T');
    frozen.undo().expect("continue");
    wait_until("it goes on", || state(child.id()) != 'T');
    child.kill().expect("kill");
    child.wait().expect("its end");
}

#[test]
fn flows_over_the_underlay_lose_nothing_and_see_a_silence_as_long_as_it_is() {
    let lab = up();
    let (client, gateway) = (lab.topology.client(), lab.topology.gateway());
    let flows = Flows::start((&client, address("192.0.2.2")), (&gateway, address(GATEWAY_V4))).expect("flows");
    let account = |fault_ns: u64| {
        [Direction::Up, Direction::Down]
            .map(|way| flows.trace(way).around(fault_ns).account(fault_ns))
            .into_iter()
            .fold(Account::default(), Account::join)
    };
    thread::sleep(Duration::from_millis(300));
    let calm_ns = now_ns();
    thread::sleep(Duration::from_millis(5_100));
    let calm = account(calm_ns);
    assert_eq!((calm.lost, calm.duplicated), (0, 0), "{calm:?}");
    assert!(calm.sent > 8_500, "two flows of 1 kHz for 4.5 s: {calm:?}");
    assert!(calm.outage_ms < 100.0 + 2.0 * calm.stall_ms, "{calm:?}");

    let fault_ns = now_ns();
    let silent = lab.silence_now(Path::A).expect("silence");
    let begun_ns = now_ns();
    thread::sleep(Duration::from_millis(300));
    let ending_ns = now_ns();
    silent.undo().expect("undo");
    let ended_ns = now_ns();
    thread::sleep(Duration::from_millis(4_900));
    let seen = account(fault_ns);
    let (shortest, longest) = ((ending_ns - begun_ns) as f64 / 1e6, (ended_ns - fault_ns) as f64 / 1e6);
    assert!(seen.outage_ms >= shortest - 2.0, "{seen:?}, silent for {shortest} ms");
    assert!(seen.outage_ms <= longest + 100.0 + 2.0 * seen.stall_ms, "{seen:?}, silent for {longest} ms");
    assert!(seen.lost as f64 >= 2.0 * (shortest - 5.0 - seen.stall_ms), "{seen:?}");
    assert_eq!(seen.duplicated, 0);
}

#[test]
fn a_download_over_one_connection_survives_a_silence_and_has_the_right_sum() {
    let lab = up();
    let server = Server::start(&lab.topology.gateway(), address(GATEWAY_V4)).expect("server");
    let download = Download::start(&lab.topology.client(), server.address).expect("download");
    wait_until("a megabyte", || download.bytes() >= 1_000_000);
    let silent_ns = now_ns();
    let silent = lab.silence(Path::A, Way::Both).expect("silence");
    // What had arrived before may still be on its way to the reader.
    let mut last = download.bytes();
    wait_until("what was in flight", || {
        thread::sleep(Duration::from_millis(200));
        std::mem::replace(&mut last, download.bytes()) == last
    });
    let (in_flight_ns, quiet_from) = (now_ns(), download.bytes());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(download.bytes(), quiet_from, "bytes pass a silent path");
    assert!(download.advanced(silent_ns - 1_000_000_000, silent_ns));
    assert!(!download.advanced(in_flight_ns, now_ns()));
    silent.undo().expect("undo");
    let back_ns = now_ns();
    wait_until("it goes on", || download.advanced(back_ns, now_ns()));
    wait_until("more bytes", || download.bytes() > 2_000_000);
    assert!(download.alive());
    assert_eq!(server.peer(), Some(download.local));
    server.finish();
    let finished = download.finish().expect("the whole download");
    assert!(finished.sha256_right && finished.bytes > 2_000_000, "{finished:?}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn pings_pass_in_both_families_and_a_silent_path_fails_with_its_name() {
    let lab = up();
    let client = lab.topology.client();
    for target in [GATEWAY_V4, GATEWAY_V6] {
        ping(&client, address(target), 1_200, PATIENCE).expect("an answer");
    }
    let _silent = lab.silence(Path::A, Way::Both).expect("silence");
    let error = ping(&client, address(GATEWAY_V4), 56, Duration::from_millis(600)).expect_err("silence");
    assert!(format!("{error:#}").contains(GATEWAY_V4), "{error:#}");
    assert!(FilePath::new(&format!("/run/netns/{}-client", lab.prefix())).exists());
}
