//! Owns a scenario's file: network, policy, what happens when, and what must hold afterwards. The words are those of
//! `jvpn-ctl policy test`'s files where both have them. Never plays anything.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::session::units::{Permille, Unit};
use serde::{Deserialize, Serialize};

use crate::lab::topology::Path;

/// The files, by name.
pub const SHIPPED: [(&str, &str); 7] = [
    ("hard_death", include_str!("../../../scenarios/hard_death.toml")),
    ("loss_30", include_str!("../../../scenarios/loss_30.toml")),
    ("nat_rotation", include_str!("../../../scenarios/nat_rotation.toml")),
    ("flapping", include_str!("../../../scenarios/flapping.toml")),
    ("replay_flood", include_str!("../../../scenarios/replay_flood.toml")),
    ("reattach_flood", include_str!("../../../scenarios/reattach_flood.toml")),
    ("loss_ttl", include_str!("../../../scenarios/loss_ttl.toml")),
];
/// Those in which nothing is wrong: `bench healthy` plays them.
pub const HEALTHY: [(&str, &str); 3] = [
    ("healthy_loss", include_str!("../../../scenarios/healthy_loss.toml")),
    ("healthy_pauses", include_str!("../../../scenarios/healthy_pauses.toml")),
    ("healthy_buffer", include_str!("../../../scenarios/healthy_buffer.toml")),
];

/// A scenario as its file says; texts as they stand there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(default)]
    pub name: String,
    pub about: String,
    duration: String,
    begins_on: Option<String>,
    /// Sessions beside the one that is meddled with.
    #[serde(default)]
    pub others: usize,
    #[serde(default)]
    pub policy: toml::Table,
    path: Vec<RawPath>,
    #[serde(default)]
    fault: Vec<RawFault>,
    pub pass: Pass,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPath {
    name: String,
    /// One way, beyond the link's own.
    delay: Option<String>,
    loss: Option<String>,
    /// Both ways, with a megabyte of buffer before it.
    bits_per_s: Option<u64>,
}

/// What a path is like all the time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Profile {
    pub delay: Option<Duration>,
    pub loss: Option<f64>,
    pub bits_per_s: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    path: String,
    kind: String,
    value: Option<String>,
    at: String,
    #[serde(rename = "for")]
    lasts: Option<String>,
    every: Option<String>,
    until: Option<String>,
}

/// What must hold. That nothing voids the run must hold always.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// Of the outages after each fault, 99th percentile.
    pub recovery_p99: Option<String>,
    /// Transitions of the session, at most.
    pub transitions: Option<u64>,
    /// Paths that were given up for lost, at most.
    pub given_up: Option<u64>,
    /// What the longest way of a packet must come to: the network was as bad as it should be.
    pub delay_reaches: Option<String>,
    /// Share of the copies that were counted as refused, at least.
    pub refused_percent: Option<u64>,
    /// Inner packets that came twice, at most.
    pub duplicated: Option<u64>,
    /// Requests were refused as too many, and the record calls it an abuse.
    pub abuse: Option<bool>,
    /// Transitions of the other sessions, at most.
    pub others_transitions: Option<u64>,
    /// Reason of the session's end, how long after its loss, and how exactly.
    pub ends_with: Option<String>,
    pub ends_after: Option<String>,
    pub ends_within: Option<String>,
}

/// Which path is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The one in use when it begins.
    Active,
    All,
    At(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Death,
    Loss(f64),
    Rebind,
    /// Nothing passes, nothing is lost.
    Pause,
    /// A transfer of the client's own.
    Bulk,
    /// Copies a second.
    Replay(u64),
    /// Requests a second.
    Reattach(u32),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub what: Kind,
    pub path: Where,
    pub lasts: Duration,
}

impl Plan {
    pub fn shipped(name: &str) -> Result<Plan> {
        Self::of(&SHIPPED, name)
    }

