//! Owns reading one metric out of what the verb `metrics` says as JSON. Never takes a metric that is not there for zero.

use serde_json::Value;

/// The samples of a metric that have all of these labels; of a histogram, how many each counted.
///
/// # Panics
/// When there is no such metric.
pub fn samples<'a>(
    document: &'a Value,
    name: &'a str,
    labels: &'a [(&'a str, &'a str)],
) -> impl Iterator<Item = f64> + 'a {
    let families = document["families"].as_array().expect("families");
    let family = families.iter().find(|family| family["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let samples = family["samples"].as_array().expect("samples").iter();
    let samples = samples.filter(move |sample| labels.iter().all(|(label, value)| sample["labels"][*label] == *value));
    samples.filter_map(|sample| sample.get("count").unwrap_or(&sample["value"]).as_f64())
}
