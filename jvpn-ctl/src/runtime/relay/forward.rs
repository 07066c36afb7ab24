//! What the kernel program leaves to the process: handshakes and control, with a trailer; and data whose next station
//! the kernel does not know yet, or all of it where the program is not attached.
//!
//! Owns the relay's sockets. Every datagram is judged by the kernel program's own function first. Must never read what
//! is sealed, nor pass on what did not come from its owner.

use super::Relay;
use crate::dataplane::WorkerTables;
use crate::runtime::trailers::Vouched;
use crate::tunnel::{Received, UdpPort};
use jvpn_common::abi::mapped;
use jvpn_common::crypto::cookie::MacKeys;
use jvpn_common::ids::Slot;
use jvpn_common::relay::ToOwner;
use jvpn_common::steer::{self, Bytes, Source};
use jvpn_common::time::Duration;
use jvpn_common::verdict::{Class, Verdict};
use jvpn_common::wire::Kind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Batches taken in one turn, so that streams and timers are not starved.
const BATCHES_MAX: usize = 64;
/// Bytes of one batch: what UDP GRO merges at most.
const BATCH_BYTES: usize = 65_536;

/// The sockets, and what was counted.
#[derive(Debug)]
pub(super) struct Forward {
    v4: Arc<UdpPort>,
    v6: Option<Arc<UdpPort>>,
    port: u16,
    buffer: Vec<u8>,
    /// Datagrams passed on by the process.
    pub(super) passed: u64,
    /// Datagrams for owners that no owner's key fits, or from owners without a good trailer.
    pub(super) refused: u64,
    /// Those that could not be sent.
    pub(super) unsent: u64,
}

impl Forward {
    /// Over a socket of each family.
    pub(super) fn new((v4, v6): (Arc<UdpPort>, Option<Arc<UdpPort>>), port: u16) -> Self {
        Self { v4, v6, port, buffer: vec![0; BATCH_BYTES], passed: 0, refused: 0, unsent: 0 }
    }

    pub(super) fn v4(&self) -> &UdpPort {
        &self.v4
    }

    pub(super) fn v6(&self) -> Option<&UdpPort> {
        self.v6.as_deref()
    }

    fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) {
        let port = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        match port.map(|port| port.send(to, from, bytes)) {
            Some(Ok(())) => self.passed += 1,
            Some(Err(error)) => {
                self.unsent += 1;
                tracing::debug!(%error, %to, "could not send");
            }
            None => self.unsent += 1,
        }
    }
}

impl Relay {
    /// Takes what a socket has; true when more may be waiting.
    pub(super) fn receive(&mut self, v6: bool) -> bool {
        let mut buffer = std::mem::take(&mut self.forward.buffer);
        let port = if v6 { self.forward.v6.clone() } else { Some(Arc::clone(&self.forward.v4)) };
        let mut more = true;
        for _ in 0..BATCHES_MAX {
            match port.as_ref().map(|port| port.receive(&mut buffer)) {
                Some(Ok(Some(received))) => self.batch(&received, &mut buffer),
                Some(Ok(None)) | None => {
                    more = false;
                    break;
                }
                // An ICMP answer to an earlier send.
                Some(Err(error)) => tracing::debug!(%error, "a socket says"),
            }
        }
        self.forward.buffer = buffer;
        more
    }

    fn batch(&mut self, received: &Received, buffer: &mut [u8]) {
        let any = if received.remote.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let local = SocketAddr::new(received.local.unwrap_or(any), self.forward.port);
        for at in (0..received.len).step_by(received.stride) {
            let end = received.len.min(at + received.stride);
            if let Some(datagram) = buffer.get_mut(at..end) {
                self.datagram(received.remote, local, datagram);
            }
        }
    }

    fn datagram(&mut self, remote: SocketAddr, local: SocketAddr, datagram: &mut [u8]) {
        let source = Source { address: mapped(remote.ip()), port: remote.port() };
        let judged = {
            let turn = self.tables.turn(Duration::ZERO);
            let mut payload = Bytes::new(datagram);
            let judged = steer::relay_datagram(&mut payload, &source, &self.tables.batch(&turn));
            (judged, payload.packet().len())
        };
        let (judged, len) = judged;
        match judged.judgement.verdict.class() {
            Class::Answer => {
                let answer = datagram.get(..len).unwrap_or_default();
                self.forward.send(remote, Some(local.ip()), answer);
            }
            Class::Forward => {
                if let Some(way) = judged.forward {
                    let to = SocketAddr::new(Ipv6Addr::from(way.to.address).to_canonical(), way.to.port);
                    let from = self.plane.shared().hop(way.hop).map(|hop| Ipv6Addr::from(hop.source).to_canonical());
                    self.forward.send(to, from, datagram);
                }
            }
            Class::User => match self.trailers.side_at(remote) {
                Some(owner) => self.pass_down(owner, datagram),
                None => self.pass_up(judged.judgement.verdict, judged.judgement.entry.slot, remote, local, datagram),
            },
            Class::Pass | Class::Drop => {}
        }
    }

    /// A handshake or control message of a client, with what the owner must know of it.
    fn pass_up(&mut self, verdict: Verdict, slot: u32, client: SocketAddr, local: SocketAddr, datagram: &[u8]) {
        let owner = if verdict == Verdict::Handshake {
            // Message 1 names its owner by the key its first MAC is made with.
            let fits = |state: &&super::OwnerState| MacKeys::new(&state.peer.public_key).verify_mac1(datagram);
            self.owners.iter().position(|state| fits(&state)).and_then(|owner| u16::try_from(owner).ok())
        } else {
            let place = self.plane.shared().session_owner(Slot(slot));
            place.checked_sub(1).and_then(|owner| u16::try_from(owner).ok())
        };
        let Some(owner) = owner else {
            self.forward.refused += 1;
            return;
        };
        match self.trailers.number(owner, local) {
            Some((index, true)) => self.say(owner, &ToOwner::Local { index, address: local }),
            Some((_, false)) => {}
            None => {
                self.forward.refused += 1;
                return;
            }
        }
        match self.trailers.seal(owner, client, local, datagram) {
            Some((side, sealed)) => self.forward.send(side.address, side.own, &sealed),
            None => self.forward.refused += 1,
        }
    }

    /// An answer of an owner for one of its clients.
    fn pass_down(&mut self, owner: u16, datagram: &[u8]) {
        let answers = matches!(
            datagram.first().copied().and_then(Kind::from_byte),
            Some(Kind::Response | Kind::CookieReply | Kind::Control)
        );
        match self.trailers.take_off(owner, datagram).filter(|_| answers) {
            Some(Vouched { client, local, len, .. }) => {
                let bytes = datagram.get(..len).unwrap_or_default();
                self.forward.send(client, Some(local.ip()), bytes);
            }
            None => self.forward.refused += 1,
        }
    }
}

/// The view of the maps by which the process judges.
pub(super) fn tables(shared: &Arc<crate::dataplane::Shared>, attached: bool) -> WorkerTables {
    WorkerTables::new(Arc::clone(shared), crate::runtime::clock::boot, !attached, 0)
}
