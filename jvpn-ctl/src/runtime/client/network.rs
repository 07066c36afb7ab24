//! The local networks a client could use, read from the kernel and watched.
//!
//! Owns what is read of them, and the choice of which interface, address and next hop make a path. Must
//! never debounce a loss: a link that went down is gone now.

use crate::config::client::{ClientConfig, TransportClass, Via};
use anyhow::{Context, Result};
use futures_util::stream::TryStreamExt;
use ipnet::IpNet;
use jvpn_common::limits::PATHS_MAX;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Whether it is up and has a carrier.
    pub up: bool,
    /// Its MTU.
    pub mtu: u16,
    /// Its addresses of global scope.
    pub addresses: BTreeSet<IpAddr>,
}

/// One unicast route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Through which interface.
    pub link: u32,
    /// Next hop, if there is one.
    pub via: Option<IpAddr>,
}

/// What the kernel knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// A network a transport can use. Equal ones are the same network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    /// Interface.
    pub interface: String,
    /// Local address.
    pub address: IpAddr,
    /// Next hop towards the gateway.
    pub via: Option<IpAddr>,
    /// Where it leads, if the gateway has several endpoints of this address family: a relay is one of them.
    pub endpoint: Option<SocketAddr>,
}

/// A network with what the configuration thinks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The network.
    pub network: Network,
    /// Index of the interface: an interface that was removed and made again has another one.
    pub index: u32,
    /// Name of the transport.
    pub name: String,
    /// Its class.
    pub class: TransportClass,
    /// Whether bytes cost money.
    pub metered: bool,
    /// MTU of the interface.
    pub mtu: u16,
}

/// The networks through which an endpoint can be reached: one a transport, address family and endpoint.
#[must_use]
pub fn candidates(host: &Host, config: &ClientConfig) -> Vec<Candidate> {
    let mut found = Vec::new();
    for (&index, link) in host.links.iter().filter(|(_, link)| link.up && link.name != config.tun && link.name != "lo")
    {
        for v4 in [true, false] {
            let endpoints: Vec<&SocketAddr> = config.endpoints.iter().filter(|to| to.is_ipv4() == v4).collect();
            let wanted = |address: &&IpAddr| address.is_ipv4() == v4;
            let own = |address: &IpAddr| Some((*address, transport(config, link, *address)?));
            let Some((address, (name, class, metered))) = link.addresses.iter().filter(wanted).find_map(own) else {
                continue;
            };
            for (number, &to) in endpoints.iter().enumerate() {
                let Some(route) = route(host, index, to) else { continue };
                let endpoint = (endpoints.len() > 1).then_some(*to);
                let network = Network { interface: link.name.clone(), address, via: route.via, endpoint };
                // The first endpoint's path is called like its transport; the others add their number.
                let name = if number == 0 { name.clone() } else { format!("{name}.{}", number + 1) };
                found.push((number, Candidate { network, index, name, class, metered, mtu: link.mtu }));
            }
        }
    }
    // Where there are more than a session may hold, each transport keeps its first endpoint.
    found.sort_by_key(|(number, _)| *number);
    let extra = found.iter().filter(|(number, _)| *number > 0).count();
    let room = PATHS_MAX.saturating_sub(found.len() - extra).min(extra);
    found.truncate(found.len() - extra + room);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The most specific route of an interface to an endpoint.
fn route<'a>(host: &'a Host, link: u32, to: &SocketAddr) -> Option<&'a Route> {
    let fits = |route: &&Route| route.link == link && route.to.contains(&to.ip());
    host.routes.iter().filter(fits).max_by_key(|route| route.to.prefix_len())
}

/// What the configuration says of an interface and address; without any transport, everything is one.
fn transport(config: &ClientConfig, link: &Link, address: IpAddr) -> Option<(String, TransportClass, bool)> {
    if config.transports.is_empty() {
        return Some((link.name.clone(), TransportClass::Primary, false));
    }
    let named = config.transports.iter().find(|transport| match &transport.via {
        Via::Interface(name) => *name == link.name,
        Via::Address(wanted) => *wanted == address,
    })?;
    (named.class != TransportClass::Never).then(|| (named.name.clone(), named.class, named.metered))
}

/// Reads the host's networks.
///
/// # Errors
/// When netlink does not answer.
pub async fn read(handle: &Handle) -> Result<Host> {
    let mut host = Host::default();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.context("links")? {
        let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let mut link = Link { name: String::new(), up, mtu: 1_500, addresses: BTreeSet::new() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = u16::try_from(mtu).unwrap_or(u16::MAX),
                _ => {}
            }
        }
        host.links.insert(message.header.index, link);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.context("addresses")? {
        let Some(link) = host.links.get_mut(&message.header.index) else { continue };
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = local.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        });
        link.addresses.extend(address.filter(usable));
    }
    for dump in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()] {
        let mut routes = handle.route().get(dump).execute();
        while let Some(message) = routes.try_next().await.context("routes")? {
            host.routes.extend(unicast(&message));
        }
    }
    Ok(host)
}

