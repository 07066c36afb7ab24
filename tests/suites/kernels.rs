//! The kernels users run: the program loads, judges every packet as on the host, and a real session jumps.
//!
//! Owns what must hold inside each. The kernels are Debian 12's, booted under software emulation; nothing about time is
//! asserted there.

use std::path::Path;

use jvpn_tests::lab::process::find_binary;
use jvpn_tests::vm::{self, Kernel, PACKAGES};

/// Kept between runs: a kernel is 30 MB.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/kernels");

const STEPS: [&str; 4] =
    ["uname -r", "jvpn-lab packets", "jvpn-lab ping --xdp native --jump", "jvpn-lab ping --xdp generic --outside-v6"];

fn a_session_jumps_under(package: &str, version: &str) {
    let cache = Path::new(CACHE);
    let kernel = Kernel::get(package, cache).expect("a kernel of Debian's");
    // As built for users: what is tested fits into the machine's memory, too.
    let product = find_binary().expect("jvpn-ctl");
    let lab = product.with_file_name("jvpn-lab");
    let directory = tempfile::tempdir_in(cache).expect("temporary directory");
    let transcript = vm::run(&kernel, &[&product, &lab], &STEPS, directory.path()).expect("a machine");
    let console = &transcript.console;
    assert_eq!(transcript.steps.len(), STEPS.len(), "{console}");
    for ((code, said), step) in transcript.steps.iter().zip(STEPS) {
        assert_eq!(*code, 0, "`{step}` in {}:\n{said}", kernel.release);
    }
    let [uname, packets, native, generic] = &transcript.steps[..] else { panic!("four steps") };
    assert!(uname.1.starts_with(version), "another kernel than {version} was booted: {}", uname.1);
    assert!(packets.1.contains("the same in this kernel and on the host"), "{}", packets.1);
    let answered = |said: &str| said.lines().filter(|line| line.ends_with(" ms") && line.contains(" bytes: ")).count();
    assert_eq!(answered(&native.1), 24, "{}", native.1);
    assert!(native.1.contains("jumped (version "), "{}", native.1);
    assert_eq!(answered(&generic.1), 12, "{}", generic.1);
    println!("{}: {}", kernel.release, packets.1.trim());
}

#[test]
fn a_session_jumps_under_linux_6_1() {
    a_session_jumps_under(PACKAGES[0], "6.1.");
}

#[test]
fn a_session_jumps_under_linux_6_12() {
    a_session_jumps_under(PACKAGES[1], "6.12.");
}
