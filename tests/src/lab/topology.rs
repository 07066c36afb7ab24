//! Owns the shape of the lab: which namespaces exist, how they are wired and addressed. Data and its application;
//! never faults, processes or measurements.
//!
//! ```text
//!                     .2 ┌──────────────┐ .1            .2 ┌────────┐
//!            ┌─ wan-a ───┤ ra  (router) ├── 198.18.1.0/24 ─┤        │
//!            │ 192.0.2.0/24, 2001:db8:a::/64              │        │   198.51.100.0/24   ┌─────────┐        ┌─────┐
//!  ┌────────┐│                                            │  core  ├─ 2001:db8:7::/64 ───┤ gw      ├─ lan ──┤ lan │
//!  │ client ├┤                                            │        │ .1             .7   │ wan+XDP │ .1 .10 │     │
//!  └────────┘│                                            │        │                     └─────────┘ 192.168.77.0/24
//!            │ .2 ┌──────────────┐ .6      203.0.113.0/24 │        │                                 fd00:77::/64
//!            └─ wan-b ┤ rb (NAT) ├────────────────────────┤ .5     │
//!      192.168.20.0/24, 2001:db8:b::/64 (v6 is routed)    └────────┘
//!
//!  with relays: r1 (wan 198.51.101.7, 2001:db8:71::7) and r2 (198.51.102.7, 2001:db8:72::7) hang on core like gw.
//!  with two owners: gw2 (wan 198.51.103.7, 2001:db8:73::7) hangs on core like gw and has a lan2; its client2 (wan-a
//!  198.18.3.2, 2001:db8:c::2) hangs on ra. What is inside and behind has the same addresses as the first's.
//!
//!  with a third uplink: client wan-c (198.18.4.2, 2001:db8:d::2) hangs on ra, where no fault of path A touches it.
//!
//!  inside the tunnel: gateway 10.77.0.1 fd77::1, client 10.77.0.17 fd77::17; the LAN routes both to gw.
//! ```
//!
//! The client's uplinks end at `ra` and `rb`, the gateway's at `core`: whatever is broken between `rX` and `core`,
//! neither end sees a link event. `gw` has one uplink and one address, as a real gateway does; both paths meet there.

use anyhow::Result;

use super::netns::{Netns, run};
use super::pass;

/// The two ways from client to gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    A,
    B,
}

impl Path {
    pub const BOTH: [Path; 2] = [Path::A, Path::B];

    /// Name of the transport in `client.toml`.
    pub fn transport(self) -> &'static str {
        match self {
            Path::A => "path-a",
            Path::B => "path-b",
        }
    }

    /// Interface of this path in the client's namespace.
    pub fn uplink(self) -> &'static str {
        match self {
            Path::A => "wan-a",
            Path::B => "wan-b",
        }
    }

    pub fn other(self) -> Path {
        match self {
            Path::A => Path::B,
            Path::B => Path::A,
        }
    }

    pub fn of_transport(name: &str) -> Option<Path> {
        Path::BOTH.into_iter().find(|path| path.transport() == name)
    }
}

pub const GATEWAY_V4: &str = "198.51.100.7";
pub const GATEWAY_V6: &str = "2001:db8:7::7";
/// Gateways a lab can have, each an owner of sessions of its own.
pub const OWNERS_MAX: usize = 2;
/// Their outer addresses.
pub const OWNERS_V4: [&str; OWNERS_MAX] = [GATEWAY_V4, "198.51.103.7"];
pub const OWNERS_V6: [&str; OWNERS_MAX] = [GATEWAY_V6, "2001:db8:73::7"];
pub const GATEWAY_PORT: u16 = 51821;
pub const GATEWAY_INTERFACE: &str = "wan";
pub const INNER_GATEWAY_V4: &str = "10.77.0.1";
pub const INNER_GATEWAY_V6: &str = "fd77::1";
pub const INNER_CLIENT_V4: &str = "10.77.0.17";
pub const INNER_CLIENT_V6: &str = "fd77::17";
pub const LAN_V4: &str = "192.168.77.10";
pub const LAN_V6: &str = "fd00:77::10";
/// The client's third uplink, where there is one, and its transport.
pub const THIRD_UPLINK: &str = "wan-c";
pub const THIRD_TRANSPORT: &str = "path-c";
/// Ports the NAT hands out before and after it forgets: disjoint, so another port is certain.
pub const NAT_PORTS: [&str; 2] = ["20000-29999", "30000-39999"];
/// Public address of the NAT router.
pub const NAT_V4: &str = "203.0.113.6";
/// The same where it translates IPv6.
pub const NAT_V6: &str = "2001:db8:b1::1";

