//! Test vectors of the second implementation, `tests/vectors/make.py`.
//!
//! Owns the reading of those files. Must never be compiled into the product.

use serde_json::Value;

/// One case of a file: names and values.
pub(crate) struct Case(Value);

/// The cases of a file.
pub(crate) fn cases(json: &str) -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(json).expect("make.py writes lists");
    assert!(!cases.is_empty(), "a file of vectors without a case proves nothing");
    cases.into_iter().map(Case).collect()
}

impl Case {
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let text = self.text(name);
        assert!(text.is_ascii() && text.len().is_multiple_of(2), "{name} is not hexadecimal");
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two digits")).collect()
    }

    pub(crate) fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap_or_else(|bytes: Vec<u8>| panic!("{name} has {} bytes", bytes.len()))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("no text {name}"))
    }

    pub(crate) fn number<T: TryFrom<u64, Error: core::fmt::Debug>>(&self, name: &str) -> T {
        let number = self.0[name].as_u64().unwrap_or_else(|| panic!("no number {name}"));
        number.try_into().expect("number of the field's width")
    }
}
