//! `bench handshake`: whole handshakes a second that one core makes. Owns the rounds. Never counts one whose session is not
//! bound in the end.

use std::collections::BTreeMap;

use anyhow::Result;

use super::control::crowd::Crowd;
use super::document::{Better, Contender, Document, LIMIT, Metric, Wanted};
use super::{Options, machine};

/// Rounds, and peers of each: new ones every time.
const FULL: (u32, u32) = (9, 2_000);
const QUICK: (u32, u32) = (3, 100);
/// Handshakes a second of one core that must be reached, and what is aimed at.
const MUST: f64 = 5_000.0;
const GOAL: f64 = 9_000.0;

/// One round; handshakes a second of the gateway's processor time.
fn round(count: u32, with_cookie: bool) -> Result<f64> {
    let mut crowd = Crowd::new(count, if with_cookie { 0 } else { u32::MAX });
    crowd.attach(with_cookie)?;
    Ok(f64::from(count) / crowd.gateway.spent().as_secs_f64())
}

pub fn run(options: &Options) -> Result<Document> {
    let (rounds, count) = if options.quick { QUICK } else { FULL };
    let rounds = options.rounds(rounds)?;
    let (mut cookie, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cookie.push(Some(round(count, true)?));
        plain.push(Some(round(count, false)?));
    }
    Ok(Document {
        contenders: vec![
            Contender::new(
                "ours",
                "the gateway's engine and its handshake jobs: message 1 to the CONFIRM that binds; no socket",
            ),
            Contender::new(LIMIT, "the must in handshakes a second; its ratio must not be below 1"),
        ],
        results: results(cookie, plain),
        notes: vec![
            format!("{rounds} rounds of {count} new peers; processor time of the gateway's side only"),
            "handshakes_per_s: under load, so that each message 1 is asked for a cookie first and comes again".into(),
        ],
        policy: "bench".into(),
        ..machine::program_alone("handshake")?
    })
}

fn results(cookie: Vec<Option<f64>>, plain: Vec<Option<f64>>) -> Vec<Metric> {
    let result = |metric, samples: Vec<Option<f64>>| {
        let wanted = Wanted {
            metric,
            unit: "handshakes a second of one core",
            better: Better::Higher,
            bounds: &[(LIMIT, GOAL / MUST, 1.0)],
        };
        Metric::limited(&wanted, samples, BTreeMap::new(), Some(MUST))
    };
    vec![result("handshakes_per_s", cookie), result("handshakes_unloaded_per_s", plain)]
}

/// What is asked of a run.
pub fn unmeasured() -> Vec<Metric> {
    results(Vec::new(), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_a_figure_with_cookies_and_without() {
        for with_cookie in [true, false] {
            let rate = round(3, with_cookie).unwrap();
            assert!(rate.is_finite() && rate > 0.0, "{rate}");
        }
    }
}
