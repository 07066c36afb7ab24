//! `reload`: a running gateway reads its files again.
//!
//! Owns how the differences are printed. Must never decide whether they can be taken: the gateway does.

use super::error::{CliError, Kind};
use super::{Context, output};
use crate::api::model::{Envelope, Reload};
use crate::config::Diff;
use jvpn_common::gateway::Mode;

/// Have the gateway read gateway.toml and peers.d again, and show what changes; all of it or nothing
///
/// Sessions are not touched: a change of policy is a record, not a transition. A file that is wrong changes nothing and is
/// shown with its lines (exit code 2); keys that only another start takes are named and refuse the whole (exit code 5).
/// SIGHUP does the same with the mode the file says, and tells the log.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// When new bounds count for live sessions: strict (at once) or grace (after each one's next transition) [default:
    /// what the file says, else grace]
    #[arg(long, value_name = "MODE")]
    mode: Option<Mode>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let mode = args.mode.map(|mode| format!("&mode={mode}")).unwrap_or_default();
    let page = format!("/v1/reload?dry_run={}{mode}", args.dry_run);
    let told: Envelope<Reload> = context.wait(async { Ok(context.client()?.post(&page).await?) })?;
    if context.json {
        output::value(&told)?;
    } else {
        let (done, mode) = (if told.body.dry_run { "would be taken" } else { "taken" }, &told.body.mode);
        show(&told.body.diff, &format!("{done}, {mode}"))?;
    }
    // Only a dry run comes back with these.
    if told.body.diff.restart.is_empty() {
        return Ok(());
    }
    let refused = CliError::new(Kind::Refused, "this reload would be refused: some keys need another start");
    Err(refused.hint("start the gateway again, or put those keys back"))
}

/// Prints what is different, and what came of it.
pub(super) fn show(diff: &Diff, done: &str) -> Result<(), CliError> {
    let lines = diff.lines();
    if lines.is_empty() {
        return output::data("nothing is different");
    }
    output::data(&lines.join("\n"))?;
    output::talk(done);
    Ok(())
}
