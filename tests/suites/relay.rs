//! Sessions through a relay: the real product in the lab, with relays in front of the gateway. Needs root, like the lab.
//! Never looks into a relay but through its verbs and its pinned maps.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use jvpn_common::verdict::Verdict;
use jvpn_ctl::dataplane::DataPlane;
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::pins::Pins;
use jvpn_tests::lab::Lab;
use jvpn_tests::lab::http::{Download, Server};
use jvpn_tests::lab::metric;
use jvpn_tests::lab::mode::Xdp;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role};
use jvpn_tests::lab::record::{Session, live_session};
use jvpn_tests::lab::setup::{Endpoint, Setup};
use jvpn_tests::lab::topology::{CONTROL_PORT, INNER_GATEWAY_V4, INNER_GATEWAY_V6, LAN_V4, Path};
use rustix::process::{Pid, Signal, kill_process};

#[path = "relay/owners.rs"]
mod owners;
#[path = "relay/slow.rs"]
mod slow;

/// How long something that happens by itself within seconds is waited for on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

struct Stage {
    product: Product,
    lab: Lab,
}

impl Stage {
    fn set(setup: &Setup) -> Self {
        let lab = Lab::with(setup.relays, setup.owners).expect("a lab with relays");
        let mut product = Product::start(&lab, setup).expect("all sides start");
        if let Err(error) = product.wait_healthy() {
            let relays: Vec<String> = (0..setup.relays).map(|number| product.log_tail(Role::Relay(number))).collect();
            panic!("{error:#}\n{}", relays.join("\n"));
        }
        Self { product, lab }
    }

    fn tails(&self) -> String {
        let roles = [Role::Gateway, Role::Relay(0), Role::Client];
        roles.map(|role| self.product.log_tail(role)).join("\n")
    }

    fn session(&self) -> Session {
        live_session(&self.product.json(Role::Gateway, &["sessions"]).expect("sessions")).expect("one session")
    }

