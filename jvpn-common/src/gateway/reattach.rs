//! REATTACH, VALIDATE, PROVE: a session asks to move, and shows that it can be reached where it wants to go.
//!
//! Owns the challenge and the answers to a request. Must never move a session without the three pieces of
//! evidence (`session::proof`), and never keep anything of a request that was challenged: PROVE brings it
//! again.
//!
//! ```text
//! opened ─► abuse limit ─► proven address? ──no──► CHALLENGE
//!                              │ yes
//!                          VALIDATE ─► ACK, nothing moves
//!                          REATTACH ─► core ─► commit ─► ACK      refusal ─► REJECT with version and binding
//! ```

use super::Engine;
use super::command::{Command, Commit, WorkerOp};
use super::commit::{Change, Locators};
use super::control::{Came, class};
use super::view::Drop;
use crate::crypto::challenge::Challenge;
use crate::event::{Event, Record};
use crate::ids::{SessionId, Slot};
use crate::limits::PATH_MTU_UNPROVEN;
use crate::message::{Ack, Control, Evidence, Purpose, Reject, Request};
use crate::reason::Reason;
use crate::sabotage::Bug;
use crate::secret::PublicKey;
use crate::session::{
    self, Allowed, Cause, Class, Input, Opened, Path, Refusal, RefusalKind, Session, State, Step, Switch, Transport,
    Validated,
};
use crate::time::{Duration, Instant};
use core::cmp::Ordering;

/// Messages of requests a session may send in a minute, as a multiple of `max_requests_per_min`: a
/// challenged request is two messages, and each may have to be sent twice.
const MESSAGES_PER_REQUEST: u32 = 4;
/// When a client over the limit may ask again.
const RATE_RETRY: Duration = Duration::from_secs(1);

/// The request's own facts, needed for every answer.
#[derive(Clone, Copy)]
struct Asked {
    came: Came,
    request: Request,
    session: SessionId,
    peer: PublicKey,
    path: Path,
    /// When the challenge that it answers was sent.
    challenged: Option<Instant>,
}

/// What a nonce says.
enum Freshness {
    /// Above every accepted one.
    New,
    /// The one that bound the session to where it comes from.
    Repeat,
    /// Below, or accepted from elsewhere.
    Old,
}

impl Engine {
    pub(super) fn on_request(&mut self, came: Came, request: Request, proof: Option<([u8; 16], Instant)>) {
        let Some(path) = self.path(came.origin) else { return self.drop(Drop::GatewayAddress) };
        let Some(attachment) = self.table.attachments.get(&came.slot) else { return };
        let (session, peer) = (attachment.session, attachment.peer);
        let challenged = proof.map(|(_, time)| time);
        let asked = Asked { came, request, session, peer, path, challenged };
        if !self.config.peers.contains_key(&peer) {
            return self.drop(Drop::Refused);
        }
        let policy = self.policy_of(session);
        let Some(attachment) = self.table.attachments.get_mut(&came.slot) else { return };
        let limit = policy.max_requests_per_min.saturating_mul(MESSAGES_PER_REQUEST);
        if !attachment.requests.admit(limit, self.now) {
            self.drop(Drop::RateLimited);
            self.security(session, Reason::SecAbuseControlPlane);
            return self.send_reject(asked, Reason::RateLimited, None, Some(RATE_RETRY));
        }
        match self.freshness(asked) {
            Freshness::New => {}
            Freshness::Repeat if self.is_busy(session) => return self.drop(Drop::Busy),
            Freshness::Repeat => return self.send_ack_unmoved(asked),
            Freshness::Old => return self.refuse(asked, Reason::FreshnessInvalid),
        }
        let (label, class) = (request.label, class(request.class));
        let mtu = request.mtu.max(PATH_MTU_UNPROVEN);
        let transport = Transport { k: came.k, path, label, class, mtu, since: self.now };
        let validated = match proof {
            Some(proof) => self.proven(asked, transport, proof),
            // A relay's echo tells the relay's time, and a relay proves nothing for its clients.
            None if came.origin.hop.relay().is_some() => {
                Err(Refusal::new(RefusalKind::Invalid, Reason::PathUnvalidated))
            }
            None => self.known(came.slot, transport, &policy, request.quoted_echo),
        };
        let validated =
            if self.sabotage.is(Bug::SkipsChallenge) { Validated::answered(transport, path) } else { validated };
        match validated {
            Ok(_) if self.is_busy(session) => self.drop(Drop::Busy),
            Ok(validated) => self.on_proven(asked, validated, transport, &policy),
            Err(_) if proof.is_some() => {
                self.drop(Drop::Cookie);
                self.send_reject(asked, Reason::PathUnvalidated, None, None);
            }
            Err(_) => self.send_challenge(asked),
        }
    }

