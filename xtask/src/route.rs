//! Owns the choice of compiler for the kernel program, as a pure function over the tools found.
//! Must never look at the machine: `tool.rs` does, so that the choice is a table in a test.

use std::fmt;

/// Three numbers, compared in order. LLVM bitcode is only readable when the reader is not older, patch level included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first `a.b[.c]` in a text.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
            let mut parts = word.split('.').map(str::parse);
            let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
            Some(Self(major, minor, parts.next().and_then(Result::ok).unwrap_or(0)))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub release: Version,
    pub llvm: Version,
}

/// The machine, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tools {
    /// Packages can be had from apt.
    pub apt: bool,
    /// `/usr/bin/rustc`, whatever rustup has beside it.
    pub debian: Option<Compiler>,
    /// `core` prebuilt for `bpfel-unknown-none` beside it.
    pub debian_core: bool,
    /// rustup's nightly.
    pub nightly: Option<Compiler>,
    /// The source of `core`, which nightly has to build first.
    pub rust_src: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Debian's rustc with `core` prebuilt.
    Debian,
    /// rustup's nightly, building `core` from source.
    Nightly,
}

/// What the workspace declares as `rust-version`; older compilers refuse it.
pub(crate) const OLDEST: Version = Version(1, 95, 0);

/// What works now wins over what would have to be installed; of two that work, the one that needs no nightly.
pub(crate) fn choose(tools: &Tools) -> Route {
    let too_old = tools.debian.is_some_and(|rustc| rustc.release < OLDEST);
    let debian_works = tools.debian.is_some() && !too_old && tools.debian_core;
    let nightly_works = tools.nightly.is_some() && tools.rust_src;
    match (debian_works, nightly_works) {
        (true, _) => Route::Debian,
        (false, true) => Route::Nightly,
        (false, false) if tools.apt && !too_old => Route::Debian,
        (false, false) => Route::Nightly,
    }
}

pub(crate) fn compiler(tools: &Tools, route: Route) -> Option<Compiler> {
    match route {
        Route::Debian => tools.debian,
        Route::Nightly => tools.nightly,
    }
}

/// The one line that says what was chosen.
pub(crate) fn line(tools: &Tools, route: Route) -> String {
    let rustc = compiler(tools, route).map_or_else(
        || "not installed yet".to_owned(),
        |compiler| format!("rustc {}, LLVM {}", compiler.release, compiler.llvm),
    );
    match route {
        Route::Debian => format!("kernel program: Debian's rustc with core prebuilt ({rustc})"),
        Route::Nightly => format!("kernel program: nightly building core from rust-src ({rustc})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a: apt, d: Debian's rustc, o: an old one, c: its core, n: nightly, s: rust-src.
    fn machine(found: &str) -> Tools {
        let compiler = |minor, llvm| Compiler { release: Version(1, minor, 0), llvm: Version(llvm, 1, 8) };
        let has = |letter| found.contains(letter);
        let old = has('o').then(|| compiler(85, 19));
        Tools {
            apt: has('a'),
            debian: has('d').then(|| compiler(96, 22)).or(old),
            debian_core: has('c'),
            nightly: has('n').then(|| compiler(98, 23)),
            rust_src: has('s'),
        }
    }

    #[test]
    fn the_route_is_what_works_here() {
        use Route::{Debian, Nightly};
        let table = [
            ("bare Debian", "a", Debian),
            ("nightly without rust-src, bare Debian", "an", Debian),
            ("nightly without rust-src, Debian ready", "adcn", Debian),
            ("Debian's rustc without core", "ad", Debian),
            ("nightly complete, bare Debian", "ans", Nightly),
            ("nightly complete, Debian without core", "adns", Nightly),
            ("both complete", "adcns", Debian),
            ("Debian's rustc too old", "aoc", Nightly),
            ("Debian's too old, nightly complete", "aocns", Nightly),
            ("no apt, nothing", "", Nightly),
            ("no apt, nightly without rust-src", "n", Nightly),
            ("no apt, nightly complete", "ns", Nightly),
            ("no apt, the distribution ships core", "dcn", Debian),
        ];
        for (name, found, expected) in table {
            assert_eq!(choose(&machine(found)), expected, "{name}");
        }
    }

    #[test]
    fn versions_compare_down_to_the_patch_level() {
        assert_eq!(Version::find("LLVM version: 22.1.2"), Some(Version(22, 1, 2)));
        assert_eq!(Version::find("rustc 1.97.0-nightly (abc 2026-05-25)"), Some(Version(1, 97, 0)));
        assert_eq!(Version::find("no number"), None);
        assert!(Version(22, 1, 2) < Version(22, 1, 8));
    }
}
