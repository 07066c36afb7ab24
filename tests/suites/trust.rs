//! The kernel program on a host that carries other traffic: it is tried before it stays, replaced without a lost packet,
//! survives its gateway's death at any instant, and leaves everybody else alone.
//!
//! Needs root and a built jvpn-ctl, like the lab. Never touches an interface but of its own namespaces, never skips.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use jvpn_ctl::dataplane::pins::Pins;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::{GATEWAY_V4, LAN_V4};
use jvpn_tests::lab::{Lab, require_root};
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
    std::io::Write::write_all(trial.stdin.as_mut().expect("piped"), b"\n").expect("entered");
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