/// The namespaces, by their short names.
pub const SPACES: [&str; 11] = ["client", "ra", "rb", "core", "gw", "lan", "r1", "r2", "client2", "gw2", "lan2"];
/// Those of relays.
const RELAYS: [&str; RELAYS_MAX] = ["r1", "r2"];
/// Those of an owner's gateway, client and LAN.
const OWNERS: [[&str; 3]; OWNERS_MAX] = [["gw", "client", "lan"], ["gw2", "client2", "lan2"]];
/// Relays a lab can have.
pub const RELAYS_MAX: usize = 2;
/// Their outer addresses.
pub const RELAYS_V4: [&str; RELAYS_MAX] = ["198.51.101.7", "198.51.102.7"];
pub const RELAYS_V6: [&str; RELAYS_MAX] = ["2001:db8:71::7", "2001:db8:72::7"];
/// TCP port of the owner for relays.
pub const CONTROL_PORT: u16 = 51822;

pub(super) struct End {
    pub(super) space: &'static str,
    pub(super) interface: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const fn end(space: &'static str, interface: &'static str, v4: &'static str, v6: &'static str) -> End {
    End { space, interface, v4, v6 }
}

pub(super) const LINKS: [(End, End); 12] = [
    (
        end("client", "wan-a", "192.0.2.2/24", "2001:db8:a::2/64"),
        end("ra", "client", "192.0.2.1/24", "2001:db8:a::1/64"),
    ),
    (
        end("client", "wan-b", "192.168.20.2/24", "2001:db8:b::2/64"),
        end("rb", "client", "192.168.20.1/24", "2001:db8:b::1/64"),
    ),
    (end("ra", "core", "198.18.1.1/24", "2001:db8:a1::1/64"), end("core", "ra", "198.18.1.2/24", "2001:db8:a1::2/64")),
    (
        end("rb", "core", "203.0.113.6/24", "2001:db8:b1::1/64"),
        end("core", "rb", "203.0.113.5/24", "2001:db8:b1::2/64"),
    ),
    (end("gw", "wan", "198.51.100.7/24", "2001:db8:7::7/64"), end("core", "gw", "198.51.100.1/24", "2001:db8:7::1/64")),
    (end("gw", "lan", "192.168.77.1/24", "fd00:77::1/64"), end("lan", "lan", "192.168.77.10/24", "fd00:77::10/64")),
    (
        end("r1", "wan", "198.51.101.7/24", "2001:db8:71::7/64"),
        end("core", "r1", "198.51.101.1/24", "2001:db8:71::1/64"),
    ),
    (
        end("r2", "wan", "198.51.102.7/24", "2001:db8:72::7/64"),
        end("core", "r2", "198.51.102.1/24", "2001:db8:72::1/64"),
    ),
    (
        end("client2", "wan-a", "198.18.3.2/24", "2001:db8:c::2/64"),
        end("ra", "client2", "198.18.3.1/24", "2001:db8:c::1/64"),
    ),
    (
        end("gw2", "wan", "198.51.103.7/24", "2001:db8:73::7/64"),
        end("core", "gw2", "198.51.103.1/24", "2001:db8:73::1/64"),
    ),
    (end("gw2", "lan", "192.168.77.1/24", "fd00:77::1/64"), end("lan2", "lan", "192.168.77.10/24", "fd00:77::10/64")),
    (
        end("client", THIRD_UPLINK, "198.18.4.2/24", "2001:db8:d::2/64"),
        end("ra", "third", "198.18.4.1/24", "2001:db8:d::1/64"),
    ),
];

/// What the third uplink adds to the client's routes.
const THIRD_ROUTES: &str = "route replace default via 198.18.4.1 dev wan-c metric 300\n\
                            route replace default via 2001:db8:d::1 dev wan-c metric 300\n";

/// `ip` lines per namespace. The client has a default route over each uplink, the second one worse: a socket bound
/// to a device finds its own, everything else takes path A.
const ROUTES: [(&str, &str); 11] = [
    (
        "client",
        "route replace default via 192.0.2.1 dev wan-a metric 100\nroute replace default via 192.168.20.1 dev wan-b metric 200\n\
         route replace default via 2001:db8:a::1 dev wan-a metric 100\nroute replace default via 2001:db8:b::1 dev wan-b metric 200\n",
    ),
    ("ra", "route replace default via 198.18.1.2\nroute replace default via 2001:db8:a1::2\n"),
    ("rb", "route replace default via 203.0.113.5\nroute replace default via 2001:db8:b1::2\n"),
    (
        "core",
        "route replace 192.0.2.0/24 via 198.18.1.1\nroute replace 2001:db8:a::/64 via 2001:db8:a1::1\n\
         route replace 2001:db8:b::/64 via 2001:db8:b1::1\n\
         route replace 198.18.3.0/24 via 198.18.1.1\nroute replace 2001:db8:c::/64 via 2001:db8:a1::1\n\
         route replace 198.18.4.0/24 via 198.18.1.1\nroute replace 2001:db8:d::/64 via 2001:db8:a1::1\n",
    ),
    ("gw", "route replace default via 198.51.100.1\nroute replace default via 2001:db8:7::1\n"),
    ("lan", "route replace default via 192.168.77.1\nroute replace default via fd00:77::1\n"),
    ("r1", "route replace default via 198.51.101.1\nroute replace default via 2001:db8:71::1\n"),
    ("r2", "route replace default via 198.51.102.1\nroute replace default via 2001:db8:72::1\n"),
    ("client2", "route replace default via 198.18.3.1\nroute replace default via 2001:db8:c::1\n"),
    ("gw2", "route replace default via 198.51.103.1\nroute replace default via 2001:db8:73::1\n"),
    ("lan2", "route replace default via 192.168.77.1\nroute replace default via fd00:77::1\n"),
];

/// The namespaces of one lab, named `PREFIX-client` and so on.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    relays: usize,
    owners: usize,
    third: bool,
}

