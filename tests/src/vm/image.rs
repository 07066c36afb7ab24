//! Owns the first file system: binaries with their libraries, modules, and the script that runs the steps.
//! Never holds anything a step does not need: all of it is memory of the machine.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Kernel;
use super::boot::{END, STEP};
use crate::lab::netns::run;

/// What the lab calls.
const PROGRAMS: [&str; 4] = ["ip", "nft", "ethtool", "conntrack"];
/// What the script calls, and `mount`, which the lab calls.
const APPLETS: [&str; 6] = ["sh", "mount", "mkdir", "modprobe", "uname", "poweroff"];
/// Modules: the packet filter, tunnels between namespaces, and what those need.
const MODULES: [&str; 5] =
    ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/drivers/net/veth", "kernel/drivers/net/tun"];
/// Looked through for programs, as a login of root would.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds it in `directory` and gives the archive's path.
pub(super) fn build(kernel: &Kernel, binaries: &[&Path], steps: &[&str], directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    for name in ["bin", "sbin", "dev", "proc", "sys", "tmp", "run", "etc"] {
        fs::create_dir_all(root.join(name))?;
    }
    install(&root, &program("busybox")?, "bin/busybox")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    // Where the kernel looks for it by itself.
    symlink("../bin/busybox", root.join("sbin/modprobe"))?;
    for name in PROGRAMS {
        install(&root, &program(name)?, &format!("bin/{name}"))?;
    }
    for binary in binaries {
        let name = binary.file_name().context("a binary has a name")?.to_string_lossy();
        install(&root, binary, &format!("bin/{name}"))?;
    }
    add_modules(&root, kernel)?;
    fs::write(root.join("init"), script(steps))?;
    fs::set_permissions(root.join("init"), Permissions::from_mode(0o755))?;
    archive(&root, &directory.join("image"))
}

/// Each step between two marks, its exit code in the second; standard error goes to the same console.
fn script(steps: &[&str]) -> String {
    let mut script = String::from(
        "#!/bin/sh\nexport PATH=/bin:/sbin\n\
         mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\nmount -t bpf bpf /sys/fs/bpf\n\
         mount -t tmpfs tmp /tmp\nmount -t tmpfs run /run\n\
         mkdir -p /dev/net\nmodprobe veth\nmodprobe tun\n\
         /bin/ip link set lo up\nexport JVPN_CTL=/bin/jvpn-ctl\n\
         # The firmware leaves its last line open.\necho\n",
    );
    for (at, step) in steps.iter().enumerate() {
        script.push_str(&format!("echo '{STEP} {at}'\n{step} 2>&1\necho \"{END} {at} $?\"\n"));
    }
    script.push_str("poweroff -f\n");
    script
}

fn program(name: &str) -> Result<PathBuf> {
    let found = PATH.split(':').map(|directory| Path::new(directory).join(name)).find(|file| file.is_file());
    found.with_context(|| format!("no {name} on this machine; run: cargo xtask setup"))
}

/// Copies a program and every library it is linked to, each to its own path.
fn install(root: &Path, from: &Path, to: &str) -> Result<()> {
    copy(from, &root.join(to))?;
    // A static program has none, which `ldd` calls a failure.
    let told = Command::new("ldd").arg(from).stderr(Stdio::null()).output().context("run ldd")?;
    for library in libraries(&String::from_utf8_lossy(&told.stdout)) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

/// The absolute paths in what `ldd` printed.
fn libraries(told: &str) -> BTreeSet<&str> {
    told.split_whitespace().filter(|word| word.starts_with('/')).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a path inside the image")?)?;
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn add_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let inside = root.join("lib/modules").join(&kernel.release);
    for name in ["modules.order", "modules.builtin"] {
        copy(&kernel.modules.join(name), &inside.join(name))?;
    }
    for wanted in MODULES {
        let found = kernel.modules.join(wanted);
        if found.is_dir() {
            copy_tree(&found, &inside.join(wanted))?;
        } else {
            for ending in ["ko", "ko.xz"] {
                let file = found.with_extension(ending);
                if file.is_file() {
                    copy_module(&file, &inside.join(wanted).with_extension(ending))?;
                }
            }
        }
    }
    let path = root.to_str().context("a UTF-8 path")?;
    run(&["busybox", "depmod", "-b", path, &kernel.release], None).map(|_| ())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            copy_module(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Packed ones are unpacked: the machine's `modprobe` cannot.
fn copy_module(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    if to.extension().is_some_and(|ending| ending == "xz") {
        run(&["xz", "--decompress", "--force", to.to_str().context("a UTF-8 path")?], None)?;
    }
    Ok(())
}

fn archive(root: &Path, to: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    list(root, root, &mut names)?;
    let mut cpio = Command::new("cpio")
        .args(["--create", "--format=newc", "--null", "--quiet", "--owner=0:0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(to)?)
        .spawn()
        .context("no cpio on this machine; run: cargo xtask setup")?;
    cpio.stdin.take().context("its input")?.write_all(&names)?;
    ensure!(cpio.wait()?.success(), "cpio failed");
    Ok(to.to_owned())
}

/// Directories before what is in them, as the kernel unpacks them.
fn list(root: &Path, directory: &Path, names: &mut Vec<u8>) -> Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        names.extend_from_slice(path.strip_prefix(root)?.to_str().context("a UTF-8 path")?.as_bytes());
        names.push(0);
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_absolute_paths_that_ldd_names() {
        let told = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(libraries(told).into_iter().collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so.2"]);
    }

    #[test]
    fn every_step_stands_between_its_marks() {
        let script = script(&["first", "second"]);
        assert!(script.contains(&format!("'{STEP} 1'\nsecond 2>&1\necho \"{END} 1 $?\"\npoweroff")), "{script}");
    }
}
