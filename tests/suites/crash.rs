//! Crashes and restarts: the gateway is killed at random instants while many clients reattach, started on damaged and on
//! restored state, replaced by another binary, put to sleep, given a bad disk; nothing that was acknowledged is lost, repeated or sealed twice.
//!
//! Needs root and a built jvpn-ctl, like the lab. Owns what must hold afterwards; the swarm is `jvpn_tests::swarm`.

#![allow(clippy::unwrap_used)] // helpers of tests stand outside test functions

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path as FilePath, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use jvpn_common::client::{EventKind, Phase};
use jvpn_common::ids::SessionId;
use jvpn_common::reason::Reason;
use jvpn_common::time::Instant as Boot;
use jvpn_ctl::audit;
use jvpn_ctl::runtime::clock::{boot, wall};
use jvpn_ctl::store::Store;
use jvpn_tests::lab::clock::now_ns;
use jvpn_tests::lab::flow::{Direction, Flows};
use jvpn_tests::lab::metric;
use jvpn_tests::lab::mode::Xdp;
use jvpn_tests::lab::netns::run;
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role, find_binary};
use jvpn_tests::lab::record::live_session;
use jvpn_tests::lab::setup::Setup;
use jvpn_tests::lab::tap::{Tap, station};
use jvpn_tests::lab::topology::{GATEWAY_PORT, GATEWAY_V4, INNER_CLIENT_V4, LAN_V4};
use jvpn_tests::lab::{Lab, require_root};
use jvpn_tests::size;
use jvpn_tests::swarm::capture::{Capture, Captured};
use jvpn_tests::swarm::host::{Host, Options};
use jvpn_tests::swarm::{self, Book, Dice, Plan, Swarm, identities};
use serde_json::Value;

#[path = "crash/owners.rs"]
mod owners;

/// Until something that takes a second has happened on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Reattaches a second that the gateway is killed under.
const PACE: u32 = 200;

/// No quality decides anything here: only moves that the swarm began do.
const POLICY: [&str; 10] = [
    "max_switches_per_min = 600",
    "max_requests_per_min = 10000",
    "cooldown = \"0ms\"",
    "probe_interval = \"500ms\"",
    "dead_after = \"1s\"",
    "standby_interval = \"2s\"",
    "loss_threshold = \"100 %\"",
    "loss_floor = \"100 %\"",
    "rtt_threshold = \"30s\"",
    "jitter_threshold = \"30s\"",
];

/// A gateway and a swarm in a lab. The order of fields is the order of the end.
struct Stage {
    swarm: Swarm,
    host: Host,
    lab: Lab,
    members: usize,
}

fn options(xdp: &'static str) -> Options {
    let policy = POLICY.map(str::to_owned).to_vec();
    let environment = vec![("JVPN_LOG".to_owned(), "warn".to_owned())];
    // Two: members of both are killed, restored and watched for a nonce used twice.
    Options { xdp, workers: 2, interface: "wan", port: GATEWAY_PORT, policy, environment }
}

impl Stage {
    fn up(members: usize, xdp: &'static str, seed: u64) -> Stage {
        Self::with(members, &options(xdp), seed)
    }

    fn with(members: usize, options: &Options, seed: u64) -> Stage {
        if let Err(error) = require_root() {
            panic!("{error:#}");
        }
        let lab = Lab::up().expect("a lab");
        let client = lab.topology.client();
        swarm::settle(&lab.topology).expect("addresses, and routes to the swarm");
        let members = identities(members);
        let (gateway, files, pins) = (lab.topology.gateway(), lab.files().join("gw"), lab.pin_root().join("gateway"));
        std::fs::create_dir_all(lab.pin_root()).expect("a pin directory");
        let mut host = Host::prepare(gateway, files, pins, &members, options).expect("files");
        host.start().expect("started");
        host.wait_up(PATIENCE).expect("up");
        let count = members.len();
        let plan = Plan {
            space: client,
            gateway: (GATEWAY_V4.parse::<std::net::Ipv4Addr>().unwrap(), GATEWAY_PORT).into(),
            key: host.key,
            members,
            standby: true,
            ping_every: Some(Duration::from_millis(400)),
            seed,
        };
        let swarm = Swarm::start(plan).expect("a swarm");
        let stage = Stage { swarm, host, lab, members: count };
        stage.all_bound("the first time");
        stage
    }

