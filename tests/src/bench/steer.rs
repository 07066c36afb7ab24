//! `bench steer`: nanoseconds a packet, net of the empty program; hot, and at random among very many sessions.
//! Owns the cases and how each is measured. Never measures a verdict other than the one it names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, ensure};
use jvpn_common::abi::{
    ActiveWord, Binding, HOP_RESOLVED, HOP_WORDS, Hop, LocatorEntry, OWNER_WORDS, Owner, OwnerEndpoint, PathCounters,
    ROLE_GATEWAY, ROLE_RELAY, SessionEntry, map, mapped,
};
use jvpn_common::ids::Locator;
use jvpn_common::verdict::Verdict;

use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::program::{EMPTY, Measured, RELAY, STEER, Shape, Writes, row};
use super::{Options, chart, machine};
use crate::lab::ground::Ground;
use crate::packet::{self, CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, KEYS};
use crate::packet_kernel::counted;
use crate::packet_kernel_maps::session_words;
use crate::packet_relay;
use jvpn_packets::host::INGRESS;

/// Rounds, and packets of one measurement.
const FULL: (u32, u32) = (9, 2_000_000);
const QUICK: (u32, u32) = (3, 100_000);
/// Sessions of the curve, and how they are called.
const SESSIONS: [(u32, &str); 4] = [(1_000, "1k"), (10_000, "10k"), (100_000, "100k"), (1_000_000, "1m")];
/// The largest of them that a quick run fills.
const QUICK_SESSIONS: u32 = 10_000;
/// Echoes need a new probe each; as many as this between two resets of the window.
const PROBES: u32 = 1 << 16;
/// Slot of the hot session.
const HOT: u32 = 1;
/// Order of the sessions: the same in every run.
const SEED: u64 = 0x6a76_706e_2d73_7465;

/// One kind of packet.
struct Case {
    metric: &'static str,
    /// How it ends, which is checked.
    verdict: Verdict,
    /// Whether the way out is not resolved, so that the kernel's routes are asked.
    asks: bool,
    /// Whether a relay's program is asked, and what of the frame is written at each turn.
    relay: bool,
    writes: Writes,
    /// Goal and must in nanoseconds, if any.
    bounds: Option<(f64, f64)>,
    /// Frames of the session, in turn.
    frames: fn() -> Vec<Vec<u8>>,
}

fn data_v4() -> Vec<u8> {
    packet::frame(CLIENT_V4, GATEWAY_V4, false, &packet::data(locator(HOT), 0, 1, 62))
}

fn data_v6() -> Vec<u8> {
    packet::frame(CLIENT_V6, GATEWAY_V6, false, &packet::data(locator(HOT + 1), 0, 1, 42))
}

const CASES: [Case; 9] = [
    Case {
        metric: "pass_hot_ns",
        verdict: Verdict::Data,
        asks: false,
        relay: false,
        writes: Writes::Nothing,
        bounds: Some((45.0, 60.0)),
        frames: || vec![data_v4()],
    },
    Case {
        metric: "pass_v6_hot_ns",
        verdict: Verdict::Data,
        asks: false,
        relay: false,
        writes: Writes::Nothing,
        bounds: None,
        frames: || vec![data_v6()],
    },
    Case {
        metric: "drop_hot_ns",
        verdict: Verdict::UnknownLocator,
        asks: false,
        relay: false,
        writes: Writes::Nothing,
        bounds: None,
        frames: || vec![packet::frame(CLIENT_V4, GATEWAY_V4, false, &packet::data(1, 0, 1, 62))],
    },
    Case {
        metric: "forged_hot_ns",
        verdict: Verdict::ForgedTag,
        asks: false,
        relay: false,
        writes: Writes::Nothing,
        bounds: Some((35.0, 50.0)),
        frames: || {
            let mut datagram = packet::data(locator(HOT), 0, 1, 62);
            datagram[4] ^= 1;
            vec![packet::frame(CLIENT_V4, GATEWAY_V4, false, &datagram)]
        },
    },
    Case {
        metric: "echo_hot_ns",
        verdict: Verdict::Echoed,
        asks: false,
        relay: false,
        writes: Writes::All,
        bounds: None,
        frames: || {
            let probe = |at| packet::probe(locator(HOT), 0, u64::from(at), 14);
            (1..=PROBES).map(|at| packet::frame(CLIENT_V4, GATEWAY_V4, false, &probe(at))).collect()
        },
    },
    Case {
        metric: "rewrite_v4_hot_ns",
        verdict: Verdict::ForwardedUp,
        asks: false,
        relay: true,
        writes: Writes::All,
        bounds: Some((65.0, 90.0)),
        frames: || vec![data_v4()],
    },
    Case {
        metric: "rewrite_v4_fib_hot_ns",
        verdict: Verdict::ForwardedUp,
        asks: true,
        relay: true,
        writes: Writes::All,
        bounds: None,
        frames: || vec![data_v4()],
    },
    Case {
        metric: "rewrite_v6_hot_ns",
        verdict: Verdict::ForwardedUp,
        asks: false,
        relay: true,
        writes: Writes::AllV6,
        bounds: Some((65.0, 90.0)),
        frames: || vec![data_v6()],
    },
    Case {
        metric: "foreign_pass_ns",
        verdict: Verdict::Foreign,
        asks: false,
        relay: false,
        writes: Writes::Nothing,
        bounds: Some((15.0, 15.0)),
        frames: || {
            let elsewhere = SocketAddr::new(GATEWAY_V4.ip(), packet::PORT + 1);
            vec![packet::frame(CLIENT_V4, elsewhere, false, &packet::data(locator(HOT), 0, 1, 62))]
        },
    },
];

