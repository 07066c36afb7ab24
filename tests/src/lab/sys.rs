//! Owns the few system calls of the lab that no safe crate offers. Never policy: each function is one call with its
//! error returned.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const BPF_PROG_LOAD: libc::c_long = 5;
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
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<ProgramLoad>(),
        )
    };
    let descriptor = RawFd::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned this descriptor just now and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Signals that end a run.
const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Blocks SIGINT, SIGTERM and SIGHUP in the calling thread and in threads it starts. Children get a clean mask from
/// the standard library.
pub(super) fn block_ending_signals() -> io::Result<()> {
    let set = ending_set();
    // SAFETY: `set` is initialised and outlives the call; a null old set is allowed.
    let code =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

/// Waits for one of the blocked signals and returns its number.
pub(super) fn wait_ending_signal() -> io::Result<i32> {
    let set = ending_set();
    let mut signal = 0;
    // SAFETY: both pointers are to live locals of the right types.
    let code = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    if code == 0 {
        Ok(signal)
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}

fn ending_set() -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers, for which zero bytes are a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in ENDING {
        // SAFETY: `set` is a live sigset_t and `signal` a valid number; the call cannot fail then.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}
