//! `metrics`: what the daemon counts.
//!
//! Owns nothing: the daemon writes the text.

use super::error::CliError;
use super::{Context, output};
use crate::api::model::Envelope;
use crate::observe::metrics::Metrics;

/// Print what the daemon counts, as OpenMetrics text
///
/// The same is on the API socket as /v1/metrics, and on loopback TCP where the configuration has `metrics` in
/// `[telemetry]`. docs/telemetry.md lists every metric.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args, context: &Context) -> Result<(), CliError> {
    context.wait(async {
        let client = context.client()?;
        if context.json {
            let all: Envelope<Metrics> = client.get("/v1/metrics?form=json").await?;
            return output::value(&all);
        }
        output::data(client.text("/v1/metrics").await?.trim_end())
    })
}
