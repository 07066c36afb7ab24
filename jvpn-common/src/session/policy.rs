//! Policy: every bound an operator may set, once.
//!
//! Owns the keys with their units, ranges and defaults; configuration, the snapshot sent to clients and the
//! reference page come from this table. Must never hold a switch that turns an invariant off.

use super::state::{TransportClass, named};
use super::units::{Permille, Transports, Unit};
use crate::ids::PolicyVersion;
use crate::time::Duration;
use sha2::{Digest as _, Sha256};

named! {
    /// Whether an acknowledgement waits for the disk.
    Audit {
        /// The record is written before the answer and synced within 20 ms.
        Relaxed = 1 "relaxed",
        /// The answer leaves after the record is synced.
        Strict = 2 "strict",
    }
}

named! {
    /// Whether a session may move to a better transport while its own lives.
    BetterSwitching {
        /// Within improvement, cooldown and rate.
        Allowed = 1 "allowed",
        /// Never: it moves only when it must.
        Frozen = 2 "frozen",
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Bytes of a policy's name.
pub const NAME_MAX: usize = 24;

/// What the reference page says of a key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its unit in words.
    pub unit: &'static str,
    /// Smallest value, as text.
    pub min: fn() -> String,
    /// Largest value, as text.
    pub max: fn() -> String,
    /// What it bounds.
    pub meaning: &'static str,
}

/// What is wrong with one value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No such key.
    #[error("there is no policy key `{key}`; the nearest is `{nearest}`")]
    UnknownKey {
        /// What was written.
        key: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// Not a value of the key's unit.
    #[error("`{key}` wants {unit}, not `{text}`")]
    Unreadable {
        /// The key.
        key: &'static str,
        /// What was written.
        text: String,
        /// The unit in words.
        unit: &'static str,
    },
    /// Outside the key's range.
    #[error("`{key}` must lie between {min} and {max}; `{text}` does not")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What was written.
        text: String,
        /// Smallest value.
        min: String,
        /// Largest value.
        max: String,
    },
}

/// Two values that cannot both be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{a}` and `{b}` contradict each other: {why}")]
pub struct Contradiction {
    /// One key.
    pub a: &'static str,
    /// The other.
    pub b: &'static str,
    /// The rule they break.
    pub why: &'static str,
}

/// Declares the keys once: type, default, range, meaning.
macro_rules! keys {
    ($($name:ident: $ty:ty = $default:expr, $min:expr => $max:expr, $meaning:literal;)*) => {
        /// The bounds of one class of peers.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Policy {
            /// What the class is called.
            pub name: String,
            /// Which text of it this is.
            pub version: PolicyVersion,
            $(#[doc = $meaning] pub $name: $ty,)*
        }

        /// Every key, in the order of the reference page and of the encoding.
        pub const KEYS: &[Key] = &[$(Key {
            name: stringify!($name),
            unit: <$ty as Unit>::NAME,
            min: || <$ty as Unit>::show(&$min),
            max: || <$ty as Unit>::show(&$max),
            meaning: $meaning,
        },)*];

        impl Policy {
            /// The class `field`: the defaults.
            #[must_use]
            pub fn field() -> Self {
                Self { name: "field".into(), version: PolicyVersion(1), $($name: $default,)* }
            }

            /// Sets one key from its text.
            pub fn set(&mut self, key: &str, text: &str) -> Result<(), PolicyError> {
                match key {
                    $(stringify!($name) => self.$name = read(stringify!($name), text, &$min, &$max)?,)*
                    _ => return Err(PolicyError::UnknownKey { key: key.into(), nearest: nearest(key) }),
                }
                Ok(())
            }

            /// Every key with its value as text.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), self.$name.show()),)*]
            }

            /// The values as numbers, in order of the table.
            fn raw(&self) -> Vec<u64> {
                vec![$(self.$name.raw(),)*]
            }

            /// The reverse of [`Policy::raw`]; none if a number is missing or outside its range.
            fn from_raw(name: String, version: PolicyVersion, mut next: impl FnMut() -> Option<u64>) -> Option<Self> {
                Some(Self { name, version, $($name: {
                    let value = next()?;
                    <$ty as Unit>::from_raw(value).filter(|_| ($min.raw()..=$max.raw()).contains(&value))?
                },)* })
            }
        }
    };
}

