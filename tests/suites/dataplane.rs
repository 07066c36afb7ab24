//! One contract for both data planes, and the kernel's own on a pair of interfaces.
//!
//! Owns the list of claims; each runs against the heap and against the kernel's maps. Must never pass for
//! a missing privilege.

// A test that unwraps fails at the right line, helpers included.
#![allow(clippy::unwrap_used)]

use jvpn_common::abi::{
    ActiveWord, Binding, HOP_RESOLVED, Hop, Owner, OwnerEndpoint, ROLE_GATEWAY, SessionInfo, SteeringKeys, mapped,
};
use jvpn_common::ids::{Generation, Incarnation, Locator, OwnerEpoch, SessionId, Slot, TransportIndex};
use jvpn_common::limits::{HEADER_LEN, TAG_LEN};
use jvpn_common::mapop::{Committed, MapOp};
use jvpn_common::steer::{self, Bytes, Source};
use jvpn_common::time::{Duration, Instant};
use jvpn_common::verdict::Verdict;
use jvpn_common::wire::probe::{Body, words};
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::memory::Memory;
use jvpn_ctl::dataplane::ticks::Ticks;
use jvpn_ctl::dataplane::{DataPlane, DataPlaneError, Settings, WorkerTables};
use jvpn_tests::packet::{self, CLIENT_V4, KEYS};
use jvpn_tests::packet_cases;
use jvpn_tests::packet_kernel::{Laboratory, SLOTS};

const SLOT: Slot = Slot(3);
const GENERATION: Generation = Generation(7);
const LOCATOR: Locator = Locator(0xfeed_0001);

fn settings() -> Settings {
    Settings {
        role: ROLE_GATEWAY,
        port: packet::PORT,
        incarnation: Incarnation(0xabc),
        owner_epoch: OwnerEpoch(1),
        workers: 1,
        bucket_seed: [1, 2],
        handshake_rate: 0,
        handshake_total_rate: 0,
    }
}

fn install(slot: Slot, locator: Locator) -> MapOp {
    MapOp::Install {
        slot,
        generation: GENERATION,
        keys: KEYS,
        locators: vec![(TransportIndex(0), locator), (TransportIndex(1), Locator(locator.0 + 1))],
        pending: false,
        session: SessionId([9; 16]),
    }
}

fn client() -> Binding {
    Binding { address: mapped(CLIENT_V4.ip()), port: CLIENT_V4.port(), k: 0, mtu: 1_400, ..Binding::default() }
}

fn bind(plane: &mut dyn DataPlane) {
    plane
        .apply_all(&[
            install(SLOT, LOCATOR),
            MapOp::Binding { slot: SLOT, entry: 1, binding: client() },
            MapOp::Activate { slot: SLOT, word: ActiveWord::new(1, 0, 1) },
        ])
        .expect("a session can be installed and bound");
    plane.shared().set_alive(0, Duration::from_secs(60));
}

/// What a worker says to a datagram.
fn judged(plane: &dyn DataPlane, datagram: Vec<u8>) -> Verdict {
    judged_after(Duration::ZERO, plane, datagram)
}

/// What it says to one that stood in its queue for so long.
fn judged_after(waited: Duration, plane: &dyn DataPlane, mut datagram: Vec<u8>) -> Verdict {
    fn clock() -> Instant {
        Instant(5)
    }
    let tables = WorkerTables::new(plane.shared().clone(), clock, true, 0);
    let source = Source { address: mapped(CLIENT_V4.ip()), port: CLIENT_V4.port() };
    steer::datagram(&mut Bytes::new(&mut datagram), &source, &tables.batch(&tables.turn(waited))).verdict
}

fn data(locator: Locator, k: u16) -> Vec<u8> {
    packet::data(locator.0, k, 1, 100)
}

/// Everything a plan may change, to compare before and after.
fn state(plane: &dyn DataPlane) -> impl PartialEq + std::fmt::Debug + use<> {
    let shared = plane.shared();
    let slot = |slot| {
        let bindings = [1, 2, 3].map(|entry| shared.binding(slot, entry));
        (plane.word(slot), shared.generation(slot), bindings, plane.info(slot))
    };
    let verdicts: Vec<_> =
        (0..4).map(|i| judged(plane, packet::control(LOCATOR.0 + i, u16::try_from(i).unwrap(), 1))).collect();
    ((0..SLOTS).map(|i| slot(Slot(i))).collect::<Vec<_>>(), verdicts)
}

fn a_bound_session_receives_and_a_freed_one_is_unknown(plane: &mut dyn DataPlane) {
    bind(plane);
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Data);
    assert_eq!((plane.path(SLOT, TransportIndex(0)).data, plane.traffic(SLOT).data_packets), (1, 1));
    assert_eq!(plane.info(SLOT).session_id, [9; 16]);
    plane.apply(&MapOp::Free { slot: SLOT }).unwrap();
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::UnknownLocator);
    assert_eq!((plane.word(SLOT), plane.info(SLOT)), (ActiveWord::default(), SessionInfo::default()));
    bind(plane);
    assert_eq!(plane.traffic(SLOT).data_packets, 0, "counters of the earlier session are gone");
}

