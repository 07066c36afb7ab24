//! `unload`: take the kernel program off an interface.
//!
//! Owns refusing while a gateway lives.

use super::error::{CliError, Kind};
use super::{Context, output, plane};
use crate::dataplane::attach;
use crate::dataplane::pins::Pins;

/// Detach the kernel program from an interface; with the last one the maps go
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The interface
    interface: String,
    /// Also while a gateway is running; its sessions then go through the worker alone
    #[arg(long)]
    force: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), CliError> {
    plane::privileged()?;
    let paths = plane::node(context)?.paths;
    let pins = Pins::below(&paths.pin_root);
    let was = match plane::unused(&paths) {
        Ok(_lock) => attach::unload(&args.interface, &pins)?,
        // A gateway lives: its maps stay, and it leaves the program off until it is loaded again.
        Err(error) if args.force && error.kind == Kind::Refused => attach::take_off(&args.interface, &pins)?,
        Err(error) if error.kind == Kind::Refused => return Err(error.hint("or use --force")),
        Err(error) => return Err(error),
    };
    if context.json {
        return output::document(
            "jvpn.unload/1",
            serde_json::json!({ "interface": args.interface, "was_loaded": was }),
        );
    }
    if !was {
        return Err(CliError::new(Kind::NotFound, format!("nothing of ours is loaded on {}", args.interface)));
    }
    output::data(&format!("{}: detached", args.interface))
}
