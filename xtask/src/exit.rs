//! Owns the exit codes and how an error reaches the user.
//! Must never hide a cause: the whole chain is printed.

use std::fmt;
use std::process::ExitCode;

/// Something was tried and failed.
pub(crate) const FAILED: u8 = 1;
/// The words were wrong.
pub(crate) const USAGE: u8 = 2;
/// A tool, package or privilege is missing; the message holds the command.
pub(crate) const MISSING: u8 = 7;

/// An error that knows its exit code.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    message: String,
}

impl Exit {
    pub(crate) fn because(code: u8, message: impl Into<String>) -> anyhow::Error {
        Self { code, message: message.into() }.into()
    }

    /// For when everything has been said already.
    pub(crate) fn silent(code: u8) -> anyhow::Error {
        Self::because(code, "")
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Exit>().map_or(FAILED, |exit| exit.code)
}

pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let text = format!("{error:#}");
    if !text.is_empty() {
        eprintln!("xtask: {text}");
    }
    ExitCode::from(code(error))
}