    fn is_busy(&self, session: SessionId) -> bool {
        self.table.sessions.get(&session).is_some_and(|live| live.busy.is_some())
    }

    /// Whether a wish to move is one the core may still accept, before anything is spent on it.
    fn freshness(&self, asked: Asked) -> Freshness {
        let Some(core) = self.table.sessions.get(&asked.session).map(|live| &live.core) else { return Freshness::New };
        let bound_here = core.transport().is_some_and(|active| active.path == asked.path);
        match asked.request.nonce.cmp(&core.nonce()) {
            _ if asked.request.purpose == Purpose::Validate => Freshness::New,
            _ if self.sabotage.is(Bug::AcceptsLowerNonce) => Freshness::New,
            Ordering::Greater => Freshness::New,
            Ordering::Equal if core.nonce() != 0 && bound_here => Freshness::Repeat,
            Ordering::Equal | Ordering::Less => Freshness::Old,
        }
    }

    /// A request from an address that was shown to receive.
    fn on_proven(&mut self, asked: Asked, validated: Validated, transport: Transport, policy: &session::Policy) {
        self.abandoned(asked, policy);
        match switch(asked.request, validated, transport, policy) {
            Ok(None) => self.send_ack_unmoved(asked),
            Ok(Some(switch)) => self.on_switch(asked, switch, policy),
            Err(refusal) => {
                self.drop(Drop::Refused);
                if let Some(live) = self.table.sessions.get(&asked.session) {
                    let context = self.context(&asked.peer);
                    let record = Record::about(&context, &live.core, Event::ReattachReject, Some(refusal.reason));
                    self.commands.push_back(Command::Record(Box::new(record)));
                }
                self.send_reject(asked, refusal.reason, refusal.detail, refusal.retry_after);
            }
        }
    }

    /// A refusal that needs no core to decide it.
    fn refuse(&mut self, asked: Asked, reason: Reason) {
        self.turned_away(asked.session, reason, "REATTACH");
        self.send_reject(asked, reason, None, None);
    }

    /// The cookie came back from the very 4-tuple it was sent to.
    fn proven(
        &mut self,
        asked: Asked,
        transport: Transport,
        (cookie, time): ([u8; 16], Instant),
    ) -> Result<Validated, Refusal> {
        let challenge = self.challenge(asked, time);
        let wrong = Refusal::new(RefusalKind::Invalid, Reason::PathUnvalidated);
        self.challenge.verify(&challenge, &cookie, self.now).map_err(|_| wrong)?;
        if let Some(attachment) = self.table.attachments.get_mut(&asked.came.slot) {
            attachment.remember(transport.path, transport.label);
        }
        Validated::answered(transport, transport.path)
    }

    /// The very 4-tuple answered a challenge before, and an echo came back there lately.
    fn known(
        &self,
        slot: Slot,
        transport: Transport,
        policy: &session::Policy,
        quoted_echo: u64,
    ) -> Result<Validated, Refusal> {
        let attachment = self.table.attachments.get(&slot);
        let answered = attachment.and_then(|held| held.validated.iter().find(|(known, _)| *known == transport.path));
        let unknown = Refusal::new(RefusalKind::Invalid, Reason::PathUnvalidated);
        let (answered, _) = *answered.ok_or(unknown)?;
        if quoted_echo == 0 {
            return Err(unknown);
        }
        Validated::fresh(transport, answered, Instant(quoted_echo), policy, self.now)
    }