keys! {
    session_ttl: Duration = secs(86_400), secs(60) => secs(30 * 86_400), "How long a session may live, from its birth.";
    transport_loss_ttl: Duration = secs(900), secs(1) => secs(86_400), "How long a session may be without a transport before it ends.";
    max_recovery_window: Duration = secs(30), secs(1) => secs(3_600), "How long a session may be RECOVERING before it is DEGRADED.";
    max_recovery_attempts: u32 = 64, 1 => 10_000, "Proven attempts that may fail while RECOVERING before the session is DEGRADED.";
    max_recoveries_degraded: u32 = 8, 1 => 1_000, "Losses of the transport while DEGRADED that still go to RECOVERING, until the session was stable.";
    max_switches_per_min: u32 = 12, 1 => 600, "Switches (BETTER and LOST) in a minute; more and the session is DEGRADED, BETTER denied.";
    cooldown: Duration = secs(1), ms(0) => secs(600), "How soon after a switch the next BETTER may follow.";
    improvement: Permille = Permille(200), Permille(0) => Permille(1_000), "How much better a BETTER must be.";
    better_switching: BetterSwitching = BetterSwitching::Allowed, BetterSwitching::Allowed => BetterSwitching::Frozen, "Whether a BETTER may happen at all, an operator's jump included; LOST and REBIND always may.";
    max_candidates: u32 = 4, 1 => 4, "Transports a client keeps ready.";
    dead_after: Duration = ms(30), ms(5) => secs(10), "How long the active path may be silent before the client suspects it.";
    probe_interval: Duration = ms(20), ms(5) => secs(10), "How often the active path is probed while inner traffic flows.";
    standby_interval: Duration = secs(5), ms(100) => secs(120), "How often the other paths are probed, and the active one while idle.";
    max_requests_per_min: u32 = 120, 10 => 10_000, "Proven reattach requests of one session in a minute.";
    gateway_dead_after: Duration = secs(5), secs(1) => secs(300), "How long nothing may open from the active transport before the gateway calls it lost.";
    path_validity: Duration = secs(15), secs(1) => secs(60), "How long a quoted echo stands for a challenge on an address that answered one.";
    loss_threshold: Permille = Permille(50), Permille(1) => Permille(1_000), "Loss above this, held, makes a session VOLATILE.";
    loss_floor: Permille = Permille(200), Permille(1) => Permille(1_000), "Loss above this in two reports makes a session VOLATILE at once.";
    rtt_threshold: Duration = ms(400), ms(1) => secs(30), "A round trip above this, held, makes a session VOLATILE.";
    jitter_threshold: Duration = ms(80), ms(1) => secs(30), "Jitter above this, held, makes a session VOLATILE.";
    volatility_hold: Duration = ms(500), ms(0) => secs(60), "How long quality must be bad before it counts.";
    stability_window: Duration = secs(3), ms(100) => secs(600), "How long quality must be good before a VOLATILE session is ATTACHED.";
    volatile_max: Duration = secs(60), secs(1) => secs(3_600), "How long a session may be VOLATILE before it is DEGRADED.";
    degraded_stability_window: Duration = secs(15), secs(1) => secs(3_600), "How long quality must be good before a DEGRADED session is ATTACHED and its budgets refill.";
    rekey_after: Duration = secs(120), secs(10) => secs(170), "When the client renews the keys; they die at 180 s.";
    allowed_transports: Transports = Transports::ALL, Transports::LEAST => Transports::ALL, "Classes of transports the peer may use.";
    audit: Audit = Audit::Relaxed, Audit::Relaxed => Audit::Strict, "Whether an acknowledgement waits for the disk.";
}

/// Reads a value and holds it against its range.
fn read<U: Unit>(key: &'static str, text: &str, min: &U, max: &U) -> Result<U, PolicyError> {
    let unreadable = || PolicyError::Unreadable { key, text: text.into(), unit: U::NAME };
    let value = U::parse(text.trim()).ok_or_else(unreadable)?;
    if (min.raw()..=max.raw()).contains(&value.raw()) {
        return Ok(value);
    }
    Err(PolicyError::OutOfRange { key, text: text.into(), min: min.show(), max: max.show() })
}

/// The key that shares the longest beginning or end with what was written.
fn nearest(key: &str) -> &'static str {
    let common = |name: &str| {
        let front = name.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
        let back = name.bytes().rev().zip(key.bytes().rev()).take_while(|(a, b)| a == b).count();
        front + back
    };
    KEYS.iter().map(|known| known.name).max_by_key(|name| common(name)).unwrap_or_default()
}

impl Default for Policy {
    fn default() -> Self {
        Self::field()
    }
}

/// Names of the classes that ship.
pub const SHIPPED: &[&str] = &["field", "fast", "metered", "emergency"];

impl Policy {
    /// A class that ships, one of [`SHIPPED`].
    #[must_use]
    pub fn shipped(name: &str) -> Option<Self> {
        let mut policy = Self { name: name.into(), ..Self::field() };
        match name {
            "field" => {}
            "fast" => (policy.probe_interval, policy.dead_after) = (ms(10), ms(20)),
            "metered" => {
                (policy.probe_interval, policy.dead_after) = (ms(100), ms(200));
                policy.standby_interval = secs(30);
            }
            "emergency" => policy.better_switching = BetterSwitching::Frozen,
            _ => return None,
        }
        Some(policy)
    }