    /// Asks until it is so.
    fn until(&self, what: &str, mut fits: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !fits(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.tails());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn reaches(&self, target: &str) {
        let ip: IpAddr = target.parse().expect("an address");
        if let Err(error) = ping(&self.lab.topology.client(), ip, 56, PATIENCE) {
            panic!("{target}: {error:#}\n{}", self.tails());
        }
    }

    /// Name of the client's transport.
    fn active(&self) -> Option<String> {
        let status = self.product.json(Role::Client, &["status"]).ok()?;
        status["session"]["transport"]["name"].as_str().map(str::to_owned)
    }

    /// Moves the session and waits until it carries.
    fn jump(&self, to: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.active().as_deref() != Some(to) {
            let (_, out, said) = self.product.verb(Role::Client, &["jump", "--to", to]).expect("the verb runs");
            let late = Instant::now() >= deadline;
            let paths = if late {
                self.product.verb(Role::Client, &["paths"]).map(|(_, out, _)| out)
            } else {
                Ok(String::new())
            };
            assert!(!late, "no jump to {to}: {out} {said}\n{}\n{}", paths.unwrap_or_default(), self.tails());
            thread::sleep(Duration::from_millis(50));
        }
        self.reaches(INNER_GATEWAY_V4);
    }

    fn maps(&self, number: usize) -> Kernel {
        let pins = Pins::below(self.lab.pin_root().join(format!("relay-{}", number + 1)));
        Kernel::open(&pins).expect("the relay's maps open")
    }

    /// Packets of a verdict, in the kernel program and in the process.
    fn counted(&self, number: usize, verdict: Verdict) -> u64 {
        self.maps(number).verdicts().expect("counters").kernel(verdict)
    }

    /// The sum of a metric over the samples that have all of these labels; of a histogram, how many there are.
    fn metric(&self, role: Role, name: &str, labels: &[(&str, &str)]) -> f64 {
        let document = self.product.json(role, &["metrics"]).expect("metrics");
        metric::samples(&document, name, labels).sum()
    }

    /// What every role counts agrees with what is seen of it.
    fn metrics_agree(&self, xdp: Xdp, switches_before: f64) {
        for role in [Role::Gateway, Role::Relay(0), Role::Client] {
            let (code, text, said) = self.product.verb(role, &["metrics"]).expect("the verb runs");
            let whole = text.starts_with("# HELP jvpn_build ") && text.ends_with("\n# EOF\n");
            assert!(code == 0 && whole, "{role:?}: {text}{said}");
        }
        // What goes up and down may be on its way on a busy machine.
        for (role, name, labels) in [
            (Role::Gateway, "jvpn_healthy", None),
            (Role::Relay(0), "jvpn_healthy", None),
            (Role::Client, "jvpn_healthy", None),
            (Role::Gateway, "jvpn_sessions", Some(("state", "ATTACHED"))),
            (Role::Gateway, "jvpn_streams", Some(("state", "connected"))),
            (Role::Relay(0), "jvpn_sessions_forwarded", None),
            (Role::Client, "jvpn_sessions", Some(("state", "ATTACHED"))),
            (Role::Client, "jvpn_paths", Some(("state", "active"))),
        ] {
            let labels: Vec<_> = labels.into_iter().collect();
            self.until(&format!("{name} {labels:?} of {role:?} is 1"), |stage| {
                stage.metric(role, name, &labels) == 1.0
            });
        }
        assert!(self.metric(Role::Gateway, "jvpn_transitions", &[("from", "BIRTH"), ("to", "ATTACHED")]) >= 1.0);
        for phase in ["prove", "commit"] {
            let count = self.metric(Role::Gateway, "jvpn_switch_seconds", &[("phase", phase)]);
            assert!(count > switches_before, "{phase}: {count}, and {switches_before} before the jump");
        }
        assert!(self.metric(Role::Gateway, "jvpn_rx_bytes", &[]) > 0.0);
        let forwarded = self.metric(Role::Relay(0), "jvpn_xdp_verdicts", &[("verdict", "FORWARDED_UP")]);
        assert!(xdp == Xdp::Detached || forwarded > 0.0);
        assert!(self.metric(Role::Client, "jvpn_events", &[("event", "TRANSPORT_SWITCH")]) >= 1.0);
    }

    /// Cuts or heals the streams of a relay.
    fn streams(&self, number: usize, cut: bool) {
        let rules = if cut {
            format!(
                "table inet cut {{\nchain out {{ type filter hook output priority filter; policy accept;\n\
                 tcp dport {CONTROL_PORT} drop\n}}\nchain in {{ type filter hook input priority filter; policy accept;\n\
                 tcp sport {CONTROL_PORT} drop\n}}\n}}\n"
            )
        } else {
            "delete table inet cut\n".to_owned()
        };
        self.lab.topology.relay(number).nft(&rules).expect("a rule");
    }

    fn end(self) {
        let Self { mut product, lab } = self;
        for role in [Role::Client, Role::Gateway] {
            product.stop(role).expect("it stops");
        }
        drop(product);
        lab.down().expect("nothing is left");
    }
}

fn through_one(xdp: Xdp) -> Setup {
    Setup { xdp, relays: 1, endpoints: vec![Endpoint::Relay(0)], ..Setup::default() }
}

#[test]
fn a_session_is_born_and_moves_through_a_relay_in_every_mode() {
    for xdp in [Xdp::Native, Xdp::Generic, Xdp::Detached] {
        let stage = Stage::set(&through_one(xdp));
        stage.reaches(INNER_GATEWAY_V4);
        stage.reaches(INNER_GATEWAY_V6);
        let before = stage.session();
        let switches = stage.metric(Role::Gateway, "jvpn_switch_seconds", &[("phase", "commit")]);
        let from = stage.active().expect("a transport");
        let to = Path::of_transport(&from).expect("a path of the lab").other();
        stage.jump(to.transport());
        let after = stage.session();
        assert_eq!(after.id, before.id, "{xdp:?}");
        assert!(after.state_version > before.state_version, "{xdp:?}");
        if xdp != Xdp::Detached {
            let passed = [Verdict::ForwardedUp, Verdict::ForwardedDown].map(|verdict| stage.counted(0, verdict));
            assert!(passed.iter().all(|count| *count > 0), "{xdp:?}: the kernel program forwards: {passed:?}");
        }
        stage.metrics_agree(xdp, switches);
        stage.end();
    }
}

#[test]
fn a_session_over_ipv6_goes_through_a_relay() {
    let stage = Stage::set(&Setup { outside_v6: true, ..through_one(Xdp::Switched) });
    stage.reaches(INNER_GATEWAY_V4);
    assert!(stage.counted(0, Verdict::ForwardedUp) > 0);
    stage.end();
}

#[test]
fn one_download_survives_jumps_between_the_owner_and_two_relays() {
    let setup = Setup {
        relays: 2,
        uplinks: vec![Path::A],
        endpoints: vec![Endpoint::Gateway, Endpoint::Relay(0), Endpoint::Relay(1)],
        ..Setup::default()
    };
    let stage = Stage::set(&setup);
    stage.reaches(INNER_GATEWAY_V4);
    let id = stage.session().id;
    let server = Server::start(&stage.lab.topology.lan(), LAN_V4.parse().expect("an address")).expect("a server");
    let download = Download::start(&stage.lab.topology.client(), server.address).expect("a download");
    let mut reached = download.bytes();
    // Owner to relay 1 to relay 2 to owner, and to the relay it is on already.
    for to in ["path-a.2", "path-a.3", "path-a", "path-a.2"] {
        stage.jump(to);
        stage.until(&format!("bytes after the jump to {to}"), |_| download.bytes() > reached + 100_000);
        reached = download.bytes();
        assert_eq!(stage.session().id, id, "{to}");
    }
    server.finish();
    let finished = download.finish().expect("the download ends whole");
    assert!(finished.bytes > reached, "{finished:?}");
    assert_eq!(server.connections(), 1, "one connection all the time");
    stage.end();
}

#[test]
fn a_relay_whose_stream_is_cut_says_so_and_its_client_goes_where_the_owner_still_is() {
    let setup = Setup {
        relays: 1,
        uplinks: vec![Path::A],
        endpoints: vec![Endpoint::Gateway, Endpoint::Relay(0)],
        ..Setup::default()
    };
    let stage = Stage::set(&setup);
    stage.jump("path-a.2");
    let before = stage.session();
    stage.streams(0, true);
    // Traffic makes the client look at its path all the time.
    stage.until("the client leaves the relay", |stage| {
        let target = INNER_GATEWAY_V4.parse().expect("an address");
        let _ = ping(&stage.lab.topology.client(), target, 56, Duration::from_millis(200));
        stage.active().as_deref() == Some("path-a")
    });
    stage.reaches(INNER_GATEWAY_V4);
    let after = stage.session();
    assert_eq!(after.id, before.id);
    stage.streams(0, false);
    stage.until("the relay is back", |stage| {
        stage.product.json(Role::Relay(0), &["status"]).is_ok_and(|status| status["healthy"] == true)
    });
    stage.jump("path-a.2");
    assert_eq!(stage.session().id, before.id);
    stage.end();
}

#[test]
fn a_client_with_nothing_but_a_relay_waits_for_its_owner_and_keeps_the_session() {
    let stage = Stage::set(&through_one(Xdp::Switched));
    stage.reaches(INNER_GATEWAY_V4);
    let before = stage.session();
    stage.streams(0, true);
    stage.until("the client says that nobody answers behind the relay", |stage| {
        let target = INNER_GATEWAY_V4.parse().expect("an address");
        let _ = ping(&stage.lab.topology.client(), target, 56, Duration::from_millis(200));
        let status = stage.product.json(Role::Client, &["status"]).expect("a status");
        status["problems"].to_string().contains("GATEWAY_UNRESPONSIVE")
    });
    stage.streams(0, false);
    stage.reaches(INNER_GATEWAY_V4);
    assert_eq!(stage.session().id, before.id);
    stage.end();
}

#[test]
fn a_client_and_a_relay_that_are_told_to_reload_say_that_they_do_not_and_go_on() {
    let stage = Stage::set(&through_one(Xdp::Detached));
    stage.reaches(INNER_GATEWAY_V4);
    let before = stage.session();
    for (role, name) in [(Role::Client, "client"), (Role::Relay(0), "relay")] {
        let pid = |stage: &Stage| stage.product.json(role, &["status"]).expect("a status")["pid"].clone();
        let running = pid(&stage);
        let process = i32::try_from(stage.product.pid(role).expect("it runs")).ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process"), Signal::HUP).expect("SIGHUP");
        stage.until("it says so", |stage| {
            let log = std::fs::read_to_string(stage.product.log_file(role)).unwrap_or_default();
            log.contains(&format!("SIGHUP: a {name} reads its file when it starts"))
        });
        assert_eq!(pid(&stage), running, "{name}");
        stage.reaches(INNER_GATEWAY_V4);
    }
    assert_eq!(stage.session().id, before.id);
    stage.end();
}

#[test]
fn relay_and_owner_are_killed_in_turn_and_the_session_comes_back() {
    let mut stage = Stage::set(&through_one(Xdp::Switched));
    stage.reaches(INNER_GATEWAY_V4);
    let id = stage.session().id;
    for role in [Role::Relay(0), Role::Gateway] {
        stage.product.kill(role).expect("killed");
        stage.product.start_side(role).expect("started again");
        stage.until("both sides are healthy", |stage| {
            [role, Role::Client]
                .into_iter()
                .all(|role| stage.product.json(role, &["status"]).is_ok_and(|status| status["healthy"] == true))
        });
        stage.reaches(INNER_GATEWAY_V4);
        assert_eq!(stage.session().id, id, "{role:?}");
    }
    stage.end();
}
