//! The kernel program on a host that carries other traffic: it is tried before it stays, replaced without a lost packet,
//! survives its gateway's death at any instant, and leaves everybody else alone.
//!
//! Needs root and a built jvpn-ctl, like the lab. Never touches an interface but of its own namespaces, never skips.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use jvpn_common::abi::LocatorEntry;
use jvpn_ctl::dataplane::locators;
use jvpn_ctl::dataplane::pins::Pins;
use jvpn_tests::lab::clock::now_ns;
use jvpn_tests::lab::mode::{self, Xdp};
use jvpn_tests::lab::netns::run;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::record::live_session;
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{GATEWAY_V4, LAN_V4};
use jvpn_tests::lab::{Lab, pass, require_root};
use jvpn_tests::size;
use rustix::process::{Pid, Signal, kill_process};
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

    fn pins(&self) -> Pins {
        Pins::below(self.lab.pin_root().join("gateway"))
    }

    fn files(&self) -> PathBuf {
        self.product.log_file(Role::Gateway).parent().expect("a directory").to_owned()
    }

    /// Runs a verb of the gateway: exit code, and both outputs.
    fn verb(&self, words: &[&str]) -> (i32, String) {
        let (code, out, said) = self.product.verb(Role::Gateway, words).expect("it runs");
        (code, out + &said)
    }

    /// Starts a verb of the gateway and leaves it running.
    fn start(&self, words: &[&str], input: Stdio) -> Child {
        let mut command = Command::new(find_binary().expect("a binary"));
        command.args(words).env("JVPN_CONFIG", self.files().join("gateway.toml")).stdin(input);
        command.env("JVPN_STATE_DIR", self.files().join("state")).env("JVPN_RUN_DIR", self.files().join("run"));
        command.env("JVPN_PIN_ROOT", self.pins().root()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.lab.topology.gateway().enter(move || Ok(command.spawn()?)).expect("it starts")
    }

    /// Id of the program on the gateway's interface.
    fn program(&self) -> Option<u64> {
        let gateway = self.lab.topology.gateway();
        let json = gateway.run(&["ip", "-j", "link", "show", "dev", "wan"], None).expect("wan");
        let link: Value = serde_json::from_str(&json).expect("JSON");
        link[0]["xdp"]["prog"]["id"].as_u64()
    }

    /// The interface carries what is not the tunnel's.
    fn is_usable(&self) {
        let address = GATEWAY_V4.parse().expect("an address");
        ping(&self.lab.topology.client(), address, 56, PATIENCE).expect("the interface carries packets");
    }

    /// The tunnel carries packets, now or soon.
    fn reaches(&self) {
        let (client, ip) = (self.lab.topology.client(), LAN_V4.parse().expect("an address"));
        until("an answer inside the tunnel", || ping(&client, ip, 56, Duration::from_secs(1)).is_ok());
    }
}

