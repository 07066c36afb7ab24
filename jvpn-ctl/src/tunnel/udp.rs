//! UDP sockets of the tunnel: receive offload in, segmentation offload out, local addresses both ways.
//!
//! Owns socket options. Control messages are quinn-udp's. Must never fragment: DF is set on both families.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use jvpn_common::wire::header::LOCATOR_AT;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Receive buffer asked for, of which the kernel gives twice as much. It counts some 4 KB for a small packet that a program has
/// seen: 90,000 of them a second fill it in 90 ms.
pub const RECEIVE_BUFFER: usize = 16 << 20;
/// Send buffer asked for.
pub const SEND_BUFFER: usize = 8 << 20;

/// Segments in one send: what every kernel since 4.18 takes.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes in one send: 65,535 less the headers of IPv4 and UDP.
pub const SEND_MAX: usize = 65_507;

/// How to open a socket.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Address and port to bind; a wildcard address for a gateway. IPv6 sockets take IPv6 only.
    pub bind: SocketAddr,
    /// Interface to send and receive through.
    pub device: Option<String>,
    /// fwmark of everything sent.
    pub mark: Option<u32>,
}

impl UdpOptions {
    /// A plain socket at `bind`.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        Self { bind, device: None, mark: None }
    }
}

/// One socket; shared by the worker, which receives, and the controller, which sends too.
#[derive(Debug)]
pub struct UdpPort {
    socket: Socket,
    state: UdpSocketState,
    /// It sends and receives through one interface only.
    on_device: bool,
    /// What the kernel says to segmented sends, for tests of the way out.
    #[cfg(test)]
    pub(super) refuses_segments: std::sync::OnceLock<Errno>,
}

/// One received batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram; the last may be shorter.
    pub stride: usize,
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}

impl UdpPort {
    /// Opens and binds a socket.
    ///
    /// # Errors
    /// When the kernel refuses one of the options or the address.
    pub fn open(options: &UdpOptions) -> io::Result<Self> {
        Self::bind(options, false)
    }

    /// Opens a socket for each of `workers` on one port, in their order: a datagram goes to the one that its locator names. The
    /// first is bound alone, so that a port somebody else has is refused; `again`: some of ours may still be open.
    ///
    /// # Errors
    /// As [`UdpPort::open`].
    pub fn open_group(options: &UdpOptions, workers: u32, again: bool) -> io::Result<Vec<Self>> {
        if workers <= 1 {
            return Ok(vec![Self::open(options)?]);
        }
        let first = Self::bind(options, again)?;
        first.socket.set_reuse_port(true)?;
        let bind = first.local_addr()?;
        let mut group = vec![first];
        for _ in 1..workers {
            group.push(Self::bind(&UdpOptions { bind, ..options.clone() }, true)?);
        }
        if let Some(first) = group.first() {
            sys::choose_by(first.as_fd(), &by_locator(workers))?;
        }
        Ok(group)
    }

