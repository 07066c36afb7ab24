//! What a lab makes of the disk: slow or read-only, while the process runs.
//!
//! Owns the one place where a build with the feature `lab-clock` delays a sync or refuses a write, as the file says that
//! `JVPN_LAB_DISK` names. No release has it. Must never do anything in one.

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Bytes into a file.
    Write,
    /// A file to the disk.
    Sync,
}

/// Called ahead of every write and sync of store and record.
///
/// # Errors
/// Never, but where a lab says that the disk is read-only.
#[cfg(not(feature = "lab-clock"))]
#[allow(clippy::unnecessary_wraps, reason = "only a lab's disk refuses")]
pub(crate) const fn ahead_of(_: Use) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "lab-clock")]
pub(crate) fn ahead_of(what: Use) -> std::io::Result<()> {
    /// A disk that takes this long for a sync is as bad as they get while they still work.
    const SLOW: std::time::Duration = std::time::Duration::from_secs(5);
    let Some(path) = std::env::var_os("JVPN_LAB_DISK") else { return Ok(()) };
    match (std::fs::read_to_string(path).unwrap_or_default().trim(), what) {
        ("slow", Use::Sync) => std::thread::sleep(SLOW),
        ("read-only", _) => return Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
        _ => {}
    }
    Ok(())
}
