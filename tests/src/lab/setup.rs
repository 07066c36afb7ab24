//! Owns the configuration files the product gets in the lab. Never runs anything.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context, Result};

use super::mode::Xdp;
use super::topology as at;

/// How the product is set up in the lab.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How gateway and relays run the kernel program.
    pub xdp: Xdp,
    /// The client reaches the gateway over IPv6 first.
    pub outside_v6: bool,
    /// The client's transports.
    pub uplinks: Vec<at::Path>,
    /// And the third uplink, in a lab that has one.
    pub third: bool,
    /// Workers of each gateway; 0: what it takes by itself.
    pub workers: u32,
    /// Lines added to the peer's policy, `key = value`.
    pub policy: Vec<String>,
    /// Relays in front of the gateways.
    pub relays: usize,
    /// Gateways, each with one client; the second's has only path A.
    pub owners: usize,
    /// The clients' endpoints: their own gateway, relays by number; empty for the gateway alone.
    pub endpoints: Vec<Endpoint>,
    /// Environment of all processes.
    pub environment: Vec<(String, String)>,
    /// The program; the one `find_binary` finds if none is named.
    pub binary: Option<PathBuf>,
}

/// Keys of one owner and its client, and the directories that hold them.
pub(super) struct Pair<'a> {
    pub owner: usize,
    pub gateway: (&'a FilePath, &'a str),
    pub client: (&'a FilePath, &'a str),
}

/// Where a client sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Gateway,
    Relay(usize),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            xdp: Xdp::default(),
            outside_v6: false,
            uplinks: at::Path::BOTH.into(),
            third: false,
            workers: 0,
            policy: Vec::new(),
            relays: 0,
            owners: 1,
            endpoints: Vec::new(),
            environment: vec![("RUST_BACKTRACE".into(), "1".into())],
            binary: None,
        }
    }
}

impl Setup {
    fn address(&self, owner: usize, at: Endpoint) -> String {
        match (at, self.outside_v6) {
            (Endpoint::Gateway, false) => format!("{}:{}", at::OWNERS_V4[owner], at::GATEWAY_PORT),
            (Endpoint::Gateway, true) => format!("[{}]:{}", at::OWNERS_V6[owner], at::GATEWAY_PORT),
            (Endpoint::Relay(number), false) => format!("{}:{}", at::RELAYS_V4[number], at::GATEWAY_PORT),
            (Endpoint::Relay(number), true) => format!("[{}]:{}", at::RELAYS_V6[number], at::GATEWAY_PORT),
        }
    }

    /// Writes `relay.toml` into the directory that holds its `key`.
    pub(super) fn write_relay(&self, number: usize, directory: &FilePath, gateways: &[String]) -> Result<()> {
        let owners: String = (0..)
            .zip(gateways)
            .map(|(owner, key)| {
                let (address, control) = (self.address(owner, Endpoint::Gateway), at::CONTROL_PORT);
                let name = gateway_name(owner);
                format!(
                    "\n[[owner]]\nname = \"{name}\"\npublic_key = \"{key}\"\naddress = \"{address}\"\ncontrol = {control}\n"
                )
            })
            .collect();
        let text = format!(
            "[relay]\nname = \"relay-{}\"\nprivate_key_file = \"{}\"\nlisten = {}\ninterfaces = [\"{}\"]\nxdp = \"{}\"\n{owners}",
            number + 1,
            directory.join("key").display(),
            at::GATEWAY_PORT,
            at::GATEWAY_INTERFACE,
            self.xdp.key()?,
        );
        write_private(&directory.join("relay.toml"), &text)
    }

    /// Writes `gateway.toml` and `client.toml` into the directories that hold each side's `key`.
    pub(super) fn write(&self, pair: &Pair<'_>, relays: &[String]) -> Result<()> {
        let Pair { owner, gateway: (gateway, gateway_public), client: (client, client_public) } = *pair;
        let known: String = (0..)
            .zip(relays)
            .map(|(number, key)| {
                let address = self.address(owner, Endpoint::Relay(number));
                format!(
                    "\n[[relay]]\nname = \"relay-{}\"\npublic_key = \"{key}\"\naddress = \"{address}\"\n",
                    number + 1
                )
            })
            .collect();
        let (xdp, policy, workers) = (self.xdp.key()?, &self.policy, self.workers);
        let policy =
            if policy.is_empty() { String::new() } else { format!("\n[policy.field]\n{}\n", policy.join("\n")) };
        write_private(
            &gateway.join("gateway.toml"),
            &format!(
                "[gateway]\nname = \"{}\"\nprivate_key_file = \"{}\"\nlisten = {}\ninterfaces = [\"{}\"]\n\
                 xdp = \"{xdp}\"\nworkers = {workers}\ntun = \"jvpn0\"\naddresses = [\"{}/24\", \"{}/64\"]\n\
                 masquerade = false\n\n\
                 [[peer]]\nname = \"till-17\"\npublic_key = \"{client_public}\"\n\
                 addresses = [\"{}/32\", \"{}/128\"]\npolicy = \"field\"\n{known}{policy}",
                gateway_name(owner),
                gateway.join("key").display(),
                at::GATEWAY_PORT,
                at::GATEWAY_INTERFACE,
                at::INNER_GATEWAY_V4,
                at::INNER_GATEWAY_V6,
                at::INNER_CLIENT_V4,
                at::INNER_CLIENT_V6,
            ),
        )?;
        let endpoints = if self.endpoints.is_empty() { &[Endpoint::Gateway][..] } else { &self.endpoints };
        let endpoints: Vec<String> = endpoints.iter().map(|at| format!("\"{}\"", self.address(owner, *at))).collect();
        let endpoint = endpoints.join(", ");
        let transports: String = self
            .uplinks
            .iter()
            .filter(|path| owner == 0 || **path == at::Path::A)
            .map(|path| (path.transport(), path.uplink()))
            .chain(self.third.then_some((at::THIRD_TRANSPORT, at::THIRD_UPLINK)))
            .map(|(name, interface)| {
                format!("\n[[transport]]\nname = \"{name}\"\ninterface = \"{interface}\"\nclass = \"primary\"\n")
            })
            .collect();
        write_private(
            &client.join("client.toml"),
            &format!(
                "[client]\nname = \"till-17\"\nprivate_key_file = \"{}\"\ntun = \"jvpn0\"\n\
                 routes = [\"10.77.0.0/24\", \"192.168.77.0/24\", \"fd77::/64\", \"fd00:77::/64\"]\n\n\
                 [gateway]\npublic_key = \"{gateway_public}\"\nendpoints = [{endpoint}]\n{transports}",
                client.join("key").display(),
            ),
        )
    }
}

fn gateway_name(owner: usize) -> String {
    if owner == 0 { "gw-lab".into() } else { format!("gw-lab-{}", owner + 1) }
}

pub(super) fn write_private(path: &FilePath, text: &str) -> Result<()> {
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
