//! `cargo xtask docs`: owns building the API documentation of the host crates.
//! Must never open a browser or write outside target/.

use crate::progress::{self, Output};
use crate::{Args, no_args, paths, run};

pub(crate) fn run(args: Args<'_>) -> anyhow::Result<()> {
    no_args("docs", args)?;
    build()?;
    println!("{}", paths::target().join("doc/jvpn_common/index.html").display());
    Ok(())
}

pub(crate) fn build() -> anyhow::Result<()> {
    let mut cargo = run::cargo(&["doc", "--no-deps"]);
    // A link to nothing is a lie the compiler can see.
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    progress::run("building the documentation", 60, Output::Inherited, || run::run(cargo))
}
