//! PING and PONG: a data datagram whose inner "packet" is neither IPv4 nor IPv6.
//!
//! ```text
//!  0              1            9                 32
//! ┌──────────────┬────────────┬─────────────────┐
//! │ 0 ping 1 pong│ number     │ zero            │
//! └──────────────┴────────────┴─────────────────┘
//! ```
//!
//! Owns the 32 bytes: both have the same length, so that an answer is never larger than its question.

/// Bytes of both.
pub(super) const PING_LEN: usize = 32;

/// One of the two, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ping {
    Ask(u64),
    Answer(u64),
}

impl Ping {
    /// Reads one.
    pub(super) fn parse(plain: &[u8]) -> Option<Self> {
        let bytes: &[u8; PING_LEN] = plain.try_into().ok()?;
        let (&kind, rest) = bytes.split_first()?;
        let (number, padding) = rest.split_first_chunk::<8>()?;
        let number = u64::from_le_bytes(*number);
        match kind {
            _ if padding.iter().any(|&byte| byte != 0) => None,
            0 => Some(Self::Ask(number)),
            1 => Some(Self::Answer(number)),
            _ => None,
        }
    }

    /// Writes one.
    pub(super) fn to_bytes(self) -> [u8; PING_LEN] {
        let (kind, number) = match self {
            Self::Ask(number) => (0, number),
            Self::Answer(number) => (1, number),
        };
        let mut bytes = [0; PING_LEN];
        if let Some((first, rest)) = bytes.split_first_mut() {
            *first = kind;
            rest.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_reads_back_and_anything_else_does_not() {
        for ping in [Ping::Ask(7), Ping::Answer(u64::MAX)] {
            assert_eq!(Ping::parse(&ping.to_bytes()), Some(ping));
        }
        let mut padded = Ping::Ask(7).to_bytes();
        padded[31] = 1;
        assert_eq!(Ping::parse(&padded), None);
        assert_eq!(Ping::parse(&Ping::Ask(7).to_bytes()[..31]), None);
        assert_eq!(Ping::parse(&[2; PING_LEN]), None);
    }
}
