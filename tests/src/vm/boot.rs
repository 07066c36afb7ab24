//! Owns the emulator's process and what its console said. Never lets it outlive the call.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Kernel;

/// Marks on the console.
pub(super) const STEP: &str = "@@step";
pub(super) const END: &str = "@@end";
/// Emulated processors are some twenty times slower, and a shared machine slower still.
const PATIENCE: Duration = Duration::from_secs(600);
/// Two processors, as a gateway has at least; the image and the maps are in memory.
const MACHINE: [&str; 8] = ["-m", "1500", "-smp", "2", "-cpu", "max", "-nographic", "-no-reboot"];

/// What each step said, and how it ended.
#[derive(Debug)]
pub struct Transcript {
    /// Exit code and output, in the order of the steps; fewer when the machine ended early.
    pub steps: Vec<(i32, String)>,
    /// All of the console.
    pub console: String,
}

pub(super) fn boot(kernel: &Kernel, image: &Path) -> Result<Transcript> {
    let console_file = image.with_extension("console");
    let mut child = Command::new("qemu-system-x86_64")
        .args(MACHINE)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=1"])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&console_file)?)
        .stderr(Stdio::piped())
        .spawn()
        .context("no qemu-system-x86_64 on this machine; run: cargo xtask setup")?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            let console = String::from_utf8_lossy(&std::fs::read(&console_file)?).into_owned();
            bail!("{} did not end within {PATIENCE:?}:\n{console}", kernel.release);
        }
        thread::sleep(Duration::from_millis(100));
    };
    let console = String::from_utf8_lossy(&std::fs::read(&console_file)?).replace('\r', "");
    ensure!(status.success(), "the emulator failed: {status}\n{console}");
    Ok(Transcript { steps: steps(&console), console })
}

fn steps(console: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in console.lines() {
        if line.starts_with(STEP) {
            open = Some(String::new());
        } else if let (Some(code), Some(said)) = (line.strip_prefix(END), &open) {
            let code = code.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(-1);
            found.push((code, said.clone()));
            open = None;
        } else if let Some(said) = &mut open {
            said.push_str(line);
            said.push('\n');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_read_step_by_step_and_a_step_cut_short_is_not_one() {
        let console = format!("boot\n{STEP} 0\na\nb\n{END} 0 0\n{STEP} 1\n{END} 1 7\n{STEP} 2\npanic");
        assert_eq!(steps(&console), [(0, "a\nb\n".to_owned()), (7, String::new())]);
    }
}