    /// Waits until every member has a session that is bound, and knows the present start of the gateway.
    #[track_caller]
    fn all_bound(&self, when: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let views = self.swarm.views();
            let newest = views.iter().map(|view| view.incarnation).max();
            let bound = |view: &&jvpn_common::client::View| {
                view.phase == Phase::Connected && Some(view.incarnation) == newest && view.session.is_some()
            };
            let count = views.iter().filter(bound).count();
            if count == self.members {
                return;
            }
            let last = views.iter().find(|view| !bound(view));
            assert!(
                Instant::now() < deadline,
                "{when}: {count} of {} are bound; one that is not: {last:#?}\n{}",
                self.members,
                self.host.log_tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every member has resumed after `since`, and says how long after `up` each did.
    #[track_caller]
    fn all_resumed(&self, since: Boot, up: Boot, when: &str) -> Vec<Duration> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let back = self.resumed(since);
            if back.len() == self.members {
                return back.values().map(|at| at.since(up)).collect();
            }
            assert!(
                Instant::now() < deadline,
                "{when}: {} of {} resumed\n{}",
                back.len(),
                self.members,
                self.host.log_tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// When each member first resumed, or began anew, after an instant.
    fn resumed(&self, since: Boot) -> BTreeMap<usize, Boot> {
        let mut back = BTreeMap::new();
        for acked in self.swarm.book().acked.iter().rev().take_while(|acked| acked.at >= since) {
            if matches!(acked.kind, EventKind::Resumed | EventKind::SessionCreated) {
                back.insert(acked.member, acked.at);
            }
        }
        back
    }

    fn record(&self) -> PathBuf {
        audit::dir_of(&self.host.state())
    }

    fn capture(&self) -> Capture {
        let (router, core) = (self.lab.topology.space("ra"), self.lab.topology.space("core"));
        Capture::start(&[(router, "client"), (core, "gw")], GATEWAY_PORT).expect("a capture")
    }
}

/// What is asked of a sample, in ms: median, 99th percentile, worst.
fn figures(mut times: Vec<Duration>) -> (u128, u128, u128) {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1_000].as_millis();
    (at(500), at(990), at(1_000))
}

/// One transition as the record has it.
#[derive(Debug)]
struct Transition {
    to: String,
    label: Option<String>,
}

/// Transitions of each session by version, and versions that a GAP names.
#[derive(Default)]
struct Lives {
    transitions: BTreeMap<SessionId, BTreeMap<u64, Transition>>,
    gaps: BTreeMap<SessionId, Vec<(u64, u64)>>,
}

impl Lives {
    fn read(record: &FilePath) -> Lives {
        let mut lives = Lives::default();
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok());
        audit::read(record, &audit::Filter::default(), |line, record| {
            let Some(id) = record["session_id"].as_str().and_then(|id| id.parse::<SessionId>().ok()) else {
                return ControlFlow::Continue(());
            };
            let version = number(&record["state_version"]).expect("a version");
            if record["event"] == "GAP" {
                let (first, last) = (number(&record["details"]["first"]), number(&record["details"]["last"]));
                lives.gaps.entry(id).or_default().push((first.expect("a first"), last.expect("a last")));
            } else if !record["after"].is_null() {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let transition = Transition {
                    to: text(&record["to"]).expect("a state"),
                    label: text(&record["transport"]["to"]["label"]),
                };
                let before = lives.transitions.entry(id).or_default().insert(version, transition);
                assert!(before.is_none(), "version {version} of {id} a second time: {line}");
            }
            ControlFlow::Continue(())
        })
        .expect("a record");
        lives
    }

    /// Every version follows the one before, but for named gaps.
    fn no_version_is_missing(&self) {
        for (id, transitions) in &self.transitions {
            let gaps = self.gaps.get(id).map(Vec::as_slice).unwrap_or_default();
            for (before, next) in transitions.keys().zip(transitions.keys().skip(1)) {
                let named = gaps.iter().any(|&(first, last)| (first, last + 1) == (before + 1, *next));
                assert!(*next == before + 1 || named, "{id}: {next} after {before}, gaps {gaps:?}");
            }
        }
    }

    /// What a client was told is in the record, and the gateway never went back behind it.
    fn hold_what_was_acknowledged(&self, book: &Book) {
        let mut last = BTreeMap::new();
        for acked in &book.acked {
            let (id, version) = (acked.session, acked.version.0);
            let known = self.transitions.get(&id).unwrap_or_else(|| panic!("{id} is in no record"));
            let before = last.insert((acked.member, id), version).unwrap_or(0);
            assert!(version >= before, "member {}: {version} after {before}", acked.member);
            if acked.kind != EventKind::TransportSwitch {
                // Message 2 names the version before the resume's own.
                continue;
            }
            assert!(version > before, "member {}: {version} acknowledged twice", acked.member);
            let transition = known.get(&version).unwrap_or_else(|| panic!("{id}: {version} was lost: {acked:?}"));
            let label = acked.to.map(|label| label.to_string());
            assert_eq!(transition.label, label, "{id}, version {version}: {transition:?}");
        }
        for (member, id, reason) in &book.ended {
            let end = self.transitions.get(id).and_then(|life| life.last_key_value());
            let over = end.is_some_and(|(_, end)| end.to == "TERMINATED");
            assert!(over, "member {member} was told {reason} of {id}; its record ends with {end:?}");
        }
    }

    /// Sessions that the record leaves live.
    fn live(&self) -> BTreeSet<SessionId> {
        let end = |life: &BTreeMap<u64, Transition>| life.last_key_value().map(|(_, end)| end.to.clone());
        let live = self.transitions.iter().filter(|(_, life)| end(life).as_deref() != Some("TERMINATED"));
        live.map(|(id, _)| *id).collect()
    }
}

/// No key sealed two datagrams under one nonce: not under one locator, and no key has two locators for one index.
fn no_nonce_was_used_twice(captured: &Captured, book: &Book) {
    let [up, down] = captured.sealed;
    let (opened, closed) = book.opened;
    println!(
        "captured {up} sealed datagrams up, {down} down, {} others, {} copies; clients opened {opened} packets of data",
        captured.others, captured.copies
    );
    assert!(up > 0 && down > 0 && opened > 0, "the capture saw nothing");
    assert!(closed * 20 <= opened, "{closed} packets did not open");
    assert_eq!(captured.reused, [""; 0], "a nonce was used twice");
    assert_eq!(book.twice, [0; 0], "a locator was given out twice");
    let keys: BTreeSet<_> = book.locators.values().collect();
    assert_eq!(keys.len(), book.locators.len(), "a key set has two locators for one index");
    let known = captured.locators().filter(|locator| book.locators.contains_key(locator)).count();
    let all = captured.locators().count();
    assert!(known * 10 >= all * 9, "{known} of {all} datagrams belong to sessions of the swarm");
}

#[test]
fn a_gateway_killed_at_random_under_reattaches_loses_and_repeats_nothing_it_acknowledged() {
    const SEED: u64 = 0x6372_6173;
    let kills = size::of(15, 300);
    let mut dice = Dice(SEED);
    let mut stage = Stage::up(size::of(60, 200), "native", SEED);
    let capture = stage.capture();
    stage.swarm.pace(PACE);
    let (began, mut times) = (Instant::now(), Vec::new());
    for number in 0..kills {
        let when = format!("seed {SEED:#x}, kill {number}");
        thread::sleep(Duration::from_millis(dice.below(400)));
        let killed = boot();
        stage.host.kill().expect("killed");
        if number % 3 == 2 {
            // Once more while it starts, or while its clients resume.
            stage.host.start().expect("started");
            thread::sleep(Duration::from_millis(dice.below(1_000)));
            stage.host.kill().expect("killed");
        }
        stage.host.start().expect("started");
        let up = stage.host.wait_up(PATIENCE).unwrap_or_else(|error| panic!("{when}: {error:#}"));
        times.extend(stage.all_resumed(killed, up, &when));
    }
    let (ran, switches) = (began.elapsed(), stage.swarm.book().switches());
    stage.swarm.pace(0);
    stage.all_bound("at the end");
    stage.both_workers_carry();
    let (code, out, said) = stage.host.verb(&["audit", "verify"]).expect("runs");
    assert_eq!(code, 0, "{out}{said}");
    stage.host.stop(PATIENCE).expect("stopped");
    let captured = capture.finish();

    let lives = Lives::read(&stage.record());
    let book = stage.swarm.book();
    lives.no_version_is_missing();
    lives.hold_what_was_acknowledged(&book);
    let told = told(&stage.record(), Reason::SecStoreRollback);
    assert!(told.is_empty(), "a crash that lost nothing looks like no backup: {told:?}");
    no_nonce_was_used_twice(&captured, &book);
    let held: BTreeSet<_> = stage.swarm_sessions(&book);
    assert_eq!(lives.live(), held, "each session is bound, or over in the record");
    let (p50, p99, worst) = figures(times);
    println!(
        "{kills} kills in {:.1} s, {switches} switches acknowledged, {} moves begun, {} gaps named; \
         back after p50 {p50} ms, p99 {p99} ms, worst {worst} ms",
        ran.as_secs_f64(),
        book.moves,
        lives.gaps.len()
    );
    assert!(switches > kills * 20, "{switches} switches: the gateway was killed at rest");
    assert!(!stage.host.log().contains("panicked"), "{}", stage.host.log_tail());
}

impl Stage {
    /// Members ask all the time, those of each worker.
    #[track_caller]
    fn both_workers_carry(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.host.json(&["metrics"]).expect("metrics");
            let both =
                ["0", "1"].map(|worker| metric::samples(&metrics, "jvpn_worker_batches", &[("worker", worker)]).next());
            if both.iter().all(|count| count.is_some_and(|count| count > 0.0)) {
                return;
            }
            assert!(Instant::now() < deadline, "batches by worker: {both:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The session each member has.
    fn swarm_sessions(&self, book: &Book) -> BTreeSet<SessionId> {
        let mut last = BTreeMap::new();
        for acked in &book.acked {
            last.insert(acked.member, acked.session);
        }
        assert_eq!(last.len(), self.members);
        last.into_values().collect()
    }
}

#[test]
fn sessions_are_back_within_seconds_of_a_start_after_a_crash() {
    /// What is promised on a machine that does nothing else, and how many times it a shared one may take.
    const PROMISE: Duration = Duration::from_secs(2);
    const SHARED: u32 = 5;
    let rounds = size::of(1, 5);
    let mut stage = Stage::up(size::of(200, 1_000), "native", 7);
    let mut times = Vec::new();
    for round in 0..rounds {
        let killed = boot();
        stage.host.kill().expect("killed");
        // A supervisor's pause; longer than the clients need to notice.
        thread::sleep(Duration::from_millis(500));
        stage.host.start().expect("started");
        let up = stage.host.wait_up(PATIENCE).expect("up");
        times.extend(stage.all_resumed(killed, up, &format!("round {round}")));
    }
    let (p50, p99, worst) = figures(times);
    println!("{} sessions back after p50 {p50} ms, p99 {p99} ms, worst {worst} ms", stage.members);
    let budget = (PROMISE * SHARED).as_millis();
    assert!(p99 <= budget, "p99 {p99} ms, {budget} ms at most\n{}", stage.host.log_tail());
}

/// Files of a state directory below it, without the lock: who holds it is written anew by each start.
fn files_of(state: &FilePath) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for directory in [state.to_path_buf(), audit::dir_of(state)] {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.is_file() && path.file_name().unwrap() != "lock"));
    }
    files.sort();
    files.into_iter().map(|path| path.strip_prefix(state).unwrap().to_owned()).collect()
}

