//! Data keys of one epoch, and the three epochs a session receives under.
//!
//! Owns which key is previous, current and next. Must never extend a key past its time, nor give one out
//! that could make a second counter: keys are moved in and stay.

use std::sync::Arc;

use jvpn_common::crypto::suite::{Limits, REJECT_AFTER, Suite};
use jvpn_common::crypto::{OpeningKey, SealingKey};
use jvpn_common::ids::Epoch;
use jvpn_common::secret::Secret;
use jvpn_common::time::Instant;

use super::aead::DataAead;

/// The pair of data keys of one epoch.
#[derive(Debug)]
pub struct DataKey {
    epoch: Epoch,
    born: Instant,
    seal: SealingKey<DataAead>,
    open: OpeningKey<DataAead>,
}

impl DataKey {
    /// Takes the keys of `epoch` over, born at `now`: one to seal with, one to open with.
    #[must_use]
    pub fn new(suite: Suite, epoch: Epoch, seal: Secret<32>, open: Secret<32>, now: Instant) -> Self {
        let limits = suite.limits();
        let (seal, open) = (DataAead::new(suite, seal), DataAead::new(suite, open));
        Self::with(epoch, limits, seal, open, now)
    }

    /// Keys without a cipher, for benches.
    #[doc(hidden)]
    #[must_use]
    pub fn null(epoch: Epoch, now: Instant) -> Self {
        Self::with(epoch, Suite::Aes256Gcm.limits(), DataAead::null(), DataAead::null(), now)
    }

    fn with(epoch: Epoch, limits: &'static Limits, seal: DataAead, open: DataAead, born: Instant) -> Self {
        Self { epoch, born, seal: SealingKey::new(seal, limits), open: OpeningKey::new(open, limits) }
    }

    /// The epoch these keys belong to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key that seals: how much it did, whether a rekey is due.
    #[must_use]
    pub fn sealing(&self) -> &SealingKey<DataAead> {
        &self.seal
    }

    /// The key that opens: how much it did, how much failed.
    #[must_use]
    pub fn opening(&self) -> &OpeningKey<DataAead> {
        &self.open
    }

    /// Whether a rekey is due: so much was sealed, or failed to open.
    #[must_use]
    pub fn worn(&self) -> bool {
        self.seal.rekey_due() || self.open.rekey_due()
    }

    /// Whether nothing more is sealed with it, by age or by number.
    #[must_use]
    pub fn spent(&self, now: Instant) -> bool {
        !self.alive(now) || self.seal.spent()
    }

    /// Whether the key's time has not passed.
    #[must_use]
    pub fn alive(&self, now: Instant) -> bool {
        now.since(self.born) < REJECT_AFTER
    }
}

/// The epochs a session receives under, and which of them it sends with.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    /// What was current before; wiped ten seconds after the change.
    pub previous: Option<Arc<DataKey>>,
    /// Sent with.
    pub current: Option<Arc<DataKey>>,
    /// Answered for but not yet proven by a packet that opened under it.
    pub next: Option<Arc<DataKey>>,
}

impl KeySet {
    /// The key whose epoch has this wire byte.
    #[must_use]
    pub fn by_wire(&self, epoch: u8) -> Option<&Arc<DataKey>> {
        [&self.current, &self.next, &self.previous].into_iter().flatten().find(|key| key.epoch.wire() == epoch)
    }

    /// Makes `next` current if it is `epoch`; says whether anything changed.
    pub fn promote(&mut self, epoch: Epoch) -> bool {
        if self.next.as_ref().is_none_or(|next| next.epoch != epoch) {
            return false;
        }
        self.previous = self.current.take();
        self.current = self.next.take();
        true
    }
}

#[cfg(test)]
mod tests {
    use jvpn_common::time::Duration;

    use super::*;

    fn key(epoch: u32) -> Option<Arc<DataKey>> {
        let secret = || Secret::take(&mut [1; 32]);
        Some(Arc::new(DataKey::new(Suite::Aes256Gcm, Epoch(epoch), secret(), secret(), Instant(0))))
    }

    #[test]
    fn only_the_next_epoch_is_promoted() {
        let mut set = KeySet { previous: key(1), current: key(2), next: key(3) };
        assert!(!set.promote(Epoch(1)) && !set.promote(Epoch(2)));
        assert!(set.promote(Epoch(3)) && !set.promote(Epoch(3)));
        assert_eq!(set.current.as_ref().map(|key| key.epoch()), Some(Epoch(3)));
        assert!(set.by_wire(2).is_some() && set.by_wire(1).is_none());
    }

    #[test]
    fn a_key_is_dead_when_its_time_has_passed() {
        let key = key(1).unwrap();
        assert!(key.alive(Instant(0) + Duration::from_millis(179_999)));
        assert!(!key.alive(Instant(0) + REJECT_AFTER));
    }
}
