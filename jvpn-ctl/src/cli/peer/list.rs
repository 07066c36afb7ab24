//! `peer list`: who may connect.
//!
//! Owns the table. Must never show a secret; public keys are none.

use super::super::error::CliError;
use super::super::{Context, output};
use crate::config::PeerConfig;
use ipnet::IpNet;

/// List the configured peers
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

pub(in crate::cli) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    let (config, _) = super::gateway(context)?;
    let texts = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>();
    if context.json {
        let one = |peer: &PeerConfig| {
            serde_json::json!({
                "name": peer.name, "public_key": peer.public_key.to_string(), "preshared": peer.preshared_key_file.is_some(),
                "addresses": texts(&peer.addresses), "routes": texts(&peer.routes), "policy": peer.policy, "file": &*peer.file,
            })
        };
        let peers: Vec<_> = config.peers.iter().map(one).collect();
        return output::document("jvpn.peers/1", serde_json::json!({ "peers": peers }));
    }
    let row = |peer: &PeerConfig| {
        let nets = [texts(&peer.addresses), texts(&peer.routes)].concat().join(", ");
        [peer.name.clone(), nets, peer.policy.clone(), peer.public_key.to_string(), peer.file.display().to_string()]
    };
    output::data(&output::table(["peer", "addresses", "policy", "public key", "file"], config.peers.iter().map(row)))
}
