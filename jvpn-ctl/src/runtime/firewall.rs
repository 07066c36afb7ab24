//! The gateway's own nftables table: peers are kept apart, and what leaves the tunnel is masqueraded.
//!
//! Owns the table `inet jvpn_<tun>`, and nothing else of the host's firewall; removed with the value, and by
//! `cleanup`. Must never touch another table.

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use std::io::Write;
use std::process::{Command, Stdio};

/// Rules in force until dropped.
#[derive(Debug)]
pub struct Firewall {
    table: String,
}

/// The name of the table of a TUN.
#[must_use]
pub fn table(tun: &str) -> String {
    format!("jvpn_{}", tun.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// The rules as text. Peers do not reach each other through the gateway, whatever else it forwards.
#[must_use]
pub fn ruleset(tun: &str, addresses: &[IpNet], masquerade: bool) -> String {
    let table = table(tun);
    let mut rules = format!(
        "  chain forward {{\n    type filter hook forward priority filter; policy accept;\n    \
         iifname \"{tun}\" oifname \"{tun}\" drop\n  }}\n"
    );
    if masquerade {
        rules += "  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n";
        for net in addresses {
            let family = if net.addr().is_ipv4() { "ip" } else { "ip6" };
            rules += &format!("    {family} saddr {} oifname != \"{tun}\" masquerade\n", net.trunc());
        }
        rules += "  }\n";
    }
    format!("table inet {table} {{\n{rules}}}\n")
}

impl Firewall {
    /// Puts the rules in force, replacing what an earlier process left.
    ///
    /// # Errors
    /// Without `nft`, or when the kernel refuses.
    pub fn apply(tun: &str, addresses: &[IpNet], masquerade: bool) -> Result<Self> {
        let table = table(tun);
        nft(&format!("add table inet {table}\ndelete table inet {table}\n{}", ruleset(tun, addresses, masquerade)))?;
        Ok(Self { table })
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Err(error) = nft(&format!("delete table inet {}\n", self.table)) {
            tracing::warn!(%error, "could not remove the firewall table");
        }
    }
}

/// Removes the table a killed process left; true if there was one.
#[must_use]
pub fn remove_left(tun: &str) -> bool {
    nft(&format!("delete table inet {}\n", table(tun))).is_ok()
}

fn nft(script: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft; install the package nftables")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).context("cannot write to nft")?;
    }
    let output = child.wait_with_output().context("nft did not end")?;
    if !output.status.success() {
        bail!("nft refused: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Lets the host forward packets between the tunnel and its networks.
///
/// # Errors
/// Without the right to write sysctls.
pub fn enable_forwarding() -> Result<()> {
    for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
        std::fs::write(path, "1").with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ruleset_names_only_our_table_and_our_networks() {
        let nets = ["10.77.0.1/24".parse().unwrap(), "fd77::1/64".parse().unwrap()];
        let rules = ruleset("jvpn0", &nets, true);
        assert!(rules.starts_with("table inet jvpn_jvpn0 {"));
        assert!(rules.contains("ip saddr 10.77.0.0/24 oifname != \"jvpn0\" masquerade"));
        assert!(rules.contains("ip6 saddr fd77::/64"));
    }

    #[test]
    fn peers_are_kept_apart_with_and_without_masquerading() {
        for masquerade in [true, false] {
            let rules = ruleset("jvpn0", &["10.77.0.1/24".parse().unwrap()], masquerade);
            assert!(rules.contains("iifname \"jvpn0\" oifname \"jvpn0\" drop"));
            assert_eq!(rules.contains("masquerade\n"), masquerade);
        }
    }
}
