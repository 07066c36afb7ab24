//! `relay.toml`, and what a gateway's file says of its relays.
//!
//! Owns both sides' keys, their ranges and contradictions. Must never read a key file as a side effect of loading.

use super::gateway::{DEFAULT_PORT, XdpMode};
use super::key::{self, KeyError};
use super::load::{self, Reader};
use super::report::Report;
use super::telemetry::{self, RawTelemetry, TelemetryConfig};
use jvpn_common::abi::OWNERS_MAX;
use jvpn_common::secret::{PrivateKey, PublicKey};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The TCP port on which an owner hears its relays unless told otherwise.
pub const DEFAULT_CONTROL_PORT: u16 = 51822;
/// Relays of one owner: each hears of every session, so a commit costs as many frames.
pub const RELAYS_MAX: usize = 16;

/// A relay, as its owner knows it.
#[derive(Clone, Debug)]
pub struct RelayPeer {
    /// Its name in records and commands.
    pub name: String,
    /// Its identity on the stream.
    pub public_key: PublicKey,
    /// The UDP address it forwards from, and is sent to.
    pub address: SocketAddr,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRelayPeer {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "String")]
    public_key: Spanned<String>,
    #[schemars(with = "String")]
    address: Spanned<String>,
}

/// The relays of a gateway's file.
pub(super) fn relays(reader: &mut Reader<'_>, raw: &[RawRelayPeer]) -> Vec<RelayPeer> {
    let mut once = Once::default();
    let mut relays = Vec::new();
    for relay in raw {
        if relays.len() == RELAYS_MAX {
            reader.wrong(&relay.name, format!("more than {RELAYS_MAX} relays"), "one too many");
            break;
        }
        let name = reader.name("name", &relay.name);
        once.check(reader, "relay name", &name, &relay.name);
        let public_key = reader.parsed("public_key", &relay.public_key, "the 44 characters `jvpn-ctl pubkey` prints");
        let address = reader.parsed("address", &relay.address, "\"192.0.2.20:51821\"");
        once.check(reader, "relay's public key", relay.public_key.as_ref(), &relay.public_key);
        once.check(reader, "relay's address", relay.address.as_ref(), &relay.address);
        if let Some((public_key, address)) = public_key.zip(address) {
            relays.push(RelayPeer { name, public_key, address });
        }
    }
    relays
}

/// Values that may stand once.
#[derive(Default)]
struct Once(BTreeSet<(&'static str, String)>);

impl Once {
    fn check(&mut self, reader: &mut Reader<'_>, kind: &'static str, value: &str, at: &Spanned<String>) {
        if !self.0.insert((kind, value.to_owned())) {
            reader.wrong(at, format!("the {kind} `{value}` is used twice"), "again here");
        }
    }
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[schemars(with = "RawRelay")]
    relay: RawRelay,
    #[serde(default)]
    owner: Vec<RawOwner>,
    #[serde(default)]
    telemetry: RawTelemetry,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawRelay {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "String")]
    private_key_file: Spanned<String>,
    #[schemars(with = "Option<u16>")]
    listen: Option<Spanned<i64>>,
    #[schemars(with = "Vec<String>")]
    interfaces: Spanned<Vec<Spanned<String>>>,
    #[schemars(with = "Option<String>")]
    xdp: Option<XdpMode>,
    #[schemars(with = "Option<u32>")]
    max_sessions: Option<Spanned<i64>>,
    #[schemars(with = "Option<String>")]
    state_dir: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    run_dir: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    pin_root: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawOwner {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "String")]
    public_key: Spanned<String>,
    #[schemars(with = "String")]
    address: Spanned<String>,
    #[schemars(with = "Option<u16>")]
    control: Option<Spanned<i64>>,
}

/// What a relay is told, checked.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Name of this node.
    pub name: String,
    /// Where its private key is.
    pub private_key_file: PathBuf,
    /// UDP port, towards clients and owners.
    pub listen: u16,
    /// Interfaces clients and owners arrive on.
    pub interfaces: Vec<String>,
    /// How the kernel program is attached to them.
    pub xdp: XdpMode,
    /// Sessions the kernel maps have room for, of all owners together.
    pub max_sessions: u32,
    /// Whose sessions it forwards.
    pub owners: Vec<OwnerPeer>,
    /// Who else is told.
    pub telemetry: TelemetryConfig,
    /// Paths the file names; flags and environment come first.
    pub paths: super::paths::FilePaths,
}