fn a_failed_plan_leaves_everything_as_it_was(plane: &mut dyn DataPlane) {
    bind(plane);
    let before = state(plane);
    let first = [
        MapOp::Confirm { slot: SLOT },
        MapOp::Info { slot: SLOT, info: SessionInfo { state: 4, ..SessionInfo::default() } },
        MapOp::AddLocators {
            slot: SLOT,
            generation: GENERATION,
            locators: vec![(TransportIndex(2), Locator(LOCATOR.0 + 2))],
        },
        MapOp::Binding { slot: SLOT, entry: 2, binding: Binding { port: 9, ..client() } },
        MapOp::Drain { slot: SLOT, entry: 1, within: Duration::from_secs(1) },
        MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 1, 2) },
        MapOp::RemoveLocators { slot: SLOT, locators: vec![LOCATOR, Locator(LOCATOR.0 + 1), Locator(77)] },
        install(Slot(0), Locator(500)),
        MapOp::Free { slot: SLOT },
    ];
    for length in 0..=first.len() {
        let mut plan = first[..length].to_vec();
        plan.push(MapOp::Free { slot: Slot(SLOTS - 1) });
        let error = plane.apply_all(&plan).unwrap_err();
        assert!(matches!(error, DataPlaneError::SlotFree(slot) if slot == Slot(SLOTS - 1)), "{error}");
        assert_eq!(state(plane), before, "after {length} operations and a failure");
    }
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Data);
}

fn what_must_not_be_written_is_refused(plane: &mut dyn DataPlane) {
    bind(plane);
    let before = state(plane);
    type Is = fn(&DataPlaneError) -> bool;
    let refused: Vec<(MapOp, Is)> = vec![
        (install(SLOT, Locator(900)), |e| matches!(e, DataPlaneError::SlotInUse(_))),
        (install(Slot(SLOTS), Locator(900)), |e| matches!(e, DataPlaneError::SlotOutOfRange { .. })),
        (install(Slot(0), Locator(LOCATOR.0 - 1)), |e| matches!(e, DataPlaneError::LocatorInUse(l) if *l == LOCATOR)),
        (MapOp::AddLocators { slot: SLOT, generation: Generation(8), locators: vec![] }, |e| {
            matches!(e, DataPlaneError::SlotFree(_))
        }),
        (MapOp::Binding { slot: SLOT, entry: 1, binding: client() }, |e| {
            matches!(e, DataPlaneError::EntryNamed { .. })
        }),
        (MapOp::Binding { slot: SLOT, entry: 4, binding: client() }, |e| {
            matches!(e, DataPlaneError::EntryNamed { .. })
        }),
        (MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 1, 1) }, |e| matches!(e, DataPlaneError::BadWord(_))),
        (MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 0, 4) }, |e| matches!(e, DataPlaneError::BadWord(_))),
        (MapOp::Confirm { slot: Slot(0) }, |e| matches!(e, DataPlaneError::SlotFree(_))),
    ];
    for (op, expected) in refused {
        let error = plane.apply(&op).unwrap_err();
        assert!(expected(&error), "{op:?}: {error}");
        assert_eq!(state(plane), before, "{op:?} changed something");
    }
}

fn a_jump_moves_data_and_the_old_binding_drains(plane: &mut dyn DataPlane) {
    bind(plane);
    let other = Binding { port: 9, k: 1, ..client() };
    plane
        .apply_all(&[
            MapOp::Binding { slot: SLOT, entry: 2, binding: other },
            MapOp::Drain { slot: SLOT, entry: 1, within: Duration::from_secs(60) },
            MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 1, 2) },
        ])
        .unwrap();
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Data, "the previous binding drains");
    assert_eq!(judged(plane, data(Locator(LOCATOR.0 + 1), 1)), Verdict::Noticed, "this port is not the new binding's");
    plane.apply(&MapOp::Drain { slot: SLOT, entry: 1, within: Duration::ZERO }).unwrap();
    plane.apply(&MapOp::Activate { slot: SLOT, word: ActiveWord::new(3, 0, 2) }).unwrap();
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Noticed, "the drain is over");
}

fn a_pending_slot_takes_control_only_until_it_is_confirmed(plane: &mut dyn DataPlane) {
    let MapOp::Install { slot, generation, keys, locators, session, .. } = install(SLOT, LOCATOR) else {
        unreachable!("install")
    };
    plane.shared().set_alive(0, Duration::from_secs(60));
    plane.apply(&MapOp::Install { slot, generation, keys, locators, session, pending: true }).unwrap();
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::PendingSlot);
    assert_eq!(judged(plane, packet::control(LOCATOR.0, 0, 1)), Verdict::Control);
    plane.apply(&MapOp::Confirm { slot: SLOT }).unwrap();
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Noticed);
}

fn a_worker_that_is_silent_is_dead(plane: &mut dyn DataPlane) {
    bind(plane);
    plane.shared().set_alive(0, Duration::ZERO);
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::WorkerDead);
    plane.shared().set_alive(0, Duration::from_secs(60));
    assert_eq!(judged(plane, data(LOCATOR, 0)), Verdict::Data);
    assert_eq!(plane.shared().worker_verdicts()[Verdict::WorkerDead as usize], 1);
}