    /// Finds values that cannot both be meant.
    pub fn check(&self) -> Result<(), Contradiction> {
        let rules: [(bool, &'static str, &'static str, &'static str); 9] = [
            (
                self.transport_loss_ttl > self.session_ttl,
                "transport_loss_ttl",
                "session_ttl",
                "a session cannot be lost for longer than it lives",
            ),
            (
                self.max_recovery_window > self.transport_loss_ttl,
                "max_recovery_window",
                "transport_loss_ttl",
                "the window must fit into the time to live",
            ),
            (
                self.loss_floor < self.loss_threshold,
                "loss_floor",
                "loss_threshold",
                "the floor is the worse of the two",
            ),
            (
                self.probe_interval > self.standby_interval,
                "probe_interval",
                "standby_interval",
                "the active path is probed more often",
            ),
            (
                self.volatility_hold > self.volatile_max,
                "volatility_hold",
                "volatile_max",
                "a session cannot be VOLATILE before quality was held bad",
            ),
            (
                self.stability_window > self.volatile_max,
                "stability_window",
                "volatile_max",
                "a VOLATILE session could never become ATTACHED",
            ),
            (
                self.stability_window > self.degraded_stability_window,
                "stability_window",
                "degraded_stability_window",
                "leaving DEGRADED takes longer than leaving VOLATILE",
            ),
            (
                self.cooldown > self.degraded_stability_window,
                "cooldown",
                "degraded_stability_window",
                "budgets would refill before a switch is allowed",
            ),
            (self.gateway_dead_after < self.dead_after, "gateway_dead_after", "dead_after", "the client notices first"),
        ];
        match rules.into_iter().find(|rule| rule.0) {
            Some((_, a, b, why)) => Err(Contradiction { a, b, why }),
            None => Ok(()),
        }
    }

    /// This text under its own version: the first four bytes of the SHA-256 of the text, so that a record names exactly
    /// the text it was decided under.
    #[must_use]
    pub fn versioned(mut self) -> Self {
        self.version = PolicyVersion(0);
        let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(self.text().as_bytes()));
        self.version = PolicyVersion(u32::from_be_bytes([a, b, c, d]));
        self
    }

    /// The keys in which another policy differs: name, value here, value there.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<(&'static str, String, String)> {
        let both = self.values().into_iter().zip(other.values());
        both.filter(|(old, new)| old.1 != new.1).map(|(old, new)| (old.0, old.1, new.1)).collect()
    }

    /// The whole text, as it is recorded once per version.
    #[must_use]
    pub fn text(&self) -> String {
        let lines = self.values().into_iter().map(|(key, value)| format!("{key} = {value}\n"));
        format!("name = {}\nversion = {}\n{}", self.name, self.version, lines.collect::<String>())
    }

    /// Reads what [`Policy::text`] wrote.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut policy = Self::field();
        for line in text.lines() {
            match line.split_once(" = ")? {
                ("name", name) if name.len() <= NAME_MAX => policy.name = name.into(),
                ("version", number) => policy.version = PolicyVersion(number.parse().ok()?),
                (key, value) => policy.set(key, value).ok()?,
            }
        }
        Some(policy)
    }

    /// The snapshot a client gets: name, version, then every value in seven-bit groups; ≤ 300 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let name: String = self.name.chars().take_while(char::is_ascii).take(NAME_MAX).collect();
        let mut out = vec![u8::try_from(name.len()).unwrap_or_default()];
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&self.version.0.to_le_bytes());
        for mut value in self.raw() {
            while value >= 0x80 {
                out.push(value.to_le_bytes()[0] | 0x80);
                value >>= 7;
            }
            out.push(value.to_le_bytes()[0]);
        }
        out
    }

    /// Reads a snapshot; none if it is cut, too long, out of range or contradicts itself.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&len, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(len)).filter(|(name, _)| name.len() <= NAME_MAX)?;
        let name = core::str::from_utf8(name).ok().filter(|name| name.is_ascii())?;
        let (version, mut rest) = rest.split_first_chunk::<4>()?;
        let version = PolicyVersion(u32::from_le_bytes(*version));
        let policy = Self::from_raw(name.into(), version, || varint(&mut rest))?;
        (rest.is_empty() && policy.check().is_ok()).then_some(policy)
    }

    /// Whether a class of transports may be used.
    #[must_use]
    pub fn allows(&self, class: TransportClass) -> bool {
        self.allowed_transports.contains(class)
    }
}

/// One number in seven-bit groups, shortest form only, so that a snapshot has one encoding.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
