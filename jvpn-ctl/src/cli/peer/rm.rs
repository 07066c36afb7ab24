//! `peer rm`: a peer may not connect any more, and its session ends with a reason.
//!
//! Owns the removal. Must never edit a file a person wrote: it says where the peer stands instead.

use super::super::error::{CliError, Kind};
use super::super::{Context, confirmed, output};
use crate::config::gateway;
use crate::config::report::did_you_mean;

/// Remove a peer; its session ends
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Its name
    name: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(in crate::cli) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let (config, path) = super::gateway(context)?;
    let Some(peer) = config.peers.iter().find(|peer| peer.name == args.name) else {
        let error = CliError::new(Kind::NotFound, format!("no peer is called `{}`", args.name));
        return Err(match did_you_mean(&args.name, config.peers.iter().map(|peer| peer.name.as_str())) {
            Some(guess) => error.hint(format!("did you mean `{guess}`?")),
            None => error.hint("`jvpn-ctl peer list` shows them"),
        });
    };
    let own = gateway::peers_dir(&path).join(format!("{}.toml", args.name));
    if *peer.file != *own {
        let error = CliError::usage(format!(
            "peer `{}` stands in {}, which `peer add` did not write",
            args.name,
            peer.file.display()
        ));
        return Err(error.hint("remove its [[peer]] table there, then start the gateway again"));
    }
    confirmed(&format!("Remove peer {} and end its session?", args.name), args.yes)?;
    let failed = |error: std::io::Error| CliError::io(&own.display().to_string(), &error);
    std::fs::remove_file(&own).map_err(failed)?;
    if let Some(psk) = &peer.preshared_key_file
        && psk.parent() == own.parent()
    {
        std::fs::remove_file(psk).map_err(failed)?;
    }
    output::talk(&format!("removed peer {}", args.name));
    if context.json {
        output::document("jvpn.peer-rm/1", serde_json::json!({ "name": args.name, "file": own }))?;
    }
    super::tell(context, &config)
}
