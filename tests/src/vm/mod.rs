//! Another kernel under software emulation, with the product and the lab in its first file system.
//!
//! ```text
//! apt-get download ─ dpkg -x ─► kernel + modules ─┐
//! binaries, their libraries, a script ────────────┴─► cpio ─► qemu ─► console ─► one verdict a step
//! ```
//!
//! Owns which kernels there are and the order above. Must never install a package, nor need root.

mod boot;
mod image;
mod kernel;

use std::path::Path;

use anyhow::Result;

pub use boot::Transcript;
pub use kernel::Kernel;

/// The packages that always lead to the current kernels of Debian 12: its own, and its newer one.
pub const PACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"];

/// Boots `kernel`, runs the commands of `steps` one after another as root, and gives what each of them said.
///
/// # Errors
/// When the machine cannot be built or does not come to its end.
pub fn run(kernel: &Kernel, binaries: &[&Path], steps: &[&str], directory: &Path) -> Result<Transcript> {
    let image = image::build(kernel, binaries, steps, directory)?;
    boot::boot(kernel, &image)
}
