//! `policy test`: a described network through the real engines, before a policy is shipped.
//!
//! Owns which policy and which network, and how the outcome is told. Must never touch a running daemon.

use super::super::error::{CliError, Kind};
use super::super::{Context, output};
use crate::api::model::{Body, Envelope};
use crate::config::{Emergency, EmergencyError, GatewayConfig, Role, scenario};
use jvpn_common::scenario::{self as play, Outcome, Scenario, Verdict, What};
use jvpn_common::session::Policy;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Try a policy on a described network: both real engines, in virtual time, and what would happen to a session
///
/// The same scenario, policy and seed give the same outcome. It asks no daemon and changes nothing. A peer under
/// emergency is tried under it, and it says so; a class is tried as it stands.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A scenario that ships (death, flapping, lossy, better, jitter, rebind, blackout), or a file; docs/policy.md
    #[arg(long, value_name = "NAME|FILE")]
    scenario: String,
    /// The class, of the gateway's file or one that ships [default: field]
    #[arg(long, conflicts_with = "peer")]
    class: Option<String>,
    /// The class this peer has
    #[arg(long)]
    peer: Option<String>,
    /// Beside another class; may be given several times
    #[arg(long, value_name = "CLASS")]
    compare: Vec<String>,
    /// Where randomness comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What would happen.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cli) struct Tested {
    /// The network.
    scenario: String,
    /// Where randomness came from.
    seed: u64,
    /// Whether the peer is under emergency, and is tried so; none: no peer was named, or the state directory cannot be read.
    emergency: Option<bool>,
    /// One run a policy.
    runs: Vec<Run>,
}

/// Under one policy.
#[derive(Debug, Serialize, JsonSchema)]
struct Run {
    /// Its class.
    policy: String,
    /// Its version.
    policy_version: u32,
    /// kept, degraded, unbound, ended or never-connected.
    verdict: &'static str,
    /// State at the end.
    final_state: Option<String>,
    /// Transport at the end.
    final_transport: Option<String>,
    /// Sessions that were born.
    sessions: u32,
    /// Moves to another transport.
    switches: u32,
    /// Most of them within one minute.
    switches_per_min: u32,
    /// Refused wishes by the bound that refused.
    refusals: BTreeMap<String, u32>,
    /// Inner packets sent up, and arrived.
    up: [u64; 2],
    /// Inner packets sent down, and arrived.
    down: [u64; 2],
    /// Datagrams that the tunnel sent up by itself (handshakes, messages, probes), and their bytes, with headers of IPv4 and UDP.
    control_up: [u64; 2],
    /// The same down, echoes included.
    control_down: [u64; 2],
    /// Times without inner packets.
    outages: Vec<Outage>,
    /// What happened.
    timeline: Vec<Moment>,
    /// Moments beyond those that are kept.
    left_out: u64,
}

/// A time without inner packets in one direction.
#[derive(Debug, Serialize, JsonSchema)]
struct Outage {
    /// up or down.
    direction: &'static str,
    /// Since the start.
    at_ms: f64,
    /// How long.
    outage_ms: f64,
}

/// One thing that happened.
#[derive(Debug, Serialize, JsonSchema)]
struct Moment {
    /// Since the start.
    at_ms: f64,
    /// network, client, transition or refusal.
    what: &'static str,
    /// In words, for network and client.
    text: String,
    /// State before.
    from: Option<String>,
    /// State after.
    to: Option<String>,
    /// Why.
    reason: Option<String>,
    /// More codes.
    details: Vec<String>,
    /// Transport afterwards.
    transport: Option<String>,
    /// Version afterwards.
    state_version: u64,
    /// The bounds that decided it, or that held it back, with both numbers.
    bounds: Vec<String>,
}

impl Body for Tested {
    const SCHEMA: &'static str = "jvpn.policy-test/1";
}

#[cfg(test)]
pub(in crate::cli) fn schema() -> (&'static str, schemars::Schema) {
    (Tested::SCHEMA, schemars::schema_for!(Envelope<Tested>))
}

