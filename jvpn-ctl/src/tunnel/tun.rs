//! The TUN device: made with every offload the kernel has, read and written as super-packets.
//!
//! Owns the device, which disappears with it. Must never be used before it is up: a write then fails with EIO.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use rustix::net::netdevice::name_to_index;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::sys;
use super::vnet::VNET_LEN;

/// Packets the device queues for us. The default of 500 overflows silently in the time the worker needs for
/// one turn under load.
const QUEUE: u32 = 10_000;
/// Largest super-packet the kernel builds: sealed, it still fits one send of 65,507 bytes at any segment size
/// from 1,412 down to 576. (Never cap the number of segments: the kernel then segments UDP in software.)
const GSO_MAX_SIZE: u32 = 61_500;

/// What the device looks like from inside.
#[derive(Clone, Debug)]
pub struct TunOptions {
    /// Name of the interface, at most 15 bytes.
    pub name: String,
    /// Inner MTU.
    pub mtu: u16,
    /// Addresses with their prefix.
    pub addresses: Vec<IpNet>,
}

/// One queue of a TUN device.
pub struct Tun {
    device: Device,
    offloads: u32,
}

/// What is read and written.
enum Device {
    Kernel(SyncDevice),
    /// A pair of sockets that keep the borders of packets, for tests without privileges.
    #[cfg(test)]
    Pair {
        end: socket2::Socket,
        /// Refuse merged writes, as kernels have.
        refuses_merged: bool,
    },
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tun").field("fd", &self.as_fd().as_raw_fd()).field("offloads", &self.offloads).finish()
    }
}

impl Tun {
    /// Makes the device, gives it its addresses and brings it up.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN` or `/dev/net/tun`, or when the name is taken.
    pub async fn open(options: &TunOptions) -> Result<Self> {
        Self::open_queues(options, 1).await?.pop().context("a device has a queue")
    }

    /// The same with so many queues. The kernel remembers which queue a flow was written to and gives its answers to
    /// that one; a flow nothing was written of is always at the same queue.
    ///
    /// # Errors
    /// As [`Tun::open`].
    pub async fn open_queues(options: &TunOptions, queues: u32) -> Result<Vec<Self>> {
        // The kernel would give us a queue more of a device with several that somebody else has, and both half of its packets.
        let asking = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let taken = name_to_index(&asking, &options.name).is_ok();
        ensure!(!taken, "cannot make the TUN device {}: there is an interface of that name", options.name);
        let first = DeviceBuilder::new()
            .name(options.name.as_str())
            .offload(true)
            .mtu(options.mtu)
            .tx_queue_len(QUEUE)
            .enable(false)
            .multi_queue(queues > 1)
            .build_sync()
            .with_context(|| format!("cannot make the TUN device {}", options.name))?;
        let index = first.if_index()?;
        let mut devices = vec![first];
        for queue in 1..queues {
            let more = devices.first().map(SyncDevice::try_clone).transpose();
            devices.extend(more.with_context(|| format!("cannot open queue {queue} of {}", options.name))?);
        }
        let mut all = Vec::new();
        for device in devices {
            device.set_nonblocking(true)?;
            let offloads = sys::tun_offloads(device.as_fd()).context("TUNSETOFFLOAD")?;
            all.push(Self { device: Device::Kernel(device), offloads });
        }
        configure(index, options).await.with_context(|| format!("cannot configure {}", options.name))?;
        Ok(all)
    }

    /// A device whose other end is a socket: what is written there is read here, header first, and the other
    /// way round.
    #[cfg(test)]
    pub(super) fn pair(refuses_merged: bool) -> (Self, socket2::Socket) {
        let (end, other) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        for socket in [&end, &other] {
            socket.set_nonblocking(true).unwrap();
            socket.set_send_buffer_size(1 << 20).unwrap();
        }
        (Self { device: Device::Pair { end, refuses_merged }, offloads: 0 }, other)
    }

    /// Interface index.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn index(&self) -> io::Result<u32> {
        match &self.device {
            Device::Kernel(device) => device.if_index(),
            #[cfg(test)]
            Device::Pair { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// `TUN_F_…` bits the kernel took.
    #[must_use]
    pub fn offloads(&self) -> u32 {
        self.offloads
    }

    /// Reads one super-packet and its virtio header; none when nothing is there.
    pub(super) fn read(&self, vnet: &mut [u8; VNET_LEN], packet: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::readv(self, &mut [IoSliceMut::new(vnet), IoSliceMut::new(packet)]) {
            Ok(len) => Ok(len.checked_sub(VNET_LEN)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes one virtio header and packet.
    pub(super) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        #[cfg(test)]
        if matches!(self.device, Device::Pair { refuses_merged: true, .. }) && parts.first().is_some_and(|v| v[1] != 0)
        {
            return Err(rustix::io::Errno::INVAL.into());
        }
        rustix::io::writev(self, parts)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.device {
            Device::Kernel(device) => device.as_fd(),
            #[cfg(test)]
            Device::Pair { end, .. } => end.as_fd(),
        }
    }
}

async fn configure(index: u32, options: &TunOptions) -> Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection().context("netlink")?;
    let connection = tokio::spawn(connection);
    let size = LinkMessageBuilder::<LinkUnspec>::new()
        .index(index)
        .append_extra_attribute(LinkAttribute::GsoMaxSize(GSO_MAX_SIZE))
        .build();
    handle.link().set(size).execute().await.context("gso_max_size")?;
    // The kernel's own talk on a link (router solicitations, multicast reports) has no place in a tunnel, and its
    // link-local source would be nobody's there.
    let own_talk = format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", options.name);
    match std::fs::write(&own_talk, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot write {own_talk}"));
        }
        // Not there: a kernel without IPv6.
        _ => {}
    }
    for net in &options.addresses {
        // Duplicate address detection on a point-to-point device only delays the first packet.
        let request = handle.address().add(index, net.addr(), net.prefix_len());
        request.execute().await.with_context(|| format!("address {net}"))?;
    }
    // ICMP errors of the worker come through the device from its own address, which the kernel takes for a
    // forgery without this. What peers send is checked against their own addresses long before.
    let accept_local = format!("/proc/sys/net/ipv4/conf/{}/accept_local", options.name);
    std::fs::write(&accept_local, "1").with_context(|| format!("cannot write {accept_local}"))?;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    handle.link().set(up).execute().await.context("link up")?;
    drop(handle);
    connection.abort();
    Ok(())
}
