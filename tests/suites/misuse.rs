//! The real product in the lab under bad input and in broken surroundings: a clear error or a counted drop, the state
//! unchanged, no panic, no flood in the log. Needs root and a built jvpn-ctl, like the demo. Never skips.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jvpn_tests::lab::clock::now_ns;
use jvpn_tests::lab::flow::{Direction, Flows};
use jvpn_tests::lab::http::{Download, Server};
use jvpn_tests::lab::mode::{self, Xdp};
use jvpn_tests::lab::netns::run;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{GATEWAY_PORT, INNER_CLIENT_V4, INNER_GATEWAY_V4, LAN_V4, Path};
use jvpn_tests::lab::{Lab, hostile, require_root};
use rustix::process::Signal;
use serde_json::Value;

/// Until something that takes milliseconds has happened on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    product: Product,
    lab: Lab,
}

impl Stage {
    fn with(setup: &Setup) -> Stage {
        if let Err(error) = require_root() {
            panic!("{error:#}");
        }
        let lab = Lab::up().expect("a lab");
        let mut product = Product::start(&lab, setup).expect("both sides");
        product.wait_healthy().expect("a session");
        Stage { product, lab }
    }

    fn new() -> Stage {
        Self::with(&Setup::default())
    }

    fn status(&self, role: Role) -> Value {
        self.product.json(role, &["status"]).expect("a status")
    }

    /// Id and version of the one session.
    fn session(&self) -> (String, String) {
        let sessions = self.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        let all = sessions["sessions"].as_array().expect("sessions[]");
        let [session] = all.as_slice() else { panic!("one session expected: {sessions:#}") };
        (session["session_id"].as_str().expect("an id").to_owned(), session["state_version"].to_string())
    }

    fn problems(&self, role: Role) -> String {
        self.status(role)["problems"].to_string()
    }

    fn files(&self, role: Role) -> PathBuf {
        self.product.log_file(role).parent().expect("a directory").to_owned()
    }

    fn log(&self, role: Role) -> String {
        fs::read_to_string(self.product.log_file(role)).expect("a log")
    }

    /// Asks for an answer inside the tunnel until there is one.
    fn reaches(&self, target: &str) {
        let ip: IpAddr = target.parse().expect("an address");
        let client = self.lab.topology.client();
        until("an answer inside the tunnel", self, || ping(&client, ip, 56, Duration::from_secs(1)).is_ok());
    }

    #[track_caller]
    fn logs_are_quiet(&self) {
        for role in [Role::Gateway, Role::Client] {
            let log = self.log(role);
            assert!(!log.contains("panicked") && !log.contains("ERROR"), "{role:?}: {log}");
        }
    }
}