/// Puts a copy of one state directory where another one was.
fn copy_state(from: &FilePath, to: &FilePath) {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(audit::dir_of(to)).unwrap();
    for file in files_of(from) {
        std::fs::copy(from.join(&file), to.join(&file)).unwrap();
        std::fs::set_permissions(to.join(&file), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// A record in several files, as one that grew for long: cut between lines, each named by its first number.
fn split_record(state: &FilePath, parts: usize) {
    let dir = audit::dir_of(state);
    let first = dir.join(format!("record-{:020}.jsonl", 1));
    let text = std::fs::read_to_string(&first).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (index, part) in lines.chunks(lines.len().div_ceil(parts)).enumerate() {
        let number = 1 + index * lines.len().div_ceil(parts);
        std::fs::write(dir.join(format!("record-{number:020}.jsonl")), part.concat()).unwrap();
    }
}

/// Damages one thing in a state directory; says which and how.
fn damage(state: &FilePath, old: &FilePath, dice: &mut Dice) -> (PathBuf, String) {
    let files = files_of(state);
    let below = |dice: &mut Dice, bound: usize| usize::try_from(dice.below(bound as u64)).unwrap();
    let file = files[below(dice, files.len())].clone();
    let path = state.join(&file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = below(dice, bytes.len());
    let what = match dice.below(6) {
        0 => {
            bytes[at] ^= 1 << dice.below(8);
            format!("bit flipped in byte {at}")
        }
        1 => {
            bytes.truncate(at);
            format!("cut after {at} bytes")
        }
        2 => {
            let page = at / 4_096 * 4_096;
            let end = bytes.len().min(page + 4_096);
            bytes[page..end].fill(0);
            format!("zeros from {page} to {end}")
        }
        3 => {
            std::fs::remove_file(&path).unwrap();
            return (file, "deleted".into());
        }
        4 => {
            let end = bytes.len().min(at + 4_096);
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
            format!("{at} to {end} twice")
        }
        _ => {
            bytes = std::fs::read(old.join(&file)).unwrap_or_default();
            "as it was before".to_owned()
        }
    };
    std::fs::write(&path, bytes).unwrap();
    (file, what)
}

/// Opens a state directory as a start does; the sessions that store or record have, or why it is refused.
fn opened(state: &FilePath) -> Result<BTreeSet<SessionId>, String> {
    let store = Store::open(state).map_err(|error| error.to_string())?;
    let (record, _) = audit::Audit::open(state).map_err(|error| error.to_string())?;
    let stored = store.load_all().map_err(|error| error.to_string())?;
    let mut known: BTreeSet<SessionId> = stored.into_iter().map(|session| session.id).collect();
    let remembered = audit::remembered(&audit::dir_of(state), |_| true).map_err(|error| error.to_string())?;
    drop(record);
    remembered.each(|id, _| known.extend([id])).map_err(|error| error.to_string())?;
    Ok(known)
}

#[test]
fn a_state_directory_with_one_thing_damaged_starts_with_every_session_or_is_refused_by_name() {
    const SEED: u64 = 0x746f_726e;
    let images = size::of(50, 500);
    // With the real process every so often: it opens the same way, and takes a hundred times as long.
    const PROCESS_EVERY: usize = 10;
    let mut stage = Stage::up(8, "off", SEED);
    stage.swarm.pace(100);
    thread::sleep(Duration::from_millis(700));
    let crash = |stage: &mut Stage, name: &str| {
        stage.host.kill().expect("killed");
        let copy = stage.lab.files().join(name);
        copy_state(&stage.host.state(), &copy);
        copy
    };
    let old = crash(&mut stage, "old");
    let killed = boot();
    stage.host.start().expect("started");
    let up = stage.host.wait_up(PATIENCE).expect("up");
    stage.all_resumed(killed, up, "between the pictures");
    thread::sleep(Duration::from_millis(700));
    let new = crash(&mut stage, "new");
    split_record(&new, 3);
    stage.swarm.paths(false);
    let sessions = opened_copy(&new, &stage);
    assert_eq!(sessions.len(), 8);

    let (mut dice, image) = (Dice(SEED), stage.lab.files().join("image"));
    let (mut refused, mut faults, mut started) = (0, 0, 0);
    for number in 0..images {
        copy_state(&new, &image);
        let (file, how) = damage(&image, &old, &mut dice);
        let what = format!("seed {SEED:#x}, image {number}: {} {how}", file.display());
        if number % PROCESS_EVERY == 0 {
            copy_state(&image, &stage.host.state());
            match stage.start_damaged(&sessions, &what) {
                Outcome::Refused => refused += 1,
                Outcome::Faulty => faults += 1,
                Outcome::Whole => started += 1,
            }
        }
        match opened(&image) {
            Ok(found) => assert!(sessions.is_subset(&found), "{what}: {sessions:?} became {found:?}"),
            Err(said) => {
                refused += 1;
                assert!(said.contains(image.to_str().unwrap()), "{what}: {said}");
            }
        }
    }
    println!(
        "{images} images: {refused} refusals; of real starts {started} whole, {faults} with a fault in the record"
    );
}

/// What a real start made of a damaged directory.
enum Outcome {
    Refused,
    /// It runs, and `audit verify` names what is wrong with the record.
    Faulty,
    Whole,
}

fn opened_copy(state: &FilePath, stage: &Stage) -> BTreeSet<SessionId> {
    let copy = stage.lab.files().join("looked-at");
    copy_state(state, &copy);
    opened(&copy).expect("an intact picture")
}

impl Stage {
    fn start_damaged(&mut self, sessions: &BTreeSet<SessionId>, what: &str) -> Outcome {
        let said = self.host.log().len();
        self.host.start().expect("started");
        let code = self.host.settle(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let log = self.host.log()[said..].to_owned();
        assert!(!log.contains("panicked"), "{what}: {log}");
        if let Some(code) = code {
            let state = self.host.state();
            assert!((1..=7).contains(&code) && log.contains(state.to_str().unwrap()), "{what}: {code}, {log}");
            return Outcome::Refused;
        }
        let shown = self.host.json(&["sessions"]).expect("sessions");
        let shown: BTreeSet<SessionId> = shown["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|one| one["session_id"].as_str()?.parse().ok())
            .collect();
        for id in sessions.difference(&shown) {
            let named = log.contains(&id.to_string());
            assert!(named || Lives::read(&self.record()).transitions.contains_key(id), "{what}: {id} vanished, {log}");
        }
        let (code, out, err) = self.host.verb(&["audit", "verify"]).expect("runs");
        assert!(code == 0 || code == 6, "{what}: {code} {out}{err}");
        assert_eq!(self.host.json(&["status"]).expect("a status")["healthy"], Value::Bool(true), "{what}");
        self.host.kill().expect("killed");
        if code == 0 { Outcome::Whole } else { Outcome::Faulty }
    }
}

#[test]
fn a_restored_backup_is_recorded_goes_on_above_what_clients_saw_and_takes_no_old_proof() {
    let mut stage = Stage::up(12, "native", 11);
    stage.swarm.pace(60);
    thread::sleep(Duration::from_millis(1_000));
    stage.host.stop(PATIENCE).expect("stopped");
    let (backup, killed) = (stage.lab.files().join("backup"), boot());
    copy_state(&stage.host.state(), &backup);
    stage.host.start().expect("started");
    let up = stage.host.wait_up(PATIENCE).expect("up");
    stage.all_resumed(killed, up, "after the backup");
    let capture = stage.capture();
    stage.swarm.pace(PACE);
    thread::sleep(Duration::from_millis(size::of(2_000, 20_000)));
    stage.swarm.pace(0);
    stage.all_bound("before the end");
    let old = capture.finish();
    assert!(old.requests.len() > 50, "{} requests", old.requests.len());
    stage.host.stop(PATIENCE).expect("stopped");
    let seen: BTreeMap<SessionId, u64> =
        stage.swarm.views().iter().map(|view| (view.session.unwrap(), view.version.0)).collect();
    let held = |state: &FilePath| -> BTreeMap<SessionId, u64> {
        let copy = state.with_extension("held");
        copy_state(state, &copy);
        let stored = Store::open(&copy).unwrap().load_all().unwrap();
        stored.into_iter().map(|session| (session.id, session.ceiling.0)).collect()
    };
    let began = Lives::read(&audit::dir_of(&backup)).newest();
    let behind = seen.iter().filter(|(id, version)| began[*id] < **version).count();
    assert_eq!(behind, 12, "every client has seen more than the backup: {began:?}, {seen:?}");

    copy_state(&backup, &stage.host.state());
    let restored = boot();
    stage.host.start().expect("started");
    let up = stage.host.wait_up(PATIENCE).expect("up");
    stage.all_resumed(restored, up, "on the backup");
    stage.all_bound("on the backup");
    let (core, gateway) = (stage.lab.topology.space("core"), stage.lab.topology.gateway());
    let before = stage.versions();
    let (mut tap, to) = (Tap::on(&core, "gw").expect("a tap"), station(&gateway, "wan").expect("a station"));
    for frame in &old.requests {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&to);
        tap.send(&frame).expect("sent");
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(stage.versions(), before, "nothing of before the restore moved a session");
    stage.all_bound("after old proofs");
    let (code, out, said) = stage.host.verb(&["audit", "verify"]).expect("runs");
    assert_eq!(code, 0, "{out}{said}");
    stage.host.stop(PATIENCE).expect("stopped");

    let lives = Lives::read(&stage.record());
    lives.no_version_is_missing();
    let told = told(&stage.record(), Reason::SecStoreRollback);
    let ceilings = held(&stage.host.state());
    for (id, version) in &seen {
        assert!(told.contains(id), "{id} came back from a backup without a word");
        let newest = lives.newest()[id];
        assert!(newest > *version && ceilings[id] >= newest, "{id}: {version} was seen, {newest} of {}", ceilings[id]);
    }
}

/// Sessions with a record of a reason.
fn told(record: &FilePath, reason: Reason) -> BTreeSet<SessionId> {
    let mut told = BTreeSet::new();
    let filter = audit::Filter { reason: Some(reason), ..audit::Filter::default() };
    audit::read(record, &filter, |_, record| {
        told.insert(record["session_id"].as_str().unwrap().parse::<SessionId>().unwrap());
        ControlFlow::Continue(())
    })
    .expect("a record");
    told
}

impl Lives {
    /// Last version of each session.
    fn newest(&self) -> BTreeMap<SessionId, u64> {
        self.transitions.iter().map(|(id, life)| (*id, *life.last_key_value().unwrap().0)).collect()
    }
}

impl Stage {
    /// Version of each session, as the gateway shows it.
    fn versions(&self) -> BTreeMap<String, String> {
        let shown = self.host.json(&["sessions"]).expect("sessions");
        let text = |value: &Value| value.to_string();
        let all = shown["sessions"].as_array().unwrap().iter();
        all.map(|one| (text(&one["session_id"]), text(&one["state_version"]))).collect()
    }
}

#[test]
fn a_planned_restart_with_a_new_binary_is_announced_and_costs_a_moment() {
    /// What is promised on a machine that does nothing else, and how many times it a shared one may take.
    const PROMISE_MS: f64 = 300.0;
    const SHARED: f64 = 10.0;
    if let Err(error) = require_root() {
        panic!("{error:#}");
    }
    let lab = Lab::up().expect("a lab");
    let mut product = Product::start(&lab, &Setup::default()).expect("both sides");
    product.wait_healthy().expect("a session");
    let (client, lan) = (lab.topology.client(), lab.topology.lan());
    let (inner, target) = (INNER_CLIENT_V4.parse().unwrap(), LAN_V4.parse().unwrap());
    ping(&client, target, 56, PATIENCE).expect("the tunnel carries packets");
    let session = |product: &Product| live_session(&product.json(Role::Gateway, &["sessions"]).unwrap()).unwrap();
    let before = session(&product);
    let next = lab.files().join("jvpn-ctl-next");
    std::fs::copy(find_binary().expect("a binary"), &next).expect("a new binary");
    let flows = Flows::start((&client, inner), (&lan, target)).expect("flows");
    thread::sleep(Duration::from_millis(1_000));

    let stopped = now_ns();
    assert_eq!(product.stop(Role::Gateway).expect("stopped"), Some(0));
    product.use_binary(next.clone());
    product.start_side(Role::Gateway).expect("started");
    product.wait_healthy().expect("a session");
    let after_ns = now_ns();
    let deadline = Instant::now() + PATIENCE;
    while flows.last_arrival_ns() < after_ns || now_ns() < stopped + 5_200_000_000 {
        assert!(Instant::now() < deadline, "no traffic again\n{}", product.log_tail(Role::Gateway));
        thread::sleep(Duration::from_millis(20));
    }
    let pid = product.pid(Role::Gateway).expect("it runs");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).expect("a program"), next);
    let account = flows.trace(Direction::Up).account(stopped).join(flows.trace(Direction::Down).account(stopped));
    println!("planned restart: {:.1} ms without a packet, sender {:.1} ms", account.outage_ms, account.stall_ms);
    assert!(account.outage_ms - account.stall_ms <= PROMISE_MS * SHARED, "{account:?}");
    let after = session(&product);
    assert_eq!(after.id, before.id);
    assert!(after.state_version > before.state_version);
    let (_, events, _) = product.verb(Role::Client, &["events", "--json"]).expect("events");
    let told = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a record");
        record["event"] == "CONDITION" && record["details"]["acknowledged"] == true
    };
    assert!(events.lines().any(told), "the client was told beforehand:\n{events}");
}

/// The time of a lab: what is added to the clocks of every process that was told its file.
struct World {
    file: std::fs::File,
    boot: Duration,
    wall_ns: i64,
}

impl World {
    fn new(lab: &Lab) -> World {
        let file = std::fs::File::create(lab.files().join("clock")).expect("a file");
        let world = World { file, boot: Duration::ZERO, wall_ns: 0 };
        world.tell();
        world
    }

    /// One write over what was there: who reads meanwhile reads one or the other.
    fn tell(&self) {
        use std::os::unix::fs::FileExt as _;
        let text = format!("{:020} {:+020}\n", self.boot.as_nanos(), self.wall_ns);
        self.file.write_all_at(text.as_bytes(), 0).expect("written");
    }

    /// Time goes by, in steps that whoever is awake lives through.
    fn pass(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.boot += Duration::from_secs(60);
            self.wall_ns += 60_000_000_000;
            self.tell();
            thread::sleep(Duration::from_millis(60));
        }
    }

    fn step_wall(&mut self, hours: i64) {
        self.wall_ns += hours * 3_600_000_000_000;
        self.tell();
    }
}

/// The product as it is built beside the suites, whose clocks this file sets; without the kernel program, whose clock
/// nobody sets.
struct Timed {
    product: Product,
    world: World,
    lab: Lab,
}

impl Timed {
    fn up() -> Timed {
        if let Err(error) = require_root() {
            panic!("{error:#}");
        }
        let lab = Lab::up().expect("a lab");
        let world = World::new(&lab);
        let binary = lab.files().join("jvpn-ctl");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_jvpn-lab"), &binary).expect("a name");
        let said = std::process::Command::new(&binary).arg("--version").output().expect("it runs");
        assert!(String::from_utf8_lossy(&said.stdout).contains("lab-clock"), "{said:?}");
        let file = |name: &str| lab.files().join(name).to_str().unwrap().to_owned();
        let environment = vec![("JVPN_LAB_CLOCK".into(), file("clock")), ("JVPN_LAB_DISK".into(), file("disk"))];
        let setup = Setup { xdp: Xdp::Detached, binary: Some(binary), environment, ..Setup::default() };
        let mut product = Product::start(&lab, &setup).expect("both sides");
        product.wait_healthy().expect("a session");
        Timed { product, world, lab }
    }

    #[track_caller]
    fn until(&self, what: &str, mut there: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !there(self) {
            let logs = [Role::Gateway, Role::Client].map(|role| self.product.log_tail(role));
            assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}\n{}", logs.concat());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn session(&self) -> Option<jvpn_tests::lab::record::Session> {
        live_session(&self.product.json(Role::Gateway, &["sessions"]).ok()?).ok()
    }

    fn is_attached(&self) -> bool {
        let (client, target) = (self.lab.topology.client(), LAN_V4.parse().unwrap());
        self.session().is_some_and(|session| session.state == "ATTACHED")
            && ping(&client, target, 56, Duration::from_secs(1)).is_ok()
    }

    fn sleep(&mut self, who: &[Role], minutes: u32) {
        let freeze = |role: &Role| self.lab.freeze(self.product.pid(*role).unwrap()).expect("frozen");
        let frozen: Vec<_> = who.iter().map(freeze).collect();
        self.world.pass(minutes);
        for fault in frozen {
            fault.undo().expect("awake");
        }
    }

    fn ended_by(&self, reason: &str) -> usize {
        let (_, events, _) =
            self.product.verb(Role::Gateway, &["events", "--json", "--reason", reason]).expect("events");
        events.lines().filter(|line| line.contains("TERMINATED")).count()
    }
}

#[test]
fn hosts_that_sleep_for_14_minutes_are_attached_again_and_past_the_loss_ttl_the_session_is_over() {
    let mut timed = Timed::up();
    timed.until("a session", Timed::is_attached);
    let first = timed.session().expect("a session").id;
    for who in [&[Role::Client][..], &[Role::Gateway], &[Role::Client, Role::Gateway]] {
        timed.sleep(who, 14);
        timed.until("attached after 14 minutes", Timed::is_attached);
        assert_eq!(timed.session().expect("a session").id, first, "{who:?}");
    }
    timed.sleep(&[Role::Client], 17);
    timed.until("over", |timed| timed.ended_by("TTL_TRANSPORT_LOSS_EXPIRED") > 0);
    timed.until("a new session", |timed| timed.is_attached() && timed.session().is_some_and(|new| new.id != first));
}

#[test]
fn a_wall_clock_that_steps_by_a_day_changes_nothing_but_what_records_are_labelled_with() {
    let mut timed = Timed::up();
    timed.until("a session", Timed::is_attached);
    let first = timed.session().expect("a session");
    for hours in [24, -48] {
        timed.world.step_wall(hours);
        let other = if timed.session().unwrap().transport.as_deref() == Some("path-a") { "path-b" } else { "path-a" };
        timed.until("a jump", |timed| {
            let (code, out, _) = timed.product.verb(Role::Client, &["jump", "--to", other]).expect("jump");
            code == 0 || out.contains("already")
        });
        assert_eq!(timed.session().expect("a session").id, first.id);
        let (_, events, _) = timed.product.verb(Role::Gateway, &["events", "--json"]).expect("events");
        let last: Value = serde_json::from_str(events.lines().last().expect("a record")).expect("JSON");
        let day = |text: &str| text[..10].to_owned();
        let labelled = day(last["ts"].as_str().expect("a time"));
        let expected = [-600, 600].map(|seconds| {
            let at = i64::try_from(wall() / 1_000_000_000).unwrap() + timed.world.wall_ns / 1_000_000_000 + seconds;
            day(&run(&["date", "-u", "-Idate", "-d", &format!("@{at}")], None).expect("date"))
        });
        assert!(expected.contains(&labelled), "{labelled}, not {expected:?}");
    }
    // Also over a crash: the same boot, so the wall clock has no say.
    timed.product.kill(Role::Gateway).expect("killed");
    timed.world.step_wall(24 * 20);
    timed.product.start_side(Role::Gateway).expect("started");
    timed.until("attached again", Timed::is_attached);
    assert_eq!(timed.session().expect("a session").id, first.id);
    assert_eq!(timed.ended_by("TTL_SESSION_EXPIRED"), 0);
}

#[test]
fn a_start_under_another_boot_clock_takes_what_is_left_of_a_session_from_the_store() {
    let mut stage = Stage::up(6, "off", 13);
    stage.swarm.pace(20);
    thread::sleep(Duration::from_millis(1_000));
    let left = |stage: &Stage, name: &str| -> BTreeMap<SessionId, u64> {
        let copy = stage.lab.files().join(name);
        copy_state(&stage.host.state(), &copy);
        let stored = Store::open(&copy).unwrap().load_all().unwrap();
        stored.into_iter().map(|session| (session.id, session.session_ttl_left_ms)).collect()
    };
    let killed = boot();
    stage.host.kill().expect("killed");
    let before = left(&stage, "before");
    // As after a boot that was 28 hours earlier: longer than any session lives.
    stage.host.start_in(&["unshare", "--time", "--boottime", "100000"]).expect("started");
    let up = stage.host.wait_up(PATIENCE).expect("up");
    stage.all_resumed(killed, up, "under another clock");
    stage.all_bound("under another clock");
    let (code, out, said) = stage.host.verb(&["audit", "verify"]).expect("runs");
    assert_eq!(code, 0, "{out}{said}");
    stage.host.stop(PATIENCE).expect("stopped");
    let after = left(&stage, "after");
    assert_eq!(before.len(), 6);
    for (id, was) in before {
        let is = after[&id];
        assert!(is <= was && is + 120_000 >= was, "{id}: {was} ms were left, {is} are");
    }
    let lives = Lives::read(&stage.record());
    lives.no_version_is_missing();
    lives.hold_what_was_acknowledged(&stage.swarm.book());
}

impl Timed {
    /// From now on every disk of the lab is so: `slow` (5 s a sync), `read-only`, or as it should be.
    fn disk(&self, how: &str) {
        let (file, next) = (self.lab.files().join("disk"), self.lab.files().join("disk.next"));
        std::fs::write(&next, how).expect("written");
        std::fs::rename(next, file).expect("in one piece");
    }

    /// Asks the session onto its other path; whether it went, and how long that took.
    fn jump(&self) -> (bool, Duration) {
        let other = if self.session().unwrap().transport.as_deref() == Some("path-a") { "path-b" } else { "path-a" };
        let began = Instant::now();
        let (code, ..) = self.product.verb(Role::Client, &["jump", "--to", other]).expect("jump");
        (code == 0, began.elapsed())
    }

    fn carries(&self) {
        let (client, target) = (self.lab.topology.client(), LAN_V4.parse().unwrap());
        for _ in 0..10 {
            ping(&client, target, 56, PATIENCE).expect("data flows");
        }
    }
}

#[test]
fn a_slow_disk_holds_no_jump_up_and_a_read_only_one_is_named_while_data_flows_and_heals() {
    let timed = Timed::up();
    timed.until("a session", Timed::is_attached);
    let first = timed.session().expect("a session").id;
    timed.until("a jump", |timed| timed.jump().0);

    // The record is synced behind the answer, and what waits for the store waits alone.
    timed.disk("slow");
    for _ in 0..2 {
        let mut took = Duration::MAX;
        timed.until("a jump on a slow disk", |timed| {
            let (went, time) = timed.jump();
            took = time;
            went
        });
        println!("a jump on a disk of 5 s a sync took {} ms", took.as_millis());
        timed.carries();
    }
    timed.disk("read-only");
    timed.until("the problem is named", |timed| {
        timed.jump();
        let status = timed.product.json(Role::Gateway, &["status"]).expect("a status");
        status["problems"].to_string().contains("cannot be written")
    });
    timed.carries();
    assert_eq!(timed.session().expect("a session").id, first);

    timed.disk("");
    let healed = Instant::now();
    timed.until("it heals", |timed| {
        timed.product.json(Role::Gateway, &["status"]).is_ok_and(|status| status["healthy"] == Value::Bool(true))
    });
    println!("healthy {} ms after the disk was", healed.elapsed().as_millis());
    timed.until("a jump", |timed| timed.jump().0);
    assert_eq!(timed.session().expect("a session").id, first);
    let (code, out, said) = timed.product.verb(Role::Gateway, &["audit", "verify"]).expect("runs");
    assert_eq!(code, 0, "{out}{said}");
}
