//! `gateway.toml` and `peers.d/*.toml`: what a gateway is told.
//!
//! Owns the gateway's keys, their defaults and ranges, and the contradictions between them. Must never read a
//! key file as a side effect of loading: `keys` does that, for who needs them.

use super::claims::Claims;
use super::key::{self, KeyError};
use super::load::{self, Reader};
use super::policy::{self, RawPolicies};
use super::relay::{self, RawRelayPeer, RelayPeer};
use super::report::{Problem, Report, did_you_mean};
use super::telemetry::{self, RawTelemetry, TelemetryConfig};
use ipnet::IpNet;
use jvpn_common::abi::WORKERS_MAX;
use jvpn_common::gateway::Mode;
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use jvpn_common::session::Policy;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;

/// The port a gateway listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 51821;

/// How the kernel program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native, else generic with a warning.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// Behind the driver: works everywhere, slower than no program.
    Generic,
    /// Not at all; the worker makes the same checks.
    Off,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[schemars(with = "RawGateway")]
    gateway: RawGateway,
    #[serde(default)]
    peer: Vec<RawPeer>,
    #[serde(default)]
    relay: Vec<RawRelayPeer>,
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, String>>")]
    policy: RawPolicies,
    #[serde(default)]
    telemetry: RawTelemetry,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawGateway {
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
    #[schemars(with = "Option<String>")]
    tun: Option<Spanned<String>>,
    #[schemars(with = "Vec<String>")]
    addresses: Spanned<Vec<Spanned<String>>>,
    masquerade: Option<bool>,
    #[schemars(with = "Option<u32>")]
    max_sessions: Option<Spanned<i64>>,
    #[schemars(with = "Option<u32>")]
    workers: Option<Spanned<i64>>,
    #[schemars(with = "Option<u16>")]
    mtu: Option<Spanned<i64>>,
    #[schemars(with = "Option<u16>")]
    relay_listen: Option<Spanned<i64>>,
    #[schemars(with = "Option<String>")]
    reload: Option<Mode>,
    #[schemars(with = "Option<String>")]
    state_dir: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    run_dir: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    pin_root: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawPeerFile {
    #[serde(default)]
    peer: Vec<RawPeer>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "String")]
    public_key: Spanned<String>,
    #[schemars(with = "Option<String>")]
    preshared_key_file: Option<Spanned<String>>,
    #[schemars(with = "Vec<String>")]
    addresses: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    routes: Vec<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    policy: Option<Spanned<String>>,
}

/// What a gateway is told, checked.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Name of this node in records.
    pub name: String,
    /// Where its private key is.
    pub private_key_file: PathBuf,
    /// UDP port.
    pub listen: u16,
    /// Interfaces clients arrive on.
    pub interfaces: Vec<String>,
    /// How the kernel program is attached to them.
    pub xdp: XdpMode,
    /// Name of the TUN interface.
    pub tun: String,
    /// The gateway's inner addresses with the prefixes clients live in.
    pub addresses: Vec<IpNet>,
    /// Whether clients are masqueraded towards the LAN, by a table of our own.
    pub masquerade: bool,
    /// Sessions the kernel maps have room for.
    pub max_sessions: u32,
    /// Threads that carry data; 0: as many as the machine's processors ask for.
    pub workers: u32,
    /// Outer MTU the inner one is derived from.
    pub mtu: u16,
    /// TCP port for the streams of relays; opened only if there are any.
    pub relay_listen: u16,
    /// Relays in front of it.
    pub relays: Vec<RelayPeer>,
    /// Who may connect.
    pub peers: Vec<PeerConfig>,
    /// Every class of policy by name, shipped ones included.
    pub policies: BTreeMap<String, Policy>,
    /// Where the values of each class come from.
    pub origins: BTreeMap<String, policy::Origin>,
    /// When a reload counts for live sessions, unless told otherwise.
    pub reload: Mode,
    /// Who else is told.
    pub telemetry: TelemetryConfig,
    /// Paths the file names; flags and environment come first.
    pub paths: super::paths::FilePaths,
}

