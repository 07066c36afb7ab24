//! Owns the load of a tunnel bench: one TCP flow each way, the processor time it took, idle round trips. Never knows
//! whose tunnel carries it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stats::quantile;
use super::underlay::Underlay;
use crate::lab::netns::Netns;

/// Ticks a second in /proc/stat: fixed by the ABI on every Linux of this architecture.
pub const USER_HZ: f64 = 100.0;
/// Echo requests, one after the other's answer or this far apart; long enough for both ends to fall asleep.
const PINGS: &str = "400";
const PING_EVERY: &str = "0.002";

/// How long to measure, and between which addresses.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Seconds of one flow.
    pub seconds: u32,
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
    let ping = client.run(&["ping", "-n", "-c", PINGS, "-i", PING_EVERY, &load.server.to_string()], None)?;
    let before = underlay.carried()?;
    let up = flow(&client, &gateway, load, &[])?;
    let down = flow(&client, &gateway, load, &["-R"])?;
    let frame_bytes = underlay.carried()?.frame_since(before)?;
    Ok(Sample {
        up_gbps: up.gbps,
        down_gbps: down.gbps,
        cpu_s_per_gb: (up.cpu_s + down.cpu_s) / ((up.bytes + down.bytes) / 1e9),
        rtt_p50_us: round_trip_us(&ping)?,
        retransmits: up.retransmits + down.retransmits,
        frame_bytes,
        raw: vec![("ping.txt", ping), ("up.json", up.raw), ("down.json", down.raw)],
    })
}

/// One TCP flow; upwards without further arguments.
fn flow(client: &Netns, gateway: &Netns, load: Load, more: &[&str]) -> Result<Flow> {
    let address = load.server.to_string();
    let mut server = Server::start(gateway, &address)?;
    let seconds = load.seconds.to_string();
    let mut command = vec!["iperf3", "-c", &address, "-t", &seconds, "-J"];
    command.extend(more);
    let before = busy_ticks()?;
    let raw = client.run(&command, None)?;
    let cpu_s = busy_ticks()?.saturating_sub(before) as f64 / USER_HZ;
    server.stop();
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

/// A server for one flow.
struct Server(Child);

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
        let server = Server(child);
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

    fn stop(&mut self) {
        // It ends by itself after its one flow; the kill is for a flow that failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ticks all processors were busy so far, everybody's.
pub fn busy_ticks() -> Result<u64> {
    ticks(&fs::read_to_string("/proc/stat").context("read /proc/stat")?).map(|(busy, _)| busy)
}

/// Share of the machine that was busy during `work`.
pub fn busy_share(work: impl FnOnce()) -> Result<f64> {
    let read = || ticks(&fs::read_to_string("/proc/stat").context("read /proc/stat")?);
    let before = read()?;
    work();
    let after = read()?;
    let all = after.1.saturating_sub(before.1).max(1);
    Ok(after.0.saturating_sub(before.0) as f64 / all as f64)
}

/// Busy and all ticks. Order in the file: user nice system idle iowait irq softirq steal; guests are in user.
fn ticks(stat: &str) -> Result<(u64, u64)> {
    let line = stat.lines().next().context("empty /proc/stat")?;
    let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).take(8).collect();
    let [user, nice, system, idle, wait, irq, soft, steal] = fields[..] else {
        bail!("unknown first line of /proc/stat: {line}");
    };
    let busy = user + nice + system + irq + soft;
    Ok((busy, busy + idle + wait + steal))
}

/// Median of what ping prints, in microseconds. Its first answer, which may wake a neighbour entry, does not count.
fn round_trip_us(text: &str) -> Result<f64> {
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok())
        .skip(1)
        .collect();
    ensure!(!times.is_empty(), "no echo came back: {}", text.lines().last().unwrap_or_default());
    times.sort_by(f64::total_cmp);
    Ok(quantile(&times, 0.5).unwrap_or_default() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_stolen_time_is_not_busy() {
        assert_eq!(ticks("cpu  1 2 3 100 50 4 5 7 9 9\ncpu0 0\n").unwrap(), (15, 172));
        assert!(ticks("cpu one\n").is_err());
    }

    #[test]
    fn the_round_trip_is_the_median_without_the_first() {
        let line = |ms| format!("64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time={ms} ms\n");
        let text = ["9.0", "0.1", "0.3", "0.2"].map(line).concat();
        assert!((round_trip_us(&text).unwrap() - 200.0).abs() < 1e-6);
        assert!(round_trip_us("nothing").is_err());
    }
}
