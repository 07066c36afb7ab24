//! `client.toml`: what a client is told.
//!
//! Owns the client's keys, their defaults and the contradictions between them. Must never resolve a name:
//! an endpoint is an address, since what resolves it could lie inside the tunnel.

use super::key::{self, KeyError};
use super::load::{self, Reader};
use super::report::{Problem, Report};
use super::telemetry::{self, RawTelemetry, TelemetryConfig};
use ipnet::IpNet;
use jvpn_common::secret::{self, PresharedKey, PrivateKey, PublicKey};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use toml::Spanned;
use zeroize::Zeroize as _;

/// How much a client likes a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportClass {
    /// Used whenever it works.
    #[default]
    Primary,
    /// Used when no primary one works, or is clearly better.
    Secondary,
    /// Used when nothing else works.
    Backup,
    /// Never used.
    Never,
}

impl TransportClass {
    /// What the session core calls it; none for a transport that is never used.
    #[must_use]
    pub fn core(self) -> Option<jvpn_common::session::TransportClass> {
        use jvpn_common::session::TransportClass as Core;
        match self {
            Self::Primary => Some(Core::Primary),
            Self::Secondary => Some(Core::Secondary),
            Self::Backup => Some(Core::Backup),
            Self::Never => None,
        }
    }
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFile {
    client: RawClient,
    gateway: RawRemote,
    #[serde(default)]
    transport: Vec<RawTransport>,
    #[serde(default)]
    telemetry: RawTelemetry,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawClient {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "Option<String>")]
    private_key: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    private_key_file: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    tun: Option<Spanned<String>>,
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    routes: Vec<Spanned<String>>,
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    dns: Vec<Spanned<String>>,
    #[schemars(with = "Option<bool>")]
    lockdown: Option<Spanned<bool>>,
    #[schemars(with = "Option<String>")]
    state_dir: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    run_dir: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawRemote {
    #[schemars(with = "String")]
    public_key: Spanned<String>,
    #[schemars(with = "Option<String>")]
    preshared_key: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    preshared_key_file: Option<Spanned<String>>,
    #[schemars(with = "Vec<String>")]
    endpoints: Spanned<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawTransport {
    #[schemars(with = "String")]
    name: Spanned<String>,
    #[schemars(with = "Option<String>")]
    interface: Option<Spanned<String>>,
    #[schemars(with = "Option<String>")]
    address: Option<Spanned<String>>,
    #[serde(default)]
    class: TransportClass,
    #[serde(default)]
    metered: bool,
}

/// What a client is told, checked.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Name of this node in records, and of its socket.
    pub name: String,
    /// Its private key, or where it is.
    pub private_key: KeySource<PrivateKey>,
    /// Name of the TUN interface.
    pub tun: String,
    /// What goes through the tunnel.
    pub routes: Vec<IpNet>,
    /// The gateway's identity.
    pub gateway_key: PublicKey,
    /// The pre-shared key, or where it is, if there is one.
    pub preshared_key: Option<KeySource<PresharedKey>>,
    /// Where the gateway answers, best first.
    pub endpoints: Vec<SocketAddr>,
    /// The transports to use; empty means every interface with a route to an endpoint.
    pub transports: Vec<TransportConfig>,
    /// Things a person should know that are not wrong.
    pub warnings: Vec<String>,
    /// Who else is told.
    pub telemetry: TelemetryConfig,
    /// Paths the file names; flags and environment come first.
    pub paths: super::paths::FilePaths,
}

/// Where a key comes from: a file of its own, or the client's one file, as `peer add` hands it out.
#[derive(Debug)]
pub enum KeySource<K> {
    /// A key file.
    File(PathBuf),
    /// In the configuration, which then belongs to its owner alone.
    Inline(Arc<K>),
}

// By hand: a derived one would want keys that can be copied.
impl<K> Clone for KeySource<K> {
    fn clone(&self) -> Self {
        match self {
            Self::File(path) => Self::File(path.clone()),
            Self::Inline(key) => Self::Inline(Arc::clone(key)),
        }
    }
}

/// One transport a client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportConfig {
    /// Its label in records.
    pub name: String,
    /// What it is bound to.
    pub via: Via,
    /// How much it is liked.
    pub class: TransportClass,
    /// Whether traffic costs money.
    pub metered: bool,
}