impl Topology {
    pub fn named(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), relays: 0, owners: 1, third: false }
    }

    /// The same with a third uplink of the client.
    #[must_use]
    pub fn with_third(self, third: bool) -> Self {
        Self { third, ..self }
    }

    /// The same with so many relays.
    #[must_use]
    pub fn with_relays(self, relays: usize) -> Self {
        Self { relays: relays.min(RELAYS_MAX), ..self }
    }

    /// The same with so many owners, each with a client and a LAN.
    #[must_use]
    pub fn with_owners(self, owners: usize) -> Self {
        Self { owners: owners.clamp(1, OWNERS_MAX), ..self }
    }

    fn spaces(&self) -> impl Iterator<Item = &'static str> {
        let absent = RELAYS.iter().skip(self.relays).chain(OWNERS.iter().skip(self.owners).flatten());
        let absent: Vec<&str> = absent.copied().collect();
        SPACES.into_iter().filter(move |short| !absent.contains(short))
    }

    pub(super) fn has(&self, end: &End) -> bool {
        self.spaces().any(|space| space == end.space) && (self.third || end.interface != THIRD_UPLINK)
    }

    pub fn space(&self, short: &str) -> Netns {
        Netns::new(format!("{}-{short}", self.prefix))
    }

    /// The router that a path's faults live in.
    pub fn router(&self, path: Path) -> Netns {
        self.space(match path {
            Path::A => "ra",
            Path::B => "rb",
        })
    }

    pub fn client(&self) -> Netns {
        self.client_of(0)
    }

    pub fn gateway(&self) -> Netns {
        self.gateway_of(0)
    }

    pub fn lan(&self) -> Netns {
        self.space("lan")
    }

    /// The client of the `owner`th owner, from 0.
    pub fn client_of(&self, owner: usize) -> Netns {
        self.space(OWNERS[owner][1])
    }

    /// The `owner`th owner, from 0.
    pub fn gateway_of(&self, owner: usize) -> Netns {
        self.space(OWNERS[owner][0])
    }

    /// The `number`th relay, from 0.
    pub fn relay(&self, number: usize) -> Netns {
        self.space(RELAYS[number])
    }

    /// Builds everything. On failure the caller removes what exists: removal asks the kernel, not this value.
    pub fn build(&self) -> Result<()> {
        for short in self.spaces() {
            run(&["ip", "netns", "add", self.space(short).name()], None)?;
        }
        for short in self.spaces() {
            let space = self.space(short);
            space.ip("link set lo up\n")?;
            for key in ["ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad"] {
                // Addresses must be usable at once: nobody else is on these links.
                space.sysctl(key, "0")?;
            }
            // A link that goes down and up again has its IPv6 addresses as before, like its IPv4 ones.
            space.sysctl("ipv6/conf/all/keep_addr_on_down", "1")?;
            for key in ["ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"] {
                space.sysctl(key, "0")?;
            }
            // Lets the lab ping without raw sockets, with the kernel's own checksums.
            space.sysctl("ipv4/ping_group_range", "0 0")?;
            if !OWNERS.iter().any(|[_, hosts @ ..]| hosts.contains(&short)) {
                space.sysctl("ipv4/ip_forward", "1")?;
                space.sysctl("ipv6/conf/all/forwarding", "1")?;
            }
        }
        for (left, right) in LINKS.iter().filter(|(left, _)| self.has(left)) {
            self.wire(left, right)?;
        }
        for short in self.spaces() {
            self.route(short)?;
        }
        self.router(Path::B).nft(&nat_rules(0))?;
        // What the gateway sends with XDP_TX arrives at the far end of its uplink only if that end runs a program
        // as well; without one the frames vanish uncounted. Everywhere else a program would only cost throughput.
        let program = pass::load()?;
        let gateways = OWNERS.iter().map(|[gateway, ..]| *gateway).take(self.owners);
        for far in gateways.chain(RELAYS.into_iter().take(self.relays)) {
            pass::attach(&self.space("core"), far, &program)?;
        }
        Ok(())
    }

    /// The routes of one namespace; also puts back what a link going down took.
    pub fn route(&self, short: &str) -> Result<()> {
        for (space, batch) in ROUTES {
            if space == short {
                self.space(short).ip(batch)?;
            }
        }
        if self.third && short == "client" {
            self.space(short).ip(THIRD_ROUTES)?;
        }
        Ok(())
    }

    /// Makes the link of one end again after it was removed, without routes.
    pub(super) fn rewire(&self, space: &str, interface: &str) -> Result<()> {
        let is = |end: &End| end.space == space && end.interface == interface;
        LINKS.iter().filter(|(left, right)| is(left) || is(right)).try_for_each(|(left, right)| self.wire(left, right))
    }

    fn wire(&self, left: &End, right: &End) -> Result<()> {
        let (left_space, right_space) = (self.space(left.space), self.space(right.space));
        run(
            &[
                "ip",
                "link",
                "add",
                left.interface,
                "netns",
                left_space.name(),
                "type",
                "veth",
                "peer",
                "name",
                right.interface,
                "netns",
                right_space.name(),
            ],
            None,
        )?;
        for (space, end) in [(&left_space, left), (&right_space, right)] {
            let End { interface, v4, v6, .. } = end;
            space.ip(&format!(
                "address add {v4} dev {interface}\naddress add {v6} dev {interface} nodad\nlink set {interface} up\n"
            ))?;
            // A local socket would send unfinished checksums over veth, and nothing behind XDP_TX finishes them.
            space.run(&["ethtool", "-K", interface, "tx", "off"], None)?;
        }
        Ok(())
    }
}

