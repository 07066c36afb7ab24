//! The packet in the driver's memory, as steering sees it.
//!
//! Owns all access to packet bytes. Every access compares against `data_end` first, which is the proof the
//! verifier asks for, and copies: after `bpf_xdp_adjust_tail` no earlier pointer may be used, so none is
//! ever kept. Must never be given an offset the verifier cannot bound; larger ones end here.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
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
        let start = self.ctx.data() + at;
        if start + N > self.ctx.data_end() {
            return None;
        }
        Some(start)
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = self.place::<N>(at)? as *const [u8; N];
        // SAFETY: `place` compared start + N with data_end, so N bytes from start belong to this frame,
        // which nobody else holds while the program runs; an array of bytes has no alignment.
        Some(unsafe { start.read() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        let start = self.place::<N>(at)? as *mut [u8; N];
        // SAFETY: as in `read`; the driver gives the frame to this program for writing.
        unsafe { start.write(*bytes) };
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
