//! What a relay counts.
//!
//! Owns the translation of what maps and process counted. Must never count anything itself, nor name an owner.

use super::Relay;
use crate::config::Role;
use crate::observe::metrics::Exposition;
use crate::observe::table::Metric;

impl Relay {
    pub(super) fn metrics(&self) -> Exposition {
        let mut to = Exposition::new(Role::Relay);
        to.status(&self.status());
        to.number(Metric::Forwarded, &[], self.hold.len());
        to.level(Metric::SessionsMax, &[], self.config.max_sessions.into());
        to.count(Metric::WorkerDrops, &["refused"], self.forward.refused);
        to.count(Metric::WorkerDrops, &["unsent"], self.forward.unsent);
        to.verdicts(&*self.plane);
        let connected = self.owners.iter().filter(|owner| owner.say.is_some()).count();
        to.number(Metric::Streams, &["connected"], connected);
        to.number(Metric::Streams, &["missing"], self.owners.len() - connected);
        to
    }
}
