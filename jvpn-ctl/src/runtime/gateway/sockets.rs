//! The gateway's UDP sockets, one a family.
//!
//! Owns sending on them, noticing that one carries nothing any more, and opening another. Must never wait for one, nor
//! try so often that trying is all the gateway does.

use super::Gateway;
use super::role::{SOCKET_V4, SOCKET_V6};
use super::start::socket;
use crate::api::model::Problem;
use crate::runtime::clock;
use crate::tunnel::UdpPort;
use jvpn_common::gateway::command::Datagram;
use jvpn_common::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How long after a failure opening is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The wildcard addresses.
pub(super) const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// Sockets of both families, to send control on.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    /// IPv4.
    pub v4: Option<Arc<UdpPort>>,
    /// IPv6.
    pub v6: Option<Arc<UdpPort>>,
}

impl Sockets {
    /// Forgets a socket that carries nothing any more; its wildcard address. None: it was replaced before.
    pub(super) fn forget(&mut self, port: &Arc<UdpPort>) -> Option<IpAddr> {
        let [v4, v6] = ANY;
        let is = |own: &Option<Arc<UdpPort>>| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, port));
        if is(&self.v4) {
            self.v4 = None;
            return Some(v4);
        }
        is(&self.v6).then(|| {
            self.v6 = None;
            v6
        })
    }

    /// Takes the socket of a wildcard address.
    pub(super) fn take(&mut self, any: IpAddr, port: Arc<UdpPort>) {
        let own = if any.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        *own = Some(port);
    }

    /// Sends one datagram the way its question came; what cannot be sent is lost, as on any network.
    pub(super) fn send(&self, datagram: &Datagram) {
        let port = if datagram.origin.client.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(port) = port else { return };
        if let Err(error) = port.send(datagram.origin.client, Some(datagram.origin.gateway.ip()), &datagram.bytes) {
            tracing::debug!(%error, client = %datagram.origin.client, "could not send");
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

    fn reopen(&mut self, any: IpAddr) -> std::io::Result<()> {
        let port = Arc::new(socket(any, self.config.listen)?);
        let id = if any.is_ipv4() { SOCKET_V4 } else { SOCKET_V6 };
        if !self.worker.add_socket(id, Arc::clone(&port)) {
            return Err(std::io::Error::other("the worker's queue is full"));
        }
        self.executor.sockets.take(any, port);
        Ok(())
    }
}

fn family(any: &IpAddr) -> &'static str {
    match any {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
