//! A real session's record proves what happened, alone and offline: a copy of it, as nobody, after a jump, a kill -9 of
//! the gateway and an end. Needs root, like the lab, and a built jvpn-ctl.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside test functions

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::topology::Path;
use jvpn_tests::lab::{Lab, require_root};
use serde_json::Value;

/// What a busy machine may take for anything here; each takes a second or less on an idle one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until the answer fits.
fn until(product: &Product, what: &str, role: Role, words: &[&str], fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = product.json(role, words);
        match answer {
            Ok(answer) if fits(&answer) => return answer,
            _ => assert!(
                Instant::now() < deadline,
                "never: {what}; last {answer:?}\n{}",
                product.log_tail(Role::Gateway)
            ),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn is_attached(all: &Value) -> bool {
    all["sessions"][0]["state"] == "ATTACHED"
}

/// The lab, the product in it, and the one session it has.
fn up() -> (Lab, Product, Value) {
    if let Err(error) = require_root() {
        panic!("{error:#}");
    }
    let lab = Lab::up().expect("a lab");
    let mut product = Product::start(&lab, &Setup::default()).expect("the product");
    product.wait_healthy().expect("a session");
    let mut sessions = until(&product, "a session", Role::Gateway, &["sessions"], is_attached);
    (lab, product, sessions["sessions"][0].take())
}

fn id_of(session: &Value) -> String {
    session["session_id"].as_str().expect("an id").to_owned()
}

/// Waits until the last line of a session's history is its end, for a reason.
fn wait_ended(product: &Product, role: Role, id: &str, reason: &str) {
    until(product, "its end on the record", role, &["sessions", id, "history"], |told| {
        let last = told["history"].as_array().and_then(|steps| steps.last().cloned()).unwrap_or_default();
        (&last["to"], &last["reason"]) == (&"TERMINATED".into(), &reason.into())
    });
}

/// Runs the program as nobody, with no daemon to ask.
fn as_nobody(program: &FilePath, words: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(words);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("NO_COLOR", "1").current_dir("/");
    command.output().expect("setpriv runs")
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it ended"), text(&output.stdout), text(&output.stderr))
}

/// A copy of a record that everybody may read, and of the program.
struct Copy {
    directory: tempfile::TempDir,
    program: PathBuf,
}

impl Copy {
    fn of(record: &FilePath) -> Copy {
        let directory = tempfile::tempdir().expect("a directory");
        let open = |path: &FilePath, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        open(directory.path(), 0o755);
        for entry in fs::read_dir(record).expect("the record") {
            let from = entry.expect("an entry").path();
            let to = directory.path().join(from.file_name().unwrap());
            fs::copy(&from, &to).unwrap();
            open(&to, 0o644);
        }
        let program = directory.path().join("jvpn-ctl");
        fs::copy(find_binary().expect("a built jvpn-ctl"), &program).unwrap();
        open(&program, 0o755);
        Copy { directory, program }
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        let dir = self.directory.path().to_str().unwrap();
        let words: Vec<_> = words.iter().map(|word| if *word == "DIR" { dir } else { word }).collect();
        said(&as_nobody(&self.program, &words))
    }

    fn segment(&self) -> PathBuf {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("record-");
        let mut all: Vec<_> =
            fs::read_dir(&self.directory).unwrap().map(|entry| entry.unwrap().path()).filter(name).collect();
        all.sort();
        all.remove(0)
    }
}

/// Where a gateway of the lab keeps its record: said by itself, looked for below its files.
fn record_of(product: &Product) -> PathBuf {
    let files = product.log_file(Role::Gateway).parent().unwrap().to_owned();
    let mut left = vec![files];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() == "audit" {
                return path;
            }
            if path.is_dir() {
                left.push(path);
            }
        }
    }
    panic!("no record")
}

