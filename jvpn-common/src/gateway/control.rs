//! Sealed control: opened, then handed to whom it concerns.
//!
//! Owns the order of checks, cheapest first: locator, tag, epoch, replay window, seal, then meaning. Must
//! never answer anything that did not open.

use super::Engine;
use super::calendar::{Due, SlotAlarm};
use super::command::Origin;
use super::confirm::Says;
use super::view::Drop;
use crate::channel::ChannelError;
use crate::ids::{Epoch, Locator, SessionId, Slot, TransportIndex};
use crate::limits::PREVIOUS_KEYS_LIFE;
use crate::message::control::PathQuality;
use crate::message::{Control, Purpose};
use crate::reason::Reason;
use crate::session::{Ender, Input, Report, TransportClass, invariant};
use crate::time::{Duration, Instant};
use crate::wire::Header;

/// The class of a byte in CONFIRM or a request; an unknown one is the least wanted.
pub(super) fn class(byte: u8) -> TransportClass {
    TransportClass::from_number(byte).unwrap_or(TransportClass::Backup)
}

/// How a message came: where its answer goes, and how large it may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    pub(super) slot: Slot,
    pub(super) k: TransportIndex,
    pub(super) origin: Origin,
    /// Bytes of the datagram.
    pub(super) len: usize,
    /// The message's id.
    pub(super) id: u64,
}

