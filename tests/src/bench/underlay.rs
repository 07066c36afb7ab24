//! Owns the link two contenders' ends are joined by: two namespaces and one veth pair. Never carries a tunnel's
//! choices: every contender gets the same link with the same offloads.
//!
//! ```text
//!  PREFIX-client                               PREFIX-gw
//!  wan-a 198.51.100.1/24 ──── veth, MTU 1500 ──── wan 198.51.100.7/24
//!        2001:db8:7::1/64                             2001:db8:7::7/64
//! ```

use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::wireguard::Place;
use crate::lab::child::KillOnDrop;
use crate::lab::ground::Ground;
use crate::lab::netns::{Netns, run};
use crate::lab::topology::{GATEWAY_INTERFACE, GATEWAY_V4, GATEWAY_V6, Path};

/// The client's end of the link.
pub const CLIENT_V4: &str = "198.51.100.1";
const CLIENT_V6: &str = "2001:db8:7::1";
/// Of the link, unless a bench is about another.
pub const MTU: u16 = 1_500;
/// Its interface; what the lab calls the first uplink.
pub const CLIENT_INTERFACE: Path = Path::A;
/// A frame of a 1,500-byte MTU with its Ethernet header.
pub const FRAME_MAX: f64 = 1_514.0;
/// One frame per MTU, as on a wire: no super-packets over the veth. GRO is software and on every real interface.
const OFFLOADS: [&str; 8] = ["tso", "off", "gso", "off", "tx-udp-segmentation", "off", "gro", "on"];

/// Two joined namespaces. Dropping them removes them with whatever runs there.
#[derive(Debug)]
pub struct Underlay {
    pub ground: Ground,
    mtu: u16,
}

/// A small packet every 20 ms from the gateway's end to the client's, until it is dropped. What the kernel program answers
/// with `XDP_TX` lies in the ring of a veth whose end has no program until something else arrives there; a program there
/// would copy every frame that a client without one takes as it is.
#[derive(Debug)]
pub struct Wakes(#[expect(dead_code, reason = "held for its drop")] KillOnDrop);

/// How old an answer of the program may become, in seconds. Below a hundredth ping spins instead of sleeping.
const WAKE_EVERY: &str = "0.02";

/// What one interface carried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    pub bytes: u64,
    pub packets: u64,
}

impl Underlay {
    pub fn up() -> Result<Underlay> {
        Self::with_mtu(MTU)
    }

    pub fn with_mtu(mtu: u16) -> Result<Underlay> {
        let ground = Ground::take(&["client", "gw"])?;
        let underlay = Underlay { ground, mtu };
        underlay.wire()?;
        Ok(underlay)
    }

    /// Makes the link, also once more after it was removed.
    pub fn wire(&self) -> Result<()> {
        let [(client, near), (gateway, far)] = self.ends();
        run(
            &[
                "ip",
                "link",
                "add",
                near,
                "netns",
                client.name(),
                "type",
                "veth",
                "peer",
                "name",
                far,
                "netns",
                gateway.name(),
            ],
            None,
        )?;
        let (addresses, mtu) = ([(CLIENT_V4, CLIENT_V6), (GATEWAY_V4, GATEWAY_V6)], self.mtu);
        for ((space, interface), (v4, v6)) in self.ends().into_iter().zip(addresses) {
            space.ip(&format!(
                "address add {v4}/24 dev {interface}\naddress add {v6}/64 dev {interface} nodad\n\
                 link set {interface} mtu {mtu} up\n"
            ))?;
            let mut command = vec!["ethtool", "-K", interface];
            command.extend(OFFLOADS);
            space.run(&command, None)?;
        }
        Ok(())
    }

    /// Namespace and interface of both ends, the client's first.
    pub fn ends(&self) -> [(Netns, &'static str); 2] {
        [(self.client(), CLIENT_INTERFACE.uplink()), (self.gateway(), GATEWAY_INTERFACE)]
    }

    /// Where two programs are joined over it.
    pub fn place(&self) -> Place {
        let (prefix, files) = (self.ground.prefix().to_owned(), self.ground.files().to_owned());
        Place { client: self.client(), gateway: self.gateway(), prefix, files }
    }

    pub fn client(&self) -> Netns {
        self.ground.topology.client()
    }

    pub fn gateway(&self) -> Netns {
        self.ground.topology.gateway()
    }

    /// Keeps the client's end awake.
    pub fn wakes(&self) -> Result<Wakes> {
        let ping = || {
            let mut command = Command::new("ping");
            command.args(["-q", "-n", "-i", WAKE_EVERY, CLIENT_V4]).stdin(Stdio::null()).stdout(Stdio::null());
            command.spawn().context("run ping")
        };
        Ok(Wakes(KillOnDrop(self.gateway().enter(ping)?)))
    }

    /// Outer address of side 0 (client) or 1 (gateway).
    pub fn outer(side: usize) -> Result<IpAddr> {
        let text = if side == 0 { CLIENT_V4 } else { GATEWAY_V4 };
        text.parse().context("an address of the underlay")
    }

    /// What the gateway's end carried so far, both ways together.
    pub fn carried(&self) -> Result<Carried> {
        let text = self.gateway().run(&["ip", "-s", "-j", "link", "show", "dev", GATEWAY_INTERFACE], None)?;
        carried(&text)
    }
}

fn carried(text: &str) -> Result<Carried> {
    let links: Value = serde_json::from_str(text).context("what ip says of a link")?;
    let sum = |field| -> Option<u64> {
        ["rx", "tx"].iter().map(|way| links[0]["stats64"][way][field].as_u64()).sum::<Option<u64>>()
    };
    let (bytes, packets) = sum("bytes").zip(sum("packets")).context("no counters in what ip says of a link")?;
    Ok(Carried { bytes, packets })
}

impl Carried {
    /// Mean frame length of what was carried since `before`; an error if it shows super-packets.
    pub fn frame_since(self, before: Carried) -> Result<f64> {
        let packets = self.packets.saturating_sub(before.packets);
        ensure!(packets > 0, "nothing crossed the underlay");
        let mean = self.bytes.saturating_sub(before.bytes) as f64 / packets as f64;
        ensure!(
            mean <= FRAME_MAX,
            "frames of {mean:.0} bytes on the underlay: offloads are on, figures would be unfair"
        );
        Ok(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bytes_by_packets_both_ways_together() {
        let text = r#"[{"stats64":{"rx":{"bytes":1000,"packets":10},"tx":{"bytes":200,"packets":2}}}]"#;
        let now = carried(text).unwrap();
        assert_eq!((now.bytes, now.packets), (1_200, 12));
        assert!((now.frame_since(Carried::default()).unwrap() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn super_packets_on_the_underlay_are_an_error_and_so_is_silence() {
        let big = Carried { bytes: 20_000, packets: 10 };
        assert!(big.frame_since(Carried::default()).is_err());
        assert!(big.frame_since(big).is_err());
    }
}
