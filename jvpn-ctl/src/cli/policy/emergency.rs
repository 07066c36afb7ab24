//! `policy emergency`: nothing moves that does not have to.
//!
//! Owns the question whose. Must never begin for everybody because a name was left out.

use super::super::error::CliError;
use super::super::{Context, confirmed, in_page, output};
use crate::api::model::{EmergencyState, Envelope};

/// Whether it begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Freeze optional moves of a peer's session, or of all; undo it again
///
/// While it is on, no BETTER happens, an operator's jump included: each is refused with SWITCHING_FROZEN. A session whose
/// transport dies, or whose address changes, still moves: nothing is stranded. It counts at once, is on the record, and
/// holds over reloads and restarts until it is taken back.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    switch: Switch,
    /// The peer by name, or by the start of its session's id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    peer: Option<String>,
    /// Everybody, later peers included
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(in crate::cli) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let on = args.switch == Switch::On;
    let whom = args.peer.as_deref().map(in_page).transpose()?;
    let client = context.client()?;
    if on && args.all {
        confirmed("Freeze optional moves of every session?", args.yes)?;
    }
    let whom = whom.map(|whom| format!("&whom={whom}")).unwrap_or_default();
    let page = format!("/v1/policy/emergency?on={on}{whom}");
    let told: Envelope<EmergencyState> = context.wait(async { Ok(client.post(&page).await?) })?;
    if context.json {
        return output::value(&told);
    }
    let EmergencyState { emergency, diff } = &told.body;
    let peers: Vec<_> = emergency.peers.iter().cloned().collect();
    let now = match (emergency.all, peers.is_empty()) {
        (true, _) => "under emergency: everybody".to_owned(),
        (false, true) => "nobody is under emergency".to_owned(),
        (false, false) => format!("under emergency: {}", peers.join(", ")),
    };
    super::super::reload::show(diff, "recorded; it counts at once")?;
    output::data(&now)
}