fn a_slot_that_somebody_changed_is_noticed_and_put_back(plane: &mut dyn DataPlane) {
    bind(plane);
    let committed = Committed {
        generation: GENERATION,
        pending: false,
        word: ActiveWord::new(1, 0, 1),
        active: Some(client()),
        owner: 0,
    };
    assert!(plane.agrees(SLOT, &committed), "nobody changed anything");
    let elsewhere = Binding { port: 4_242, ..client() };
    let word = |seq, active| MapOp::Activate { slot: SLOT, word: ActiveWord::new(seq, 0, active) };
    let entry = |entry| MapOp::Binding { slot: SLOT, entry, binding: elsewhere };
    let another = MapOp::Install {
        slot: SLOT,
        generation: Generation(8),
        keys: KEYS,
        locators: vec![(TransportIndex(0), Locator(LOCATOR.0 + 8))],
        pending: false,
        session: SessionId([8; 16]),
    };
    let changes: [&[MapOp]; 5] = [
        &[word(2, 0)],
        &[entry(2), word(2, 2)],
        &[entry(2), word(1, 2)],
        // The word as it was, and another binding under it.
        &[word(2, 0), entry(1), word(1, 1)],
        &[MapOp::Free { slot: SLOT }, another],
    ];
    for change in changes {
        plane.apply_all(change).unwrap();
        assert!(!plane.agrees(SLOT, &committed), "{change:?}");
        plane.restore(SLOT, &committed).unwrap();
        assert!(plane.agrees(SLOT, &committed), "{change:?}");
        assert_eq!(plane.word(SLOT), committed.word);
    }
    assert_eq!(judged(plane, packet::control(LOCATOR.0 + 8, 0, 1)), Verdict::StaleGeneration, "theirs is gone");
}

fn owners_hops_and_whose_a_session_is_are_kept_and_a_freed_slot_is_nobodys(plane: &mut dyn DataPlane) {
    bind(plane);
    let shared = plane.shared().clone();
    assert_eq!((shared.session_owner(SLOT), shared.owner(1), shared.hop(9)), (0, None, None));
    let end = OwnerEndpoint { address: mapped(CLIENT_V4.ip()), port: 7, hop: 9, mtu: 1_400, reserved: 0 };
    let owner = Owner { alive_until: 3, v4: end, incarnation: 4, owner_epoch: 5, ..Owner::default() };
    shared.set_owner(1, &owner);
    let hop = Hop { source: end.address, ifindex: 2, mtu: 1_500, flags: HOP_RESOLVED, ..Hop::default() };
    shared.set_hop(9, &hop);
    shared.set_session_owner(SLOT, 2);
    assert_eq!(shared.owner(1), Some(Owner { sequence: 2, ..owner }));
    assert_eq!(shared.hop(9), Some(Hop { sequence: 2, ..hop }));
    let undo = plane.apply(&MapOp::Free { slot: SLOT }).unwrap();
    assert_eq!(shared.session_owner(SLOT), 0);
    plane.undo(undo).unwrap();
    assert_eq!(shared.session_owner(SLOT), 2);
    plane.apply(&MapOp::Free { slot: SLOT }).unwrap();
    bind(plane);
    assert_eq!(shared.session_owner(SLOT), 0, "the next session is nobody else's until it is said");
}

/// Whoever judges first counts, so that an echo tells the same with and without the program; what is refused is not
/// counted, and PINGs are data.
fn an_echo_tells_how_much_data_was_counted_once_and_by_whom_it_was_judged_first(plane: &mut dyn DataPlane) {
    fn clock() -> Instant {
        Instant(5)
    }
    bind(plane);
    let shared = plane.shared().clone();
    let source = Source { address: mapped(CLIENT_V4.ip()), port: CLIENT_V4.port() };
    let other = Source { port: 9, ..source };
    let echo = |counts_arrivals: bool, sequence: u64, arrivals: &[(Source, usize)]| {
        let tables = WorkerTables::new(shared.clone(), clock, counts_arrivals, 0);
        let turn = tables.turn(Duration::ZERO);
        let batch = tables.batch(&turn);
        for (number, (source, len)) in (0..).zip(arrivals) {
            let mut bytes = packet::data(LOCATOR.0, 0, sequence * 100 + number, *len);
            steer::datagram(&mut Bytes::new(&mut bytes), source, &batch);
        }
        let mut probe = packet::probe(LOCATOR.0, 0, sequence, 0);
        assert_eq!(steer::datagram(&mut Bytes::new(&mut probe), &source, &batch).verdict, Verdict::Echoed);
        let body = Body::from_words(&words(probe[HEADER_LEN..].first_chunk().unwrap()));
        (body.probes, body.data)
    };
    assert_eq!(echo(true, 1, &[(source, 1_000), (source, TAG_LEN), (other, 1_000)]), (1, 2), "the worker alone");
    assert_eq!(echo(false, 2, &[(source, 1_000), (source, 100)]), (2, 2), "behind the program, which counts them");
    assert_eq!(echo(true, 3, &[(source, 100)]), (3, 3));
}

