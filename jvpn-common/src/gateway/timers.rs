//! What happens by itself: timers of the core, unconfirmed handshakes, old keys, silence.
//!
//! Owns the firing of alarms. Timers due at or before an input fire before it. Must never decide by
//! anything but the boot time it is given.

use super::attachment::Attachment;
use super::calendar::{Due, SlotAlarm};
use super::command::WorkerOp;
use super::commit::{Change, Locators, Then};
use super::{Commit, Engine};
use crate::ids::{Epoch, SessionId, Slot};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::{Input, Keys, Side};
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// What a timer that is due again at once waits, which no timer should be.
const AGAIN: Duration = Duration::from_millis(100);

impl Engine {
    pub(super) fn fire_due(&mut self) {
        let mut fired = BTreeSet::new();
        while let Some(due) = self.alarms.due(self.now) {
            if !fired.insert(due) {
                // Who sets its own alarm to the instant it fired at would hold up everybody else for ever.
                debug_assert!(false, "{due:?} fires twice at {}", self.now.0);
                self.alarms.set(due, Some(self.now + AGAIN));
                continue;
            }
            match due {
                Due::Session(id) => self.tick(id),
                Due::Slot(SlotAlarm::Pending, slot) => self.on_unconfirmed(slot, &Input::Tick),
                Due::Slot(SlotAlarm::Wipe, slot) => self.wipe(slot),
                Due::Slot(SlotAlarm::Silent, slot) => self.on_silence(slot),
                Due::Slot(SlotAlarm::Unacknowledged, slot) => self.repeat(slot),
                Due::Slot(SlotAlarm::Aged, slot) => self.on_aged(slot),
                Due::Suspicions(id) => self.on_suspicions(id),
            }
        }
    }

    /// Fires the first due timer of a session; the next one follows when its commit is done.
    fn tick(&mut self, id: SessionId) {
        let Some(live) = self.table.sessions.get(&id) else { return };
        if live.busy.is_some() {
            return;
        }
        let policy = live.policy.now.clone();
        match live.core.tick(&policy, self.now) {
            Some(step) => {
                let (change, commit) = self.propose(id, step, Locators::default(), Vec::new());
                self.commit(change, commit);
            }
            None if self.catch_up(id) => {}
            None => self.arm(id),
        }
    }

    /// Gives a session what waited for it; says whether a commit came of it.
    pub(super) fn catch_up(&mut self, id: SessionId) -> bool {
        let policy = self.policy_of(id);
        let Some(live) = self.table.sessions.get_mut(&id) else { return false };
        if live.busy.is_some() || live.core.is_due(&policy, self.now) {
            // Its timers fire first; this is called again after each.
            return false;
        }
        live.waiting.restarted &= live.core.keys() == Keys::Live;
        if let Some(reason) = live.waiting.end {
            self.terminate(id, reason);
        } else if live.waiting.restarted {
            self.apply(id, &Input::ControllerRestarted, Vec::new());
        } else if let Some(reject_after) = live.waiting.rekeyed.take() {
            self.apply(id, &Input::Rekeyed { reject_after }, Vec::new());
        }
        self.table.sessions.get(&id).is_some_and(|live| live.busy.is_some())
    }

    /// Ends a handshake that nobody confirmed, for a reason the core knows.
    fn on_unconfirmed(&mut self, slot: Slot, input: &Input) {
        let Some(attachment) = self.table.attachments.get(&slot) else { return };
        let policy = self.policy(&attachment.peer);
        let born = attachment.pending.as_ref().and_then(|pending| pending.birth.as_ref());
        let rows: Vec<usize> = born
            .and_then(|core| core.step(input, &policy, self.now).ok())
            .map(|step| step.transitions.iter().map(|transition| transition.row).collect())
            .unwrap_or_default();
        self.count_rows(&rows);
        self.abandon(slot);
    }

