//! Owns the NAT that forgets each mapping a fixed time after it was made, however busy it is, as some carrier-grade NATs
//! do. Works in path B's router only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Lab;
use super::fault::Fault;
use super::netns::Netns;
use super::topology::{GATEWAY_PORT, Path, nat_rules};

/// How often the router's table is looked at: the error of a lifetime.
const LOOK: Duration = Duration::from_millis(100);

impl Lab {
    /// From now on a mapping towards the gateway's port is forgotten `life` after it was first seen, and the next packet
    /// of its port gets another one.
    pub fn nat_lifetime(&self, life: Duration) -> Result<Fault> {
        ensure!(life >= LOOK * 20, "a lifetime of {life:?} is no lifetime");
        let (router, generation) = (self.topology.router(Path::B), Arc::clone(&self.nat_generation));
        // Nobody knows how old those are that exist.
        self.nat_forget_now()?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let worker = thread::Builder::new().name("nat".into()).spawn(move || -> Result<()> {
            let mut seen = BTreeMap::new();
            while !told.load(Ordering::Relaxed) {
                let now = Instant::now();
                let ports = mapped(&router)?;
                seen.retain(|port, _| ports.contains(port));
                for port in ports {
                    if now.duration_since(*seen.entry(port).or_insert(now)) >= life {
                        forget(&router, port, &generation)?;
                        seen.remove(&port);
                    }
                }
                thread::sleep(LOOK);
            }
            Ok(())
        })?;
        Ok(Fault::undone_by(move || {
            over.store(true, Ordering::Relaxed);
            worker.join().map_err(|_| anyhow::anyhow!("the thread of a NAT panicked"))?
        }))
    }
}

/// Client ports with a mapping towards the gateway.
fn mapped(router: &Netns) -> Result<Vec<u16>> {
    let port = GATEWAY_PORT.to_string();
    let table = router.run(&["conntrack", "-L", "-p", "udp", "--orig-port-dst", &port], None)?;
    let of = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("sport="))?.parse().ok();
    Ok(table.lines().filter_map(of).collect())
}

fn forget(router: &Netns, port: u16, generation: &AtomicUsize) -> Result<()> {
    // Rules first: a packet between the two steps must not revive the old port.
    router.nft(&nat_rules(generation.fetch_add(1, Ordering::Relaxed) + 1))?;
    let (from, to) = (port.to_string(), GATEWAY_PORT.to_string());
    let words = ["conntrack", "-D", "-p", "udp", "--orig-port-src", &from, "--orig-port-dst", &to];
    router.run(&words, None).map(|_| ()).context("forget a mapping")
}
