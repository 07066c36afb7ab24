//! Owns the configuration files the product gets in the lab. Never runs anything.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path as FilePath;

use anyhow::{Context, Result};

use super::topology as at;

/// How the product is set up in the lab.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `native`, `generic`, `auto` or `off`.
    pub xdp: String,
    /// The client reaches the gateway over IPv6 first.
    pub outside_v6: bool,
    /// The client's transports.
    pub uplinks: Vec<at::Path>,
    /// Lines added to the peer's policy, `key = value`.
    pub policy: Vec<String>,
    /// Relays in front of the gateway.
    pub relays: usize,
    /// The client's endpoints: the gateway itself, relays by number; empty for the gateway alone.
    pub endpoints: Vec<Endpoint>,
    /// Environment of all processes.
    pub environment: Vec<(String, String)>,
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
            xdp: "native".into(),
            outside_v6: false,
            uplinks: at::Path::BOTH.into(),
            policy: Vec::new(),
            relays: 0,
            endpoints: Vec::new(),
            environment: vec![("RUST_BACKTRACE".into(), "1".into())],
        }
    }
}

impl Setup {
    fn address(&self, at: Endpoint) -> String {
        match (at, self.outside_v6) {
            (Endpoint::Gateway, false) => format!("{}:{}", at::GATEWAY_V4, at::GATEWAY_PORT),
            (Endpoint::Gateway, true) => format!("[{}]:{}", at::GATEWAY_V6, at::GATEWAY_PORT),
            (Endpoint::Relay(number), false) => format!("{}:{}", at::RELAYS_V4[number], at::GATEWAY_PORT),
            (Endpoint::Relay(number), true) => format!("[{}]:{}", at::RELAYS_V6[number], at::GATEWAY_PORT),
        }
    }

    /// Writes `relay.toml` into the directory that holds its `key`.
    pub(super) fn write_relay(&self, number: usize, directory: &FilePath, gateway_public: &str) -> Result<()> {
        let text = format!(
            "[relay]\nname = \"relay-{}\"\nprivate_key_file = \"{}\"\nlisten = {}\ninterfaces = [\"{}\"]\nxdp = \"{}\"\n\n\
             [[owner]]\nname = \"gw-lab\"\npublic_key = \"{gateway_public}\"\naddress = \"{}\"\ncontrol = {}\n",
            number + 1,
            directory.join("key").display(),
            at::GATEWAY_PORT,
            at::GATEWAY_INTERFACE,
            self.xdp,
            self.address(Endpoint::Gateway),
            at::CONTROL_PORT,
        );
        write_private(&directory.join("relay.toml"), &text)
    }

    /// Writes `gateway.toml` and `client.toml` into the directories that hold each side's `key`.
    pub(super) fn write(
        &self,
        (gateway, gateway_public): (&FilePath, &str),
        (client, client_public): (&FilePath, &str),
        relays: &[String],
    ) -> Result<()> {
        let known: String = (0..)
            .zip(relays)
            .map(|(number, key)| {
                let address = self.address(Endpoint::Relay(number));
                format!(
                    "\n[[relay]]\nname = \"relay-{}\"\npublic_key = \"{key}\"\naddress = \"{address}\"\n",
                    number + 1
                )
            })
            .collect();
        let Setup { xdp, policy, .. } = self;
        let policy =
            if policy.is_empty() { String::new() } else { format!("\n[policy.field]\n{}\n", policy.join("\n")) };
        write_private(
            &gateway.join("gateway.toml"),
            &format!(
                "[gateway]\nname = \"gw-lab\"\nprivate_key_file = \"{}\"\nlisten = {}\ninterfaces = [\"{}\"]\n\
                 xdp = \"{xdp}\"\ntun = \"jvpn0\"\naddresses = [\"{}/24\", \"{}/64\"]\nmasquerade = false\n\n\
                 [[peer]]\nname = \"till-17\"\npublic_key = \"{client_public}\"\n\
                 addresses = [\"{}/32\", \"{}/128\"]\npolicy = \"field\"\n{known}{policy}",
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
        let endpoints: Vec<String> = endpoints.iter().map(|at| format!("\"{}\"", self.address(*at))).collect();
        let endpoint = endpoints.join(", ");
        let transports: String = self
            .uplinks
            .iter()
            .map(|path| {
                let (name, interface) = (path.transport(), path.uplink());
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
