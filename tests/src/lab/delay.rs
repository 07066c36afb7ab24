//! Owns delay: a second link between a path's router and the core, through a forwarder that holds each frame for a
//! fixed time. Never reorders, and loses nothing below its bound.
//!
//! ```text
//!   rX ── slow ──── in-x ┐ core (raw ends, no addresses) ┌ out-x ──── slow-x ── core (routes)
//!                        └──── forwarder, one thread ────┘
//! ```

mod forward;
pub mod trial;

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use forward::Forwarder;
pub(super) use forward::Pauser;

use super::Lab;
use super::canary::PATIENCE;
use super::fault::Fault;
use super::netns::Netns;
use super::topology::Path;

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
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).insert(path, forwarder.pauser());
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

    /// A path that has a delay lets nothing pass until this ends, and then everything at once, as a radio does that changes
    /// its cell. Its end is an error if nobody sent anything meanwhile.
    pub fn pause(&self, path: Path) -> Result<Fault> {
        let pauser = self.pauser(path);
        let pauser = pauser.with_context(|| format!("{path:?} has no delay, which is what can be paused"))?;
        pauser.pause(true).with_context(|| format!("the delay of {path:?} is gone"))?;
        Ok(Fault::undone_by(move || {
            let waited = pauser.pause(false).context("the delay was gone before its pause")?;
            ensure!(waited > 0, "nothing waited: nobody used {path:?}");
            Ok(())
        }))
    }

    fn pauser(&self, path: Path) -> Option<Pauser> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned()
    }

    /// Whether a path has a delay now.
    pub(super) fn is_slow(&self, path: Path) -> bool {
        self.pauser(path).is_some_and(|pauser| pauser.is_live())
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
