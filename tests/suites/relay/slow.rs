//! The slow ways of a relay on live links: the kernel's own tables where a way is not resolved, the relay's process where
//! there is no neighbour; and what is said where the host does not forward.

use std::net::SocketAddr;

use jvpn_common::abi::HOPS_MAX;
use jvpn_common::ids::{Generation, Slot};
use jvpn_common::wire::Kind;
use jvpn_tests::lab::tap::{Seen, Tap, station};
use jvpn_tests::lab::topology::{GATEWAY_PORT, OWNERS_V4, OWNERS_V6, RELAYS_V4, RELAYS_V6};

use super::*;

/// What a socket of the relay sends with.
const FRESH: u8 = 64;
/// Datagrams each way after which enough was seen.
const ENOUGH: usize = 20;

fn on_one_path(outside_v6: bool) -> Setup {
    let mut setup = Setup { uplinks: vec![Path::A], outside_v6, ..through_one(Xdp::Switched) };
    // Events of single packets are for those who ask.
    setup.environment.push(("JVPN_LOG".into(), "info,jvpn_ctl::runtime::events=debug".into()));
    setup
}

/// The frames on both sides of the relay, at the router before it.
struct Sides {
    /// From the client and from the owner.
    before: [Tap; 2],
    behind: Tap,
    relay: SocketAddr,
    owner: SocketAddr,
    /// Destination and source of what leaves the relay.
    stations: [[u8; 6]; 2],
}

/// A datagram before and behind the relay.
type Pair = (Seen, Seen);

impl Sides {
    fn of(stage: &Stage, v6: bool) -> Self {
        let core = stage.lab.topology.space("core");
        let tap = |interface| Tap::on(&core, interface).expect("a tap");
        let at = |v4: &str, ipv6: &str| {
            SocketAddr::new(if v6 { ipv6 } else { v4 }.parse().expect("an address"), GATEWAY_PORT)
        };
        let ends = [(&core, "r1"), (&stage.lab.topology.relay(0), "wan")];
        Self {
            before: [tap("ra"), tap("gw")],
            behind: tap("r1"),
            relay: at(RELAYS_V4[0], RELAYS_V6[0]),
            owner: at(OWNERS_V4[0], OWNERS_V6[0]),
            stations: ends.map(|(space, interface)| station(space, interface).expect("a station")),
        }
    }

    /// Data that went through since the last look, up and down.
    fn pairs(&mut self) -> [Vec<Pair>; 2] {
        let data = |tap: &mut Tap| -> Vec<Seen> {
            let seen = tap.arrived().into_iter().filter_map(|frame| Seen::of(&frame));
            seen.filter(|seen| seen.payload.first().copied().and_then(Kind::from_byte) == Some(Kind::Data)).collect()
        };
        let behind = data(&mut self.behind);
        self.before.each_mut().map(|tap| {
            let before = data(tap).into_iter().filter(|seen| seen.to == self.relay);
            let twin = |seen: &Seen| behind.iter().find(|left| left.payload == seen.payload).cloned();
            before.filter_map(|seen| twin(&seen).map(|left| (seen, left))).collect()
        })
    }

    /// What leaves is the same datagram with the relay's address, towards the right end, with right checksums.
    fn check(&self, [up, down]: &[Vec<Pair>; 2]) {
        let client = up.first().map(|(seen, _)| seen.from);
        for (pairs, to) in [(up, Some(self.owner)), (down, client)] {
            for (came, left) in pairs {
                assert!(came.sums_right && left.sums_right, "{came:?} {left:?}");
                assert_eq!((left.from, Some(left.to), left.class), (self.relay, to, came.class));
                assert_eq!(left.stations, self.stations);
            }
        }
    }
}

