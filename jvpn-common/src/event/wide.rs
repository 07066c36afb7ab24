//! A 64-bit number as text, since JSON readers keep 53 bits.
//!
//! Owns that form. Must never take a number that was not written as one.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) trait Wide: Copy {
    fn number(self) -> u64;
    fn named(number: u64) -> Self;
}

macro_rules! wide {
    ($($ty:ty),*) => {$(
        impl Wide for $ty {
            fn number(self) -> u64 { self.0 }
            fn named(number: u64) -> Self { Self(number) }
        }
    )*};
}

wide!(crate::ids::Version, crate::ids::OwnerEpoch, crate::time::Instant);

impl Wide for u64 {
    fn number(self) -> u64 {
        self
    }

    fn named(number: u64) -> Self {
        number
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn serialize<T: Wide, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(itoa::Buffer::new().format(value.number()))
}

pub(crate) fn deserialize<'de, T: Wide, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(T::named).map_err(D::Error::custom)
}