    pub fn healthy(name: &str) -> Result<Plan> {
        Self::of(&HEALTHY, name)
    }

    fn of(files: &[(&str, &str)], name: &str) -> Result<Plan> {
        let names = || files.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let found = files.iter().find(|(known, _)| *known == name);
        let (_, text) = found.with_context(|| format!("no scenario is called {name:?}; there are: {}", names()))?;
        Self::read(name, text)
    }

    fn read(name: &str, text: &str) -> Result<Plan> {
        let mut plan: Plan = toml::from_str(text).with_context(|| format!("scenario {name}"))?;
        plan.name = name.into();
        plan.steps().and_then(|_| plan.pass.check()).with_context(|| format!("scenario {name}"))?;
        for path in &plan.path {
            ensure!(Path::of_transport(&path.name).is_some(), "scenario {name}: the lab has no path {:?}", path.name);
        }
        plan.begins_on()?;
        plan.paths().into_iter().try_for_each(|path| plan.profile(path).map(drop))?;
        Ok(plan)
    }

    pub fn duration(&self) -> Result<Duration> {
        time(&self.duration)
    }

    pub fn begins_on(&self) -> Result<Option<Path>> {
        let named = |name: &String| Path::of_transport(name).with_context(|| format!("no path {name:?}"));
        self.begins_on.as_ref().map(named).transpose()
    }

    /// Delay, loss and rate of a path, where there is any.
    pub fn profile(&self, of: Path) -> Result<Profile> {
        let Some(path) = self.path.iter().find(|path| path.name == of.transport()) else {
            return Ok(Profile::default());
        };
        let (delay, loss) =
            (path.delay.as_deref().map(time).transpose()?, path.loss.as_deref().map(share).transpose()?);
        Ok(Profile { delay, loss, bits_per_s: path.bits_per_s })
    }

    pub fn paths(&self) -> Vec<Path> {
        self.path.iter().filter_map(|path| Path::of_transport(&path.name)).collect()
    }

    /// Lines for the peer's policy.
    pub fn policy_lines(&self) -> Vec<String> {
        self.policy.iter().map(|(key, value)| format!("{key} = {value}")).collect()
    }

    /// Everything that happens, in order of time.
    pub fn steps(&self) -> Result<Vec<Step>> {
        let end = self.duration()?;
        let mut steps = Vec::new();
        for fault in &self.fault {
            let first = fault.step()?;
            let until = fault.until.as_deref().map(time).transpose()?.unwrap_or(end).min(end);
            let Some(every) = fault.every.as_deref().map(time).transpose()? else {
                steps.push(first);
                continue;
            };
            ensure!(every > first.lasts && !every.is_zero(), "a fault begins again before it is over");
            let mut at = first.at;
            while at + first.lasts <= until {
                steps.push(Step { at, ..first });
                at += every;
            }
        }
        ensure!(!steps.is_empty(), "nothing happens");
        ensure!(steps.iter().all(|step| step.at + step.lasts <= end), "a fault lasts longer than the scenario");
        steps.sort_by_key(|step| step.at);
        Ok(steps)
    }
}

impl RawFault {
    fn step(&self) -> Result<Step> {
        let value = || self.value.as_deref().with_context(|| format!("{} needs a value", self.kind));
        let count = || value()?.parse().context("a number a second");
        let what = match self.kind.as_str() {
            "death" => Kind::Death,
            "loss" => Kind::Loss(share(value()?)?),
            "rebind" => Kind::Rebind,
            "pause" => Kind::Pause,
            "bulk" => Kind::Bulk,
            "replay" => Kind::Replay(count()?),
            "reattach" => Kind::Reattach(u32::try_from(count()?)?),
            other => bail!("no fault is called {other:?}"),
        };
        let path = match self.path.as_str() {
            "active" => Where::Active,
            "*" => Where::All,
            name => Where::At(Path::of_transport(name).with_context(|| format!("no path {name:?}"))?),
        };
        let lasts = self.lasts.as_deref().map(time).transpose()?.unwrap_or_default();
        ensure!(lasts.is_zero() == (what == Kind::Rebind), "only a rebind has no length, and it has none");
        ensure!(what != Kind::Rebind || path == Where::At(Path::B), "the NAT is on path-b");
        let through = what != Kind::Bulk || path == Where::Active;
        ensure!(through, "a transfer goes through the tunnel, which is where the session is: path = \"active\"");
        Ok(Step { at: time(&self.at)?, what, path, lasts })
    }
}

