//! When which path is probed.
//!
//! Owns the pace: the active path while inner traffic flows, the others rarely, all of them while nothing
//! works. Must never decide what a missing echo means.

use super::command::{Command, PathClass, PathId, Sealed};
use super::confirm::full_size;
use super::delivery::Mark;
use super::mtu::MtuSearch;
use super::paths::{Link, Path};
use super::timing::{RECOVERY_PROBE, WITNESS_INTERVALS};
use super::{Engine, IDLE_AFTER};
use crate::limits::{OVERHEAD_V4, OVERHEAD_V6, PATHS_MAX};
use crate::session::TransportClass;
use crate::time::{Duration, Instant};

/// A lost standby probe is repeated soon, this often, before the path is left in peace.
const STANDBY_RETRIES: u32 = 5;
/// A metered path is probed this many times more rarely while it stands by.
const METERED_FACTOR: u32 = 3;

impl Engine {
    /// Whether inner traffic went out, or in either direction, within [`IDLE_AFTER`].
    pub(super) fn flowing(&self, out_only: bool) -> bool {
        let recent = |at: Option<Instant>| at.is_some_and(|at| self.now.since(at) < IDLE_AFTER);
        recent(self.activity.inner_sent) || (!out_only && recent(self.activity.inner_received))
    }

    /// Gives locators to the paths that may carry the session and have none.
    pub(super) fn assign_links(&mut self) {
        let Some(session) = &self.session else { return };
        let (policy, candidates) = (&session.timing.policy, session.timing.candidates.min(PATHS_MAX));
        let allowed = |class: PathClass| match class {
            PathClass::Primary => policy.allows(TransportClass::Primary),
            PathClass::Secondary => policy.allows(TransportClass::Secondary),
            PathClass::Backup => policy.allows(TransportClass::Backup),
            PathClass::Never => false,
        };
        let mut wanted: Vec<&Path> =
            self.paths.values().filter(|path| path.usable() && allowed(path.info.class)).collect();
        wanted.sort_by_key(|path| (path.link.is_none(), path.info.class, path.id()));
        let ids: Vec<PathId> =
            wanted.into_iter().take(candidates).filter(|path| path.link.is_none()).map(Path::id).collect();
        for id in ids {
            self.assign_link(id);
        }
    }

    fn assign_link(&mut self, id: PathId) {
        let reused = self.reusable_link(id);
        let mut offset = [0; 8];
        self.entropy.fill(&mut offset);
        let Some(session) = &mut self.session else { return };
        let Some(path) = self.paths.get_mut(&id) else { return };
        let search = MtuSearch::new(full_size(session.mtu, path.info.v6), path.info.link_mtu, self.now);
        let link = match session.keys.take_locator() {
            Some((k, locator)) => Link::new(k, locator, u64::from_le_bytes(offset), search),
            None => match reused.and_then(|from| self.paths.get_mut(&from)?.link.take()) {
                // Its counters go on: nothing sealed under it is ever sealed again.
                Some(link) => Link { mtu: search, validated: false, quote: None, bound: false, ..link },
                None => return,
            },
        };
        if let Some(path) = self.paths.get_mut(&id) {
            path.link = Some(link);
            path.probed = None;
        }
    }

    /// A locator the gateway has never acknowledged, on a path that is gone: the last resort.
    fn reusable_link(&self, but: PathId) -> Option<PathId> {
        let free = |path: &&Path| !path.up && path.id() != but && path.link.as_ref().is_some_and(|link| !link.acked);
        self.paths.values().filter(free).max_by_key(|path| path.link.as_ref().map(|link| link.k)).map(Path::id)
    }

    pub(super) fn expire_probes(&mut self) {
        let now = self.now;
        for path in self.paths.values_mut() {
            let after = path.probe_lost_after();
            let Some(link) = &mut path.link else { continue };
            let lost = link.probes.expire(now, after);
            path.missed = path.missed.saturating_add(lost);
            (0..lost).for_each(|_| path.loss.record(false));
        }
    }

