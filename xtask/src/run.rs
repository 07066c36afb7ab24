//! Owns starting other programs: cargo as the caller, what needs privilege elevated, results as errors.
//! Must never elevate a build: what root compiles, the caller cannot clean.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::exit::{self, Exit};
use crate::paths;

/// The cargo that started us, in the workspace, without what `cargo run` told *this* package about itself:
/// build scripts that watch these variables would otherwise run again at each change of caller.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean(&mut command);
    command.args(args);
    command
}

/// A cargo of another toolchain, through rustup.
pub(crate) fn cargo_of(toolchain: &str, args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    clean(&mut command);
    command.args(["run", toolchain, "cargo"]).args(args);
    command
}

fn clean(command: &mut Command) {
    command.current_dir(paths::root());
    for (name, _) in std::env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
}

/// The command as a user would type it: our own cargo by its name, all else as it is.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program();
    let program = match Path::new(program).file_name() {
        Some(name) if name == "cargo" => name,
        _ => program,
    };
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs to the end; failure names the command.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(&command));
    }
    Ok(())
}

/// Runs to the end with nothing shown; on failure all of it is.
pub(crate) fn run_quietly(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    if !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("`{}` failed: {}", shown(&command), output.status);
    }
    Ok(())
}

/// Runs to the end, passing stderr on and returning it with whether it went well: for output that needs explaining.
pub(crate) fn run_reading(mut command: Command) -> anyhow::Result<(bool, String)> {
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child =
        command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line.context("reading the output")?;
            eprintln!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok((child.wait()?.success(), text))
}

/// stdout of a program that should succeed, or nothing.
pub(crate) fn ask(program: impl AsRef<OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(crate) fn is_root() -> bool {
    // The effective user of this process, without a system call wrapper: /proc/self belongs to it.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

pub(crate) fn binary_exists(name: &str) -> bool {
    paths::binary(name).is_file()
}

/// How privilege is got. Pure, see the tests.
fn elevator(root: bool, sudo: bool, doas: bool) -> Option<&'static [&'static str]> {
    match (root, sudo, doas) {
        (true, _, _) => Some(&[]),
        (_, true, _) => Some(&["sudo"]),
        (_, _, true) => Some(&["doas"]),
        _ => None,
    }
}

/// The words to put before a command that needs root, or exit 7 with the command.
pub(crate) fn elevation(wanted: &str) -> anyhow::Result<Vec<String>> {
    let sudo = paths::program("sudo").is_some();
    let can_ask = std::io::stdin().is_terminal();
    // Without a terminal nobody can type a password: then only a sudo that needs none counts.
    let sudo = sudo && (can_ask || ask("sudo", &["-n", "true"]).is_some());
    let doas = paths::program("doas").is_some() && (can_ask || ask("doas", &["-n", "true"]).is_some());
    let Some(prefix) = elevator(is_root(), sudo, doas) else {
        return Err(Exit::because(exit::MISSING, format!("this needs root; run as root:\n  {wanted}")));
    };
    let mut words: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
    if !words.is_empty() {
        words.push("env".to_owned());
        // Neither sudo nor doas passes these on by itself.
        let kept = std::env::vars().filter(|(name, _)| name.starts_with("JVPN_") || name == "NO_COLOR");
        words.extend(kept.map(|(name, value)| format!("{name}={value}")));
    }
    Ok(words)
}

/// Becomes `program`, as root: signals and the exit code are then its own.
pub(crate) fn become_root(program: &Path, args: &[String]) -> anyhow::Result<()> {
    let mut wanted = Command::new(program);
    wanted.args(args);
    let words = elevation(&shown(&wanted))?;
    let mut command = match words.split_first() {
        None => wanted,
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program).args(args);
            command
        }
    };
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", shown(&command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privilege_comes_from_being_root_then_sudo_then_doas() {
        assert_eq!(elevator(true, true, true), Some(&[][..]));
        assert_eq!(elevator(false, true, true), Some(&["sudo"][..]));
        assert_eq!(elevator(false, false, true), Some(&["doas"][..]));
        assert_eq!(elevator(false, false, false), None);
    }

    #[test]
    fn a_shown_command_can_be_pasted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo it's", "--a=b"]);
        assert_eq!(shown(&command), r"sh -c 'echo it'\''s' --a=b");
    }
}