/// What a transport is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// An interface by name.
    Interface(String),
    /// A local address.
    Address(IpAddr),
}

/// The secrets of a client, read when it starts.
#[derive(Debug)]
pub struct ClientKeys {
    /// The client's own key.
    pub private: PrivateKey,
    /// The key it shares with the gateway.
    pub preshared: Option<PresharedKey>,
}

impl ClientConfig {
    /// Reads `path`.
    ///
    /// # Errors
    /// Everything that is wrong, with its places.
    pub fn load(path: &Path) -> Result<Self, Report> {
        let source = load::read(path)?;
        let mut raw: RawFile = load::parse(&source)?;
        let mut reader = Reader::new(&source);
        let config = client(&mut reader, &raw);
        for secret in [&mut raw.client.private_key, &mut raw.gateway.preshared_key].into_iter().flatten() {
            secret.as_mut().zeroize();
        }
        match config {
            Some(config) => reader.report.into_result(config),
            None => Err(reader.report),
        }
    }

    /// Reads the key files this configuration names.
    ///
    /// # Errors
    /// The first key file that is refused.
    pub fn keys(&self) -> Result<ClientKeys, KeyError> {
        let private = match &self.private_key {
            KeySource::File(path) => key::read(path)?,
            KeySource::Inline(key) => key.duplicate(),
        };
        let preshared = match &self.preshared_key {
            None => None,
            Some(KeySource::File(path)) => Some(key::read(path)?),
            Some(KeySource::Inline(key)) => Some(key.duplicate()),
        };
        Ok(ClientKeys { private, preshared })
    }
}

/// The JSON schema of the raw file, for the test that every key is explained.
#[cfg(test)]
pub(super) fn schema() -> schemars::Schema {
    schemars::schema_for!(RawFile)
}

fn client(reader: &mut Reader<'_>, raw: &RawFile) -> Option<ClientConfig> {
    let own = &raw.client;
    let mut warnings = Vec::new();
    if let Some(lockdown) = own.lockdown.as_ref().filter(|lockdown| *lockdown.as_ref()) {
        reader.wrong(
            lockdown,
            "`lockdown` is not enforced by this version",
            "must be false: nothing would hold back clear text",
        );
    }
    let dns: Vec<Spanned<IpAddr>> = reader.all("dns", &own.dns, "\"10.77.0.1\"");
    if !dns.is_empty() {
        warnings.push("`dns` is not applied by this version: set your resolver to the address yourself".to_owned());
    }
    let routes: Vec<Spanned<IpNet>> = reader.all("routes", &own.routes, "\"10.0.0.0/8\"");
    let endpoints: Vec<Spanned<SocketAddr>> =
        reader.all("endpoints", raw.gateway.endpoints.as_ref(), "\"198.51.100.7:51821\" or \"[2001:db8::7]:51821\"");
    if raw.gateway.endpoints.as_ref().is_empty() {
        reader.wrong(&raw.gateway.endpoints, "a client needs an endpoint", "empty");
    }
    let transports = transports(reader, &raw.transport);
    let telemetry = telemetry::read(reader, &raw.telemetry);
    let private_key = key_source(reader, "private_key", own.private_key.as_ref(), own.private_key_file.as_ref());
    let preshared_key = key_source(
        reader,
        "preshared_key",
        raw.gateway.preshared_key.as_ref(),
        raw.gateway.preshared_key_file.as_ref(),
    );
    if private_key.is_none() && own.private_key.is_none() && own.private_key_file.is_none() {
        reader.wrong(&own.name, "missing key `private_key_file`", "this client has no key");
    }
    let private_key = private_key?;
    Some(ClientConfig {
        name: reader.name("name", &own.name),
        private_key,
        tun: own.tun.as_ref().map_or_else(|| super::DEFAULT_TUN.into(), |tun| reader.interface("tun", tun)),
        routes: routes.into_iter().map(|net| net.into_inner().trunc()).collect(),
        preshared_key,
        endpoints: endpoints.into_iter().map(Spanned::into_inner).collect(),
        transports,
        warnings,
        telemetry,
        paths: super::paths::FilePaths {
            state_dir: own.state_dir.as_ref().map(|path| reader.path(path)),
            run_dir: own.run_dir.as_ref().map(|path| reader.path(path)),
            pin_root: None,
        },
        gateway_key: reader.parsed(
            "public_key",
            &raw.gateway.public_key,
            "the 44 characters `jvpn-ctl pubkey` prints",
        )?,
    })
}