impl Pass {
    fn check(&self) -> Result<()> {
        let times = [&self.recovery_p99, &self.ends_after, &self.ends_within, &self.delay_reaches];
        for text in times.into_iter().flatten() {
            time(text)?;
        }
        let ends = [self.ends_with.is_some(), self.ends_after.is_some(), self.ends_within.is_some()];
        ensure!(ends.iter().all(|there| *there == ends[0]), "an end has a reason, a time and its tolerance");
        Ok(())
    }
}

/// A duration as the product's files write it.
pub fn time(text: &str) -> Result<Duration> {
    <Duration as Unit>::parse(text).with_context(|| format!("{} is wanted, not {text:?}", <Duration as Unit>::NAME))
}

fn share(text: &str) -> Result<f64> {
    let permille = Permille::parse(text).with_context(|| format!("{} is wanted, not {text:?}", Permille::NAME))?;
    Ok(f64::from(permille.0) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "about = \"x\"\nduration = \"10s\"\n[[path]]\nname = \"path-a\"\n[pass]\n";

    fn with(fault: &str) -> Result<Plan> {
        Plan::read("small", &format!("{SMALL}[[fault]]\npath = \"path-a\"\n{fault}"))
    }

    #[test]
    fn every_shipped_scenario_is_read_and_something_must_hold_in_it() {
        let read = |(name, text)| (name, Plan::read(name, text).unwrap());
        for (name, plan) in SHIPPED.into_iter().chain(HEALTHY).map(read) {
            assert!(!plan.steps().unwrap().is_empty() && !plan.paths().is_empty(), "{name}");
            let pass = serde_json::to_value(&plan.pass).unwrap();
            assert!(pass.as_object().unwrap().values().any(|bound| !bound.is_null()), "{name} promises nothing");
        }
        assert!(Plan::shipped("hard").is_err_and(|error| error.to_string().contains("hard_death")));
    }

    #[test]
    fn a_fault_comes_again_until_it_would_outlast_the_scenario() {
        let plan = with("kind = \"death\"\nat = \"1s\"\nfor = \"1s\"\nevery = \"3s\"").unwrap();
        let at: Vec<u64> = plan.steps().unwrap().iter().map(|step| step.at.as_secs()).collect();
        assert_eq!(at, [1, 4, 7]);
        let flapping = Plan::shipped("flapping").unwrap().steps().unwrap();
        assert_eq!(flapping.len(), 120, "two deaths a second for a minute");
        let both_dead = flapping.windows(2).any(|pair| pair[0].at + pair[0].lasts > pair[1].at);
        assert!(!both_dead, "a path always lives");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for fault in [
            "kind = \"deaht\"\nat = \"1s\"\nfor = \"1s\"",
            "kind = \"death\"\nat = \"1s\"",
            "kind = \"loss\"\nat = \"1s\"\nfor = \"1s\"",
            "kind = \"rebind\"\nat = \"1s\"",
            "kind = \"bulk\"\nat = \"1s\"\nfor = \"1s\"",
            "kind = \"death\"\nat = \"9s\"\nfor = \"2s\"",
            "kind = \"death\"\nat = \"1s\"\nfor = \"2s\"\nevery = \"1s\"",
            "kind = \"death\"\nat = \"1s\"\nfor = \"2s\"\nweather = \"bad\"",
        ] {
            assert!(with(fault).is_err(), "{fault}");
        }
    }
}