#[track_caller]
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !there() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for the end of a process: exit code and what it said.
fn ended(mut child: Child) -> (Option<i32>, String) {
    until("it ends", || child.try_wait().expect("a child").is_some());
    let output = child.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn a_program_on_trial_goes_with_its_process_or_its_time_and_stays_once_it_is_confirmed() {
    let mut stage = Stage::new();
    stage.product.stop(Role::Gateway).expect("stopped");
    assert_eq!(stage.verb(&["unload", "wan"]).0, 0);
    let (code, said) = stage.verb(&["load", "--confirm", "wan"]);
    assert!(code == 4 && said.contains("--confirm-within"), "{said}");

    // Killed: it is gone, and the interface is as it was.
    let mut trial = stage.start(&["load", "wan", "--confirm-within", "10min"], Stdio::null());
    until("it is attached", || stage.program().is_some());
    stage.is_usable();
    for words in [&["serve"][..], &["load", "wan"]] {
        let (code, said) = stage.verb(words);
        assert!(code == 5 && said.contains("load --confirm wan"), "{words:?}: {said}");
    }
    assert!(trial.try_wait().expect("a child").is_none(), "the end of its input confirms nothing");
    trial.kill().expect("killed");
    trial.wait().expect("an end");
    until("it is gone", || stage.program().is_none());
    stage.is_usable();
    assert_eq!(stage.verb(&["cleanup"]).0, 0);

    // Not confirmed in time: off again when it says so, and nothing is left.
    let (code, said) = ended(stage.start(&["load", "wan", "--confirm-within", "1s"], Stdio::null()));
    assert!(code == Some(1) && said.contains("not confirmed within 1s"), "{said}");
    assert_eq!((stage.program(), stage.pins().root().exists()), (None, false));

    // Enter.
    let mut trial = stage.start(&["load", "wan", "--confirm-within", "10min"], Stdio::piped());
    until("it is attached", || stage.program().is_some());
    assert!(!stage.pins().link("wan").exists());
    trial.stdin.as_mut().expect("piped").write_all(b"\n").expect("entered");
    let (code, said) = ended(trial);
    assert_eq!(code, Some(0), "{said}");
    assert!(stage.program().is_some() && stage.pins().link("wan").exists());
    let (code, said) = stage.verb(&["load", "wan", "--confirm-within", "1s"]);
    assert!(code == 5 && said.contains("pinned already"), "{said}");
    assert_eq!(stage.verb(&["unload", "wan"]).0, 0);

    // From another shell.
    let trial = stage.start(&["load", "wan", "--confirm-within", "10min", "--json"], Stdio::null());
    until("it is attached", || stage.program().is_some());
    let (code, said) = stage.verb(&["load", "--confirm", "wan"]);
    assert!(code == 0 && said.contains("it stays"), "{said}");
    let (code, said) = ended(trial);
    assert!(code == Some(0) && said.contains("\"schema\":\"jvpn.load/1\""), "{said}");
    assert!(stage.program().is_some() && stage.pins().link("wan").exists());
    let (code, said) = stage.verb(&["load", "--confirm", "wan"]);
    assert!(code == 0 && said.contains("pinned already"), "{said}");
    let program = stage.program();
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("a session");
    stage.reaches();
    assert_eq!(stage.program(), program, "a start leaves a program of its own build in place");
}

/// A TCP connection to the gateway's own address, beside the tunnel: what it sends every 10 ms comes back.
struct Beside {
    stop: Arc<AtomicBool>,
    sent: JoinHandle<Vec<u64>>,
    came: JoinHandle<Vec<u64>>,
    _echo: JoinHandle<()>,
}

impl Beside {
    const PERIOD: Duration = Duration::from_millis(10);
    const MESSAGE: usize = 1_024;

    fn start(stage: &Stage) -> Beside {
        let address = (GATEWAY_V4, 9_000);
        let listener = stage.lab.topology.gateway().enter(|| Ok(TcpListener::bind(address)?)).expect("a listener");
        let echo = thread::spawn(move || {
            let (mut from, _) = listener.accept().expect("a connection");
            let mut to = from.try_clone().expect("a socket");
            // It ends with the connection.
            let _ = std::io::copy(&mut from, &mut to);
        });
        let stream = stage.lab.topology.client().enter(|| Ok(TcpStream::connect(address)?)).expect("connected");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (mut reader, mut writer) = (stream.try_clone().expect("a socket"), stream);
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let sent = thread::spawn(move || {
            let mut times = Vec::new();
            while !ends.load(Relaxed) {
                writer.write_all(&[7; Self::MESSAGE]).expect("the connection lives");
                times.push(now_ns());
                thread::sleep(Self::PERIOD);
            }
            writer.shutdown(Shutdown::Write).expect("the connection lives");
            times
        });
        let came = thread::spawn(move || {
            let (mut times, mut buffer) = (Vec::new(), [0; Self::MESSAGE]);
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return times,
                    Ok(_) => times.push(now_ns()),
                    Err(error) => panic!("the other connection broke: {error}"),
                }
            }
        });
        Beside { stop, sent, came, _echo: echo }
    }

    /// Ends it: the longest time nothing came, less the longest its sender stood still, which is the machine's doing.
    fn stalled(self) -> Duration {
        let longest = |times: &[u64]| times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX);
        self.stop.store(true, Relaxed);
        let (sent, came) = (self.sent.join().expect("it sent"), self.came.join().expect("it came back"));
        let (gap, machine) = (longest(&came), longest(&sent));
        println!(
            "beside the tunnel: {} messages, {} ms without one, sender {} ms",
            sent.len(),
            gap / 1_000_000,
            machine / 1_000_000
        );
        Duration::from_nanos(gap.saturating_sub(machine))
    }
}