fn usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

fn unicast(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let v4 = message.header.address_family == AddressFamily::Inet;
    let default = if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let (mut to, mut via, mut link) = (default, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    Some(Route { to, link: link?, via })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// What of the kernel's tables a path hangs on.
pub const WATCHED: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Gives the tunnel device its addresses and routes; what is there already stays.
///
/// # Errors
/// When the kernel refuses.
pub async fn configure(handle: &Handle, index: u32, addresses: &[IpNet], routes: &[IpNet]) -> Result<()> {
    for net in addresses {
        let request = handle.address().add(index, net.addr(), net.prefix_len()).replace();
        request.execute().await.with_context(|| format!("address {net}"))?;
    }
    let has = |v4: bool| addresses.iter().any(|net| net.addr().is_ipv4() == v4);
    for net in routes.iter().filter(|net| has(net.addr().is_ipv4())) {
        let message = match net {
            IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4.network(), v4.prefix_len())
                .output_interface(index)
                .build(),
            IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(v6.network(), v6.prefix_len())
                .output_interface(index)
                .build(),
        };
        handle.route().add(message).replace().execute().await.with_context(|| format!("route {net}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::client::TransportConfig;

    fn host() -> Host {
        let link = |name: &str, up, address: &str| Link {
            name: name.into(),
            up,
            mtu: 1_500,
            addresses: BTreeSet::from([address.parse().unwrap()]),
        };
        let route = |to: &str, link, via: &str| Route { to: to.parse().unwrap(), link, via: via.parse().ok() };
        Host {
            links: BTreeMap::from([
                (1, link("lo", true, "127.0.0.1")),
                (2, link("wlan0", true, "192.0.2.7")),
                (3, link("wwan0", true, "10.9.0.7")),
                (4, link("eth9", false, "10.8.0.7")),
                (5, link("jvpn0", true, "10.77.0.17")),
            ]),
            routes: vec![
                route("0.0.0.0/0", 2, "192.0.2.1"),
                route("0.0.0.0/0", 3, "10.9.0.1"),
                route("0.0.0.0/0", 4, "10.8.0.1"),
                route("0.0.0.0/0", 5, "10.77.0.1"),
            ],
        }
    }

    fn config(transports: Vec<TransportConfig>) -> ClientConfig {
        ClientConfig {
            telemetry: Default::default(),
            name: "till".into(),
            private_key: crate::config::client::KeySource::File("k".into()),
            tun: "jvpn0".into(),
            routes: Vec::new(),
            gateway_key: "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=".parse().unwrap(),
            preshared_key: None,
            endpoints: vec!["198.51.100.7:51821".parse().unwrap(), "[2001:db8::7]:51821".parse().unwrap()],
            transports,
            warnings: Vec::new(),
            paths: Default::default(),
        }
    }

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.name.as_str()).collect()
    }

    #[test]
    fn without_transports_every_interface_with_a_route_to_an_endpoint_is_one() {
        let found = candidates(&host(), &config(Vec::new()));
        assert_eq!(names(&found), ["wlan0", "wwan0"]);
        assert!(found.iter().all(|candidate| candidate.network.via.is_some()));
    }

    #[test]
    fn named_transports_are_the_only_ones_and_never_means_never() {
        let named = |name: &str, via, class| TransportConfig { name: name.into(), via, class, metered: true };
        let wifi = named("wifi", Via::Interface("wlan0".into()), TransportClass::Primary);
        let lte = named("lte", Via::Address("10.9.0.7".parse().unwrap()), TransportClass::Never);
        let found = candidates(&host(), &config(vec![wifi, lte]));
        assert_eq!(names(&found), ["wifi"]);
        assert!(found[0].metered);
    }

    #[test]
    fn each_endpoint_of_a_family_is_a_path_of_its_own_up_to_what_a_session_holds() {
        let mut config = config(Vec::new());
        config.endpoints = ["198.51.100.7:51821", "203.0.113.9:51821"].map(|to| to.parse().unwrap()).to_vec();
        let found = candidates(&host(), &config);
        assert_eq!(names(&found), ["wlan0", "wwan0", "wlan0.2", "wwan0.2"]);
        let leads = |name: &str| found.iter().find(|one| one.name == name).and_then(|one| one.network.endpoint);
        assert_eq!(leads("wwan0.2"), Some(config.endpoints[1]));
        config.endpoints.push("203.0.113.10:51821".parse().unwrap());
        assert_eq!(candidates(&host(), &config).len(), PATHS_MAX, "the third endpoint has no room");
    }

    #[test]
    fn a_link_that_is_down_and_our_own_tunnel_are_no_networks() {
        let found = candidates(&host(), &config(Vec::new()));
        assert!(!names(&found).contains(&"eth9") && !names(&found).contains(&"jvpn0"));
    }
}