impl Engine {
    pub(super) fn on_control(&mut self, origin: Origin, bytes: &mut [u8]) {
        let len = bytes.len();
        let Some((header, _)) = Header::parse(bytes) else { return self.drop(Drop::ControlHeader) };
        let Some((slot, k)) = self.table.find(Locator(header.locator)) else { return self.drop(Drop::UnknownLocator) };
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return self.drop(Drop::UnknownLocator) };
        let session = attachment.session;
        let (epoch, message) = match attachment.channel.open(k, bytes) {
            Ok(opened) => opened,
            Err(error) => return self.unopened(session, error),
        };
        if let Some(issued) = attachment.locators.get_mut(&k) {
            issued.used = Some(self.now);
        }
        let pending = attachment.pending.is_some();
        self.heard(slot, k, origin);
        self.epoch_used(slot, epoch);
        self.see(&message);
        if pending && !matches!(message.body, Control::Confirm { .. }) {
            return self.drop(Drop::Unconfirmed);
        }
        self.on_message(Came { slot, k, origin, len, id: message.id }, message.body);
    }

    /// Something opened from the active transport: it is not silent. Other transports prove nothing of it.
    fn heard(&mut self, slot: Slot, k: TransportIndex, origin: Origin) {
        let Some(path) = self.path(origin) else { return };
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let active = self.table.sessions.get(&attachment.session).and_then(|live| live.core.transport());
        if active.is_some_and(|active| active.k == k && active.path == path) {
            attachment.last_opened = self.now;
            attachment.unanswered = None;
            self.arm_silence(slot, Instant(0));
        }
    }

    fn on_message(&mut self, came: Came, body: Control) {
        match body {
            Control::Confirm { label, class: byte, mtu } => {
                self.on_confirm(came, Says { label, class: class(byte), mtu });
            }
            Control::Reattach(request) if request.purpose != Purpose::Validate => self.on_request(came, request, None),
            Control::Validate(request) if request.purpose == Purpose::Validate => self.on_request(came, request, None),
            Control::Prove { request, cookie, cookie_time } => {
                self.on_request(came, request, Some((cookie, Instant(cookie_time))));
            }
            Control::Rekey(noise) => self.on_rekey(came, &noise),
            Control::PathReport(paths) => {
                self.on_report(came.slot, &paths);
                self.acknowledge(came);
            }
            Control::Close => self.on_close(came),
            Control::Done => self.on_received(came.slot, came.id),
            Control::Reattach(_)
            | Control::Validate(_)
            | Control::Challenge { .. }
            | Control::Ack(_)
            | Control::Reject(_)
            | Control::PolicyUpdate(_)
            | Control::JumpRequest { .. }
            | Control::GoingAway
            | Control::Terminate { .. }
            | Control::RekeyWanted => self.drop(Drop::ControlFormat),
        }
    }

    fn unopened(&mut self, session: SessionId, error: ChannelError) {
        self.drop(match error {
            ChannelError::Header | ChannelError::Epoch => Drop::ControlHeader,
            ChannelError::Tag => Drop::ForgedTag,
            ChannelError::Replayed => Drop::Replayed,
            ChannelError::Forged => Drop::Forged,
            ChannelError::Format => Drop::ControlFormat,
        });
        if error == ChannelError::Replayed {
            self.security(session, Reason::SecReplayAttempt);
        }
    }

    /// Something opened under this epoch: older ones are wiped a while later.
    pub(super) fn epoch_used(&mut self, slot: Slot, epoch: Epoch) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        if epoch <= attachment.epoch_used || epoch > attachment.epoch {
            return;
        }
        attachment.channel.promote(epoch);
        let at = self.now + PREVIOUS_KEYS_LIFE;
        attachment.wipe.push((at, attachment.epoch_used));
        attachment.epoch_used = epoch;
        let (session, reject_after) = (attachment.session, attachment.reject_after);
        self.alarms.set(Due::Slot(SlotAlarm::Wipe, slot), attachment.wipe.first().map(|&(at, _)| at));
        // From now on the session lives by its new keys.
        if let Some(live) = self.table.sessions.get_mut(&session) {
            live.waiting.rekeyed = Some(reject_after);
        }
        self.catch_up(session);
    }

    /// What the client measures: round trips for drains, quality of the active transport for the core.
    fn on_report(&mut self, slot: Slot, paths: &[PathQuality]) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        for path in paths {
            if let Some(issued) = attachment.locators.get_mut(&path.k) {
                issued.srtt_us = path.srtt_us;
            }
        }
        let session = attachment.session;
        // A snapshot that was given up finds its client again with what the client says.
        self.tell_policy(session);
        let Some(live) = self.table.sessions.get(&session) else { return };
        let active = live.core.transport().map(|transport| transport.k);
        let Some(path) = paths.iter().find(|path| Some(path.k) == active) else { return };
        let report = Report {
            loss: path.loss_permille,
            rtt: Duration::from_micros(u64::from(path.srtt_us)),
            jitter: Duration::from_micros(u64::from(path.jitter_us)),
            delivered: u32::from(path.delivered),
        };
        self.apply(session, &Input::Quality(report), Vec::new());
    }

    fn on_close(&mut self, came: Came) {
        let Some(session) = self.table.attachments.get(&came.slot).map(|held| held.session) else { return };
        let done = self.seal_to(came, Control::Done);
        let done = self.fitting(done, came.len);
        self.apply(session, &Input::Terminate { by: Ender::Client }, done.into_iter().collect());
    }

    /// Gives an input to a session's core and commits what it proposes; a refusal is counted.
    pub(super) fn apply(&mut self, id: SessionId, input: &Input, send: Vec<super::command::Datagram>) -> bool {
        let policy = self.policy_of(id);
        let Some(live) = self.table.sessions.get_mut(&id) else { return false };
        if live.busy.is_some() {
            self.drop(Drop::Busy);
            return false;
        }
        match live.core.step(input, &policy, self.now) {
            Ok(step)
                if step.transitions.is_empty() && send.is_empty() && invariant::check(&live.core, &step).is_ok() =>
            {
                // It only added to what is known: nothing outside depends on it.
                live.core = step.session;
                self.arm(id);
                true
            }
            Ok(step) => {
                let (change, commit) = self.propose(id, step, super::commit::Locators::default(), send);
                self.commit(change, commit);
                true
            }
            Err(refusal) => {
                self.refused(id, input, &refusal);
                false
            }
        }
    }

    /// Ends a session, now or as soon as what is under way is done.
    pub(super) fn terminate(&mut self, session: SessionId, reason: Reason) {
        let input = match reason {
            Reason::PolicyTermination => Input::PeerRemoved,
            Reason::SecKeyCompromiseSuspected => Input::CompromiseSuspected,
            _ => Input::Terminate { by: Ender::Operator },
        };
        let Some(live) = self.table.sessions.get_mut(&session) else { return };
        live.waiting.end = Some(reason);
        if live.busy.is_none() {
            self.apply(session, &input, Vec::new());
        }
    }

    pub(super) fn going_away(&mut self) {
        self.end_births(&Input::Shutdown, |_| true);
        let sessions: Vec<SessionId> = self.table.sessions.keys().copied().collect();
        for session in sessions {
            self.push(session, Control::GoingAway);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::command::PathClass;

    #[test]
    fn a_class_means_the_same_on_both_sides_and_an_unknown_one_is_the_least_wanted() {
        assert_eq!(class(PathClass::Primary as u8), TransportClass::Primary);
        assert_eq!(class(PathClass::Secondary as u8), TransportClass::Secondary);
        assert_eq!(class(PathClass::Backup as u8), TransportClass::Backup);
        assert_eq!(class(200), TransportClass::Backup);
    }
}