/// Where in its life a gateway is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// While it starts over what the one before left.
    Start,
    /// While it starts where nothing is loaded.
    Bare,
    /// While its client resumes.
    Handshake,
    Jump,
    /// While it ends in order.
    Stop,
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    /// A time up to `limit`, to a tenth of a millisecond.
    fn within(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(100 * self.below(u64::try_from(limit.as_micros()).expect("short") / 100))
    }
}

impl Stage {
    fn session(&self) -> String {
        let sessions = self.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        live_session(&sessions).expect("one session").id
    }

    /// Id and version of the session, once it has not moved for a while.
    fn settled(&self) -> (String, u64) {
        let now = || {
            let sessions = self.product.json(Role::Gateway, &["sessions"]).expect("sessions");
            let session = live_session(&sessions).expect("one session");
            (session.id, session.state_version)
        };
        let (mut last, mut since) = (now(), Instant::now());
        until("the session stays where it is", || {
            let next = now();
            if next != last {
                (last, since) = (next, Instant::now());
            }
            since.elapsed() > Duration::from_secs(3)
        });
        last
    }

    /// Kills the gateway, which runs, at a moment of its life; it is dead afterwards.
    fn kill_at(&mut self, moment: Moment, random: &mut Random) {
        let client = &self.product;
        match moment {
            Moment::Jump => {
                let to = if random.below(2) == 0 { "path-a" } else { "path-b" };
                let wait = random.within(Duration::from_millis(60));
                thread::scope(|scope| {
                    // It may be refused, or never answered.
                    scope.spawn(|| client.verb(Role::Client, &["jump", "--to", to]));
                    thread::sleep(wait);
                    signal(client.pid(Role::Gateway).expect("it runs"), Signal::KILL);
                });
            }
            Moment::Stop => {
                let pid = client.pid(Role::Gateway).expect("it runs");
                signal(pid, Signal::TERM);
                thread::sleep(random.within(Duration::from_millis(600)));
                signal(pid, Signal::KILL);
            }
            Moment::Start | Moment::Bare | Moment::Handshake => {
                self.product.kill(Role::Gateway).expect("killed");
                if matches!(moment, Moment::Bare) {
                    assert_eq!(self.verb(&["cleanup"]).0, 0);
                }
                let limit = if matches!(moment, Moment::Handshake) { 1_500 } else { 400 };
                self.product.start_side(Role::Gateway).expect("started");
                thread::sleep(random.within(Duration::from_millis(limit)));
            }
        }
        self.product.kill(Role::Gateway).expect("killed");
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    // A gateway that ended by itself is a zombie until it is waited for: it can be signalled.
    kill_process(pid, signal).expect("it is there");
}

#[test]
fn a_gateway_killed_at_any_instant_stalls_nobody_else_and_its_session_comes_back() {
    const SEED: u64 = 0x6a76_706e;
    let (mut stage, mut random) = (Stage::new(), Random(SEED));
    let (id, beside) = (stage.session(), Beside::start(&stage));
    let kills = size::of(20, 200);
    for number in 0..kills {
        let moment = [Moment::Start, Moment::Bare, Moment::Handshake, Moment::Jump, Moment::Stop][number % 5];
        stage.kill_at(moment, &mut random);
        stage.product.start_side(Role::Gateway).expect("started");
        if let Err(error) = stage.product.wait_healthy() {
            panic!("seed {SEED:#x}, kill {number}, {moment:?}: {error:#}");
        }
        stage.reaches();
        assert_eq!(stage.session(), id, "seed {SEED:#x}, kill {number}, {moment:?}");
    }
    let stalled = beside.stalled();
    assert!(stalled <= Duration::from_secs(1), "{stalled:?} in {kills} kills of seed {SEED:#x}");
    // The record, through all of it, is whole.
    let (code, said) = stage.verb(&["events", "--json", "--first", "1"]);
    assert_eq!(code, 0, "{said}");
}

/// A gateway and a client of their own beside the lab's, on the gateway's other interface: `serve` in the gateway's
/// namespace, its client in the LAN's. Dropping it kills both.
struct Second {
    directory: PathBuf,
    port: u16,
    children: Vec<Child>,
}

impl Second {
    const INNER: &str = "10.78.0.1";

