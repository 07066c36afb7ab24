//! Reason codes: stable numbers and names for why a session moved, did not move, or ended.
//!
//! Owns every code with its meaning, usual cause and advice; `explain` and the reference page are printed
//! from here. A code is never renamed or renumbered, only added.

/// Declares the codes once: number, name, and what `explain` says.
macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $class:ident $meaning:literal $advice:literal;)*) => {
        /// Why something happened to a session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Reason { $(#[doc = $meaning] $variant = $number,)* }

        impl Reason {
            /// Every code, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code of a number that came over the wire or from a file.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The stable UPPER_SNAKE_CASE name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What kind of code this is.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// One sentence: what it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// One sentence: usual cause and what to do.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

/// What a reason code is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Primary reason of a transition.
    Transition,
    /// Answer to a reattach or handshake.
    Reattach,
    /// Switching between transports.
    Switching,
    /// More about another code.
    Detail,
    /// Something a security team wants to see.
    Security,
    /// Said by the audit record about itself.
    Audit,
}

reasons! {
    1 HandshakeOk "HANDSHAKE_OK" Transition "The handshake was confirmed from the address it was answered to." "Normal start of a session.";
    2 HandshakeFail "HANDSHAKE_FAIL" Transition "A handshake was answered but never confirmed." "The client went away, or its address cannot receive; see the client's log.";
    3 QualityFloorViolation "QUALITY_FLOOR_VIOLATION" Transition "Loss on the active transport passed the policy's floor twice." "See `paths`; the client will look for a better transport.";
    4 VolatilitySignal "VOLATILITY_SIGNAL" Transition "Loss, round trip or jitter stayed beyond the policy's threshold." "See `paths`; compare with loss_threshold, rtt_threshold and jitter_threshold.";
    5 HealthRecovered "HEALTH_RECOVERED" Transition "The active transport stayed good for stability_window." "Nothing to do.";
    6 EnterDegradedMode "ENTER_DEGRADED_MODE" Transition "Instability persisted, or the budget of switches is spent." "Candidates are filtered harder until the session has been stable for degraded_stability_window.";
    7 ExitDegradedMode "EXIT_DEGRADED_MODE" Transition "The session was stable long enough, or recovered with budget left." "Nothing to do.";
    8 TransportSwitchOk "TRANSPORT_SWITCH_OK" Transition "The session moved to another transport." "Nothing to do; details say why and how long it took.";
    9 RecoveryStart "RECOVERY_START" Transition "The active transport was lost; a reattach is awaited." "Details name the evidence.";
    10 RecoveryRetry "RECOVERY_RETRY" Transition "The active transport was lost while the session was degraded; recoveries are left." "Look at the paths: this session flaps.";
    11 RecoveryBoundsExceeded "RECOVERY_BOUNDS_EXCEEDED" Transition "Recovery ran past max_recovery_window or max_recovery_attempts." "The client has no working path, or policy is too tight for this network.";
    12 ReattachAccept "REATTACH_ACCEPT" Transition "A proven reattach or resume bound the session again." "Nothing to do.";
    13 ControllerRestart "CONTROLLER_RESTART" Transition "The gateway's controller was started again; keys are gone, the session is not." "Clients resume by themselves.";
    14 TtlTransportLossExpired "TTL_TRANSPORT_LOSS_EXPIRED" Transition "The session had no transport for transport_loss_ttl." "The client was away too long; it starts a new session.";
    15 TtlSessionExpired "TTL_SESSION_EXPIRED" Transition "The session reached session_ttl." "The client starts a new session.";
    16 ClientTermination "CLIENT_TERMINATION" Transition "The client closed the session." "Normal end.";
    17 OperatorTermination "OPERATOR_TERMINATION" Transition "An operator ended the session." "See the record for who asked.";
    18 PolicyTermination "POLICY_TERMINATION" Transition "The peer was removed, or a policy bound with a proven cause ended the session." "Check the peer's configuration.";
    19 SessionSuperseded "SESSION_SUPERSEDED" Transition "A newer session of the same peer was confirmed." "Normal after a client lost its state; two devices with one key show SEC_DUPLICATE_IDENTITY.";
    20 OwnershipConflict "OWNERSHIP_CONFLICT" Transition "A newer owner of the session was seen." "Two gateways claimed one session; the older one stepped back.";
    21 SecKeyCompromiseSuspected "SEC_KEY_COMPROMISE_SUSPECTED" Transition "The session was ended since its keys may be known to others." "Replace the peer's key.";
    22 FatalProtocolError "FATAL_PROTOCOL_ERROR" Transition "An invariant did not hold; this session was ended to protect the others." "A bug: please report it with the record.";
    23 KeyExpired "KEY_EXPIRED" Transition "The session's keys passed reject_after." "The client resumes; if it does not, it was asleep or unreachable.";
    40 AuthFail "AUTH_FAIL" Reattach "The proof did not verify." "Wrong key, or a forged message.";
    41 FreshnessInvalid "FRESHNESS_INVALID" Reattach "The request is older than one already answered, or comes from elsewhere." "A late copy; the client asks anew.";
    42 ReplayDetected "REPLAY_DETECTED" Reattach "The same sealed message arrived twice." "Duplicated on the way, or replayed.";
    43 VersionFuture "VERSION_FUTURE" Reattach "The client has seen a version this gateway does not know." "The gateway lost state; the client resumes.";
    44 SessionNotFound "SESSION_NOT_FOUND" Reattach "This gateway knows no such session of this peer." "The client starts a new session.";
    45 SessionExpired "SESSION_EXPIRED" Reattach "The session's time to live has passed." "The client starts a new session.";
    46 PolicyDeny "POLICY_DENY" Reattach "Policy does not allow this transport or peer." "See the peer's policy, allowed_transports.";
    47 RateLimited "RATE_LIMITED" Reattach "More proven requests than max_requests_per_min." "Retried by itself after retry-after.";
    48 DualBindForbidden "DUAL_BIND_FORBIDDEN" Reattach "Another binding of this session is being committed." "Retried by itself.";
    49 PathUnvalidated "PATH_UNVALIDATED" Reattach "The address has not answered a challenge." "Retried by itself with a challenge.";
    50 KeysStale "KEYS_STALE" Reattach "The session's keys are past their limit; only a resume helps." "The client resumes by itself.";
    51 UnknownPeer "UNKNOWN_PEER" Reattach "No peer with this public key is configured." "Add the peer on the gateway with `peer add`.";
    52 CapacityReached "CAPACITY_REACHED" Reattach "max_sessions are in use." "Raise max_sessions and load again.";
    53 NoCommonSuite "NO_COMMON_SUITE" Reattach "Client and gateway share no cipher suite." "Update the older side.";
    54 StorageUnavailable "STORAGE_UNAVAILABLE" Reattach "The gateway cannot record a new session." "Free space on the gateway's state directory.";
    55 CommitFailed "COMMIT_FAILED" Reattach "The gateway could not commit the change; nothing moved." "Retried by itself; see the gateway's log.";
    60 TransportSwitchDenied "TRANSPORT_SWITCH_DENIED" Switching "A wanted switch was not allowed; the session stays where it is." "The detail names the bound.";
    61 CooldownActive "COOLDOWN_ACTIVE" Switching "The last switch is less than cooldown ago." "Wait, or lower cooldown.";
    62 SwitchRateLimited "SWITCH_RATE_LIMITED" Switching "max_switches_per_min is reached." "Wait, or raise the limit.";
    63 NoValidCandidate "NO_VALID_CANDIDATE" Switching "No candidate is validated or good enough." "See `paths` on the client.";
    64 PolicyDenied "POLICY_DENIED" Switching "Policy does not allow the candidate." "See allowed_transports and the transport's class.";
    65 ImprovementTooSmall "IMPROVEMENT_TOO_SMALL" Switching "The candidate is not better by the policy's improvement." "Normal; prevents flapping.";
    66 SwitchingFrozen "SWITCHING_FROZEN" Switching "Policy freezes moves that are not necessary: better_switching is frozen." "See `policy show`; `policy emergency off` on the gateway ends an emergency.";
    80 Loss "LOSS" Detail "Packets were lost." "See `paths`.";
    81 Jitter "JITTER" Detail "The round trip varied." "See `paths`.";
    82 Rtt "RTT" Detail "The round trip was long." "See `paths`.";
    83 NoDelivery "NO_DELIVERY" Detail "Nothing came back any more." "The path died without a link event.";
    84 SourceChanged "SOURCE_CHANGED" Detail "The client's outer address or port changed." "A NAT forgot its mapping, or the client moved.";
    85 LinkDown "LINK_DOWN" Detail "The interface, address or route went away." "Normal when leaving a network.";
    86 Mtu "MTU" Detail "Large packets do not pass this path." "See path MTU in `paths`.";
    87 GatewayUnresponsive "GATEWAY_UNRESPONSIVE" Detail "The gateway's kernel answers, its worker does not." "No path helps; look at the gateway.";
    88 BetterPath "BETTER_PATH" Detail "A clearly better transport was found." "Nothing to do.";
    89 OperatorRequest "OPERATOR_REQUEST" Detail "Somebody asked for it." "See the record.";
    90 MappingLifetime "MAPPING_LIFETIME" Detail "The NAT forgets mappings after a fixed time; the client moves to another port before." "Nothing to do.";
    100 SecReplayAttempt "SEC_REPLAY_ATTEMPT" Security "Sealed messages arrived twice." "A few are duplicates of the network; many are an attack.";
    101 SecSessionFixationAttempt "SEC_SESSION_FIXATION_ATTEMPT" Security "A peer asked to resume another peer's session." "Look at that peer.";
    102 SecOwnershipAnomaly "SEC_OWNERSHIP_ANOMALY" Security "Two owners were seen for one session." "Look at the cluster's store.";
    103 SecAbuseControlPlane "SEC_ABUSE_CONTROL_PLANE" Security "A proven client sends more requests than policy allows." "Look at that client.";
    104 SecForgedTag "SEC_FORGED_TAG" Security "Datagrams with a known locator and a wrong tag." "Junk or an attacker who saw the locator; dropped before any key is touched.";
    105 SecDuplicateIdentity "SEC_DUPLICATE_IDENTITY" Security "Two devices use one private key." "Give each its own key.";
    106 SecHostileRoam "SEC_HOSTILE_ROAM" Security "Two addresses compete for one session." "An attacker on one of the paths relays, or a load balancer splits the client's flow.";
    107 SecInnerSpoof "SEC_INNER_SPOOF" Security "A peer sent an inner packet with a source it does not own." "Look at that peer, or add the network behind it to its routes.";
    108 SecStoreRollback "SEC_STORE_ROLLBACK" Security "A client knows a newer state than the gateway's store." "The store was restored from a backup.";
    109 SecMapTampered "SEC_MAP_TAMPERED" Security "A kernel map holds what the controller never wrote." "Somebody with root changed the maps.";
    120 AuditInvariantOkSingleActive "AUDIT_INVARIANT_OK_SINGLE_ACTIVE" Audit "Exactly one binding was active throughout." "Nothing to do.";
    121 AuditInvariantOkNoReset "AUDIT_INVARIANT_OK_NO_RESET" Audit "Identity and addresses were kept." "Nothing to do.";
    122 AuditPolicyLimitTriggered "AUDIT_POLICY_LIMIT_TRIGGERED" Audit "A policy bound decided." "The detail names it.";
    123 AuditRecoveryTimeline "AUDIT_RECOVERY_TIMELINE" Audit "Timeline of a recovery." "Nothing to do.";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Reason {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|code| code.name() == name).ok_or("no such reason code")
    }
}

#[cfg(feature = "engine")]
impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(feature = "engine")]
impl<'de> serde::Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_number_and_its_name() {
        for &code in Reason::ALL {
            assert_eq!(Reason::from_number(code as u16), Some(code));
            assert_eq!(code.name().parse(), Ok(code));
            assert!(code.meaning().ends_with('.') && code.advice().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn an_unknown_number_or_name_is_no_code() {
        assert_eq!(Reason::from_number(0), None);
        assert!("NOPE".parse::<Reason>().is_err());
    }
}