#[track_caller]
fn until(what: &str, stage: &Stage, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(
            Instant::now() < deadline,
            "{what}: not within {PATIENCE:?}\n{}\n{}",
            stage.product.log_tail(Role::Gateway),
            stage.product.log_tail(Role::Client)
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn dropped(status: &Value, name: &str) -> u64 {
    status["drops"][name].as_u64().unwrap_or(0)
}

fn text(path: &FilePath) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn hostile_datagrams_of_every_type_are_counted_and_a_live_session_goes_on() {
    for xdp in mode::and_detached() {
        let stage = Stage::with(&Setup { xdp, ..Setup::default() });
        let (client, lan) = (stage.lab.topology.client(), stage.lab.topology.lan());
        let inner = INNER_CLIENT_V4.parse().expect("an address");
        let flows = Flows::start((&client, inner), (&lan, LAN_V4.parse().expect("an address"))).expect("flows");
        let (code, _, said) = stage.product.verb(Role::Client, &["jump", "--to", "path-a"]).expect("jump");
        assert_eq!(code, 0, "{said}");
        let copies = hostile::copy(&stage.lab.topology, 300, PATIENCE).expect("copies");
        let before = stage.session();
        let lines = stage.log(Role::Gateway).lines().count();

        let from_ns = now_ns();
        let sent = hostile::send(&stage.lab.topology, &copies, 7, Duration::from_secs(4)).expect("sends");
        assert!(sent.spoofed > 3_000 && sent.foreign > 2_000, "{sent:?}");
        let to_ns = now_ns();
        let came = |way| flows.trace(way).arrived.iter().any(|arrived| arrived.sent_ns > to_ns);
        until("traffic goes on", &stage, || came(Direction::Up) && came(Direction::Down));

        assert_eq!(stage.session(), before, "no datagram of the attacker moved anything");
        let up = flows.trace(Direction::Up);
        let mut sequences: Vec<u64> = up.arrived.iter().map(|arrived| arrived.sequence).collect();
        let arrived = sequences.len();
        sequences.sort_unstable();
        sequences.dedup();
        assert_eq!(sequences.len(), arrived, "a replayed datagram was delivered");
        let during = up.sent.iter().filter(|sent| (from_ns..to_ns).contains(&sent.at_ns)).count();
        let delivered = up.arrived.iter().filter(|came| (from_ns..to_ns).contains(&came.sent_ns)).count();
        assert!(delivered * 2 > during, "{delivered} of {during} arrived during the attack");

        let status = stage.status(Role::Gateway);
        assert_eq!(status["healthy"], Value::Bool(true), "{status:#}");
        for name in [
            "SHORT",
            "UNKNOWN_TYPE",
            "CLIENT_ONLY",
            "UNKNOWN_LOCATOR",
            "BAD_FLAGS",
            "FORGED_TAG",
            "HANDSHAKE_SIZE",
            "FRAGMENT",
            "drop_replay",
        ] {
            // A socket gets whole datagrams: who reassembles fragments before it is the kernel.
            let reachable = xdp != Xdp::Detached || name != "FRAGMENT";
            assert!(!reachable || dropped(&status, name) > 0, "{xdp:?}: {name} in {:#}", status["drops"]);
        }
        stage.logs_are_quiet();
        let grown = stage.log(Role::Gateway).lines().count() - lines;
        assert!(grown < 100, "{grown} lines of log for {sent:?}");
    }
}

#[test]
fn an_inner_packet_with_a_foreign_source_is_dropped_and_counted() {
    let stage = Stage::new();
    let (client, lan) = (stage.lab.topology.client(), stage.lab.topology.lan());
    client.ip("address add 10.99.0.1/32 dev jvpn0\n").expect("an address of nobody");
    let listener = lan.enter(|| Ok(UdpSocket::bind((LAN_V4, 0))?)).expect("a listener");
    let target = listener.local_addr().expect("an address");
    listener.set_read_timeout(Some(PATIENCE)).expect("a patience");
    let send = |from: &str, what: &[u8]| {
        client.enter(|| Ok(UdpSocket::bind((from, 0))?.send_to(what, target)?)).expect("sent");
    };
    for _ in 0..5 {
        send("10.99.0.1", b"foreign");
    }
    until("a counted drop", &stage, || {
        let of = |role| dropped(&stage.status(role), "drop_inner_spoof");
        of(Role::Gateway) + of(Role::Client) >= 5
    });
    send(INNER_CLIENT_V4, b"own");
    let mut buffer = [0; 16];
    let (length, _) = listener.recv_from(&mut buffer).expect("the own one arrives");
    assert_eq!(&buffer[..length], b"own", "nothing of the foreign source came before it");
    stage.logs_are_quiet();
}

/// A client of the same key in another namespace. Dropping it kills it.
struct Twin(Child);

impl Twin {
    fn start(stage: &Stage) -> Twin {
        let directory = stage.lab.files().join("twin");
        fs::create_dir(&directory).expect("a directory");
        let config = fs::read_to_string(stage.files(Role::Client).join("client.toml")).expect("a configuration");
        let (config, _) = config.split_once("\n[[transport]]").expect("transports at its end");
        let file = directory.join("client.toml");
        fs::write(&file, config).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("private");
        let mut command = Command::new(find_binary().expect("a binary"));
        command.args(["connect", "--config", text(&file)]).env("JVPN_STATE_DIR", directory.join("state"));
        command.env("JVPN_RUN_DIR", directory.join("run")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(directory.join("log")).expect("a log"));
        let child = stage.lab.topology.space("core").enter(move || Ok(command.spawn()?)).expect("a twin");
        Twin(child)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_client_with_the_same_key_never_makes_two_sessions_and_is_gone_when_it_is_gone() {
    let stage = Stage::new();
    let (first, _) = stage.session();
    let twin = Twin::start(&stage);
    until("the twin takes the session over", &stage, || stage.session().0 != first);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        stage.session(); // panics on two
        thread::sleep(Duration::from_millis(50));
    }
    let (code, events, _) =
        stage.product.verb(Role::Gateway, &["events", "--reason", "SESSION_SUPERSEDED"]).expect("events");
    assert_eq!(code, 0);
    let superseded = events.lines().count();
    assert!((1..40).contains(&superseded), "{superseded} take-overs in 5 s:\n{events}");
    drop(twin);
    stage.reaches(LAN_V4);
    stage.logs_are_quiet();
}

/// A small disk as the gateway's state directory. Dropping it takes it away.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(directory: &FilePath) -> SmallDisk {
        fs::create_dir_all(directory).expect("a directory");
        run(&["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", text(directory)], None).expect("a tmpfs");
        SmallDisk(directory.to_owned())
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes every byte there is.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.filler()).expect("a file");
        while file.write(&[7; 4_096]).is_ok_and(|written| written > 0) {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The lab's removal says so if this did not work.
        let _ = run(&["umount", "-l", text(&self.0)], None);
    }
}

#[test]
fn a_full_disk_is_named_stops_new_sessions_only_and_heals_when_there_is_room() {
    let mut stage = Stage::new();
    stage.product.stop(Role::Gateway).expect("stopped");
    let state = stage.files(Role::Gateway).join("state");
    fs::remove_dir_all(&state).expect("removed");
    let disk = SmallDisk::at(&state);
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("a session");
    stage.reaches(LAN_V4);
    let (id, _) = stage.session();

    disk.fill();
    // A jump needs a record before it is acknowledged: it must be refused, and the session stay where it is.
    // The last page of a file may still have room for a line or two; whatever moved before is on the record.
    let refused = ["path-b", "path-a"].into_iter().cycle().take(8).find(|to| {
        let (code, ..) = stage.product.verb(Role::Client, &["jump", "--to", to]).expect("jump");
        let (id, version) = stage.session();
        let (_, events, _) =
            stage.product.verb(Role::Gateway, &["--json", "events", "--session", &id]).expect("events");
        let recorded = events.contains(&format!("\"state_version\":\"{version}\""));
        assert!(recorded, "version {version} is acknowledged and on no record:\n{events}");
        code != 0
    });
    assert!(refused.is_some(), "a full disk records for ever");
    until("the problem is named", &stage, || stage.problems(Role::Gateway).contains("cannot be written"));
    assert!(stage.problems(Role::Gateway).contains("free space"), "{}", stage.problems(Role::Gateway));
    assert_eq!(stage.session().0, id);
    stage.reaches(LAN_V4);

    // New sessions are refused with a reason, again and again.
    let twin = Twin::start(&stage);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(stage.session().0, id, "no new session without a record");
    let errors = stage.log(Role::Gateway).lines().filter(|line| line.contains("ERROR")).count();
    assert!((1..=6).contains(&errors), "{errors} lines of ERROR\n{}", stage.log(Role::Gateway));
    drop(twin);

    fs::remove_file(disk.filler()).expect("room again");
    until("it heals by itself", &stage, || stage.status(Role::Gateway)["healthy"] == Value::Bool(true));
    stage.reaches(LAN_V4);
    until("jumps work again", &stage, || {
        let jump = stage.product.verb(Role::Client, &["jump", "--to", "path-b"]).expect("jump");
        jump.0 == 0 && stage.product.verb(Role::Client, &["jump", "--to", "path-a"]).expect("jump").0 != 3
    });
    assert_eq!(stage.session().0, id);

    // What was stored before, during and after is whole: the session survives a crash.
    stage.product.kill(Role::Gateway).expect("killed");
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("the session");
    stage.reaches(LAN_V4);
    assert_eq!(stage.session().0, id);
    let (code, events, _) = stage.product.verb(Role::Gateway, &["events"]).expect("events");
    assert!(code == 0 && events.contains("GAP"), "the record names what it lost:\n{events}");
    assert!(!stage.log(Role::Gateway).contains("panicked"));
    drop(stage);
    drop(disk);
}

#[test]
fn an_interface_that_vanishes_under_a_running_gateway_is_named_and_taken_up_again() {
    let stage = Stage::new();
    let (id, _) = stage.session();
    let (gateway, core) = (stage.lab.topology.gateway(), stage.lab.topology.space("core"));
    gateway.ip("link del wan\n").expect("gone");
    until("the problem is named", &stage, || stage.problems(Role::Gateway).contains("not on wan"));
    let names = [gateway.name(), core.name()];
    let link = ["ip", "link", "add", "wan", "netns", names[0], "type", "veth", "peer", "name", "gw", "netns", names[1]];
    run(&link, None).expect("a new pair");
    core.ip("address add 198.51.100.1/24 dev gw\naddress add 2001:db8:7::1/64 dev gw nodad\nlink set gw up\n")
        .expect("far");
    gateway
        .ip("address add 198.51.100.7/24 dev wan\naddress add 2001:db8:7::7/64 dev wan nodad\nlink set wan up\n")
        .expect("near");
    for (space, interface) in [(&gateway, "wan"), (&core, "gw")] {
        space.run(&["ethtool", "-K", interface, "tx", "off", "gro", "on"], None).expect("offloads");
    }
    stage.lab.topology.route("gw").expect("routes");
    until("healthy again", &stage, || stage.status(Role::Gateway)["healthy"] == Value::Bool(true));
    let xdp = &stage.status(Role::Gateway)["interfaces"][0];
    let mode = mode::switched().key().expect("a mode");
    assert_eq!((xdp["iface"].as_str(), xdp["mode"].as_str()), (Some("wan"), Some(mode)), "{xdp}");
    assert_eq!(mode::attached(&gateway, "wan").expect("asked"), mode::switched(), "put back in the mode it had");
    stage.reaches(LAN_V4);
    assert_eq!(stage.session().0, id, "the session outlived the interface");
    stage.logs_are_quiet();
}

#[test]
fn an_uplink_that_vanishes_under_a_running_client_is_a_jump_and_its_return_a_path() {
    let stage = Stage::new();
    let (id, _) = stage.session();
    let client = stage.lab.topology.client();
    let (code, _, said) = stage.product.verb(Role::Client, &["jump", "--to", "path-a"]).expect("jump");
    assert_eq!(code, 0, "{said}");
    client.ip("link set wan-a down\n").expect("gone");
    until("the session is on the other path", &stage, || {
        stage.status(Role::Client)["session"]["transport"]["name"] == "path-b"
    });
    stage.reaches(LAN_V4);
    client.ip("link set wan-a up\n").expect("back");
    stage.lab.topology.route("client").expect("routes");
    until("both paths are there again", &stage, || {
        let paths = stage.product.json(Role::Client, &["paths"]).expect("paths");
        let good = |path: &&Value| ["active", "standby"].iter().any(|state| path["state"] == **state);
        paths["paths"].as_array().is_some_and(|paths| paths.iter().filter(good).count() == 2)
    });
    assert_eq!(stage.session().0, id);
    stage.logs_are_quiet();
}

#[test]
fn a_tunnel_device_that_vanishes_ends_the_process_with_a_clear_error() {
    for (role, space) in [(Role::Gateway, "gw"), (Role::Client, "client")] {
        let mut stage = Stage::new();
        stage.lab.topology.space(space).ip("link del jvpn0\n").expect("gone");
        let code = stage.product.wait_end(role, PATIENCE).expect("it ends");
        assert_eq!(code, Some(1), "{}", stage.log(role));
        let log = stage.log(role);
        assert!(log.contains("jvpn0") && !log.contains("panicked"), "{log}");
        stage.product.start_side(role).expect("started");
        stage.reaches(INNER_GATEWAY_V4);
    }
}

#[test]
fn pins_of_another_layout_or_owner_are_refused_by_serve_and_load_and_left_alone() {
    let mut stage = Stage::new();
    stage.product.stop(Role::Gateway).expect("stopped");
    let pins = stage.lab.pin_root().join("gateway");
    let config = pins.join("CONFIG");
    let zero = ["0"; 256].join(" ");
    let write = format!("bpftool map update pinned {} key 0 0 0 0 value {zero}", config.display());
    run(&write.split(' ').collect::<Vec<_>>(), None).expect("another layout");
    let refused = |stage: &Stage, parts: &[&str]| {
        for words in [&["serve"][..], &["load", "wan"]] {
            let (code, out, said) = stage.product.verb(Role::Gateway, words).expect("runs");
            assert_eq!((code, out.as_str()), (5, ""), "{words:?}: {said}");
            parts.iter().for_each(|part| assert!(said.contains(part), "{words:?}, `{part}`: {said}"));
        }
    };
    refused(&stage, &["jvpn-ctl cleanup"]);
    assert!(config.exists(), "nothing was removed");
    rustix::fs::chown(&pins, Some(rustix::fs::Uid::from_raw(65_534)), None).expect("another owner");
    refused(&stage, &["rm -r"]);
    let (code, _, said) = stage.product.verb(Role::Gateway, &["cleanup"]).expect("runs");
    assert_eq!(code, 5, "{said}");
    assert!(config.exists(), "nothing of another owner was removed");
    rustix::fs::chown(&pins, Some(rustix::fs::Uid::ROOT), None).expect("root's again");
    let (code, out, said) = stage.product.verb(Role::Gateway, &["cleanup"]).expect("runs");
    assert!(code == 0 && out.contains("removed") && !pins.exists(), "{out}{said}");
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("a session");
    stage.reaches(LAN_V4);
}

#[test]
fn a_second_serve_on_the_same_state_directory_names_the_holder_and_harms_nothing() {
    let stage = Stage::new();
    let before = stage.session();
    let (code, out, said) = stage.product.verb(Role::Gateway, &["serve"]).expect("runs");
    let pid = stage.product.pid(Role::Gateway).expect("runs");
    assert_eq!((code, out.as_str()), (1, ""), "{said}");
    assert!(said.contains(&format!("in use by process {pid}")) && said.contains("--state-dir"), "{said}");
    for words in [&["cleanup"][..], &["unload", "wan"]] {
        let (code, _, said) = stage.product.verb(Role::Gateway, words).expect("runs");
        assert_eq!(code, 5, "{words:?}: {said}");
        assert!(said.contains(&pid.to_string()), "{words:?}: {said}");
    }
    assert_eq!(stage.session(), before);
    stage.reaches(LAN_V4);
}

/// Runs a program as nobody, who may read nothing of the lab.
fn as_nobody(program: &FilePath, words: &[&str], environment: &[(&str, &FilePath)]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(words);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(environment.iter().copied());
    command.current_dir("/").output().expect("setpriv runs")
}

#[test]
fn without_root_each_verb_that_needs_it_exits_with_7_and_says_what_is_needed() {
    let stage = Stage::new();
    let open = tempfile::tempdir().expect("a directory");
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).expect("open");
    let program = open.path().join("jvpn-ctl");
    fs::copy(find_binary().expect("a binary"), &program).expect("copied");
    let config = open.path().join("gateway.toml");
    fs::copy(stage.files(Role::Gateway).join("gateway.toml"), &config).expect("copied");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("readable");
    let (run_dir, state) = (stage.files(Role::Gateway).join("run"), stage.files(Role::Gateway).join("state"));
    // The lab's files are below a directory anybody may enter; what protects a daemon is its own modes.
    let environment = [("JVPN_CONFIG", config.as_path()), ("JVPN_RUN_DIR", &run_dir), ("JVPN_STATE_DIR", &state)];
    let verbs: [&[&str]; 10] = [
        &["serve"],
        &["load", "wan"],
        &["unload", "wan"],
        &["cleanup"],
        &["status"],
        &["sessions"],
        &["paths"],
        &["events"],
        &["terminate", "00"],
        &["peer", "add", "x", "--stdout"],
    ];
    for words in verbs {
        let output = as_nobody(&program, words, &environment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{words:?}: {said}");
        assert!(said.contains("root"), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    let client = open.path().join("client.toml");
    fs::copy(stage.files(Role::Client).join("client.toml"), &client).expect("copied");
    fs::set_permissions(&client, fs::Permissions::from_mode(0o644)).expect("readable");
    let output = as_nobody(&program, &["connect"], &[("JVPN_CONFIG", &client)]);
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    let init =
        as_nobody(&program, &["init", "gateway"], &[("JVPN_CONFIG", FilePath::new("/etc/jvpn-none/gateway.toml"))]);
    assert_eq!(init.status.code(), Some(7), "{}", String::from_utf8_lossy(&init.stderr));
    let lab = open.path().join("jvpn-lab");
    fs::copy(env!("CARGO_BIN_EXE_jvpn-lab"), &lab).expect("copied");
    for words in [&["demo"][..], &["ping"], &["clean"]] {
        let output = as_nobody(&lab, words, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{words:?}: {said}");
        assert!(said.contains("sudo"), "{said}");
    }
    assert_eq!(stage.session().0.len(), 32, "and the daemon noticed nothing");
    stage.logs_are_quiet();
}

/// What a client changes in its namespace.
fn network(stage: &Stage) -> String {
    let client = stage.lab.topology.client();
    let ask = |words: &[&str]| client.run(words, None).expect("ip answers");
    let parts: [&[&str]; 4] =
        [&["ip", "rule"], &["ip", "route", "show", "table", "all"], &["ip", "-6", "rule"], &["ip", "-br", "address"]];
    parts.map(ask).concat()
}

#[test]
fn a_killed_client_leaves_nothing_but_its_socket_and_cleanup_removes_it() {
    let mut stage = Stage::new();
    stage.product.stop(Role::Client).expect("stopped");
    let before = network(&stage);
    stage.product.start_side(Role::Client).expect("started");
    stage.reaches(LAN_V4);
    assert_ne!(network(&stage), before);
    stage.product.kill(Role::Client).expect("killed");
    until("addresses and routes are gone", &stage, || network(&stage) == before);
    let run_dir = stage.files(Role::Client).join("run");
    assert!(run_dir.join("client-till-17.sock").exists());
    // As on a host whose configuration is gone already: only the places are known.
    let mut command = Command::new(find_binary().expect("a binary"));
    command.arg("cleanup").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("JVPN_RUN_DIR", &run_dir).env("JVPN_STATE_DIR", stage.files(Role::Client).join("state"));
    command.env("JVPN_PIN_ROOT", stage.lab.pin_root().join("nothing"));
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("client-till-17.sock"), "{output:?}");
    assert!(!run_dir.join("client-till-17.sock").exists());
    let (code, _, said) = stage.product.verb(Role::Client, &["cleanup"]).expect("runs");
    assert!(code == 0 && said.contains("nothing was left"), "{said}");
}

/// Type byte of a control datagram, as nft writes a number.
const CONTROL: u8 = jvpn_common::wire::Kind::Control as u8;

#[test]
fn a_gateway_that_ends_says_so_again_until_it_is_acknowledged_or_its_patience_is_over() {
    let mut stage = Stage::with(&Setup { uplinks: vec![Path::A], ..Setup::default() });
    stage.reaches(INNER_GATEWAY_V4);
    let gateway = stage.lab.topology.gateway();
    // What the client answers does not arrive; what the gateway says does.
    let rules = format!(
        "table inet deaf {{\ncounter said {{ }}\n\
         chain in {{ type filter hook input priority filter; udp dport {GATEWAY_PORT} @th,64,8 {CONTROL} drop\n}}\n\
         chain out {{ type filter hook output priority filter; \
         udp sport {GATEWAY_PORT} @th,64,8 {CONTROL} counter name said\n}}\n}}\n"
    );
    gateway.nft(&rules).expect("rules");
    let said = || {
        let counters = gateway.run(&["nft", "-j", "list", "counter", "inet", "deaf", "said"], None).expect("a counter");
        let counters: Value = serde_json::from_str(&counters).expect("JSON");
        let all = counters["nftables"].as_array().expect("objects").iter();
        all.filter_map(|object| object["counter"]["packets"].as_u64()).sum::<u64>()
    };
    let before = said();
    assert_eq!(stage.product.stop(Role::Gateway).expect("it ends"), Some(0));
    let copies = said() - before;
    assert!(copies >= 2, "{copies} copies: it did not wait for an answer\n{}", stage.product.log_tail(Role::Gateway));
    until("the client has heard it", &stage, || {
        let (_, out, _) = stage.product.verb(Role::Client, &["events", "--json"]).expect("events");
        let records = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a record"));
        let mut gone = records.filter(|record| record["event"] == "CONDITION");
        gone.any(|record| record["reason"] == "GATEWAY_UNRESPONSIVE" && record["details"]["acknowledged"] == true)
    });
    gateway.nft("delete table inet deaf\n").expect("gone");
    stage.product.start_side(Role::Gateway).expect("started");
    stage.reaches(INNER_GATEWAY_V4);
}

#[test]
fn every_reading_verb_speaks_json_takes_short_ids_and_refuses_with_its_code() {
    let stage = Stage::new();
    let (id, _) = stage.session();
    let short = &id[..6];
    let both: [&[&str]; 6] = [
        &["status"],
        &["sessions"],
        &["sessions", short],
        &["sessions", short, "history"],
        &["paths"],
        &["explain", "LOSS"],
    ];
    for role in [Role::Gateway, Role::Client] {
        for words in both {
            let document = stage.product.json(role, words).expect("a document");
            let schema = document["schema"].as_str().unwrap_or_default();
            assert!(schema.starts_with("jvpn.") && schema.ends_with("/1"), "{role:?} {words:?}: {document:#}");
        }
        let (code, out, said) = stage.product.verb(role, &["events", "--json", "--first", "1"]).expect("runs");
        assert_eq!((code, out.lines().count()), (0, 1), "{said}");
        for line in out.lines() {
            let record: Value = serde_json::from_str(line).expect("one object a line");
            assert!(record["event"].is_string() && record["hash"].is_string(), "{line}");
        }
    }
    for words in [&["peer", "list"][..], &["check"]] {
        let document = stage.product.json(Role::Gateway, words).expect("a document");
        assert!(document["schema"].is_string(), "{words:?}: {document:#}");
    }
    let nothing = if id.starts_with('0') { "f" } else { "0" };
    let refused: [(Role, &[&str], i32, &str); 8] = [
        (Role::Gateway, &["sessions", nothing], 4, "no session starts with"),
        (Role::Gateway, &["terminate", nothing, "--yes"], 4, "no session starts with"),
        (Role::Client, &["jump", "--to", "path-x"], 4, "there are: "),
        // Only the client knows all of its transports: it is asked, and what it does is waited for.
        (Role::Gateway, &["jump", "--to", "path-x"], 5, "transports it has shown: path-"),
        (Role::Gateway, &["jump", "--to", "path-x", "--dry-run"], 5, "it has shown: path-"),
        (Role::Client, &["explain", "LOS"], 4, "did you mean `LOSS`?"),
        (Role::Client, &["sessions", "../../x"], 2, "no id"),
        (Role::Client, &["events", "--since", "soon"], 2, "soon"),
    ];
    for (role, words, expected, part) in refused {
        let (code, out, said) = stage.product.verb(role, words).expect("runs");
        assert_eq!((code, out.as_str()), (expected, ""), "{words:?}: {said}");
        assert!(said.contains(part), "{words:?}: {said}");
    }
    let active = stage.status(Role::Client)["session"]["transport"]["name"].as_str().expect("a name").to_owned();
    let (code, out, _) = stage.product.verb(Role::Client, &["jump", "--to", &active]).expect("runs");
    assert!(code == 0 && out.contains("already"), "{out}");
    let other = if active == "path-a" { "path-b" } else { "path-a" };
    until("a jump", &stage, || stage.product.verb(Role::Client, &["jump", "--to", other]).expect("runs").0 == 0);
    let paths = stage.product.json(Role::Client, &["paths"]).expect("paths");
    let bound = paths["paths"].as_array().expect("paths[]").iter().filter(|path| path["gateway_says"] == "bound");
    assert_eq!(bound.map(|path| &path["name"]).collect::<Vec<_>>(), [other], "{paths:#}");
    let (code, _, said) = stage.product.verb(Role::Client, &["status", "--check"]).expect("runs");
    assert_eq!(code, 0, "{said}");
    // From the gateway's side the same: a jump that is there already, and one that is waited for.
    let (code, out, said) = stage.product.verb(Role::Gateway, &["jump", "--to", other]).expect("runs");
    assert!(code == 0 && out.contains("already"), "{out}{said}");
    until("a jump the gateway asks for", &stage, || {
        let (code, out, _) = stage.product.verb(Role::Gateway, &["jump", "--to", &active]).expect("runs");
        code == 0 && (out.contains("jumped (version") || out.contains("already"))
    });
    let session = stage.product.json(Role::Gateway, &["sessions"]).expect("sessions")["sessions"][0].clone();
    assert_eq!(session["transport"]["name"], *active, "{session:#}");
    let shown = session["candidates"].as_array().expect("candidates[]").iter().map(|candidate| &candidate["name"]);
    assert!(shown.into_iter().any(|name| name == other), "by the client's name: {session:#}");
    let (code, out, _) = stage.product.verb(Role::Gateway, &["terminate", short, "--yes"]).expect("runs");
    assert!(code == 0 && out.contains("OPERATOR_TERMINATION"), "{out}");
}

/// Writes the gateway's file again with other lines in its class.
fn bounds(stage: &Stage, lines: &str) {
    let file = stage.files(Role::Gateway).join("gateway.toml");
    let text = fs::read_to_string(&file).expect("a file");
    let (kept, _) = text.split_once("\n[policy.field]").unwrap_or((&text, ""));
    fs::write(&file, format!("{kept}\n[policy.field]\n{lines}\n")).expect("written");
}

/// What a side shows of a key: value, what waits, and where it comes from; then the versions of gateway and client.
fn bound(stage: &Stage, role: Role, key: &str) -> (String, String, String, bool) {
    let words: &[&str] = if role == Role::Gateway { &["policy", "show", "till-17"] } else { &["policy", "show"] };
    let shown = stage.product.json(role, words).expect("a policy");
    let values = shown["values"].as_array().expect("values");
    let value = values.iter().find(|value| value["key"] == key).expect("the key");
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    (text("value"), text("next"), text("source"), shown["policy_version"] == shown["client_version"])
}

fn reload(stage: &Stage, words: &[&str]) -> (i32, String, String) {
    stage.product.verb(Role::Gateway, &[&["reload"], words].concat()).expect("runs")
}

fn dead_after(stage: &Stage, role: Role) -> String {
    bound(stage, role, "dead_after").0
}

#[test]
fn policies_are_reloaded_under_a_session_that_notices_nothing_and_its_client_shows_them() {
    let stage = Stage::with(&Setup { xdp: Xdp::Detached, ..Setup::default() });
    let server = Server::start(&stage.lab.topology.gateway(), INNER_GATEWAY_V4.parse().expect("an address"));
    let server = server.expect("a server");
    let download = Download::start(&stage.lab.topology.client(), server.address).expect("a download");
    let before = stage.session();

    bounds(&stage, "dead_after = \"45ms\"");
    let (code, out, said) = reload(&stage, &["--dry-run", "--mode", "strict"]);
    assert!(code == 0 && out.contains("~ policy field dead_after: 30ms → 45ms (till-17)"), "{out}{said}");
    assert_eq!(dead_after(&stage, Role::Gateway), "30ms", "a dry run changes nothing");
    let (code, out, said) = reload(&stage, &["--mode", "strict"]);
    assert!(code == 0 && out.contains("dead_after: 30ms → 45ms"), "{out}{said}");
    until("the client shows the snapshot", &stage, || dead_after(&stage, Role::Client) == "45ms");
    until("its acknowledgement", &stage, || bound(&stage, Role::Gateway, "dead_after").3);
    assert!(bound(&stage, Role::Gateway, "dead_after").2.contains("gateway.toml:"), "where it comes from");

    bounds(&stage, "dead_after = \"60ms\"");
    let (code, _, said) = reload(&stage, &["--mode", "grace"]);
    assert_eq!(code, 0, "{said}");
    let (value, next, ..) = bound(&stage, Role::Gateway, "dead_after");
    assert_eq!((value.as_str(), next.as_str()), ("45ms", "60ms"));

    bounds(&stage, "dead_after = \"1ms\"");
    let (code, out, said) = reload(&stage, &[]);
    let places = said.contains("gateway.toml:") && said.contains("must lie between 5ms and 10s");
    assert!((code, out.as_str()) == (2, "") && places && said.contains("nothing was changed"), "{said}");
    let hangup = || {
        let pid = stage.product.pid(Role::Gateway).expect("runs").cast_signed();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), Signal::HUP).expect("sent");
    };
    hangup();
    until("the log says why", &stage, || stage.log(Role::Gateway).contains("SIGHUP: nothing was changed"));

    let file = stage.files(Role::Gateway).join("gateway.toml");
    let text = fs::read_to_string(&file).expect("a file").replace("1ms", "60ms");
    fs::write(&file, text.replace("masquerade = false", "masquerade = true")).expect("written");
    let (code, out, said) = reload(&stage, &[]);
    let named = said.contains("masquerade: false → true") && said.contains("start the gateway again");
    assert!((code, out.as_str()) == (5, "") && named, "{said}");
    fs::write(&file, text).expect("written");
    assert_eq!(stage.session(), before, "no reload is a transition");
    assert_eq!(dead_after(&stage, Role::Client), "45ms", "what waits is not told");

    let to = if stage.status(Role::Client)["session"]["transport"]["name"] == "path-a" { "path-b" } else { "path-a" };
    let (code, _, said) = stage.product.verb(Role::Client, &["jump", "--to", to]).expect("jump");
    assert_eq!(code, 0, "{said}");
    until("the client shows what waited", &stage, || dead_after(&stage, Role::Client) == "60ms");

    bounds(&stage, "dead_after = \"70ms\"");
    hangup();
    until("SIGHUP is a reload with grace", &stage, || bound(&stage, Role::Gateway, "dead_after").1 == "70ms");
    assert_eq!(stage.session().0, before.0);
    let (code, out, said) = stage.product.verb(Role::Gateway, &["why", &before.0, "--all"]).expect("why");
    assert_eq!(code, 0, "every transition replays under the text in force for it: {out}{said}");
    assert!(download.alive(), "the download never noticed");
    drop((download, server));
}

#[test]
fn an_emergency_refuses_every_wish_to_move_lets_a_loss_pass_and_outlives_a_restart() {
    let mut stage = Stage::with(&Setup { xdp: Xdp::Detached, ..Setup::default() });
    let (id, _) = stage.session();
    let on = |stage: &Stage| stage.status(Role::Client)["session"]["transport"]["name"].as_str().map(str::to_owned);
    let from = on(&stage).expect("a transport");
    let to = if from == "path-a" { "path-b" } else { "path-a" };
    let gateway = |stage: &Stage, words: &[&str]| stage.product.verb(Role::Gateway, words).expect("runs");
    let (code, out, said) = gateway(&stage, &["policy", "emergency", "on", &id[..8]]);
    assert!(code == 0 && out.contains("under emergency: till-17"), "{out}{said}");
    until("the client has the snapshot", &stage, || bound(&stage, Role::Client, "better_switching").0 == "frozen");
    let (_, _, source, _) = bound(&stage, Role::Gateway, "better_switching");
    assert_eq!(source, "emergency");
    let status = stage.status(Role::Gateway);
    let [frozen] = status["emergencies"].as_array().expect("a list").as_slice() else { panic!("{status}") };
    let since = frozen["since"].as_str().expect("a time").to_owned();
    assert_eq!((&frozen["peers"][0], &frozen["policy"]), (&Value::from("till-17"), &Value::from("field")));
    let (_, out, _) = gateway(&stage, &["status"]);
    assert!(out.contains("optional moves of till-17 (class field) are frozen since"), "{out}");
    assert!(out.contains("end: jvpn-ctl policy emergency off till-17"), "{out}");
    let (code, out, said) = gateway(
        &stage,
        &["policy", "test", "--scenario", "better", "--peer", "till-17", "--compare", "field", "--json"],
    );
    assert!(code == 0 && said.contains("till-17 is under emergency"), "{code}: {said}");
    let tested: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(tested["emergency"], true);
    let in_force = stage.product.json(Role::Gateway, &["policy", "show", "till-17"]).expect("JSON");
    let tried = [0, 1].map(|run| &tested["runs"][run]["policy_version"]);
    assert!(
        *tried[0] == in_force["policy_version"] && tried[0] != tried[1],
        "a class is tried as it stands: {tried:?}"
    );
    let before = stage.session();
    let (code, _, said) = gateway(&stage, &["jump", "--to", to]);
    assert!(code == 5 && said.contains("SWITCHING_FROZEN"), "{code}: {said}");
    let (code, _, said) = stage.product.verb(Role::Client, &["jump", "--to", to]).expect("runs");
    assert_eq!(code, 5, "{said}");
    assert_eq!(stage.session(), before, "nothing moved");
    let (_, out, _) = gateway(&stage, &["events", "--reason", "SWITCHING_FROZEN"]);
    assert!(out.contains("TRANSPORT_SWITCH_DENIED"), "a refusal is recorded: {out}");

    let client = stage.lab.topology.client();
    let uplink = if from == "path-a" { Path::A } else { Path::B }.uplink();
    client.ip(&format!("link set {uplink} down\n")).expect("gone");
    until("a loss moves it all the same", &stage, || on(&stage).as_deref() == Some(to));
    client.ip(&format!("link set {uplink} up\n")).expect("back");
    stage.lab.topology.route("client").expect("routes");

    stage.product.stop(Role::Gateway).expect("stopped");
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("a session");
    until("it is as before the restart", &stage, || {
        bound(&stage, Role::Gateway, "better_switching").0 == "frozen" && stage.session().0 == id
    });
    assert_eq!(stage.status(Role::Gateway)["emergencies"][0]["since"], since.as_str(), "since it began");
    let (code, _, said) = gateway(&stage, &["policy", "emergency", "off", "till-71"]);
    assert!(code == 4 && said.contains("did you mean `till-17`?"), "{code}: {said}");
    let (code, out, said) = gateway(&stage, &["policy", "emergency", "off", "till-17"]);
    assert!(code == 0 && out.contains("nobody is under emergency"), "{out}{said}");
    assert_eq!(stage.status(Role::Gateway)["emergencies"], Value::Array(Vec::new()));
    let (code, _, said) = gateway(&stage, &["policy", "emergency", "off", "till-17"]);
    assert!(code == 5 && said.contains("till-17 is not under emergency"), "{code}: {said}");
    until("a wish is free again", &stage, || {
        let (code, ..) = stage.product.verb(Role::Client, &["jump", "--to", &from]).expect("runs");
        code == 0 && on(&stage).as_deref() == Some(&from)
    });
}
