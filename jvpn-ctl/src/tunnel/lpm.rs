//! Longest prefix match: which session an inner destination belongs to.
//!
//! Owns an immutable table; the controller builds another one when sessions change. Must never hold two
//! values for one prefix: prefixes are unique across live sessions.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes of both families with a value each.
#[derive(Clone, Debug)]
pub struct Lpm<T> {
    v4: Vec<Level<T>>,
    v6: Vec<Level<T>>,
}

/// All prefixes of one length, the longest level first.
#[derive(Clone, Debug)]
struct Level<T> {
    mask: u128,
    of: HashMap<u128, T>,
}

impl<T> Default for Lpm<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T> Lpm<T> {
    /// A table of `entries`; an error names the prefix that came twice.
    ///
    /// # Errors
    /// When one prefix has two values.
    pub fn new(entries: impl IntoIterator<Item = (IpNet, T)>) -> Result<Self, IpNet> {
        let mut table = Self::default();
        for (net, value) in entries {
            let (levels, key, mask) = match net {
                IpNet::V4(v4) => {
                    (&mut table.v4, u128::from(u32::from(v4.network())), u128::from(u32::from(v4.netmask())))
                }
                IpNet::V6(v6) => (&mut table.v6, u128::from(v6.network()), u128::from(v6.netmask())),
            };
            let place = levels.partition_point(|level| level.mask > mask);
            if levels.get(place).is_none_or(|level| level.mask != mask) {
                levels.insert(place, Level { mask, of: HashMap::new() });
            }
            if levels.get_mut(place).is_some_and(|level| level.of.insert(key, value).is_some()) {
                return Err(net);
            }
        }
        Ok(table)
    }

    /// The value of the longest prefix that contains `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        let (levels, bits) = match address {
            IpAddr::V4(v4) => (&self.v4, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (&self.v6, u128::from(v6)),
        };
        levels.iter().find_map(|level| level.of.get(&(bits & level.mask)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Lpm<u8> {
        let nets = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "fd00::1/128"];
        Lpm::new(nets.iter().zip(0..).map(|(net, n)| (net.parse().unwrap(), n))).unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let cases = [("10.1.2.3", 3), ("10.1.2.4", 2), ("10.2.0.0", 1), ("9.9.9.9", 0), ("fd00::1", 5), ("fd00::2", 4)];
        for (address, expected) in cases {
            assert_eq!(table().find(address.parse().unwrap()), Some(&expected), "{address}");
        }
        assert_eq!(table().find("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn a_prefix_with_two_owners_is_refused() {
        let net: IpNet = "10.0.0.1/32".parse().unwrap();
        assert_eq!(Lpm::new([(net, 1), (net, 2)]).unwrap_err(), net);
    }
}
