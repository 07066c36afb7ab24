//! What people see of the kernel's maps, by the program they run, against what stands in the maps.
//!
//! Owns the verbs `maps` and `trace` over maps of the laboratory. Must never pass without the privilege it needs.

// A test that unwraps fails at the right line, helpers included.
#![allow(clippy::unwrap_used)]

use aya::programs::loaded_programs;
use jvpn_common::abi::{LAYOUT_HASH, PathCounters, map};
use jvpn_common::verdict::{Class, Verdict};
use jvpn_ctl::dataplane::attach::Program;
use jvpn_ctl::dataplane::object;
use jvpn_ctl::inspect::follow::{FollowError, Log};
use jvpn_ctl::inspect::{Picture, Secrets, dump};
use jvpn_packets::host::INGRESS;
use jvpn_tests::lab::process::find_binary;
use jvpn_tests::lab::topology::{GATEWAY_INTERFACE, GATEWAY_V4};
use jvpn_tests::lab::{Lab, pass};
use jvpn_tests::packet;
use jvpn_tests::packet_cases::{self, Case};
use jvpn_tests::packet_kernel::{Laboratory, counted, variant};
use jvpn_tests::packet_kernel_maps::{KernelMaps, session_words};
use jvpn_tests::packet_maps::{NOW, State, TICK, locator, slot};
use jvpn_tests::packet_relay;
use serde_json::Value;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn run(pins: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(find_binary().unwrap());
    command.arg("--pin-root").arg(pins).args(words).output().unwrap()
}

/// Standard output of a verb that went well.
#[track_caller]
fn said(pins: &Path, words: &[&str]) -> String {
    let output = run(pins, words);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(pins: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&said(pins, words)).unwrap()
}

