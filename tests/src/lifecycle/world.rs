//! One session, what is on its way to it, and everything that can happen next.
//!
//! Owns the actions and the canonical form in which two worlds are the same: time counts from the present, nonces and
//! versions by their order, transports by who was met first. Must never skip a check to make a world smaller.

use super::judge::{Judge, Verdict};
use super::{EPOCH, PEER, T0, born, confirm, path, transport};
use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicU64, Ordering};
use jvpn_common::ids::{OwnerEpoch, PolicyVersion, Version};
use jvpn_common::reason::Reason;
use jvpn_common::session::explore::Frame;
use jvpn_common::session::transition::{Place, TABLE, TIMERS};
use jvpn_common::session::twin::Core;
use jvpn_common::session::{
    Cause, Class, Confirmed, Elapsed, Ender, Input, Path, Policy, Refusal, RefusalKind, Report, Request, Resume,
    Session, Side, Step, Switch, invariant,
};
use jvpn_common::time::{Duration, Instant};
use std::collections::BTreeMap;

/// A unit of time within which a meter forgets half of what it remembers.
pub const FINE: Duration = Duration::from_secs(30);
/// A unit of time within which a meter forgets everything.
pub const COARSE: Duration = Duration::from_secs(65);
/// How long keys live, in units.
const KEYS: u32 = 4;
/// Versions of a canonical session.
const VERSION: u64 = 10;

/// Tight bounds, so that few steps meet them.
#[must_use]
pub fn policy(unit: Duration) -> Policy {
    Policy {
        version: PolicyVersion(1),
        session_ttl: unit * 4,
        transport_loss_ttl: unit * 3,
        max_recovery_window: unit * 2,
        max_recovery_attempts: 1,
        max_recoveries_degraded: 1,
        max_switches_per_min: 2,
        max_requests_per_min: 3,
        cooldown: unit,
        volatility_hold: unit,
        stability_window: unit,
        volatile_max: unit * 2,
        degraded_stability_window: unit * 2,
        ..Policy::field()
    }
}

/// What is explored.
#[derive(Debug)]
pub struct Rules {
    /// The core, or a twin of it.
    pub core: Core,
    /// The policy.
    pub policy: Policy,
    /// How many transports the client has.
    pub transports: u16,
    /// How many messages are on their way at once.
    pub in_flight: usize,
    /// Whether the session's own end lies beyond what is explored.
    pub endless: bool,
    /// How far time moves at once. Every bound of the policy is a multiple of it, so no instant between matters; it is
    /// a whole number of meter buckets.
    pub unit: Duration,
    /// How often each row was taken.
    pub rows: Vec<AtomicU64>,
    /// Refusals by kind.
    pub refusals: [AtomicU64; 4],
}

impl Rules {
    /// Rules for a core.
    #[must_use]
    pub fn new(core: Core, unit: Duration, transports: u16, in_flight: usize, endless: bool) -> Self {
        let mut policy = policy(unit);
        if endless {
            // The longest there is; no exploration is a hundredth of it deep.
            policy.session_ttl = Duration::from_secs(30 * 86_400);
        }
        let rows = TABLE.iter().map(|_| AtomicU64::new(0)).collect();
        Self { core, policy, transports, in_flight, endless, unit, rows, refusals: Default::default() }
    }
}

/// A message on its way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mail {
    /// A proven request.
    Reattach {
        /// Orders requests.
        nonce: u64,
        /// Why.
        class: Class,
        /// Who wants it.
        cause: Cause,
        /// Permille.
        improvement: u16,
        /// Where to.
        k: u16,
        /// Seen from.
        port: u16,
        /// Highest version the client claims to have seen.
        version: u64,
    },
    /// Requests up to a nonce are abandoned.
    Floor {
        /// The nonce.
        nonce: u64,
    },
    /// Keys were renewed.
    Rekey,
    /// A confirmed RESUME.
    Resume {
        /// By another peer.
        foreign: bool,
        /// Where to.
        k: u16,
        /// Seen from.
        port: u16,
        /// Highest version the client claims to have seen.
        version: u64,
    },
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The client sends something.
    Ask(Mail),
    /// A message arrives.
    Deliver(usize),
    /// A message arrives and stays on its way: it was doubled.
    Double(usize),
    /// A message is lost.
    Lose(usize),
    /// The first timer that is due fires.
    Tick,
    /// Time passes.
    Wait,
    /// The gateway is started again at once, or after its host stood still for a unit.
    Restart {
        /// Whether time passed.
        slept: bool,
    },
    /// Anything else.
    Meet(Input),
}

