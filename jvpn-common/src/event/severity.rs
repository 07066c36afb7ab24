//! How much an event matters to somebody who watches many gateways.
//!
//! Owns the one table from event and reason to a severity. Must never hide an event: it only sorts.

use super::Event;
use crate::reason::{Class, Reason};
use crate::session::state::named;

named! {
    /// How much it matters; numbers and names are those of OCSF.
    Severity {
        /// What is supposed to happen.
        Informational = 1 "informational",
        /// Something a user may have felt, that healed or heals by itself.
        Low = 2 "low",
        /// Somebody should look when there is time.
        Medium = 3 "medium",
        /// Somebody should look now.
        High = 4 "high",
        /// Something that must not be, was.
        Critical = 5 "critical",
    }
}

impl Severity {
    /// Of an event with its primary reason.
    #[must_use]
    pub fn of(event: Event, reason: Option<Reason>) -> Self {
        let by_event = match event {
            Event::Gap | Event::SecurityEvent => Self::Medium,
            Event::ReattachReject | Event::TransportSwitchDenied | Event::OwnerRejected | Event::KeyExpired => {
                Self::Low
            }
            Event::SessionCreated
            | Event::StateChange
            | Event::TransportSwitch
            | Event::PolicyEvent
            | Event::KeyRotated
            | Event::OwnerAcquired
            | Event::OwnerTransferred
            | Event::Termination
            | Event::Condition => Self::Informational,
        };
        reason.map_or(by_event, |reason| by_event.max(Self::of_reason(reason)))
    }

    fn of_reason(reason: Reason) -> Self {
        use Reason::{
            CapacityReached, CommitFailed, ControllerRestart, EnterDegradedMode, FatalProtocolError, HandshakeFail,
            KeyExpired, OwnershipConflict, PolicyTermination, QualityFloorViolation, RecoveryBoundsExceeded,
            RecoveryRetry, RecoveryStart, SecAbuseControlPlane, SecForgedTag, SecInnerSpoof, SecKeyCompromiseSuspected,
            SecReplayAttempt, StorageUnavailable, TtlTransportLossExpired, VolatilitySignal,
        };
        match reason {
            FatalProtocolError | SecKeyCompromiseSuspected => Self::Critical,
            SecAbuseControlPlane | SecForgedTag | SecInnerSpoof | SecReplayAttempt => Self::Medium,
            OwnershipConflict => Self::High,
            reason if reason.class() == Class::Security => Self::High,
            CapacityReached
            | CommitFailed
            | EnterDegradedMode
            | PolicyTermination
            | RecoveryBoundsExceeded
            | StorageUnavailable
            | TtlTransportLossExpired => Self::Medium,
            ControllerRestart
            | HandshakeFail
            | KeyExpired
            | QualityFloorViolation
            | RecoveryRetry
            | RecoveryStart
            | VolatilitySignal => Self::Low,
            _ => Self::Informational,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_normal_is_informational_and_what_a_security_team_wants_is_not() {
        assert_eq!(Severity::of(Event::SessionCreated, Some(Reason::HandshakeOk)), Severity::Informational);
        assert_eq!(Severity::of(Event::TransportSwitch, Some(Reason::ReattachAccept)), Severity::Informational);
        assert_eq!(Severity::of(Event::StateChange, Some(Reason::RecoveryStart)), Severity::Low);
        assert_eq!(Severity::of(Event::Gap, None), Severity::Medium);
        assert_eq!(Severity::of(Event::Termination, Some(Reason::FatalProtocolError)), Severity::Critical);
        for &code in Reason::ALL.iter().filter(|code| code.class() == Class::Security) {
            assert!(Severity::of(Event::SecurityEvent, Some(code)) >= Severity::Medium, "{code}");
        }
        assert!(Severity::High > Severity::Medium && "high".parse() == Ok(Severity::High));
    }
}
