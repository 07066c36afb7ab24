//! Owns the load of a tunnel bench: one TCP flow each way, the processor time it took, idle round trips. Never knows
//! whose tunnel carries it.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stats::quantile;
use super::ticks::Ticks;
use super::underlay::Underlay;
use crate::lab::child::KillOnDrop;
use crate::lab::netns::Netns;

/// Echo requests, one after the other's answer or this far apart; long enough for both ends to fall asleep.
const PINGS: &str = "400";
const PING_EVERY: &str = "0.002";
/// The same beside a bulk flow, which is over before the requests are.
const PING_EVERY_LOADED: (&str, u32) = ("0.005", 200);
/// The flow's first part, in which it only gets up to speed, does not count.
const RAMP: Duration = Duration::from_millis(300);

/// Round trips.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trips {
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
}

/// How long to measure, and between which addresses.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Seconds of one flow.
    pub seconds: u32,
    /// At once, in one direction.
    pub flows: u32,
    /// The gateway's address inside: where the server listens.
    pub server: IpAddr,
}

/// What one contender did in one round.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub up_gbps: f64,
    pub down_gbps: f64,
    pub cpu_s_per_gb: f64,
    pub rtt_p50_us: f64,
    pub retransmits: u64,
    /// Mean frame on the underlay, proof that nobody had super-packets there.
    pub frame_bytes: f64,
    /// Raw output: name, text.
    pub raw: Vec<(&'static str, String)>,
}

/// One flow.
struct Flow {
    gbps: f64,
    bytes: f64,
    cpu_s: f64,
    retransmits: u64,
    raw: String,
}

/// Measures a tunnel (or the plain link) between the two namespaces of `underlay`.
pub fn measure(underlay: &Underlay, load: Load) -> Result<Sample> {
    let (client, gateway) = (underlay.client(), underlay.gateway());
    let (trips, ping) = idle(underlay, load.server)?;
    let before = underlay.carried()?;
    let up = flow(&client, &gateway, load, &[])?;
    let down = flow(&client, &gateway, load, &["-R"])?;
    let frame_bytes = underlay.carried()?.frame_since(before)?;
    Ok(Sample {
        up_gbps: up.gbps,
        down_gbps: down.gbps,
        cpu_s_per_gb: (up.cpu_s + down.cpu_s) / ((up.bytes + down.bytes) / 1e9),
        rtt_p50_us: trips.p50_us,
        retransmits: up.retransmits + down.retransmits,
        frame_bytes,
        raw: vec![("ping.txt", ping), ("up.json", up.raw), ("down.json", down.raw)],
    })
}

/// Round trips while nothing else is sent, and what ping printed.
pub fn idle(underlay: &Underlay, server: IpAddr) -> Result<(Trips, String)> {
    let address = server.to_string();
    let text = underlay.client().run(&["ping", "-n", "-c", PINGS, "-i", PING_EVERY, &address], None)?;
    Ok((Trips::read(&text)?, text))
}

/// Round trips beside one TCP upload of so many seconds.
pub fn loaded(underlay: &Underlay, server: IpAddr, seconds: u32) -> Result<(Trips, String)> {
    let (client, gateway) = (underlay.client(), underlay.gateway());
    let (every, a_second) = PING_EVERY_LOADED;
    // They end a little before the flow does.
    let count = (a_second * seconds).saturating_sub(a_second / 2).max(1).to_string();
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| flow(&client, &gateway, Load { seconds, flows: 1, server }, &[]));
        std::thread::sleep(RAMP);
        let text = client.run(&["ping", "-n", "-c", &count, "-i", every, &server.to_string()], None);
        let carried = bulk.join().map_err(|_| anyhow::anyhow!("the bulk flow's thread panicked"))??;
        let text = text?;
        ensure!(carried.bytes > 0.0, "the bulk flow carried nothing");
        Ok((Trips::read(&text)?, format!("{text}\nbulk flow: {:.3} Gbit/s\n", carried.gbps)))
    })
}

/// One TCP flow; upwards without further arguments.
fn flow(client: &Netns, gateway: &Netns, load: Load, more: &[&str]) -> Result<Flow> {
    let address = load.server.to_string();
    let server = Server::start(gateway, &address)?;
    let (seconds, flows) = (load.seconds.to_string(), load.flows.to_string());
    let mut command = vec!["iperf3", "-c", &address, "-t", &seconds, "-P", &flows, "-J"];
    command.extend(more);
    let before = Ticks::read()?;
    let raw = client.run(&command, None)?;
    let cpu_s = Ticks::read()?.seconds_since(before);
    drop(server);
    let report: Value = serde_json::from_str(&raw).context("what iperf3 reports")?;
    let end = &report["end"];
    let number = |value: &Value| value.as_f64().context("iperf3 reports no figures");
    Ok(Flow {
        gbps: number(&end["sum_received"]["bits_per_second"])? / 1e9,
        bytes: number(&end["sum_received"]["bytes"])?,
        cpu_s,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        raw,
    })
}

/// A server for one flow, after which it ends by itself; the kill is for a flow that failed.
struct Server(#[expect(dead_code, reason = "held for its drop")] KillOnDrop);

impl Server {
    /// Returns once it listens.
    fn start(space: &Netns, address: &str) -> Result<Server> {
        let address = address.to_owned();
        let mut child = space.enter(move || {
            Command::new("iperf3")
                .args(["-s", "-1", "--forceflush", "-B", &address])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("run iperf3: install it with apt-get install iperf3")
        })?;
        let out = child.stdout.take().context("output of iperf3")?;
        let server = Server(KillOnDrop(child));
        let mut lines = BufReader::new(out).lines();
        loop {
            match lines.next() {
                Some(line) if line.as_ref().is_ok_and(|line| line.contains("listening")) => break,
                Some(_) => {}
                None => bail!("the iperf3 server ended before it listened"),
            }
        }
        // A full pipe would stall the server at its end.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(server)
    }
}

impl Trips {
    /// Of what ping prints. Its first answer, which may wake a neighbour entry, does not count.
    fn read(text: &str) -> Result<Trips> {
        let mut times: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok())
            .skip(1)
            .collect();
        ensure!(!times.is_empty(), "no echo came back: {}", text.lines().last().unwrap_or_default());
        times.sort_by(f64::total_cmp);
        let at = |share| quantile(&times, share).unwrap_or_default() * 1e3;
        Ok(Trips { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_quantiles_without_the_first() {
        let line = |ms| format!("64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time={ms} ms\n");
        let text = ["9.0", "0.1", "0.3", "0.2"].map(line).concat();
        let trips = Trips::read(&text).unwrap();
        assert!((trips.p50_us - 200.0).abs() < 1e-6 && (trips.p90_us - 280.0).abs() < 1e-6);
        assert!(Trips::read("nothing").is_err());
    }
}