/// A session with what surrounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The session.
    pub session: Session,
    /// The books.
    pub judge: Judge,
    /// What is on its way.
    pub mail: Vec<Mail>,
    /// The first thing that was wrong on the way here.
    pub wrong: Option<String>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.session.encode().hash(state);
        (&self.judge, &self.mail, &self.wrong).hash(state);
    }
}

fn report(loss: u16) -> Input {
    let (rtt, jitter) = (Duration::from_millis(20), Duration::from_millis(2));
    Input::Quality(Report { loss, rtt, jitter, delivered: 100 })
}

/// Inputs that end a session, and those that must not.
fn ends() -> [Input; 11] {
    [
        Input::Terminate { by: Ender::Client },
        Input::Terminate { by: Ender::Operator },
        Input::Terminate { by: Ender::Policy },
        Input::PeerRemoved,
        Input::Superseded,
        Input::CompromiseSuspected,
        Input::InvariantBroken { which: 3 },
        Input::Shutdown,
        Input::NewerOwner { epoch: OwnerEpoch(EPOCH.0 + 1) },
        Input::NewerOwner { epoch: EPOCH },
        Input::NewerOwner { epoch: OwnerEpoch(EPOCH.0 - 1) },
    ]
}

impl World {
    /// The world in which message 2 is about to leave.
    #[must_use]
    pub fn first(rules: &Rules) -> Self {
        let session = born(&rules.policy);
        let judge = Judge::new(&session, &rules.policy, T0);
        Self { session, judge, mail: Vec::new(), wrong: None }
    }

    fn is_due(&self, rules: &Rules) -> bool {
        rules.core.next_deadline(&self.session, &rules.policy).is_some_and(|at| at <= T0)
    }

    /// Everything that can happen.
    pub fn actions(&self, rules: &Rules, actions: &mut Vec<Action>) {
        if self.wrong.is_some() || self.session.place() == Place::Terminated {
            return;
        }
        let live = self.session.is_live();
        if self.is_due(rules) {
            // A restart comes before most timers, what is broken before all; nothing else does.
            actions.push(Action::Tick);
            actions.extend(live.then_some(Action::Restart { slept: false }));
            actions.push(Action::Meet(Input::InvariantBroken { which: 3 }));
            actions.push(Action::Meet(Input::Terminate { by: Ender::Operator }));
            return;
        }
        actions.push(Action::Wait);
        actions.extend(ends().map(Action::Meet));
        if !live {
            actions.push(Action::Meet(confirm(transport(0, 0), T0, rules.unit * KEYS)));
            actions.push(Action::Meet(report(0)));
            return;
        }
        for at in 0..self.mail.len() {
            actions.extend([Action::Deliver(at), Action::Double(at), Action::Lose(at)]);
        }
        if self.mail.len() < rules.in_flight {
            self.asked(rules, actions);
        }
        for loss in [0, 100, 300] {
            actions.push(Action::Meet(report(loss)));
        }
        actions.push(Action::Meet(Input::TransportLost { by: Side::Gateway, evidence: None }));
        actions.push(Action::Meet(Input::AttemptFailed));
        actions.extend([false, true].map(|slept| Action::Restart { slept }));
    }

    /// What a client may send; it may be mistaken about everything it was not told.
    fn asked(&self, rules: &Rules, actions: &mut Vec<Action>) {
        let version = self.session.version().0;
        let nonce = self.nonces().into_iter().max().unwrap_or(0) + 1;
        let active = self.session.transport().map(|active| active.k.0);
        let mut ask = |class, cause, improvement, k, port, version| {
            actions.push(Action::Ask(Mail::Reattach { nonce, class, cause, improvement, k, port, version }));
        };
        for k in 0..rules.transports {
            ask(Class::Lost, Cause::Quality, 0, k, 0, version);
            if active != Some(k) {
                ask(Class::Better, Cause::Quality, 500, k, 0, version);
            }
            ask(Class::Rebind, Cause::Quality, 0, k, self.other_port(k), version);
        }
        let other = (0..rules.transports).find(|&k| active != Some(k)).unwrap_or(0);
        ask(Class::Better, Cause::Quality, 100, other, 0, version);
        ask(Class::Better, Cause::Operator, 0, other, 0, version);
        ask(Class::Lost, Cause::Quality, 0, other, 0, version + 1);
        actions.push(Action::Ask(Mail::Floor { nonce }));
        actions.push(Action::Ask(Mail::Rekey));
        for k in 0..rules.transports {
            actions.push(Action::Ask(Mail::Resume { foreign: false, k, port: 0, version }));
        }
        actions.push(Action::Ask(Mail::Resume { foreign: true, k: other, port: 0, version }));
        actions.push(Action::Ask(Mail::Resume { foreign: false, k: other, port: 0, version: version + 1 }));
    }