pub(in crate::cli) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let named = Path::new(&args.scenario);
    let is_file = args.scenario.contains(['/', '.']) || named.exists();
    let network = if is_file { scenario::load(named) } else { scenario::shipped(&args.scenario) }?;
    let files = Files::read(context)?;
    let first = match &args.peer {
        Some(peer) => files.of_peer(peer)?,
        None => files.class(args.class.as_deref().unwrap_or("field"))?,
    };
    let others = args.compare.iter().map(|class| files.class(class)).collect::<Result<Vec<_>, _>>()?;
    let mut runs = Vec::new();
    for policy in std::iter::once(first).chain(others) {
        let outcome = play::run(&network, &policy, args.seed);
        if outcome.stuck {
            return Err(CliError::failed("an engine did not come to rest: please report this scenario and its seed"));
        }
        runs.push(told(&policy, &outcome));
    }
    let emergency = args.peer.as_ref().and_then(|peer| Some(files.emergency.as_ref().ok()?.covers(peer)));
    if let Some(peer) = &args.peer {
        match &files.emergency {
            Ok(emergency) if emergency.covers(peer) => output::talk(&format!(
                "{peer} is under emergency: tried with better_switching = \"frozen\" over its class"
            )),
            Ok(_) => {}
            Err(error) => output::talk(&format!(
                "whether {peer} is under emergency is not known, tried as if it were not: {error}"
            )),
        }
    }
    let tested = Tested { scenario: network.name.clone(), seed: args.seed, emergency, runs };
    if context.json { output::value(&Envelope::from(tested)) } else { output::data(&text(&tested, &network)) }
}

/// The gateway's files, where there are any: shipped classes need none.
struct Files {
    config: Option<GatewayConfig>,
    path: PathBuf,
    /// Who is under emergency; the state directory may be closed to who tries a policy.
    emergency: Result<Emergency, EmergencyError>,
}

impl Files {
    fn read(context: &Context) -> Result<Self, CliError> {
        let path = context.places.config_of(Role::Gateway);
        if !path.exists() {
            return Ok(Self { config: None, path, emergency: Ok(Emergency::default()) });
        }
        let config = GatewayConfig::load(&path)?;
        let paths = context.places.resolve(Role::Gateway, &config.name, &config.paths);
        Ok(Self { config: Some(config), path, emergency: Emergency::load(&paths.state_dir) })
    }

    fn class(&self, name: &str) -> Result<Policy, CliError> {
        let own = self.config.as_ref().and_then(|config| config.policies.get(name)).cloned();
        let policy = own.or_else(|| Policy::shipped(name).filter(|_| self.config.is_none())).map(Policy::versioned);
        policy.ok_or_else(|| {
            let error = CliError::new(Kind::NotFound, format!("no policy is called `{name}`"));
            match &self.config {
                Some(config) => error.hint(format!("there are: {}", names(config.policies.keys()))),
                None => error.hint(format!("{} does not exist: only shipped classes are known", self.path.display())),
            }
        })
    }

    fn of_peer(&self, name: &str) -> Result<Policy, CliError> {
        let config = self.config.as_ref();
        let peer = config.and_then(|config| config.peers.iter().find(|peer| peer.name == name));
        let (Some(config), Some(peer)) = (config, peer) else {
            let error = CliError::new(Kind::NotFound, format!("no peer is called `{name}`"));
            return Err(error.hint(format!("peers are read from {}", self.path.display())));
        };
        let nobody = Emergency::default();
        Ok(self.emergency.as_ref().unwrap_or(&nobody).policy_of(config, peer))
    }
}

fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    all.cloned().collect::<Vec<_>>().join(", ")
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept",
        Verdict::Degraded => "degraded",
        Verdict::Unbound => "unbound",
        Verdict::Ended => "ended",
        Verdict::NeverConnected => "never-connected",
    }
}

fn told(policy: &Policy, outcome: &Outcome) -> Run {
    let outage = |outage: &play::Outage| Outage {
        direction: if outage.up { "up" } else { "down" },
        at_ms: ms(outage.at),
        outage_ms: ms(outage.lasts),
    };
    let [up, down] = outcome.packets.map(|(sent, came)| [sent, came]);
    let [control_up, control_down] = outcome.control.map(|(datagrams, bytes)| [datagrams, bytes]);
    Run {
        policy: policy.name.clone(),
        policy_version: policy.version.0,
        verdict: word(outcome.verdict),
        final_state: outcome.state.map(|state| state.name().to_owned()),
        final_transport: outcome.transport.map(|label| label.to_string()),
        sessions: outcome.sessions,
        switches: outcome.switches,
        switches_per_min: outcome.switches_per_min,
        refusals: outcome.refusals.iter().map(|(reason, &count)| (reason.name().to_owned(), count)).collect(),
        up,
        down,
        control_up,
        control_down,
        outages: outcome.outages.iter().map(outage).collect(),
        timeline: outcome.moments.iter().map(moment).collect(),
        left_out: outcome.left_out,
    }
}

