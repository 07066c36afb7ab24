//! Sealed control: opened, then handed to whom it concerns.
//!
//! Owns the order of checks, cheapest first: locator, tag, epoch, replay window, seal, then meaning. Must
//! never answer anything that did not open.

use super::command::Origin;
use super::confirm::Says;
use super::view::Drop;
use super::{Due, Engine};
use crate::channel::ChannelError;
use crate::event::{Event, Record};
use crate::ids::{Epoch, Locator, SessionId, Slot, TransportIndex};
use crate::limits::PREVIOUS_KEYS_LIFE;
use crate::message::control::PathQuality;
use crate::message::{Control, Label, Message};
use crate::reason::Reason;
use crate::session::{Ender, Input, Policy, Report, TransportClass};
use crate::time::{Duration, Instant};
use crate::wire::Header;

/// How often the same security event of the same session is recorded. Ten seconds keep a flood from
/// filling the record and still show when it began and how long it lasted.
const SECURITY_EVERY: Duration = Duration::from_secs(10);
/// Security events remembered for that.
const SECURITY_MAX: usize = 1_024;

/// The class of a byte in CONFIRM or a request.
pub(super) fn class(byte: u8) -> TransportClass {
    match byte {
        0 => TransportClass::Primary,
        1 => TransportClass::Secondary,
        _ => TransportClass::Backup,
    }
}

impl Engine {
    pub(super) fn on_control(&mut self, origin: Origin, bytes: &mut [u8]) {
        let asked = bytes.len();
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
        attachment.last_opened = self.now;
        attachment.unanswered = None;
        let pending = attachment.pending.is_some();
        self.epoch_used(slot, epoch);
        self.see(&message);
        if pending && !matches!(message.body, Control::Confirm { .. }) {
            return self.drop(Drop::Unconfirmed);
        }
        self.arm_silence(slot);
        self.on_message(slot, k, origin, asked, message);
    }

    fn on_message(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, message: Message) {
        let id = message.id;
        match message.body {
            Control::Confirm { label, class: byte, mtu } => {
                self.on_confirm(slot, k, origin, asked, id, Says { label, class: class(byte), mtu });
            }
            Control::Reattach(request) | Control::Validate(request) => {
                self.on_request(slot, k, origin, asked, id, request, None);
            }
            Control::Prove { request, cookie, cookie_time } => {
                self.on_request(slot, k, origin, asked, id, request, Some((cookie, Instant(cookie_time))));
            }
            Control::Rekey(noise) => self.on_rekey(slot, k, origin, asked, id, &noise),
            Control::PathReport(paths) => {
                self.on_report(slot, &paths);
                self.acknowledge(slot, k, origin, asked, id);
            }
            Control::Close => self.on_close(slot, k, origin, asked, id),
            Control::Done => {}
            Control::Challenge { .. }
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
        attachment.channel.promote(epoch);
        if epoch > attachment.epoch_used {
            let at = self.now + PREVIOUS_KEYS_LIFE;
            attachment.wipe.push((at, attachment.epoch_used));
            attachment.epoch_used = epoch;
            self.alarms.set(Due::Wipe(slot), attachment.wipe.first().map(|&(at, _)| at));
        }
    }

    /// What the client measures: round trips for drains, quality of the active transport for the core.
    fn on_report(&mut self, slot: Slot, paths: &[PathQuality]) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        for path in paths {
            if let Some(issued) = attachment.locators.get_mut(&path.k) {
                issued.srtt = Duration::from_micros(u64::from(path.srtt_us));
            }
        }
        let session = attachment.session;
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

    fn on_close(&mut self, slot: Slot, k: TransportIndex, origin: Origin, asked: usize, id: u64) {
        let Some(session) = self.table.attachments.get(&slot).map(|held| held.session) else { return };
        let done = self.seal_to(slot, k, origin, &Message { id, body: Control::Done });
        let done = done.filter(|datagram| datagram.bytes.len() <= asked);
        self.apply(session, &Input::Terminate { by: Ender::Client }, done.into_iter().collect());
    }

    /// Gives an input to a session's core and commits what it proposes; a refusal is counted.
    pub(super) fn apply(&mut self, id: SessionId, input: &Input, send: Vec<super::command::Datagram>) -> bool {
        let Some(live) = self.table.sessions.get_mut(&id) else { return false };
        if live.busy.is_some() {
            self.drop(Drop::Busy);
            return false;
        }
        // A removed peer's session ends under the defaults.
        let peer = self.config.peers.get(&live.peer);
        let policy = peer.map_or_else(|| std::sync::Arc::new(Policy::field()), |peer| peer.policy.clone());
        match live.core.step(input, &policy, self.now) {
            Ok(step) if step.transitions.is_empty() && send.is_empty() => {
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
            Err(_) => {
                self.drop(Drop::Refused);
                false
            }
        }
    }

    pub(super) fn terminate(&mut self, session: SessionId, reason: Reason) {
        let input = match reason {
            Reason::PolicyTermination => Input::PeerRemoved,
            Reason::SecKeyCompromiseSuspected => Input::CompromiseSuspected,
            _ => Input::Terminate { by: Ender::Operator },
        };
        let slot = self.table.sessions.get(&session).and_then(|live| live.slot);
        if let Some(slot) = slot {
            self.push(slot, Control::Terminate { reason });
        }
        self.apply(session, &input, Vec::new());
    }

    pub(super) fn ask_to_jump(&mut self, session: SessionId, label: Label) {
        if let Some(slot) = self.table.sessions.get(&session).and_then(|live| live.slot) {
            self.push(slot, Control::JumpRequest { label });
        }
    }

    pub(super) fn going_away(&mut self) {
        let slots: Vec<Slot> = self.table.attachments.keys().copied().collect();
        for slot in slots {
            self.push(slot, Control::GoingAway);
        }
    }

    /// Records a security event, the same one of a session at most every ten seconds.
    pub(super) fn security(&mut self, session: SessionId, reason: Reason) {
        let due = self.security_at.get(&(session, reason)).is_none_or(|&at| at + SECURITY_EVERY <= self.now);
        let Some(live) = self.table.sessions.get(&session) else { return };
        if due {
            if self.security_at.len() >= SECURITY_MAX {
                self.security_at.pop_first();
            }
            self.security_at.insert((session, reason), self.now);
            let record = Record::about(&self.context(&live.peer), &live.core, Event::SecurityEvent, Some(reason));
            self.commands.push_back(super::command::Command::Record(Box::new(record)));
        }
    }
}