    /// A port of a transport that the active binding does not have.
    fn other_port(&self, k: u16) -> u16 {
        let active = self.session.transport().is_some_and(|active| active.path == path(k, 0));
        u16::from(active)
    }

    fn nonces(&self) -> Vec<u64> {
        let sent = self.mail.iter().filter_map(|mail| match mail {
            Mail::Reattach { nonce, .. } | Mail::Floor { nonce } => Some(*nonce),
            Mail::Rekey | Mail::Resume { .. } => None,
        });
        sent.chain([self.session.nonce(), self.judge.nonce()]).collect()
    }

    /// The world after an action, in canonical form; none when nothing is different.
    #[must_use]
    pub fn next(&self, rules: &Rules, action: Action) -> Option<Self> {
        let mut next = self.clone();
        let mut now = T0;
        let verdict = match action {
            Action::Ask(mail) => {
                next.mail.push(mail);
                Ok(())
            }
            Action::Lose(at) => {
                next.mail.remove(at);
                Ok(())
            }
            Action::Deliver(at) => {
                let mail = next.mail.remove(at);
                next.meet(rules, &input(rules, mail), now)
            }
            Action::Double(at) => next.meet(rules, &input(rules, *next.mail.get(at)?), now),
            Action::Tick => next.meet(rules, &Input::Tick, now),
            Action::Wait => {
                now = now + rules.unit;
                Ok(())
            }
            Action::Restart { slept } => {
                if slept {
                    now = now + rules.unit;
                }
                next.restart(rules, now)
            }
            Action::Meet(input) => next.meet(rules, &input, now),
        };
        next.wrong = verdict.err();
        next.canonical(rules, now);
        (next != *self).then_some(next)
    }

    /// The gateway is started again: what was in memory is gone, the store gives the session back.
    fn restart(&mut self, rules: &Rules, now: Instant) -> Verdict {
        let between = now.since(T0);
        self.judge.stood_still(between);
        let elapsed = Elapsed { then: T0, now, between };
        let stored = rules.core.restored(&self.session, elapsed, self.session.version());
        let stored = stored.ok_or("the store does not give the session back")?;
        if stored.place() == Place::Birth {
            return Ok(());
        }
        self.mail.retain(|mail| matches!(mail, Mail::Resume { .. }));
        let ends = |session: &Session| {
            let due = rules.core.tick(session, &rules.policy, now).map(|step| step.session);
            due.filter(|session| session.place() == Place::Terminated)
        };
        if ends(&stored).is_some() {
            self.session = stored;
            return self.meet(rules, &Input::Tick, now);
        }
        self.session = stored;
        self.meet(rules, &Input::ControllerRestarted, now)
    }