/// One peer.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Its name in records and commands.
    pub name: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// Where its pre-shared key is, if it has one.
    pub preshared_key_file: Option<PathBuf>,
    /// Its inner addresses.
    pub addresses: Vec<IpNet>,
    /// Networks behind it.
    pub routes: Vec<IpNet>,
    /// Its class of policy.
    pub policy: String,
    /// The file it was read from, which most have in common.
    pub file: Arc<Path>,
}

/// The secrets of a gateway, read when it starts.
#[derive(Debug)]
pub struct GatewayKeys {
    /// The gateway's own key.
    pub private: PrivateKey,
    /// Pre-shared keys by peer name.
    pub preshared: BTreeMap<String, PresharedKey>,
}

impl GatewayConfig {
    /// Reads `path` and the `peers.d` beside it.
    ///
    /// # Errors
    /// Everything that is wrong, with its places.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let source = load::read(path)?;
        let raw: RawFile = load::parse(&source)?;
        let mut reader = Reader::new(&source);
        let mut config = gateway(&mut reader, &raw.gateway);
        (config.policies, config.origins) = policy::read(&mut reader, &raw.policy);
        config.telemetry = telemetry::read(&mut reader, &raw.telemetry);
        config.relays = relay::relays(&mut reader, &raw.relay);
        let mut claims = Claims::of_gateway(&reader, &raw.gateway.addresses, &config.addresses);
        for peer in &raw.peer {
            config.add(&mut reader, peer, &mut claims);
        }
        let mut report = reader.report;
        for file in peer_files(path)? {
            let source = load::read(&file)?;
            let raw: RawPeerFile = load::parse(&source)?;
            let mut reader = Reader::new(&source);
            for peer in &raw.peer {
                config.add(&mut reader, peer, &mut claims);
            }
            report.extend(reader.report);
        }
        report.into_result(config)
    }

    /// Reads the key files this configuration names.
    ///
    /// # Errors
    /// The first key file that is refused.
    pub fn keys(&self) -> Result<GatewayKeys, KeyError> {
        let private = key::read(&self.private_key_file)?;
        let mut preshared = BTreeMap::new();
        for peer in &self.peers {
            if let Some(path) = &peer.preshared_key_file {
                preshared.insert(peer.name.clone(), key::read(path)?);
            }
        }
        Ok(GatewayKeys { private, preshared })
    }

    fn add(&mut self, reader: &mut Reader<'_>, raw: &RawPeer, claims: &mut Claims) {
        let name = reader.name("name", &raw.name);
        claims.once(reader, "peer name", name.clone(), &raw.name);
        let public_key: Option<PublicKey> =
            reader.parsed("public_key", &raw.public_key, "the 44 characters `jvpn-ctl pubkey` prints");
        if let Some(key) = public_key {
            claims.once(reader, "public key", key.to_string(), &raw.public_key);
        }
        let addresses: Vec<Spanned<IpNet>> = reader.all("addresses", raw.addresses.as_ref(), "\"10.77.0.17/32\"");
        if raw.addresses.as_ref().is_empty() {
            reader.wrong(&raw.addresses, "a peer needs an inner address", "empty");
        }
        for address in &addresses {
            claims.inside(reader, address);
            claims.prefix(reader, address);
        }
        let routes: Vec<Spanned<IpNet>> = reader.all("routes", &raw.routes, "\"192.168.17.0/24\"");
        for route in &routes {
            claims.prefix(reader, route);
        }
        let policy = raw.policy.as_ref().map_or_else(|| "field".to_owned(), |policy| policy.as_ref().clone());
        if let Some(span) = raw.policy.as_ref().filter(|_| !self.policies.contains_key(&policy)) {
            let problem =
                Problem::at(format!("no policy is called `{policy}`"), reader.source.mark(span.span(), "unknown"));
            reader.report.push(match did_you_mean(&policy, self.policies.keys().map(String::as_str)) {
                Some(guess) => problem.hint(format!("did you mean `{guess}`?")),
                None => {
                    problem.hint(format!("policies: {}", self.policies.keys().cloned().collect::<Vec<_>>().join(", ")))
                }
            });
        }
        let Some(public_key) = public_key else { return };
        self.peers.push(PeerConfig {
            name,
            public_key,
            preshared_key_file: raw.preshared_key_file.as_ref().map(|path| reader.path(path)),
            addresses: addresses.into_iter().map(Spanned::into_inner).collect(),
            routes: routes.into_iter().map(Spanned::into_inner).collect(),
            policy,
            file: reader.source.file(),
        });
    }
}

