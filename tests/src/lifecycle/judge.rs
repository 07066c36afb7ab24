//! Books beside a session: what it was told, when, and what it may therefore do.
//!
//! Owns an account of switches, requests, nonces, reports and times that shares nothing with the session's own. Must
//! never ask the session for a bound: it says what must be, from the inputs and `docs/lifecycle.md` alone.

use super::{EPOCH, PEER};
use jvpn_common::ids::{SessionId, Version};
use jvpn_common::reason::Reason;
use jvpn_common::session::transition::{On, Place, TABLE};
use jvpn_common::session::{
    Cause, Class, Input, Keys, Policy, Refusal, RefusalKind, Report, Request, Session, Step, Transition,
};
use jvpn_common::time::{Duration, Instant};

/// What a rate is counted over.
pub const MINUTE: Duration = Duration::from_secs(60);
/// What a meter may remember: it errs to the strict side by one bucket.
const MEMORY: Duration = Duration::from_secs(65);

/// The books.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Judge {
    id: SessionId,
    version: Version,
    /// Since when it is unbound.
    unbound: Option<Instant>,
    /// Until when its keys live.
    keys: Option<Instant>,
    /// When its life ends.
    life: Instant,
    /// BETTER and LOST that were carried out, since the last refill.
    switches: Vec<Instant>,
    last_switch: Option<Instant>,
    requests: Vec<Instant>,
    /// Highest nonce it took or was told to forget.
    nonce: u64,
    /// Reports below the floor in a row, and since when all were bad, or good, on this binding.
    floor: u8,
    bad: Option<Instant>,
    good: Option<Instant>,
    attempts: u32,
    recoveries: u32,
    spent: bool,
}

/// What is wrong, in words that name the check.
pub type Verdict = Result<(), String>;

