//! What a gateway's runtime looks at by itself, and what somebody on its host does to it.
//!
//! Owns the reconcile, the counters of forged tags, and the faults that come from inside the host. Must never
//! put back what nobody changed without saying so.

use super::{GatewayHost, Out};
use crate::sim::check::Checker;
use crate::sim::cover::Cover;
use crate::sim::maps;
use crate::sim::rng::Rng;
use jvpn_common::abi::TrafficField;
use jvpn_common::gateway::command::Input;
use jvpn_common::ids::{OwnerEpoch, SessionId, Slot};
use jvpn_common::reason::Reason;
use jvpn_common::session;
use jvpn_common::time::Instant;

/// The invariant that the fault switch breaks: none of the list, so that a real one is told from it.
pub const SWITCHED: u8 = 99;

/// The owner that the fault switch shows: none that starts of this gateway come to, so that a real one is told from it.
pub const OTHER: OwnerEpoch = OwnerEpoch(1 << 40);

impl GatewayHost {
    /// The slot a session is attached to.
    fn slot_of(&self, id: SessionId) -> Option<Slot> {
        self.engine.as_ref()?.sessions().find(|(known, _)| *known == id).and_then(|(_, view)| view.slot)
    }

    /// Compares the maps with what was committed, and reads the counters.
    pub fn look(&mut self, now: Instant, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        let Some(engine) = self.engine.as_ref().filter(|_| self.frozen.is_none()) else { return Vec::new() };
        let mut causes = Vec::new();
        let all: Vec<_> = engine.committed().collect();
        for (session, slot, committed) in all {
            if !maps::agrees(&self.maps, slot, &committed) {
                let known = self.tampered.contains(&slot);
                checker.must(known, now, || format!("{slot:?} differs from {committed:?}, and nobody changed it"));
                maps::put_back(&mut self.maps, slot, &committed);
                causes.push((session, Reason::SecMapTampered, 1));
            }
            let key = (slot, committed.generation);
            let forged = self.maps.traffic(slot, TrafficField::Forged);
            let last = self.forged.insert(key, forged).unwrap_or(0);
            causes.push((session, Reason::SecForgedTag, forged.saturating_sub(last)));
        }
        if !self.committing() {
            self.tampered.clear();
        }
        let mut out = Vec::new();
        for (session, reason, causes) in causes.into_iter().filter(|(.., causes)| *causes > 0) {
            out.extend(self.give(now, Input::Suspicious { session, reason, causes, what: "" }, checker, cover));
        }
        out
    }

    /// Somebody with root changes the maps of a session.
    pub fn tamper(&mut self, id: SessionId, rng: &mut Rng) {
        let idle = self.engine.is_some() && self.frozen.is_none() && !self.committing();
        if let Some(slot) = self.slot_of(id).filter(|_| idle) {
            maps::tamper(&mut self.maps, slot, rng.below(3));
            self.tampered.insert(slot);
        }
    }

    /// The worker says that the keys of a session are worn, or spent.
    pub fn wear(
        &mut self,
        id: SessionId,
        spent: bool,
        now: Instant,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        let Some(slot) = self.slot_of(id).filter(|_| self.frozen.is_none()) else { return Vec::new() };
        let Some(epoch) = self.slots.get(&slot).map(|slotted| slotted.sending) else { return Vec::new() };
        self.give(now, Input::Worn { slot, epoch, spent }, checker, cover)
    }

    /// The worker dropped inner packets of a session whose source is not its own.
    pub fn spoof(&mut self, session: SessionId, now: Instant, checker: &mut Checker, cover: &mut Cover) -> Vec<Out> {
        if self.frozen.is_some() {
            return Vec::new();
        }
        let input = Input::Suspicious { session, reason: Reason::SecInnerSpoof, causes: 1_000, what: "" };
        self.give(now, input, checker, cover)
    }

    /// The fault switch: another gateway took the session over, or an invariant does not hold.
    pub fn switch(
        &mut self,
        id: SessionId,
        owner: bool,
        now: Instant,
        checker: &mut Checker,
        cover: &mut Cover,
    ) -> Vec<Out> {
        let Some(engine) = self.engine.as_mut().filter(|_| self.frozen.is_none()) else { return Vec::new() };
        let input = if owner {
            session::Input::NewerOwner { epoch: OTHER }
        } else {
            session::Input::InvariantBroken { which: SWITCHED }
        };
        engine.inject(now, id, &input);
        self.run(now, checker, cover)
    }
}
