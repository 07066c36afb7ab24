//! The runtime's one use of `unsafe`: watching a descriptor.
//!
//! Owns the proof that what is watched stays open and the same. Must never take anything but an owned
//! descriptor.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for the event loop.
///
/// # Errors
/// When the kernel cannot poll it.
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` is the only owner of an open descriptor, gives the same number each time it is asked,
    // and is closed only when the `AsyncFd` that takes it here is dropped.
    let watched = unsafe { AsyncFd::register(fd) };
    watched.map_err(|error| error.into_parts().1)
}
