//! `bench relay`: packets a second through a relay's kernel program, beside what else forwards UDP on this host.
//! Owns three namespaces in a row and the sender's loop. Never counts a packet that did not arrive at the other end.
//!
//! ```text
//!  client 198.18.1.1 ── left 198.18.1.2 │ r1 │ 198.18.2.2 right ── 198.18.2.1 gw      every packet is dropped there
//! ```
//!
//! Contenders in turns, each the only one in place: the relay's program (look-up, tag, binding, rewrite, redirect), an
//! nftables NAT to the same address, and bare routing, which rewrites nothing but stations. Sending and receiving are
//! the same for all and part of each figure.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::abi::{Binding, HOP_RESOLVED, Hop, Owner, OwnerEndpoint, ROLE_RELAY, mapped};
use jvpn_common::ids::{Generation, Incarnation, Locator, OwnerEpoch, SessionId, Slot, TransportIndex};
use jvpn_common::mapop::MapOp;
use jvpn_common::verdict::Verdict;
use jvpn_ctl::dataplane::attach::{self, LoadOptions, Program, Wanted as Mode};
use jvpn_ctl::dataplane::kernel::Kernel;
use jvpn_ctl::dataplane::pins::Pins;
use jvpn_ctl::dataplane::{DataPlane, Settings};
use serde_json::Value;

use super::document::{Better, Contender, Document, Metric, Wanted};
use super::ticks::Ticks;
use super::{Options, machine};
use crate::lab::ground::Ground;
use crate::lab::netns::{Netns, run as command};
use crate::lab::pass;
use crate::packet::{self, KEYS, PORT};

const FULL: (u32, Duration) = (9, Duration::from_secs(2));
const QUICK: (u32, Duration) = (3, Duration::from_millis(300));
/// Inner packets of 64 bytes.
const PAYLOAD: usize = 64 + 16;
const LOCATOR: u64 = 0x5a00_0000_0000_0100;
const SLOT: Slot = Slot(1);
/// Frames of the neighbours themselves, once in a while.
const STRAY: u64 = 16;
const NAT_PORT: u16 = 40_001;
const CLIENT_PORT: u16 = 40_000;
const ENDS: [(&str, &str, &str); 4] = [
    ("client", "c0", "198.18.1.1"),
    ("r1", "left", "198.18.1.2"),
    ("r1", "right", "198.18.2.2"),
    ("gw", "o0", "198.18.2.1"),
];

/// Who forwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Relay,
    Nat,
    Routed,
}

const WAYS: [(Way, &str); 3] = [(Way::Relay, "ours"), (Way::Nat, "nft-nat"), (Way::Routed, "routed")];

struct Row {
    ground: Ground,
}

/// What one round gave.
struct Round {
    kpps: f64,
    cpu_ns: f64,
}

impl Row {
    fn up() -> Result<Row> {
        let row = Row { ground: Ground::take(&["client", "r1", "gw"])? };
        for [left, right] in [[0, 1], [2, 3]] {
            let [(near, one, _), (far, other, _)] = [ENDS[left], ENDS[right]];
            let (near, far) = (row.space(near), row.space(far));
            let words =
                ["ip", "link", "add", one, "netns", near.name(), "type", "veth", "peer", "name", other, "netns"];
            command(&words.into_iter().chain([far.name()]).collect::<Vec<_>>(), None)?;
        }
        for (space, interface, address) in ENDS {
            let space = row.space(space);
            space.ip(&format!("address add {address}/24 dev {interface}\nlink set {interface} up\n"))?;
            space.run(&["ethtool", "-K", interface, "tx", "off", "gro", "on"], None)?;
        }
        row.space("client").ip("route add default via 198.18.1.2\n")?;
        row.space("gw").ip("route add default via 198.18.2.2\n")?;
        row.space("r1").sysctl("ipv4/ip_forward", "1")?;
        // Whatever arrives has been counted; nobody answers.
        row.space("gw").nft(
            "table netdev sink {\nchain in { type filter hook ingress device \"o0\" priority 0; policy accept;\n\
             udp dport 51821 drop\n}\n}\n",
        )?;
        // A veth takes redirected frames only where a program runs at its other end.
        let program = pass::load()?;
        pass::attach(&row.space("gw"), "o0", &program)?;
        pass::attach(&row.space("client"), "c0", &program)?;
        // Both neighbours are known before anything is measured.
        for (space, to) in [("client", "198.18.1.2"), ("r1", "198.18.2.1"), ("r1", "198.18.1.1")] {
            row.space(space).run(&["ping", "-c", "1", "-W", "2", to], None)?;
        }
        Ok(row)
    }

