//! The kernel program on a host that carries other traffic: it is tried before it stays, replaced without a lost packet,
//! survives its gateway's death at any instant, and leaves everybody else alone.
//!
//! Needs root and a built jvpn-ctl, like the lab. Never touches an interface but of its own namespaces, never skips.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jvpn_ctl::dataplane::pins::Pins;
use jvpn_tests::lab::clock::now_ns;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::record::live_session;
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{GATEWAY_V4, LAN_V4};
use jvpn_tests::lab::{Lab, require_root};
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
