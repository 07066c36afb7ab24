//! What a running gateway and a running relay notice by themselves: maps that somebody changed, inner sources that are not a session's own.
//! The real product in the lab, with and without the kernel program; root, like the lab. Never changes a map but of its own lab.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::maps::{Array, Map, MapData};
use aya::programs::Xdp as Program;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use jvpn_common::abi::{
    ActiveWord, HOP_WORDS, HOPS_MAX, LocatorEntry, OWNER_WORDS, OWNERS_MAX, WORD_OWNER, WORD_OWNER_ALIVE,
    binding_place, map,
};
use jvpn_common::ids::{Generation, Locator, Slot};
use jvpn_common::locators::Writer;
use jvpn_common::mapop::MapOp;
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::locators::{self, Mapped};
use jvpn_ctl::dataplane::pins::Pins;
use jvpn_ctl::dataplane::{DataPlane, object};
use jvpn_tests::lab::mode::{self, Xdp};
use jvpn_tests::lab::netns::{Netns, run};
use jvpn_tests::lab::ping::ping;
use jvpn_tests::lab::process::{Product, Role};
use jvpn_tests::lab::record::{Record, history, live_session};
use jvpn_tests::lab::setup::{Endpoint, Setup};
use jvpn_tests::lab::topology::{INNER_CLIENT_V4, INNER_GATEWAY_V4};
use jvpn_tests::lab::{Lab, pass};
use serde_json::Value;

/// How long something that happens by itself within seconds is waited for on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session that did not move for so long has no reason to move.
const SETTLED: Duration = Duration::from_secs(1);

/// Product and lab, and the node that is looked at: the gateway, or a relay all of the session goes through.
struct Stage {
    lab: Lab,
    product: Product,
    session: String,
    watched: Role,
}

impl Stage {
    fn set(xdp: Xdp) -> Self {
        Self::with(xdp, Role::Gateway)
    }

    fn with(xdp: Xdp, watched: Role) -> Self {
        let relays = usize::from(watched != Role::Gateway);
        let lab = Lab::with(relays, 1).expect("a lab");
        let endpoints = if relays == 0 { Vec::new() } else { vec![Endpoint::Relay(0)] };
        // An idle client that looks at its paths meanwhile moves, and its move overwrites what was changed before anybody saw it.
        let policy = vec!["standby_interval = \"2m\"".into()];
        let setup = Setup { xdp, relays, endpoints, policy, ..Setup::default() };
        let mut product = Product::start(&lab, &setup).expect("all sides start");
        product.wait_healthy().expect("all sides are healthy");
        let sessions = product.json(Role::Gateway, &["sessions"]).expect("sessions");
        let session = live_session(&sessions).expect("one session").id;
        let stage = Self { lab, product, session, watched };
        stage.answers();
        stage
    }

    /// Where the watched node runs.
    fn space(&self) -> Netns {
        match self.watched {
            Role::Relay(number) => self.lab.topology.relay(number),
            _ => self.lab.topology.gateway(),
        }
    }

    fn pins(&self) -> Pins {
        let name = if self.watched == Role::Gateway { "gateway" } else { "relay-1" };
        Pins::below(self.lab.pin_root().join(name))
    }

    fn status(&self) -> Value {
        self.product.json(self.watched, &["status"]).expect("a status")
    }

    fn log_tail(&self) -> String {
        self.product.log_tail(self.watched)
    }

    /// The tunnel carries packets, now or soon.
    fn answers(&self) {
        let target: IpAddr = INNER_GATEWAY_V4.parse().expect("an address");
        if let Err(error) = ping(&self.lab.topology.client(), target, 56, PATIENCE) {
            panic!("{error:#}\n{}", self.log_tail());
        }
    }

    fn security_events(&self) -> Vec<Record> {
        let document = self.product.json(Role::Gateway, &["sessions", &self.session, "history"]).expect("a history");
        let records = history(&document).expect("records");
        records.into_iter().filter(|record| record.event == "SECURITY_EVENT").collect()
    }