#[test]
fn a_copy_of_the_record_proves_offline_why_a_session_moved_and_ended() {
    let (_lab, mut product, session) = up();
    let id = id_of(&session);
    let on = session["transport"]["name"].as_str().expect("a transport").to_owned();
    let other = Path::BOTH.map(Path::transport).into_iter().find(|name| *name != on).expect("two paths");
    until(&product, "a jump", Role::Client, &["jump", "--to", other], |jumped| jumped["schema"] == "jvpn.jump/1");
    product.kill(Role::Gateway).expect("killed");
    product.start_side(Role::Gateway).expect("started again");
    let attached = |all: &Value| {
        all["sessions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["session_id"] == id.as_str() && one["state"] == "ATTACHED"))
    };
    until(&product, "the same session again", Role::Gateway, &["sessions"], attached);
    let record = record_of(&product);

    // While the gateway runs: what is read is a record, not a snapshot.
    let (code, out, err) = product.verb(Role::Gateway, &["audit", "verify"]).expect("runs");
    assert_eq!(code, 0, "{out}{err}");
    let (code, key, _) = product.verb(Role::Gateway, &["audit", "key"]).expect("runs");
    assert_eq!((code, key.trim().len()), (0, 44));
    let (code, out, err) = product.verb(Role::Gateway, &["terminate", &id, "--yes"]).expect("runs");
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(product.stop(Role::Gateway).expect("stops"), Some(0));
    let (code, shipped, _) = product.verb(Role::Gateway, &["audit", "checkpoint"]).expect("runs");
    assert_eq!((code, shipped.lines().count()), (0, 1));

    let copy = Copy::of(&record);
    let file = copy.directory.path().join("shipped.jsonl");
    fs::write(&file, &shipped).unwrap();
    let verify = ["--json", "audit", "verify", "DIR", "--key", key.trim(), "--checkpoint", file.to_str().unwrap()];
    let (code, out, err) = copy.run(&verify);
    let verified: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &verified["intact"], &verified["fault"]), (0, &true.into(), &Value::Null), "{verified:#}");
    assert_eq!(verified["covered"], verified["last"]);

    let (code, out, err) = copy.run(&["--json", "why", &id[..8], "--record", "DIR"]);
    let why: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &why["state"], &why["session_id"]), (0, &"TERMINATED".into(), &id.as_str().into()), "{why:#}");
    let steps = why["steps"].as_array().expect("steps[]");
    let reasons: Vec<_> = steps.iter().filter_map(|step| step["reason"].as_str()).collect();
    for reason in ["HANDSHAKE_OK", "TRANSPORT_SWITCH_OK", "CONTROLLER_RESTART", "OPERATOR_TERMINATION"] {
        assert!(reasons.contains(&reason), "{reason} is not in {reasons:?}");
    }
    let versions: Vec<_> = steps.iter().map(|step| step["state_version"].as_u64().unwrap()).collect();
    assert!(versions.windows(2).all(|pair| pair[1] == pair[0] + 1), "{versions:?}");

    let (code, out, err) = copy.run(&["sessions", &id[..8], "history", "--record", "DIR"]);
    assert!(code == 0 && out.contains("OPERATOR_TERMINATION"), "{out}{err}");
    let (code, out, err) = copy.run(&["events", "--record", "DIR", "--format", "ocsf", "--session", &id[..8]]);
    assert!(code == 0 && out.lines().count() >= steps.len(), "{out}{err}");
    for line in out.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!((&event["class_uid"], &event["session"]["uid"]), (&4014.into(), &id.as_str().into()));
    }

    // And one word of it changed.
    let segment = copy.segment();
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("OPERATOR_TERMINATION", "CLIENT_TERMINATION", 1)).unwrap();
    let (code, out, _) = copy.run(&verify);
    let verified: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &verified["fault"]["code"]), (6, &"CHANGED".into()), "{verified:#}");
    let (code, _, err) = copy.run(&["why", &id, "--record", "DIR"]);
    assert!(code == 6 && err.contains("was changed"), "{err}");
}

#[test]
fn a_session_whose_keys_may_be_known_ends_with_that_reason_and_only_the_gateway_can_say_so() {
    let (_lab, product, session) = up();
    let id = id_of(&session);
    let end = ["terminate", &id, "--reason", "key-compromise", "--yes"];

    let (code, out, err) = product.verb(Role::Client, &end).expect("runs");
    assert!(code == 1 && err.contains("say why on the gateway"), "{code} {out}{err}");
    let dry = [&end[..], &["--dry-run"]].concat();
    let (code, out, err) = product.verb(Role::Gateway, &dry).expect("runs");
    assert!(code == 0 && out.contains("would end (SEC_KEY_COMPROMISE_SUSPECTED)"), "{code} {out}{err}");
    let sessions = product.json(Role::Gateway, &["sessions"]).expect("an answer");
    assert_eq!((&sessions["sessions"][0]["session_id"], is_attached(&sessions)), (&Value::from(id.as_str()), true));

    let (code, out, err) = product.verb(Role::Gateway, &end).expect("runs");
    assert!(code == 0 && out.contains("ended (SEC_KEY_COMPROMISE_SUSPECTED)"), "{code} {out}{err}");
    for role in [Role::Gateway, Role::Client] {
        wait_ended(&product, role, &id, "SEC_KEY_COMPROMISE_SUSPECTED");
    }
}

#[test]
fn a_session_whose_peer_is_gone_at_a_start_ends_with_a_record_that_replays() {
    let (_lab, mut product, session) = up();
    let id = id_of(&session);
    product.kill(Role::Gateway).expect("killed");
    let file = product.log_file(Role::Gateway).with_file_name("gateway.toml");
    let text = fs::read_to_string(&file).expect("its configuration");
    let peer = text.find("[[peer]]").expect("one peer");
    fs::write(&file, &text[..peer]).expect("written");
    product.start_side(Role::Gateway).expect("started again");
    wait_ended(&product, Role::Gateway, &id, "POLICY_TERMINATION");
    let (code, out, err) = product.verb(Role::Gateway, &["--json", "why", &id]).expect("runs");
    let why: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &why["state"]), (0, &"TERMINATED".into()), "{why:#}");
}
