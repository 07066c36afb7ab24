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
    /// Environment of both processes.
    pub environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            xdp: "native".into(),
            outside_v6: false,
            uplinks: at::Path::BOTH.into(),
            policy: Vec::new(),
            environment: vec![("RUST_BACKTRACE".into(), "1".into())],
        }
    }
}

impl Setup {
    /// Writes `gateway.toml` and `client.toml` into the directories that hold each side's `key`.
    pub(super) fn write(
        &self,
        (gateway, gateway_public): (&FilePath, &str),
        (client, client_public): (&FilePath, &str),
    ) -> Result<()> {
        let Setup { xdp, policy, .. } = self;
        let policy =
            if policy.is_empty() { String::new() } else { format!("\n[policy.field]\n{}\n", policy.join("\n")) };
        write_private(
            &gateway.join("gateway.toml"),
            &format!(
                "[gateway]\nname = \"gw-lab\"\nprivate_key_file = \"{}\"\nlisten = {}\ninterfaces = [\"{}\"]\n\
                 xdp = \"{xdp}\"\ntun = \"jvpn0\"\naddresses = [\"{}/24\", \"{}/64\"]\nmasquerade = false\n\n\
                 [[peer]]\nname = \"till-17\"\npublic_key = \"{client_public}\"\n\
                 addresses = [\"{}/32\", \"{}/128\"]\npolicy = \"field\"\n{policy}",
                gateway.join("key").display(),
                at::GATEWAY_PORT,
                at::GATEWAY_INTERFACE,
                at::INNER_GATEWAY_V4,
                at::INNER_GATEWAY_V6,
                at::INNER_CLIENT_V4,
                at::INNER_CLIENT_V6,
            ),
        )?;
        let v4 = format!("\"{}:{}\"", at::GATEWAY_V4, at::GATEWAY_PORT);
        let v6 = format!("\"[{}]:{}\"", at::GATEWAY_V6, at::GATEWAY_PORT);
        let endpoint = if self.outside_v6 { v6 } else { v4 };
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
