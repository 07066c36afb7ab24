//! What a gateway counts.
//!
//! Owns the translation of what engine, maps and worker counted. Must never count anything itself.

use super::Gateway;
use super::sockets::family;
use crate::config::Role;
use crate::observe::metrics::Exposition;
use crate::observe::table::Metric;
use crate::tunnel::Counter;
use jvpn_common::session::State;

impl Gateway {
    pub(super) fn metrics(&self) -> Exposition {
        let mut to = Exposition::new(Role::Gateway);
        let view = self.engine.view();
        to.status(&self.status());
        for state in State::ALL {
            to.number(Metric::Sessions, &[state.name()], view.states.get(state).copied().unwrap_or(0));
        }
        to.level(Metric::SessionsMax, &[], self.config.max_sessions.into());
        to.number(Metric::Pending, &[], view.pending);
        to.flag(Metric::StoreFailing, self.executor.keeper.is_failing());
        to.count(Metric::StoreSyncs, &[], self.executor.keeper.syncs());
        to.worker(&self.workers.counters());
        for (worker, counters) in self.workers.each().enumerate() {
            let worker = worker.to_string();
            to.count(Metric::WorkerBatches, &[&worker], counters.value(Counter::RxBatches));
            for (direction, counter) in [("in", Counter::RxPackets), ("out", Counter::TxPackets)] {
                to.count(Metric::WorkerPackets, &[&worker, direction], counters.value(counter));
            }
        }
        for (any, group) in self.executor.sockets.groups() {
            let lost = group.iter().map(|port| port.dropped()).sum();
            to.count(Metric::SocketDrops, &[family(&any)], lost);
        }
        for (drop, &count) in &view.drops {
            // Their names are those of `status`, made by serde.
            let name = serde_json::to_value(drop).unwrap_or_default();
            to.count(Metric::ControllerDrops, &[name.as_str().unwrap_or_default()], count);
        }
        to.verdicts(&*self.executor.plane);
        let connected = self.relays.each().filter(|(_, connected)| *connected).count();
        to.number(Metric::Streams, &["connected"], connected);
        to.number(Metric::Streams, &["missing"], self.relays.each().count() - connected);
        to
    }
}
