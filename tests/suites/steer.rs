//! The steering function in the kernel and on the host, frame by frame.
//!
//! Owns which frames: every base frame, its truncations and its mutations, and that every verdict has its frames.
//! Must never pass with a verdict nobody produced.

use std::collections::BTreeMap;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use jvpn_common::abi::mapped;
use jvpn_common::steer::{self, Bytes, Source};
use jvpn_common::verdict::{Class, Verdict};
use jvpn_ctl::dataplane::attach::Program;
use jvpn_packets::host::Routes;
use jvpn_tests::packet_cases::{self, Case};
use jvpn_tests::packet_compare::Both;
use jvpn_tests::packet_maps::{HostMaps, State, VERDICTS, locator, slot};
use jvpn_tests::packet_oracle::{check_forwarded, way_of};
use jvpn_tests::packet_random::{self, Dice};
use jvpn_tests::packet_relay;
use jvpn_tests::packet_sabotage;
use jvpn_tests::size;
use jvpn_tests::{packet, packet_edges};

/// Bytes of a frame that are mutated and truncated at the short size: all headers, whatever they are.
const HEADERS: usize = 160;

/// Every truncation and every byte with four other values.
fn variants(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let all = size::of(false, true);
    let far = move |at: usize| !all && at >= HEADERS && at + 2 < frame.len() && !at.is_multiple_of(97);
    let cut = (0..frame.len()).filter(move |at| !far(*at)).map(|len| frame[..len].to_vec());
    let changed = (0..frame.len()).filter(move |at| !far(*at)).flat_map(move |at| {
        let was = frame[at];
        [0, 0xff, was ^ 0x01, was ^ 0x80].into_iter().filter(move |value| *value != was).map(move |value| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            frame
        })
    });
    cut.chain(changed)
}

fn agree(program: Program, cases: &[Case]) {
    let mut both = Both::new(program);
    for case in cases {
        both.check(case, variants(&case.frame));
    }
    println!("{} base frames, {} runs, {} answers checked by the oracle", cases.len(), both.runs, both.answers);
    assert!(both.runs > 10_000 && both.answers > 500);
}

#[test]
fn kernel_host_and_oracle_agree_on_every_frame_and_every_mutation_of_it() {
    agree(Program::Gateway, &packet_cases::all());
}

#[test]
fn kernel_host_and_oracle_agree_on_every_frame_of_a_relay_and_every_mutation_of_it() {
    agree(Program::Relay, &packet_relay::own());
}

/// What both programs have in common is mutated above by the gateway's; here the base frames, all else at the long size.
#[test]
fn a_relay_judges_what_it_has_in_common_with_a_gateway_alike() {
    let mut both = Both::new(Program::Relay);
    for case in packet_relay::common() {
        let variants: Vec<_> = if size::of(false, true) { variants(&case.frame).collect() } else { Vec::new() };
        both.check(&case, variants.into_iter());
    }
    println!("{} runs, {} answers checked by the oracle", both.runs, both.answers);
    assert!(both.answers > 10);
}

/// Made-up frames a made-up world.
const FRAMES_A_WORLD: usize = 100;

#[test]
fn a_million_made_up_frames_leave_a_relay_right_to_the_last_bit() {
    let worlds = 10_000;
    let mut dice = Dice::new(0x6a76_706e);
    let mut count: BTreeMap<(Verdict, bool), u64> = BTreeMap::new();
    for _ in 0..worlds {
        let (state, ends) = packet_random::world(&mut dice);
        let host = HostMaps::new(&state);
        for _ in 0..FRAMES_A_WORLD {
            let (frame, verdict, v6) = packet_random::frame(&mut dice, &state, &ends);
            forwarded_on_the_host(&host, &state, &frame, verdict, dice.bits() as u8);
            *count.entry((verdict, v6)).or_default() += 1;
        }
    }
    println!("{count:?}");
    assert!(count.len() == 4 && count.values().all(|&frames| frames > worlds * 20));
}