/// The kernel program judges at arrival, a worker later: what stood in the worker's queue meanwhile was in time.
#[test]
fn what_came_while_a_drain_lasted_is_taken_a_second_later_but_no_more() {
    let mut plane = Memory::with_ticks(SLOTS, Ticks::manual(10_000));
    plane.configure(&settings());
    bind(&mut plane);
    plane
        .apply_all(&[
            MapOp::Binding { slot: SLOT, entry: 2, binding: Binding { port: 9, k: 1, ..client() } },
            MapOp::Drain { slot: SLOT, entry: 1, within: Duration::from_millis(200) },
            MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 1, 2) },
        ])
        .unwrap();
    let after = |ms: u64, waited: u64| {
        // 250 ticks a second.
        plane.shared().ticks().set(10_000 + ms / 4);
        plane.shared().set_alive(0, Duration::from_secs(60));
        judged_after(Duration::from_millis(waited), &plane, data(LOCATOR, 0))
    };
    assert_eq!([after(200, 0), after(204, 0)], [Verdict::Data, Verdict::DrainExpired], "without a queue");
    assert_eq!([after(500, 300), after(500, 296)], [Verdict::Data, Verdict::DrainExpired]);
    assert_eq!(
        [after(1_200, 60_000), after(1_204, 60_000)],
        [Verdict::Data, Verdict::DrainExpired],
        "a second at most"
    );
}

/// Runs one claim against both.
macro_rules! contract {
    ($($claim:ident;)*) => {
        mod in_memory {
            use super::*;
            $(#[test]
            fn $claim() {
                let mut plane = Memory::new(SLOTS);
                plane.configure(&settings());
                super::$claim(&mut plane);
            })*
        }
        mod in_the_kernel {
            use super::*;
            $(#[test]
            fn $claim() {
                let laboratory = Laboratory::new(0, 0);
                let mut plane = Kernel::open(laboratory.pins()).expect("the maps open");
                plane.configure(&settings());
                super::$claim(&mut plane);
            })*
        }
    };
}

contract! {
    a_bound_session_receives_and_a_freed_one_is_unknown;
    an_echo_tells_how_much_data_was_counted_once_and_by_whom_it_was_judged_first;
    a_failed_plan_leaves_everything_as_it_was;
    what_must_not_be_written_is_refused;
    a_jump_moves_data_and_the_old_binding_drains;
    a_pending_slot_takes_control_only_until_it_is_confirmed;
    a_worker_that_is_silent_is_dead;
    a_slot_that_somebody_changed_is_noticed_and_put_back;
    owners_hops_and_whose_a_session_is_are_kept_and_a_freed_slot_is_nobodys;
}

mod restart {
    //! What only the kernel's maps can do: outlive the process that filled them.

    use super::*;

    #[test]
    fn sessions_are_adopted_unbound_and_pending_ones_are_gone() {
        let laboratory = Laboratory::new(0, 0);
        {
            let mut plane = Kernel::open(laboratory.pins()).unwrap();
            plane.configure(&settings());
            bind(&mut plane);
            let pending = MapOp::Install {
                slot: Slot(0),
                generation: Generation(2),
                keys: SteeringKeys::default(),
                locators: vec![(TransportIndex(0), Locator(40))],
                pending: true,
                session: SessionId([8; 16]),
            };
            plane.apply(&pending).unwrap();
        }
        let mut plane = Kernel::open(laboratory.pins()).unwrap();
        plane.configure(&Settings { incarnation: Incarnation(0xdef), ..settings() });
        plane.shared().set_alive(0, Duration::from_secs(60));
        let adopted = plane.adopt().unwrap();
        let [one] = adopted.as_slice() else { panic!("{adopted:?}") };
        assert_eq!((one.session, one.slot, one.generation), (SessionId([9; 16]), SLOT, GENERATION));
        assert_eq!((one.word, one.info.incarnation), (ActiveWord::new(1, 0, 1), 0xabc));
        assert_eq!(one.locators.len(), 2);
        assert_eq!(plane.word(SLOT).active(), 0);
        assert_eq!(judged(&plane, data(LOCATOR, 0)), Verdict::Noticed);
        assert_eq!(judged(&plane, packet::control(40, 0, 1)), Verdict::UnknownLocator);
        plane.apply(&MapOp::Free { slot: SLOT }).unwrap();
        assert_eq!(judged(&plane, data(LOCATOR, 0)), Verdict::UnknownLocator);
    }

    #[test]
    fn the_kernel_program_judges_what_the_plane_wrote() {
        let laboratory = Laboratory::new(0, 0);
        let mut plane = Kernel::open(laboratory.pins()).unwrap();
        plane.configure(&settings());
        bind(&mut plane);
        let frame = packet::frame_v4(&data(LOCATOR, 0));
        let outcome = laboratory.run(&frame);
        assert_eq!((outcome.action, &outcome.frame), (packet::XDP_PASS, &frame));
        assert_eq!(plane.verdicts().unwrap().kernel(Verdict::Data), 1);
        plane.shared().set_alive(0, Duration::ZERO);
        assert_eq!(laboratory.run(&frame).action, packet::XDP_DROP);
        assert_eq!(plane.verdicts().unwrap().kernel(Verdict::WorkerDead), 1);
        let events = plane.events();
        assert_eq!(events.iter().map(|event| event.verdict).collect::<Vec<_>>(), [Verdict::WorkerDead as u16]);
        assert_eq!(events[0].locator, LOCATOR.0);
    }