    /// Waits for a security event of this code.
    fn raised(&self, code: &str) -> Vec<Record> {
        let began = Instant::now();
        loop {
            let events = self.security_events();
            if events.iter().any(|event| event.reason.as_deref() == Some(code)) {
                return events;
            }
            assert!(began.elapsed() < PATIENCE, "no {code}: {events:?}\n{}", self.product.log_tail(Role::Gateway));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn state_version(&self) -> u64 {
        let sessions = self.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        live_session(&sessions).expect("one session").state_version
    }

    /// Waits until the session has chosen its path: what is changed before would be overwritten by its next move.
    fn settle(&self) -> u64 {
        let began = Instant::now();
        let (mut version, mut since) = (self.state_version(), Instant::now());
        while since.elapsed() < SETTLED {
            assert!(began.elapsed() < PATIENCE, "it moves all the time: version {version}");
            std::thread::sleep(Duration::from_millis(100));
            let now = self.state_version();
            if now != version {
                (version, since) = (now, Instant::now());
            }
        }
        version
    }

    fn end(mut self) {
        for role in [Role::Client, Role::Gateway] {
            self.product.stop(role).expect("it stops");
        }
        self.lab.down().expect("nothing is left");
    }
}

#[test]
fn a_map_that_somebody_changed_is_put_back_and_recorded_with_and_without_xdp() {
    for xdp in mode::and_detached() {
        let stage = Stage::set(xdp);
        let version = stage.settle();
        let pins = stage.pins();
        let mut maps = Kernel::open(&pins).expect("its maps open");
        let used = |slot: &Slot| maps.shared().generation(*slot).0 != Generation(0);
        let slots: Vec<Slot> = (0..maps.capacity()).map(Slot).filter(used).collect();
        let [slot] = slots.as_slice() else { panic!("one session, but slots {slots:?}") };
        let committed = maps.word(*slot);
        assert_ne!(committed.active(), 0, "it is bound");
        assert_eq!(stage.security_events(), [], "nobody changed anything yet");
        maps.apply(&MapOp::Activate { slot: *slot, word: committed.successor(0, 0) }).expect("a map can be written");
        let events = stage.raised("SEC_MAP_TAMPERED");
        assert_eq!((events.len(), maps.word(*slot)), (1, committed), "{xdp:?}");
        stage.answers();
        assert_eq!(stage.state_version(), version, "the session never moved");
        stage.end();
    }
}

/// Boot time, the clock of a record's `at`.
fn boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).expect("not negative") * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("not negative")
}