/// A packet of each of very many sessions.
const RANDOM: Case = Case {
    metric: "pass_random_ns",
    verdict: Verdict::Data,
    asks: false,
    relay: false,
    writes: Writes::Header,
    bounds: None,
    frames: Vec::new,
};

/// The locator of a slot: nothing that a cache could guess.
fn locator(slot: u32) -> u64 {
    mixed(u64::from(slot) ^ SEED)
}

/// SplitMix64.
const fn mixed(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Slots 1 to `count` in an order that follows from the seed.
fn shuffled(count: u32) -> Vec<u32> {
    let mut slots: Vec<u32> = (1..=count).collect();
    for at in (1..slots.len()).rev() {
        let other = mixed(SEED.wrapping_add(at as u64)) % (at as u64 + 1);
        slots.swap(at, other as usize);
    }
    slots
}

/// Fills `count` sessions, each bound to the client's IPv4 address, but for the one that is to be on IPv6.
fn fill(measured: &mut Measured, count: u32, v6: Option<u32>, owner: u32) -> Result<()> {
    let mut sessions = measured.array::<[u64; 16]>(map::SESSIONS)?;
    let mut keys = measured.array::<[u64; 4]>(map::KEYS)?;
    let mut locators = measured.locators()?;
    for slot in 1..=count {
        let client = if Some(slot) == v6 { CLIENT_V6 } else { CLIENT_V4 };
        let binding = Binding { address: mapped(client.ip()), port: client.port(), ..Binding::default() };
        let active = ActiveWord::new(1, 0, 1).0;
        let bindings = [binding, Binding::default(), Binding::default()];
        let entry = SessionEntry { active, generation: 1, bindings, owner, ..SessionEntry::default() };
        sessions.set(slot, session_words(&entry), 0)?;
        keys.set(slot, KEYS.to_words(), 0)?;
        let entry = LocatorEntry { slot, generation: 1, k: 0 };
        locators.insert(Locator(locator(slot)), entry).map_err(|refused| anyhow!("a locator: {refused:?}"))?;
    }
    Ok(())
}

/// A network in which the kernel knows the way to the owner: a pair of interfaces, of which nobody reads the other end, and a neighbour.
struct Routes {
    ground: Ground,
    /// Number of that interface.
    ifindex: u32,
}

impl Routes {
    fn lay() -> Result<Self> {
        let ground = Ground::take(&["gw"])?;
        let space = ground.topology.gateway();
        let owner = packet_relay::OWNER_V4.ip();
        space.ip(&format!(
            "link set lo up\nlink add way type veth peer name beyond\nlink set beyond up\naddress add 203.0.113.1/24 dev way\nlink set way up\n\
             neighbour add {owner} lladdr 02:00:00:00:00:07 dev way nud permanent\n"
        ))?;
        // The kernel answers for interfaces that forward only.
        space.sysctl("ipv4/conf/all/forwarding", "1")?;
        let ifindex = space.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            Ok(rustix::net::netdevice::name_to_index(&socket, "way")?)
        })?;
        Ok(Self { ground, ifindex })
    }
}