    fn prepare(stage: &Stage, port: u16) -> Second {
        let directory = stage.lab.files().join("second");
        fs::create_dir(&directory).expect("a directory");
        let program = pass::load().expect("a program");
        pass::attach(&stage.lab.topology.lan(), "lan", &program).expect("attached");
        stage.lab.topology.gateway().run(&["ethtool", "-K", "lan", "gro", "on"], None).expect("ethtool");
        let key = |name: &str| {
            let tool = find_binary().expect("a binary");
            let tool = tool.to_str().expect("UTF-8");
            let private = run(&[tool, "genkey"], None).expect("a key");
            let public = run(&[tool, "pubkey"], Some(&private)).expect("a key");
            private_file(&directory.join(name), &private);
            public.trim().to_owned()
        };
        let (gateway, client) = (key("gateway.key"), key("client.key"));
        let at = directory.display();
        private_file(
            &directory.join("gateway.toml"),
            &format!(
                "[gateway]\nname = \"gw-second\"\nprivate_key_file = \"{at}/gateway.key\"\nlisten = {port}\n\
                 interfaces = [\"lan\"]\nxdp = \"{}\"\ntun = \"jvpn1\"\naddresses = [\"{}/24\"]\nmasquerade = false\n\n\
                 [[peer]]\nname = \"second\"\npublic_key = \"{client}\"\naddresses = [\"10.78.0.17/32\"]\n",
                Xdp::Switched.key().expect("a mode"),
                Self::INNER
            ),
        );
        private_file(
            &directory.join("client.toml"),
            &format!(
                "[client]\nname = \"second\"\nprivate_key_file = \"{at}/client.key\"\ntun = \"jvpn0\"\n\
                 routes = [\"10.78.0.0/24\"]\n\n[gateway]\npublic_key = \"{gateway}\"\n\
                 endpoints = [\"192.168.77.1:{port}\"]\n\n[[transport]]\nname = \"lan\"\ninterface = \"lan\"\n"
            ),
        );
        Second { directory, port, children: Vec::new() }
    }

    fn command(&self, stage: &Stage, side: &str, words: &[&str]) -> Command {
        let mut command = Command::new(find_binary().expect("a binary"));
        command.args(words).env("JVPN_CONFIG", self.directory.join(format!("{side}.toml"))).stdin(Stdio::null());
        command.env("JVPN_STATE_DIR", self.directory.join(format!("{side}.state")));
        command.env("JVPN_RUN_DIR", self.directory.join(format!("{side}.run")));
        command.env("JVPN_PIN_ROOT", stage.lab.pin_root().join("second"));
        command
    }

    fn start(&mut self, stage: &Stage) {
        let (gateway, lan) = (stage.lab.topology.gateway(), stage.lab.topology.lan());
        for (space, side, verb) in [(gateway, "gateway", "serve"), (lan, "client", "connect")] {
            let log = fs::OpenOptions::new().create(true).append(true).open(self.log(side)).expect("a log");
            let mut command = self.command(stage, side, &[verb]);
            command.stdout(Stdio::null()).stderr(log);
            self.children.push(space.enter(move || Ok(command.spawn()?)).expect("it starts"));
        }
    }

