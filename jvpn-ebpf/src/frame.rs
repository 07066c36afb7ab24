//! The packet in the driver's memory, as steering sees it.
//!
//! Owns all access to packet bytes. Every access compares against `data_end` first, which is the proof the
//! verifier asks for, and copies: after `bpf_xdp_adjust_tail` no earlier pointer may be used, so none is
//! ever kept. Must never be given an offset the verifier cannot bound; larger ones end here.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use core::arch::asm;
use jvpn_common::steer::Frame;

/// Offsets at or above this are refused: more than any header and payload that is read, and a bound that
/// lets the verifier follow `data + offset` (it gives up at 65,535).
const OFFSET_MAX: usize = 0x4000;

/// One frame.
pub(crate) struct XdpFrame<'a> {
    pub(crate) ctx: &'a XdpContext,
}

impl XdpFrame<'_> {
    /// The address of `N` bytes at `at`, proven to lie inside the frame.
    #[inline(always)]
    fn place<const N: usize>(&self, at: usize) -> Option<usize> {
        if at >= OFFSET_MAX {
            return None;
        }
        let mut start = self.ctx.data() + at;
        // One register for comparison and access: the compiler would compute the sum twice, and the
        // verifier would not know that what was compared is what is accessed.
        // SAFETY: a register moved onto itself. (No instruction at all would leave two source lines at one
        // offset, which the kernel refuses.)
        unsafe { asm!("{0} = {0}", inout(reg) start, options(nomem, nostack)) };
        if start + N > self.ctx.data_end() {
            return None;
        }
        Some(start)
    }
}

/// Numbers that one instruction loads or stores at any address: packets are not aligned, x86-64 does not
/// care, and the language's unaligned access would be taken apart into bytes for this target.
trait Access: Copy {
    unsafe fn load(from: usize) -> Self;
    unsafe fn store(to: usize, value: Self);
}

macro_rules! access {
    ($($number:ident $register:ident $load:literal $store:literal;)*) => {$(
        impl Access for $number {
            #[inline(always)]
            unsafe fn load(from: usize) -> Self {
                let value: $register;
                // SAFETY: one load from an address the caller has proven to lie inside the frame.
                unsafe { asm!($load, value = out(reg) value, from = in(reg) from, options(readonly, nostack)) };
                value as Self
            }

            #[inline(always)]
            unsafe fn store(to: usize, value: Self) {
                // SAFETY: one store to an address the caller has proven to lie inside the frame.
                unsafe { asm!($store, to = in(reg) to, value = in(reg) $register::from(value), options(nostack)) };
            }
        }
    )*};
}

access! {
    u64 u64 "{value} = *(u64 *)({from} + 0)" "*(u64 *)({to} + 0) = {value}";
    u32 u64 "{value} = *(u32 *)({from} + 0)" "*(u32 *)({to} + 0) = {value}";
    u16 u64 "{value} = *(u16 *)({from} + 0)" "*(u16 *)({to} + 0) = {value}";
    u8 u64 "{value} = *(u8 *)({from} + 0)" "*(u8 *)({to} + 0) = {value}";
}

#[inline(always)]
fn load<T: Access>(from: usize) -> T {
    // SAFETY: only called by `read` on addresses `place` compared with data_end, whole number included.
    unsafe { T::load(from) }
}

#[inline(always)]
fn store<T: Access>(to: usize, value: T) {
    // SAFETY: only called by `write` on addresses `place` compared with data_end, whole number included.
    unsafe { T::store(to, value) };
}

/// Copies `part` to `at`, which is constant after unrolling: no index is left for the verifier.
#[inline(always)]
fn put<const N: usize, const M: usize>(out: &mut [u8; N], at: usize, part: [u8; M]) {
    if let Some(place) = out.get_mut(at..at + M) {
        place.copy_from_slice(&part);
    }
}

#[inline(always)]
fn cut<const N: usize, const M: usize>(bytes: &[u8; N], at: usize) -> [u8; M] {
    let mut part = [0; M];
    if let Some(from) = bytes.get(at..at + M) {
        part.copy_from_slice(from);
    }
    part
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = self.place::<N>(at)?;
        let mut out = [0; N];
        let mut done = 0;
        while done + 8 <= N {
            put(&mut out, done, load::<u64>(start + done).to_le_bytes());
            done += 8;
        }
        if done + 4 <= N {
            put(&mut out, done, load::<u32>(start + done).to_le_bytes());
            done += 4;
        }
        if done + 2 <= N {
            put(&mut out, done, load::<u16>(start + done).to_le_bytes());
            done += 2;
        }
        if done < N {
            put(&mut out, done, [load::<u8>(start + done)]);
        }
        Some(out)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        let start = self.place::<N>(at)?;
        let mut done = 0;
        while done + 8 <= N {
            store::<u64>(start + done, u64::from_le_bytes(cut(bytes, done)));
            done += 8;
        }
        if done + 4 <= N {
            store::<u32>(start + done, u32::from_le_bytes(cut(bytes, done)));
            done += 4;
        }
        if done + 2 <= N {
            store::<u16>(start + done, u16::from_le_bytes(cut(bytes, done)));
            done += 2;
        }
        if done < N {
            let [last] = cut(bytes, done);
            store::<u8>(start + done, last);
        }
        Some(())
    }

    #[inline(always)]
    fn shorten(&mut self, len: usize) -> Option<()> {
        let now = self.len();
        if len > now {
            return None;
        }
        if len < now {
            let by = len as i32 - now as i32;
            // SAFETY: the helper takes the context this program was called with and moves data_end only;
            // `place` reads both ends anew at every access.
            let moved = unsafe { bpf_xdp_adjust_tail(self.ctx.as_ptr().cast(), by) };
            if moved != 0 {
                return None;
            }
        }
        Some(())
    }
}