/// Exit code and complaint of a verb that failed.
#[track_caller]
fn refused(pins: &Path, words: &[&str]) -> (i32, String) {
    let output = run(pins, words);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// The laboratory's program over maps of the world, in real time.
fn laboratory(state: &State) -> Laboratory {
    let mut laboratory = Laboratory::new(0, 0);
    KernelMaps::of(&mut laboratory).fill(state);
    laboratory
}

#[test]
fn maps_show_what_stands_in_the_pinned_maps() {
    let state = State::world();
    let laboratory = laboratory(&state);
    let pins = laboratory.pins().root();
    for port in [packet::PORT, packet::PORT + 1, packet::PORT + 1] {
        let elsewhere = std::net::SocketAddr::new(packet::GATEWAY_V4.ip(), port);
        let _ = laboratory.run(&packet::frame(packet::CLIENT_V4, elsewhere, false, &[0; 60]));
    }
    let all = json(pins, &["maps", "--json"]);
    assert_eq!(all["schema"], "jvpn.maps/1");
    assert_eq!((&all["config"]["port"], &all["config"]["role"]), (&packet::PORT.into(), &"gateway".into()));
    let sessions = all["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 7, "every slot but the free one");
    let bound = &sessions.iter().find(|session| session["slot"] == slot::V6).unwrap();
    assert_eq!(bound["active"]["remote"], packet::CLIENT_V6.to_string());
    assert_eq!((&bound["active"]["entry"], &bound["draining"]["entry"]), (&3.into(), &1.into()));
    assert_eq!((&bound["generation"], &bound["seq"], &bound["locators"]), (&9.into(), &5.into(), &6.into()));
    let pending: Vec<_> = sessions.iter().filter(|session| session["pending"] == true).collect();
    assert_eq!((pending.len(), &pending[0]["slot"]), (1, &slot::PENDING.into()));
    assert_eq!(all["locators"].as_array().unwrap().len(), state.locators.len());
    let stale = all["locators"].as_array().unwrap().iter().filter(|locator| locator["stale"] == true);
    assert!(stale.map(|locator| &locator["slot"]).eq(vec![&Value::from(slot::STALE); 6]));
    let packets = |verdict: Verdict| {
        let rows = all["verdicts"].as_array().unwrap();
        rows.iter().find(|row| row["number"] == verdict as u16).unwrap()["packets"].as_u64().unwrap()
    };
    assert_eq!((packets(Verdict::Foreign), packets(Verdict::UnknownType), packets(Verdict::Data)), (2, 1, 0));
    let by_address = json(pins, &["maps", "--address", &packet::CLIENT_V4.ip().to_string(), "--json"]);
    let found: Vec<_> = by_address["sessions"].as_array().unwrap().iter().map(|session| &session["slot"]).collect();
    assert_eq!(found, [slot::V4, slot::EXPIRED_V4].map(Value::from).each_ref());
    let table = said(pins, &["maps", "sessions", "--slot", "1"]);
    assert!(table.contains("192.0.2.10:40000 (entry 3, k 0)") && table.lines().count() == 2, "{table}");
}

#[test]
fn no_map_shows_a_key_and_a_dump_has_them_only_when_told() {
    let laboratory = laboratory(&State::world());
    let pins = laboratory.pins().root();
    let secrets = ["102030405060708", "72623859790382856", "1112131415161718", "1230066625199609624"];
    for name in map::ALL {
        for words in [&["maps", name][..], &["maps", name, "--json"]] {
            let text = said(pins, words);
            assert!(secrets.iter().all(|secret| !text.contains(secret)), "{words:?}: {text}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let [open, closed] = ["with", "without"].map(|name| directory.path().join(name));
    let _ = said(pins, &["maps", "--dump", closed.to_str().unwrap()]);
    let _ = said(pins, &["maps", "--dump", open.to_str().unwrap(), "--with-keys"]);
    let [with, without] = [&open, &closed].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(with.contains(secrets[0]) && with.contains(secrets[2]));
    assert!(secrets.iter().all(|secret| !without.contains(secret)));
    assert!(without.contains(&locator(slot::V4, 0, false).to_string()), "the rest is there");
    for path in [&open, &closed] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn without_maps_or_without_the_right_it_is_said_what_is_missing() {
    let (code, complaint) = refused(Path::new("/sys/fs/bpf/jvpn-test-nothing"), &["maps"]);
    assert_eq!(code, 4, "{complaint}");
    assert!(complaint.contains("nothing is loaded") && complaint.contains("jvpn-ctl load IFACE"), "{complaint}");
    let laboratory = laboratory(&State::world());
    let (code, complaint) = refused(laboratory.pins().root(), &["maps", "--address", "203.0.113.99"]);
    assert_eq!(code, 4, "{complaint}");
    let (code, _) = refused(laboratory.pins().root(), &["maps", "NONSENSE"]);
    assert_eq!(code, 2);
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(find_binary().unwrap());
    let output = nobody.arg("maps").output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{complaint}");
    assert!(complaint.contains("needs root"), "{complaint}");
}

/// A state as the picture somebody would have taken of it.
fn picture(state: &State) -> Picture {
    fn used<const N: usize>(rows: impl IntoIterator<Item = [u64; N]>) -> std::collections::BTreeMap<u32, [u64; N]> {
        (0..).zip(rows).filter(|(_, words)| words.iter().any(|word| *word != 0)).collect()
    }
    Picture {
        taken: "2026-01-02T03:04:05Z".to_owned(),
        tick: TICK,
        now: NOW,
        config: state.config.to_words(),
        locators: state.locators.clone(),
        sessions: used(state.sessions.iter().map(session_words)),
        paths: used(state.paths.iter().map(PathCounters::to_words)),
        traffic: used(state.traffic.iter().copied()),
        owners: state.owners.iter().map(|(index, owner)| (*index, owner.to_words())).collect(),
        hops: state.hops.iter().map(|(id, hop)| (u32::from(*id), hop.to_words())).collect(),
        buckets: used(state.buckets.iter().map(|bucket| [bucket.at, bucket.tokens])),
        secrets: Some(Secrets { keys: (0..).zip(state.keys.iter().copied()).collect() }),
        ..Picture::default()
    }
}

/// A pcap file (nanoseconds, Ethernet) of frames and when they came.
fn pcap(frames: &[(u64, &[u8])]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut bytes = words(&[0xa1b2_3c4d, 4 << 16 | 2, 0, 0, 65_535, 1]);
    for (at_ns, frame) in frames {
        let len = u32::try_from(frame.len()).unwrap();
        let [seconds, part] = [at_ns / 1_000_000_000, at_ns % 1_000_000_000].map(|part| u32::try_from(part).unwrap());
        bytes.extend(words(&[seconds, part, len, len]));
        bytes.extend(*frame);
    }
    bytes
}

/// A directory with a capture and, if given, a dump.
struct Traced(tempfile::TempDir);

impl Traced {
    fn new(frames: &[(u64, &[u8])], dumped: Option<&Picture>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("frames.pcap"), pcap(frames)).unwrap();
        if let Some(picture) = dumped {
            dump::write(picture, &directory.path().join("maps.dump")).unwrap();
        }
        Self(directory)
    }

    fn words(&self) -> Vec<String> {
        let path = |name| self.0.path().join(name).to_str().unwrap().to_owned();
        let mut words =
            vec!["trace".to_owned(), path("frames.pcap"), "--json".to_owned(), format!("--ingress={INGRESS}")];
        if self.0.path().join("maps.dump").exists() {
            words.extend(["--maps".to_owned(), path("maps.dump")]);
        }
        words
    }

    /// One line a frame, and the summary.
    #[track_caller]
    fn lines(&self, pins: &Path) -> (Vec<Value>, Value) {
        let words = self.words();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut lines: Vec<Value> =
            said(pins, &words).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().all(|line| line["schema"] == "jvpn.trace/1"));
        let last = lines.pop().unwrap();
        (lines, last)
    }

    /// What is said when it cannot be judged.
    fn refusal(&self) -> String {
        let words = self.words();
        refused(Path::new("/nowhere"), &words.iter().map(String::as_str).collect::<Vec<_>>()).1
    }

    #[track_caller]
    fn verdicts(&self, pins: &Path) -> Vec<String> {
        let (lines, _) = self.lines(pins);
        lines.iter().map(|line| line["verdict"].as_str().unwrap().to_owned()).collect()
    }
}

/// The verdict of one frame in the kernel, as its counters say.
fn in_kernel(laboratory: &Laboratory, frame: &[u8]) -> Verdict {
    let verdicts = laboratory.verdicts();
    let before = counted(&verdicts);
    let _ = laboratory.run(frame);
    let after = counted(&verdicts);
    let number = before.iter().zip(&after).position(|(before, after)| before != after).unwrap();
    Verdict::from_number(u16::try_from(number).unwrap()).unwrap()
}

/// The kernel chooses by its processor which bucket of everybody together a handshake is taken from; the run has one.
fn stay_on_one_processor() {
    let mut set = rustix::thread::CpuSet::new();
    set.set(0);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

#[test]
fn every_verdict_of_the_kernel_is_what_trace_says_of_the_captured_frame() {
    as_the_kernel_says(Program::Gateway, packet_cases::all(), &packet_cases::WITHOUT_FRAMES);
}

#[test]
fn every_verdict_of_a_relays_program_is_what_trace_says_of_the_captured_frame() {
    as_the_kernel_says(Program::Relay, packet_relay::all(), &packet_relay::WITHOUT_FRAMES);
}

fn as_the_kernel_says(program: Program, cases: Vec<Case>, without: &[(Verdict, &str)]) {
    stay_on_one_processor();
    let mut laboratory = Laboratory::of(program, TICK, NOW);
    let mut maps = KernelMaps::of(&mut laboratory);
    let mut seen = std::collections::BTreeMap::<Verdict, u32>::new();
    for case in cases {
        maps.fill(&case.state);
        let kernel = in_kernel(&laboratory, &case.frame);
        assert_eq!(kernel, case.verdict);
        let traced = Traced::new(&[(1, &case.frame)], Some(&picture(&case.state)));
        if ![LAYOUT_HASH, 0].contains(&case.state.config.layout) {
            // Maps of another build pass everything, and nobody claims to read them.
            assert!(traced.refusal().contains("another layout"), "{}", traced.refusal());
            continue;
        }
        let (lines, last) = traced.lines(Path::new("/nowhere"));
        let line = &lines[0];
        assert_eq!(line["verdict"], kernel.name(), "{line}");
        assert_eq!((&line["meaning"], &line["tag_unknown"]), (&kernel.meaning().into(), &false.into()), "{line}");
        if kernel != Verdict::Unconfigured && !is_outer(kernel) {
            assert_eq!(line["source"].is_null(), kernel == Verdict::Foreign, "{line}");
        }
        assert_eq!((&last["summary"][0]["verdict"], &last["summary"][0]["frames"]), (&kernel.name().into(), &1.into()));
        *seen.entry(kernel).or_default() += 1;
    }
    for &verdict in Verdict::ALL {
        let has_none = without.iter().any(|(without, _)| *without == verdict);
        assert_eq!(seen.contains_key(&verdict), !has_none, "{verdict}");
    }
}

/// May be refused before anybody looks at who sent it.
fn is_outer(verdict: Verdict) -> bool {
    use Verdict::{BadLength, ExtensionHeader, Fragment, IpOptions};
    matches!(verdict, BadLength | ExtensionHeader | Fragment | IpOptions)
}

#[test]
fn frames_meet_what_the_frames_before_them_left_and_time_goes_on_as_captured() {
    stay_on_one_processor();
    let state = State::world();
    let mut laboratory = Laboratory::new(TICK, NOW);
    KernelMaps::of(&mut laboratory).fill(&state);
    let known = locator(slot::V4, 0, false);
    let probe = |sequence| packet::frame_v4(&packet::probe(known, 0, sequence, 0));
    let elsewhere = std::net::SocketAddr::new(packet::CLIENT_V4.ip(), 1);
    let unbound = packet::frame(elsewhere, packet::GATEWAY_V4, false, &packet::data(known, 0, 1, 60));
    let mut frames = vec![probe(5), probe(5), probe(6), probe(4), probe(4)];
    frames.extend(vec![unbound.clone(); 12]);
    let kernel: Vec<_> = frames.iter().map(|frame| in_kernel(&laboratory, frame).name()).collect();
    let at_once: Vec<_> = frames.iter().map(|frame| (7, frame.as_slice())).collect();
    let traced = Traced::new(&at_once, Some(&picture(&state))).verdicts(Path::new("/nowhere"));
    assert_eq!(traced, kernel);
    assert_eq!(kernel.iter().filter(|name| **name == "NOTICED").count(), 10, "the bucket of notices is ten deep");
    assert_eq!(kernel.iter().filter(|name| **name == "PROBE_REPLAY").count(), 2);
    // Ten a second: half a second later five are due again.
    let second = 1_000_000_000;
    let mut later: Vec<_> = vec![(second, unbound.as_slice()); 12];
    later.extend(vec![(second + second / 2, unbound.as_slice()); 12]);
    let traced = Traced::new(&later, Some(&picture(&state))).verdicts(Path::new("/nowhere"));
    assert_eq!(traced.iter().filter(|name| *name == "NOTICED").count(), 15);
}

#[test]
fn without_keys_a_tag_is_not_called_right_nor_wrong() {
    let state = State::world();
    let known = locator(slot::V4, 0, false);
    let right = packet::data(known, 0, 1, 60);
    let mut wrong = right.clone();
    wrong[4] ^= 1;
    let probe = packet::probe(known, 0, 3, 0);
    let frames = [right, wrong, probe, packet::data(known ^ 0x10_0000, 0, 1, 60)].map(|bytes| packet::frame_v4(&bytes));
    let frames: Vec<_> = frames.iter().map(|frame| (1, frame.as_slice())).collect();
    let traced = Traced::new(&frames, Some(&picture(&state).without_secrets()));
    let (lines, last) = traced.lines(Path::new("/nowhere"));
    let said: Vec<_> =
        lines.iter().map(|line| (line["verdict"].as_str().unwrap(), line["tag_unknown"] == true)).collect();
    assert_eq!(said, [("DATA", true), ("DATA", true), ("ECHOED", true), ("UNKNOWN_LOCATOR", false)]);
    assert_eq!(last["tags_unknown"], 3);
    assert!(last["notes"][0].as_str().unwrap().contains("else FORGED_TAG"), "{last}");
    let traced = Traced::new(&frames, Some(&picture(&state)));
    assert_eq!(traced.verdicts(Path::new("/nowhere"))[..2], ["DATA", "FORGED_TAG"], "with them it is");
}

#[test]
fn against_the_pinned_maps_frames_are_judged_with_their_keys_and_nothing_is_changed() {
    let mut state = State::world();
    state.config.alive_until[0] = u64::MAX;
    let laboratory = laboratory(&state);
    let known = locator(slot::V4, 0, false);
    let mut forged = packet::data(known, 0, 1, 60);
    forged[4] ^= 1;
    let frames =
        [packet::data(known, 0, 1, 60), forged, packet::probe(known, 0, 9, 0)].map(|bytes| packet::frame_v4(&bytes));
    let frames: Vec<_> = frames.iter().map(|frame| (1, frame.as_slice())).collect();
    let pins = laboratory.pins().root();
    let before = json(pins, &["maps", "TRAFFIC", "--json"])["traffic"].clone();
    assert_eq!(Traced::new(&frames, None).verdicts(pins), ["DATA", "FORGED_TAG", "ECHOED"]);
    assert_eq!(json(pins, &["maps", "TRAFFIC", "--json"])["traffic"], before);
    assert!(counted(&laboratory.verdicts()).iter().all(|count| *count == 0));
}

#[test]
fn a_dump_of_the_pinned_maps_judges_as_the_maps_do() {
    let mut state = State::world();
    state.config.alive_until[0] = u64::MAX;
    let laboratory = laboratory(&state);
    let directory = tempfile::tempdir().unwrap();
    let dumped = directory.path().join("dump");
    let _ = said(laboratory.pins().root(), &["maps", "--dump", dumped.to_str().unwrap(), "--with-keys"]);
    let from_pins = dump::read(&dumped).unwrap();
    let wanted = picture(&state);
    assert_eq!((&from_pins.sessions, &from_pins.locators), (&wanted.sessions, &wanted.locators));
    assert_eq!(from_pins.config, wanted.config);
    let taken = wanted.sessions.keys().all(|slot| {
        from_pins.secrets.as_ref().unwrap().keys.get(slot) == wanted.secrets.as_ref().unwrap().keys.get(slot)
    });
    assert!(taken, "the keys of every slot in use");
    for case in packet_cases::all().iter().filter(|case| case.verdict.class() == Class::Drop).step_by(5) {
        let frames = [(1, case.frame.as_slice())];
        let traced = |picture: &Picture| Traced::new(&frames, Some(picture)).verdicts(Path::new("/nowhere"));
        assert_eq!(traced(&from_pins), traced(&Picture { tick: from_pins.tick, ..wanted.clone() }));
    }
}

#[test]
fn a_capture_or_dump_that_cannot_be_judged_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let frame = packet::frame_v4(&[0; 60]);
    let good = pcap(&[(1, &frame)]);
    let mut cooked = good.clone();
    cooked[20] = 113;
    for (name, bytes) in [("good", &good[..]), ("cooked", &cooked), ("short", &good[..good.len() - 1]), ("text", b"no")]
    {
        std::fs::write(path(name), bytes).unwrap();
    }
    dump::write(&picture(&State::world()), Path::new(&path("dump"))).unwrap();
    for (capture, maps, code, words) in [
        ("cooked", "dump", 2, &["Linux cooked", "tcpdump -i IFACE"][..]),
        ("short", "dump", 1, &["ends in the middle"]),
        ("text", "dump", 2, &["neither pcap nor pcapng"]),
        ("nothing", "dump", 1, &["nothing: No such file"]),
        ("good", "text", 2, &["not a dump of the maps", "maps --dump"]),
        ("good", "nothing", 1, &["No such file"]),
    ] {
        let (got, complaint) = refused(Path::new("/nowhere"), &["trace", &path(capture), "--maps", &path(maps)]);
        assert_eq!(got, code, "{capture}: {complaint}");
        assert!(words.iter().all(|word| complaint.contains(word)), "{capture}: {complaint}");
    }
    let text = said(Path::new("/nowhere"), &["trace", &path("good"), "--maps", &path("dump")]);
    assert!(
        text.contains("192.0.2.10:40000") && text.contains("UNKNOWN_TYPE") && text.contains("what to do"),
        "{text}"
    );
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

#[test]
fn the_debug_build_says_of_every_packet_what_became_of_it() {
    for (program, cases) in [(Program::Gateway, packet_cases::all()), (Program::Relay, packet_relay::all())] {
        let mut laboratory = Laboratory::with(&variant(), program, TICK, NOW);
        let mut log = Log::of(laboratory.id()).unwrap();
        let mut maps = KernelMaps::of(&mut laboratory);
        let mut lines = 0;
        for case in cases {
            maps.fill(&case.state);
            let _ = laboratory.run(&case.frame);
            let said = log.said();
            assert_eq!(said.len(), 1, "{program:?} {}", case.verdict);
            assert_eq!(said[0].verdict, case.verdict, "{program:?}");
            if matches!(case.verdict, Verdict::Data | Verdict::ForgedTag) {
                assert!(case.state.locators.contains_key(&said[0].locator) && said[0].slot.is_some(), "{said:?}");
            }
            lines += 1;
        }
        println!("{program:?}: {lines} packets, verifier walked {} instructions", laboratory.verified());
        assert!(lines > 50, "{program:?}");
    }
}

/// A descriptor of a running program, as whoever attaches it needs one.
fn descriptor(program: u32) -> OwnedFd {
    let all = loaded_programs().map(|info| info.unwrap());
    let info = all.into_iter().find(|info| info.id() == program).unwrap();
    info.fd().unwrap().as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn trace_live_says_of_frames_on_a_link_what_became_of_each_and_of_a_release_that_it_says_nothing() {
    let lab = Lab::with(1, 1).unwrap();
    let (gateway, sender) = (lab.topology.gateway(), lab.topology.relay(0));
    let binary = find_binary().unwrap();
    let binary = binary.to_str().unwrap();
    let live = |more: &[&str]| {
        let words = [&["timeout", "60", binary, "trace", "--live", GATEWAY_INTERFACE][..], more].concat();
        gateway.enter(|| Ok(Command::new(words[0]).args(&words[1..]).output()?)).unwrap()
    };
    let refused = |what: &str| {
        let output = live(&["--first", "1"]);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{complaint}");
        assert!(complaint.contains(what) && complaint.contains("cargo xtask build --log"), "{complaint}");
    };
    refused("no XDP program is attached");
    let off = || drop(gateway.run(&["ip", "link", "set", "dev", GATEWAY_INTERFACE, "xdp", "off"], None).unwrap());
    let release = Laboratory::new(0, 0);
    pass::attach(&gateway, GATEWAY_INTERFACE, &descriptor(release.id())).unwrap();
    refused("writes no log");
    off();

    let mut state = State::world();
    state.config.alive_until[0] = u64::MAX;
    let mut laboratory = Laboratory::with(&variant(), Program::Gateway, 0, 0);
    KernelMaps::of(&mut laboratory).fill(&state);
    pass::attach(&gateway, GATEWAY_INTERFACE, &descriptor(laboratory.id())).unwrap();
    let known = locator(slot::V4, 0, false);
    let mut forged = packet::data(known, 0, 7, 60);
    forged[4] ^= 1;
    let frames = [vec![0; 60], packet::data(known ^ 0x10_0000, 0, 5, 60), forged];
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for frame in &frames {
            socket.send_to(frame, (GATEWAY_V4, packet::PORT))?;
        }
        Ok(())
    };
    sender.enter(send).unwrap();
    let output = live(&["--drops", "--first", "3", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["schema"] == "jvpn.trace/1" && line["live"]["class"] == "drop"), "{lines:?}");
    let verdicts: Vec<_> = lines.iter().map(|line| line["live"]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["UNKNOWN_TYPE", "UNKNOWN_LOCATOR", "FORGED_TAG"]);
    let told = &lines[2]["live"];
    assert_eq!((&told["slot"], &told["counter"]), (&slot::V4.into(), &7.into()), "{told}");
    assert_eq!(told["locator"], format!("{known:016x}"));
    // For people the same in a line each; and what was read is not said again.
    sender.enter(send).unwrap();
    let text = String::from_utf8(live(&["--drops", "--first", "3"]).stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("FORGED_TAG") && text.contains(Verdict::ForgedTag.meaning()), "{text}");
    off();
    lab.down().unwrap();
}

#[test]
fn a_release_has_no_log_and_costs_nothing_for_it() {
    let release = object().unwrap();
    let logging = variant();
    assert!(contains(&logging, b"AYA_LOGS") && !contains(release, b"AYA_LOG"));
    let laboratory = Laboratory::new(TICK, NOW);
    assert!(matches!(Log::of(laboratory.id()), Err(FollowError::Silent)));
    let with_log = Laboratory::with(&logging, Program::Gateway, TICK, NOW).verified();
    println!("verified instructions: {} without, {with_log} with", laboratory.verified());
    assert!(laboratory.verified() < with_log);
}
