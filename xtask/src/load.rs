//! `cargo xtask load` and `unload`: owns nothing but the order: build, then the product's own verb.
//! Must never know how loading works: an installed gateway has no Rust.

use crate::exit::{self, Exit};
use crate::{Args, build, paths, run};

pub(crate) fn load(args: Args<'_>) -> anyhow::Result<()> {
    pass_on("load", args)
}

pub(crate) fn unload(args: Args<'_>) -> anyhow::Result<()> {
    pass_on("unload", args)
}

fn pass_on(verb: &str, args: Args<'_>) -> anyhow::Result<()> {
    if args.is_empty() {
        return Err(Exit::because(exit::USAGE, format!("`{verb}` needs an interface: cargo xtask {verb} IFACE")));
    }
    build::everything()?;
    let words: Vec<String> = std::iter::once(verb.to_owned()).chain(args.iter().cloned()).collect();
    run::become_root(&paths::binary("jvpn-ctl"), &words)
}
