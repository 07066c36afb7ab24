//! Owns how much of itself a test does: `JVPN_TEST_SIZE`, which `cargo xtask test [--long]` sets. The tests are the same
//! at both sizes. Must never choose which test runs.

/// The variable: `ci` (also when it is not set) or `long`.
const VARIABLE: &str = "JVPN_TEST_SIZE";

/// `ci` or `long`, whichever size this run has.
///
/// # Panics
/// When the variable says anything else: a misspelt size must not pass for the full one.
pub fn of<T>(ci: T, long: T) -> T {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("ci") => ci,
        Ok("long") => long,
        Ok(other) => panic!("{VARIABLE} is ci or long, not `{other}`"),
    }
}
