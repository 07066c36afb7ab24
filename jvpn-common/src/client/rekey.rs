//! New keys inside the running session.
//!
//! Owns the one rekey under way. Must never seal under a key whose answer has not opened, nor start a second
//! rekey: one outstanding, idempotent by id.

use super::Engine;
use super::command::{Command, EventKind};
use crate::crypto::noise::Initiator;
use crate::crypto::suite::REJECT_AFTER;
use crate::crypto::{EpochKeys, Suite};
use crate::message::handshake::{HELLO_REKEY_LEN, Outcome};
use crate::message::{Answer, Control, HandshakePurpose, Message};
use crate::reason::Reason;
use crate::time::{Duration, Instant};

/// Times a REKEY is sent before it is given up for a while.
const TRIES_MAX: u32 = 6;
/// Pause after one that was given up or refused. The keys live another minute.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// A rekey under way.
#[derive(Debug)]
pub(super) struct Rekey {
    id: u64,
    noise: Initiator,
    message: Vec<u8>,
    tries: u32,
    pub(super) next: Instant,
}

impl Engine {
    /// Begins a rekey, unless one is under way or the session has no way to send.
    pub(super) fn start_rekey(&mut self) {
        let Some(session) = &self.session else { return };
        if session.rekey.is_some() || session.lost.is_some() || self.handshake.is_some() {
            return;
        }
        let purpose = HandshakePurpose::Rekey { session: session.id };
        let Some((mut noise, payload)) = self.hello(purpose, HELLO_REKEY_LEN) else { return };
        let Ok(message) = noise.message1(&payload) else { return };
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let id = session.message_id();
        session.rekey = Some(Rekey { id, noise, message, tries: 0, next: now });
    }

    /// When the keys want attention: rekey, wiping, death.
    pub(super) fn keys_due(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let made = session.keys.made();
        let dead = self.handshake.is_none().then(|| made + REJECT_AFTER);
        let rekey = match &session.rekey {
            Some(rekey) => Some(rekey.next),
            None if session.lost.is_some() || self.handshake.is_some() => None,
            None => {
                let due = if self.activity.rekey_due { self.now } else { made + session.timing.rekey_after };
                Some(session.rekey_pause.map_or(due, |pause| due.max(pause)))
            }
        };
        [dead, rekey, session.keys.wipe_due()].into_iter().flatten().min()
    }

    pub(super) fn drive_keys(&mut self) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        if let Some(epoch) = session.keys.wipe(now) {
            let set = session.keys.id;
            self.commands.push_back(Command::WipeKeys { set, epoch });
        }
        self.check_key_life();
        let Some(session) = &self.session else { return };
        let paused = session.rekey_pause.is_some_and(|pause| pause > now);
        let due = self.activity.rekey_due || now >= session.keys.made() + session.timing.rekey_after;
        if session.rekey.is_none() && due && !paused {
            self.start_rekey();
        }
        self.send_rekey();
    }

    /// Keys past their limit seal nothing more: only a resume helps.
    pub(super) fn check_key_life(&mut self) {
        let Some(session) = &self.session else { return };
        let dead = self.now >= session.keys.made() + REJECT_AFTER || self.activity.key_spent;
        if dead && self.handshake.is_none() {
            self.start_resume(Reason::KeyExpired, None);
        }
    }

    fn send_rekey(&mut self) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let Some(rekey) = session.rekey.as_mut().filter(|rekey| rekey.next <= now) else { return };
        if rekey.tries == TRIES_MAX || session.lost.is_some() {
            session.rekey = None;
            session.rekey_pause = Some(now + PAUSE);
            return;
        }
        let active = session.active;
        let wait = self.paths.get(&active).map_or(WAIT_MAX, super::paths::Path::answer_wait) * (2 << rekey.tries);
        rekey.tries += 1;
        rekey.next = now + wait.min(WAIT_MAX);
        let message = Message { id: rekey.id, body: Control::Rekey(rekey.message.clone()) };
        self.send_control(active, &message);
    }

    pub(super) fn on_rekey_answer(&mut self, id: u64, bytes: &[u8]) {
        let now = self.now;
        let Some(session) = &mut self.session else { return };
        let Some(rekey) = session.rekey.as_mut().filter(|rekey| rekey.id == id) else { return };
        let Ok((payload, split)) = rekey.noise.read2(bytes) else { return };
        session.rekey = None;
        let accepted = match Answer::decode(&payload) {
            Some(Answer::Accepted(accepted)) if accepted.outcome == Outcome::Rekeyed => accepted,
            _ => {
                session.rekey_pause = Some(now + PAUSE);
                return;
            }
        };
        let next = accepted.epoch > session.keys.epoch() && accepted.session == session.id;
        let Some(suite) = Suite::from_byte(accepted.suite).filter(|_| next) else { return };
        let data = session.keys.add_epoch(accepted.epoch, suite, EpochKeys::derive(split), now);
        session.rekey_pause = None;
        // The worker's flag is about the old key; it is read again before anything is decided by it.
        (self.activity.rekey_due, self.activity.key_spent) = (false, false);
        self.commands.push_back(Command::InstallKeys(Box::new(data)));
        let carrying = session.carrying;
        if carrying {
            self.use_active();
        }
        // The gateway sends under the new key after the first packet that opens under it: give it one now.
        if let Some(transport) = self.transport().filter(|_| carrying) {
            self.commands.push_back(Command::Ping(transport));
        }
        let event = self.event(EventKind::KeyRotated, Reason::TransportSwitchOk, true);
        self.tell(event);
    }
}
