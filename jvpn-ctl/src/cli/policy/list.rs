//! `policy list`: the classes there are.
//!
//! Owns the table. Reads the files: a class nobody uses is in no daemon.

use super::super::error::CliError;
use super::super::{Context, output, peer};
use crate::config::GatewayConfig;
use jvpn_common::session::Policy;
use std::collections::BTreeMap;

/// List the classes of policy of the gateway's files: what each changes, and who has it
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

pub(in crate::cli) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    let (config, _) = peer::gateway(context)?;
    let classes: Vec<Class> = config.policies.iter().map(|(name, policy)| class(&config, name, policy)).collect();
    if context.json {
        let classes = serde_json::to_value(&classes).map_err(|error| CliError::failed(error.to_string()))?;
        return output::document("jvpn.policies/1", serde_json::json!({ "policies": classes }));
    }
    let rows = classes.into_iter().map(|Class { name, base, changes, peers }| {
        let changes: Vec<_> = changes.into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        [name, base, changes.join(", "), peers.join(", ")]
    });
    output::data(&output::table(["policy", "base", "differs from field in", "peers"], rows))
}

/// One class of the files.
#[derive(serde::Serialize)]
struct Class {
    name: String,
    base: String,
    changes: BTreeMap<&'static str, String>,
    peers: Vec<String>,
}

fn class(config: &GatewayConfig, name: &str, policy: &Policy) -> Class {
    let changes = Policy::field().changes(policy).into_iter().map(|(key, _, value)| (key, value)).collect();
    let peers = config.peers.iter().filter(|peer| peer.policy == name).map(|peer| peer.name.clone()).collect();
    let base = config.origins.get(name).map(|origin| origin.base.clone()).unwrap_or_default();
    Class { name: name.to_owned(), base, changes, peers }
}
