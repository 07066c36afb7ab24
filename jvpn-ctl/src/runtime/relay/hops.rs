//! The ways out of a relay: which interface, which station, from which own address.
//!
//! Owns the numbers of `HOPS` and what stands in them, from what the kernel says of routes, links and neighbours. A
//! way that is not known exactly is left unresolved: the kernel program then asks the kernel's own tables for every
//! packet, which is slower and never wrong. Must never guess.

use crate::dataplane::Shared;
use crate::runtime::netlink::Netlink;
use anyhow::{Context as _, Result};
use futures_util::stream::TryStreamExt as _;
use jvpn_common::abi::{HOP_RESOLVED, HOPS_MAX, Hop, mapped};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute};
use rtnetlink::{MulticastGroup, RouteMessageBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Addresses reached by one way that are looked up again when routes change; a way that more use is left to the
/// kernel's tables from then on.
const USERS_MAX: usize = 4_096;

/// From an own address to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Trip {
    pub(super) source: IpAddr,
    pub(super) to: IpAddr,
}

/// What the kernel's tables say of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    source: IpAddr,
    link: u32,
    neighbour: IpAddr,
}

/// One way.
#[derive(Debug)]
struct Way {
    route: Route,
    users: BTreeSet<IpAddr>,
    /// Its users do not all go the same way any more.
    split: bool,
    written: Option<Hop>,
}

/// What the kernel knows of links and neighbours.
#[derive(Debug, Default)]
struct Stations {
    links: BTreeMap<u32, ([u8; 6], u16)>,
    neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
}

/// All ways.
#[derive(Debug)]
pub(super) struct Hops {
    netlink: Netlink,
    ways: BTreeMap<u16, Way>,
    trips: BTreeMap<Trip, u16>,
}

