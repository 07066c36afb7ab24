//! What the kernel knows of an interface.
//!
//! Owns asking it, by netlink and not by /sys: in a network namespace entered without a new mount, /sys is
//! still another's. Must never change anything.

use super::attach::AttachError;
use aya::programs::loaded_programs;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached};
use std::fs;
use std::process::Command;
use std::thread;

/// Facts about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Its kind (`veth`, …), or its driver, or `unknown`.
    pub kind: String,
    /// MTU.
    pub mtu: u32,
    /// Receive queues.
    pub rx_queues: u32,
    /// Transmit queues.
    pub tx_queues: u32,
    /// Id of the XDP program on it.
    pub program: Option<u32>,
    /// Whether that program runs in the stack instead of the driver.
    pub generic: bool,
    /// Whether large receive offload is on, if `ethtool` could be asked.
    pub lro: Option<bool>,
    /// Whether generic receive offload is on, if `ethtool` could be asked.
    pub gro: Option<bool>,
}

/// Asks the kernel about `interface`.
pub fn facts(interface: &str) -> Result<Facts, AttachError> {
    let message = message(interface)?.ok_or_else(|| AttachError::NoInterface(interface.to_owned()))?;
    let mut facts = read(interface, &message);
    ask_ethtool(&mut facts);
    Ok(facts)
}

/// What a relay misses on an interface, one sentence for each IP version: the kernel answers a program's question for a
/// way only where it would itself forward what arrives there.
#[must_use]
pub fn forwarding_warnings(interface: &str) -> Vec<String> {
    let off = |family: &&str| {
        let switch = fs::read_to_string(format!("/proc/sys/net/{family}/conf/{interface}/forwarding"));
        switch.is_ok_and(|value| value.trim() == "0")
    };
    let families = ["ipv4", "ipv6"].into_iter().filter(off);
    let warning = |family| {
        format!(
            "{family} forwarding is off: a packet whose next station is not in HOPS then goes through the relay's \
             process instead of the kernel's routes, which is slower; to change it: sysctl -w \
             net/{family}/conf/{interface}/forwarding=1"
        )
    };
    families.map(warning).collect()
}

/// Id of the XDP program on an interface, if there is such an interface.
pub(super) fn program_on(interface: &str) -> Option<u32> {
    message(interface).ok()?.and_then(|message| read(interface, &message).program)
}

fn message(interface: &str) -> Result<Option<LinkMessage>, AttachError> {
    let name = interface.to_owned();
    // A thread of its own: the caller may be inside a runtime, where another must not be started. Threads
    // inherit the network namespace.
    thread::spawn(move || ask(&name)).join().map_err(|_| AttachError::Netlink("the asking thread died".to_owned()))?
}

fn ask(interface: &str) -> Result<Option<LinkMessage>, AttachError> {
    let failed = |error: &dyn std::fmt::Display| AttachError::Netlink(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        let mut links = handle.link().get().match_name(interface.to_owned()).execute();
        match links.try_next().await {
            Ok(link) => Ok(link),
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    })
}

fn read(interface: &str, message: &LinkMessage) -> Facts {
    let mut facts = Facts {
        interface: interface.to_owned(),
        index: message.header.index,
        kind: "unknown".to_owned(),
        mtu: 0,
        rx_queues: 0,
        tx_queues: 0,
        program: None,
        generic: false,
        lro: None,
        gro: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
            LinkAttribute::NumRxQueues(queues) => facts.rx_queues = *queues,
            LinkAttribute::NumTxQueues(queues) => facts.tx_queues = *queues,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        facts.kind = kind_name(kind);
                    }
                }
            }
            LinkAttribute::Xdp(parts) => {
                for part in parts {
                    match part {
                        LinkXdp::ProgId(id) => facts.program = Some(*id).filter(|id| *id != 0),
                        LinkXdp::Attached(at) => facts.generic = *at == XdpAttached::SocketBuffer,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    facts
}

fn ask_ethtool(facts: &mut Facts) {
    for (feature, value) in features(&facts.interface) {
        match feature.as_str() {
            "large-receive-offload" => facts.lro = Some(value),
            "generic-receive-offload" => facts.gro = Some(value),
            _ => {}
        }
    }
    if facts.kind == "unknown"
        && let Some(driver) = driver(&facts.interface)
    {
        facts.kind = driver;
    }
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Other(name) => name.clone(),
        known => format!("{known:?}").to_lowercase(),
    }
}

/// What `ethtool` says, if it is there: only for warnings.
fn features(interface: &str) -> Vec<(String, bool)> {
    let Ok(output) = Command::new("ethtool").args(["-k", interface]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| {
        let (name, value) = line.trim().split_once(':')?;
        Some((name.to_owned(), value.trim_start().starts_with("on")))
    };
    text.lines().filter_map(line).collect()
}

fn driver(interface: &str) -> Option<String> {
    let output = Command::new("ethtool").args(["-i", interface]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("driver: ").map(str::to_owned))
}

/// Name of a loaded program.
pub(super) fn program_name(id: u32) -> Option<String> {
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    Some(info.and_then(|info| info.name_as_str().map(str::to_owned)).unwrap_or_else(|| "unknown".to_owned()))
}
