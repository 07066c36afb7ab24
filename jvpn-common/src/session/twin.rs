//! The session core with one deliberate mistake, so that explorers and schedules can show that they would find it.
//!
//! Owns the mistakes and the only way to make one. Must never exist without the feature `sabotage`; the machine itself
//! knows nothing of them: a twin lies to it, or spoils what it says.

use super::flap::Meter;
use super::input::{Class, Input, Resume};
use super::policy::Policy;
use super::proof::Switch;
use super::state::{Keys, State, Transport};
use super::transition::{On, TABLE, TIMERS};
use super::{Elapsed, Refusal, RefusalKind, Session, Step};
use crate::ids::{OwnerEpoch, SessionId, Version};
use crate::reason::Reason;
use crate::time::{Duration, Instant};

/// Declares the mistakes with the number of the invariant, or the bound, that each is about.
macro_rules! slips {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Slip { $($(#[$doc])* $name,)* }

        impl Slip {
            /// Every mistake.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

slips! {
    /// RESUME makes a new identity.
    ResumeRenames,
    /// RESUME begins a new life.
    ResumeExtendsLife,
    /// A commit of two transitions skips a version.
    VersionSkips,
    /// REBIND has no version of its own.
    RebindWithoutVersion,
    /// A lost transport stays bound.
    LostStaysBound,
    /// LOST is one transition: RECOVERING never was.
    LostSkipsRecovering,
    /// A bound session keeps its `lost_at`.
    KeepsLostAt,
    /// What is over comes back with RESUME.
    TerminatedRevives,
    /// An end leaves the keys alive.
    EndKeepsKeys,
    /// A request is taken again under a lower nonce.
    LowerNonceAccepted,
    /// A repeated request is carried out again.
    RepeatActsAgain,
    /// A version nobody gave is believed.
    FutureVersionBelieved,
    /// Dead keys open requests.
    StaleKeysAccepted,
    /// A restart leaves the keys alive.
    RestartKeepsKeys,
    /// A restart leaves the binding.
    RestartKeepsBinding,
    /// RESUME by any peer.
    ForeignResume,
    /// BETTER meets no cooldown.
    CooldownIgnored,
    /// BETTER needs no improvement.
    ImprovementIgnored,
    /// BETTER meets no rate.
    RateIgnored,
    /// LOST meets the cooldown.
    CooldownBlocksLost,
    /// A spent switch budget refuses what is necessary.
    BudgetStrands,
    /// Requests are not counted.
    AbuseUnbounded,
    /// REBIND under another locator is free.
    RebindMovesAnywhere,
    /// The budget refills with every reattach.
    RefillsAtOnce,
    /// Recoveries of a DEGRADED session are not counted.
    RecoveriesUncounted,
    /// Failed attempts are not counted.
    AttemptsUncounted,
    /// One bad report is enough.
    OneReportMoves,
    /// A new binding inherits the old one's reports.
    QualitySurvivesBinding,
    /// A failed attempt gives a session more time.
    AttemptResetsLoss,
    /// No loss TTL.
    LossTtlNever,
    /// No session TTL.
    SessionTtlNever,
    /// No recovery window.
    WindowNever,
    /// Keys never expire.
    KeysNeverExpire,
    /// Of two timers that are due the last one fires.
    TimersBackwards,
    /// What arrives is taken before the timers.
    TimersAfterInput,
    /// An owner of the same epoch ends the session.
    SameOwnerEnds,
    /// The answer depends on something that is no argument.
    Moody,
    /// The store forgets that the budget was spent.
    StoreForgetsBudget,
}

/// The session core, or a twin of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Core {
    slip: Option<Slip>,
    /// What is no argument of the pure function: an address, a clock, a counter. The machine must not notice it.
    mood: bool,
}

impl Core {
    /// A twin with one mistake.
    #[must_use]
    pub const fn with(slip: Slip) -> Self {
        Self { slip: Some(slip), mood: false }
    }

    /// The same one, with something different that is no argument.
    #[must_use]
    pub const fn in_another_mood(self) -> Self {
        Self { mood: !self.mood, ..self }
    }

    /// [`Session::step`].
    pub fn step(self, session: &Session, input: &Input, policy: &Policy, now: Instant) -> Result<Step, Refusal> {
        let Some(slip) = self.slip else {
            return session.step(input, policy, now);
        };
        if slip == Slip::Moody && self.mood && matches!(input, Input::Quality(_)) {
            return Err(Refusal::new(RefusalKind::NoOp, Reason::NoDelivery));
        }
        if slip == Slip::TimersBackwards && *input == Input::Tick {
            let nothing = || Refusal::new(RefusalKind::NoOp, Reason::SessionExpired);
            return self.tick(session, policy, now).ok_or_else(nothing);
        }
        if let Some(answer) = instead(slip, session, input, policy, now) {
            return answer;
        }
        let lied_to = lie(slip, session, input);
        let bent = bent(slip, session, input);
        let mut step = lied_to.step(&bent, &lax(slip, policy), now)?;
        // A twin believes itself: what it was shown is not what it says it saw.
        step.transitions.iter_mut().filter(|transition| transition.input == bent).for_each(|same| same.input = *input);
        spoil(slip, session, input, &mut step, now);
        if let Some(first) = step.transitions.first_mut() {
            first.before = session.clone();
        }
        Ok(step)
    }

    /// [`Session::tick`].
    #[must_use]
    pub fn tick(self, session: &Session, policy: &Policy, now: Instant) -> Option<Step> {
        match self.slip {
            None => session.tick(policy, now),
            Some(Slip::TimersBackwards) => {
                let fire = |timer: &On| session.transition(*timer, &Input::Tick, policy, now).ok();
                TIMERS.iter().rev().find_map(fire).map(|transition| session.proposed(vec![transition]))
            }
            Some(_) => self.step(session, &Input::Tick, policy, now).ok(),
        }
    }

    /// [`Session::next_deadline`].
    #[must_use]
    pub fn next_deadline(self, session: &Session, policy: &Policy) -> Option<Instant> {
        let Some(slip) = self.slip else {
            return session.next_deadline(policy);
        };
        lie(slip, session, &Input::Tick).next_deadline(&lax(slip, policy))
    }

    /// What a store gives back, and a start of the gateway makes of it.
    #[must_use]
    pub fn restored(self, session: &Session, elapsed: Elapsed, version: Version) -> Option<Session> {
        Some(self.stored(session)?.restored(elapsed, version, session.owner_epoch))
    }

    /// What a store gives back.
    #[must_use]
    pub fn stored(self, session: &Session) -> Option<Session> {
        let mut stored = Session::decode(&session.encode())?;
        stored.spent &= self.slip != Some(Slip::StoreForgetsBudget);
        Some(stored)
    }
}

/// What a twin says without asking the machine.
fn instead(
    slip: Slip,
    session: &Session,
    input: &Input,
    policy: &Policy,
    now: Instant,
) -> Option<Result<Step, Refusal>> {
    let refused = |reason| Some(Err(Refusal::new(RefusalKind::Invalid, reason)));
    let necessary = matches!(input, Input::Reattach(switch) if switch.request().class == Class::Lost);
    match slip {
        Slip::CooldownBlocksLost if necessary => {
            let cooling = session.last_switch.is_some_and(|at| at + policy.cooldown > now);
            if cooling { refused(Reason::TransportSwitchDenied) } else { None }
        }
        Slip::BudgetStrands if necessary && session.switches.count(now) >= policy.max_switches_per_min => {
            refused(Reason::TransportSwitchDenied)
        }
        Slip::RestartKeepsBinding if *input == Input::ControllerRestarted && session.is_bound() => {
            Some(Ok(Step { session: session.clone(), transitions: Vec::new(), effects: Vec::new() }))
        }
        Slip::TimersAfterInput if *input != Input::Tick => {
            let due = session.next_deadline(policy).filter(|&at| at <= now)?;
            Some(session.step(input, policy, due.before(Duration::from_nanos(1))))
        }
        _ => None,
    }
}

/// The session a twin shows to the machine.
fn lie(slip: Slip, session: &Session, input: &Input) -> Session {
    let mut shown = session.clone();
    let asked = match input {
        Input::Reattach(switch) => Some(switch.request()),
        _ => None,
    };
    match slip {
        Slip::TerminatedRevives if session.state == State::Terminated && matches!(input, Input::Resume(_)) => {
            (shown.state, shown.lost_at) = (State::Recovering, Some(session.state_since));
            shown.expires_at = Instant(u64::MAX);
        }
        Slip::LowerNonceAccepted if asked.is_some_and(|request| request.nonce < session.nonce) => {
            shown = session.forgetting_nonce();
        }
        Slip::RepeatActsAgain if asked.is_some_and(|request| request.nonce == session.nonce) => {
            shown = session.forgetting_nonce();
        }
        Slip::StaleKeysAccepted if asked.is_some() && session.is_live() && session.keys == Keys::Stale => {
            (shown.keys, shown.reject_after) = (Keys::Live, Instant(u64::MAX));
        }
        Slip::OneReportMoves if session.state == State::Attached && shown.quality.floor == 0 => {
            shown.quality.floor = 1;
        }
        Slip::SessionTtlNever if *input == Input::Tick => shown.expires_at = Instant(u64::MAX),
        Slip::KeysNeverExpire if *input == Input::Tick => shown.reject_after = Instant(u64::MAX),
        _ => {}
    }
    shown
}

/// The input a twin shows to the machine.
fn bent(slip: Slip, session: &Session, input: &Input) -> Input {
    match (slip, input) {
        (Slip::FutureVersionBelieved, Input::Reattach(switch)) => {
            let mut request = *switch.request();
            request.last_version = request.last_version.min(session.version);
            Input::Reattach(Switch::recorded(request, *switch.transport()))
        }
        (Slip::ForeignResume, Input::Resume(resume)) => Input::Resume(Resume { peer: session.peer, ..*resume }),
        (Slip::SameOwnerEnds, Input::NewerOwner { epoch }) => Input::NewerOwner { epoch: OwnerEpoch(epoch.0 + 1) },
        (Slip::RebindMovesAnywhere, Input::Reattach(switch)) if switch.request().class == Class::Rebind => {
            let k = session.transport.map_or(switch.transport().k, |active| active.k);
            Input::Reattach(Switch::recorded(*switch.request(), Transport { k, ..*switch.transport() }))
        }
        _ => *input,
    }
}

/// The policy a twin shows to the machine.
fn lax(slip: Slip, policy: &Policy) -> Policy {
    // Beyond every exploration.
    let never = Duration::from_secs(u64::from(u32::MAX));
    let mut policy = policy.clone();
    match slip {
        Slip::CooldownIgnored => policy.cooldown = Duration::ZERO,
        Slip::ImprovementIgnored => policy.improvement.0 = 0,
        Slip::RateIgnored => policy.max_switches_per_min = u32::MAX,
        Slip::AbuseUnbounded => policy.max_requests_per_min = u32::MAX,
        Slip::LossTtlNever => policy.transport_loss_ttl = never,
        Slip::WindowNever => policy.max_recovery_window = never,
        _ => {}
    }
    policy
}

/// What a twin makes of a step.
fn spoil(slip: Slip, before: &Session, input: &Input, step: &mut Step, now: Instant) {
    let resumed = matches!(input, Input::Resume(_));
    let taken =
        |on: On| step.transitions.iter().any(|transition| TABLE.get(transition.row).is_some_and(|row| row.on == on));
    match slip {
        Slip::ResumeRenames if resumed => edit(step, |session| session.id = SessionId(session.id.0.map(|byte| !byte))),
        Slip::ResumeExtendsLife if resumed => {
            edit(step, |session| session.expires_at = session.expires_at + Duration::from_secs(60));
        }
        Slip::VersionSkips if step.transitions.len() == 2 => {
            edit(step, |session| session.version = session.version.next());
        }
        Slip::RebindWithoutVersion if taken(On::Rebind) => edit(step, |session| session.version = before.version),
        Slip::LostStaysBound if taken(On::TransportLost) && step.transitions.len() == 1 => {
            edit(step, |session| session.transport = before.transport);
        }
        Slip::LostSkipsRecovering if step.transitions.len() == 2 => {
            step.transitions.remove(0);
            edit(step, |session| session.version = before.version.next());
        }
        Slip::RefillsAtOnce if taken(On::Accept) => {
            edit(step, |session| (session.spent, session.switches) = (false, Meter::default()));
        }
        Slip::KeepsLostAt if taken(On::Accept) => edit(step, |session| session.lost_at = Some(now)),
        Slip::EndKeepsKeys if step.session.state == State::Terminated => {
            edit(step, |session| session.keys = Keys::Live);
        }
        Slip::RestartKeepsKeys if *input == Input::ControllerRestarted => {
            edit(step, |session| (session.keys, session.reject_after) = (before.keys, now + Duration::from_secs(180)));
        }
        Slip::RecoveriesUncounted => {
            for transition in &mut step.transitions {
                (transition.before.recoveries, transition.after.recoveries) = (0, 0);
            }
            step.session.recoveries = 0;
        }
        Slip::AttemptsUncounted => edit(step, |session| session.attempts = 0),
        Slip::QualitySurvivesBinding if taken(On::Rebind) || taken(On::Better) => {
            edit(step, |session| session.quality.floor = before.quality.floor);
        }
        Slip::AttemptResetsLoss if *input == Input::AttemptFailed && before.lost_at.is_some() => {
            edit(step, |session| session.lost_at = Some(now));
        }
        // What was lied about is told right again.
        Slip::SessionTtlNever if *input == Input::Tick => edit(step, |session| session.expires_at = before.expires_at),
        Slip::KeysNeverExpire if *input == Input::Tick => {
            edit(step, |session| session.reject_after = before.reject_after);
        }
        Slip::RebindMovesAnywhere => {
            if let (Input::Reattach(switch), Some(_)) = (input, step.session.transport) {
                let k = switch.transport().k;
                let right = |session: &mut Session| session.transport.iter_mut().for_each(|to| to.k = k);
                edit(step, right);
            }
        }
        _ => {}
    }
}

/// Changes what the step leads to, in the session and in the last transition.
fn edit(step: &mut Step, change: impl FnOnce(&mut Session)) {
    change(&mut step.session);
    if let Some(last) = step.transitions.last_mut() {
        (last.after, last.version, last.to) = (step.session.clone(), step.session.version, step.session.state);
    }
    let bound = step.session.transport;
    for effect in &mut step.effects {
        if let (super::Effect::Bind { to, .. }, Some(bound)) = (effect, bound) {
            *to = bound;
        }
    }
}
