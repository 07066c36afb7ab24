//! The gateway's UDP sockets, one a family and worker.
//!
//! Owns sending on them, noticing that one carries nothing any more, and opening another. Must never wait for one, nor
//! try so often that trying is all the gateway does.

use super::Gateway;
use crate::api::model::Problem;
use crate::runtime::clock;
use crate::runtime::node::{ANY, sockets};
use crate::runtime::trailers::{Trailers, Vouched};
use crate::tunnel::{self, UdpPort};
use jvpn_common::gateway::command::{Datagram, Hop, Origin};
use jvpn_common::ids::RelayId;
use jvpn_common::time::{Duration, Instant};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How long after a failure opening is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Sockets of both families, in the order of their workers; control is sent on the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    /// IPv4.
    pub v4: Vec<Arc<UdpPort>>,
    /// IPv6.
    pub v6: Vec<Arc<UdpPort>>,
    /// What relays vouch for, and are told in the same way.
    pub trailers: Arc<Trailers<RelayId>>,
}

impl Sockets {
    /// Those of each family, under its wildcard address.
    pub(super) fn groups(&self) -> [(IpAddr, &[Arc<UdpPort>]); 2] {
        let [v4, v6] = ANY;
        [(v4, &self.v4), (v6, &self.v6)]
    }

    /// Forgets a socket that carries nothing any more; its wildcard address. None: it was replaced before.
    pub(super) fn forget(&mut self, port: &Arc<UdpPort>) -> Option<IpAddr> {
        let [v4, v6] = ANY;
        [(v4, &mut self.v4), (v6, &mut self.v6)].into_iter().find_map(|(any, own)| {
            let place = own.iter().position(|own| Arc::ptr_eq(own, port))?;
            own.remove(place);
            Some(any)
        })
    }

    /// Takes the sockets of a wildcard address.
    pub(super) fn take(&mut self, any: IpAddr, group: Vec<Arc<UdpPort>>) {
        let own = if any.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        *own = group;
    }

    /// Where a datagram came from, and how long it is without what a relay put behind it. `None`: it came from a
    /// relay's address without that relay's word, or from a stranger with something behind it.
    pub(super) fn origin(&self, from: &tunnel::Origin, port: u16, bytes: &[u8]) -> Option<(Origin, usize)> {
        let remote = SocketAddr::new(from.remote.ip().to_canonical(), from.remote.port());
        if let Some(relay) = self.trailers.side_at(remote) {
            let Vouched { by, client, local, len } = self.trailers.take_off(relay, bytes)?;
            return Some((Origin { hop: Hop::Relay(by), client, gateway: local }, len));
        }
        let local = from.local.unwrap_or(any_of(&remote));
        let gateway = SocketAddr::new(local.to_canonical(), port);
        Some((Origin { hop: Hop::Local, client: remote, gateway }, bytes.len()))
    }

    /// Sends one datagram the way its question came; what cannot be sent is lost, as on any network.
    pub(super) fn send(&self, datagram: &Datagram) {
        let Origin { hop, client, gateway } = datagram.origin;
        let (to, from, bytes) = match hop {
            Hop::Local => (client, gateway.ip(), Cow::Borrowed(&datagram.bytes)),
            Hop::Relay(relay) => match self.trailers.seal(relay, client, gateway, &datagram.bytes) {
                Some((way, sealed)) => (way.address, way.own.unwrap_or(any_of(&way.address)), Cow::Owned(sealed)),
                None => return tracing::debug!(%client, relay = relay.0, "no stream to the relay of this client"),
            },
        };
        let own = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(port) = own.first() else { return };
        if let Err(error) = port.send(to, Some(from), &bytes) {
            tracing::debug!(%error, %client, "could not send");
        }
    }
}

/// Sockets that are gone, and when opening them is tried again.
#[derive(Debug, Default)]
pub(super) struct GoneSockets(Vec<(IpAddr, Instant)>);

impl GoneSockets {
    /// For people.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.0.iter().map(|(any, _)| Problem {
            problem: format!("no UDP socket for {}: no client is heard", family(any)),
            fix: "it is opened again every few seconds; the log says why that fails".to_owned(),
        })
    }
}

impl Gateway {
    /// A socket carries nothing any more. Sockets of a gateway are bound to no interface, so this is no link event.
    pub(super) fn socket_lost(&mut self, port: &Arc<UdpPort>) {
        let Some(any) = self.executor.sockets.forget(port) else { return };
        tracing::error!(family = family(&any), "a UDP socket carries nothing any more; opening another");
        self.gone.0.retain(|(other, _)| *other != any);
        self.gone.0.push((any, clock::boot()));
        self.open_sockets();
    }

    /// Opens what is gone and due; cheap when nothing is.
    pub(super) fn open_sockets(&mut self) {
        let now = clock::boot();
        let due: Vec<IpAddr> = self.gone.0.iter().filter(|(_, at)| *at <= now).map(|(any, _)| *any).collect();
        for any in due {
            let opened = self.reopen(any);
            if let Err(error) = &opened {
                tracing::error!(%error, family = family(&any), "the socket cannot be opened again");
            }
            self.gone.0.retain(|(other, _)| *other != any || opened.is_err());
            self.gone.0.iter_mut().filter(|(other, _)| *other == any).for_each(|(_, at)| *at = now + AGAIN);
        }
    }

    /// Opens those of all workers: together they know which datagram is whose.
    fn reopen(&mut self, any: IpAddr) -> std::io::Result<()> {
        let group = sockets(any, self.config.listen, self.workers.len(), true)?;
        if !self.workers.take(any, &group) {
            return Err(std::io::Error::other("a worker's queue is full"));
        }
        self.executor.sockets.take(any, group);
        Ok(())
    }
}

fn any_of(address: &SocketAddr) -> IpAddr {
    let [v4, v6] = ANY;
    if address.is_ipv4() { v4 } else { v6 }
}

/// What an address family is called.
pub(super) fn family(any: &IpAddr) -> &'static str {
    match any {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
