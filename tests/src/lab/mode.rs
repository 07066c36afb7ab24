//! Owns in which mode the lab's gateways and relays run the kernel program (what a test says, else what the switch
//! `JVPN_LAB_XDP` says), and reads back from the kernel in which they do. Never attaches anything.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use jvpn_ctl::dataplane::attach::{Mode, Wanted};
use serde_json::Value;

use super::netns::Netns;

/// The switch: `native` (also when it is not set), `generic` or `detached`. Read here and nowhere else.
const VARIABLE: &str = "JVPN_LAB_XDP";
/// A file to which every mode is added that the switch chose and the kernel confirmed; `cargo xtask test` reads it.
const SEEN: &str = "JVPN_LAB_XDP_SEEN";

/// How the kernel program sits on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xdp {
    /// As the switch says: what every test means that is not about a mode.
    #[default]
    Switched,
    Native,
    Generic,
    /// Native if the driver can, else generic.
    Auto,
    Detached,
}

impl Xdp {
    /// The word in the product's files.
    pub fn key(self) -> Result<&'static str> {
        Ok(match self.resolved()? {
            Xdp::Native | Xdp::Switched => "native",
            Xdp::Generic => "generic",
            Xdp::Auto => "auto",
            Xdp::Detached => "off",
        })
    }

    /// Never [`Xdp::Switched`].
    pub fn resolved(self) -> Result<Xdp> {
        if self != Xdp::Switched {
            return Ok(self);
        }
        let word = std::env::var_os(VARIABLE);
        switch(word.as_ref().map(|word| word.to_string_lossy()).as_deref())
    }
}

/// A misspelt mode must not pass for another one.
fn switch(word: Option<&str>) -> Result<Xdp> {
    match word {
        None | Some("native") => Ok(Xdp::Native),
        Some("generic") => Ok(Xdp::Generic),
        Some("detached") => Ok(Xdp::Detached),
        Some(other) => bail!("{VARIABLE} is native, generic or detached, not `{other}`"),
    }
}

/// The mode of this run.
///
/// # Panics
/// When the switch says none.
pub fn switched() -> Xdp {
    Xdp::Switched.resolved().unwrap_or_else(|error| panic!("{error}"))
}

/// For what is promised without the program as well: both. A run that was switched away from native does the
/// detached half no second time.
pub fn and_detached() -> Vec<Xdp> {
    let mut both = vec![switched()];
    if both == [Xdp::Native] {
        both.push(Xdp::Detached);
    }
    both
}

/// The mode of this run for who attaches by itself.
///
/// # Panics
/// When the switch says that nothing is attached.
pub fn wanted() -> (Wanted, Mode) {
    match switched() {
        Xdp::Native => (Wanted::Native, Mode::Native),
        Xdp::Generic => (Wanted::Generic, Mode::Generic),
        other => panic!("this test attaches the program itself: {VARIABLE} cannot be {other:?} for it"),
    }
}

/// The mode in which the kernel runs a program on an interface.
pub fn attached(space: &Netns, interface: &str) -> Result<Xdp> {
    let text = space.run(&["ip", "-j", "link", "show", "dev", interface], None)?;
    let links: Value = serde_json::from_str(&text).context("what ip says of a link")?;
    said(&links[0]).with_context(|| format!("{interface} in {}", space.name()))
}

/// What `ip -j link show` says of a link's program.
fn said(link: &Value) -> Result<Xdp> {
    let xdp = &link["xdp"];
    match xdp["mode"].as_u64() {
        None if xdp.is_null() => Ok(Xdp::Detached),
        Some(1) => Ok(Xdp::Native),
        Some(2) => Ok(Xdp::Generic),
        _ => bail!("neither native nor generic: {xdp}"),
    }
}

/// Fails unless the kernel runs the program in the mode that was asked for; in which.
pub fn confirm(asked: Xdp, space: &Netns, interface: &str) -> Result<Xdp> {
    let (wanted, is) = (asked.resolved()?, attached(space, interface)?);
    ensure!(
        wanted == is || (wanted == Xdp::Auto && is != Xdp::Detached),
        "the program on {interface} in {} should be {wanted:?}, but the kernel says {is:?}",
        space.name()
    );
    if asked == Xdp::Switched
        && let Some(file) = std::env::var_os(SEEN)
    {
        let mut file = OpenOptions::new().create(true).append(true).open(file).context(SEEN)?;
        writeln!(file, "{} {interface} {}", is.key()?, space.name())?;
    }
    Ok(is)
}

/// The same, and the node's own `status` must say so too.
pub fn prove(asked: Xdp, space: &Netns, interface: &str, status: &Value) -> Result<()> {
    let is = confirm(asked, space, interface)?;
    let all = status["interfaces"].as_array().into_iter().flatten();
    let told: Vec<_> = all.filter(|xdp| xdp["iface"] == interface).map(|xdp| xdp["mode"].clone()).collect();
    let right = if is == Xdp::Detached { Vec::new() } else { vec![Value::from(is.key()?)] };
    ensure!(told == right, "the kernel says {is:?} of {interface} in {}, status says {told:?}", space.name());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_switch_knows_three_words_and_takes_no_other_for_one_of_them() {
        assert_eq!(switch(None).unwrap(), Xdp::Native);
        for (word, mode) in [("native", Xdp::Native), ("generic", Xdp::Generic), ("detached", Xdp::Detached)] {
            assert_eq!(switch(Some(word)).unwrap(), mode);
        }
        for word in ["", "off", "Generic", "skb"] {
            let error = switch(Some(word)).expect_err("no mode").to_string();
            assert!(error.contains("native, generic or detached"), "{error}");
        }
    }

    #[test]
    fn a_test_that_states_its_mode_is_not_switched() {
        for (mode, key) in [(Xdp::Native, "native"), (Xdp::Generic, "generic"), (Xdp::Detached, "off")] {
            assert_eq!((mode.resolved().unwrap(), mode.key().unwrap()), (mode, key));
        }
    }

    #[test]
    fn no_program_native_generic_and_anything_else_are_told_apart() {
        assert_eq!(said(&json!({"ifname": "wan"})).unwrap(), Xdp::Detached);
        assert_eq!(said(&json!({"xdp": {"mode": 1, "prog": {"id": 7}}})).unwrap(), Xdp::Native);
        assert_eq!(said(&json!({"xdp": {"mode": 2, "prog": {"id": 7}}})).unwrap(), Xdp::Generic);
        for other in [json!({"xdp": {"mode": 3}}), json!({"xdp": {}})] {
            assert!(said(&other).is_err(), "{other}");
        }
    }
}
