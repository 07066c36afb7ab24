//! The command line: one file a verb, its arguments beside what it does.
//!
//! Owns parsing, dispatch, and the way an outcome becomes text and an exit code. Must never do a verb's work.

mod audit;
mod check;
mod cleanup;
mod completions;
mod connect;
mod error;
mod events;
mod explain;
mod genkey;
mod genpsk;
mod init;
mod jump;
mod load;
mod man;
mod maps;
mod metrics;
mod output;
mod paths;
mod peer;
mod plane;
mod policy;
mod pubkey;
mod reload;
mod serve;
mod sessions;
mod status;
mod terminate;
#[cfg(test)]
mod tests;
mod trace;
mod unload;
mod why;

pub use error::{CliError, Kind};

use crate::FEATURES;
use crate::api::Client;
use crate::config::Places;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

/// Jumping VPN: a session that outlives every path.
#[derive(Debug, Parser)]
#[command(name = "jvpn-ctl", version, long_version = LONG_VERSION.as_str(), disable_help_subcommand = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 no daemon, 4 not found, 5 refused, 6 unhealthy, 7 privilege missing"
)]
struct Cli {
    #[command(flatten)]
    places: Places,
    /// API socket of the daemon that is asked [default: the only one in the run directory]
    #[arg(long, env = "JVPN_SOCKET", value_name = "FILE", global = true, hide_env_values = true)]
    socket: Option<PathBuf>,
    /// Print JSON: one document, or one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Whether to use colour; NO_COLOR is honoured
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto", hide_possible_values = false)]
    color: Color,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let (version, program) = (env!("CARGO_PKG_VERSION"), env!("JVPN_EBPF_HASH"));
    format!("{version}\nkernel program: {program}\nfeatures: {FEATURES}")
});

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Genkey(genkey::Args),
    Pubkey(pubkey::Args),
    Genpsk(genpsk::Args),
    #[command(subcommand)]
    Peer(peer::Peer),
    Check(check::Args),
    Load(load::Args),
    Unload(unload::Args),
    Serve(serve::Args),
    Connect(connect::Args),
    Reload(reload::Args),
    Cleanup(cleanup::Args),
    Status(status::Args),
    Sessions(sessions::Args),
    Paths(paths::Args),
    Jump(jump::Args),
    Terminate(terminate::Args),
    #[command(subcommand)]
    Policy(policy::Policy),
    Events(events::Args),
    Explain(explain::Args),
    Why(why::Args),
    #[command(subcommand)]
    Audit(audit::Audit),
    Metrics(metrics::Args),
    Maps(maps::Args),
    Trace(trace::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// What every verb is given.
#[derive(Debug)]
struct Context {
    places: Places,
    socket: Option<PathBuf>,
    json: bool,
}

impl Context {
    /// The daemon that is asked.
    fn client(&self) -> Result<Client, CliError> {
        match &self.socket {
            Some(socket) => Ok(Client::at(socket)),
            None => Ok(Client::find(&self.places.run_dir_or_default())?),
        }
    }

    /// Runs what waits for answers, until it is done or interrupted.
    fn wait<T>(&self, future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| CliError::failed(format!("cannot start: {error}")))?.block_on(future)
    }
}

/// Parses the command line, runs the verb, prints what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are errors to clap; it knows their stream and code. A closed pipe is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let context = Context { places: cli.places, socket: cli.socket, json: cli.json };
    match run(cli.verb, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn run(verb: Verb, context: &Context) -> Result<(), CliError> {
    match verb {
        Verb::Init(args) => init::run(args, context),
        Verb::Genkey(args) => genkey::run(args),
        Verb::Pubkey(args) => pubkey::run(args),
        Verb::Genpsk(args) => genpsk::run(args),
        Verb::Peer(verb) => peer::run(verb, context),
        Verb::Check(args) => check::run(args, context),
        Verb::Load(args) => load::run(args, context),
        Verb::Unload(args) => unload::run(args, context),
        Verb::Serve(args) => serve::run(args, context),
        Verb::Connect(args) => connect::run(args, context),
        Verb::Reload(args) => reload::run(args, context),
        Verb::Cleanup(args) => cleanup::run(args, context),
        Verb::Status(args) => status::run(args, context),
        Verb::Sessions(args) => sessions::run(args, context),
        Verb::Paths(args) => paths::run(args, context),
        Verb::Jump(args) => jump::run(args, context),
        Verb::Terminate(args) => terminate::run(args, context),
        Verb::Policy(verb) => policy::run(verb, context),
        Verb::Events(args) => events::run(args, context),
        Verb::Explain(args) => explain::run(args, context),
        Verb::Why(args) => why::run(args, context),
        Verb::Audit(verb) => audit::run(verb, context),
        Verb::Metrics(args) => metrics::run(args, context),
        Verb::Maps(args) => maps::run(args, context),
        Verb::Trace(args) => trace::run(args, context),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
    }
}

fn report(error: &CliError) -> ExitCode {
    if let Some(report) = &error.report {
        output::talk(&report.render(true));
    }
    let nothing = error.message.is_empty();
    if nothing && error.report.is_none() && error.kind == Kind::Failed {
        return ExitCode::SUCCESS;
    }
    if !nothing {
        output::talk(&format!("{}: {}", output::styled(output::BAD, "error"), error.message));
    }
    for hint in &error.hints {
        output::talk(&format!("{}: {hint}", output::styled(output::GOOD, "help")));
    }
    ExitCode::from(error.kind.code())
}

/// Asks before something that cannot be undone. Without a terminal nobody can be asked: a script meant it.
fn confirmed(question: &str, yes: bool) -> Result<(), CliError> {
    use std::io::{IsTerminal as _, Write as _};
    if yes || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    // If the question cannot be shown the answer below is read all the same, and only `y` goes on.
    let _ = write!(anstream::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(CliError::failed("not done")) }
}

/// A word that goes into a page's address as it is. Ids, codes, names and times need no escaping; anything else
/// could not name one of them.
fn in_page(word: &str) -> Result<&str, CliError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !word.is_empty() && word.len() <= 64 && word.chars().all(plain) {
        Ok(word)
    } else {
        Err(CliError::usage(format!("`{}` is no id, name, code or time", word.escape_debug())))
    }
}

/// The whole command line, for completions, man pages and docs/cli.md.
fn command() -> clap::Command {
    Cli::command()
}

/// Compares a generated page with the committed one; `JVPN_BLESS=1` writes it instead.
#[cfg(test)]
pub(crate) fn snapshot(path: &str, text: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("JVPN_BLESS").is_some() {
        std::fs::create_dir_all(file.parent().expect("inside")).expect("a directory");
        std::fs::write(&file, text).expect("written");
        return;
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed.lines().zip(text.lines()).position(|(old, new)| old != new);
    assert!(
        committed == text,
        "{path} is out of date from line {differs:?}; run: JVPN_BLESS=1 cargo test -p jvpn-ctl --lib"
    );
}