/// An owner, as its relay knows it.
#[derive(Clone, Debug)]
pub struct OwnerPeer {
    /// Its name in logs and commands.
    pub name: String,
    /// The gateway's public key: the one in its clients' files.
    pub public_key: PublicKey,
    /// Its UDP address.
    pub address: SocketAddr,
    /// Where it hears relays (TCP).
    pub control: SocketAddr,
}

impl RelayConfig {
    /// Reads `path`.
    ///
    /// # Errors
    /// Everything that is wrong, with its places.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let source = load::read(path)?;
        let raw: RawFile = load::parse(&source)?;
        let mut reader = Reader::new(&source);
        let mut config = relay(&mut reader, &raw.relay);
        config.telemetry = telemetry::read(&mut reader, &raw.telemetry);
        config.owners = owners(&mut reader, &raw.owner);
        if raw.owner.is_empty() {
            reader.wrong(&raw.relay.name, "a relay needs an owner", "add a table [[owner]]");
        }
        reader.report.into_result(config)
    }

    /// Reads the key file this configuration names.
    ///
    /// # Errors
    /// When it is refused.
    pub fn key(&self) -> Result<PrivateKey, KeyError> {
        key::read(&self.private_key_file)
    }
}

fn relay(reader: &mut Reader<'_>, raw: &RawRelay) -> RelayConfig {
    if raw.interfaces.as_ref().is_empty() {
        reader.wrong(&raw.interfaces, "a relay needs an interface", "name the one clients arrive on");
    }
    let number = |reader: &mut Reader<'_>, key, value: &Option<Spanned<i64>>, range, default| {
        value.as_ref().map_or(default, |value| reader.within(key, value, range))
    };
    RelayConfig {
        name: reader.name("name", &raw.name),
        private_key_file: reader.path(&raw.private_key_file),
        listen: u16::try_from(number(reader, "listen", &raw.listen, 1..=65_535, u32::from(DEFAULT_PORT)))
            .unwrap_or(DEFAULT_PORT),
        interfaces: raw.interfaces.as_ref().iter().map(|name| reader.interface("interfaces", name)).collect(),
        xdp: raw.xdp.unwrap_or_default(),
        max_sessions: number(reader, "max_sessions", &raw.max_sessions, 1..=1_048_576, 4_096),
        owners: Vec::new(),
        telemetry: TelemetryConfig::default(),
        paths: super::paths::FilePaths {
            state_dir: raw.state_dir.as_ref().map(|path| reader.path(path)),
            run_dir: raw.run_dir.as_ref().map(|path| reader.path(path)),
            pin_root: raw.pin_root.as_ref().map(|path| reader.path(path)),
        },
    }
}

fn owners(reader: &mut Reader<'_>, raw: &[RawOwner]) -> Vec<OwnerPeer> {
    let mut once = Once::default();
    let mut owners = Vec::new();
    for owner in raw {
        if owners.len() == OWNERS_MAX as usize {
            reader.wrong(&owner.name, format!("more than {OWNERS_MAX} owners"), "one too many");
            break;
        }
        let name = reader.name("name", &owner.name);
        once.check(reader, "owner name", &name, &owner.name);
        let public_key = reader.parsed("public_key", &owner.public_key, "the key in its clients' files");
        once.check(reader, "owner's public key", owner.public_key.as_ref(), &owner.public_key);
        let address: Option<SocketAddr> = reader.parsed("address", &owner.address, "\"192.0.2.1:51821\"");
        once.check(reader, "owner's address", owner.address.as_ref(), &owner.address);
        let port = owner
            .control
            .as_ref()
            .map_or(u32::from(DEFAULT_CONTROL_PORT), |port| reader.within("control", port, 1..=65_535));
        if let Some((public_key, address)) = public_key.zip(address) {
            let control = SocketAddr::new(address.ip(), u16::try_from(port).unwrap_or(DEFAULT_CONTROL_PORT));
            owners.push(OwnerPeer { name, public_key, address, control });
        }
    }
    owners
}

/// The JSON schema of the raw file, for the test that every key is explained.
#[cfg(test)]
pub(super) fn schema() -> schemars::Schema {
    schemars::schema_for!(RawFile)
}