    /// Ends every handshake of some peers that nobody confirmed yet.
    pub(super) fn end_births(&mut self, input: &Input, whose: impl Fn(&PublicKey) -> bool) {
        let unconfirmed = |held: &&Attachment| {
            whose(&held.peer) && held.pending.as_ref().is_some_and(|pending| !pending.is_confirming())
        };
        let slots: Vec<Slot> =
            self.table.attachments.values().map(Box::as_ref).filter(unconfirmed).map(|held| held.slot).collect();
        slots.into_iter().for_each(|slot| self.on_unconfirmed(slot, input));
    }

    fn wipe(&mut self, slot: Slot) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let now = self.now;
        let due: Vec<Epoch> = attachment.wipe.iter().filter(|(at, _)| *at <= now).map(|&(_, epoch)| epoch).collect();
        attachment.wipe.retain(|(at, _)| *at > now);
        for &epoch in &due {
            attachment.channel.wipe(epoch);
        }
        let next = attachment.wipe.first().map(|&(at, _)| at);
        self.alarms.set(Due::Slot(SlotAlarm::Wipe, slot), next);
        let worker: Vec<WorkerOp> = due.into_iter().map(|epoch| WorkerOp::Wipe { slot, epoch }).collect();
        if !worker.is_empty() {
            self.commit(Change::new(Then::Nothing), Commit { worker, ..Commit::default() });
        }
    }

    /// When silence from the active transport is a loss: soon while something waits for an answer, later
    /// while idle.
    fn silence_at(&self, slot: Slot) -> Option<Instant> {
        let attachment = self.table.attachments.get(&slot)?;
        let live = self.table.sessions.get(&attachment.session)?;
        if live.slot != Some(slot) || !live.core.is_bound() {
            return None;
        }
        let policy = &live.policy.now;
        let idle = (policy.standby_interval * 3).max(policy.gateway_dead_after);
        Some(match attachment.unanswered {
            Some(since) => {
                (attachment.last_opened.max(since) + policy.gateway_dead_after).min(attachment.last_opened + idle)
            }
            None => attachment.last_opened + idle,
        })
    }

    pub(super) fn arm_silence(&mut self, slot: Slot, earliest: Instant) {
        let at = self.silence_at(slot).map(|at| at.max(earliest));
        // Whatever opens puts the end off, and the alarm looks again when it fires: an earlier one is good enough.
        let early = self.alarms.of_slot(SlotAlarm::Silent, slot).is_some_and(|set| at.is_some_and(|at| set <= at));
        if !early {
            self.alarms.set(Due::Slot(SlotAlarm::Silent, slot), at);
        }
    }

    fn on_silence(&mut self, slot: Slot) {
        if self.silence_at(slot).is_none_or(|at| at > self.now) {
            return self.arm_silence(slot, Instant(0));
        }
        let Some(session) = self.table.attachments.get(&slot).map(|held| held.session) else { return };
        let lost = Input::TransportLost { by: Side::Gateway, evidence: Some(Reason::NoDelivery) };
        self.apply(session, &lost, Vec::new());
    }

    /// What the worker saw of a slot.
    pub(super) fn on_activity(
        &mut self,
        slot: Slot,
        opened: Option<Instant>,
        unanswered: Option<Instant>,
        epoch: Epoch,
    ) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        if let Some(at) = opened {
            attachment.last_opened = attachment.last_opened.max(at.min(self.now));
            self.epoch_used(slot, epoch);
        }
        if let Some(attachment) = self.table.attachments.get_mut(&slot) {
            attachment.unanswered = unanswered.filter(|&since| since > attachment.last_opened);
        }
        self.arm_silence(slot, Instant(0));
    }

    /// Inner prefixes of a peer: what it may send from and what is sent to it.
    pub(super) fn prefixes(&self, peer: &PublicKey) -> Vec<ipnet::IpNet> {
        let peer = self.config.peers.get(peer);
        peer.map(|peer| peer.addresses.iter().chain(&peer.routes).copied().collect()).unwrap_or_default()
    }

    pub(super) fn count_rows(&mut self, rows: &[usize]) {
        for &row in rows {
            *self.rows.entry(row).or_default() += 1;
        }
    }
}
