//! The next free inner address of each of the gateway's prefixes.
//!
//! Owns the choice: the lowest that nobody has. Must never give out an address that overlaps another peer's.

use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses looked at in one prefix: as many as a gateway may have sessions, so that the search ends.
const LOOK_MAX: u128 = 1 << 21;

/// One free address a prefix, as a single host; the prefix that has none left otherwise.
pub(super) fn allocate(own: &[IpNet], taken: &[IpNet]) -> Result<Vec<IpNet>, IpNet> {
    own.iter().map(|prefix| free(prefix, taken).ok_or(*prefix)).collect()
}

fn free(prefix: &IpNet, taken: &[IpNet]) -> Option<IpNet> {
    let start = number(prefix.network());
    let size = 1_u128.checked_shl(u32::from(prefix.max_prefix_len() - prefix.prefix_len())).unwrap_or(u128::MAX);
    // The first address is the network itself; the last one of IPv4 is its broadcast.
    let end = if prefix.addr().is_ipv4() { size.saturating_sub(1) } else { size };
    let candidates = (1..end.min(LOOK_MAX)).map(|offset| host(prefix, start + offset));
    let mut candidates = candidates.filter(|host| host.addr() != prefix.addr());
    candidates.find(|host| !taken.iter().any(|taken| taken.contains(host)))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn host(prefix: &IpNet, number: u128) -> IpNet {
    let address = match prefix {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    };
    address.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    #[test]
    fn the_lowest_address_nobody_has_is_given_out_in_each_prefix() {
        let own = nets(&["10.77.0.1/24", "fd77::1/64"]);
        assert_eq!(allocate(&own, &[]), Ok(nets(&["10.77.0.2/32", "fd77::2/128"])));
        let taken = nets(&["10.77.0.2/32", "10.77.0.4/30", "10.77.0.3/32", "fd77::2/128"]);
        assert_eq!(allocate(&own, &taken), Ok(nets(&["10.77.0.8/32", "fd77::3/128"])));
    }

    #[test]
    fn a_full_prefix_is_named_and_broadcast_is_never_given_out() {
        let own = nets(&["10.77.0.1/30"]);
        assert_eq!(allocate(&own, &[]), Ok(nets(&["10.77.0.2/32"])));
        assert_eq!(allocate(&own, &nets(&["10.77.0.2/32"])), Err(own[0]));
        assert_eq!(allocate(&nets(&["10.77.0.1/32"]), &[]), Err(nets(&["10.77.0.1/32"])[0]));
    }
}
