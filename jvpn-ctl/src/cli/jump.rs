//! `jump`: move a session to another transport now.
//!
//! Owns the question and the answer. Must never hide the bound that refused.

use super::error::CliError;
use super::{Context, in_page, output};
use crate::api::model::{Envelope, Jumped};

/// Move a session to another transport; a refusal names the reason and the bound
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The session by the start of its id; on a client there is only one
    id: Option<String>,
    /// Name of the transport, as `paths` shows it
    #[arg(long, value_name = "NAME")]
    to: String,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let mut page = format!("/v1/jump?to={}&dry_run={}", in_page(&args.to)?, args.dry_run);
    if let Some(id) = &args.id {
        page.push_str("&session=");
        page.push_str(in_page(id)?);
    }
    context.wait(async {
        let jumped: Envelope<Jumped> = context.client()?.post(&page).await?;
        if context.json {
            return output::value(&jumped);
        }
        let jumped = jumped.body;
        if jumped.from.as_ref() == Some(&jumped.to) {
            return output::data(&format!(
                "session {}: is on {} already",
                output::short(&jumped.session_id),
                jumped.to
            ));
        }
        let done = match jumped.state_version.filter(|_| !jumped.dry_run) {
            None => "would jump".to_owned(),
            Some(version) => format!("jumped (version {version})"),
        };
        let from = jumped.from.map(|from| format!(" from {from}")).unwrap_or_default();
        let took = jumped.took_ms.map(|took| format!(" in {took:.1} ms")).unwrap_or_default();
        output::data(&format!("session {}: {done}{from} to {}{took}", output::short(&jumped.session_id), jumped.to))
    })
}