    #[test]
    fn a_zeroed_or_stale_configuration_lets_every_frame_pass_untouched() {
        let mut laboratory = Laboratory::new(0, 0);
        let mut plane = Kernel::open(laboratory.pins()).unwrap();
        plane.configure(&settings());
        bind(&mut plane);
        let mut config = laboratory.array::<[u64; 32]>("CONFIG");
        let good = config.get(&0, 0).unwrap();
        let frames: Vec<_> = packet_cases::all().into_iter().map(|case| case.frame).collect();
        let frames: Vec<_> = frames.into_iter().filter(|frame| frame.len() >= 14).collect();
        let stopped = || frames.iter().filter(|frame| laboratory.run(frame).action != packet::XDP_PASS).count();
        assert!(stopped() > frames.len() / 2, "with its configuration it judges");
        let [mut stale, mut idle] = [good; 2];
        stale[0] ^= 1 << 40;
        // The word of port, role and workers, which is filled in last.
        idle[3] = 0;
        for (what, words) in [("zeroed", [0; 32]), ("of another build", stale), ("not filled in yet", idle)] {
            config.set(0, words, 0).unwrap();
            for frame in &frames {
                let outcome = laboratory.run(frame);
                assert!(outcome.action == packet::XDP_PASS && outcome.frame == *frame, "{what}: {frame:02x?}");
            }
        }
        config.set(0, good, 0).unwrap();
        assert!(stopped() > frames.len() / 2, "and again");
    }

    #[test]
    fn maps_of_another_layout_are_refused() {
        let mut laboratory = Laboratory::new(0, 0);
        laboratory.array::<[u64; 32]>("CONFIG").set(0, [0; 32], 0).unwrap();
        let error = Kernel::open(laboratory.pins()).unwrap_err().to_string();
        assert!(error.contains("jvpn-ctl cleanup"), "{error}");
    }
}

mod interface {
    //! On a pair of interfaces in namespaces of their own.

