//! `peer add`: a new peer, and the one file its client needs.
//!
//! Owns addresses, keys and both files. Must never print a private key unless that output was asked for, and never
//! keep the client's one on the gateway.

use super::super::error::CliError;
use super::super::{Context, init, output};
use super::allocate::allocate;
use crate::config::template::{self, ClientValues};
use crate::config::{GatewayConfig, check_name, gateway};
use crate::runtime::entropy::System;
use ipnet::IpNet;
use jvpn_common::secret::{PresharedKey, PrivateKey, PublicKey};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Add a peer: allocate its addresses, write it, hand out one client file
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("hand-out").required(true))]
pub(in crate::cli) struct Args {
    /// Its name in records and commands
    name: String,
    /// Write the client's file here (0600)
    #[arg(long, value_name = "FILE", group = "hand-out")]
    out: Option<PathBuf>,
    /// Show the client's file as a QR code
    #[arg(long, group = "hand-out")]
    qr: bool,
    /// Print the client's file
    #[arg(long, group = "hand-out", conflicts_with = "json")]
    stdout: bool,
    /// Its public key, when its private one was made elsewhere; the client's file then names client.key
    #[arg(long, value_name = "KEY")]
    public_key: Option<PublicKey>,
    /// Make a pre-shared key as well
    #[arg(long)]
    psk: bool,
    /// Inner address [default: the next free one of each prefix of the gateway]
    #[arg(long = "address", value_name = "PREFIX")]
    addresses: Vec<IpNet>,
    /// A network behind this peer
    #[arg(long = "behind", value_name = "PREFIX")]
    behind: Vec<IpNet>,
    /// What the client sends through the tunnel [default: the gateway's prefixes]
    #[arg(long = "route", value_name = "PREFIX")]
    routes: Vec<IpNet>,
    /// Class of policy
    #[arg(long, default_value = "field")]
    policy: String,
    /// Where the client finds the gateway [default: this host's own addresses]
    #[arg(long = "endpoint", value_name = "ADDRESS:PORT")]
    endpoints: Vec<SocketAddr>,
}

pub(in crate::cli) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let (config, path) = super::gateway(context)?;
    check_name(&args.name).map_err(|cause| CliError::usage(format!("the name `{}` {cause}", args.name)))?;
    if let Some(peer) = config.peers.iter().find(|peer| peer.name == args.name) {
        let error = CliError::usage(format!("a peer `{}` exists already, in {}", args.name, peer.file.display()));
        return Err(error.hint(format!("jvpn-ctl peer rm {}", args.name)));
    }
    if let Some(out) = args.out.as_ref().filter(|out| out.exists()) {
        return Err(CliError::usage(format!("{} exists already; nothing was changed", out.display())));
    }
    let addresses = addresses(&args, &config)?;
    let endpoints = endpoints(&args, &config)?;
    let gateway_key = config.keys()?.private.public();
    let private = args.public_key.is_none().then(|| PrivateKey::generate(&mut System));
    let public = match (&private, args.public_key) {
        (Some(private), _) => private.public(),
        (None, Some(public)) => public,
        (None, None) => return Err(CliError::usage("a peer needs a key")),
    };
    let preshared = args.psk.then(|| PresharedKey::generate(&mut System));
    let file = written(&args, &path, &public, preshared.as_ref(), &addresses)?;
    let routes =
        if args.routes.is_empty() { config.addresses.iter().map(IpNet::trunc).collect() } else { args.routes.clone() };
    let client = template::client(&ClientValues {
        name: args.name.clone(),
        private_key: private.as_ref().map(PrivateKey::to_text),
        preshared_key: preshared.as_ref().map(PresharedKey::to_text),
        routes: routes.iter().map(IpNet::to_string).collect(),
        public_key: gateway_key.to_string(),
        endpoints: endpoints.iter().map(SocketAddr::to_string).collect(),
    });
    hand_out(&args, &client).inspect_err(|_| undo(&file, preshared.is_some()))?;
    output::talk(&format!("peer {}: {} in {}", args.name, texts(&addresses).join(", "), file.display()));
    if context.json {
        let added = serde_json::json!({
            "name": args.name, "public_key": public.to_string(), "addresses": texts(&addresses),
            "file": file, "client_file": args.out,
        });
        output::document("jvpn.peer-add/1", added)?;
    }
    super::tell(context, &config)
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(IpNet::to_string).collect()
}

