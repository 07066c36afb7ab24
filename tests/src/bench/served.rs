//! A gateway's process and a swarm of clients over real sockets in a lab, for benches. Owns their set-up and what a bench
//! waits for. Must never take a member for attached that is not, and never go on without one.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::client::{EventKind, Phase};
use jvpn_common::time::Instant as Boot;
use jvpn_ctl::runtime::clock::boot;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::machine;
use crate::lab::netns::Netns;
use crate::lab::topology::{GATEWAY_INTERFACE, GATEWAY_PORT, GATEWAY_V4};
use crate::lab::{Lab, require_root};
use crate::swarm::host::{Host, Options};
use crate::swarm::{self, Plan, Swarm, identities};

/// Between two looks at the swarm: each stops it for as long as it takes to count its members.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Members of which at most one has two sockets, since it moves.
const MEMBERS_OF_A_SPARE: usize = 2;
/// Descriptors for everything else.
const OTHERS: u64 = 1_000;
/// Until so many members have a session: each birth is on the disk before it is acknowledged, and a slow one syncs a
/// hundred times a second.
fn attach_within(members: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(30) * u32::try_from(members).unwrap_or(u32::MAX)
}
/// First number of what is drawn at random.
const SEED: u64 = 0x6372_6f77_6421;

/// What a bench asks of one.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub members: usize,
    pub ping_every: Option<Duration>,
    /// `probe_interval` and `dead_after` of the members' policy.
    pub probing: [&'static str; 2],
    pub xdp: &'static str,
    /// Until everybody is back, or served.
    pub patience: Duration,
}

impl Wanted {
    /// No quality decides anything here: only moves that the swarm began do.
    fn policy(&self) -> Vec<String> {
        let [probe_interval, dead_after] = self.probing;
        let times = [("probe_interval", probe_interval), ("dead_after", dead_after), ("standby_interval", "10s")];
        let times =
            times.into_iter().chain([("cooldown", "0ms"), ("rtt_threshold", "30s"), ("jitter_threshold", "30s")]);
        let text = [("loss_threshold", "100 %"), ("loss_floor", "100 %")];
        let numbers = ["max_switches_per_min = 600", "max_requests_per_min = 10000"].map(str::to_owned);
        numbers.into_iter().chain(times.chain(text).map(|(key, value)| format!("{key} = \"{value}\""))).collect()
    }

    /// The policy in a line, for a document.
    #[must_use]
    pub fn policy_line(&self) -> String {
        format!("bench: {}", self.policy().join(", "))
    }
}

/// A gateway and its swarm. The order of fields is the order of the end.
#[derive(Debug)]
pub struct Served {
    pub swarm: Swarm,
    pub host: Host,
    lab: Lab,
    members: usize,
    patience: Duration,
}

impl Served {
    /// Both, everybody attached; how long that took from the first handshake.
    ///
    /// # Errors
    /// When the lab, the gateway or one member does not come up.
    pub fn up(wanted: &Wanted) -> Result<(Served, Duration)> {
        require_root()?;
        allow_sockets((wanted.members + wanted.members / MEMBERS_OF_A_SPARE) as u64 + OTHERS)?;
        let lab = Lab::up()?;
        let client = lab.topology.client();
        swarm::settle(&lab.topology)?;
        let members = identities(wanted.members);
        fs::create_dir_all(lab.pin_root()).context("a directory for pins")?;
        let environment = vec![("JVPN_LOG".to_owned(), "warn".to_owned())];
        let (xdp, interface, port, policy) = (wanted.xdp, GATEWAY_INTERFACE, GATEWAY_PORT, wanted.policy());
        let options = Options { xdp, workers: 0, interface, port, policy, environment };
        let (directory, pins) = (lab.files().join("gw"), lab.pin_root().join("gateway"));
        let mut host = Host::prepare(lab.topology.gateway(), directory, pins, &members, &options)?;
        host.start()?;
        host.wait_up(wanted.patience)?;
        let began = boot();
        let plan = Plan {
            space: client,
            gateway: (GATEWAY_V4.parse::<Ipv4Addr>()?, GATEWAY_PORT).into(),
            key: host.key,
            members,
            standby: false,
            ping_every: wanted.ping_every,
            seed: SEED,
        };
        let swarm = Swarm::start(plan)?;
        let served = Served { swarm, host, lab, members: wanted.members, patience: wanted.patience };
        served.attached_within(attach_within(wanted.members), "at first")?;
        Ok((served, boot().since(began)))
    }

    /// Waits until everybody has a session that is bound and knows the present start of the gateway.
    ///
    /// # Errors
    /// When one does not: it is stranded.
    pub fn all_attached(&self, when: &str) -> Result<()> {
        self.attached_within(self.patience, when)
    }

