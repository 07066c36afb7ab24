//! Owns the product as a contender: when a trial may begin, and what it recorded of one. Never measures.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cell::{Point, Trial};
use crate::lab::Lab;
use crate::lab::clock::now_ns;
use crate::lab::process::{Product, Role};
use crate::lab::setup::Setup;
use crate::lab::topology::Path;

/// The class `field` but for what would hold back a session that is moved every few seconds on purpose, or let a trial
/// wait for the next look at a standby path.
pub(super) const POLICY: [&str; 6] = [
    "max_switches_per_min = 600",
    "max_requests_per_min = 10000",
    "max_recoveries_degraded = 1000",
    "max_recovery_attempts = 10000",
    "cooldown = \"0ms\"",
    "standby_interval = \"1s\"",
];
/// How long until every path is a validated candidate again: one that was dead is barred for 5 s.
const READY_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What may keep a standby path from being asked for without making it a worse place to flee to.
const HARMLESS: [&str; 3] = ["IMPROVEMENT_TOO_SMALL", "COOLDOWN_ACTIVE", "SWITCHING_FROZEN"];

/// The running product.
pub(super) struct Ours {
    product: Product,
    transports: usize,
}

/// The session as both ends know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) transport: Option<String>,
    pub(super) attached: bool,
    /// Why a trial cannot begin yet.
    missing: Option<String>,
}

impl Ours {
    pub(super) fn start(lab: &Lab, point: Point) -> Result<Ours> {
        let third = point == Point::Paths3;
        let policy = POLICY.map(str::to_owned).to_vec();
        let setup = Setup { policy, third, outside_v6: point == Point::V6, ..Setup::default() };
        let mut product = Product::start(lab, &setup)?;
        product.wait_healthy()?;
        Ok(Ours { product, transports: 2 + usize::from(third) })
    }

    pub(super) fn standing(&self) -> Result<Standing> {
        let status = self.product.json(Role::Client, &["status"])?;
        let paths = self.product.json(Role::Client, &["paths"])?;
        let sessions = self.product.json(Role::Gateway, &["sessions"])?;
        standing(&status, &paths, &sessions, self.transports)
    }

    /// Waits until the session is ATTACHED where a trial begins, and every other path could take it at once.
    pub(super) fn ready(&self, wanted: Option<Path>) -> Result<(Path, Standing)> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            // Right after a start of the gateway a verb may find nobody.
            let seen = self.standing();
            if let Ok(Standing { missing: None, transport: Some(name), .. }) = &seen {
                match Path::of_transport(name) {
                    Some(path) if wanted.is_none_or(|wanted| wanted == path) => return Ok((path, seen?)),
                    // Refused or not: it is looked at again.
                    _ => {
                        self.product.verb(Role::Client, &["jump", "--to", wanted.unwrap_or(Path::A).transport()])?;
                    }
                }
            }
            ensure!(
                Instant::now() < deadline,
                "no trial can begin: {seen:?}\n{}\n{}",
                self.product.log_tail(Role::Gateway),
                self.product.log_tail(Role::Client)
            );
            thread::sleep(POLL);
        }
    }

    /// Asks for a jump until it is granted; the instant before the request that was.
    pub(super) fn jump(&self, to: Path) -> Result<u64> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let at_ns = now_ns();
            let (code, out, err) = self.product.verb(Role::Client, &["jump", "--to", to.transport()])?;
            if code == 0 {
                return Ok(at_ns);
            }
            ensure!(Instant::now() < deadline, "jump to {} exits with {code}: {out}{err}", to.transport());
            thread::sleep(POLL);
        }
    }

    /// Kills the gateway (SIGKILL) and starts it again.
    pub(super) fn crash(&mut self) -> Result<()> {
        self.product.kill(Role::Gateway)?;
        self.product.start_side(Role::Gateway)
    }

    /// Adds to a trial what the gateway recorded of it; an error if the session is another one now or its versions have a
    /// gap: then nothing was survived.
    pub(super) fn note(&self, before: &Standing, trial: &mut Trial) -> Result<()> {
        let (code, out, err) =
            self.product.verb(Role::Gateway, &["events", "--json", "--session", &before.id, "--since", "60s"])?;
        ensure!(code == 0, "events exits with {code}: {err}");
        let records = out.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        note(before, &records, trial)?;
        let after = self.standing()?;
        ensure!(after.id == before.id, "the session was {} and is {}", before.id, after.id);
        Ok(())
    }

    pub(super) fn stop(mut self) -> Result<()> {
        for role in [Role::Client, Role::Gateway] {
            self.product.stop(role)?;
        }
        Ok(())
    }
}

