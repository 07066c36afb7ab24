//! `status`: the verdict first, then problems with their fix, then the table.
//!
//! Owns waiting and watching. Must never call something healthy that the daemon does not.

use super::error::{CliError, Kind};
use super::{Context, output, sessions};
use crate::api::model::{Envelope, Sessions, Status};
use crate::config::{Frozen, Role};
use std::time::Duration;
use tokio::time::Instant;

/// Show whether the daemon is healthy, what is wrong, and its sessions
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Wait until it runs and is healthy; a client is healthy once its session is bound
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait")]
    timeout: humantime::Duration,
    /// Show it again every second until interrupted
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// Exit with 6 when it is not healthy
    #[arg(long)]
    check: bool,
}

/// Between two looks while waiting: short against what is waited for, long against what a look costs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two pictures of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    context.wait(async {
        if args.watch {
            return watch(context).await;
        }
        let status = if args.wait { wait(context, *args.timeout).await? } else { look(context).await? };
        show(context, &status).await?;
        let healthy = status.body.healthy;
        if (args.check || args.wait) && !healthy { Err(CliError::new(Kind::Unhealthy, "not healthy")) } else { Ok(()) }
    })
}

async fn look(context: &Context) -> Result<Envelope<Status>, CliError> {
    Ok(context.client()?.get("/v1/status").await?)
}

async fn wait(context: &Context, most: Duration) -> Result<Envelope<Status>, CliError> {
    let deadline = Instant::now() + most;
    loop {
        let seen = look(context).await;
        let ready = seen.as_ref().is_ok_and(|status| status.body.healthy && is_bound(&status.body));
        let later = seen.as_ref().is_err_and(|error| !matches!(error.kind, Kind::NoDaemon | Kind::Failed));
        if ready || later || Instant::now() >= deadline {
            return seen;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A client that has no transport is of no use yet; a gateway needs no session.
fn is_bound(status: &Status) -> bool {
    status.role == Role::Gateway || status.session.as_ref().is_some_and(|session| session.transport.is_some())
}

async fn watch(context: &Context) -> Result<(), CliError> {
    use std::io::IsTerminal as _;
    loop {
        let status = look(context).await?;
        if !context.json && std::io::stdout().is_terminal() {
            // Home and clear: one picture on the place of the last.
            output::data("\x1b[H\x1b[2J")?;
        }
        show(context, &status).await?;
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn show(context: &Context, status: &Envelope<Status>) -> Result<(), CliError> {
    if context.json {
        return output::value(status);
    }
    let status = &status.body;
    output::data(&verdict(status))?;
    for problem in &status.problems {
        output::data(&format!("  {}\n    fix: {}", problem.problem, problem.fix))?;
    }
    for frozen in &status.emergencies {
        output::data(&emergency(frozen))?;
    }
    for xdp in &status.interfaces {
        output::data(&format!("kernel program: {} on {} (id {})", xdp.mode, xdp.iface, xdp.prog_id))?;
    }
    let sessions: Envelope<Sessions> = context.client()?.get("/v1/sessions").await?;
    if sessions.body.sessions.is_empty() {
        Ok(())
    } else {
        output::data(&format!("\n{}", sessions::table(&sessions.body)))
    }
}

fn emergency(frozen: &Frozen) -> String {
    let whose = if frozen.peers.is_empty() { "everybody".to_owned() } else { frozen.peers.join(", ") };
    let since = frozen.since.as_deref().map(|at| format!(" since {}", output::clock(at))).unwrap_or_default();
    let class = frozen.policy.as_deref().map(|class| format!(" (class {class})")).unwrap_or_default();
    format!("emergency: optional moves of {whose}{class} are frozen{since}\n    end: {}", frozen.end)
}

fn verdict(status: &Status) -> String {
    let role = match status.role {
        Role::Gateway => "gateway",
        Role::Relay => "relay",
        Role::Client => "client",
    };
    let mark = match (status.healthy, status.problems.is_empty()) {
        (true, true) => output::styled(output::GOOD, "healthy"),
        (true, false) => output::styled(output::MIDDLING, "healthy, with remarks"),
        (false, _) => output::styled(output::BAD, "NOT HEALTHY"),
    };
    let sessions = match &status.session {
        Some(session) => format!("session {} {}", output::short(&session.session_id), session.state),
        None if status.sessions.is_empty() => "no session".to_owned(),
        None => status.sessions.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "),
    };
    format!("{mark}: {role} {}, {sessions}", status.name)
}