impl Stage {
    /// Sends what is for the client by another station than what is for the owner. Both go one way in `HOPS`, which
    /// from then on is not resolved: only the kernel's tables know which station is meant.
    fn split(&self, v6: bool) {
        let (other, clients) =
            if v6 { ("2001:db8:71::2", "2001:db8:a::/64") } else { ("198.51.101.2", "192.0.2.0/24") };
        let whole = if v6 { "64 dev r1 nodad" } else { "24 dev r1" };
        self.lab.topology.space("core").ip(&format!("address add {other}/{whole}\n")).expect("a second address");
        self.lab.topology.relay(0).ip(&format!("route add {clients} via {other}\n")).expect("another route");
        self.until("the way is split", |stage| !stage.any_resolved());
    }

    fn any_resolved(&self) -> bool {
        let maps = self.maps(0);
        (0..u16::try_from(HOPS_MAX).expect("few"))
            .any(|number| maps.shared().hop(number).is_some_and(|hop| hop.resolved()))
    }

    /// Packets whose way the kernel's tables were asked for.
    fn slow(&self) -> u64 {
        let maps = self.maps(0);
        let used = (0..maps.capacity()).map(Slot).filter(|slot| maps.shared().generation(*slot).0 != Generation(0));
        used.map(|slot| maps.traffic(slot).slow_path).sum()
    }

    /// Events of the program about a neighbour nobody knows, as the relay's process had them.
    fn reported(&self) -> usize {
        let log = std::fs::read_to_string(self.product.log_file(Role::Relay(0))).expect("a log");
        log.lines()
            .filter(|line| line.contains("program reports") && line.contains(Verdict::NoNeighbour.name()))
            .count()
    }

    /// Sends pings until enough of them were seen on both sides of the relay.
    fn pass(&self, sides: &mut Sides) -> [Vec<Pair>; 2] {
        let _ = sides.pairs();
        let mut all = [Vec::new(), Vec::new()];
        let target: IpAddr = INNER_GATEWAY_V4.parse().expect("an address");
        let mut sizes = [1, 56, 700, 1_200].into_iter().cycle();
        self.until("enough datagrams through the relay", |stage| {
            let size = sizes.next().expect("a cycle");
            if let Err(error) = ping(&stage.lab.topology.client(), target, size, PATIENCE) {
                panic!("{error:#}\n{}", stage.tails());
            }
            for (all, new) in all.iter_mut().zip(sides.pairs()) {
                all.extend(new);
            }
            all.iter().all(|pairs| pairs.len() >= ENOUGH)
        });
        all
    }
}

#[test]
fn a_way_that_is_not_resolved_is_asked_of_the_kernels_tables_and_frames_leave_whole() {
    for v6 in [false, true] {
        let stage = Stage::set(&on_one_path(v6));
        stage.reaches(INNER_GATEWAY_V4);
        stage.split(v6);
        // The first packet to the other station finds it.
        let passed = || stage.counted(0, Verdict::NoNeighbour);
        stage.until("every neighbour is known", |stage| {
            let before = passed();
            stage.reaches(INNER_GATEWAY_V4);
            passed() == before
        });
        let mut sides = Sides::of(&stage, v6);
        let forwarded = || [Verdict::ForwardedUp, Verdict::ForwardedDown].map(|verdict| stage.counted(0, verdict));
        let (slow, before, left_over) = (stage.slow(), forwarded(), passed());
        let pairs = stage.pass(&mut sides);
        sides.check(&pairs);
        let rewritten = |(came, left): &&Pair| left.hops_left + 2 == came.hops_left;
        for way in &pairs {
            // The router between is one hop, the relay's program the other.
            assert_eq!(
                way.iter().filter(rewritten).count(),
                way.len(),
                "IPv6 {v6}: rewritten in the kernel, all of them"
            );
        }
        let seen = u64::try_from(pairs[0].len() + pairs[1].len()).expect("few");
        assert!(stage.slow() >= slow + seen, "the kernel's tables were asked for each");
        let after = forwarded();
        assert!(after[0] >= before[0] + ENOUGH as u64 && after[1] >= before[1] + ENOUGH as u64, "{before:?} {after:?}");
        assert_eq!(passed(), left_over, "none was left to the process");
        stage.end();
    }
}