fn must(holds: bool, what: &str) -> Verdict {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn within(times: &[Instant], window: Duration, now: Instant) -> u32 {
    let count = times.iter().filter(|&&at| at + window > now).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl Judge {
    /// Books that begin with a birth.
    #[must_use]
    pub fn new(session: &Session, policy: &Policy, now: Instant) -> Self {
        Self {
            id: session.id(),
            version: session.version(),
            unbound: None,
            keys: None,
            life: now + policy.session_ttl,
            switches: Vec::new(),
            last_switch: None,
            requests: Vec::new(),
            nonce: 0,
            floor: 0,
            bad: None,
            good: None,
            attempts: 0,
            recoveries: 0,
            spent: false,
        }
    }

    /// Since when the session is unbound.
    #[must_use]
    pub const fn unbound(&self) -> Option<Instant> {
        self.unbound
    }

    /// The highest nonce taken.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Whether a request must be taken now, whatever anti-flap says.
    #[must_use]
    pub fn is_owed(&self, session: &Session, request: &Request, k: u16, policy: &Policy, now: Instant) -> bool {
        let fresh = request.nonce > self.nonce && request.last_version <= self.version;
        let necessary = match (session.transport(), request.class) {
            (None, _) | (_, Class::Lost) => true,
            (Some(active), Class::Rebind) => active.k.0 == k,
            (_, Class::Better) => false,
        };
        let inside = within(&self.requests, MEMORY, now) < policy.max_requests_per_min;
        session.is_live() && fresh && necessary && inside && self.keys.is_some_and(|until| until > now)
    }

    /// Judges an answer to an input, and writes it down.
    pub fn heard(
        &mut self,
        before: &Session,
        input: &Input,
        answer: &Result<Step, Refusal>,
        policy: &Policy,
        now: Instant,
    ) -> Verdict {
        let step = match answer {
            Ok(step) => step,
            Err(refusal) => return self.refused(before, input, refusal, policy, now),
        };
        must(before.place() != Place::Terminated, "TERMINATED does not absorb")?;
        if let Input::Quality(report) = input {
            self.report(report, policy, now);
        }
        let claim = match input {
            Input::Reattach(switch) => switch.request().last_version,
            Input::Resume(resume) => resume.last_version,
            _ => Version(0),
        };
        must(claim <= self.version, "a version from the future was believed")?;
        for transition in &step.transitions {
            must(transition.version == self.version.next(), "a version is not the next one")?;
            self.version = transition.version;
            self.moved(transition, input, policy, now)?;
        }
        let after = &step.session;
        must(after.id() == self.id && after.peer() == &PEER, "the identity changed")?;
        must(after.version() == self.version, "the version is not that of the last transition")?;
        match input {
            Input::Rekeyed { reject_after } => self.keys = Some(*reject_after),
            Input::NonceFloor { nonce } => self.nonce = self.nonce.max(*nonce),
            Input::AttemptFailed if before.place() == Place::Recovering => {
                self.attempts += 1;
                let spent = self.attempts > policy.max_recovery_attempts;
                must(!spent || after.place() == Place::DegradedUnbound, "attempts without end")?;
            }
            Input::ControllerRestarted if after.is_live() => {
                must(!after.is_bound() && after.keys() == Keys::Stale, "a restart left a binding or keys")?;
            }
            _ => {}
        }
        if after.is_live() {
            must(after.is_bound() == self.unbound.is_none(), "bound and unbound are mixed up")?;
            must((after.keys() == Keys::Live) == self.keys.is_some(), "the keys are not what they were told to be")?;
        }
        Ok(())
    }

    /// The gateway stood still. Its meters did too: they forget nothing meanwhile, which is the strict side.
    pub fn stood_still(&mut self, between: Duration) {
        self.switches.iter_mut().chain(&mut self.requests).for_each(|at| *at = *at + between);
    }

    /// What must be true of a session whose timers have all fired.
    pub fn settled(&self, session: &Session, policy: &Policy, now: Instant) -> Verdict {
        if !session.is_live() {
            return Ok(());
        }
        must(self.life > now, "it lives past its session TTL")?;
        must(self.unbound.is_none_or(|at| at + policy.transport_loss_ttl > now), "unbound past its loss TTL")?;
        must(self.keys.is_none_or(|until| until > now), "its keys live past their limit")?;
        let window = self.unbound.is_none_or(|at| at + policy.max_recovery_window > now);
        must(session.place() != Place::Recovering || window, "RECOVERING past its window")
    }

    /// A refusal is right unless the session is owed the move.
    fn refused(
        &mut self,
        before: &Session,
        input: &Input,
        refusal: &Refusal,
        policy: &Policy,
        now: Instant,
    ) -> Verdict {
        let owed = match input {
            Input::Reattach(switch) => self.is_owed(before, switch.request(), switch.transport().k.0, policy, now),
            Input::Resume(resume) => {
                before.is_live()
                    && resume.peer == PEER
                    && resume.last_version <= self.version
                    && resume.reject_after > now
            }
            Input::ControllerRestarted | Input::CompromiseSuspected => before.is_live(),
            _ => false,
        };
        must(!owed || refusal.kind == RefusalKind::TimerDue, &format!("a proven client was stranded: {refusal}"))
    }

    /// One transition.
    fn moved(&mut self, moved: &Transition, input: &Input, policy: &Policy, now: Instant) -> Verdict {
        let row = TABLE.get(moved.row).ok_or("a row that is not in the table")?;
        let (from, to) = (moved.before.place(), moved.after.place());
        match row.on {
            On::Accept | On::Rebind | On::Better | On::Confirm => self.bound(moved, input, policy, now)?,
            On::TransportLost if from == Place::DegradedBound && to == Place::Recovering => {
                must(self.recoveries < policy.max_recoveries_degraded, "recoveries of a DEGRADED session without end")?;
                self.recoveries += 1;
            }
            On::KeyExpired => must(self.keys.is_some_and(|until| until <= now), "keys died before their time")?,
            On::Quality => {
                let held = self.bad.is_some_and(|at| now > at && at + policy.volatility_hold <= now);
                must(self.floor >= 2 || held, "one report moved it")?;
            }
            On::Stable => self.stable(from, policy, now)?,
            On::AttemptFailed => must(self.attempts >= policy.max_recovery_attempts, "attempts given up early")?,
            On::LossTtl => {
                let over = self.unbound.is_some_and(|at| at + policy.transport_loss_ttl <= now);
                must(over, "lost for good before its loss TTL")?;
            }
            On::RecoveryWindow => {
                let over = self.unbound.is_some_and(|at| at + policy.max_recovery_window <= now);
                must(over, "DEGRADED before its recovery window")?;
            }
            On::SessionTtl => must(self.life <= now, "ended before its session TTL")?,
            On::NewerOwner => {
                must(matches!(input, Input::NewerOwner { epoch } if *epoch > EPOCH), "an owner that is not newer")?;
            }
            _ => {}
        }
        if matches!(row.on, On::KeyExpired | On::Restarted) {
            self.keys = None;
        }
        if !moved.after.is_bound() && self.unbound.is_none() {
            self.unbound = Some(now);
            (self.floor, self.bad, self.good) = (0, None, None);
        }
        if to == Place::Recovering && from != Place::Recovering {
            self.attempts = 0;
        }
        Ok(())
    }

    /// Stability that ends VOLATILE or DEGRADED.
    fn stable(&mut self, from: Place, policy: &Policy, now: Instant) -> Verdict {
        let degraded = from == Place::DegradedBound;
        let window = if degraded { policy.degraded_stability_window } else { policy.stability_window };
        must(self.good.is_some_and(|at| at + window <= now), "good for less than its window")?;
        if degraded {
            (self.recoveries, self.spent) = (0, false);
            self.switches.clear();
        }
        Ok(())
    }

    /// A transition that binds.
    fn bound(&mut self, moved: &Transition, input: &Input, policy: &Policy, now: Instant) -> Verdict {
        let budget = within(&self.switches, MINUTE, now) < policy.max_switches_per_min;
        match input {
            Input::Confirm { reject_after, .. } => self.keys = Some(*reject_after),
            Input::Resume(resume) => {
                must(resume.peer == PEER, "another peer resumed it")?;
                (self.keys, self.nonce) = (Some(resume.reject_after), 0);
            }
            Input::Reattach(switch) => {
                let (request, to) = (switch.request(), switch.transport());
                must(request.nonce > self.nonce, "a nonce was taken twice or out of order")?;
                must(self.keys.is_some_and(|until| until > now), "a request was taken under dead keys")?;
                let inside = within(&self.requests, MINUTE, now) < policy.max_requests_per_min;
                must(inside, "more requests than the abuse limit")?;
                let elsewhere = moved.before.transport().is_some_and(|active| active.k != to.k);
                if request.class == Class::Better && moved.before.is_bound() || elsewhere {
                    self.optional(request, policy, now)?;
                }
                self.nonce = request.nonce;
                self.requests.push(now);
                if request.class != Class::Rebind {
                    self.switches.push(now);
                    self.last_switch = Some(now);
                }
            }
            _ => return Err("bound without evidence".into()),
        }
        let to = moved.after.place();
        if moved.before.place() == Place::DegradedUnbound && to == Place::Attached {
            must(self.recoveries < policy.max_recoveries_degraded, "ATTACHED again with no recovery left")?;
        }
        if !moved.before.is_bound() && moved.before.is_live() && to == Place::Attached {
            must(budget && !self.spent, "ATTACHED again with a spent switch budget")?;
        }
        self.spent |= moved.reason == Reason::EnterDegradedMode;
        self.unbound = None;
        (self.floor, self.bad, self.good) = (0, None, Some(now));
        must(moved.after.transport().is_some(), "bound to nothing")
    }

    /// The bounds of a move that is not necessary.
    fn optional(&self, request: &Request, policy: &Policy, now: Instant) -> Verdict {
        let cool = self.last_switch.is_none_or(|at| at + policy.cooldown <= now);
        let quality = request.cause == Cause::Quality;
        must(cool || !quality, "an optional switch inside the cooldown")?;
        must(request.improvement >= policy.improvement.0 || !quality, "an optional switch without improvement")?;
        let rate = within(&self.switches, MINUTE, now) < policy.max_switches_per_min;
        must(rate, "more optional switches than max_switches_per_min")
    }

    fn report(&mut self, report: &Report, policy: &Policy, now: Instant) {
        if self.unbound.is_some() || report.is_empty() {
            return;
        }
        let bad = report.loss > policy.loss_threshold.0
            || report.rtt > policy.rtt_threshold
            || report.jitter > policy.jitter_threshold;
        let floor = report.loss > policy.loss_floor.0;
        self.floor = if floor { (self.floor + 1).min(2) } else { 0 };
        self.bad = if bad { self.bad.or(Some(now)) } else { None };
        self.good = if bad { None } else { self.good.or(Some(now)) };
    }

    /// The same books with `now` called `at`, without what cannot matter any more.
    #[must_use]
    pub fn told(
        &self,
        session: &Session,
        nonce: u64,
        endless: bool,
        policy: &Policy,
        now: Instant,
        at: Instant,
    ) -> Self {
        let moved = |then: Instant| if then >= now { at + then.since(now) } else { at.before(now.since(then)) };
        let newest = |times: &[Instant], most: u32| {
            let kept: Vec<Instant> =
                times.iter().filter(|&&then| then + MEMORY > now).map(|&then| moved(then)).collect();
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            kept[kept.len().saturating_sub(most)..].to_vec()
        };
        let window = policy.degraded_stability_window.max(policy.stability_window);
        let attached = session.place() == Place::Attached;
        Self {
            id: self.id,
            version: session.version(),
            unbound: self.unbound.map(moved),
            keys: self.keys.map(moved),
            life: if endless { at + policy.session_ttl } else { moved(self.life) },
            switches: newest(&self.switches, policy.max_switches_per_min),
            last_switch: self.last_switch.filter(|&then| then + policy.cooldown > now).map(moved),
            requests: newest(&self.requests, policy.max_requests_per_min),
            nonce,
            floor: if attached { self.floor } else { 0 },
            bad: self.bad.filter(|_| attached).map(|then| moved(then).max(at.before(policy.volatility_hold))),
            good: self.good.filter(|_| !attached).map(|then| moved(then).max(at.before(window))),
            attempts: if session.place() == Place::Recovering { self.attempts } else { 0 },
            recoveries: self.recoveries.min(policy.max_recoveries_degraded),
            spent: self.spent,
        }
    }
}
