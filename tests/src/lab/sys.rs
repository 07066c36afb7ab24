//! Owns the few system calls of the lab that no safe crate offers. Never policy: each function is one call with its
//! error returned.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use socket2::{Domain, Socket, Type};

const BPF_PROG_LOAD: libc::c_long = 5;
/// Not in the libc crate: do not show a socket what leaves through its interface.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// The head of the kernel's `union bpf_attr` for BPF_PROG_LOAD; later fields default to zero.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads an XDP program given as instruction words.
pub(super) fn load_xdp(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let attributes = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: bpf(2) reads `size_of` bytes of `attributes` and through it `count` words and the license; all three
    // live until the call returns, and it writes nothing because the log is empty.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<ProgramLoad>()) };
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned this descriptor just now and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Signals that end a run.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Write end of the pipe that the handler tells; -1 until there is one.
static NOTE: AtomicI32 = AtomicI32::new(-1);

/// From now on SIGINT, SIGTERM and SIGHUP write their number, four bytes, into a pipe; this is its read end. A handler
/// and no mask: children must not inherit blocked signals, and exec resets handlers.
pub(super) fn note_ending_signals() -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    NOTE.store(OwnedFd::from(writer).into_raw_fd(), Ordering::SeqCst);
    // SAFETY: sigaction is integers and pointers, for which zero bytes mean no flags, no mask, default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    for signal in ENDING {
        // SAFETY: `action` is initialised and outlives the call; its handler only does what signal handlers may.
        let code = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(reader)
}

extern "C" fn note(signal: libc::c_int) {
    let byte = signal.to_ne_bytes();
    // SAFETY: write(2) is allowed in handlers; the buffer is a live local of four bytes, and the descriptor, once
    // stored, is never closed.
    unsafe { libc::write(NOTE.load(Ordering::SeqCst), byte.as_ptr().cast(), byte.len()) };
}

/// A raw socket that sees every frame arriving on one interface, none that leaves through it, and never blocks.
pub(super) fn packet_socket(interface: &str) -> io::Result<Socket> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)?;
    set_int(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
    // SAFETY: sockaddr_ll is plain integers, for which zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    address.sll_ifindex = index.cast_signed();
    // SAFETY: `address` is an initialised sockaddr_ll of the length given and outlives the call.
    let code = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if code == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

/// Gives the system back what the allocator keeps of memory that was freed, so that what is taken next shows.
pub(crate) fn give_memory_back() {
    // SAFETY: no argument is a pointer, and what is in use stays where it is.
    unsafe { libc::malloc_trim(0) };
}

/// The system's allocator, which counts how often each thread asks it for memory. A suite that wants to know makes it
/// its global allocator.
#[derive(Debug)]
pub struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread allocated; 0 without [`CountingAllocator`].
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a plain cell of the thread, which needs
// no memory and no destructor.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, and the pointer is from `alloc`, so from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Frames received or sent by one call.
pub(crate) const BATCH: usize = 64;
/// Room for one frame.
pub(crate) const FRAME: usize = 2_048;

/// Makes a receive queue this long, whatever the system's limit; needs root.
pub(crate) fn force_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// The same for what is to be sent.
pub(crate) fn force_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

/// From now on a send is cut into datagrams of so many bytes by the kernel.
pub(crate) fn segment(socket: &Socket, bytes: usize) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_SEGMENT, bytes)
}

/// From now on a receive brings what the kernel merged, datagrams of one length behind each other.
pub(crate) fn merge(socket: &Socket) -> io::Result<()> {
    set_int(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

fn set_int(socket: &Socket, level: libc::c_int, option: libc::c_int, value: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(value).map_err(io::Error::other)?;
    // SAFETY: each option this is called with takes an int, `value` is one and outlives the call.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Headers of a batch over these pieces of memory.
fn headers(pieces: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let header = |piece: &mut libc::iovec| {
        // SAFETY: mmsghdr is integers and pointers, for which zero bytes mean nothing there.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (&raw mut *piece, 1);
        header
    };
    pieces.iter_mut().map(header).collect()
}

fn counted(code: libc::c_int) -> io::Result<usize> {
    usize::try_from(code).map_err(|_| io::Error::last_os_error())
}

/// Receives up to a batch of frames without waiting; how many, their lengths in `lengths`.
pub(crate) fn receive_many(
    socket: &Socket,
    frames: &mut [[u8; FRAME]; BATCH],
    lengths: &mut [usize; BATCH],
) -> io::Result<usize> {
    receive(socket, frames, lengths, libc::MSG_DONTWAIT)
}

/// The same, waiting for the first one as long as the socket's timeout says.
pub(crate) fn await_many(
    socket: &Socket,
    frames: &mut [[u8; FRAME]; BATCH],
    lengths: &mut [usize; BATCH],
) -> io::Result<usize> {
    receive(socket, frames, lengths, libc::MSG_WAITFORONE)
}

fn receive(
    socket: &Socket,
    frames: &mut [[u8; FRAME]; BATCH],
    lengths: &mut [usize; BATCH],
    flags: libc::c_int,
) -> io::Result<usize> {
    let piece = |frame: &mut [u8; FRAME]| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: FRAME };
    let mut pieces: Vec<_> = frames.iter_mut().map(piece).collect();
    let mut headers = headers(&mut pieces);
    // SAFETY: each of the `BATCH` headers points to one iovec of `pieces`, each of those to one whole frame; all live
    // until the call returns, and nothing else looks at the frames meanwhile.
    let code = unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), BATCH as libc::c_uint, flags, std::ptr::null_mut())
    };
    let count = counted(code)?;
    lengths.iter_mut().zip(&headers).for_each(|(length, header)| *length = header.msg_len as usize);
    Ok(count)
}

/// Sends frames in order without waiting; how many the kernel took.
pub(crate) fn send_many(socket: &Socket, frames: &[&[u8]]) -> io::Result<usize> {
    let piece = |frame: &&[u8]| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
    let mut pieces: Vec<_> = frames.iter().map(piece).collect();
    let mut headers = headers(&mut pieces);
    // SAFETY: each header points to one iovec of `pieces`, each of those to one frame, which the kernel only reads; all
    // live until the call returns.
    let code = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, libc::MSG_DONTWAIT)
    };
    counted(code)
}
