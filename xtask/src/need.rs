//! Owns the list of what the machine must have besides Rust, and the Debian package of each.
//! Must never install: `setup.rs` does.

use std::fs;
use std::path::Path;

use crate::paths;
use crate::route::Route;

/// How a need is recognised. By file and not by package, so that other distributions can satisfy it too.
pub(crate) enum Sign {
    Program(&'static str),
    File(String),
    /// Found out elsewhere.
    Known(bool),
}

pub(crate) struct Need {
    pub package: String,
    pub what: &'static str,
    pub sign: Sign,
}

impl Need {
    pub(crate) fn is_met(&self) -> bool {
        match &self.sign {
            Sign::Program(name) => paths::program(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Known(known) => *known,
        }
    }
}

/// Package names differ by release; pure, see the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Names {
    pub rustc: &'static str,
    pub core: &'static str,
    pub clippy: &'static str,
}

/// Debian 12 has its current compiler under another name, beside the one it was released with.
pub(crate) fn names(os_release: &str) -> Names {
    let has = |line: &str| os_release.lines().any(|found| found.replace('"', "") == line);
    if has("ID=debian") && has("VERSION_ID=12") {
        Names { rustc: "rustc-web", core: "libstd-rust-web-dev-bpf", clippy: "rust-web-clippy" }
    } else {
        Names { rustc: "rustc", core: "libstd-rust-dev-bpf", clippy: "rust-clippy" }
    }
}

pub(crate) fn names_here() -> Names {
    names(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// Everything, in the order it is told. `rustc` and `core` say whether Debian's are usable.
pub(crate) fn all(route: Route, llvm_major: u32, names: Names, rustc: bool, core: bool) -> Vec<Need> {
    let need = |package: &str, what, sign| Need { package: package.to_owned(), what, sign };
    let mut needs = Vec::new();
    if route == Route::Debian {
        needs.push(need(names.rustc, "the compiler of the kernel program", Sign::Known(rustc)));
        needs.push(need(names.core, "core for bpfel-unknown-none", Sign::Known(core)));
        needs.push(need(names.clippy, "clippy of that compiler", Sign::File("/usr/bin/clippy-driver".to_owned())));
    }
    let llvm = format!("/usr/lib/llvm-{llvm_major}");
    needs.extend([
        need("gcc", "C compiler, for the cryptography", Sign::Program("cc")),
        need("g++", "C++ library, for the linker", Sign::Program("c++")),
        need("libc6-dev", "C headers", Sign::File("/usr/include/stdlib.h".to_owned())),
        need(&format!("llvm-{llvm_major}-dev"), "LLVM, for the linker", Sign::File(format!("{llvm}/bin/llvm-config"))),
        need(
            &format!("libpolly-{llvm_major}-dev"),
            "LLVM, for the linker",
            Sign::File(format!("{llvm}/lib/libPolly.a")),
        ),
        need("zlib1g-dev", "for the linker", Sign::File("/usr/include/zlib.h".to_owned())),
        need("libzstd-dev", "for the linker", Sign::File("/usr/include/zstd.h".to_owned())),
        need("libxml2-dev", "for the linker", Sign::File("/usr/include/libxml2".to_owned())),
        need("bpftool", "look into maps", Sign::Program("bpftool")),
        need("iproute2", "networks of the lab", Sign::Program("ip")),
        need("nftables", "NAT", Sign::Program("nft")),
        need("conntrack", "make a NAT forget", Sign::Program("conntrack")),
        need("ethtool", "offloads of the lab", Sign::Program("ethtool")),
        need("iperf3", "throughput", Sign::Program("iperf3")),
        need("iputils-ping", "round trips", Sign::Program("ping")),
        need("python3", "the second implementation of the vectors", Sign::Program("python3")),
        need("qemu-system-x86", "other kernels", Sign::Program("qemu-system-x86_64")),
        need("busybox-static", "their first file system", Sign::Program("busybox")),
        need("cpio", "their first file system", Sign::Program("cpio")),
        need("xz-utils", "their modules", Sign::Program("xz")),
    ]);
    needs
}

/// One command that installs `packages`, to be run by root.
pub(crate) fn apt_command(packages: &[&str]) -> String {
    format!(
        "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_package_has_another_name_on_debian_12() {
        let bookworm = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        let trixie = "VERSION_ID=\"13\"\nID=debian\n";
        let ubuntu = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"26.04\"\n";
        assert_eq!(names(bookworm).rustc, "rustc-web");
        assert_eq!(names(trixie).rustc, "rustc");
        assert_eq!(names(ubuntu).core, "libstd-rust-dev-bpf");
    }

    #[test]
    fn nightly_needs_no_compiler_from_apt() {
        let needs = all(Route::Nightly, 22, names(""), false, false);
        assert!(needs.iter().all(|need| !need.package.contains("rust")));
        assert!(needs.iter().any(|need| need.package == "llvm-22-dev"));
    }
}