/// A map by its pin, as anybody with root may open it.
fn opened(pins: &Pins, name: &str) -> MapData {
    MapData::from_pin(pins.map(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn locators(pins: &Pins) -> Writer<Mapped> {
    locators::writer(pins).expect("LOCATORS")
}

/// One of the locators that are there.
fn one_locator(pins: &Pins) -> (Locator, LocatorEntry) {
    let (locator, entry) = locators(pins).table().all().pop_first().expect("one");
    (Locator(locator), entry)
}

fn array<const N: usize>(pins: &Pins, name: &str) -> Array<MapData, [u64; N]> {
    Array::try_from(Map::Array(opened(pins, name))).expect("an array")
}

/// The place of the first word of a binding entry, 1 to 3.
fn place(number: u8) -> usize {
    binding_place(number).expect("an entry")
}

/// What must be as before once everything is put back: locators, keys, sessions and configuration.
type Contents = (BTreeMap<u64, LocatorEntry>, Vec<[u64; 4]>, Vec<[u64; 16]>, Vec<u64>);

type Owners = Array<MapData, [u64; OWNER_WORDS]>;
type Hops = Array<MapData, [u64; HOP_WORDS]>;

fn contents(pins: &Pins) -> Contents {
    let config = array::<32>(pins, "CONFIG").get(&0, 0).expect("CONFIG");
    // All but the leases of the workers, which move by themselves.
    let steady = config.iter().enumerate().filter(|(at, _)| !(5..21).contains(at)).map(|(_, word)| *word).collect();
    let all = |item: Result<_, aya::maps::MapError>| item.expect("an entry");
    // Of the bindings the one that is active: the others are written before they are, and their time is over.
    let bound = |mut entry: [u64; 16]| {
        let active = ActiveWord(entry[0]).active();
        for spare in (1..=3).filter(|number| *number != active) {
            entry[place(spare)..][..4].fill(0);
        }
        entry
    };
    let sessions = array(pins, "SESSIONS").iter().map(all).map(bound).collect();
    let keys = array(pins, "KEYS").iter().map(|item| item.expect("keys")).collect();
    (locators(pins).table().all(), keys, sessions, steady)
}

/// Owners, and ways out: those a relay has no use for any more are cleared by itself, others found anew.
fn ways(pins: &Pins) -> Vec<Vec<u64>> {
    let owners: Owners = array(pins, "OWNERS");
    let hops: Hops = array(pins, "HOPS");
    // Sequences grow with every write, and leases with every word of the owner.
    let owners = owners.iter().map(|words| words.expect("an owner")[WORD_OWNER_ALIVE + 1..].to_vec());
    owners.chain(hops.iter().map(|words| words.expect("a way out")[1..].to_vec())).collect()
}

/// The entries that somebody changed, each with what it said before.
fn changed(before: Vec<Vec<u64>>, after: Vec<Vec<u64>>) -> Vec<(usize, Vec<u64>)> {
    let both = before.into_iter().zip(after).enumerate();
    both.filter(|(_, (before, after))| before != after).map(|(at, (before, _))| (at, before)).collect()
}

/// The link that holds a program on the node's interface, and that program; none when there is none.
fn attached(stage: &Stage) -> Vec<(u64, u64)> {
    let space = stage.space();
    let json =
        |words: &[&str]| -> Value { serde_json::from_str(&space.run(words, None).expect("an answer")).expect("JSON") };
    let program = json(&["ip", "-j", "link", "show", "dev", "wan"])[0]["xdp"]["prog"]["id"].clone();
    let links = json(&["bpftool", "-j", "link", "show"]);
    let number = |value: &Value| value.as_u64().expect("a number");
    let all = links.as_array().expect("links").iter();
    let holds = all.filter(|link| link["type"] == "xdp" && link["prog_id"] == program);
    holds.map(|link| (number(&link["id"]), number(&link["prog_id"]))).collect()
}

type Does = fn(&Stage, &Pins, Slot);

/// What somebody with root does, and the words the record says it in. `true`: it is about the session.
const CHANGES: &[(&str, bool, Does)] = &[
    ("a locator nobody issued", true, |_, pins, slot| {
        let (_, entry) = one_locator(pins);
        let foreign = LocatorEntry { slot: slot.0, k: 1, ..entry };
        locators(pins).insert(Locator(0xdead), foreign).expect("inserted");
    }),
    ("a locator was missing", true, |_, pins, _| {
        assert!(locators(pins).remove(one_locator(pins).0));
    }),
    ("a locator led elsewhere", true, |_, pins, _| {
        let (locator, entry) = one_locator(pins);
        let mut table = locators(pins);
        assert!(table.remove(locator));
        table.insert(locator, LocatorEntry { slot: entry.slot + 1, ..entry }).expect("changed");
    }),
    ("keys", true, |_, pins, slot| array(pins, "KEYS").set(slot.0, [7u64; 4], 0).expect("written")),
    ("a locator nobody issued", false, |_, pins, _| {
        let foreign = LocatorEntry { slot: 4_000, generation: 1, k: 0 };
        locators(pins).insert(Locator(0xbeef), foreign).expect("inserted");
    }),
    ("keys of an unused slot", false, |_, pins, _| array(pins, "KEYS").set(4_000, [7u64; 4], 0).expect("written")),
    ("an unused slot", false, |_, pins, _| {
        let mut entry = [0u64; 16];
        (entry[0], entry[1], entry[2]) = (1 << 32 | 1 << 16, 1, 9);
        array(pins, "SESSIONS").set(4_001, entry, 0).expect("written");
    }),
    ("configuration", false, |_, pins, _| array(pins, "CONFIG").set(0, [0u64; 32], 0).expect("written")),
    ("pin of KEYS", false, |_, pins, _| fs::remove_file(pins.map("KEYS")).expect("removed")),
    ("pin of SESSIONS", false, |_, pins, _| {
        // Another map where ours was: whoever dumps it would be shown what is not so.
        fs::remove_file(pins.map("SESSIONS")).expect("removed");
        let planted = Array::<MapData, [u64; 16]>::create(4_096, 0).expect("a map");
        planted.pin(pins.map("SESSIONS")).expect("pinned");
    }),
    ("pin of the link of wan", false, |_, pins, _| fs::remove_file(pins.link("wan")).expect("removed")),
    ("pin of LOCATORS", false, |_, pins, _| {
        let path = pins.root().to_str().expect("UTF-8");
        run(&["rm", "-r", path], None).expect("the whole directory removed");
    }),
    ("program on wan", false, |stage, _, _| {
        let [(link, _)] = attached(stage)[..] else { panic!("one link") };
        run(&["bpftool", "link", "detach", "id", &link.to_string()], None).expect("detached");
    }),
];

/// Changes the words of a slot's entry.
fn change(pins: &Pins, slot: Slot, does: impl FnOnce(&mut [u64; 16])) {
    let mut sessions = array::<16>(pins, "SESSIONS");
    let mut entry = sessions.get(&slot.0, 0).expect("the slot");
    does(&mut entry);
    sessions.set(slot.0, entry, 0).expect("written");
}

/// The same of what a relay holds beside it.
const CHANGES_OF_A_RELAY: &[(&str, bool, Does)] = &[
    ("active word", true, |_, pins, slot| {
        change(pins, slot, |entry| {
            // Bound to somebody else, by the one store that moves a session.
            let word = ActiveWord(entry[0]);
            let (from, to) = (place(word.active()), place(word.spare()));
            entry.copy_within(from..from + 4, to);
            entry[to + 2] ^= 1;
            entry[0] = word.successor(0, word.spare()).0;
        });
    }),
    ("generation", true, |_, pins, slot| change(pins, slot, |entry| entry[1] += 1)),
    ("binding", true, |_, pins, slot| {
        change(pins, slot, |entry| entry[place(ActiveWord(entry[0]).active())] ^= 1 << 63);
    }),
    ("owner", true, |_, pins, slot| change(pins, slot, |entry| entry[WORD_OWNER] = 2)),
    ("an entry of OWNERS", false, |_, pins, _| {
        let mut owners: Owners = array(pins, "OWNERS");
        let mut owner = owners.get(&0, 0).expect("the owner");
        owner.iter_mut().skip(WORD_OWNER_ALIVE + 1).for_each(|word| *word ^= 1 << 40);
        owners.set(0, owner, 0).expect("written");
    }),
    ("an unused entry of OWNERS", false, |_, pins, _| {
        // Another owner, alive for ever.
        array(pins, "OWNERS").set(OWNERS_MAX - 1, [u64::MAX - 1; OWNER_WORDS], 0).expect("written");
    }),
    ("an entry of HOPS", false, |_, pins, _| {
        let mut hops: Hops = array(pins, "HOPS");
        for id in 0..HOPS_MAX {
            let mut hop = hops.get(&id, 0).expect("a way out");
            // All of them to a station of somebody else.
            hop[4] ^= u64::from(hop[0] != 0) << 3;
            hops.set(id, hop, 0).expect("written");
        }
    }),
    ("an unused entry of HOPS", false, |_, pins, _| {
        array(pins, "HOPS").set(HOPS_MAX - 1, [3u64; HOP_WORDS], 0).expect("written");
    }),
    ("program on wan", false, |_, pins, _| {
        // Whoever has the link may put another program in its place: a gateway's, over maps of its own.
        let mut loader = EbpfLoader::new();
        for name in map::SIZED {
            loader.map_max_entries(name, 1);
        }
        let mut theirs = loader.load(object().expect("built with the kernel program")).expect("it loads");
        let program: &mut Program = theirs.program_mut("jvpn_wan").expect("a program").try_into().expect("of XDP");
        program.load().expect("the verifier agrees");
        let link = FdLink::from(PinnedLink::from_pin(pins.link("wan")).expect("the link"));
        program.attach_to_link(XdpLink::try_from(link).expect("of XDP")).expect("replaced");
    }),
];

impl Stage {
    /// What was recorded of maps, pins and program that somebody changed: what, whether of the session, when.
    fn tampered(&self) -> Vec<(String, bool, u64)> {
        let words = ["events", "--json", "--reason", "SEC_MAP_TAMPERED"];
        let (code, out, said) = self.product.verb(self.watched, &words).expect("events");
        assert_eq!(code, 0, "{said}");
        let record = |line: &str| {
            let record: Value = serde_json::from_str(line).expect("a record");
            let at = record["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
            let what = record["details"]["what"].as_str().expect("says what").to_owned();
            (what, record["session_id"].is_string(), at)
        };
        out.lines().map(record).collect()
    }
}

/// One change after the other is seen, recorded and put back, and the session goes on.
fn all_is_put_back(stage: &Stage, changes: &[(&str, bool, Does)]) {
    let pins = stage.pins();
    let mut moved = true;
    for (number, (what, of_session, does)) in changes.iter().enumerate() {
        // A session that was cut off for a moment may have moved: by itself, and in the maps as committed.
        let version = if moved { stage.settle() } else { stage.state_version() };
        moved = *of_session || stage.watched != Role::Gateway;
        let (known, before, ways_before) = (stage.tampered(), contents(&pins), ways(&pins));
        let slot = (0..).map(Slot).zip(&before.2).find(|(_, entry)| entry[1] != 0).expect("one session").0;
        let began = boot_ns();
        does(stage, &pins, slot);
        // The node looks once in seconds, so this is what was done; where a pin is gone it was not done to these.
        let spoiled = if pins.map("HOPS").exists() { changed(ways_before, ways(&pins)) } else { Vec::new() };
        assert!(
            !what.contains("OWNERS") && !what.contains("HOPS") || !spoiled.is_empty(),
            "{what}: nothing was changed"
        );
        let seen = loop {
            let told = stage.tampered();
            let new = told.iter().skip(known.len()).find(|(said, of, _)| said == what && of == of_session);
            if let Some((.., at)) = new {
                break at - began;
            }
            let late = Duration::from_nanos(boot_ns() - began) > PATIENCE;
            assert!(!late, "{number} {what}: {told:?}\n{}", stage.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        };
        assert!(Duration::from_nanos(seen) < Duration::from_secs(5), "{number} {what}: recorded after {seen} ns");
        // What was found is recorded, then put back.
        let as_before = || {
            let after = contents(&pins);
            let foreign = [0xdead, 0xbeef].iter().any(|locator| after.0.contains_key(locator));
            let now = ways(&pins);
            let mended = spoiled.iter().all(|(at, was)| now[*at] == *was || now[*at].iter().all(|word| *word == 0));
            !foreign && mended && (after == before || stage.state_version() != version)
        };
        while !as_before() {
            let late = Duration::from_nanos(boot_ns() - began) > PATIENCE;
            let (now, ways, log) = (contents(&pins), ways(&pins), stage.log_tail());
            assert!(!late, "{number} {what}: not as before\n{before:x?} {spoiled:x?}\n{now:x?} {ways:x?}\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(attached(stage).len(), 1, "{number} {what}");
        stage.answers();
    }
}

#[test]
fn whatever_somebody_with_root_changes_is_seen_within_five_seconds_recorded_and_put_back() {
    let stage = Stage::set(Xdp::Switched);
    let program = attached(&stage);
    all_is_put_back(&stage, CHANGES);
    // It was detached once, last, and is another link since; nothing else may have moved it.
    assert_ne!(attached(&stage), program);
    assert!(stage.pins().link("wan").exists());
    // Plain `xdp` means the driver where there is one with XDP.
    let place = if mode::switched() == Xdp::Generic { "xdpgeneric" } else { "xdp" };
    let off = stage.space().run(&["ip", "link", "set", "dev", "wan", place, "off"], None);
    assert!(off.is_err(), "what a link holds cannot be taken off this way");
    let status = stage.status();
    assert_eq!(
        (&status["healthy"], &status["xdp"]["mode"]),
        (&Value::Bool(true), &Value::from(mode::switched().key().expect("a mode"))),
        "{status:#}"
    );
    stage.end();
}

#[test]
fn whatever_somebody_with_root_changes_on_a_relay_is_seen_recorded_and_put_back_and_the_session_goes_on() {
    for changes in [CHANGES, CHANGES_OF_A_RELAY] {
        let stage = Stage::with(Xdp::Switched, Role::Relay(0));
        all_is_put_back(&stage, changes);
        let status = stage.status();
        assert_eq!(
            (&status["healthy"], &status["xdp"]["mode"]),
            (&Value::Bool(true), &Value::from(mode::switched().key().expect("a mode"))),
            "{status:#}"
        );
        let sessions = stage.product.json(Role::Gateway, &["sessions"]).expect("sessions");
        assert_eq!(live_session(&sessions).expect("one session").id, stage.session);
        stage.end();
    }
}

#[test]
fn a_program_that_cannot_come_back_is_a_problem_in_the_status_and_the_process_carries_on() {
    for watched in [Role::Gateway, Role::Relay(0)] {
        let stage = Stage::with(Xdp::Switched, watched);
        let version = stage.settle();
        let (space, foreign) = (stage.space(), pass::load().expect("another program"));
        let taken = (0..10).any(|_| {
            let [(link, _)] = attached(&stage)[..] else { panic!("one link") };
            run(&["bpftool", "link", "detach", "id", &link.to_string()], None).expect("detached");
            // Now and then the node is faster.
            pass::attach(&space, "wan", &foreign).is_ok()
        });
        assert!(taken, "somebody else's program is on it");
        let problem = || stage.status()["problems"].to_string();
        let began = Instant::now();
        while !problem().contains("not on wan") {
            assert!(began.elapsed() < PATIENCE, "{}\n{}", problem(), stage.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        stage.answers();
        assert!(stage.tampered().iter().any(|(what, ..)| what == "program on wan"));
        space.run(&["ip", "link", "set", "dev", "wan", "xdp", "off"], None).expect("somebody else's goes");
        while problem() != "[]" {
            assert!(began.elapsed() < 2 * PATIENCE, "{}\n{}", problem(), stage.log_tail());
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(attached(&stage).len(), 1);
        stage.answers();
        // While a relay has no program its client may find another path better.
        assert!(watched != Role::Gateway || stage.state_version() == version);
        stage.end();
    }
}

#[test]
fn what_an_operator_unloads_by_force_stays_off_until_it_is_loaded_again_and_is_no_tampering() {
    let stage = Stage::set(Xdp::Switched);
    let verb = |words: &[&str]| stage.product.verb(Role::Gateway, words).expect("runs");
    let (code, _, said) = verb(&["unload", "wan"]);
    assert!(code == 5 && said.contains("--force"), "{said}");
    assert_eq!(attached(&stage).len(), 1);
    let (code, _, said) = verb(&["unload", "wan", "--force"]);
    assert_eq!(code, 0, "{said}");
    let began = Instant::now();
    while !attached(&stage).is_empty() {
        assert!(began.elapsed() < PATIENCE, "it is still on");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(attached(&stage), [], "nobody puts it back");
    stage.answers();
    let status = stage.product.json(Role::Gateway, &["status"]).expect("a status");
    assert!(status["problems"].to_string().contains("jvpn-ctl load wan"), "{status:#}");
    let (code, _, said) = verb(&["load", "wan"]);
    assert_eq!((code, attached(&stage).len()), (0, 1), "{said}");
    let began = Instant::now();
    while stage.product.json(Role::Gateway, &["status"]).expect("a status")["healthy"] != Value::Bool(true) {
        assert!(began.elapsed() < PATIENCE, "{}", stage.product.log_tail(Role::Gateway));
        std::thread::sleep(Duration::from_millis(100));
    }
    stage.answers();
    assert_eq!(stage.tampered(), []);
    stage.end();
}

#[test]
fn inner_packets_from_a_foreign_source_are_dropped_and_recorded_once_with_their_number() {
    let stage = Stage::set(Xdp::Switched);
    let client = stage.lab.topology.client();
    let tun = client.run(&["ip", "-o", "address", "show", "to", INNER_CLIENT_V4], None).expect("an inner address");
    let tun = tun.split_whitespace().nth(1).expect("an interface").to_owned();
    client.run(&["ip", "address", "add", "10.99.9.9/32", "dev", &tun], None).expect("another address");
    client
        .enter(|| {
            let socket = UdpSocket::bind("10.99.9.9:0")?;
            for _ in 0..500 {
                socket.send_to(b"spoofed", (INNER_GATEWAY_V4, 9))?;
            }
            Ok(())
        })
        .expect("packets leave");
    let events = stage.raised("SEC_INNER_SPOOF");
    assert!(events.len() <= 2, "{events:?}");
    stage.answers();
    stage.end();
}