    fn challenge(&self, asked: Asked, time: Instant) -> Challenge {
        Challenge {
            session: asked.session,
            client: asked.came.origin.client,
            gateway: asked.came.origin.gateway,
            nonce: asked.request.nonce,
            purpose: asked.request.purpose as u8,
            incarnation: self.config.incarnation,
            time,
        }
    }

    fn send_challenge(&mut self, asked: Asked) {
        let challenge = self.challenge(asked, self.now);
        let cookie = self.challenge.cookie(&challenge);
        let body = Control::Challenge { nonce: asked.request.nonce, cookie, cookie_time: self.now.0 };
        self.send_sealed(asked.came, body);
    }

    /// Requests up to the floor were given up by the client.
    fn abandoned(&mut self, asked: Asked, policy: &session::Policy) {
        let floor = asked.request.nonce_floor;
        let Some(live) = self.table.sessions.get_mut(&asked.session) else { return };
        if floor > live.core.nonce()
            && let Ok(step) = live.core.step(&Input::NonceFloor { nonce: floor }, policy, self.now)
        {
            live.core = step.session;
        }
    }

    fn on_switch(&mut self, asked: Asked, switch: Switch, policy: &session::Policy) {
        let Some(live) = self.table.sessions.get(&asked.session) else { return };
        let input = Input::Reattach(switch);
        let lax = self.sabotage.is(Bug::AcceptsLowerNonce).then(|| live.core.forgetting_nonce());
        match lax.as_ref().unwrap_or(&live.core).step(&input, policy, self.now) {
            Ok(step) => self.move_session(asked, step),
            Err(refusal) if refusal.kind == RefusalKind::Repeat => self.send_ack_unmoved(asked),
            Err(refusal) => {
                let record = Record::refused(&self.context(&asked.peer), &live.core, &input, &refusal);
                self.commands.push_back(Command::Record(Box::new(record)));
                self.drop(Drop::Refused);
                self.send_reject(asked, refusal.reason, refusal.detail, refusal.retry_after);
            }
        }
    }

    fn move_session(&mut self, asked: Asked, step: Step) {
        let (change, commit) = self.acknowledged(asked, step);
        self.commit(change, commit);
    }

    /// An ACK that moves nothing: VALIDATE, or a request that was answered before. Locators are topped up all
    /// the same.
    fn send_ack_unmoved(&mut self, asked: Asked) {
        let Some(core) = self.table.sessions.get(&asked.session).map(|live| live.core.clone()) else { return };
        let step = Step { session: core, transitions: Vec::new(), effects: Vec::new() };
        let (change, commit) = self.acknowledged(asked, step);
        if commit.maps.is_empty() && commit.worker.is_empty() {
            self.commands.extend(commit.send.into_iter().map(Command::Send));
        } else {
            self.commit(change, commit);
        }
    }

    /// What the client proved of its path, for the worker, if it is news.
    fn path_mtu(&mut self, asked: Asked) -> Option<WorkerOp> {
        let (slot, k, mtu) = (asked.came.slot, asked.came.k, asked.request.mtu.max(PATH_MTU_UNPROVEN));
        let issued = self.table.attachments.get_mut(&slot)?.locators.get_mut(&k)?;
        let news = issued.mtu != mtu;
        issued.mtu = mtu;
        news.then_some(WorkerOp::PathMtu { slot, k, mtu })
    }

    /// A step with its ACK, and who is told when the commit fails.
    fn acknowledged(&mut self, asked: Asked, step: Step) -> (Change, Commit) {
        let locators = self.exchange(asked, &step.session);
        let ack = Ack {
            nonce: asked.request.nonce,
            purpose: asked.request.purpose,
            version: step.session.version(),
            state: step.session.state().number(),
            owner_epoch: step.session.owner_epoch(),
            locators: locators.issued.clone(),
            retired: locators.retired.clone(),
        };
        let ack = self.seal_to(asked.came, Control::Ack(ack));
        let send = self.fitting(ack, asked.came.len).into_iter().collect();
        let switches = step.transitions.iter().any(session::Transition::is_switch);
        let (mut change, mut commit) = self.propose(asked.session, step, locators, send);
        commit.worker.extend(self.path_mtu(asked));
        if switches {
            // A path that was proven ahead of need is proven in no time.
            let prove = asked.challenged.map_or(Duration::ZERO, |at| self.now.since(at));
            let evidence = &asked.request.evidence;
            commit.records.iter_mut().for_each(|record| measured(record, evidence, prove));
        }
        change.asked = (!commit.maps.is_empty()).then_some((asked.came, asked.request.nonce));
        (change, commit)
    }