/// The NAT's ruleset with its `generation`th port range. Packets for a forgotten mapping are dropped in silence,
/// as carriers do. `snat`, not `masquerade`: the mapping must outlive a change of the outgoing interface.
pub fn nat_rules(generation: usize) -> String {
    let ports = NAT_PORTS[generation % NAT_PORTS.len()];
    let rules = format!(
        "oifname != \"client\" ip saddr 192.168.20.0/24 meta l4proto {{ tcp, udp }} snat to {NAT_V4}:{ports}\n\
         oifname != \"client\" ip saddr 192.168.20.0/24 snat to {NAT_V4}\n"
    );
    ruleset("ip nat44", &rules)
}

/// The same NAT for IPv6, which the lab routes otherwise.
pub fn nat66_rules(generation: usize) -> String {
    let ports = NAT_PORTS[generation % NAT_PORTS.len()];
    let rules = format!(
        "oifname != \"client\" ip6 saddr 2001:db8:b::/64 meta l4proto {{ tcp, udp }} snat to [{NAT_V6}]:{ports}\n"
    );
    ruleset("ip6 nat66", &rules)
}

/// Chains that stay are emptied, not made anew: taking a hook away stops every processor for tens of milliseconds, which
/// would be measured.
fn ruleset(table: &str, post: &str) -> String {
    format!(
        "table {table} {{\nchain post {{ type nat hook postrouting priority srcnat; policy accept; }}\n\
         chain input {{ type filter hook input priority filter; policy accept; }}\n}}\n\
         flush table {table}\ntable {table} {{\nchain post {{\n{post}}}\n\
         chain input {{\niifname != \"client\" meta l4proto {{ tcp, udp }} drop\n}}\n}}\n"
    )
}