fn moment(moment: &play::Moment) -> Moment {
    Moment {
        at_ms: ms(moment.at),
        what: match moment.what {
            What::Network => "network",
            What::Client => "client",
            What::Transition => "transition",
            What::Refusal => "refusal",
        },
        text: moment.text.clone(),
        from: moment.states.map(|(from, _)| from.name().to_owned()),
        to: moment.states.map(|(_, to)| to.name().to_owned()),
        reason: moment.reason.map(|reason| reason.name().to_owned()),
        details: moment.details.iter().map(|reason| reason.name().to_owned()).collect(),
        transport: moment.transport.clone(),
        state_version: moment.version,
        bounds: moment.bounds.clone(),
    }
}

fn text(tested: &Tested, network: &Scenario) -> String {
    let paths = network.paths.iter().map(|path| path.name.as_str()).collect::<Vec<_>>().join(", ");
    let seconds = network.duration.as_secs();
    let mut parts = vec![format!("scenario {}: {seconds} s over {paths}; seed {}", tested.scenario, tested.seed)];
    if let [run] = tested.runs.as_slice() {
        let rows = run.timeline.iter().map(line);
        parts.push(output::table(["at", "what", "why", "transport"], rows));
        if run.left_out > 0 {
            parts.push(format!("and {} moments more", run.left_out));
        }
        parts.push(sentence(run));
    } else {
        let rows = tested.runs.iter().map(|run| {
            let [longest, total] = lengths(run);
            let counts = [
                run.timeline.iter().filter(|moment| moment.what == "transition").count().to_string(),
                run.switches.to_string(),
                run.switches_per_min.to_string(),
                run.outages.len().to_string(),
            ];
            let [transitions, switches, per_min, outages] = counts;
            let state = output::or_dash(run.final_state.as_ref());
            [
                run.policy.clone(),
                run.verdict.to_owned(),
                state,
                transitions,
                switches,
                per_min,
                outages,
                format!("{longest:.0}"),
                format!("{total:.0}"),
                kilobytes(run),
            ]
        });
        let head = [
            "policy",
            "verdict",
            "at the end",
            "transitions",
            "switches",
            "most/min",
            "outages",
            "longest ms",
            "all ms",
            "own kB",
        ];
        parts.push(output::table(head, rows));
    }
    parts.join("\n\n")
}

/// What the tunnel sends by itself, both ways.
fn kilobytes(run: &Run) -> String {
    let [[_, up], [_, down]] = [run.control_up, run.control_down];
    format!("{:.1}", (up + down) as f64 / 1e3)
}

fn lengths(run: &Run) -> [f64; 2] {
    let all = || run.outages.iter().map(|outage| outage.outage_ms);
    [all().fold(0.0, f64::max), all().sum()]
}

fn line(moment: &Moment) -> [String; 4] {
    let at = format!("{:.3} s", moment.at_ms / 1e3);
    let what = match (&moment.from, &moment.to) {
        (Some(from), Some(to)) if moment.what == "transition" => format!("{from} → {to} (v{})", moment.state_version),
        (Some(state), _) => format!("refused in {state}"),
        _ => moment.text.clone(),
    };
    let codes: Vec<_> = moment.reason.iter().chain(&moment.details).cloned().collect();
    let bounds = if moment.bounds.is_empty() { String::new() } else { format!(" [{}]", moment.bounds.join("; ")) };
    [at, what, format!("{}{bounds}", codes.join(" ")), moment.transport.clone().unwrap_or_default()]
}

fn sentence(run: &Run) -> String {
    let [longest, total] = lengths(run);
    let outages = match run.outages.len() {
        0 => "no outage".to_owned(),
        count => format!("{count} outages, the longest {longest:.0} ms, {total:.0} ms together"),
    };
    let held: Vec<_> = run.refusals.iter().map(|(reason, count)| format!("{reason} {count}×")).collect();
    let held = if held.is_empty() { String::new() } else { format!("; held back: {}", held.join(", ")) };
    let verdict = match run.verdict {
        "kept" => "the session is kept",
        "degraded" => "the session is kept, but was DEGRADED",
        "unbound" => "the session has no transport at the end",
        "ended" => "the session ended",
        _ => "there never was a session",
    };
    let state = output::or_dash(run.final_state.as_ref());
    format!(
        "policy {} (version {}): {verdict}; {state} at the end; {outages}; {} switches, at most {} in a minute{held}; {} kB of its own",
        run.policy,
        run.policy_version,
        run.switches,
        run.switches_per_min,
        kilobytes(run)
    )
}
