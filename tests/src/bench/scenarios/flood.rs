//! Owns the flood of requests: one member of a swarm that asks to move far too often, and a swarm beside it that only works.
//! Never judges.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::client::Phase;
use jvpn_common::secret::PrivateKey;
use jvpn_ctl::runtime::clock;

use super::plan::{Kind, Plan};
use super::play::{Seen, records};
use crate::lab::Lab;
use crate::lab::mode::Xdp;
use crate::lab::topology::{GATEWAY_INTERFACE, GATEWAY_PORT, GATEWAY_V4};
use crate::swarm::host::{Host, Options};
use crate::swarm::{self, Swarm, identities};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two data packets of a member.
const PING: Duration = Duration::from_millis(100);

pub(super) fn play(plan: &Plan) -> Result<Seen> {
    let steps = plan.steps()?;
    let [step] = steps.as_slice() else { anyhow::bail!("one flood, nothing beside it") };
    let Kind::Reattach(rate) = step.what else { anyhow::bail!("not a flood of requests") };
    let lab = Lab::up()?;
    let client = lab.topology.client();
    swarm::settle(&lab.topology)?;
    // The first is the wild one; its addresses are those of the first of the others as well, its ports are not.
    let members = identities(1 + plan.others);
    std::fs::create_dir_all(lab.pin_root()).context("a pin directory")?;
    let options = Options {
        xdp: Xdp::Switched.key()?,
        workers: 0,
        interface: GATEWAY_INTERFACE,
        port: GATEWAY_PORT,
        policy: plan.policy_lines(),
        environment: vec![("JVPN_LOG".into(), "warn".into())],
    };
    let files = lab.files().join("gw");
    let mut host = Host::prepare(lab.topology.gateway(), files, lab.pin_root().join("gateway"), &members, &options)?;
    host.start()?;
    host.wait_up(PATIENCE)?;
    let gateway = (GATEWAY_V4.parse::<Ipv4Addr>()?, GATEWAY_PORT).into();
    let mut members = members.into_iter();
    let mut some = |count: usize, seed| {
        let members: Vec<PrivateKey> = members.by_ref().take(count).collect();
        let plan = swarm::Plan {
            space: client.clone(),
            gateway,
            key: host.key,
            members,
            ping_every: Some(PING),
            standby: true,
            seed,
        };
        Swarm::start(plan)
    };
    let (wild, others) = (some(1, 1)?, some(plan.others, 2)?);
    for swarm in [&wild, &others] {
        wait_bound(swarm, &host)?;
    }
    let start = Instant::now();
    thread::sleep(step.at);
    let before = (wild.book().moves, others.book().opened);
    let from_ns = clock::boot().0;
    wild.insist(rate);
    thread::sleep(step.lasts);
    wild.insist(0);
    let until_ns = clock::boot().0;
    let after = (wild.book().moves, others.book().opened);
    thread::sleep(plan.duration()?.saturating_sub(start.elapsed()));
    let took = step.lasts.as_secs_f64();
    let came = after.1.0.saturating_sub(before.1.0);
    let expected = (plan.others as f64 * took / PING.as_secs_f64()) as u64;
    let mut seen = Seen {
        span_ns: (from_ns, until_ns),
        requests: after.0 - before.0,
        others_lost: after.1.1 + expected.saturating_sub(came),
        ..Seen::default()
    };
    seen.events.push(format!(
        "{} requests of one session in {took} s; {came} of about {expected} data packets of {} others came back",
        seen.requests, plan.others
    ));
    wait_bound(&others, &host).context("after the flood")?;
    drop((wild, others));
    host.stop(PATIENCE)?;
    let (flooder, rest) = records(&host.state())?.into_iter().partition(|record| record.peer == "member-0");
    (seen.records, seen.others) = (flooder, rest);
    lab.down()?;
    Ok(seen)
}

fn wait_bound(swarm: &Swarm, host: &Host) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while swarm.views().iter().any(|view| view.phase != Phase::Connected || view.session.is_none()) {
        ensure!(Instant::now() < deadline, "not everybody is bound\n{}", host.log_tail());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