fn gateway(reader: &mut Reader<'_>, raw: &RawGateway) -> GatewayConfig {
    let number = |reader: &mut Reader<'_>, key, value: &Option<Spanned<i64>>, range, default| {
        value.as_ref().map_or(default, |value| reader.within(key, value, range))
    };
    if raw.interfaces.as_ref().is_empty() {
        reader.wrong(&raw.interfaces, "a gateway needs an interface", "name the one clients arrive on");
    }
    if raw.addresses.as_ref().is_empty() {
        reader.wrong(&raw.addresses, "a gateway needs an inner address", "empty");
    }
    let addresses: Vec<Spanned<IpNet>> = reader.all("addresses", raw.addresses.as_ref(), "\"10.77.0.1/24\"");
    GatewayConfig {
        name: reader.name("name", &raw.name),
        private_key_file: reader.path(&raw.private_key_file),
        listen: u16::try_from(number(reader, "listen", &raw.listen, 1..=65_535, u32::from(DEFAULT_PORT)))
            .unwrap_or(DEFAULT_PORT),
        interfaces: raw.interfaces.as_ref().iter().map(|name| reader.interface("interfaces", name)).collect(),
        xdp: raw.xdp.unwrap_or_default(),
        tun: raw.tun.as_ref().map_or_else(|| super::DEFAULT_TUN.into(), |tun| reader.interface("tun", tun)),
        addresses: addresses.into_iter().map(Spanned::into_inner).collect(),
        masquerade: raw.masquerade.unwrap_or(true),
        // A million sessions is 900 MB of kernel memory, allocated whole at load.
        max_sessions: number(reader, "max_sessions", &raw.max_sessions, 1..=1_048_576, 4_096),
        workers: number(reader, "workers", &raw.workers, 0..=WORKERS_MAX as u32, 0),
        // Below 1,368 no IPv6 fits inside; above 1,500 nothing is promised by the paths clients use.
        mtu: u16::try_from(number(reader, "mtu", &raw.mtu, 1_368..=1_500, 1_500)).unwrap_or(1_500),
        relay_listen: u16::try_from(number(
            reader,
            "relay_listen",
            &raw.relay_listen,
            1..=65_535,
            u32::from(relay::DEFAULT_CONTROL_PORT),
        ))
        .unwrap_or(relay::DEFAULT_CONTROL_PORT),
        relays: Vec::new(),
        peers: Vec::new(),
        policies: BTreeMap::new(),
        origins: BTreeMap::new(),
        reload: raw.reload.unwrap_or(Mode::Grace),
        telemetry: TelemetryConfig::default(),
        paths: super::paths::FilePaths {
            state_dir: raw.state_dir.as_ref().map(|path| reader.path(path)),
            run_dir: raw.run_dir.as_ref().map(|path| reader.path(path)),
            pin_root: raw.pin_root.as_ref().map(|path| reader.path(path)),
        },
    }
}

/// The JSON schema of the raw file, for the test that every key is explained.
#[cfg(test)]
pub(super) fn schema() -> schemars::Schema {
    schemars::schema_for!(RawFile)
}

/// The directory of one-peer files that belongs to a gateway's file.
#[must_use]
pub fn peers_dir(config: &Path) -> PathBuf {
    config.parent().unwrap_or_else(|| Path::new("")).join("peers.d")
}

fn peer_files(config: &Path) -> Result<Vec<PathBuf>, Report> {
    let dir = peers_dir(config);
    let fail =
        |error: std::io::Error| Report::from(Problem::without_place(format!("cannot read {}: {error}", dir.display())));
    let entries = match std::fs::read_dir(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