    fn bind(options: &UdpOptions, reuse_port: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(options.bind), Type::DGRAM, Some(Protocol::UDP))?;
        if options.bind.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(device) = &options.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark)?;
        }
        sys::force_buffers(socket.as_fd(), RECEIVE_BUFFER, SEND_BUFFER)?;
        socket.bind(&options.bind.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // quinn-udp asks for receive times: a clock read per packet that nobody here looks at.
        sys::no_timestamps(socket.as_fd())?;
        Ok(Self {
            socket,
            state,
            on_device: options.device.is_some(),
            #[cfg(test)]
            refuses_segments: std::sync::OnceLock::new(),
        })
    }

    /// Whether this error says that the socket will not carry anything any more: it was shut down, or it is bound to
    /// an interface that was removed or went down. Without an interface of its own a socket outlives all of them:
    /// there such an error is about one destination.
    #[must_use]
    pub(crate) fn is_gone(&self, error: &io::Error) -> bool {
        match Errno::from_io_error(error) {
            Some(Errno::NODEV | Errno::NXIO | Errno::NETDOWN) => self.on_device,
            Some(Errno::PIPE | Errno::BADF | Errno::NOTSOCK) => true,
            _ => false,
        }
    }

    /// Ends the socket as the kernel would: it only reports its own end from now on.
    #[cfg(test)]
    pub(super) fn shut_down(&self) {
        // Says that it is not connected, and shuts it down all the same.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Datagrams that the kernel dropped here, since the receive buffer was full or their checksum was wrong; none where it does
    /// not say (4.12 does).
    #[must_use]
    pub fn dropped(&self) -> u64 {
        sys::dropped(self.as_fd()).map_or(0, u64::from)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// What `sendmsg` says; `ConnectionRefused` is about an earlier one.
    pub fn send(&self, remote: SocketAddr, local: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        self.transmit(remote, local, datagram, None)
    }

    /// Sends datagrams of `stride` bytes, the last one as long as is left, in one call.
    ///
    /// # Errors
    /// What `sendmsg` says, to all of them.
    pub fn send_segments(
        &self,
        remote: SocketAddr,
        local: Option<IpAddr>,
        bytes: &[u8],
        stride: usize,
    ) -> io::Result<()> {
        self.transmit(remote, local, bytes, Some(stride))
    }

    fn transmit(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        #[cfg(test)]
        if let Some(&refusal) = self.refuses_segments.get()
            && segment_size.is_some()
        {
            return Err(refusal.into());
        }
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// Receives one batch; none when nothing is there.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut meta = [RecvMeta::default()];
        match self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(buffer)], &mut meta) {
            Ok(0) => Ok(None),
            Ok(_) => {
                let [RecvMeta { len, stride, addr, dst_ip, .. }] = meta;
                let remote = SocketAddr::new(addr.ip().to_canonical(), addr.port());
                Ok(Some(Received { len, stride: stride.max(1), remote, local: dst_ip.map(|ip| ip.to_canonical()) }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The low byte of a datagram's locator modulo the number of workers; a datagram too short for one is the first's.
fn by_locator(workers: u32) -> [libc::sock_filter; 3] {
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_K, BPF_LD, BPF_MOD, BPF_RET};
    let step = |code: u32, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    [
        step(BPF_LD | BPF_B | BPF_ABS, LOCATOR_AT as u32),
        step(BPF_ALU | BPF_MOD | BPF_K, workers.max(1)),
        step(BPF_RET | BPF_A, 0),
    ]
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// What waits in a socket: the byte each datagram ends with.
    fn waiting(port: &UdpPort) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let mut all = Vec::new();
        while let Some(received) = port.receive(&mut buffer).unwrap() {
            all.extend(buffer[..received.len].chunks(received.stride).filter_map(|datagram| datagram.last()));
        }
        all
    }

    #[test]
    fn a_datagram_goes_to_the_worker_its_locator_names_whoever_sends_it() {
        let group = UdpPort::open_group(&UdpOptions::new(LOOPBACK), 3, false).unwrap();
        let to = group[0].local_addr().unwrap();
        for low in 0..=255u8 {
            // Each from a port of its own: a hash of addresses would spread them otherwise.
            let sender = UdpPort::open(&UdpOptions::new(LOOPBACK)).unwrap();
            let mut datagram = [0; LOCATOR_AT + 9];
            datagram[LOCATOR_AT] = low;
            datagram[LOCATOR_AT + 8] = low;
            sender.send(to, None, &datagram).unwrap();
        }
        for (worker, port) in (0u8..).zip(&group) {
            let expected: Vec<u8> = (0..=255).filter(|low| low % 3 == worker).collect();
            assert_eq!(waiting(port), expected, "worker {worker}");
        }
        UdpPort::open(&UdpOptions::new(LOOPBACK)).unwrap().send(to, None, &[9; 3]).unwrap();
        assert_eq!(waiting(&group[0]), [9], "too short for a locator");
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_counted() {
        let port = UdpPort::open(&UdpOptions::new(LOOPBACK)).unwrap();
        let (to, sender) = (port.local_addr().unwrap(), UdpPort::open(&UdpOptions::new(LOOPBACK)).unwrap());
        assert_eq!(port.dropped(), 0);
        // The kernel doubles what it is asked for, and bounds it from below.
        port.socket.set_recv_buffer_size(1).unwrap();
        let sent: u64 = (0..64).map(|_| sender.send(to, None, &[7; 1_024]).map_or(0, |()| 1)).sum();
        let taken = waiting(&port).len() as u64;
        assert!(taken < sent, "all {sent} found room");
        assert_eq!(port.dropped(), sent - taken);
    }

    #[test]
    fn a_port_somebody_else_has_is_refused_and_our_own_is_opened_again() {
        let options = UdpOptions::new(LOOPBACK);
        let group = UdpPort::open_group(&options, 2, false).unwrap();
        let same = UdpOptions::new(group[0].local_addr().unwrap());
        for workers in [1, 2] {
            let refused = UdpPort::open_group(&same, workers, false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
        assert_eq!(UdpPort::open_group(&same, 2, true).unwrap().len(), 2);
    }
}