fn standing(status: &Value, paths: &Value, sessions: &Value, transports: usize) -> Result<Standing> {
    let session = &status["session"];
    let live = crate::lab::record::live_session(sessions)?;
    let candidates = session["candidates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let validated = candidates.iter().filter(|one| one["validated"] == true).count();
    let paths = paths["paths"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |state: &str| paths.iter().filter(|path| path["state"] == state).count();
    let held = paths.iter().filter(|path| path["state"] == "standby").find_map(|path| {
        let by = path["held_by"].as_str()?;
        (!HARMLESS.contains(&by)).then(|| format!("{} is held by {by}", path["name"]))
    });
    let attached = session["state"] == "ATTACHED" && live.state == "ATTACHED";
    let missing = if !attached {
        Some(format!("the session is {} for its client, {} for its gateway", session["state"], live.state))
    } else if validated + 1 != transports || of("active") != 1 || of("standby") + 1 != transports {
        Some(format!("{validated} candidates are validated, {} stand by", of("standby")))
    } else {
        held
    };
    Ok(Standing {
        id: live.id,
        version: live.state_version,
        transport: session["transport"]["name"].as_str().map(str::to_owned),
        attached,
        missing,
    })
}

/// What records say of the transitions after `before`.
fn note(before: &Standing, records: &[Value], trial: &mut Trial) -> Result<()> {
    let version = |record: &Value| {
        record["state_version"].as_u64().or_else(|| record["state_version"].as_str()?.parse().ok()).unwrap_or(0)
    };
    let transitions = records.iter().filter(|record| {
        let event = record["event"].as_str();
        matches!(event, Some("STATE_CHANGE" | "TRANSPORT_SWITCH")) && version(record) > before.version
    });
    let mut last = before.version;
    for record in transitions {
        ensure!(version(record) == last + 1, "version {} follows {last}: {record}", version(record));
        last += 1;
        trial.reasons.extend(record["reason"].as_str().map(str::to_owned));
        let ms = |key: &str| record["details"][key].as_f64().map(|us| us / 1e3);
        // The first move is the one the outage ended with.
        for (key, slot) in [
            ("detect_us", &mut trial.detect_ms),
            ("prove_us", &mut trial.prove_ms),
            ("commit_us", &mut trial.commit_ms),
        ] {
            *slot = slot.or(ms(key));
        }
    }
    last.checked_sub(before.version).context("versions fell").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn documents(state: &str, validated: bool, standby: &str, held: Option<&str>) -> [Value; 3] {
        let status = json!({"session": {"state": "ATTACHED", "transport": {"name": "path-a"},
            "candidates": [{"name": "path-b", "validated": validated}]}});
        let paths = json!({"paths": [{"name": "path-a", "state": "active"},
            {"name": "path-b", "state": standby, "held_by": held}]});
        let sessions = json!({"sessions": [{"session_id": "5e55", "state": state, "state_version": 7,
            "transport": {"name": "path-a"}, "addresses": []}]});
        [status, paths, sessions]
    }

    fn seen(documents: &[Value; 3]) -> Standing {
        standing(&documents[0], &documents[1], &documents[2], 2).unwrap()
    }

    #[test]
    fn a_trial_begins_when_the_session_is_attached_and_the_other_path_could_take_it() {
        let ready = seen(&documents("ATTACHED", true, "standby", Some("IMPROVEMENT_TOO_SMALL")));
        assert!(ready.attached && ready.missing.is_none(), "{ready:?}");
        assert_eq!(ready.transport.as_deref(), Some("path-a"));
        for (not_yet, attached) in [
            (documents("VOLATILE", true, "standby", None), false),
            (documents("ATTACHED", false, "standby", None), true),
            (documents("ATTACHED", true, "dead", None), true),
            (documents("ATTACHED", true, "standby", Some("TRANSPORT_SWITCH_DENIED")), true),
        ] {
            let not_yet = seen(&not_yet);
            assert!(not_yet.missing.is_some() && not_yet.attached == attached, "{not_yet:?}");
        }
    }

    #[test]
    fn what_happened_before_a_trial_is_not_of_it_and_a_skipped_version_is_an_error() {
        let before = seen(&documents("ATTACHED", true, "standby", None));
        let record = |version: u64, reason: &str| {
            json!({"event": "TRANSPORT_SWITCH", "state_version": version.to_string(), "reason": reason,
                "details": {"detect_us": 31_000, "prove_us": 2_000}})
        };
        let mut trial = Trial::default();
        note(&before, &[record(7, "RECOVERY_START"), record(8, "REATTACH_ACCEPT")], &mut trial).unwrap();
        assert_eq!(
            (trial.reasons, trial.detect_ms, trial.prove_ms),
            (vec!["REATTACH_ACCEPT".into()], Some(31.0), Some(2.0))
        );
        assert!(note(&before, &[record(9, "REATTACH_ACCEPT")], &mut Trial::default()).is_err());
    }
}