/// One frame whole, and its payload as the relay's process sees it.
fn forwarded_on_the_host(host: &HostMaps, state: &State, frame: &[u8], verdict: Verdict, around: u8) {
    host.counted.borrow_mut().clear();
    let mut buffer = vec![around; frame.len() + 32];
    buffer[..frame.len()].copy_from_slice(frame);
    let mut view = Bytes::new(&mut buffer[..frame.len()]);
    let relayed = steer::relay(&mut view, host, &Routes(None));
    let answer = view.packet().to_vec();
    assert_eq!((relayed.judgement.verdict, host.counted.borrow().as_slice()), (verdict, &[verdict][..]));
    assert_eq!(check_forwarded(frame, &answer, verdict, state), relayed.ifindex);
    assert!(buffer[frame.len()..].iter().all(|&byte| byte == around), "written past the frame");
    let sliced = SlicedPacket::from_ethernet(frame).expect("a frame");
    let (source, v6) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (mapped(ip.header().source_addr().into()), false),
        Some(NetSlice::Ipv6(ip)) => (mapped(ip.header().source_addr().into()), true),
        _ => panic!("an IP version"),
    };
    let Some(TransportSlice::Udp(udp)) = &sliced.transport else { panic!("UDP") };
    let source = Source { address: source, port: udp.source_port() };
    let mut payload = udp.payload().to_vec();
    let passed = steer::relay_datagram(&mut Bytes::new(&mut payload), &source, host);
    let (_, address, port) = way_of(udp.payload(), v6, verdict, state);
    assert_eq!(passed.judgement, relayed.judgement, "the relay's process judges as its program");
    assert_eq!(passed.forward.map(|way| way.to), Some(Source { address, port }));
    assert_eq!(payload, udp.payload(), "what goes on is not touched");
}

#[test]
fn made_up_frames_leave_the_kernel_as_they_leave_the_host() {
    let mut both = Both::new(Program::Relay);
    let mut dice = Dice::new(0x0072_656c_6179);
    for _ in 0..size::of(100, 1_000) {
        let (state, ends) = packet_random::world(&mut dice);
        let (frame, verdict, v6) = packet_random::frame(&mut dice, &state, &ends);
        let others: Vec<_> = (1..FRAMES_A_WORLD).map(|_| packet_random::frame(&mut dice, &state, &ends).0).collect();
        both.check(&Case { verdict, v6, state, frame }, others.into_iter());
    }
    println!("{} frames", both.runs);
    assert!(both.runs >= 10_000 && both.answers == both.runs, "each one is forwarded");
}

#[test]
fn frames_at_the_edge_end_as_the_table_says_in_both_programs() {
    for program in [Program::Gateway, Program::Relay] {
        let mut both = Both::new(program);
        for packet_edges::Edge { name, v6, frame, gateway, relay } in packet_edges::all() {
            let (verdict, state) = match program {
                Program::Gateway => (gateway, State::world()),
                Program::Relay => (relay, packet_relay::world()),
            };
            println!("{:<10} IPv{} {name:<36} {verdict}", program.name(), if v6 { 6 } else { 4 });
            both.check(&Case { verdict, v6, state, frame }, std::iter::empty());
        }
        assert!(both.runs > 150, "{}", both.runs);
    }
}

/// The programs do not ask for frames in several buffers; a kernel that tries one all the same sees it dropped, since what
/// is in the first buffer is shorter than the headers say.
#[test]
fn a_frame_of_several_buffers_is_refused_by_the_kernel_or_dropped() {
    for (program, state) in [(Program::Gateway, State::world()), (Program::Relay, packet_relay::world())] {
        let both = Both::filled(program, &state);
        let data = packet::data(locator(slot::V4, 0, false), 0, 1, 8_900);
        let action = both.laboratory().action(&packet::frame_v4(&data));
        println!("{}: {action:?}", program.name());
        assert!(action.is_err() || action == Ok(packet::XDP_DROP), "{action:?}");
    }
}

/// Every byte of what was forwarded, changed alone, is seen by the oracle; else the million frames proved nothing.
#[test]
fn the_oracle_sees_every_single_changed_byte() {
    let mut dice = Dice::new(7);
    let (state, ends) = packet_random::world(&mut dice);
    let host = HostMaps::new(&state);
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for _ in 0..20 {
        let (frame, verdict, _) = packet_random::frame(&mut dice, &state, &ends);
        let mut answer = frame.clone();
        steer::relay(&mut Bytes::new(&mut answer), &host, &Routes(None));
        for at in 0..answer.len().min(160) {
            let mut changed = answer.clone();
            changed[at] ^= 0x10;
            let seen = std::panic::catch_unwind(|| check_forwarded(&frame, &changed, verdict, &state)).is_err();
            missed.extend((!seen).then_some(at));
        }
        assert!(std::panic::catch_unwind(|| check_forwarded(&frame, &answer, verdict, &state)).is_ok());
    }
    std::panic::set_hook(quiet);
    assert_eq!(missed, [0; 0]);
}

