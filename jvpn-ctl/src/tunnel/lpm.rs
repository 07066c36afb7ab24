//! Longest prefix match: which session an inner destination belongs to.
//!
//! Owns the table; the controller changes a copy of it when sessions change, and a copy costs a pointer for many prefixes.
//! Must never hold two values for one prefix: prefixes are unique across live sessions.

use super::ByKey;
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
    of: ByKey<u128, T>,
}

impl<T> Default for Lpm<T> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<T: Clone + PartialEq> Lpm<T> {
    /// Gives a prefix a value, instead of the one it had.
    pub fn insert(&mut self, net: IpNet, value: T) {
        let (levels, key, mask) = self.at(net);
        let place = levels.partition_point(|level| level.mask > mask);
        if levels.get(place).is_none_or(|level| level.mask != mask) {
            levels.insert(place, Level { mask, of: ByKey::default() });
        }
        if let Some(level) = levels.get_mut(place) {
            level.of.insert(key, value);
        }
    }

    /// Takes a prefix out if it has this value.
    pub fn remove(&mut self, net: IpNet, value: &T) {
        let (levels, key, mask) = self.at(net);
        let level = levels.iter_mut().find(|level| level.mask == mask);
        if let Some(level) = level.filter(|level| level.of.get(&key) == Some(value)) {
            level.of.remove(&key);
        }
    }

    fn at(&mut self, net: IpNet) -> (&mut Vec<Level<T>>, u128, u128) {
        match net {
            IpNet::V4(v4) => (&mut self.v4, u128::from(u32::from(v4.network())), u128::from(u32::from(v4.netmask()))),
            IpNet::V6(v6) => (&mut self.v6, u128::from(v6.network()), u128::from(v6.netmask())),
        }
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
        let mut table = Lpm::default();
        nets.iter().zip(0..).for_each(|(net, n)| table.insert(net.parse().unwrap(), n));
        table
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
    fn a_prefix_has_its_last_value_and_goes_with_that_one_only() {
        let (mut table, before) = (table(), table());
        let (net, address) = ("10.1.2.3/32".parse().unwrap(), "10.1.2.3".parse().unwrap());
        table.insert(net, 9);
        table.remove(net, &3);
        assert_eq!(table.find(address), Some(&9), "it was somebody else's by then");
        table.remove(net, &9);
        assert_eq!((table.find(address), before.find(address)), (Some(&2), Some(&3)));
        table.remove("192.0.2.0/24".parse().unwrap(), &2);
    }
}
