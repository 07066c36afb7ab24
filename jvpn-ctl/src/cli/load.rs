//! `load`: put the kernel program on an interface.
//!
//! Owns what is said before and after, and the wait for a confirmation. What is done, and in which order, is the data plane's.

use super::error::CliError;
use super::plane::Node;
use super::{Context, output, plane};
use crate::config::XdpMode;
use crate::dataplane::attach::{self, LoadOptions, Loaded, Mode, Plan, Program};
use crate::dataplane::cost;
use crate::dataplane::link;
use crate::dataplane::pins::Pins;
use crate::dataplane::trial::{self, Trial};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Create the maps, attach the kernel program to an interface and pin both
///
/// Program and size of the maps come from the gateway's or relay's file. A program of ours that is there already is replaced without
/// a gap; one of somebody else is refused.
///
/// On a host you reach over that very interface, try it first: with --confirm-within nothing that could outlive this
/// process holds the program, so it is gone when the time is over, and also when this process is killed or your
/// connection dies. Enter makes it stay, and so does `jvpn-ctl load --confirm IFACE` from another shell.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface clients arrive on
    interface: String,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Stay in the foreground and take the program off again unless it is confirmed within this time, such as 60s
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    confirm_within: Option<humantime::Duration>,
    /// Make a program stay that another process loaded with --confirm-within
    #[arg(long, conflicts_with_all = ["dry_run", "confirm_within"])]
    confirm: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    plane::ready()?;
    let config = plane::node(context)?;
    let paths = &config.paths;
    let pins = Pins::below(&paths.pin_root);
    if args.confirm {
        return confirm(&args.interface, &pins, context);
    }
    if config.xdp == XdpMode::Off {
        return Err(CliError::usage("the file says xdp = \"off\"").hint("set it to \"auto\" or \"native\""));
    }
    let mut plan = attach::plan(&args.interface, &pins)?;
    if config.program == Program::Relay {
        plan.warnings.extend(link::forwarding_warnings(&args.interface));
    }
    say(&plan, &config);
    attach::proven_kernel()?;
    plan.free()?;
    if args.dry_run {
        return done(context, &plan, &config, None);
    }
    let wanted = crate::runtime::wanted(config.xdp);
    let options = LoadOptions {
        interface: args.interface,
        program: config.program,
        max_sessions: config.max_sessions,
        pins,
        wanted,
        only_newer: false,
    };
    let loaded = match args.confirm_within {
        None => attach::load(&options)?,
        Some(within) => tried(&options, *within)?,
    };
    done(context, &plan, &config, Some(&loaded))
}

/// How often it is asked whether the program is still there.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Holds the program until somebody says that it may stay.
fn tried(options: &LoadOptions, within: Duration) -> Result<Loaded, CliError> {
    let interface = &options.interface;
    let (trial, loaded) = Trial::begin(options)?;
    output::talk(&format!(
        "{interface}: attached for {}; press Enter to keep it, or run elsewhere: jvpn-ctl load --confirm {interface}",
        humantime::format_duration(within)
    ));
    let entered = on_enter();
    let deadline = Instant::now() + within;
    let mut asked = Instant::now();
    loop {
        let now = Instant::now();
        if trial.is_confirmed() || entered.try_recv().is_ok() {
            trial.confirm()?;
            return Ok(loaded);
        }
        if now.duration_since(asked) > ASK_EVERY {
            asked = now;
            if !trial.is_attached() {
                return Err(CliError::failed(format!("somebody took the program off {interface}")));
            }
        }
        if now >= deadline {
            drop(trial);
            let text = format!(
                "not confirmed within {}: the program is off {interface} again",
                humantime::format_duration(within)
            );
            return Err(CliError::failed(text).hint("nothing else was changed; load again when it may stay"));
        }
        std::thread::sleep(trial::LOOK_EVERY);
    }
}

/// Says when a line is entered. The end of the input is none: a script without one must confirm in another way.
fn on_enter() -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        if matches!(std::io::stdin().read_line(&mut String::new()), Ok(read) if read > 0) {
            // Nobody listens when the time was over first.
            let _ = sender.send(());
        }
    });
    receiver
}

fn confirm(interface: &str, pins: &Pins, context: &Context) -> Result<(), CliError> {
    let pinned = trial::confirm(interface, pins)?;
    if context.json {
        let fields = serde_json::json!({ "interface": interface, "confirmed": true, "was_pinned": !pinned });
        return output::document("jvpn.confirm/1", fields);
    }
    output::data(&format!("{interface}: {}", if pinned { "confirmed, it stays" } else { "is pinned already" }))
}

fn say(plan: &Plan, config: &Node) {
    let facts = &plan.facts;
    let known = |flag: Option<bool>| flag.map_or("unknown", |on| if on { "on" } else { "off" });
    output::talk(&format!(
        "{}: {}, MTU {}, queues {} in {} out, LRO {}, GRO {}",
        facts.interface,
        facts.kind,
        facts.mtu,
        facts.rx_queues,
        facts.tx_queues,
        known(facts.lro),
        known(facts.gro)
    ));
    let what = if plan.replaces { "replace our program, keeping its maps" } else { "attach the program" };
    output::talk(&format!(
        "will {what}; {} sessions take {}, {} bytes each at any number of processors",
        config.max_sessions,
        output::bytes(cost::memory(config.max_sessions)),
        cost::per_session(config.max_sessions)
    ));
    output::talk(&format!("proven on kernels {}.{} and newer", cost::FLOOR.0, cost::FLOOR.1));
    for warning in &plan.warnings {
        output::talk(&format!("{}: {warning}", output::styled(output::MIDDLING, "warning")));
    }
}

fn done(context: &Context, plan: &Plan, config: &Node, loaded: Option<&Loaded>) -> Result<(), CliError> {
    let interface = &plan.facts.interface;
    let mode = loaded.and_then(|loaded| loaded.mode).map(|mode| match mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    });
    if mode == Some("generic") {
        let warning = "the driver refused native mode; generic mode is slower than no program under load";
        output::talk(&format!("{}: {warning}", output::styled(output::MIDDLING, "warning")));
    }
    if context.json {
        let fields = serde_json::json!({
            "interface": interface, "dry_run": loaded.is_none(), "replaced": plan.replaces, "mode": mode,
            "kept_maps": loaded.map(|loaded| loaded.kept_maps), "verified_instructions": loaded.map(|loaded| loaded.verified),
            "memory_bytes": cost::memory(config.max_sessions), "bytes_per_session": cost::per_session(config.max_sessions),
            "max_sessions": config.max_sessions, "kernel_floor": format!("{}.{}", cost::FLOOR.0, cost::FLOOR.1), "warnings": plan.warnings,
        });
        return output::document("jvpn.load/1", fields);
    }
    let Some(loaded) = loaded else { return output::data("nothing was changed (dry run)") };
    let maps = if loaded.kept_maps { "maps kept" } else { "maps made" };
    let how = mode.map_or_else(|| "replaced in place".to_owned(), |mode| format!("attached, {mode}"));
    output::data(&format!("{interface}: {how}, {maps}, {} instructions verified", loaded.verified))
}
