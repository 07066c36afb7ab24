//! Access to a packet's bytes, always bounded, always by copy.
//!
//! Owns the trait behind which the kernel's frame and a byte slice look alike. Must never hand out a
//! reference into a packet: the kernel moves packets, and what was checked must be what is used.

/// A packet that can be read, written and shortened.
pub trait Frame {
    /// Bytes of the packet.
    fn len(&self) -> usize;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes at `at`, if all of them are there.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Writes the `N` bytes at `at`, all or none; `None` when they do not fit.
    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()>;

    /// Cuts the packet to `len` bytes; `None` when it is shorter or cannot be cut.
    fn shorten(&mut self, len: usize) -> Option<()>;
}

/// A [`Frame`] over bytes of user space: a whole frame in tests, a datagram's payload in the worker.
#[derive(Debug)]
pub struct Bytes<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Bytes<'a> {
    /// All of `bytes` as the packet.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        let len = bytes.len();
        Self { bytes, len }
    }

    /// The packet as it stands now.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Frame for Bytes<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.packet().get(at..)?.first_chunk().copied()
    }

    fn write<const N: usize>(&mut self, at: usize, bytes: &[u8; N]) -> Option<()> {
        *self.bytes.get_mut(..self.len)?.get_mut(at..)?.first_chunk_mut()? = *bytes;
        Some(())
    }

    fn shorten(&mut self, len: usize) -> Option<()> {
        if len > self.len {
            return None;
        }
        self.len = len;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_past_the_end() {
        let mut bytes = [1, 2, 3, 4];
        let mut frame = Bytes::new(&mut bytes);
        assert_eq!(frame.read::<2>(2), Some([3, 4]));
        assert_eq!(frame.read::<2>(3), None);
        assert_eq!(frame.read::<2>(usize::MAX), None);
        assert_eq!(frame.shorten(5), None);
        assert_eq!(frame.shorten(3), Some(()));
        assert_eq!(frame.write(2, &[9, 9]), None);
        assert_eq!(frame.packet(), [1, 2, 3]);
    }
}