impl Hops {
    /// Connects to the kernel's tables.
    ///
    /// # Errors
    /// When netlink is not there.
    pub(super) fn start() -> Result<Self> {
        let netlink = Netlink::watch(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ])?;
        Ok(Self { netlink, ways: BTreeMap::new(), trips: BTreeMap::new() })
    }

    /// Waits until something changed.
    pub(super) async fn changed(&mut self) {
        self.netlink.changed().await;
    }

    /// The number of the way of a trip that was prepared.
    pub(super) fn number(&self, trip: Trip) -> Option<u16> {
        self.trips.get(&trip).copied()
    }

    /// Own address from which the kernel would go there.
    pub(super) async fn own_address(&self, to: IpAddr) -> Result<IpAddr> {
        let (_, _, source) = self.ask(None, to).await?;
        source.with_context(|| format!("no own address to reach {to} from"))
    }

    /// Finds the way of a trip and gives it a number; an unknown one is unresolved, not an error.
    ///
    /// # Errors
    /// When all numbers are taken.
    pub(super) async fn prepare(&mut self, trip: Trip, shared: &Shared) -> Result<u16> {
        if let Some(number) = self.trips.get(&trip) {
            return Ok(*number);
        }
        let route = self.route(trip).await;
        let known = self.ways.iter().find(|(_, way)| way.route == route && !way.split).map(|(number, _)| *number);
        let number = match known {
            Some(number) => number,
            None => {
                let free = (0..u16::try_from(HOPS_MAX).unwrap_or(u16::MAX)).find(|id| !self.ways.contains_key(id));
                let number = free.with_context(|| format!("more than {HOPS_MAX} ways out"))?;
                self.ways.insert(number, Way { route, users: BTreeSet::new(), split: false, written: None });
                number
            }
        };
        self.trips.insert(trip, number);
        if let Some(way) = self.ways.get_mut(&number) {
            way.users.insert(trip.to);
            way.split |= way.users.len() > USERS_MAX;
        }
        if known.is_none() {
            let stations = self.stations().await.unwrap_or_default();
            self.write(number, &stations, shared);
        }
        Ok(number)
    }

    /// Largest IP packet a way takes; 0 when that is not known.
    pub(super) fn mtu(&self, number: u16) -> u16 {
        self.ways.get(&number).and_then(|way| way.written).map_or(0, |hop| hop.mtu)
    }

    /// Forgets trips nobody makes any more, in the map too: whoever compares expects nothing of what is not used.
    pub(super) fn keep(&mut self, used: &BTreeSet<Trip>, shared: &Shared) {
        self.trips.retain(|trip, _| used.contains(trip));
        let numbers: BTreeSet<u16> = self.trips.values().copied().collect();
        self.ways.retain(|number, _| {
            let used = numbers.contains(number);
            if !used {
                shared.set_hop(*number, &Hop::default());
            }
            used
        });
    }

    /// Looks at every way again.
    pub(super) async fn refresh(&mut self, shared: &Shared) {
        let Ok(stations) = self.stations().await else { return };
        let trips: Vec<(Trip, u16)> = self.trips.iter().map(|(trip, number)| (*trip, *number)).collect();
        let mut routes: BTreeMap<u16, BTreeSet<Route>> = BTreeMap::new();
        for (trip, number) in trips {
            let route = self.route(trip).await;
            routes.entry(number).or_default().insert(route);
        }
        for (number, found) in routes {
            let Some(way) = self.ways.get_mut(&number) else { continue };
            way.split = found.len() > 1 || way.users.len() > USERS_MAX;
            if let (1, Some(route)) = (found.len(), found.first()) {
                way.route = *route;
            }
            self.write(number, &stations, shared);
        }
    }

    fn write(&mut self, number: u16, stations: &Stations, shared: &Shared) {
        let Some(way) = self.ways.get_mut(&number) else { return };
        let Route { source, link, neighbour } = way.route;
        let mut hop = Hop { source: mapped(source), ifindex: link, ..Hop::default() };
        if let Some((own, mtu)) = stations.links.get(&link) {
            hop.mtu = *mtu;
            if let Some(station) = stations.neighbours.get(&(link, neighbour)).filter(|_| !way.split) {
                (hop.flags, hop.destination_mac, hop.source_mac) = (HOP_RESOLVED, *station, *own);
            }
        }
        if way.written != Some(hop) {
            shared.set_hop(number, &hop);
            way.written = Some(hop);
        }
    }

    /// The route of a trip; an interface of zero when there is none.
    async fn route(&self, trip: Trip) -> Route {
        let (link, via, _) = self.ask(Some(trip.source), trip.to).await.unwrap_or_default();
        Route { source: trip.source, link, neighbour: via.unwrap_or(trip.to) }
    }

    async fn ask(&self, from: Option<IpAddr>, to: IpAddr) -> Result<(u32, Option<IpAddr>, Option<IpAddr>)> {
        let whole = if to.is_ipv4() { 32 } else { 128 };
        let mut question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to, whole)?;
        if let Some(from) = from {
            question = question.source_prefix(from, whole)?;
        }
        let mut answers = std::pin::pin!(self.netlink.handle.route().get(question.build()).execute());
        let answer = answers.try_next().await?.context("no route")?;
        let (mut link, mut via, mut source) = (0, None, None);
        for attribute in &answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) => link = *index,
                RouteAttribute::Gateway(address) => via = ip(address),
                RouteAttribute::PrefSource(address) => source = ip(address),
                _ => {}
            }
        }
        Ok((link, via, source))
    }

    async fn stations(&self) -> Result<Stations> {
        let mut stations = Stations::default();
        let mut links = std::pin::pin!(self.netlink.handle.link().get().execute());
        while let Some(message) = links.try_next().await? {
            let (mut own, mut mtu) = (None, 0);
            for attribute in &message.attributes {
                match attribute {
                    LinkAttribute::Address(address) => own = address.first_chunk::<6>().copied(),
                    LinkAttribute::Mtu(bytes) => mtu = u16::try_from(*bytes).unwrap_or(u16::MAX),
                    _ => {}
                }
            }
            if let Some(own) = own {
                stations.links.insert(message.header.index, (own, mtu));
            }
        }
        let mut neighbours = std::pin::pin!(self.netlink.handle.neighbours().get().execute());
        while let Some(message) = neighbours.try_next().await? {
            let usable = matches!(
                message.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
            );
            let (mut address, mut station) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
                    NeighbourAttribute::LinkLayerAddress(bytes) => station = bytes.first_chunk::<6>().copied(),
                    _ => {}
                }
            }
            if let (true, Some(address), Some(station)) = (usable, address, station) {
                stations.neighbours.insert((message.header.ifindex, address), station);
            }
        }
        Ok(stations)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