fn addresses(args: &Args, config: &GatewayConfig) -> Result<Vec<IpNet>, CliError> {
    if !args.addresses.is_empty() {
        return Ok(args.addresses.clone());
    }
    let taken = config.peers.iter().flat_map(|peer| peer.addresses.iter().chain(&peer.routes));
    let taken: Vec<IpNet> = taken.copied().chain(args.behind.iter().copied()).collect();
    allocate(&config.addresses, &taken).map_err(|full| {
        CliError::failed(format!("no address is free in {full}"))
            .hint("give one with --address, or a larger prefix to the gateway")
    })
}

fn endpoints(args: &Args, config: &GatewayConfig) -> Result<Vec<SocketAddr>, CliError> {
    if !args.endpoints.is_empty() {
        return Ok(args.endpoints.clone());
    }
    // Documentation addresses: nothing is sent, the kernel only says which address it would send from.
    let guesses = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")].into_iter().filter_map(|(any, far)| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        Some(SocketAddr::new(socket.local_addr().ok()?.ip(), config.listen))
    });
    let guesses: Vec<_> = guesses.collect();
    if guesses.is_empty() {
        return Err(CliError::usage("this host has no address a client could use")
            .hint("give one with --endpoint ADDRESS:PORT"));
    }
    let shown: Vec<_> = guesses.iter().map(SocketAddr::to_string).collect();
    output::talk(&format!(
        "endpoints: {} (give --endpoint when clients see this host under another address)",
        shown.join(", ")
    ));
    Ok(guesses)
}

/// Writes the peer and checks that the gateway would still start; else everything is as before.
fn written(
    args: &Args,
    config: &Path,
    public: &PublicKey,
    preshared: Option<&PresharedKey>,
    addresses: &[IpNet],
) -> Result<PathBuf, CliError> {
    let dir = gateway::peers_dir(config);
    init::make_dir(&dir)?;
    let file = dir.join(format!("{}.toml", args.name));
    let psk_name = format!("{}.psk", args.name);
    let psk_file = dir.join(&psk_name);
    if let Some(preshared) = preshared {
        init::write(&psk_file, &Zeroizing::new(format!("{}\n", preshared.to_text().as_str())), 0o600)?;
    }
    let psk = preshared.map(|_| psk_name.as_str());
    let text =
        template::peer(&args.name, &public.to_string(), psk, &texts(addresses), &texts(&args.behind), &args.policy);
    // Only what was made here is taken back: a file that could not be written may be somebody else's.
    init::write(&file, &text, 0o640).inspect_err(|_| {
        let _ = preshared.map(|_| std::fs::remove_file(&psk_file));
    })?;
    GatewayConfig::load(config).inspect_err(|_| undo(&file, preshared.is_some()))?;
    Ok(file)
}

/// Removes what was made: a peer whose file reached nobody is of no use, and its key is lost.
fn undo(file: &Path, preshared: bool) {
    // What cannot be removed is named by `check` and `peer list`.
    let _ = std::fs::remove_file(file);
    if preshared {
        let _ = std::fs::remove_file(file.with_extension("psk"));
    }
}

fn hand_out(args: &Args, client: &Zeroizing<String>) -> Result<(), CliError> {
    if let Some(out) = &args.out {
        init::write(out, client, 0o600)?;
        output::talk(&format!(
            "wrote {}: bring it to the client, then `jvpn-ctl connect --config FILE`",
            out.display()
        ));
    } else if args.qr {
        output::data(&qr(client)?)?;
    } else {
        output::data(client.trim_end())?;
    }
    Ok(())
}

/// The file as a QR code of half blocks. Comments do not fit and are left out.
fn qr(client: &str) -> Result<String, CliError> {
    let mut bare = Zeroizing::new(String::with_capacity(client.len()));
    for line in client.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        bare.push_str(line);
        bare.push('\n');
    }
    let code = qrcode::QrCode::with_error_correction_level(bare.as_bytes(), qrcode::EcLevel::L);
    let code = code.map_err(|error| CliError::failed(format!("the client's file does not fit a QR code: {error}")))?;
    Ok(code.render::<qrcode::render::unicode::Dense1x2>().quiet_zone(true).build())
}
