//! `terminate`: end a session.
//!
//! Owns asking first. Must never end more than the one that was named.

use super::error::CliError;
use super::{Context, confirmed, in_page, output};
use crate::api::model::{EndReason, Envelope, OneSession, Terminated};

use clap::ValueEnum as _;

/// End a session; its client may start a new one
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The session by the start of its id
    id: String,
    /// Why; goes on the record
    #[arg(long, value_enum, default_value_t)]
    reason: EndReason,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    context.wait(async {
        let client = context.client()?;
        let found: Envelope<OneSession> = client.get(&format!("/v1/sessions/{}", in_page(&args.id)?)).await?;
        let session = found.body.session;
        if !args.dry_run {
            confirmed(&format!("End session {} of {}?", session.session_id, session.peer), args.yes)?;
        }
        // The word of the command line and of the query are the same.
        let why = args.reason.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default();
        let page = format!("/v1/sessions/{}/terminate?reason={why}&dry_run={}", session.session_id, args.dry_run);
        let ended: Envelope<Terminated> = client.post(&page).await?;
        if context.json {
            return output::value(&ended);
        }
        let done = if ended.body.dry_run { "would end" } else { "ended" };
        output::data(&format!(
            "session {} of {}: {done} ({})",
            output::short(&session.session_id),
            session.peer,
            ended.body.reason
        ))
    })
}
