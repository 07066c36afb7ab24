//! Owns where things are: the workspace, the target directory, what is built into it.
//! Must never create or remove anything.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace. Cargo says at run time where the package is; the compiled-in value serves a binary started by hand.
pub(crate) fn root() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        // A relative value means relative to where cargo was started.
        Some(dir) if Path::new(&dir).is_relative() => env::current_dir().unwrap_or_else(|_| root()).join(dir),
        Some(dir) => PathBuf::from(dir),
        None => root().join("target"),
    }
}

/// Tools built once, pinned: bpf-linker, cargo-deny.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

pub(crate) fn tool(name: &str) -> PathBuf {
    tools().join("bin").join(name)
}

/// Target directory of the kernel program. Apart, since compiler and flags differ.
pub(crate) fn ebpf() -> PathBuf {
    target().join("ebpf")
}

/// The kernel program. `jvpn-ctl/build.rs` looks for it here.
pub(crate) fn object() -> PathBuf {
    ebpf().join("bpfel-unknown-none/ebpf/jvpn")
}

/// Target directory of the kernel program with the features that no release has.
pub(crate) fn ebpf_lab() -> PathBuf {
    target().join("ebpf-lab")
}

/// That program. Tests and benches look for it here.
pub(crate) fn object_lab() -> PathBuf {
    ebpf_lab().join("bpfel-unknown-none/ebpf/jvpn")
}

/// A release binary of the workspace.
pub(crate) fn binary(name: &str) -> PathBuf {
    target().join("release").join(name)
}

/// Finds a program as a shell would, and where root keeps its own even when the caller's PATH leaves these out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
