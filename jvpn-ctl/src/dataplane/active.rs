//! Kernel arrays mapped into this process: what makes a jump one store.
//!
//! Owns the mapping of a `BPF_F_MMAPABLE` array and its end. Must never be read or written but through the
//! atomics it hands out: the kernel program and other processes use the same memory at the same time.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

/// One mapped array.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is shared memory that belongs to no thread; all access is by atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `words` 64-bit words of the array behind `map`.
    pub(super) fn of(map: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let bytes = words * size_of::<AtomicU64>();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. The kernel
        // refuses lengths beyond the array (rounded up to pages) and keeps the array while it is mapped.
        let start =
            unsafe { mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, map, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, words })
    }
}

impl AsRef<[AtomicU64]> for Mapping {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: `start` is page aligned and maps `words` words until drop, which cannot run while `self`
        // is borrowed; any bit pattern is an AtomicU64, and concurrent writers are what atomics are for.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let bytes = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly what `of` mapped; no borrow of it can be left here. A failure leaks the mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
    }
}
