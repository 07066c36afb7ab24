//! What a daemon counts, as OpenMetrics text and as JSON.
//!
//! Owns how samples are collected and written; `table` says which there are. Must never hold a sample with other labels
//! than its family has, nor one of another role's family.

use super::counted::{BUCKETS, Counts, Histogram, PHASES};
use super::fanout::Sink;
use super::table::{Kind, Metric};
use crate::api::model::{Body, Status, Xdp};
use crate::config::Role;
use crate::dataplane::DataPlane;
use crate::tunnel::{Counter, Counters};
use jvpn_common::verdict::Verdict;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use std::collections::{BTreeMap, HashMap};

/// The type of the text, as OpenMetrics 1.0 asks for it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// No example of a single measurement is given.
type NoExemplars<'a> = Option<&'a HashMap<usize, Exemplar<NoLabelSet, f64>>>;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Count(u64),
    Level(f64),
    Lengths(Box<Histogram>),
    Fact,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

/// Everything a daemon has to show.
#[derive(Clone, Debug)]
pub struct Exposition {
    role: Role,
    samples: BTreeMap<Metric, Vec<Sample>>,
}

impl Exposition {
    /// Nothing yet but who it is.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let mut new = Self { role, samples: BTreeMap::new() };
        let name = match role {
            Role::Gateway => "gateway",
            Role::Relay => "relay",
            Role::Client => "client",
        };
        let facts = [env!("CARGO_PKG_VERSION"), env!("JVPN_EBPF_HASH"), crate::FEATURES, name];
        new.add(Metric::Build, &facts, Value::Fact);
        new
    }

    fn add(&mut self, metric: Metric, labels: &[&str], value: Value) {
        debug_assert!(metric.is_of(self.role) && labels.len() == metric.labels().len(), "{metric:?} {labels:?}");
        let labels = metric.labels().iter().copied().zip(labels.iter().map(|&value| value.to_owned())).collect();
        self.samples.entry(metric).or_default().push(Sample { labels, value });
    }

    /// A number that only grows.
    pub fn count(&mut self, metric: Metric, labels: &[&str], value: u64) {
        self.add(metric, labels, Value::Count(value));
    }

    /// A number that goes up and down.
    pub fn level(&mut self, metric: Metric, labels: &[&str], value: f64) {
        self.add(metric, labels, Value::Level(value));
    }

    /// The same of things that are counted.
    pub fn number(&mut self, metric: Metric, labels: &[&str], value: usize) {
        // Exact up to 2⁵³ of them.
        self.level(metric, labels, value as f64);
    }

    /// Whether something is so.
    pub fn flag(&mut self, metric: Metric, value: bool) {
        self.level(metric, &[], f64::from(u8::from(value)));
    }

    /// What `status` says.
    pub fn status(&mut self, status: &Status) {
        self.flag(Metric::Healthy, status.healthy);
        self.number(Metric::Problems, &[], status.problems.len());
        if Metric::XdpInterfaces.is_of(self.role) {
            self.interfaces(&status.interfaces);
        }
    }

    fn interfaces(&mut self, interfaces: &[Xdp]) {
        for mode in ["native", "generic", "missing"] {
            let count = interfaces.iter().filter(|xdp| xdp.mode == mode).count();
            self.number(Metric::XdpInterfaces, &[mode], count);
        }
    }

    /// What a worker counted.
    pub fn worker(&mut self, counters: &Counters) {
        let whole = [
            (Metric::RxBytes, Counter::RxBytes),
            (Metric::TxBytes, Counter::TxBytes),
            (Metric::RxPackets, Counter::RxPackets),
            (Metric::TxPackets, Counter::TxPackets),
        ];
        for (metric, counter) in whole {
            self.count(metric, &[], counters.value(counter));
        }
        for &counter in Counter::ALL.iter().filter(|counter| whole.iter().all(|(_, known)| known != *counter)) {
            let value = counters.value(counter);
            match counter.name().strip_prefix("drop_") {
                Some(reason) => self.count(Metric::WorkerDrops, &[reason], value),
                None => self.count(Metric::WorkerActions, &[counter.name()], value),
            }
        }
    }

    /// Every verdict; none of them when the maps cannot be read.
    pub fn verdicts(&mut self, plane: &dyn DataPlane) {
        let Ok(verdicts) = plane.verdicts() else { return };
        for &verdict in Verdict::ALL {
            self.count(Metric::XdpVerdicts, &[verdict.name()], verdicts.kernel(verdict));
            self.count(Metric::WorkerVerdicts, &[verdict.name()], verdicts.worker(verdict));
        }
    }

    /// What the records said.
    pub(super) fn counts(&mut self, counts: &Counts) {
        for ((event, reason), &count) in &counts.events {
            self.count(Metric::Events, &[event.name(), reason.map_or("", |reason| reason.name())], count);
        }
        if Metric::Transitions.is_of(self.role) {
            for ((from, to, reason), &count) in &counts.transitions {
                self.count(Metric::Transitions, &[from.name(), to.name(), reason.name()], count);
            }
        }
        if Metric::Switch.is_of(self.role) {
            for (phase, lengths) in PHASES.iter().zip(&counts.phases) {
                self.add(Metric::Switch, &[phase], Value::Lengths(Box::new(lengths.clone())));
            }
            for (cause, lengths) in &counts.outages {
                self.add(Metric::Outage, &[cause.name()], Value::Lengths(Box::new(lengths.clone())));
            }
        }
    }

    pub(super) fn sink(&mut self, sink: Sink, sent: u64, dropped: u64) {
        self.count(Metric::Sent, &[sink.name()], sent);
        self.count(Metric::Dropped, &[sink.name()], dropped);
    }

    fn families(&self) -> impl Iterator<Item = (Metric, &[Sample])> {
        let of_role = Metric::ALL.iter().copied().filter(|metric| metric.is_of(self.role));
        of_role.map(|metric| (metric, self.samples.get(&metric).map_or(&[][..], Vec::as_slice)))
    }

    /// OpenMetrics 1.0.
    #[must_use]
    pub fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        text::encode(&mut written, &registry).expect("a text has room for more, and that is all that could fail");
        written
    }

    /// The same as a document.
    #[must_use]
    pub fn document(&self) -> Metrics {
        let families = self.families().map(|(metric, samples)| Family {
            name: metric.name().to_owned(),
            r#type: metric.kind().name().to_owned(),
            unit: metric.unit().to_owned(),
            help: metric.help().to_owned(),
            samples: samples.iter().map(View::from).collect(),
        });
        Metrics { families: families.collect() }
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (metric, samples) in self.families() {
            let unit = match metric.unit() {
                "" => None,
                "seconds" => Some(Unit::Seconds),
                "bytes" => Some(Unit::Bytes),
                other => Some(Unit::Other(other.to_owned())),
            };
            let kind = match metric.kind() {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut family = encoder.encode_descriptor(metric.stem(), metric.help(), unit.as_ref(), kind)?;
            for Sample { labels, value } in samples {
                let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                match value {
                    Value::Fact => family.encode_info(&labels)?,
                    _ if labels.is_empty() => encode(&mut family, value)?,
                    _ => encode(&mut family.encode_family(&labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, value: &Value) -> Result<(), std::fmt::Error> {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
        Value::Level(level) => encoder.encode_gauge(level),
        Value::Lengths(lengths) => {
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(lengths.counts).collect();
            let none: NoExemplars<'_> = None;
            encoder.encode_histogram(lengths.sum, lengths.count(), &buckets, none)
        }
        Value::Fact => Ok(()),
    }
}

/// What a daemon counts.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Metrics {
    /// In the order of docs/telemetry.md.
    pub families: Vec<Family>,
}

impl Body for Metrics {
    const SCHEMA: &'static str = "jvpn.metrics/1";
}

/// One metric.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Family {
    /// Its name, unit included.
    pub name: String,
    /// counter, gauge, histogram or info.
    pub r#type: String,
    /// Empty for a bare number.
    pub unit: String,
    /// What it means.
    pub help: String,
    /// By label.
    pub samples: Vec<View>,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct View {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its number; of a histogram the sum.
    pub value: f64,
    /// Of a histogram: how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of a histogram: upper bound and how many were up to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<(f64, u64)>,
}

impl From<&Sample> for View {
    fn from(sample: &Sample) -> Self {
        let labels = sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let bare = |value| Self { labels, value, count: None, buckets: Vec::new() };
        match &sample.value {
            // Exact up to 2⁵³; the text has every digit.
            Value::Count(count) => bare(*count as f64),
            Value::Level(level) => bare(*level),
            Value::Fact => bare(1.0),
            Value::Lengths(lengths) => {
                let up_to = lengths.counts.iter().scan(0, |sum, count| {
                    *sum += count;
                    Some(*sum)
                });
                let buckets = BUCKETS.into_iter().zip(up_to).collect();
                Self { count: Some(lengths.count()), buckets, ..bare(lengths.sum) }
            }
        }
    }
}

#[cfg(test)]
pub(crate) fn schema() -> (&'static str, schemars::Schema) {
    (Metrics::SCHEMA, schemars::schema_for!(crate::api::model::Envelope<Metrics>))
}

#[cfg(test)]
mod tests;
