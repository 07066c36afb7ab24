//! `bench variants`: the product's TCP throughput one circumstance at a time: flows, families, MTU, how the kernel program is attached,
//! workers. Owns the circumstances. Never compares two that differ in more than what their names say.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Options;
use super::contender::{Raw, among, finish, kept, start, through};
use super::document::{Better, Contender, Document, Metric, Wanted};
use super::machine::{self, Watched};
use super::traffic::{Load, Sample, measure};
use super::underlay::{CLIENT_INTERFACE, MTU, Underlay};
use crate::lab::mode::Xdp;
use crate::lab::setup::Setup;
use crate::lab::topology::{GATEWAY_V4, GATEWAY_V6, INNER_GATEWAY_V4, INNER_GATEWAY_V6};

/// Rounds and seconds of each flow.
const FULL: (u32, u32) = (9, 2);
const QUICK: (u32, u32) = (1, 1);

/// One circumstance.
#[derive(Clone, Copy, Debug)]
struct Variant {
    name: &'static str,
    flows: u32,
    inside_v6: bool,
    outside_v6: bool,
    mtu: u16,
    xdp: Xdp,
    workers: u32,
}

const BASE: Variant =
    Variant { name: "base", flows: 1, inside_v6: false, outside_v6: false, mtu: MTU, xdp: Xdp::Native, workers: 1 };

const ALL: [Variant; 10] = [
    BASE,
    Variant { name: "two_workers", workers: 2, ..BASE },
    Variant { name: "flows_4", flows: 4, ..BASE },
    Variant { name: "flows_4_two_workers", flows: 4, workers: 2, ..BASE },
    Variant { name: "inside_v6", inside_v6: true, ..BASE },
    Variant { name: "outside_v6", outside_v6: true, ..BASE },
    Variant { name: "mtu_1400", mtu: 1_400, ..BASE },
    Variant { name: "generic", xdp: Xdp::Generic, ..BASE },
    Variant { name: "detached", xdp: Xdp::Detached, ..BASE },
    Variant { name: "detached_flows_4_two_workers", xdp: Xdp::Detached, flows: 4, workers: 2, ..BASE },
];

/// Those that a quick run plays.
const SHAPE: [&str; 2] = ["outside_v6", "detached_flows_4_two_workers"];

/// What a round brought, by variant: ours, and the link alone with as many flows of the same family and MTU.
type Round = BTreeMap<&'static str, (Option<Sample>, Option<Sample>)>;

impl Variant {
    fn ours(&self, seconds: u32) -> Result<(Sample, Raw)> {
        let underlay = Underlay::with_mtu(self.mtu)?;
        let _wakes = underlay.wakes()?;
        let setup = Setup {
            xdp: self.xdp,
            outside_v6: self.outside_v6,
            workers: self.workers,
            uplinks: vec![CLIENT_INTERFACE],
            ..Setup::default()
        };
        let product = start(&underlay, "run", &setup)?;
        let server = if self.inside_v6 { INNER_GATEWAY_V6 } else { INNER_GATEWAY_V4 };
        finish(product, || self.carry(&underlay, server, seconds))
    }

    fn plain(&self, seconds: u32) -> Result<(Sample, Raw)> {
        let server = if self.inside_v6 { GATEWAY_V6 } else { GATEWAY_V4 };
        self.carry(&Underlay::with_mtu(self.mtu)?, server, seconds)
    }

    fn carry(&self, underlay: &Underlay, server: &str, seconds: u32) -> Result<(Sample, Raw)> {
        through(underlay, server, |underlay, server| {
            let mut sample = measure(underlay, Load { seconds, flows: self.flows, server })?;
            let raw = std::mem::take(&mut sample.raw);
            Ok((sample, raw))
        })
    }
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, seconds) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let mut wanted = among(&ALL, |variant| variant.name, &options.only)?;
    if options.quick && options.only.is_empty() {
        wanted.retain(|variant| SHAPE.contains(&variant.name));
    }
    let (mut machine, mut all, mut errors) = (Watched::begin()?, Vec::new(), Vec::new());
    for number in 1..=rounds {
        machine.round()?;
        let mut round = Round::new();
        for variant in &wanted {
            let mut play = |who: &str, outcome| {
                let label = format!("{}-{who}", variant.name);
                let sample: Option<Sample> = kept(options, &mut errors, (number, &label), outcome);
                if let Some(Sample { up_gbps, down_gbps, .. }) = &sample {
                    eprintln!("round {number}, {label}: up {up_gbps:.2} down {down_gbps:.2} Gbit/s");
                }
                sample
            };
            let ours = play("ours", variant.ours(seconds));
            let alone = play("plain", variant.plain(seconds));
            round.insert(variant.name, (ours, alone));
        }
        all.push(round);
    }
    Ok(Document {
        machine: machine.end()?,
        version: machine::product_version()?,
        policy: "field".into(),
        contenders: vec![
            Contender::new("ours", "serve and connect, AES-256-GCM, in the circumstances the metric names"),
            Contender::new("base", "the same: one flow, IPv4 in IPv4, MTU 1500, native, one worker"),
            Contender::new("plain", "the link itself with as many flows of the same family and MTU"),
        ],
        results: wanted.iter().map(|variant| result(variant, &all)).collect(),
        notes: vec![
            "worse direction of each; one circumstance differs from base at a time, or as the name says".into(),
        ],
        errors,
        ..machine::program_alone("variants")?
    })
}

/// What is asked of a run: nothing by itself.
pub fn unmeasured() -> Vec<Metric> {
    ALL.iter().map(|variant| result(variant, &[])).collect()
}

fn result(variant: &Variant, all: &[Round]) -> Metric {
    let worse = |sample: &Sample| sample.up_gbps.min(sample.down_gbps);
    let series = |name: &str, plain: bool| -> Vec<Option<f64>> {
        let of = |round: &Round| {
            let (ours, alone) = round.get(name)?;
            (if plain { alone } else { ours }).as_ref().map(worse)
        };
        all.iter().map(of).collect()
    };
    let metric = Wanted { metric: variant.name, unit: "Gbit/s", better: Better::Higher, bounds: &[] };
    let mut rivals = BTreeMap::from([("plain".to_owned(), series(variant.name, true))]);
    if variant.name != BASE.name {
        rivals.insert(BASE.name.to_owned(), series(BASE.name, false));
    }
    Metric::new(&metric, series(variant.name, false), rivals)
}