    use super::*;
    use aya::maps::{Array, Map, MapData};
    use aya::programs::Xdp;
    use aya::programs::links::{FdLink, PinnedLink};
    use jvpn_ctl::dataplane::attach::{self, AttachError, LoadOptions, Loaded, Program};
    use jvpn_ctl::dataplane::cost;
    use jvpn_ctl::dataplane::pins::Pins;
    use jvpn_tests::lab::mode;
    use jvpn_tests::lab::netns::Netns;
    use jvpn_tests::packet_kernel::private_pins;
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd};
    use std::process::{self, Command};
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::thread;

    /// Two namespaces, `client` with interface c0 and `gateway` with interface g0, joined.
    struct Pair {
        client: String,
        gateway: String,
        pins: [Pins; 2],
    }

    fn ip(arguments: &str) {
        let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    impl Pair {
        fn new(name: &str) -> Self {
            let [client, gateway] = ["c", "g"].map(|end| format!("jk{name}{end}{}", process::id()));
            ip(&format!("netns add {client}"));
            ip(&format!("netns add {gateway}"));
            let pair = Self { client, gateway, pins: [private_pins(), private_pins()] };
            let Self { client, gateway, .. } = &pair;
            ip(&format!("-n {client} link add c0 type veth peer name g0 netns {gateway}"));
            for (namespace, interface, number) in [(client, "c0", 1), (gateway, "g0", 2)] {
                ip(&format!("-n {namespace} address add 10.9.0.{number}/24 dev {interface}"));
                ip(&format!("-n {namespace} address add fd09::{number}/64 dev {interface} nodad"));
                ip(&format!("-n {namespace} link set {interface} up"));
                pair.inside(namespace, || {
                    let done = Command::new("ethtool").args(["-K", interface, "tx", "off", "gro", "on"]).status();
                    assert!(done.expect("ethtool is installed").success());
                });
            }
            pair
        }

        /// Runs `action` on a thread inside a namespace.
        fn inside<T: Send>(&self, namespace: &str, action: impl FnOnce() -> T + Send) -> T {
            let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
            thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
                    action()
                });
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        }

        fn load(&self, namespace: &str, interface: &str, pins: &Pins) -> Result<Loaded, AttachError> {
            self.load_program(Program::Gateway, namespace, interface, pins)
        }

        fn load_program(
            &self,
            program: Program,
            namespace: &str,
            interface: &str,
            pins: &Pins,
        ) -> Result<Loaded, AttachError> {
            let options = LoadOptions {
                interface: interface.to_owned(),
                program,
                max_sessions: SLOTS,
                pins: pins.clone(),
                wanted: mode::wanted().0,
                only_newer: false,
            };
            let loaded = self.inside(namespace, || attach::load(&options))?;
            mode::confirm(mode::Xdp::Switched, &Netns::new(namespace), interface).expect("as was asked for");
            Ok(loaded)
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            for pins in &self.pins {
                let _ = attach::cleanup(pins);
            }
            for namespace in [&self.client, &self.gateway] {
                let _ = Command::new("ip").args(["netns", "del", namespace]).status();
            }
        }
    }

    #[test]
    fn a_program_is_loaded_replaced_in_place_refused_to_others_and_unloaded() {
        let pair = Pair::new("l");
        let [pins, others] = &pair.pins;
        let first = pair.load(&pair.gateway, "g0", pins).unwrap();
        assert_eq!((first.mode, first.kept_maps), (Some(mode::wanted().1), false));
        let plan = pair.inside(&pair.gateway, || attach::plan("g0", pins)).unwrap();
        assert!(plan.replaces && plan.ours == Some(Program::Gateway) && plan.foreign.is_none(), "{plan:?}");
        assert_eq!((plan.facts.kind.as_str(), plan.facts.mtu), ("veth", 1_500));

        Kernel::open(pins).unwrap().configure(&settings());
        let second = pair.load(&pair.gateway, "g0", pins).unwrap();
        assert_eq!((second.mode, second.kept_maps), (None, true));
        assert_eq!(attach::read_config(pins).unwrap().port, packet::PORT, "a reload keeps the maps");

        let error = pair.load(&pair.gateway, "g0", others).unwrap_err();
        assert!(matches!(&error, AttachError::Foreign { name, .. } if name == Program::Gateway.name()), "{error}");
        let error = pair.load(&pair.gateway, "nope", pins).unwrap_err();
        assert!(matches!(error, AttachError::NoInterface(_)), "{error}");
        let resized = LoadOptions {
            interface: "g0".to_owned(),
            program: Program::Gateway,
            max_sessions: SLOTS * 2,
            pins: pins.clone(),
            wanted: mode::wanted().0,
            only_newer: false,
        };
        let error = pair.inside(&pair.gateway, || attach::load(&resized)).unwrap_err();
        assert!(matches!(error, AttachError::Size { have: SLOTS, .. }), "{error}");

        let third = pair.load_program(Program::Relay, &pair.gateway, "g0", pins).unwrap();
        assert_eq!((third.mode, third.kept_maps), (None, true), "a node that becomes a relay");
        let plan = pair.inside(&pair.gateway, || attach::plan("g0", pins)).unwrap();
        assert_eq!((plan.replaces, plan.ours), (true, Some(Program::Relay)));

        assert!(pair.inside(&pair.gateway, || attach::unload("g0", pins)).unwrap(), "waited for where it sits");
        let plan = pair.inside(&pair.gateway, || attach::plan("g0", pins)).unwrap();
        assert_eq!((plan.facts.program, pins.root().exists()), (None, false));
        assert!(!pair.inside(&pair.gateway, || attach::unload("g0", pins)).unwrap());
    }

    #[test]
    fn probes_come_back_from_the_program_in_both_ip_versions_at_any_length() {
        let pair = Pair::new("e");
        let [gateway_pins, client_pins] = &pair.pins;
        pair.load(&pair.gateway, "g0", gateway_pins).unwrap();
        // Unconfigured, it passes everything: what a veth needs on the end that receives XDP_TX.
        pair.load(&pair.client, "c0", client_pins).unwrap();
        let mut plane = Kernel::open(gateway_pins).unwrap();
        plane.configure(&settings());
        bind(&mut plane);
        let lengths = [0, 1, 2, 3, 5, 8, 13, 100, 1_000, 1_372 - 72];
        let answered = pair.inside(&pair.client, || {
            let mut sequence = 0;
            for (bind_to, gateway) in [("10.9.0.1:0", "10.9.0.2:51821"), ("[fd09::1]:0", "[fd09::2]:51821")] {
                let socket = UdpSocket::bind(bind_to).unwrap();
                socket.connect(gateway).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                for padding in lengths {
                    sequence += 1;
                    let probe = packet::probe(LOCATOR.0, 0, sequence, padding);
                    socket.send(&probe).unwrap();
                    let mut answer = [0; 2_000];
                    let len = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{gateway} +{padding}: {error}"));
                    let answer = &answer[..len];
                    assert_eq!((len, answer[0]), (probe.len(), 7));
                    assert_eq!(answer[4..8], packet::tag(KEYS.down, answer, 0).to_le_bytes());
                    assert_eq!(answer[72..], probe[72..]);
                }
            }
            sequence
        });
        let verdicts = plane.verdicts().unwrap();
        assert_eq!(verdicts.kernel(Verdict::Echoed), answered);
        assert_eq!(plane.traffic(SLOT).echoes, answered);
        assert_eq!(plane.path(SLOT, TransportIndex(0)).highest, answered);
    }

    /// The object with one constant of the program changed: another build of the same layout.
    fn another_build() -> Vec<u8> {
        let mut bytes = jvpn_ctl::dataplane::object().expect("built with the kernel program").to_vec();
        // `if rX == ETH_P_IPV6`: with another number there the program is another one, and as good for the verifier.
        let compares = |at: &usize| bytes[*at] == 0x15 && bytes[*at + 4..*at + 8] == [0xdd, 0x86, 0, 0];
        let found: Vec<usize> = (0..bytes.len() - 8).step_by(8).filter(compares).collect();
        assert!(!found.is_empty(), "no such instruction in the object");
        for at in found {
            bytes[at + 4] = 0xdc;
        }
        bytes
    }

    #[test]
    fn a_start_replaces_a_program_of_another_build_and_leaves_one_of_its_own_in_place() {
        let pair = Pair::new("b");
        let pins = &pair.pins[0];
        pair.load(&pair.gateway, "g0", pins).unwrap();
        let other = another_build();
        let mut loader = aya::EbpfLoader::new();
        for name in jvpn_common::abi::map::ALL {
            loader.map_pin_path(name, pins.map(name));
        }
        let mut ebpf = loader.load(&other).unwrap();
        let program: &mut Xdp = ebpf.program_mut(Program::Gateway.name()).unwrap().try_into().unwrap();
        program.load().unwrap();
        let link = || FdLink::from(PinnedLink::from_pin(pins.link("g0")).unwrap());
        program.attach_to_link(link().try_into().unwrap()).unwrap();
        let before = link().info().unwrap();
        let start = |only_newer| {
            let (interface, wanted, program) = ("g0".to_owned(), mode::wanted().0, Program::Gateway);
            let options =
                LoadOptions { interface, program, max_sessions: SLOTS, pins: pins.clone(), wanted, only_newer };
            let loaded = pair.inside(&pair.gateway, || attach::load(&options)).unwrap();
            assert_eq!((loaded.mode, loaded.kept_maps), (None, true));
            let info = link().info().unwrap();
            assert_eq!(info.id(), before.id(), "the link is the same one");
            info.program_id()
        };
        let own = start(true);
        assert_ne!(own, before.program_id(), "an older one is replaced");
        assert_eq!(start(true), own, "its own is not");
        assert_ne!(start(false), own, "unless somebody asks for it");
    }

    /// Tells threads to end when it is dropped.
    struct Ends<'a>(&'a AtomicBool);

    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    /// Receives datagrams that end in their number, and counts them.
    fn counting(socket: &UdpSocket, count: &AtomicU64, done: &AtomicBool) {
        let mut buffer = [0; 2_000];
        while !done.load(Relaxed) {
            let Ok(len) = socket.recv(&mut buffer) else { continue };
            let sequence = u64::from_le_bytes(buffer[len - 8..len].try_into().unwrap());
            // In order on one path: a gap is a packet that was lost.
            assert_eq!(sequence, count.load(Relaxed));
            count.store(sequence + 1, Relaxed);
        }
    }

    #[test]
    fn a_hundred_replacements_under_traffic_lose_no_packet_and_let_none_past_the_program() {
        const REPLACEMENTS: usize = 100;
        // A veth holds 256; the receiver is asked to keep up, so that only the program could lose one.
        const WINDOW: u64 = 64;
        let pair = Pair::new("r");
        let pins = &pair.pins[0];
        pair.load(&pair.gateway, "g0", pins).unwrap();
        let mut plane = Kernel::open(pins).unwrap();
        plane.configure(&settings());
        bind(&mut plane);
        let address = SocketAddr::from(([10, 9, 0, 1], CLIENT_V4.port()));
        let binding = Binding { address: mapped(address.ip()), ..client() };
        plane.apply(&MapOp::Binding { slot: SLOT, entry: 2, binding }).unwrap();
        plane.apply(&MapOp::Activate { slot: SLOT, word: ActiveWord::new(2, 0, 2) }).unwrap();
        plane.shared().set_alive(0, Duration::from_secs(3_600));

        let receive = |port: u16| pair.inside(&pair.gateway, || UdpSocket::bind(("10.9.0.2", port)).unwrap());
        // What is ours, and what is another's on the same interface.
        let receivers = [receive(packet::PORT), receive(9_999)];
        let received = [AtomicU64::new(0), AtomicU64::new(0)];
        let [stop, done] = [AtomicBool::new(false), AtomicBool::new(false)];
        let (sent, programs) = thread::scope(|scope| {
            // Also when an assertion below fails: otherwise the others were waited for.
            let _ends = [Ends(&stop), Ends(&done)];
            for (socket, count) in receivers.iter().zip(&received) {
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                scope.spawn(|| counting(socket, count, &done));
            }
            let socket = pair.inside(&pair.client, || UdpSocket::bind(address).unwrap());
            let sender = scope.spawn({
                let (stop, received) = (&stop, &received);
                move || {
                    let mut sequence = 0u64;
                    while !stop.load(Relaxed) {
                        let mut ours = packet::data(LOCATOR.0, 0, sequence + 1, 100);
                        let end = ours.len() - 8;
                        ours[end..].copy_from_slice(&sequence.to_le_bytes());
                        socket.send_to(&ours, ("10.9.0.2", packet::PORT)).unwrap();
                        socket.send_to(&sequence.to_le_bytes(), ("10.9.0.2", 9_999)).unwrap();
                        sequence += 1;
                        if sequence.is_multiple_of(8) {
                            // The processors are for the replacements.
                            thread::sleep(Duration::from_micros(200));
                        }
                        let deadline = std::time::Instant::now() + Duration::from_secs(30);
                        while received.iter().any(|count| count.load(Relaxed) + WINDOW < sequence) {
                            assert!(std::time::Instant::now() < deadline, "{received:?} of {sequence}: lost");
                            thread::sleep(Duration::from_micros(100));
                        }
                    }
                    sequence
                }
            });
            let mut programs = BTreeSet::new();
            for _ in 0..REPLACEMENTS {
                let loaded = pair.load(&pair.gateway, "g0", pins).unwrap();
                assert_eq!((loaded.mode, loaded.kept_maps), (None, true));
                programs.insert(pair.inside(&pair.gateway, || attach::program_on("g0")).unwrap());
            }
            stop.store(true, Relaxed);
            let sent = sender.join().expect("it sends to the end");
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while received.iter().any(|count| count.load(Relaxed) < sent) {
                assert!(std::time::Instant::now() < deadline, "{received:?} of {sent}: lost");
                thread::sleep(Duration::from_millis(10));
            }
            (sent, programs)
        });
        println!("{sent} packets of each kind through {} programs", programs.len());
        assert_eq!(programs.len(), REPLACEMENTS, "each replacement is another program");
        assert!(sent > 10 * REPLACEMENTS as u64, "only {sent} packets: no traffic");
        assert_eq!(plane.verdicts().unwrap().kernel(Verdict::Data), sent, "every one of ours was judged by a program");
    }

    /// Bytes of a map as the kernel accounts for them.
    fn accounted(pins: &Pins, name: &str) -> u64 {
        let map = MapData::from_pin(pins.map(name)).unwrap();
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(info).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("a map has it");
        line.trim().parse().unwrap()
    }

    #[test]
    fn what_load_says_a_session_costs_is_what_the_kernel_says() {
        let processors = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
        for (number, sessions) in [4_096, 5_461, 5_462].into_iter().enumerate() {
            let pair = Pair::new(&format!("m{number}"));
            let pins = &pair.pins[0];
            pins.remove_all().unwrap();
            attach::make_maps(pins, sessions).unwrap();
            let kernel: u64 = jvpn_common::abi::map::SIZED.iter().map(|name| accounted(pins, name)).sum();
            let said = cost::memory(sessions);
            println!("{sessions} sessions: said {said}, kernel {kernel}; processors {}", processors.trim());
            // Each map itself is a page before its values, which are whole pages too.
            let heads = 6 * 2 * 4_096;
            assert!((said..said + heads).contains(&kernel), "{sessions} sessions: said {said}, kernel {kernel}");
            assert_eq!(cost::per_session(sessions), said.div_ceil(u64::from(sessions)));
        }
        assert!(cost::per_session(4_096) <= 1_024, "a kibibyte");
    }

    #[test]
    fn an_interface_with_a_dot_in_its_name_is_loaded_listed_and_unloaded() {
        let pair = Pair::new("v");
        let pins = &pair.pins[0];
        ip(&format!("-n {} link set g0 down", pair.gateway));
        ip(&format!("-n {} link set g0 name g0.7", pair.gateway));
        pair.load(&pair.gateway, "g0.7", pins).unwrap();
        assert_eq!(pins.interfaces(), ["g0.7"]);
        assert!(pair.inside(&pair.gateway, || attach::unload("g0.7", pins)).unwrap());
        assert!(!pins.root().exists());
    }

    #[test]
    fn what_a_load_that_was_killed_left_is_taken_for_nothing_and_what_another_build_left_is_not() {
        let pair = Pair::new("k");
        let pins = &pair.pins[0];
        // Killed before the configuration was written: maps, zeros in CONFIG, no link.
        pair.load(&pair.gateway, "g0", pins).unwrap();
        let zero = || {
            let config = MapData::from_pin(pins.map("CONFIG")).unwrap();
            Array::<_, [u64; 32]>::try_from(Map::Array(config)).unwrap().set(0, [0; 32], 0).unwrap();
        };
        zero();
        let error = pair.load(&pair.gateway, "g0", pins).unwrap_err();
        assert!(matches!(error, AttachError::Layout), "something is attached: {error}");
        std::fs::remove_file(pins.link("g0")).unwrap();
        // The kernel lets go of a link when it has time.
        let began = std::time::Instant::now();
        while pair.inside(&pair.gateway, || attach::program_on("g0")).is_some() {
            assert!(began.elapsed() < Duration::from_secs(30), "it is still on");
            thread::sleep(Duration::from_millis(10));
        }
        let loaded = pair.load(&pair.gateway, "g0", pins).unwrap();
        assert!(!loaded.kept_maps, "made anew");
        // Killed while the pins were removed: CONFIG is gone already.
        std::fs::remove_file(pins.map("CONFIG")).unwrap();
        let loaded = pair.load(&pair.gateway, "g0", pins).unwrap();
        assert_eq!((loaded.kept_maps, loaded.mode), (false, None), "new maps, and the program replaced in place");
        assert_eq!(attach::read_config(pins).unwrap().max_sessions, SLOTS);
    }

    #[test]
    fn a_planted_pin_directory_is_refused() {
        let pins = private_pins();
        let mode = |mode: &str| Command::new("chmod").arg(mode).arg(pins.root()).status().unwrap();
        assert!(mode("0755").success());
        let error = Kernel::open(&pins).unwrap_err().to_string();
        assert!(error.contains("rm -r"), "{error}");
        assert!(mode("0700").success());
        let owner = |owner: &str| Command::new("chown").arg(owner).arg(pins.root()).status().unwrap();
        assert!(owner("65534").success());
        for error in [pins.check().unwrap_err(), pins.create().unwrap_err(), pins.remove_all().unwrap_err()] {
            assert!(error.to_string().contains("may be planted"), "{error}");
        }
        assert!(pins.root().exists(), "what is another's is left alone");
        assert!(owner("0").success());
        pins.remove_all().unwrap();
        assert!(!pins.root().exists());
    }
}
