//! Reading and writing little-endian fields.
//!
//! Owns bounds: every read is checked and answers `None` past the end; every write appends. Must never
//! know what a field means.

use core::net::{IpAddr, Ipv6Addr};

/// Reads fields from the front of a slice.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next `len` bytes.
    pub fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// A byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A slice behind its length byte, at most `max` long.
    pub fn short(&mut self, max: usize) -> Option<&'a [u8]> {
        let len = usize::from(self.u8()?);
        if len > max { None } else { self.slice(len) }
    }

    /// An address, IPv4 as IPv4-mapped.
    pub fn address(&mut self) -> Option<IpAddr> {
        Some(Ipv6Addr::from(self.array::<16>()?).to_canonical())
    }

    /// Whether only padding (zeros) is left.
    #[must_use]
    pub fn rest_is_padding(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Whatever is left.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Appends fields.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty one that takes so many bytes without growing: fields are a few bytes each.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self(Vec::with_capacity(room))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A slice behind its length byte; what does not fit a byte's count is cut.
    pub fn short(&mut self, bytes: &[u8]) -> &mut Self {
        let len = bytes.len().min(255);
        self.u8(len as u8).bytes(bytes.get(..len).unwrap_or_default())
    }

    /// An address, IPv4 as IPv4-mapped.
    pub fn address(&mut self, address: IpAddr) -> &mut Self {
        self.bytes(&crate::abi::mapped(address))
    }

    /// Zeros up to `len`; longer stays as it is.
    pub fn pad_to(&mut self, len: usize) -> &mut Self {
        if self.0.len() < len {
            self.0.resize(len, 0);
        }
        self
    }

    /// The bytes.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.0)
    }
}
