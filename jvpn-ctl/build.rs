//! Owns bringing the kernel program into the binary: finds the object, copies it to `OUT_DIR`, tells the crate.
//! Must never build it (`cargo xtask build` does) and must never fail because it is absent.
//!
//! How to include it, in `dataplane`:
//!
//! ```ignore
//! /// The kernel program embedded at build time; `None` in a build that had none.
//! pub fn object() -> Option<&'static [u8]> {
//!     include!(concat!(env!("OUT_DIR"), "/ebpf_object.rs"))
//! }
//! ```
//!
//! The bytes are aligned to 8, which the ELF parser wants. Also set: `JVPN_EBPF_EMBEDDED` (`1` or `0`) and
//! `JVPN_EBPF_HASH` (sixteen hex digits, `none` without an object) for `env!`, and `cfg(jvpn_ebpf_embedded)`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Below the target directory, as `cargo xtask build` leaves it.
const OBJECT: &str = "ebpf/bpfel-unknown-none/ebpf/jvpn";

const EMBEDDED: &str = r#"{
    #[repr(C, align(8))]
    struct Aligned<T: ?Sized>(T);
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/jvpn.bpf.o")));
    Some(&OBJECT.0)
}
"#;

fn main() {
    println!("cargo::rerun-if-env-changed=JVPN_EBPF_OBJECT");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(jvpn_ebpf_embedded)");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let object = named().or_else(|| built(&out));
    let (code, hash) = match &object {
        None => ("None\n", "none".to_owned()),
        Some(bytes) => {
            fs::write(out.join("jvpn.bpf.o"), bytes).expect("OUT_DIR is writable");
            println!("cargo::rustc-cfg=jvpn_ebpf_embedded");
            (EMBEDDED, format!("{:016x}", fnv1a(bytes)))
        }
    };
    fs::write(out.join("ebpf_object.rs"), code).expect("OUT_DIR is writable");
    println!("cargo::rustc-env=JVPN_EBPF_EMBEDDED={}", u8::from(object.is_some()));
    println!("cargo::rustc-env=JVPN_EBPF_HASH={hash}");
}

/// An object named by hand has to exist: falling back would embed another one than was asked for.
fn named() -> Option<Vec<u8>> {
    let path = PathBuf::from(env::var_os("JVPN_EBPF_OBJECT")?);
    println!("cargo::rerun-if-changed={}", path.display());
    match fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => panic!("JVPN_EBPF_OBJECT={}: {error}", path.display()),
    }
}

fn built(out: &Path) -> Option<Vec<u8>> {
    let path = target_dir(out)?.join(OBJECT);
    if path.is_file() {
        println!("cargo::rerun-if-changed={}", path.display());
        return fs::read(&path).ok();
    }
    // A missing file counts as changed at every build. Its empty directory does not, until the object appears in it.
    let dir = path.parent()?;
    if fs::create_dir_all(dir).is_ok() {
        println!("cargo::rerun-if-changed={}", dir.display());
    }
    None
}

/// `OUT_DIR` is TARGET[/TRIPLE]/PROFILE/build/PACKAGE/out.
fn target_dir(out: &Path) -> Option<PathBuf> {
    let profile = out.ancestors().find(|dir| dir.ends_with("build"))?.parent()?;
    let dir = profile.parent()?;
    let triple = env::var_os("TARGET")?;
    let dir = if dir.ends_with(&triple) { dir.parent()? } else { dir };
    Some(dir.to_path_buf())
}

/// Identifies the object in `--version`; it protects against nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