/// The table of edges and the oracle are worth what they catch: each bug in the rewriting is shown by the frames that are
/// there for it, and without one all of them are right.
#[test]
fn every_sabotage_of_the_rewriting_is_seen_by_the_frames_that_are_there_for_it() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let sound = packet_sabotage::shown(None);
    let table = packet_sabotage::ALL.map(|(bug, by)| (bug, by, packet_sabotage::shown(Some(bug))));
    std::panic::set_hook(quiet);
    for (bug, by, shown) in &table {
        println!("{:<18} {shown:?}, must: {by:?}", format!("{bug:?}"));
    }
    assert!(sound.iter().all(|(_, frames)| *frames == 0), "without a bug: {sound:?}");
    for (bug, must, shown) in table {
        assert!(
            shown.iter().any(|(by, frames)| *by == must && *frames > 0),
            "{bug:?} is not seen by {must:?}: {shown:?}"
        );
    }
}

fn three_frames(cases: &[Case], without_frames: &[(Verdict, &str)], one_version: &[(Verdict, bool)]) {
    let mut rows: BTreeMap<Verdict, [usize; 2]> = BTreeMap::new();
    for case in cases {
        rows.entry(case.verdict).or_default()[usize::from(case.v6)] += 1;
    }
    for &verdict in Verdict::ALL {
        let [v4, v6] = rows.get(&verdict).copied().unwrap_or_default();
        println!("{:>3} {:<18} IPv4 {v4:>2}  IPv6 {v6:>2}", verdict as u16, verdict.name());
        if let Some((_, why)) = without_frames.iter().find(|(without, _)| *without == verdict) {
            assert_eq!([v4, v6], [0, 0], "{verdict}: {why}");
        } else if let Some((_, is_v6)) = one_version.iter().find(|(one, _)| *one == verdict) {
            assert!([v4, v6][usize::from(*is_v6)] >= 3, "{verdict} has no three frames");
        } else {
            assert!(v4 >= 3 && v6 >= 3, "{verdict} has no three frames");
        }
    }
    assert!(u32::try_from(Verdict::ALL.len()).expect("few") < VERDICTS);
}

#[test]
fn every_verdict_of_a_gateway_has_three_frames_in_each_ip_version() {
    three_frames(&packet_cases::all(), &packet_cases::WITHOUT_FRAMES, &packet_cases::ONE_VERSION);
}

#[test]
fn every_verdict_of_a_relay_has_three_frames_in_each_ip_version() {
    three_frames(&packet_relay::all(), &packet_relay::WITHOUT_FRAMES, &packet_relay::ONE_VERSION);
}

/// Not a benchmark: one repeated packet shows no cache miss, and the harness is in it. It prints, so that
/// a program twice as long as yesterday's is seen.
#[test]
fn the_price_of_one_packet_is_printed() {
    use Verdict::{Data, Foreign, ForgedTag, ForwardedDown, ForwardedUp, NotBound, Unconfigured};
    price(Program::Gateway, &packet_cases::all(), &[Unconfigured, Foreign, Data, ForgedTag, NotBound]);
    price(Program::Relay, &packet_relay::all(), &[Unconfigured, Foreign, ForwardedUp, ForwardedDown, ForgedTag]);
}

fn price(program: Program, cases: &[Case], of: &[Verdict]) {
    let mut both = Both::new(program);
    println!("{}: verifier walked {} instructions", program.name(), both.verified());
    for &wanted in of {
        for v6 in [false, true] {
            let case = cases.iter().find(|case| case.verdict == wanted && case.v6 == v6).expect("a base frame");
            // A forwarded frame is another one afterwards: made to become itself but for a hop, it lasts 250 runs.
            let forwarded = wanted.class() == Class::Forward;
            let (case, repeat) =
                if forwarded { (packet_relay::into_itself(case), 250) } else { (case.clone(), 200_000) };
            let price = both.price(&case, repeat);
            println!("{:<14} IPv{} {price:>4} ns", wanted.name(), if v6 { 6 } else { 4 });
            if forwarded {
                // So few runs are dear for anybody.
                let other = cases.iter().find(|case| case.verdict == Verdict::Foreign && case.v6 == v6);
                println!("{:<14} {:>10} ns", "(FOREIGN so)", both.price(other.expect("a base frame"), repeat));
            }
            assert!(price < 100_000, "a packet takes {price} ns");
        }
    }
}
