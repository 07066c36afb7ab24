//! The system calls of the data path that no crate offers safely.
//!
//! Owns every `unsafe` of the worker. Must never interpret what it reads or writes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Offloads a TUN takes, best first: checksum, TSO for both families, ECN, USO for both families.
const OFFLOADS: [libc::c_uint; 4] = [0x6f, 0x0f, 0x07, 0];

/// Place of the drops among the numbers of `SO_MEMINFO` (linux/sock_diag.h).
const SK_MEMINFO_DROPS: usize = 8;

/// Asks a TUN for the best set of offloads it takes; says which.
pub(super) fn tun_offloads(tun: BorrowedFd<'_>) -> io::Result<libc::c_uint> {
    for offloads in OFFLOADS {
        // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours; the descriptor
        // is borrowed and so open.
        let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) };
        if result == 0 {
            return Ok(offloads);
        }
    }
    Err(io::Error::last_os_error())
}

/// Sets both buffers of a socket, beyond the system's limit when privileged and up to it otherwise.
pub(super) fn force_buffers(socket: BorrowedFd<'_>, receive: usize, send: usize) -> io::Result<()> {
    let both = [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send)];
    for (forced, plain, bytes) in both {
        let bytes = libc::c_int::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if set_int(socket, forced, bytes).is_err() {
            set_int(socket, plain, bytes)?;
        }
    }
    Ok(())
}

/// Switches receive time stamps off.
pub(super) fn no_timestamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::SO_TIMESTAMPNS, 0)
}

/// Has the sockets of a port chosen among by a classic BPF program over the datagram, which names one in the order of binding.
pub(super) fn choose_by(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies and checks the program; it does not write to it.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Datagrams that the kernel dropped at a socket: its queue was full, or their checksum was wrong. It counts them in 32 bits.
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut numbers = [0_u32; SK_MEMINFO_DROPS + 1];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the pointer and length describe `numbers`, which lives across the call and is written to by nobody else; any
    // bytes are valid numbers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(numbers[SK_MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
}

fn set_int(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    set(socket, option, &value)
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which lives across the call, as does what it points to; the kernel
    // only reads both.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
