//! When the engine wants to be called again.
//!
//! Owns the minimum over everything that waits. Must never name an instant at which nothing would happen: a
//! deadline that stays due would spin the runtime.

use super::Engine;
use crate::time::Instant;

impl Engine {
    /// When [`super::Input::Wakeup`] is wanted at the latest.
    #[must_use]
    pub fn wakeup(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        if let Some(closing) = &self.closing {
            return Some(closing.next);
        }
        let session = self.session.as_ref();
        let handshake = self.handshake.as_ref();
        let confirm = handshake.and_then(|handshake| handshake.confirm.as_ref());
        let attempt = handshake.filter(|handshake| handshake.confirm.is_none() && !handshake.waiting_for_path);
        let wanted = [
            attempt.map(|handshake| handshake.next),
            confirm.map(|confirm| confirm.next.min(confirm.until)),
            session.and_then(|session| session.request.as_ref()).map(|request| request.next),
            self.suspect_at().map(|(at, _)| at),
            self.suspicion_due(),
            self.outage_resume_at(),
            self.unresponsive_until(),
            self.validation_due(),
            self.mapping_due(),
            self.keys_due(),
            self.silence_due(),
            self.report_due(),
        ];
        let probes = self.paths.values().filter_map(|path| self.probe_due(path));
        let expiries = self
            .paths
            .values()
            .filter_map(|path| path.link.as_ref().and_then(|link| link.probes.expiry(path.probe_lost_after())));
        let sizes = self
            .paths
            .values()
            .filter(|path| path.usable() && session.is_some())
            .filter_map(|path| path.link.as_ref().and_then(|link| link.mtu.due()));
        wanted.into_iter().flatten().chain(probes).chain(expiries).chain(sizes).min()
    }
}
