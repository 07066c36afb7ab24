//! Owns getting a kernel: from a package to its image and modules in a directory that is kept. Never touches the system.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::netns::run;

/// A kernel and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    pub(super) image: PathBuf,
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The kernel that Debian's `package` stands for now, from `cache` if it is there.
    ///
    /// # Errors
    /// When apt does not know it or cannot fetch it.
    pub fn get(package: &str, cache: &Path) -> Result<Kernel> {
        let told = run(&["apt-cache", "depends", "--no-recommends", "--no-suggests", package], None)
            .with_context(|| format!("{package} is not known here; run: apt-get update"))?;
        let image = image_of(&told).with_context(|| format!("{package} leads to no kernel: {told}"))?;
        let kept = cache.join(image);
        if !kept.join("lib/modules").is_dir() {
            fetch(image, &kept)?;
        }
        Self::read(&kept)
    }

    fn read(kept: &Path) -> Result<Kernel> {
        let modules = kept.join("lib/modules");
        let found = fs::read_dir(&modules)?.flatten().next().context("a package without modules")?;
        let release = found.file_name().to_string_lossy().into_owned();
        let image = kept.join(format!("boot/vmlinuz-{release}"));
        Ok(Kernel { modules: modules.join(&release), release, image })
    }
}

/// The package with the kernel in what `apt-cache depends` printed.
fn image_of(told: &str) -> Option<&str> {
    told.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| name.starts_with("linux-image-"))
}

/// Downloads beside the place and moves it there whole: a run that was killed leaves no half kernel.
fn fetch(package: &str, kept: &Path) -> Result<()> {
    let cache = kept.parent().context("a cache directory")?;
    fs::create_dir_all(cache)?;
    let scratch = tempfile::tempdir_in(cache)?;
    let here = scratch.path().to_str().context("a UTF-8 path")?;
    run(&["env", "-C", here, "apt-get", "-o", "APT::Sandbox::User=root", "download", package], None)
        .with_context(|| format!("cannot fetch {package}; run: apt-get update"))?;
    let archive = fs::read_dir(scratch.path())?.flatten().next().context("apt-get downloaded nothing")?.path();
    let whole = scratch.path().join("whole");
    run(&["dpkg-deb", "-x", archive.to_str().context("a UTF-8 path")?, whole.to_str().context("a UTF-8 path")?], None)?;
    fs::rename(&whole, kept).with_context(|| format!("keep {}", kept.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_package_is_found_among_what_a_package_depends_on() {
        let told = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(image_of(told), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(image_of("nothing\n  Depends: firmware\n"), None);
    }
}
