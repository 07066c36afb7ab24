//! The client loses interfaces, not just paths: they are removed under traffic and made anew. Needs root, like the lab,
//! and a built jvpn-ctl.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside test functions

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use jvpn_tests::lab::flow::{Direction, Flows};
use jvpn_tests::lab::http::{Download, Server};
use jvpn_tests::lab::metric;
use jvpn_tests::lab::process::{Product, Role};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{INNER_CLIENT_V4, INNER_GATEWAY_V4, LAN_V4, Path};
use jvpn_tests::lab::{Lab, require_root};
use serde_json::Value;

/// What a busy machine may take for anything here; each takes a second or less on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

fn up(setup: &Setup) -> (Lab, Product) {
    if let Err(error) = require_root() {
        panic!("{error:#}");
    }
    let lab = Lab::up().expect("a lab");
    let mut product = Product::start(&lab, setup).expect("the product");
    product.wait_healthy().expect("a session");
    (lab, product)
}

/// Asks until the answer fits.
fn until(product: &Product, what: &str, role: Role, arguments: &[&str], fits: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = product.json(role, arguments);
        if answer.as_ref().is_ok_and(&fits) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "never happened: {what}; last {answer:?}\n{}\n{}",
            product.log_tail(Role::Gateway),
            product.log_tail(Role::Client)
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// State of a path as the client calls it.
fn state(answer: &Value, path: Path) -> Option<&str> {
    answer["paths"].as_array()?.iter().find(|one| one["name"] == path.transport())?["state"].as_str()
}

fn active(path: Path) -> impl Fn(&Value) -> bool {
    move |answer| state(answer, path) == Some("active")
}

/// One path carries the session and the other could.
fn settled(answer: &Value) -> bool {
    let mut states = Path::BOTH.map(|path| state(answer, path));
    states.sort_unstable();
    states == [Some("active"), Some("standby")]
}

/// Moves the session; the policy's cooldown may still hold.
fn jump(product: &Product, to: Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, _, said) = product.verb(Role::Client, &["jump", "--to", to.transport()]).expect("jump");
        if code == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{said}\n{}", product.log_tail(Role::Client));
        thread::sleep(Duration::from_millis(200));
    }
}

