//! Units of policy values: durations, shares, counts, sets, choices.
//!
//! Owns how a value is read, shown and numbered. Must never round: what is shown reads back the same.

use super::policy::{Audit, BetterSwitching};
use super::state::TransportClass;
use crate::time::{Duration, nanos};

/// A share in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Permille(pub u16);

/// A set of transport classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transports(u8);

impl Transports {
    /// All of them.
    pub const ALL: Self = Self(0b111);
    /// The smallest set there is a number for.
    pub const LEAST: Self = Self(0b001);

    const fn bit(class: TransportClass) -> u8 {
        1 << (class.number() - 1)
    }

    /// Whether a class is in the set.
    #[must_use]
    pub const fn contains(self, class: TransportClass) -> bool {
        self.0 & Self::bit(class) != 0
    }
}

/// A kind of value.
pub trait Unit: Sized {
    /// What the value is, for a sentence that says what was expected.
    const NAME: &'static str;

    /// Reads text.
    fn parse(text: &str) -> Option<Self>;
    /// The text that reads back as this value.
    fn show(&self) -> String;
    /// The value as a number, ordered as the values are.
    fn raw(&self) -> u64;
    /// The value of a number.
    fn from_raw(raw: u64) -> Option<Self>;
}

/// Units of time, largest first, in nanoseconds.
const TIMES: [(&str, u64); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

impl Unit for Duration {
    const NAME: &'static str = "a duration such as \"30ms\", \"5s\", \"15m\" or \"24h\"";

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits)?;
        let (_, unit) = TIMES.iter().find(|(name, _)| *name == unit.trim_start())?;
        Some(Self::from_nanos(number.parse::<u64>().ok()?.checked_mul(*unit)?))
    }

    fn show(&self) -> String {
        let value = nanos(*self);
        let unit = TIMES.iter().find(|(_, unit)| value != 0 && value.is_multiple_of(*unit)).unwrap_or(&TIMES[4]);
        format!("{}{}", value / unit.1, unit.0)
    }

    fn raw(&self) -> u64 {
        nanos(*self) / 1_000
    }

    fn from_raw(raw: u64) -> Option<Self> {
        raw.checked_mul(1_000).map(Self::from_nanos)
    }
}

impl Unit for Permille {
    const NAME: &'static str = "a share such as \"20 %\" or \"2.5 %\"";

    fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(tenth) || tenth.len() > 1 {
            return None;
        }
        let value = whole.parse::<u16>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)?;
        Some(Self(value))
    }

    fn show(&self) -> String {
        match self.0 % 10 {
            0 => format!("{} %", self.0 / 10),
            tenth => format!("{}.{tenth} %", self.0 / 10),
        }
    }

    fn raw(&self) -> u64 {
        self.0.into()
    }

    fn from_raw(raw: u64) -> Option<Self> {
        u16::try_from(raw).ok().map(Self)
    }
}

impl Unit for u32 {
    const NAME: &'static str = "a count";

    fn parse(text: &str) -> Option<Self> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn raw(&self) -> u64 {
        (*self).into()
    }

    fn from_raw(raw: u64) -> Option<Self> {
        Self::try_from(raw).ok()
    }
}

impl Unit for Transports {
    const NAME: &'static str = "one or more of primary, secondary, backup, with commas between";

    fn parse(text: &str) -> Option<Self> {
        text.split(',').try_fold(Self(0), |set, name| Some(Self(set.0 | Self::bit(name.trim().parse().ok()?))))
    }

    fn show(&self) -> String {
        let names = TransportClass::ALL.iter().filter(|class| self.contains(**class)).map(|class| class.name());
        names.collect::<Vec<_>>().join(", ")
    }

    fn raw(&self) -> u64 {
        self.0.into()
    }

    fn from_raw(raw: u64) -> Option<Self> {
        u8::try_from(raw).ok().filter(|bits| (1..=Self::ALL.0).contains(bits)).map(Self)
    }
}

/// Choices with a name and a number.
macro_rules! choices {
    ($($ty:ident $says:literal;)*) => {$(
        impl Unit for $ty {
            const NAME: &'static str = $says;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn show(&self) -> String {
                self.name().into()
            }

            fn raw(&self) -> u64 {
                self.number().into()
            }

            fn from_raw(raw: u64) -> Option<Self> {
                u8::try_from(raw).ok().and_then(Self::from_number)
            }
        }
    )*};
}

choices! {
    Audit "relaxed or strict";
    BetterSwitching "allowed or frozen";
}
