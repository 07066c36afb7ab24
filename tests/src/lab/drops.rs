//! Owns what the lab's own links lose: a veth drops what its peer's ring has no room for, and no end of a tunnel can know.
//! Never excuses a loss: it only says where it was.

use std::fs;

use anyhow::{Context, Result};

use super::topology::{LINKS, Topology};

/// Interfaces of the namespace of the thread that opens it.
const COUNTERS: &str = "/proc/thread-self/net/dev";
/// `drop` among the numbers behind an interface's name: eight of what it received, then bytes, packets, errs, drop sent.
const TX_DROPPED: usize = 11;

impl Topology {
    /// Packets that the links between namespaces have dropped so far, both directions of all of them.
    pub fn dropped(&self) -> Result<u64> {
        let mut dropped = 0;
        for end in LINKS.iter().filter(|(left, _)| self.has(left)).flat_map(|(left, right)| [left, right]) {
            let text = self.space(end.space).enter(|| fs::read_to_string(COUNTERS).context(COUNTERS))?;
            dropped += tx_dropped(&text, end.interface)
                .with_context(|| format!("{} of {} is not among its links:\n{text}", end.interface, end.space))?;
        }
        Ok(dropped)
    }
}

/// What an interface was given to send and dropped.
fn tx_dropped(text: &str, interface: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(name, _)| name.trim() == interface)?;
    numbers.split_whitespace().nth(TX_DROPPED)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_packets_sent_and_of_the_interface_that_was_named() {
        let text = "Inter-|   Receive                            |  Transmit\n \
             face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n    \
             gw: 1 2 3 4 5 6 7 8 9 10 11 46 13 14 15 16\n  gw2:1 2 3 4 5 6 7 8 9 10 11 47 13 14 15 16\n";
        assert_eq!(["gw", "gw2", "wan"].map(|name| tx_dropped(text, name)), [Some(46), Some(47), None]);
        assert_eq!(tx_dropped("gw: 1 2 3", "gw"), None, "a line that was cut");
    }
}
