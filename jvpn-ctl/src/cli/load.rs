//! `load`: put the kernel program on an interface.
//!
//! Owns what is said before and after. What is done, and in which order, is the data plane's.

use super::error::CliError;
use super::{Context, output, plane};
use crate::config::{GatewayConfig, XdpMode};
use crate::dataplane::attach::{self, AttachError, LoadOptions, Loaded, Mode, Plan, Program};
use crate::dataplane::pins::Pins;

/// Create the maps, attach the kernel program to an interface and pin both
///
/// The size of the maps comes from the gateway's file. A program of ours that is there already is replaced without
/// a gap; one of somebody else is refused.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface clients arrive on
    interface: String,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    plane::ready()?;
    let (config, paths) = plane::gateway(context)?;
    if config.xdp == XdpMode::Off {
        return Err(CliError::usage("the gateway's file says xdp = \"off\"").hint("set it to \"auto\" or \"native\""));
    }
    let pins = Pins::below(&paths.pin_root);
    let plan = attach::plan(&args.interface, &pins)?;
    say(&plan, &config);
    if let Some((id, name)) = plan.foreign.clone() {
        return Err(AttachError::Foreign { interface: args.interface, id, name }.into());
    }
    if args.dry_run {
        return done(context, &plan, &config, None);
    }
    let wanted = crate::runtime::gateway::wanted(config.xdp);
    let options = LoadOptions {
        interface: args.interface,
        program: Program::Gateway,
        max_sessions: config.max_sessions,
        pins,
        wanted,
    };
    let loaded = attach::load(&options)?;
    done(context, &plan, &config, Some(&loaded))
}

fn say(plan: &Plan, config: &GatewayConfig) {
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
        "will {what}; {} sessions take {}",
        config.max_sessions,
        output::bytes(attach::memory(config.max_sessions))
    ));
    for warning in &plan.warnings {
        output::talk(&format!("{}: {warning}", output::styled(output::MIDDLING, "warning")));
    }
}

fn done(context: &Context, plan: &Plan, config: &GatewayConfig, loaded: Option<&Loaded>) -> Result<(), CliError> {
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
            "memory_bytes": attach::memory(config.max_sessions), "max_sessions": config.max_sessions, "warnings": plan.warnings,
        });
        return output::document("jvpn.load/1", fields);
    }
    let Some(loaded) = loaded else { return output::data("nothing was changed (dry run)") };
    let maps = if loaded.kept_maps { "maps kept" } else { "maps made" };
    let how = mode.map_or_else(|| "replaced in place".to_owned(), |mode| format!("attached, {mode}"));
    output::data(&format!("{interface}: {how}, {maps}, {} instructions verified", loaded.verified))
}