    fn log(&self, side: &str) -> PathBuf {
        self.directory.join(format!("{side}.log"))
    }

    fn reaches(&self, stage: &Stage) {
        let (lan, ip) = (stage.lab.topology.lan(), Self::INNER.parse().expect("an address"));
        let deadline = Instant::now() + PATIENCE;
        // Without the tunnel the address would be reached as well, through the gateway's other interface.
        let routed = || lan.run(&["ip", "route", "get", Self::INNER], None).is_ok_and(|route| route.contains("jvpn0"));
        while self.live(stage).is_none() || !routed() || ping(&lan, ip, 56, Duration::from_secs(1)).is_err() {
            let logs = ["gateway", "client"].map(|side| fs::read_to_string(self.log(side)).unwrap_or_default());
            assert!(
                Instant::now() < deadline,
                "port {}: no answer inside the second tunnel\n{}",
                self.port,
                logs.concat()
            );
        }
        mode::confirm(Xdp::Switched, &stage.lab.topology.gateway(), "lan").expect("the second gateway's program");
    }

    fn live(&self, stage: &Stage) -> Option<String> {
        let mut command = self.command(stage, "gateway", &["sessions", "--json"]);
        let output = stage.lab.topology.gateway().enter(move || Ok(command.output()?)).expect("it runs");
        live_session(&serde_json::from_slice(&output.stdout).ok()?).ok().map(|session| session.id)
    }

    fn session(&self, stage: &Stage) -> String {
        self.live(stage).expect("one session")
    }