fn advances(download: &Download, what: &str) {
    let (from, deadline) = (download.bytes(), Instant::now() + PATIENCE);
    while download.bytes() < from + 100_000 {
        assert!(Instant::now() < deadline && download.alive(), "the download does not go on {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_removed_uplink_of_the_client_is_left_and_used_again_when_it_is_made_anew() {
    let (lab, product) = up(&Setup::default());
    let address: IpAddr = INNER_GATEWAY_V4.parse().unwrap();
    let server = Server::start(&lab.topology.gateway(), address).expect("server");
    let download = Download::start(&lab.topology.client(), server.address).expect("download");
    advances(&download, "before anything happens");
    until(&product, "both paths in use", Role::Client, &["paths"], settled);
    let paths = product.json(Role::Client, &["paths"]).expect("paths");
    let used = Path::BOTH.into_iter().find(|&path| state(&paths, path) == Some("active")).expect("an active path");

    lab.remove_uplink(used).expect("removal");
    until(&product, "the move to the other", Role::Client, &["paths"], active(used.other()));
    advances(&download, "on the other path");

    lab.make_uplink(used).expect("the link again");
    until(&product, "its return", Role::Client, &["paths"], settled);
    jump(&product, used);
    until(&product, "the jump back", Role::Client, &["paths"], active(used));
    advances(&download, "on the new link");

    // Removed and made anew before anybody looks: the same name and address, another interface.
    lab.remove_uplink(used).expect("removal");
    lab.make_uplink(used).expect("the link again");
    until(&product, "both again", Role::Client, &["paths"], settled);
    jump(&product, used.other());
    jump(&product, used);
    advances(&download, "after the exchange of the link");
    server.finish();
    let finished = download.finish().expect("the whole download");
    assert!(finished.sha256_right, "{finished:?}");
    assert_eq!(server.connections(), 1, "one connection all along");
}

/// Packets each of the gateway's workers opened.
fn opened_by_worker(product: &Product) -> Vec<u64> {
    let metrics = product.json(Role::Gateway, &["metrics"]).expect("metrics");
    let of = |worker: u32| {
        let labels = [("worker", worker.to_string()), ("direction", "in".to_owned())];
        let labels = labels.each_ref().map(|(label, value)| (*label, value.as_str()));
        metric::samples(&metrics, "jvpn_worker_packets", &labels).next().map(|count| count as u64)
    };
    (0..).map_while(of).collect()
}

#[test]
fn a_session_stays_with_its_worker_whatever_path_it_takes() {
    let (lab, product) = up(&Setup { workers: 3, ..Setup::default() });
    let address: IpAddr = INNER_GATEWAY_V4.parse().unwrap();
    let server = Server::start(&lab.topology.gateway(), address).expect("server");
    let download = Download::start(&lab.topology.client(), server.address).expect("download");
    until(&product, "both paths in use", Role::Client, &["paths"], settled);
    let paths = product.json(Role::Client, &["paths"]).expect("paths");
    let used = Path::BOTH.into_iter().find(|&path| state(&paths, path) == Some("active")).expect("an active path");
    let mut before = vec![0; 3];
    for to in [used.other(), used, used.other()] {
        jump(&product, to);
        advances(&download, "after a jump");
        let now = opened_by_worker(&product);
        assert!(now[0] > before[0], "the first session is the first worker's: {before:?}, then {now:?}");
        assert_eq!(now[1..], [0, 0], "on {to:?}");
        before = now;
    }
    server.finish();
    let finished = download.finish().expect("the whole download");
    assert!(finished.sha256_right, "{finished:?}");
}

/// Times of the session's moves by their cause, boot clock in ns, as the gateway recorded them.
fn moves(product: &Product, cause: &str) -> Vec<u64> {
    let (code, out, said) = product.verb(Role::Gateway, &["--json", "events", "--reason", cause]).expect("events");
    assert_eq!(code, 0, "{said}");
    let record = |line: &str| serde_json::from_str::<Value>(line).expect("a record");
    let switches = out.lines().map(record).filter(|record| record["event"] == "TRANSPORT_SWITCH");
    switches.map(|record| record["at"].as_str().and_then(|at| at.parse().ok()).expect("a time")).collect()
}

#[test]
fn a_nat_that_forgets_busy_mappings_is_learned_and_then_left_before_it_does_without_loss() {
    let (lab, product) = up(&Setup { uplinks: vec![Path::B], ..Setup::default() });
    let (client, lan) = (lab.topology.client(), lab.topology.lan());
    let inner = INNER_CLIENT_V4.parse().unwrap();
    let flows = Flows::start((&client, inner), (&lan, LAN_V4.parse().unwrap())).expect("flows");
    let life = Duration::from_secs(10);
    let nat = lab.nat_lifetime(life).expect("a NAT with a clock");
    let deadline = Instant::now() + life * 6;
    while moves(&product, "MAPPING_LIFETIME").len() < 2 {
        assert!(Instant::now() < deadline, "no move ahead of the end\n{}", product.log_tail(Role::Client));
        thread::sleep(Duration::from_millis(250));
    }
    // What was sent around the second move has arrived since.
    thread::sleep(Duration::from_secs(3));
    nat.undo().expect("the NAT's clock stops");
    let (forgotten, ahead) = (moves(&product, "SOURCE_CHANGED"), moves(&product, "MAPPING_LIFETIME"));
    assert!(forgotten.len() >= 2, "learned from two ends: {forgotten:?}");
    assert!(forgotten.iter().all(|at| *at < ahead[0]), "forgotten {forgotten:?}, left ahead {ahead:?}");
    for at in &ahead[..2] {
        for way in [Direction::Up, Direction::Down] {
            let account = flows.trace(way).account(at - 2_000_000_000);
            assert!(account.sent > 3_000, "{account:?}");
            assert_eq!((account.lost, account.duplicated, account.reordered), (0, 0, 0), "{way:?} {account:?}");
        }
    }
    let paths = product.json(Role::Client, &["paths"]).expect("paths");
    let learned = paths["paths"].as_array().into_iter().flatten().find_map(|path| path["mapping_s"].as_f64());
    assert!(learned.is_some_and(|s| (7.0..=10.5).contains(&s)), "{paths:#}");
}

/// What the client says its data lost on a path, percent.
fn data_loss(answer: &Value, path: Path) -> Option<f64> {
    answer["paths"].as_array()?.iter().find(|one| one["name"] == path.transport())?["data_loss_percent"].as_f64()
}

#[test]
fn a_path_that_passes_every_probe_and_loses_data_makes_the_session_volatile_and_is_left() {
    let policy = vec!["standby_interval = \"1s\"".into(), "loss_floor = \"90 %\"".into()];
    let (lab, product) = up(&Setup { policy, ..Setup::default() });
    let (client, lan) = (lab.topology.client(), lab.topology.lan());
    let _flows =
        Flows::start((&client, INNER_CLIENT_V4.parse().unwrap()), (&lan, LAN_V4.parse().unwrap())).expect("flows");
    until(&product, "both paths in use", Role::Client, &["paths"], settled);
    let paths = product.json(Role::Client, &["paths"]).expect("paths");
    let used = Path::BOTH.into_iter().find(|&path| state(&paths, path) == Some("active")).expect("an active path");
    // What the kernel's program counts is what was sealed, to the packet.
    until(&product, "nothing is lost", Role::Client, &["paths"], |answer| data_loss(answer, used) == Some(0.0));

    // With its headers a probe has 100 bytes, a packet of the flow 160, a control message 228.
    let fault = lab.loss_of(used, 0.6, 121..=199).expect("loss");
    let lossy = |answer: &Value| data_loss(answer, used).is_some_and(|lost| (40.0..=80.0).contains(&lost));
    until(&product, "the loss is seen", Role::Client, &["paths"], lossy);
    until(&product, "the move", Role::Client, &["paths"], active(used.other()));
    let (code, out, said) =
        product.verb(Role::Gateway, &["--json", "events", "--reason", "VOLATILITY_SIGNAL"]).expect("events");
    assert!(code == 0 && out.contains("LOSS"), "{said}{out}");
    // Its probes say nothing against it: only what is remembered keeps the session away.
    let still = product.json(Role::Client, &["paths"]).expect("paths");
    assert!(data_loss(&still, used).is_some_and(|lost| lost > 5.0), "{still:#}");
    fault.undo().expect("the loss ends");
}
