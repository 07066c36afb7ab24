//! Sealed control messages: opened here, handed to whom they concern.
//!
//! Owns who gets what, and the acknowledgement of the gateway's own messages. Must never act on a message
//! that did not open under one of our key sets.

use super::Engine;
use super::command::{Command, EventKind, PathId};
use super::timing::Timing;
use crate::message::{Control, Message};
use crate::reason::Reason;
use crate::wire::Header;
use std::collections::BTreeMap;

impl Engine {
    pub(super) fn on_control(&mut self, path: PathId, bytes: &mut [u8]) {
        let Some((header, _)) = Header::parse(bytes) else { return };
        let pending = self.handshake.as_mut().and_then(|handshake| handshake.confirm.as_mut());
        if let Some(confirm) = pending
            && confirm.keys.index_of(header.locator).is_some()
        {
            if let Some((_, message)) = confirm.keys.open(bytes) {
                self.see(&message);
                self.on_pending_control(&message);
            }
            return;
        }
        let Some(session) = &mut self.session else { return };
        let Some((k, message)) = session.keys.open(bytes) else { return };
        self.see(&message);
        let now = self.now;
        if let Some(path) = self.paths.get_mut(&path)
            && path.link.as_ref().is_some_and(|link| link.k == k)
        {
            path.hear(now);
            path.echoed = path.echoed.max(Some(now));
        }
        // Only a living gateway seals.
        self.end_unresponsive(path);
        self.on_message(path, message);
    }

    fn see(&mut self, message: &Message) {
        *self.seen.entry(message.body.name()).or_default() += 1;
    }

    /// Messages of the gateway that opened, by kind.
    #[must_use]
    pub const fn seen(&self) -> &BTreeMap<&'static str, u64> {
        &self.seen
    }

    fn on_message(&mut self, path: PathId, message: Message) {
        match message.body {
            Control::Challenge { nonce, cookie, cookie_time } => self.on_challenge(path, nonce, cookie, cookie_time),
            Control::Ack(ack) => self.on_ack(&ack),
            Control::Reject(reject) => self.on_reject(&reject),
            Control::Rekey(bytes) => self.on_rekey_answer(message.id, &bytes),
            Control::Done => self.on_done(message.id),
            body @ (Control::PolicyUpdate(_)
            | Control::JumpRequest { .. }
            | Control::GoingAway
            | Control::Terminate { .. }
            | Control::RekeyWanted) => {
                self.send_control(path, &Message { id: message.id, body: Control::Done });
                if self.session.as_mut().is_some_and(|session| session.first_time(message.id)) {
                    self.on_wish(message.id, body);
                }
            }
            Control::Confirm { .. }
            | Control::Reattach(_)
            | Control::Prove { .. }
            | Control::Validate(_)
            | Control::PathReport(_)
            | Control::Close => {}
        }
    }

    /// What the gateway wants by itself, once.
    fn on_wish(&mut self, id: u64, body: Control) {
        match body {
            Control::PolicyUpdate(policy) => {
                let now = self.now;
                // One that was overtaken by a newer one says nothing any more.
                let Some(session) = self.session.as_mut().filter(|session| id > session.policy_id) else { return };
                (session.policy_id, session.policy_at) = (id, now);
                session.timing = Timing::of(&policy);
                session.policy.clone_from(&policy);
                let (session, addresses, mtu) = (session.id, session.addresses.clone(), session.mtu);
                self.commands.push_back(Command::Configure { session, addresses, mtu, policy });
            }
            Control::JumpRequest { label } => self.on_jump(label),
            Control::GoingAway => {
                // It will be back: the session is kept, and the next echo says whether it is another start.
                let event = self.event(EventKind::GoingAway, Reason::GatewayUnresponsive, true);
                self.tell(event);
            }
            Control::Terminate { reason } => self.end_session(reason),
            Control::RekeyWanted => self.start_rekey(),
            _ => {}
        }
    }

    fn on_done(&mut self, id: u64) {
        if self.closing.as_ref().is_some_and(|closing| closing.id == id) {
            self.finish_close();
        }
    }

    /// Seals a message and sends it on a path; `false` when there is no way to.
    pub(super) fn send_control(&mut self, path: PathId, message: &Message) -> bool {
        let (Some(session), Some(target)) = (&self.session, self.paths.get(&path)) else { return false };
        let (Some(link), Some(to)) = (&target.link, target.endpoint) else { return false };
        if !target.up {
            return false;
        }
        let Some(bytes) = session.keys.seal(link.k, link.locator, message) else { return false };
        self.commands.push_back(Command::Send { path, to, bytes });
        true
    }
}
