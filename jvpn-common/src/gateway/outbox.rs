//! What the gateway says by itself, repeated until the client acknowledges it.
//!
//! Owns the messages of a slot that wait for their DONE: how many, how often, when they are given up. A copy
//! is sealed anew and goes to the transport that is active by then; the client acknowledges every copy and
//! acts on the first. Must never outlive its slot: TERMINATE leaves with the last use of the keys and is
//! said once, what happened to its session is remembered instead ([`super::ended`]).
//!
//! A client's requests repeat by themselves (`client/jump`, `rekey`, `confirm`, `upkeep`): each of them ends
//! in something else (another path, a resume, a pause), so that only the doubling of the wait is the same.

use super::Engine;
use super::calendar::{Due, SlotAlarm};
use super::command::{Command, Datagram};
use super::view::Drop;
use crate::ids::{SessionId, Slot};
use crate::message::{Control, Message};
use crate::session::Policy;
use crate::time::{Duration, Instant};

/// Messages of a slot that wait at once. There are three kinds, and a newer one replaces an older of its
/// kind; one more is room to grow.
const WAITING_MAX: usize = 4;
/// Copies of a message before it is given up: 6 s to 20 s altogether. Half of them do not outlast a jump;
/// more would tell the client a wish that its operator has forgotten.
const COPIES_MAX: u32 = 6;
/// Shortest and longest first wait for a DONE; between them twice the round trip.
const FIRST_MIN: Duration = Duration::from_millis(200);
/// See [`FIRST_MIN`].
const FIRST_MAX: Duration = Duration::from_secs(1);
/// Longest wait between two copies.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// A message that is not acknowledged.
#[derive(Debug)]
struct Waiting {
    message: Message,
    copies: u32,
    next: Instant,
}

/// The messages of a slot, oldest first.
#[derive(Debug)]
pub(super) struct Outbox {
    next_id: u64,
    waiting: Vec<Waiting>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { next_id: 1, waiting: Vec::new() }
    }
}

impl Outbox {
    /// The number the next message will have.
    pub(super) const fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Takes a message; gives the one that had to make room for it.
    fn post(&mut self, body: Control, now: Instant) -> Option<Control> {
        self.waiting.retain(|waiting| waiting.message.body.name() != body.name());
        let full = self.waiting.len() == WAITING_MAX;
        let oldest = full.then(|| self.waiting.remove(0).message.body);
        self.waiting.push(Waiting { message: Message { id: self.next_id, body }, copies: 0, next: now });
        self.next_id += 1;
        oldest
    }

    /// The client has it; gives what it was.
    fn acknowledged(&mut self, id: u64) -> Option<Control> {
        let place = self.waiting.iter().position(|waiting| waiting.message.id == id)?;
        Some(self.waiting.remove(place).message.body)
    }

    /// Whether this very message waits.
    pub(super) fn holds(&self, body: &Control) -> bool {
        self.waiting.iter().any(|waiting| waiting.message.body == *body)
    }

    /// When something is due.
    fn next(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.next).min()
    }

    /// The messages of which another copy is due, and how many are given up instead.
    fn due(&mut self, now: Instant, first: Duration) -> (Vec<Message>, usize) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.next > now || waiting.copies < COPIES_MAX);
        let given_up = before - self.waiting.len();
        let mut due = Vec::new();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.next <= now) {
            waiting.next = now + (first * (1 << waiting.copies.min(COPIES_MAX))).min(WAIT_MAX);
            waiting.copies += 1;
            due.push(waiting.message.clone());
        }
        (due, given_up)
    }
}

impl Engine {
    /// A message of our own to the active transport of a session, until it is acknowledged; none to a
    /// session that is bound to nothing.
    pub(super) fn push(&mut self, id: SessionId, body: Control) {
        let Some(live) = self.table.sessions.get(&id).filter(|live| live.core.is_bound()) else { return };
        let Some(slot) = live.slot else { return };
        let now = self.now;
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        if attachment.outbox.post(body, now).is_some() {
            self.drop(Drop::Unacknowledged);
        }
        self.repeat(slot);
    }

    /// Sends what is due, gives up what was sent often enough, and sets the alarm for the rest.
    pub(super) fn repeat(&mut self, slot: Slot) {
        let (now, first) = (self.now, self.first_wait(slot));
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        let session = attachment.session;
        let (due, given_up) = attachment.outbox.due(now, first);
        let next = attachment.outbox.next();
        self.alarms.set(Due::Slot(SlotAlarm::Unacknowledged, slot), next);
        for _ in 0..given_up {
            self.drop(Drop::Unacknowledged);
        }
        for message in due {
            // A copy that has no way to go now counts like one that was lost.
            let datagram = self.sealed_to_active(session, &message);
            self.commands.extend(datagram.map(Command::Send));
        }
    }

    /// The client has a message of ours.
    pub(super) fn on_received(&mut self, slot: Slot, id: u64) {
        let Some(attachment) = self.table.attachments.get_mut(&slot) else { return };
        if let Some(Control::PolicyUpdate(snapshot)) = attachment.outbox.acknowledged(id) {
            attachment.told = Policy::decode(&snapshot).map_or(attachment.told, |policy| policy.version);
        }
        let next = attachment.outbox.next();
        self.alarms.set(Due::Slot(SlotAlarm::Unacknowledged, slot), next);
    }

    /// How many messages of our own wait for their acknowledgement.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.table.attachments.values().map(|held| held.outbox.waiting.len()).sum()
    }

    /// Seals a message for the active transport of a session; none for one that is attached or bound to
    /// nothing.
    pub(super) fn sealed_to_active(&self, id: SessionId, message: &Message) -> Option<Datagram> {
        let live = self.table.sessions.get(&id)?;
        let transport = *live.core.transport()?;
        let attachment = self.table.attachments.get(&live.slot?)?;
        let locator = attachment.locators.get(&transport.k)?.locator;
        let bytes = attachment.channel.seal(transport.k, locator, message)?;
        Some(Datagram { origin: self.origin(transport.path)?, bytes })
    }

    /// Twice the round trip of the active transport, within bounds.
    fn first_wait(&self, slot: Slot) -> Duration {
        let attachment = self.table.attachments.get(&slot);
        let live = attachment.and_then(|held| self.table.sessions.get(&held.session));
        let active = live.and_then(|live| live.core.transport());
        let issued = attachment.zip(active).and_then(|(held, active)| held.locators.get(&active.k));
        issued.map_or(FIRST_MAX, |issued| (issued.srtt() * 2).clamp(FIRST_MIN, FIRST_MAX))
    }
}