#[test]
fn where_the_host_does_not_forward_the_process_takes_the_slow_way_and_load_says_so_before() {
    for v6 in [false, true] {
        let stage = Stage::set(&on_one_path(v6));
        stage.reaches(INNER_GATEWAY_V4);
        let (relay, family) = (stage.lab.topology.relay(0), if v6 { "ipv6" } else { "ipv4" });
        let dry = || {
            let (code, _, said) = stage.product.verb(Role::Relay(0), &["load", "wan", "--dry-run"]).expect("it runs");
            assert_eq!(code, 0, "{said}");
            said
        };
        assert!(!dry().contains("forwarding"), "nothing to say where it forwards: {}", dry());
        // Of this interface alone: that of all others is still on.
        relay.sysctl(&format!("{family}/conf/wan/forwarding"), "0").expect("a switch");
        let said = dry();
        assert!(said.contains(&format!("sysctl -w net/{family}/conf/wan/forwarding=1")), "{said}");

        stage.split(v6);
        let mut sides = Sides::of(&stage, v6);
        let (slow, passed) = (stage.slow(), stage.counted(0, Verdict::NoNeighbour));
        let pairs = stage.pass(&mut sides);
        sides.check(&pairs);
        for way in &pairs {
            let sent = way.iter().filter(|(_, left)| left.hops_left == FRESH).count();
            assert_eq!(sent, way.len(), "IPv6 {v6}: sent by the process, all of them");
        }
        let seen = u64::try_from(pairs[0].len() + pairs[1].len()).expect("few");
        assert!(stage.slow() >= slow + seen && stage.counted(0, Verdict::NoNeighbour) >= passed + seen);
        stage.until("an event says so", |stage| stage.reported() > 0);
        stage.end();
    }
}

#[test]
fn a_neighbour_that_is_gone_costs_no_byte_of_a_download_and_is_found_again() {
    let stage = Stage::set(&on_one_path(false));
    stage.reaches(INNER_GATEWAY_V4);
    let server = Server::start(&stage.lab.topology.lan(), LAN_V4.parse().expect("an address")).expect("a server");
    let download = Download::start(&stage.lab.topology.client(), server.address).expect("a download");
    stage.until("bytes before anything happens", |_| download.bytes() > 100_000);
    let (relay, core) = (stage.lab.topology.relay(0), stage.lab.topology.space("core"));
    let next = "198.51.101.1";
    let (told, passed) = (stage.reported(), stage.counted(0, Verdict::NoNeighbour));
    // The next station answers nobody who asks for it.
    core.sysctl("ipv4/conf/r1/arp_ignore", "8").expect("a switch");
    stage.until("packets without a neighbour", |stage| {
        // It may be gone already; and the other end may have told of itself meanwhile.
        let _ = relay.ip(&format!("neigh del {next} dev wan\n"));
        stage.counted(0, Verdict::NoNeighbour) >= passed + 5
    });
    core.sysctl("ipv4/conf/r1/arp_ignore", "0").expect("a switch");
    let reached = download.bytes();
    stage.until("bytes after the neighbour is back", |_| download.bytes() > reached + 100_000);
    stage.until("the way is resolved again", Stage::any_resolved);
    stage.until("an event says so", |stage| stage.reported() > told);
    let steady = stage.slow();
    let reached = download.bytes();
    stage.until("more bytes", |_| download.bytes() > reached + 100_000);
    assert_eq!(stage.slow(), steady, "and nobody is asked any more");
    server.finish();
    let finished = download.finish().expect("the download ends whole");
    assert!(finished.sha256_right, "{finished:?}");
    assert_eq!(server.connections(), 1, "one connection all the time");
    stage.end();
}
