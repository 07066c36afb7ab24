//! `cargo xtask` as somebody on a fresh machine runs it: nothing is changed by looking, and what is missing is one command.
//! Owns a target directory of its own. Must never install, build or need root: it gives root up where it has it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").expect("there").uid() == 0
}

/// Runs a verb without any privilege, with only these programs in reach.
fn as_nobody(words: &[&str], path: &str, target: &Path) -> Output {
    let program: PathBuf = target.parent().expect("a directory").join("xtask");
    std::fs::copy(XTASK, &program).expect("copied");
    let mut command = if is_root() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        command
    } else {
        Command::new(&program)
    };
    command.args(words).env("PATH", path).env("CARGO_TARGET_DIR", target).env_remove("CARGO_MANIFEST_DIR");
    command.current_dir("/").output().expect("it runs")
}

/// A directory that everybody may enter, and a target directory in it that is not there yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    let target = directory.path().join("target");
    (directory, target)
}

#[test]
fn looking_at_what_is_missing_changes_nothing_and_names_each_command() {
    let (_directory, target) = place();
    let check = || {
        let mut command = Command::new(XTASK);
        command.args(["setup", "--check"]).env("CARGO_TARGET_DIR", &target).output().expect("it runs")
    };
    let (first, second) = (check(), check());
    assert!(!target.exists(), "nothing may be made");
    assert_eq!(first.stdout, second.stdout, "and nothing may be different afterwards");
    let said = text(&first.stdout);
    // The linker belongs into the target directory, which is new: that at least is always missing here.
    assert_eq!(first.status.code(), Some(7), "{said}");
    for part in ["kernel program: ", "missing: bpf-linker", "cargo install bpf-linker --version =", "--locked"] {
        assert!(said.contains(part), "`{part}` in {said}");
    }
}

#[test]
fn without_root_the_missing_packages_are_one_command_and_exit_7() {
    let (_directory, target) = place();
    let output = as_nobody(&["build"], "/usr/bin/nowhere", &target);
    let said = text(&output.stderr);
    if !Path::new("/usr/bin/apt-get").exists() {
        assert!(said.contains("package manager"), "{said}");
        return;
    }
    assert_eq!(output.status.code(), Some(7), "{said}");
    let commands: Vec<&str> = said.lines().filter(|line| line.starts_with("  ")).collect();
    let [command] = commands.as_slice() else { panic!("one command: {said}") };
    assert!(command.starts_with("  sudo sh -c 'apt-get update && "), "{command}");
    assert!(command.contains("apt-get install -y --no-install-recommends ") && command.contains(" gcc "), "{command}");
    assert!(!target.exists(), "nothing may be made");
}

#[test]
fn a_wrong_word_is_a_usage_error_with_a_guess() {
    let output = Command::new(XTASK).arg("stup").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `setup`?"), "{}", text(&output.stderr));
}
