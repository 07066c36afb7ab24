//! `policy`: the bounds a peer is under, and trying them before they count.
//!
//! Owns the verbs' order. Must never change a policy: files do, and `emergency` for a while.

mod emergency;
mod list;
mod show;
mod test;

#[cfg(test)]
pub(super) use test::schema;

use super::Context;
use super::error::CliError;

/// Show the bounds peers are under, try them on a described network, begin and end an emergency
#[derive(Debug, clap::Subcommand)]
pub(super) enum Policy {
    Show(show::Args),
    List(list::Args),
    Test(test::Args),
    Emergency(emergency::Args),
}

pub(super) fn run(verb: Policy, context: &Context) -> Result<(), CliError> {
    match verb {
        Policy::Show(args) => show::run(args, context),
        Policy::List(args) => list::run(args, context),
        Policy::Test(args) => test::run(args, context),
        Policy::Emergency(args) => emergency::run(args, context),
    }
}
