//! `paths`: every transport and how it does.
//!
//! Owns the table.

use super::error::CliError;
use super::{Context, output};
use crate::api::model::{Envelope, PathView, Paths};

/// Show every transport with its round trip, loss, jitter, MTU and state
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    context.wait(async {
        let paths: Envelope<Paths> = context.client()?.get("/v1/paths").await?;
        if context.json {
            return output::value(&paths);
        }
        let row = |path: &PathView| {
            [
                path.name.clone(),
                path.state.clone(),
                path.class.clone(),
                output::or_dash(path.interface.as_ref()),
                path.local.clone(),
                path.remote.clone(),
                output::tenth(path.rtt_ms),
                output::tenth(path.loss_percent),
                output::tenth(path.data_loss_percent),
                output::tenth(path.jitter_ms),
                output::or_dash(path.mtu),
                output::or_dash(path.gateway_says.as_ref()),
                output::or_dash(path.held_by.as_ref()),
            ]
        };
        let headings = [
            "path",
            "state",
            "class",
            "interface",
            "local",
            "remote",
            "rtt ms",
            "loss %",
            "data loss %",
            "jitter ms",
            "mtu",
            "gateway says",
            "held by",
        ];
        output::data(&output::table(headings, paths.body.paths.iter().map(row)))
    })
}