    fn space(&self, short: &str) -> Netns {
        self.ground.topology.space(short)
    }

    fn link(&self, space: &str, interface: &str) -> Result<Value> {
        let text = self.space(space).run(&["ip", "-s", "-j", "link", "show", "dev", interface], None)?;
        serde_json::from_str::<Value>(&text)?.get(0).cloned().context("no such link")
    }

    fn mac(&self, space: &str, interface: &str) -> Result<[u8; 6]> {
        let link = self.link(space, interface)?;
        let text = link["address"].as_str().context("no address")?;
        let octets: Vec<u8> = text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
        octets.try_into().ok().context("an Ethernet address")
    }

    fn arrived(&self) -> Result<u64> {
        self.link("gw", "o0")?["stats64"]["rx"]["packets"].as_u64().context("no counter")
    }

    fn pins(&self) -> Pins {
        Pins::below(self.ground.pin_root().join("relay"))
    }

    /// Puts one contender in place; the relay's maps with one bound session.
    fn set(&self, way: Way) -> Result<Option<Kernel>> {
        match way {
            Way::Routed => Ok(None),
            Way::Nat => {
                let rules = format!(
                    "table ip nat {{\nchain pre {{ type nat hook prerouting priority dstnat;\n\
                     iifname \"left\" udp dport {PORT} dnat to 198.18.2.1:{PORT}\n}}\n\
                     chain post {{ type nat hook postrouting priority srcnat;\n\
                     oifname \"right\" udp dport {PORT} snat to 198.18.2.2:{NAT_PORT}\n}}\n}}\n"
                );
                self.space("r1").nft(&rules)?;
                Ok(None)
            }
            Way::Relay => self.load().map(Some),
        }
    }

    fn unset(&self, way: Way) -> Result<()> {
        match way {
            Way::Routed => Ok(()),
            Way::Nat => self.space("r1").nft("delete table ip nat\n"),
            Way::Relay => {
                self.space("r1").enter(|| Ok(attach::unload("left", &self.pins())?))?;
                Ok(())
            }
        }
    }

    fn load(&self) -> Result<Kernel> {
        let pins = self.pins();
        fs::create_dir_all(self.ground.pin_root())?;
        let options = LoadOptions {
            interface: "left".into(),
            program: Program::Relay,
            max_sessions: 16,
            pins: pins.clone(),
            wanted: Mode::Native,
            only_newer: false,
        };
        self.space("r1").enter(|| Ok(attach::load(&options)?))?;
        let mut plane = Kernel::open(&pins)?;
        plane.configure(&Settings {
            role: ROLE_RELAY,
            port: PORT,
            incarnation: Incarnation(1),
            owner_epoch: OwnerEpoch(1),
            workers: 1,
            bucket_seed: [1, 2],
            handshake_rate: 1,
            handshake_total_rate: 1,
        });
        let hop = |source: &str, interface: &str, to: (&str, &str)| -> Result<Hop> {
            let ifindex = self.link("r1", interface)?["ifindex"].as_u64().context("no number")?;
            Ok(Hop {
                source: mapped(source.parse()?),
                ifindex: u32::try_from(ifindex)?,
                mtu: 1_500,
                flags: HOP_RESOLVED,
                destination_mac: self.mac(to.0, to.1)?,
                source_mac: self.mac("r1", interface)?,
                ..Hop::default()
            })
        };
        let shared = plane.shared();
        shared.set_hop(0, &hop("198.18.2.2", "right", ("gw", "o0"))?);
        shared.set_hop(1, &hop("198.18.1.2", "left", ("client", "c0"))?);
        let end = OwnerEndpoint { address: mapped("198.18.2.1".parse()?), port: PORT, ..OwnerEndpoint::default() };
        let owner = Owner { v4: end, incarnation: 1, owner_epoch: 1, ..Owner::default() };
        shared.set_owner(0, &owner);
        shared.set_owner_alive(0, Duration::from_secs(3_600));
        let locators = vec![(TransportIndex(0), Locator(LOCATOR))];
        let (generation, session) = (Generation(1), SessionId([1; 16]));
        let binding =
            Binding { address: mapped("198.18.1.1".parse()?), port: CLIENT_PORT, gateway: 1, ..Binding::default() };
        let word = plane.word(SLOT).successor(0, 1);
        plane.apply(&MapOp::Install { slot: SLOT, generation, keys: KEYS, locators, pending: false, session })?;
        plane.shared().set_session_owner(SLOT, 1);
        plane.apply_all(&[MapOp::Binding { slot: SLOT, entry: 1, binding }, MapOp::Activate { slot: SLOT, word }])?;
        Ok(plane)
    }

