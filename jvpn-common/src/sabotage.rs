//! Bugs put in on purpose, so that the simulation can show that it would find them.
//!
//! Owns their names and the only way to switch one on, which exists with the feature `sabotage` alone: a
//! product build cannot construct one. Must never be set by configuration, environment or command line.

/// Whether this build can switch one on.
pub const POSSIBLE: bool = cfg!(feature = "sabotage");

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Gateway: believes every address without a challenge.
    SkipsChallenge,
    /// Gateway: accepts a request whose nonce is not above the last one.
    AcceptsLowerNonce,
    /// Gateway: every step of a session changes its identity.
    ForgetsIdentity,
    /// Client: after a rekey seals under the old key with counters from zero.
    RekeyReusesCounter,
    /// Client: takes an ACK whatever version and owner epoch it says.
    AcceptsOldAck,
}

/// Which bug is on; none, unless a test says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotage(Option<Bug>);

impl Sabotage {
    /// Switches a bug on.
    #[cfg(any(test, feature = "sabotage"))]
    #[must_use]
    pub const fn with(bug: Bug) -> Self {
        Self(Some(bug))
    }

    pub(crate) fn is(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }
}