    /// Locators to give and take back with this ACK.
    fn exchange(&mut self, asked: Asked, after: &Session) -> Locators {
        let Some(attachment) = self.table.attachments.get(&asked.came.slot) else { return Locators::default() };
        let before = self.table.sessions.get(&attachment.session).and_then(|live| live.core.transport());
        let mut keep = vec![asked.came.k];
        keep.extend(after.transport().map(|transport| transport.k));
        keep.extend(before.map(|transport| transport.k));
        let retired = attachment.retirable(&keep, self.now);
        let indexes = attachment.next_indexes(retired.len());
        let issued = self.table.fresh_locators(asked.came.slot, self.config.workers, &indexes, &mut *self.entropy);
        Locators { issued, retired }
    }

    /// What a refused sender is told: why, and where the session stands.
    pub(super) fn reject(&self, slot: Slot, nonce: u64, reason: Reason) -> Reject {
        let attachment = self.table.attachments.get(&slot);
        let core = attachment.and_then(|held| self.table.sessions.get(&held.session)).map(|live| &live.core);
        Reject {
            nonce,
            reason,
            detail: None,
            retry_after_ms: 0,
            version: core.map(Session::version).unwrap_or_default(),
            state: core.map_or(0, |core| core.state().number()),
            bound: core.and_then(|core| core.transport().map(|transport| transport.k)),
        }
    }

    fn send_reject(&mut self, asked: Asked, reason: Reason, detail: Option<Reason>, retry: Option<Duration>) {
        let retry_after_ms = retry.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
        let reject = Reject { detail, retry_after_ms, ..self.reject(asked.came.slot, asked.request.nonce, reason) };
        self.send_sealed(asked.came, Control::Reject(reject));
    }
}

/// Adds to a record what the client measured, and how long its proof took.
fn measured(record: &mut Record, evidence: &Evidence, prove: Duration) {
    proved(record, prove);
    record.note("detect_us", evidence.detect_us.into());
    record.note("candidates", evidence.candidates.into());
    record.note("loss_permille", evidence.loss_permille.into());
    record.note("srtt_us", evidence.srtt_us.into());
}

/// Adds to the record of a binding the time from asking for its proof to having it.
pub(super) fn proved(record: &mut Record, prove: Duration) {
    if record.event == Event::TransportSwitch || record.from == Some(State::Birth) {
        record.note("prove_us", u64::try_from(prove.as_micros()).unwrap_or(u64::MAX).into());
    }
}

/// The switch a request asks for, with its evidence; none for VALIDATE.
fn switch(
    request: Request,
    validated: Validated,
    transport: Transport,
    policy: &session::Policy,
) -> Result<Option<Switch>, Refusal> {
    let (class, cause) = match request.purpose {
        Purpose::Validate => return Ok(None),
        Purpose::Rebind => (Class::Rebind, Cause::Quality),
        Purpose::Lost => (Class::Lost, Cause::Quality),
        Purpose::BetterQuality => (Class::Better, Cause::Quality),
        Purpose::BetterOperator => (Class::Better, Cause::Operator),
        Purpose::BetterMapping => (Class::Better, Cause::Mapping),
    };
    let wanted = session::Request {
        class,
        cause,
        improvement: request.evidence.improvement_permille,
        nonce: request.nonce,
        last_version: request.last_version,
        evidence: request.evidence.what,
    };
    let allowed = Allowed::by(policy, &transport)?;
    Switch::new(Opened::new(wanted), validated, allowed).map(Some)
}
