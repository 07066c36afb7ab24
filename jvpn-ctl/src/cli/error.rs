//! What a verb fails with: what, what to do about it, and the exit code.
//!
//! Owns the exit codes. Must never hold a secret: all of it is printed.

use crate::api::ClientError;
use crate::audit::AuditError;
use crate::config::Report;
use crate::config::key::KeyError;
use crate::dataplane::attach::AttachError;
use crate::store::StoreError;

/// What kind of failure it is; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It was tried and failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// No daemon is running.
    NoDaemon,
    /// There is no such session, peer, transport or code.
    NotFound,
    /// The daemon refused, with a reason.
    Refused,
    /// Something is wrong with what was asked about.
    Unhealthy,
    /// A privilege is missing.
    Privilege,
}

impl Kind {
    /// The exit code; stable.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::NotFound => 4,
            Self::Refused => 5,
            Self::Unhealthy => 6,
            Self::Privilege => 7,
        }
    }
}

/// A failed verb.
#[derive(Debug)]
pub struct CliError {
    /// What kind.
    pub kind: Kind,
    /// What happened; empty when the output said it already.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
    /// What is wrong with a configuration.
    pub report: Option<Report>,
}

impl CliError {
    /// A failure of a kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), report: None }
    }

    /// It was tried and failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line is wrong.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A failure of reading or writing a file; what the system refuses for want of rights is told apart.
    #[must_use]
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::PermissionDenied { Kind::Privilege } else { Kind::Failed };
        let failed = Self::new(kind, format!("{what}: {error}"));
        if kind == Kind::Privilege { failed.hint("run it as root, or with sudo") } else { failed }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The reader of the output went away, which is no failure.
    #[must_use]
    pub fn pipe_closed() -> Self {
        Self::new(Kind::Failed, "")
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Report> for CliError {
    fn from(report: Report) -> Self {
        Self { kind: Kind::Usage, message: String::new(), hints: Vec::new(), report: Some(report) }
    }
}

impl From<AuditError> for CliError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Io { path, cause } => Self::io(&path.display().to_string(), &cause),
            AuditError::Key { cause } => (*cause).into(),
            AuditError::NotSynced => Self::failed(error.to_string()),
        }
    }
}

impl From<KeyError> for CliError {
    fn from(error: KeyError) -> Self {
        let kind = if matches!(error, KeyError::Denied(_)) { Kind::Privilege } else { Kind::Usage };
        let hint = error.hint();
        let error = Self::new(kind, error.to_string());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<AttachError> for CliError {
    fn from(error: AttachError) -> Self {
        // A build without the program cannot do what only the program can: that is missing as a right would be.
        let (kind, hint) = match &error {
            AttachError::NoObject => (Kind::Privilege, "`cargo xtask build` makes one with it"),
            AttachError::Foreign { .. } => (Kind::Refused, "jvpn-ctl never replaces a program that is not its own"),
            AttachError::OldKernel(_) => (Kind::Refused, "xdp = \"off\" works on any kernel that has TUN and UDP GRO"),
            AttachError::ForeignPins(_) => (Kind::Refused, "or give another place with --pin-root"),
            AttachError::OnTrial(_) => (Kind::Refused, "or end the process that holds it: that takes the program off"),
            AttachError::Pinned(_) => (Kind::Refused, "to try it from nothing, unload it first: jvpn-ctl unload IFACE"),
            AttachError::NoTrial(_) => (Kind::NotFound, "start one: jvpn-ctl load IFACE --confirm-within 60s"),
            AttachError::NoInterface(_) => (Kind::NotFound, "`ip link` lists the interfaces"),
            AttachError::Layout | AttachError::Size { .. } => {
                (Kind::Refused, "`jvpn-ctl cleanup` removes program and maps; sessions are kept in the store")
            }
            AttachError::Map { .. } => (Kind::NotFound, "load first: jvpn-ctl load IFACE"),
            AttachError::NoBpffs(_) => (Kind::Failed, "or give a place on another bpffs with --pin-root"),
            AttachError::Pins { .. } | AttachError::Load(_) | AttachError::Clock(_) | AttachError::Netlink(_) => {
                (Kind::Failed, "this needs root, or CAP_BPF and CAP_NET_ADMIN")
            }
            AttachError::Attach { .. } => (Kind::Failed, "xdp = \"auto\" takes generic mode where the driver refuses"),
        };
        Self::new(kind, error.to_string()).hint(hint)
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::NoDaemon(_) => Self::new(Kind::NoDaemon, text)
                .hint("start it: `jvpn-ctl serve` on a gateway, `jvpn-ctl connect` on a client"),
            ClientError::Several(sockets) => {
                let first = sockets.first().map(|path| path.display().to_string()).unwrap_or_default();
                Self::usage(text).hint(format!("say which: --socket {first}"))
            }
            ClientError::Denied(_) => {
                Self::new(Kind::Privilege, text).hint("run it as root, or as a member of the group jvpn")
            }
            ClientError::Refused { status, body } => {
                let kind = match status.as_u16() {
                    400 => Kind::Usage,
                    403 => Kind::Privilege,
                    404 => Kind::NotFound,
                    409 => Kind::Refused,
                    _ => Kind::Failed,
                };
                let reasons: Vec<_> = body.reason.into_iter().chain(body.detail).collect();
                match reasons.last() {
                    Some(last) => Self::new(kind, format!("{}: {}", reasons.join(" "), body.error))
                        .hint(format!("jvpn-ctl explain {last}")),
                    None => Self::new(kind, body.error),
                }
            }
            ClientError::Broken { .. } => Self::failed(text),
        }
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        // What a verb can say more about keeps its kind and hints on the way through the event loops.
        let error = match error.downcast::<Self>() {
            Ok(own) => return own,
            Err(error) => error,
        };
        let error = match error.downcast::<Report>() {
            Ok(report) => return report.into(),
            Err(error) => error,
        };
        let error = match error.downcast::<KeyError>() {
            Ok(key) => return key.into(),
            Err(error) => error,
        };
        let error = match error.downcast::<AttachError>() {
            Ok(attach) => return attach.into(),
            Err(error) => error,
        };
        // A key that signs the record is refused with what to do about it, as other keys are.
        let error = match error.downcast::<AuditError>() {
            Ok(AuditError::Key { cause }) => return (*cause).into(),
            Ok(audit) => audit.into(),
            Err(error) => error,
        };
        let denied = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
        };
        let audit = error.chain().any(|cause| cause.downcast_ref::<AuditError>().is_some_and(AuditError::is_full));
        let store = error.chain().find_map(|cause| cause.downcast_ref::<StoreError>().map(StoreError::hint));
        let kind = if error.chain().any(denied) { Kind::Privilege } else { Kind::Failed };
        let mut own = Self::new(kind, format!("{error:#}"));
        own.hints.extend(store);
        own.hints.extend(audit.then(|| "free space on the state directory's disk".to_owned()));
        own.hints.extend((kind == Kind::Privilege).then(|| "run it as root, or with sudo".to_owned()));
        own
    }
}

impl std::error::Error for CliError {}