    /// One contender from its beginning to its end.
    fn round(&self, way: Way, time: Duration) -> Result<Round> {
        let round = self.set(way).and_then(|plane| self.measure(way, plane, time));
        self.unset(way).and(round)
    }

    /// Sends for a while and counts what arrived.
    fn measure(&self, way: Way, plane: Option<Kernel>, time: Duration) -> Result<Round> {
        let to: SocketAddr = match way {
            Way::Routed => SocketAddr::new("198.18.2.1".parse()?, PORT),
            Way::Nat | Way::Relay => SocketAddr::new("198.18.1.2".parse()?, PORT),
        };
        let datagram = packet::data(LOCATOR, 0, 1, PAYLOAD);
        let (before, busy) = (self.arrived()?, Ticks::read()?);
        let took = self.space("client").enter(|| {
            let socket = UdpSocket::bind(("198.18.1.1", CLIENT_PORT))?;
            socket.connect(to)?;
            let begin = Instant::now();
            while begin.elapsed() < time {
                for _ in 0..64 {
                    // A refusal told by ICMP is about an earlier one.
                    let _ = socket.send(&datagram);
                }
            }
            Ok(begin.elapsed())
        })?;
        let (busy_s, arrived) = (Ticks::read()?.seconds_since(busy), self.arrived()? - before);
        ensure!(arrived > 1_000, "{arrived} packets arrived in {took:?}: the way does not carry");
        if let Some(plane) = plane {
            let forwarded = plane.verdicts()?.kernel(Verdict::ForwardedUp);
            ensure!(forwarded + STRAY >= arrived, "{arrived} arrived, but the program forwarded {forwarded}");
        }
        let cpu_ns = busy_s * 1e9 / arrived as f64;
        Ok(Round { kpps: arrived as f64 / took.as_secs_f64() / 1_000.0, cpu_ns })
    }
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, time) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let row = Row::up()?;
    let mut kpps: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    let mut cpu: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
    let mut errors = Vec::new();
    for _ in 0..rounds {
        for (way, name) in WAYS {
            let round = row.round(way, time).map_err(|error| errors.push(format!("{name}: {error:#}"))).ok();
            kpps.entry(name).or_default().push(round.as_ref().map(|round| round.kpps));
            cpu.entry(name).or_default().push(round.as_ref().map(|round| round.cpu_ns));
        }
    }
    Ok(Document {
        contenders: vec![
            Contender::new("ours", "jvpn_relay, native, one session, redirect to another veth"),
            Contender::new("nft-nat", "nftables dnat and snat, the same rewriting without a check"),
            Contender::new("routed", "IP forwarding alone"),
        ],
        results: results(kpps, cpu),
        notes: vec![
            format!(
                "{rounds} rounds of {time:?}; one sender, one datagram a system call, payload {} bytes",
                PAYLOAD + 24
            ),
            "sender and receiver are in every figure; veth runs all of it on the sender's processor".into(),
        ],
        errors,
        ..machine::program_alone("relay")?
    })
}

type Series<'a> = BTreeMap<&'a str, Vec<Option<f64>>>;

fn results(kpps: Series<'_>, cpu: Series<'_>) -> Vec<Metric> {
    let metric = |metric, unit, better, mut samples: Series<'_>| {
        let ours = samples.remove("ours").unwrap_or_default();
        let rivals = samples.into_iter().map(|(name, samples)| (name.to_owned(), samples)).collect();
        Metric::new(&Wanted { metric, unit, better, bounds: &[] }, ours, rivals)
    };
    vec![
        metric("kpps", "1,000 packets/s that arrived", Better::Higher, kpps),
        metric("cpu_ns_per_packet", "ns of the whole machine", Better::Lower, cpu),
    ]
}

/// What a run measures; nothing is asked of it.
pub fn unmeasured() -> Vec<Metric> {
    results(BTreeMap::new(), BTreeMap::new())
}
