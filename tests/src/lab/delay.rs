//! Owns delay: a second link between a path's router and the core, through a forwarder that holds each frame for a
//! fixed time. Never reorders, and loses nothing below its bound.
//!
//! ```text
//!   rX ── slow ──── in-x ┐ core (raw ends, no addresses) ┌ out-x ──── slow-x ── core (routes)
//!                        └──── forwarder, two threads ───┘
//! ```
//!
//! The delay is the same for every frame of a path, so a queue in order of arrival is also in order of time.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::Socket;

use super::canary::PATIENCE;
use super::clock::now_ns;
use super::fault::Fault;
use super::netns::Netns;
use super::topology::Path;
use super::{Lab, sys};

/// Frames held per direction: 90,000 a second for 600 ms. More are lost and counted.
const HELD_LIMIT: usize = 54_000;
/// Receive queue of the raw ends: a scheduling pause of 50 ms at 90,000 small frames a second.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Longest sleep, so that a stop is noticed.
const STOP_NOTICE: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    lost: AtomicU64,
}

/// A running forwarder; stops on drop.
#[derive(Debug)]
struct Forwarder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Forwarder {
    fn start(space: &Netns, left: &str, right: &str, delay: Duration) -> Result<Forwarder> {
        let mut forwarder = Forwarder { shared: Arc::default(), threads: Vec::new() };
        for (from, to) in [(left, right), (right, left)] {
            let (input, output) = space.enter(|| Ok((raw(from)?, raw(to)?)))?;
            let shared = Arc::clone(&forwarder.shared);
            forwarder.threads.push(
                thread::Builder::new().name("delay".into()).spawn(move || forward(input, &output, delay, &shared))?,
            );
        }
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            eprintln!("the delay's queue was full for {lost} frames");
        }
    }
}

fn raw(interface: &str) -> Result<Socket> {
    let socket = sys::packet_socket(interface).with_context(|| format!("raw socket on {interface}"))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket)
}

fn forward(mut input: Socket, output: &Socket, delay: Duration, shared: &Shared) {
    let delay_ns = delay.as_nanos() as u64;
    let mut held: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0u8; 2048];
    while !shared.stop.load(Ordering::Relaxed) {
        let now = now_ns();
        while held.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, frame)) = held.pop_front() {
                // The far end may be going down with the lab.
                let _ = output.send(&frame);
            }
        }
        let wait = held.front().map_or(STOP_NOTICE, |(due, _)| {
            Duration::from_nanos(due.saturating_sub(now_ns())).clamp(Duration::from_micros(1), STOP_NOTICE)
        });
        if !sys::readable(&input, wait) {
            continue;
        }
        // A bounded batch, so that frames which fall due meanwhile leave in time.
        for _ in 0..64 {
            let Ok(length) = input.read(&mut buffer) else {
                break;
            };
            if held.len() < HELD_LIMIT {
                held.push_back((now_ns() + delay_ns, buffer[..length].to_vec()));
            } else {
                shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Lab {
    /// Every packet of a path takes `delay` longer, each way.
    pub fn delay(&self, path: Path, delay: Duration) -> Result<Fault> {
        self.canary.prove(path).context("a path must work before it can be slow")?;
        let (router, core) = (self.topology.router(path), self.topology.space("core"));
        let (short, x) = match path {
            Path::A => ("ra", "a"),
            Path::B => ("rb", "b"),
        };
        core.ip(&format!(
            "link add in-{x} type veth peer name slow netns {}\nlink add out-{x} type veth peer name slow-{x}\n",
            router.name()
        ))?;
        let topology = self.topology.clone();
        let undo_core = core.clone();
        let mut undo = Some(move |forwarder: Option<Forwarder>| -> Result<()> {
            undo_core.ip(&format!("link del in-{x}\nlink del out-{x}\n"))?;
            drop(forwarder);
            topology.route(short)?;
            topology.route("core")
        });
        let built = wire(&router, &core, x)
            .and_then(|()| Forwarder::start(&core, &format!("in-{x}"), &format!("out-{x}"), delay));
        let forwarder = match built {
            Ok(forwarder) => forwarder,
            Err(error) => {
                return Err(undo.take().map_or(Ok(()), |undo| undo(None)).err().unwrap_or(error));
            }
        };
        let undo = undo.take().context("the undo is used once")?;
        let fault = Fault::undone_by(move || undo(Some(forwarder)));
        reroute(&router, &core, path)?;
        for v6 in [false, true] {
            // The first probe finds the neighbours, which takes delays of its own.
            let patience = delay * 6 + PATIENCE;
            self.canary.probe_within(path, v6, 64, patience)?;
            let after = self.canary.probe_within(path, v6, 64, patience)?.round_trip;
            let after = after.with_context(|| format!("{path:?} is dead instead of slow"))?;
            ensure!(after >= delay * 2, "a round trip took {after:?}, less than two delays");
        }
        Ok(fault)
    }
}

fn wire(router: &Netns, core: &Netns, x: &str) -> Result<()> {
    for (space, interface) in [
        (router, "slow".to_owned()),
        (core, format!("slow-{x}")),
        (core, format!("in-{x}")),
        (core, format!("out-{x}")),
    ] {
        space.run(&["ethtool", "-K", &interface, "tx", "off", "gro", "off"], None)?;
        if interface.starts_with("slow") {
            let last = if space == core { 2 } else { 1 };
            space.ip(&format!("link set {interface} up\naddress add fe80::{last}/64 dev {interface} nodad\n"))?;
        } else {
            // The raw ends must not answer for the core's own addresses.
            space.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")?;
            space.ip(&format!("link set {interface} arp off\nlink set {interface} up\n"))?;
        }
    }
    Ok(())
}

fn reroute(router: &Netns, core: &Netns, path: Path) -> Result<()> {
    match path {
        Path::A => {
            router.ip(
                "route replace default via 198.18.1.2 dev slow onlink\nroute replace default via fe80::2 dev slow\n",
            )?;
            core.ip("route replace 192.0.2.0/24 via 198.18.1.1 dev slow-a onlink\nroute replace 2001:db8:a::/64 via fe80::1 dev slow-a\n")
        }
        Path::B => {
            router.ip(
                "route replace default via 203.0.113.5 dev slow onlink\nroute replace default via fe80::2 dev slow\n",
            )?;
            core.ip("route replace 203.0.113.6/32 dev slow-b\nroute replace 2001:db8:b::/64 via fe80::1 dev slow-b\n")
        }
    }
}