/// A key in the file, or the name of a key's file.
fn key_source<K: FromStr<Err = secret::KeyError>>(
    reader: &mut Reader<'_>,
    key: &str,
    inline: Option<&Spanned<String>>,
    file: Option<&Spanned<String>>,
) -> Option<KeySource<K>> {
    match (inline, file) {
        (None, None) => None,
        (None, Some(path)) => Some(KeySource::File(reader.path(path))),
        (Some(value), Some(path)) => {
            let problem = Problem::at(
                format!("`{key}` and `{key}_file` contradict each other"),
                reader.source.mark(value.span(), "either this"),
            );
            reader.report.push(problem.and(reader.source.mark(path.span(), "or this")));
            None
        }
        (Some(value), None) => {
            let mode = std::fs::metadata(reader.source.path()).map_or(0, |meta| meta.mode() & 0o7777);
            if mode & 0o077 != 0 {
                let title = format!("a file that holds `{key}` has mode {mode:04o}: only its owner may have access");
                let problem = Problem::at(title, reader.source.mark(value.span(), "this key is exposed"));
                reader.report.push(problem.hint(format!("chmod 600 {}", reader.source.path().display())));
            }
            let parsed: Option<K> = reader.parsed(key, value, "the 44 characters `jvpn-ctl genkey` prints");
            parsed.map(|parsed| KeySource::Inline(Arc::new(parsed)))
        }
    }
}

fn transports(reader: &mut Reader<'_>, raw: &[RawTransport]) -> Vec<TransportConfig> {
    let mut names = BTreeMap::new();
    let mut transports = Vec::new();
    for transport in raw {
        let name = transport_name(reader, &transport.name);
        if let Some(first) = names.insert(name.clone(), transport.name.span()) {
            let again = reader.source.mark(transport.name.span(), "again here");
            let problem = Problem::at(format!("the transport `{name}` is named twice"), again);
            reader.report.push(problem.and(reader.source.mark(first, "first here")));
        }
        let via = match (&transport.interface, &transport.address) {
            (Some(interface), None) => Some(Via::Interface(reader.interface("interface", interface))),
            (None, Some(address)) => reader.parsed("address", address, "\"192.0.2.7\"").map(Via::Address),
            (Some(interface), Some(address)) => {
                let title = "`interface` and `address` contradict each other";
                let problem = Problem::at(title, reader.source.mark(interface.span(), "either this"));
                reader.report.push(problem.and(reader.source.mark(address.span(), "or this")));
                None
            }
            (None, None) => {
                reader.wrong(&transport.name, "a transport needs `interface` or `address`", "this one has neither");
                None
            }
        };
        if let Some(via) = via {
            transports.push(TransportConfig { name, via, class: transport.class, metered: transport.metered });
        }
    }
    transports
}

fn transport_name(reader: &mut Reader<'_>, name: &Spanned<String>) -> String {
    let label = reader.name("name", name);
    if label.len() > jvpn_common::limits::LABEL_MAX {
        let most = jvpn_common::limits::LABEL_MAX;
        reader.wrong(name, "the transport's name is too long", format!("at most {most} bytes: it travels in messages"));
    }
    label
}