/// The one owner of all sessions of a relay, and a way to it in each IP version; resolved, unless the kernel is asked.
fn other_side(measured: &mut Measured, routes: Option<&Routes>) -> Result<()> {
    let end =
        |at: SocketAddr, hop| OwnerEndpoint { address: mapped(at.ip()), port: at.port(), hop, mtu: 0, reserved: 0 };
    let (v4, v6) = (end(packet_relay::OWNER_V4, 1), end(packet_relay::OWNER_V6, 2));
    let owner = Owner { sequence: 2, alive_until: u64::MAX, v4, v6, incarnation: 1, owner_epoch: 1 };
    measured.array::<[u64; OWNER_WORDS]>(map::OWNERS)?.set(0, owner.to_words(), 0)?;
    let mut hops = measured.array::<[u64; HOP_WORDS]>(map::HOPS)?;
    for (id, own) in [(1, packet_relay::RELAY_V4), (2, packet_relay::RELAY_V6)] {
        let hop = Hop {
            sequence: 2,
            source: mapped(own.ip()),
            ifindex: routes.map_or(INGRESS, |routes| routes.ifindex),
            flags: if routes.is_some() { 0 } else { HOP_RESOLVED },
            destination_mac: packet::MACS.1,
            source_mac: packet::MACS.0,
            ..Hop::default()
        };
        hops.set(id, hop.to_words(), 0)?;
    }
    Ok(())
}

/// Sessions in the maps and frames in a row, ready to be run.
struct Ready {
    measured: Measured,
    routes: Option<Routes>,
    program: &'static str,
    /// Runs of one measurement.
    packets: u32,
    /// After so many the windows are forgotten.
    reset_every: u32,
    verdict: Verdict,
    live: bool,
}

impl Ready {
    fn new(sessions: u32, case: &Case, frames: &[Vec<u8>], packets: u32, live: bool) -> Result<Self> {
        let &Case { verdict, relay, writes, .. } = case;
        let rows = u32::try_from(frames.len())?.next_power_of_two();
        let first = frames.first().context("a frame")?;
        let role = if relay { ROLE_RELAY } else { ROLE_GATEWAY };
        let mut measured = Measured::load(Shape { slots: sessions + 1, rows, writes, drop: live }, role, first)?;
        fill(&mut measured, sessions, (rows == 1).then_some(HOT + 1), u32::from(relay))?;
        let routes = if case.asks { Some(Routes::lay()?) } else { None };
        if relay {
            other_side(&mut measured, routes.as_ref())?;
        }
        let mut map = measured.rows()?;
        for (at, frame) in (0..rows).zip(frames.iter().cycle()) {
            map.set(at, row(frame, writes), 0)?;
        }
        let reset_every = if verdict == Verdict::Echoed { rows } else { u32::MAX };
        let program = if relay { RELAY } else { STEER };
        Ok(Self { measured, routes, program, packets: packets.max(rows), reset_every, verdict, live })
    }

    /// Nanoseconds a packet took in `program`.
    fn once(&mut self, program: &str) -> Result<f64> {
        let before = self.verdicts();
        let (mut left, mut sum) = (self.packets, 0.0);
        while left > 0 {
            let now = left.min(self.reset_every);
            self.measured.forget()?;
            if self.verdict == Verdict::Echoed {
                let fresh = PathCounters::default().to_words();
                self.measured.array::<[u64; 4]>(map::PATHS)?.set(HOT * 4, fresh, 0)?;
            }
            let run = || self.measured.run(program, now, self.live);
            let took = match &self.routes {
                Some(routes) => routes.ground.topology.gateway().enter(run)?,
                None => run()?,
            };
            sum += took * f64::from(now);
            left -= now;
        }
        let steered = if program == EMPTY { 0 } else { u64::from(self.packets) };
        let after = self.verdicts();
        // Live frames come in whole batches; the last one may be short of what was asked for, never over.
        let counted = after[self.verdict as usize] - before[self.verdict as usize];
        let others: u64 = after.iter().zip(&before).map(|(after, before)| after - before).sum::<u64>() - counted;
        ensure!(
            counted == steered && others == 0,
            "{counted} of {steered} packets were {}, {others} not",
            self.verdict
        );
        Ok(sum / f64::from(self.packets))
    }

    fn verdicts(&self) -> Vec<u64> {
        counted(&crate::packet_kernel::verdicts_at(self.measured.pins()))
    }

    /// The empty program and ours, one after the other.
    fn round(&mut self) -> Result<(f64, f64)> {
        let empty = self.once(EMPTY)?;
        Ok((empty, self.once(self.program)? - empty))
    }
}

/// What one kind of packet cost, round by round.
#[derive(Default)]
struct Samples {
    net: Vec<Option<f64>>,
    empty: Vec<Option<f64>>,
}

/// The name of a metric as the document wants it: few, and known before anything runs.
fn leaked(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

fn case_name(case: &Case, live: bool) -> &'static str {
    if live { leaked(case.metric.replace("_ns", "_live_ns")) } else { case.metric }
}

fn random_name(called: &str, live: bool) -> &'static str {
    leaked(format!("pass_random_{called}{}_ns", if live { "_live" } else { "" }))
}