    fn attached_within(&self, patience: Duration, when: &str) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let views = self.swarm.views();
            let newest = views.iter().map(|view| view.incarnation).max();
            let is_attached = |view: &&jvpn_common::client::View| {
                view.phase == Phase::Connected && Some(view.incarnation) == newest && view.session.is_some()
            };
            let stranded = views.iter().filter(|view| !is_attached(view)).count();
            if stranded == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{when}: {stranded} of {} stranded\n{}", self.members, self.host.log_tail());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until everybody was acknowledged after an instant, and says how long after it each first was, in order.
    ///
    /// # Errors
    /// When one was not.
    pub fn all_back(&self, since: Boot, from: Boot, when: &str) -> Result<Vec<Duration>> {
        let deadline = Instant::now() + self.patience;
        loop {
            let mut back = std::collections::BTreeMap::new();
            for acked in self.swarm.book().acked.iter().rev().take_while(|acked| acked.at >= since) {
                let bound = [EventKind::Resumed, EventKind::SessionCreated, EventKind::TransportSwitch];
                if bound.contains(&acked.kind) {
                    back.insert(acked.member, acked.at);
                }
            }
            if back.len() == self.members {
                let mut times: Vec<_> = back.into_values().map(|at| at.since(from)).collect();
                times.sort_unstable();
                return Ok(times);
            }
            if Instant::now() > deadline {
                bail!("{when}: {} of {} came back\n{}", back.len(), self.members, self.host.log_tail());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until nobody moves any more, and says how long the moves took that were acknowledged after the first `before` of
    /// them, in order.
    ///
    /// # Errors
    /// When one is never acknowledged: it is stranded.
    pub fn moves_since(&self, before: usize) -> Result<Vec<Duration>> {
        let deadline = Instant::now() + self.patience;
        loop {
            let book = self.swarm.book();
            if book.under_way == 0 {
                let mut took: Vec<_> = book.took.iter().skip(before).copied().collect();
                took.sort_unstable();
                return Ok(took);
            }
            ensure!(Instant::now() < deadline, "{} moves were never acknowledged", book.under_way);
            drop(book);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until a data packet opened for everybody after now.
    ///
    /// # Errors
    /// When one hears nothing.
    pub fn all_served(&self, when: &str) -> Result<()> {
        let (since, deadline) = (boot(), Instant::now() + self.patience);
        loop {
            let served = self.swarm.book().heard.values().filter(|at| **at >= since).count();
            if served == self.members {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{when}: data reaches {served} of {} members", self.members);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks the gateway's own verbs: every member has one session, no two are bound to one address, and the record holds.
    ///
    /// # Errors
    /// When one of that is not so.
    pub fn no_dual_binding(&self, when: &str) -> Result<()> {
        let document = self.host.json(&["sessions"])?;
        let sessions = document["sessions"].as_array().context("no list of sessions")?;
        let live = sessions.iter().filter(|session| session["state"] != "TERMINATED");
        let bound: Vec<_> = live.map(|session| (&session["peer"], &session["transport"]["remote"])).collect();
        let texts = |pick: fn(&(&serde_json::Value, &serde_json::Value)) -> Option<String>| {
            bound.iter().filter_map(pick).collect::<std::collections::BTreeSet<_>>().len()
        };
        let peers = texts(|(peer, _)| peer.as_str().map(str::to_owned));
        let places = texts(|(_, remote)| remote.as_str().map(str::to_owned));
        ensure!(
            (bound.len(), peers, places) == (self.members, self.members, self.members),
            "{when}: {} sessions of {peers} peers bound to {places} addresses, {} members",
            bound.len(),
            self.members
        );
        let (code, said, error) = self.host.verb(&["audit", "verify"])?;
        ensure!(code == 0, "{when}: the record does not hold: {said}{error}");
        Ok(())
    }

    /// Where the members are.
    #[must_use]
    pub fn clients(&self) -> Netns {
        self.lab.topology.client()
    }

    /// Resident memory of the gateway's process, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident(&self) -> Result<u64> {
        machine::resident(self.host.pid().context("it does not run")?)
    }

    /// Kernel memory of the maps that the gateway's process holds, in bytes, by the kernel's own accounting.
    ///
    /// # Errors
    /// When it holds none: the kernel program is off.
    pub fn map_memory(&self) -> Result<u64> {
        let mut maps = std::collections::BTreeMap::new();
        let pid = self.host.pid().context("it does not run")?;
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // A descriptor may be gone by now.
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            maps.extend(field("map_id:").zip(field("memlock:")));
        }
        ensure!(!maps.is_empty(), "the gateway holds no maps");
        Ok(maps.values().sum())
    }

    /// Processor time of the gateway's process and of this one, the swarm's.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processor_time(&self) -> Result<[Duration; 2]> {
        let gateway = self.host.pid().context("it does not run")?;
        Ok([processor_time(gateway)?, processor_time(std::process::id())?])
    }
}

/// Processor time of all threads of a process. The kernel counts it in hundredths of a second.
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    ticks(&stat).context("no such fields").map(|ticks| Duration::from_millis(10 * ticks))
}

/// User and system time out of `/proc/PID/stat`: its 14th and 15th fields, counted behind a name that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Lets this process, and those it starts, have so many descriptors.
fn allow_sockets(count: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|limit| limit >= count) {
        return Ok(());
    }
    let maximum = now.maximum.map(|limit| limit.max(count));
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum })
        .with_context(|| format!("{count} descriptors; run as root, or raise fs.nr_open"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_name_with_spaces_and_brackets() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 6 0 100 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 nothing"), None);
    }

    #[test]
    fn the_policy_of_a_bench_is_one_the_product_takes() {
        let wanted =
            Wanted { members: 1, ping_every: None, probing: ["500ms", "1s"], xdp: "off", patience: Duration::ZERO };
        let mut policy = jvpn_common::session::Policy::field();
        for line in wanted.policy() {
            let (key, value) = line.split_once(" = ").unwrap();
            policy.set(key, value.trim_matches('"')).unwrap();
        }
    }
}