    /// One input: the core answers, the invariants and the judge look at it.
    fn meet(&mut self, rules: &Rules, input: &Input, now: Instant) -> Verdict {
        let (core, policy) = (rules.core, &rules.policy);
        let before = self.session.clone();
        let answer = core.step(&before, input, policy, now);
        same_in_any_mood(core, &before, input, policy, now, &answer)?;
        self.order(rules, input, &answer, now)?;
        self.judge.heard(&before, input, &answer, policy, now)?;
        match answer {
            Err(refusal) => {
                let kind = RefusalKind::TimerDue as usize;
                let at = (refusal.kind as usize).min(kind);
                rules.refusals[at].fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(step) => {
                checked(core, &before, &step, policy, now)?;
                for transition in &step.transitions {
                    rules.rows[transition.row].fetch_add(1, Ordering::Relaxed);
                }
                self.session = step.session;
                if matches!(input, Input::Resume(_)) && !step.transitions.is_empty() {
                    // Other keys: nothing older opens any more.
                    self.mail.retain(|mail| matches!(mail, Mail::Resume { .. }));
                }
                Ok(())
            }
        }
    }

    /// Timers fire first, and in their order.
    fn order(&self, rules: &Rules, input: &Input, answer: &Result<Step, Refusal>, now: Instant) -> Verdict {
        let running = self.session.running(&rules.policy);
        let due: Vec<&str> = running.iter().filter(|timer| timer.at <= now).map(|timer| timer.timer).collect();
        let first = TIMERS.iter().find(|timer| due.contains(&timer.name()));
        match (input, first) {
            (Input::Tick, Some(first)) => {
                let fired = answer.as_ref().ok().and_then(|step| step.transitions.first());
                let on = fired.and_then(|fired| TABLE.get(fired.row)).map(|row| row.on);
                if on == Some(*first) { Ok(()) } else { Err(format!("{first} was due, {on:?} fired")) }
            }
            (Input::Tick | Input::ControllerRestarted | Input::InvariantBroken { .. }, _) | (_, None) => Ok(()),
            (_, Some(first)) => match answer {
                Err(refusal) if refusal.kind == RefusalKind::TimerDue => Ok(()),
                _ => Err(format!("an input was taken before the timer {first}")),
            },
        }
    }

    /// TERMINATED absorbs everything.
    fn absorbs(&self, rules: &Rules) -> Verdict {
        let now = T0;
        let resume = input(rules, Mail::Resume { foreign: false, k: 1, port: 0, version: 0 });
        let more =
            [Input::Tick, resume, confirm(transport(0, 0), now, rules.unit * KEYS), report(300), Input::AttemptFailed];
        let lost = Input::TransportLost { by: Side::Client, evidence: None };
        let asked = Class::ALL.iter().map(|&class| {
            let nonce = self.session.nonce() + 1;
            input(
                rules,
                Mail::Reattach { nonce, class, cause: Cause::Operator, improvement: 1_000, k: 1, port: 0, version: 0 },
            )
        });
        for input in more.into_iter().chain(ends()).chain([lost, Input::ControllerRestarted]).chain(asked) {
            let answer = rules.core.step(&self.session, &input, &rules.policy, now);
            if answer.is_ok() {
                return Err(format!("TERMINATED does not absorb {input:?}"));
            }
        }
        Ok(())
    }

    /// What holds in every world. The guarantee, from here on: a verified reattach binds, silence ends; and
    /// TERMINATED absorbs.
    pub fn guarantee(&self, rules: &Rules) -> Verdict {
        let (core, policy) = (rules.core, &rules.policy);
        if self.session.place() == Place::Terminated {
            return self.absorbs(rules);
        }
        if self.is_due(rules) || self.wrong.is_some() {
            return Ok(());
        }
        self.judge.settled(&self.session, policy, T0)?;
        if self.session.is_live() {
            let nonce = self.nonces().into_iter().max().unwrap_or(0) + 1;
            let version = self.session.version().0;
            for k in 0..rules.transports {
                let mail = Mail::Reattach {
                    nonce,
                    class: Class::Lost,
                    cause: Cause::Quality,
                    improvement: 0,
                    k,
                    port: 0,
                    version,
                };
                let asked = input(rules, mail);
                let Input::Reattach(switch) = asked else { continue };
                let bound = |input: &Input| {
                    core.step(&self.session, input, policy, T0).is_ok_and(|step| step.session.is_bound())
                };
                let owed = self.judge.is_owed(&self.session, switch.request(), k, policy, T0);
                if owed && !bound(&asked) {
                    return Err("a verified LOST does not bind".into());
                }
                if !bound(&input(rules, Mail::Resume { foreign: false, k, port: 0, version })) {
                    return Err("a verified RESUME does not bind".into());
                }
            }
        }
        self.silence(rules)
    }

    /// Nothing but waiting: an unbound session is over within its TTL, and none comes back by itself.
    fn silence(&self, rules: &Rules) -> Verdict {
        if self.session.is_bound() {
            return Ok(());
        }
        let limit = self.judge.unbound().map_or(T0 + rules.unit, |at| at + rules.policy.transport_loss_ttl);
        let (mut session, mut now) = (self.session.clone(), T0);
        while now < limit {
            now = now + rules.unit;
            while let Some(step) = rules.core.tick(&session, &rules.policy, now) {
                session = step.session;
                if session.is_bound() {
                    return Err("silence bound it".into());
                }
            }
        }
        let over = session.place() == Place::Terminated;
        if over { Ok(()) } else { Err("neither bound nor TERMINATED within its loss TTL".into()) }
    }

    /// Makes it the one form of all worlds that cannot be told apart.
    fn canonical(&mut self, rules: &Rules, now: Instant) {
        let version = self.session.version().0;
        if self.session.place() == Place::Terminated {
            self.mail.clear();
        }
        for mail in &mut self.mail {
            if let Mail::Reattach { version: claim, .. } | Mail::Resume { version: claim, .. } = mail {
                *claim = (VERSION + *claim).saturating_sub(version).max(VERSION - 1);
            }
        }
        let mut nonces = self.nonces();
        nonces.sort_unstable();
        nonces.dedup();
        let base = u64::from(nonces.first() != Some(&0));
        let rank = |nonce: u64| nonces.iter().position(|&other| other == nonce).map_or(0, |at| at as u64 + base);
        for mail in &mut self.mail {
            if let Mail::Reattach { nonce, .. } | Mail::Floor { nonce } = mail {
                *nonce = rank(*nonce);
            }
        }
        let (policy, endless) = (&rules.policy, rules.endless);
        let nonce = rank(self.session.nonce());
        let frame = Frame { policy, now, at: T0, version: Version(VERSION), nonce, endless };
        let judged = rank(self.judge.nonce());
        self.session = self.session.told(frame);
        self.judge = self.judge.told(&self.session, judged, endless, policy, now, T0);
        if self.session.place() == Place::Terminated {
            self.judge = Judge::new(&self.session, policy, T0);
        }
        self.mail.sort_unstable();
        self.rename();
        self.mail.sort_unstable();
    }

    /// Transports by who was met first: the active one, the last accepted one, then those on their way.
    fn rename(&mut self) {
        let mut met: BTreeMap<Path, (u16, u16)> = BTreeMap::new();
        let mut ports: Vec<(u16, u16)> = Vec::new();
        let mut names: Vec<u16> = Vec::new();
        let mut meet = |k: u16, seen: Path| {
            let name = names.iter().position(|&known| known == k).unwrap_or_else(|| {
                names.push(k);
                ports.push((k, 0));
                names.len() - 1
            });
            met.entry(seen).or_insert_with(|| {
                let next = &mut ports[name].1;
                *next += 1;
                (name as u16, *next - 1)
            });
        };
        let k_of = |seen: Path| (0..4).find(|&k| (0..8).any(|port| path(k, port) == seen)).unwrap_or(0);
        if let Some(active) = self.session.transport() {
            meet(active.k.0, active.path);
        }
        if let Some(seen) = self.session.nonce_path() {
            meet(k_of(seen), seen);
        }
        for mail in &self.mail {
            match *mail {
                Mail::Reattach { k, port, .. } | Mail::Resume { k, port, .. } => meet(k, path(k, port)),
                Mail::Floor { .. } | Mail::Rekey => {}
            }
        }
        let named = |seen: Path| met.get(&seen).copied().unwrap_or((0, 0));
        for mail in &mut self.mail {
            match mail {
                Mail::Reattach { k, port, .. } | Mail::Resume { k, port, .. } => {
                    (*k, *port) = named(path(*k, *port));
                }
                Mail::Floor { .. } | Mail::Rekey => {}
            }
        }
        let place = |seen: Path| {
            let (k, port) = named(seen);
            path(k, port)
        };
        let whole = |old: jvpn_common::session::Transport| {
            let (k, port) = named(old.path);
            jvpn_common::session::Transport { since: old.since, ..transport(k, port) }
        };
        self.session = self.session.renamed_paths(whole, place);
    }
}

/// What a message says to the core.
fn input(rules: &Rules, mail: Mail) -> Input {
    match mail {
        Mail::Reattach { nonce, class, cause, improvement, k, port, version } => {
            let evidence = (class == Class::Lost).then_some(Reason::NoDelivery);
            let request = Request { class, cause, improvement, nonce, last_version: Version(version), evidence };
            Input::Reattach(Switch::supposed(request, transport(k, port)))
        }
        Mail::Floor { nonce } => Input::NonceFloor { nonce },
        Mail::Rekey => Input::Rekeyed { reject_after: T0 + rules.unit * KEYS },
        Mail::Resume { foreign, k, port, version } => Input::Resume(Resume {
            peer: if foreign { [8; 32] } else { PEER },
            confirmed: Confirmed::supposed(transport(k, port)),
            last_version: Version(version),
            reject_after: T0 + rules.unit * KEYS,
        }),
    }
}

/// Same arguments, same answer, whatever else is different.
fn same_in_any_mood(
    core: Core,
    before: &Session,
    input: &Input,
    policy: &Policy,
    now: Instant,
    answer: &Result<Step, Refusal>,
) -> Verdict {
    let again = core.in_another_mood().step(before, input, policy, now);
    if again == *answer { Ok(()) } else { Err(format!("determinism: {answer:?}, then {again:?}")) }
}

/// Every invariant of one step.
fn checked(core: Core, before: &Session, step: &Step, policy: &Policy, now: Instant) -> Verdict {
    invariant::check(before, step).map_err(|broken| broken.to_string())?;
    for transition in &step.transitions {
        let again = core.step(&transition.before, &transition.input, policy, now);
        let same = again.is_ok_and(|again| again.transitions.as_slice() == core::slice::from_ref(transition));
        if !same {
            return Err("a transition's own input does not replay it".into());
        }
    }
    let stored = core.stored(&step.session);
    if stored.as_ref() == Some(&step.session) {
        Ok(())
    } else {
        Err("the encoding does not give the session back".into())
    }
}
