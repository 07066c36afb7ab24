//! What a gateway stands on: its UDP sockets and the interfaces of its configuration.
//!
//! Owns noticing that one is gone while the gateway runs, saying so, and taking it back when it returns. Must never
//! wait for one, nor try so often that trying is all it does.

use super::Gateway;
use super::role::{SOCKET_V4, SOCKET_V6};
use super::start::{attach_to, socket};
use crate::api::model::Problem;
use crate::config::XdpMode;
use crate::runtime::clock;
use crate::tunnel::UdpPort;
use jvpn_common::time::{Duration, Instant};
use rustix::net::netdevice::name_to_index;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How long after a failure it is tried again: loading the kernel program holds the event loop for milliseconds.
const AGAIN: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Debug)]
pub(super) struct Ground {
    links: Vec<Link>,
    /// Sockets that are gone, and when opening them is tried again.
    sockets: Vec<(IpAddr, Instant)>,
}

/// One configured interface.
#[derive(Debug)]
struct Link {
    name: String,
    /// Its index; none while it is gone.
    index: Option<u32>,
    /// Why the kernel program is not on it, and when that is tried again.
    bare: Option<(String, Instant)>,
}

impl Ground {
    /// The ground of a gateway that has just started: everything is there.
    pub(super) fn new(interfaces: &[String]) -> Self {
        let link = |name: &String| Link { name: name.clone(), index: index(name), bare: None };
        Self { links: interfaces.iter().map(link).collect(), sockets: Vec::new() }
    }

    /// For people.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let sockets = self.sockets.iter().map(|(any, _)| Problem {
            problem: format!("no UDP socket for {}: no client is heard", family(any)),
            fix: "it is opened again every few seconds; the log says why that fails".to_owned(),
        });
        let links = self.links.iter().filter_map(|link| match (&link.index, &link.bare) {
            (None, _) => Some(Problem {
                problem: format!("interface {} is gone: no client reaches this gateway through it", link.name),
                fix: "bring it back with its addresses; the kernel program is attached again by itself".to_owned(),
            }),
            (Some(_), Some((why, _))) => Some(Problem {
                problem: format!("the kernel program is not on {}: {why}", link.name),
                fix: format!("jvpn-ctl check says what {} lacks; it is tried again every few seconds", link.name),
            }),
            (Some(_), None) => None,
        });
        sockets.chain(links)
    }
}

impl Gateway {
    /// A socket carries nothing any more. Sockets of a gateway are bound to no interface, so this is no link event.
    pub(super) fn socket_lost(&mut self, port: &Arc<UdpPort>) {
        let Some(any) = self.executor.sockets.forget(port) else { return };
        tracing::error!(family = family(&any), "a UDP socket carries nothing any more; opening another");
        self.ground.sockets.push((any, clock::boot()));
        self.look_at_ground();
    }

    /// Looks whether everything is there; cheap, and called often.
    pub(super) fn look_at_ground(&mut self) {
        let now = clock::boot();
        let due: Vec<IpAddr> = self.ground.sockets.iter().filter(|(_, at)| *at <= now).map(|(any, _)| *any).collect();
        for any in due {
            let opened = self.reopen(any);
            if let Err(error) = &opened {
                tracing::error!(%error, family = family(&any), "the socket cannot be opened again");
            }
            self.ground.sockets.retain(|(other, _)| *other != any || opened.is_err());
            self.ground.sockets.iter_mut().filter(|(other, _)| *other == any).for_each(|(_, at)| *at = now + AGAIN);
        }
        for place in 0..self.ground.links.len() {
            self.look_at_link(place, now);
        }
    }

    fn reopen(&mut self, any: IpAddr) -> std::io::Result<()> {
        let port = Arc::new(socket(any, self.config.listen)?);
        let id = if any.is_ipv4() { SOCKET_V4 } else { SOCKET_V6 };
        if !self.worker.add_socket(id, Arc::clone(&port)) {
            return Err(std::io::Error::other("the worker's queue is full"));
        }
        self.executor.sockets.take(any, port);
        Ok(())
    }

    fn look_at_link(&mut self, place: usize, now: Instant) {
        let Some(link) = self.ground.links.get_mut(place) else { return };
        let before = std::mem::replace(&mut link.index, index(&link.name));
        match (before, link.index) {
            (Some(_), None) => {
                tracing::error!(interface = link.name, "the interface is gone; nobody reaches the gateway through it");
            }
            (before, Some(now_is)) if before != Some(now_is) => {
                tracing::warn!(interface = link.name, "the interface was made anew");
                if self.config.xdp != XdpMode::Off {
                    link.bare = Some(("it was made anew".to_owned(), now));
                }
            }
            _ => {}
        }
        let present = link.index.is_some();
        if !present || link.bare.as_ref().is_none_or(|(_, at)| *at > now) {
            return;
        }
        let name = link.name.clone();
        let attached = attach_to(&name, &self.config, &self.paths);
        link.bare = attached.as_ref().err().map(|error| (format!("{error:#}"), now + AGAIN));
        match attached {
            Ok(xdp) => {
                tracing::info!(interface = name, mode = xdp.mode, "kernel program attached again");
                self.xdp.retain(|other| other.iface != name);
                self.xdp.push(xdp);
            }
            Err(error) => tracing::error!(interface = name, error = format!("{error:#}"), "no kernel program"),
        }
    }
}

/// Index of an interface in this network namespace.
fn index(name: &str) -> Option<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    name_to_index(&socket, name).ok()
}

fn family(any: &IpAddr) -> &'static str {
    match any {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The wildcard addresses.
pub(super) const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
