//! `policy show`: what is in force for a peer, and where each value comes from.
//!
//! Owns the table. Must never show what a file says for what a running gateway does.

use super::super::error::{CliError, Kind};
use super::super::{Context, in_page, output};
use crate::api::model::{Envelope, PolicyView};
use crate::config::report::did_you_mean;
use crate::config::{Emergency, GatewayConfig, Role};
use crate::runtime::gateway::shown;

/// Show the policy a peer is under: every value in force and where it comes from; on a client, the snapshot it got
///
/// Asks the running gateway; when none runs, the files and the state directory say what its next start will use.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The peer by name, or by the start of its session's id; on a client there is only one
    peer: Option<String>,
}

pub(in crate::cli) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let peer = args.peer.as_deref().map(in_page).transpose()?;
    let page = peer.map_or_else(|| "/v1/policy".to_owned(), |peer| format!("/v1/policy?peer={peer}"));
    let told: Result<Envelope<PolicyView>, CliError> = context.wait(async { Ok(context.client()?.get(&page).await?) });
    let view = match (told, peer) {
        (Err(error), Some(peer)) if error.kind == Kind::NoDaemon => configured(context, peer, error)?,
        (told, _) => told?,
    };
    if context.json { output::value(&view) } else { output::data(&text(&view.body)) }
}

/// What the files say; the error of asking where there are none.
fn configured(context: &Context, name: &str, none: CliError) -> Result<Envelope<PolicyView>, CliError> {
    let path = context.places.config_of(Role::Gateway);
    if !path.exists() {
        return Err(none);
    }
    let config = GatewayConfig::load(&path)?;
    let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
    let emergency = Emergency::load(&paths.state_dir).map_err(|error| CliError::failed(error.to_string()))?;
    let Some(peer) = config.peers.iter().find(|peer| peer.name == name) else {
        let error = CliError::new(Kind::NotFound, format!("no peer is called `{name}`"));
        return Err(match did_you_mean(name, config.peers.iter().map(|peer| peer.name.as_str())) {
            Some(guess) => error.hint(format!("did you mean `{guess}`?")),
            None => error.hint("`jvpn-ctl peer list` shows them"),
        });
    };
    output::talk("no gateway is running; this is what its next start will use");
    Ok(shown(&config, &emergency, peer, None).into())
}

fn text(view: &PolicyView) -> String {
    let mut head = format!("{}: policy {} (version {})", view.peer, view.policy, view.policy_version);
    if view.emergency {
        head.push_str(", under emergency");
    }
    if let Some(next) = view.next_version {
        head.push_str(&format!("; version {next} counts after the session's next transition"));
    }
    if let Some(id) = &view.session_id {
        let client = match (&view.received, view.client_version) {
            (Some(at), _) => format!("snapshot of {}", output::clock(at)),
            (None, Some(version)) if version == view.policy_version => "its client has it".to_owned(),
            (None, Some(version)) => format!("its client has version {version}, this one is on its way"),
            (None, None) => "its client is away".to_owned(),
        };
        head.push_str(&format!("\nsession {}: {client}", output::short(id)));
    }
    let rows = view.values.iter().map(|value| {
        let next = value.next.as_ref().map(|next| format!(" (then {next})")).unwrap_or_default();
        [value.key.clone(), format!("{}{next}", value.value), value.source.clone()]
    });
    format!("{head}\n\n{}", output::table(["key", "value", "from"], rows))
}