    /// When a path wants its next small probe.
    pub(super) fn probe_due(&self, path: &Path) -> Option<Instant> {
        let session = self.session.as_ref()?;
        if !path.usable() || path.link.is_none() {
            return None;
        }
        let Some(probed) = path.probed else { return Some(self.now) };
        let timing = &session.timing;
        if session.lost.is_some() || session.outage.is_some() || self.handshake.is_some() {
            return Some(probed + RECOVERY_PROBE);
        }
        if path.id() == session.active {
            if !self.flowing(false) {
                return Some(probed + timing.standby_interval);
            }
            // Packets that arrive prove the way down; the way up still needs a witness now and then.
            let heard = path.heard.unwrap_or(probed).max(probed);
            let factor = if self.flowing(true) { WITNESS_INTERVALS } else { 2 * WITNESS_INTERVALS };
            return Some((heard + timing.probe_interval).min(probed + timing.probe_interval * factor));
        }
        // Whether it is the gateway or a relay on the active path, the others know.
        let refused = self.paths.get(&session.active).is_some_and(|active| active.refuses);
        if refused || (1..=STANDBY_RETRIES).contains(&path.missed) {
            return Some(probed + RECOVERY_PROBE);
        }
        let factor = if path.info.metered { METERED_FACTOR } else { 1 };
        Some(probed + timing.standby_interval * factor)
    }

    pub(super) fn drive_probes(&mut self) {
        let due: Vec<(PathId, bool)> = self
            .paths
            .values()
            .filter_map(|path| {
                let small = self.probe_due(path).is_some_and(|at| at <= self.now);
                let sizes = path.usable() && path.link.as_ref()?.mtu.due().is_some_and(|at| at <= self.now);
                (small || sizes).then_some((path.id(), small))
            })
            .collect();
        for (id, small) in due {
            if small {
                self.send_probe(id, None, false);
            }
            self.send_sizes(id);
        }
    }

    fn send_sizes(&mut self, id: PathId) {
        let now = self.now;
        let Some(path) = self.paths.get_mut(&id) else { return };
        let (rtt, answered) = (path.rtt.bound(4), path.answered);
        let Some(link) = path.link.as_mut().filter(|link| link.mtu.due().is_some_and(|at| at <= now)) else { return };
        let known = link.path_mtu();
        let sizes = link.mtu.attempt(now, rtt, answered);
        let shrank = link.path_mtu() < known;
        for size in sizes {
            self.send_probe(id, Some(size), false);
        }
        if shrank && self.session.as_ref().is_some_and(|session| session.active == id && session.lost.is_none()) {
            self.use_active();
        }
    }

    /// Sends one probe; a sized one fills an outer packet of that size.
    pub(super) fn send_probe(&mut self, id: PathId, size: Option<u16>, burst: bool) {
        let now = self.now;
        let Some(session) = &self.session else { return };
        let Some(path) = self.paths.get_mut(&id).filter(|path| path.up) else { return };
        let (Some(link), Some(to)) = (&mut path.link, path.endpoint) else { return };
        let headers = if path.info.v6 { OVERHEAD_V6 - OVERHEAD_V4 + 28 } else { 28 };
        let len = size.map_or(0, |size| usize::from(size.saturating_sub(headers)));
        let own = |sealed: &Sealed| sealed.set == session.keys.id && sealed.k == link.k && session.active == id;
        let mark = self.activity.sealed.filter(own).map(|sealed| Mark::new(&sealed, to));
        let (sequence, time) = link.probes.send(now, size, burst, mark);
        let bytes = session.keys.probe(link.k, link.locator, sequence, time, len);
        path.mapping.used(now);
        if size.is_none() {
            path.probed = Some(now);
            path.owe(now);
        }
        self.commands.push_back(Command::Send { path: id, to, bytes });
    }

    pub(super) fn on_traffic_started(&mut self) {
        let Some(session) = &self.session else { return };
        let active = session.active;
        let recent = Duration::from_millis(1);
        if self.paths.get(&active).is_some_and(|path| path.probed.is_none_or(|at| self.now.since(at) >= recent)) {
            self.send_probe(active, None, false);
        }
    }
}