/// The promises are those of the harness every kernel has; live frames stand beside them.
fn promised(case: &Case, live: bool) -> Option<(f64, f64)> {
    case.bounds.filter(|_| !live)
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    let of = |live| {
        let cases = CASES.iter().map(move |case| (case_name(case, live), promised(case, live)));
        cases.chain(SESSIONS.into_iter().map(move |(_, called)| (random_name(called, live), None)))
    };
    [false, true].into_iter().flat_map(of).map(|(name, bounds)| result(name, bounds, Samples::default())).collect()
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, packets) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let mut results = Vec::new();
    for live in [false, true] {
        for case in &CASES {
            let name = case_name(case, live);
            let mut ready = Ready::new(2, case, &(case.frames)(), packets, live)?;
            results.push(measure(name, promised(case, live), rounds, &mut ready)?);
        }
        for (sessions, called) in SESSIONS.into_iter().filter(|(count, _)| !options.quick || *count <= QUICK_SESSIONS) {
            let frame = |slot| packet::frame(CLIENT_V4, GATEWAY_V4, false, &packet::data(locator(slot), 0, 1, 62));
            let frames: Vec<_> = shuffled(sessions).into_iter().map(frame).collect();
            let mut ready = Ready::new(sessions, &RANDOM, &frames, packets, live)?;
            results.push(measure(random_name(called, live), None, rounds, &mut ready)?);
        }
    }
    document(results)
}

fn measure(name: &'static str, bounds: Option<(f64, f64)>, rounds: u32, ready: &mut Ready) -> Result<Metric> {
    let mut samples = Samples::default();
    // The first run fills caches and decides frequencies.
    ready.round()?;
    for _ in 0..rounds {
        let (empty, net) = ready.round()?;
        samples.empty.push(Some(empty));
        samples.net.push(Some(net));
    }
    eprintln!("{name}: done");
    Ok(result(name, bounds, samples))
}

fn result(name: &'static str, bounds: Option<(f64, f64)>, samples: Samples) -> Metric {
    let rivals = BTreeMap::from([("empty".to_owned(), samples.empty)]);
    let mut wanted = Wanted { metric: name, unit: "ns", better: Better::Lower, bounds: &[] };
    if let Some((goal, must)) = bounds {
        wanted.bounds = Vec::leak(vec![(LIMIT, goal / must, 1.0)]);
    }
    Metric::limited(&wanted, samples.net, rivals, bounds.map(|(_, must)| must))
}

/// The curve of each way to run: sessions and nanoseconds, the hot one first.
pub fn curves(results: &[Metric]) -> chart::Chart {
    let of = |name: &str| results.iter().find(|metric| metric.metric == name).and_then(|metric| metric.ours);
    let line = |name: &str, suffix: &str| {
        let random = SESSIONS.map(|(count, called)| (count, of(&format!("pass_random_{called}{suffix}_ns"))));
        let hot = (1, of(&format!("pass_hot{suffix}_ns")));
        let points = [hot].into_iter().chain(random).filter_map(|(count, ns)| Some((f64::from(count), ns?)));
        chart::Line { name: name.to_owned(), points: points.collect() }
    };
    chart::Chart {
        title: "Steering a data packet: ns net of the empty program".to_owned(),
        x: "sessions met in random order (1 = hot)".to_owned(),
        y: "ns a packet".to_owned(),
        lines: vec![line("BPF_PROG_TEST_RUN", ""), line("live frames", "_live")],
    }
}

fn document(results: Vec<Metric>) -> Result<Document> {
    Ok(Document {
        contenders: vec![
            Contender::new("ours", "steer, net of the empty program"),
            Contender::new("empty", "the same without steering; gross"),
            Contender::new(LIMIT, "the must in ns; its ratio must stay below 1"),
        ],
        results,
        notes: vec![
            "hot: one session, one packet; random: a packet of each session in an order that follows from a seed, its \
             header written over the last one's, in the empty program too; echo and rewrite: all headers"
                .into(),
            "live: BPF_F_TEST_XDP_LIVE_FRAMES in batches of 64, dropped in the end".into(),
            "forged includes the sampled event of a drop, as in the product's program".into(),
        ],
        ..machine::program_alone("steer")?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_sessions_is_a_permutation_and_always_the_same() {
        let order = shuffled(1_000);
        assert_eq!(order, shuffled(1_000));
        assert_ne!(order, (1..=1_000).collect::<Vec<_>>());
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=1_000).collect::<Vec<_>>());
    }

    #[test]
    fn rows_are_a_power_of_two_so_that_a_mask_takes_turns() {
        for case in &CASES {
            let frames = (case.frames)();
            assert!(frames.len().is_power_of_two(), "{}", case.metric);
        }
    }
}
