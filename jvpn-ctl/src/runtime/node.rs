//! What every node opens at its start, whatever its role: maps, kernel program, sockets.
//!
//! Owns how a configuration becomes these, and that the program is taken off at the end where that was asked for. Must
//! never know what a node does with them.

use super::entropy::System;
use super::interfaces::{Interfaces, Way};
use crate::config::{Paths, XdpMode};
use crate::dataplane::attach::{self, Program, Wanted};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::pins::Pins;
use crate::dataplane::{self, DataPlane, Settings};
use crate::tunnel::{UdpOptions, UdpPort};
use anyhow::{Context as _, Result};
use jvpn_common::abi::{ROLE_GATEWAY, ROLE_RELAY};
use jvpn_common::crypto::Entropy as _;
use jvpn_common::ids::{Incarnation, OwnerEpoch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Message 1 a second the kernel lets through from one bucket of sources, and from all on one processor.
const HANDSHAKE_RATE: u32 = 100;
const HANDSHAKE_TOTAL_RATE: u32 = 20_000;

/// The wildcard addresses.
pub(super) const ANY: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// What of a configuration this is made from.
pub(super) struct Node<'a> {
    pub(super) program: Program,
    pub(super) port: u16,
    pub(super) interfaces: &'a [String],
    pub(super) xdp: XdpMode,
    pub(super) max_sessions: u32,
    pub(super) workers: u32,
    pub(super) paths: &'a Paths,
}

impl Node<'_> {
    /// The maps, and the kernel program on every configured interface that does not have it yet. Owners and ways out of
    /// an earlier process are gone: a relay is told anew, and a gateway has none.
    ///
    /// # Errors
    /// When the kernel or an interface refuses.
    pub(super) fn plane(&self) -> Result<(Box<dyn DataPlane>, Interfaces)> {
        let (pins, max_sessions) = (Pins::below(&self.paths.pin_root), self.max_sessions);
        let way = Way { program: self.program, max_sessions, pins: pins.clone(), wanted: wanted(self.xdp) };
        if self.xdp == XdpMode::Off && dataplane::object().is_none() {
            tracing::warn!("built without the kernel program: maps are in this process's memory, bpftool sees none");
            return Ok((Box::new(dataplane::memory::Memory::new(max_sessions)), Interfaces::none(way)));
        }
        let interfaces = if self.xdp == XdpMode::Off {
            attach::make_maps(&pins, max_sessions)?;
            Interfaces::none(way)
        } else {
            Interfaces::attach(self.interfaces, way)?
        };
        let (interfaces, plane) = (interfaces.hold()?, Kernel::open(&pins)?);
        plane.shared().clear_ways();
        Ok((Box::new(plane), interfaces))
    }

    /// What the kernel program and the workers are told.
    pub(super) fn settings(&self, incarnation: Incarnation, owner_epoch: OwnerEpoch) -> Settings {
        let mut seed = [0; 16];
        System.fill(&mut seed);
        let seed = u128::from_le_bytes(seed);
        Settings {
            role: match self.program {
                Program::Gateway => ROLE_GATEWAY,
                Program::Relay => ROLE_RELAY,
            },
            port: self.port,
            incarnation,
            owner_epoch,
            workers: self.workers,
            bucket_seed: [seed as u64, (seed >> 64) as u64],
            handshake_rate: HANDSHAKE_RATE,
            handshake_total_rate: HANDSHAKE_TOTAL_RATE,
        }
    }

    /// For `--detach-on-exit`.
    pub(super) fn detach(&self) -> Detach {
        Detach(self.interfaces.to_vec(), Pins::below(&self.paths.pin_root))
    }

    /// Sockets of each family, one a worker; of IPv6 none where the host has none.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) fn sockets(&self) -> Result<[Vec<Arc<UdpPort>>; 2]> {
        let ([v4, v6], port) = (ANY, self.port);
        let v4 = sockets(v4, port, self.workers, false).with_context(|| format!("UDP port {port}"))?;
        let v6 = sockets(v6, port, self.workers, false);
        if let Err(error) = &v6 {
            tracing::warn!(%error, port, "no IPv6 socket; clients reach this node over IPv4 only");
        }
        Ok([v4, v6.unwrap_or_default()])
    }
}

/// The sockets of one family; `again`: some of them may still be open.
pub(super) fn sockets(any: IpAddr, port: u16, workers: u32, again: bool) -> std::io::Result<Vec<Arc<UdpPort>>> {
    let group = UdpPort::open_group(&UdpOptions::new(SocketAddr::new(any, port)), workers, again)?;
    Ok(group.into_iter().map(Arc::new).collect())
}

/// Which mode a configuration allows.
#[must_use]
pub fn wanted(mode: XdpMode) -> Wanted {
    match mode {
        XdpMode::Native => Wanted::Native,
        XdpMode::Generic => Wanted::Generic,
        XdpMode::Auto | XdpMode::Off => Wanted::Either,
    }
}

/// Detaches the kernel program when dropped.
#[derive(Debug)]
pub(super) struct Detach(Vec<String>, Pins);

impl Drop for Detach {
    fn drop(&mut self) {
        for interface in &self.0 {
            if let Err(error) = attach::unload(interface, &self.1) {
                tracing::warn!(%error, interface, "could not detach");
            }
        }
    }
}