    fn kill(&mut self) {
        for child in &mut self.children {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.children.clear();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.kill();
    }
}

fn private_file(path: &FilePath, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("private");
}

#[test]
fn two_gateways_on_two_interfaces_of_one_host_work_at_once_and_the_death_of_one_is_not_the_others() {
    let mut stage = Stage::new();
    let mut second = Second::prepare(&stage, 51_822);
    second.start(&stage);
    second.reaches(&stage);
    stage.reaches();
    let (one, two) = (stage.session(), second.session(&stage));
    assert_ne!(one, two);
    let dump = |pins: &FilePath| {
        let entries = fs::read_dir(pins).expect("pins").flatten().map(|entry| entry.file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let pins = [stage.pins().root().to_owned(), stage.lab.pin_root().join("second")];
    let before = pins.each_ref().map(|pins| dump(pins));
    assert!(before[0].len() > 10 && before[0] == before[1], "{before:?}");

    // The first dies while packets of the second go on, and comes back.
    let lan = stage.lab.topology.lan();
    stage.product.kill(Role::Gateway).expect("killed");
    for _ in 0..20 {
        ping(&lan, Second::INNER.parse().expect("an address"), 56, Duration::from_secs(5)).expect("it goes on");
    }
    assert_eq!(second.session(&stage), two);
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("healthy");
    stage.reaches();
    assert_eq!(stage.session(), one);

    // The second dies, is removed, and comes back; the first notices nothing.
    let version = |stage: &Stage| {
        let sessions = stage.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        live_session(&sessions).expect("one session").state_version
    };
    let (settled, program) = (version(&stage), stage.program());
    second.kill();
    let (mut cleanup, gateway) = (second.command(&stage, "gateway", &["cleanup"]), stage.lab.topology.gateway());
    let output = gateway.enter(move || Ok(cleanup.output()?)).expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(!pins[1].exists() && dump(&pins[0]) == before[0]);
    stage.reaches();
    assert_eq!((stage.session(), version(&stage), stage.program()), (one, settled, program));
    second.start(&stage);
    second.reaches(&stage);
    stage.reaches();
}

#[test]
fn a_second_gateway_on_the_port_of_the_first_says_so_and_harms_nothing() {
    let stage = Stage::new();
    let one = stage.session();
    let second = Second::prepare(&stage, 51_821);
    let (mut serve, gateway) = (second.command(&stage, "gateway", &["serve"]), stage.lab.topology.gateway());
    let output = gateway.enter(move || Ok(serve.output()?)).expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("51821"), "{said}");
    stage.reaches();
    assert_eq!(stage.session(), one);
}

/// All of the maps that belongs to sessions: locators, slots, keys.
type Contents = (BTreeMap<u64, LocatorEntry>, Vec<[u64; 16]>, Vec<[u64; 4]>);

fn sessions_in(pins: &Pins) -> Contents {
    let map = |name: &str| MapData::from_pin(pins.map(name)).expect("a pinned map");
    let locators = locators::table(pins).expect("LOCATORS").all();
    let sessions = Array::<_, [u64; 16]>::try_from(Map::Array(map("SESSIONS"))).expect("SESSIONS");
    let keys = Array::<_, [u64; 4]>::try_from(Map::Array(map("KEYS"))).expect("KEYS");
    (
        locators,
        sessions.iter().map(|item| item.expect("a slot")).collect(),
        keys.iter().map(|k| k.expect("keys")).collect(),
    )
}

#[test]
fn with_every_slot_taken_the_next_client_is_refused_with_the_reason_and_nothing_else_changes() {
    let mut stage = Stage::new();
    let second = Second::prepare(&stage, 51_822);
    stage.product.stop(Role::Gateway).expect("stopped");
    assert_eq!(stage.verb(&["cleanup"]).0, 0);
    // One slot, and a second peer: the client that `Second` prepared, towards this gateway.
    let file = stage.files().join("gateway.toml");
    let peer = fs::read_to_string(second.directory.join("gateway.toml")).expect("a file");
    let peer = peer.split_once("[[peer]]").expect("a peer").1.replace("10.78.0.17", "10.77.0.18");
    let config = fs::read_to_string(&file).expect("a file");
    let config = config.replacen("[gateway]\n", "[gateway]\nmax_sessions = 1\n", 1) + "\n[[peer]]" + &peer;
    private_file(&file, &config);
    let (code, said) = stage.verb(&["load", "wan", "--dry-run"]);
    let price = "1 sessions take 712 B, 712 bytes each at any number of processors";
    assert!(code == 0 && said.contains(price) && said.contains("kernels 6.1 and newer"), "{said}");
    stage.product.start_side(Role::Gateway).expect("started");
    stage.product.wait_healthy().expect("a session");
    stage.reaches();
    let client = fs::read_to_string(second.directory.join("client.toml")).expect("a file");
    let own = fs::read_to_string(stage.product.log_file(Role::Client).with_file_name("client.toml")).expect("a file");
    let line = |text: &str, key: &str| text.lines().find(|line| line.starts_with(key)).expect("a line").to_owned();
    let client = client.replace(&line(&client, "public_key"), &line(&own, "public_key")).replace(":51822", ":51821");
    private_file(&second.directory.join("client.toml"), &client);

    let mut command = second.command(&stage, "client", &["connect"]);
    let log = second.log("client");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a log"));
    let mut other = stage.lab.topology.lan().enter(move || Ok(command.spawn()?)).expect("it starts");
    let refusals = || fs::read_to_string(&log).expect("a log").matches("CAPACITY_REACHED").count();
    until("it is refused with the reason", || refusals() > 0);
    // A session may move for reasons of its own on a busy machine, but not each time that somebody is refused.
    let first = stage.settled().0;
    let undisturbed = (0..5).any(|_| {
        let (settled, before, refused) = (stage.settled(), sessions_in(&stage.pins()), refusals());
        until("it is refused again", || refusals() > refused);
        stage.reaches();
        assert_eq!(stage.settled().0, first, "one session, the same");
        (stage.settled(), sessions_in(&stage.pins())) == (settled, before)
    });
    assert!(undisturbed, "the session and the maps stay as they were");
    // The one who waits gets the slot as soon as it is free.
    stage.product.stop(Role::Client).expect("stopped");
    until("the slot is given to the other", || {
        let sessions = stage.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        live_session(&sessions).is_ok_and(|session| session.id != first)
    });
    other.kill().expect("killed");
    other.wait().expect("an end");
}
