//! Where things are: flag, then environment, then file, then default.
//!
//! Owns the default places and the order. Must never create or open anything.

use std::path::{Path, PathBuf};

/// What a configuration file says about places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePaths {
    /// Store and audit record.
    pub state_dir: Option<PathBuf>,
    /// Sockets.
    pub run_dir: Option<PathBuf>,
    /// Pinned programs and maps.
    pub pin_root: Option<PathBuf>,
}

/// What flags and environment say about places; clap reads both, the flag first.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Places {
    /// Configuration file [default: /etc/jvpn/gateway.toml, or client.toml for a client's verbs]
    #[arg(long, env = "JVPN_CONFIG", value_name = "FILE", global = true, hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Directory of the store and the audit record [default: /var/lib/jvpn]
    #[arg(long, env = "JVPN_STATE_DIR", value_name = "DIR", global = true, hide_env_values = true)]
    pub state_dir: Option<PathBuf>,
    /// Directory of the API sockets [default: /run/jvpn]
    #[arg(long, env = "JVPN_RUN_DIR", value_name = "DIR", global = true, hide_env_values = true)]
    pub run_dir: Option<PathBuf>,
    /// Directory of the pinned programs and maps [default: /sys/fs/bpf/jvpn]
    #[arg(long, env = "JVPN_PIN_ROOT", value_name = "DIR", global = true, hide_env_values = true)]
    pub pin_root: Option<PathBuf>,
}

/// Which of the daemons a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// `serve` with a gateway's file.
    Gateway,
    /// `serve` with a relay's file.
    Relay,
    /// `connect`.
    Client,
}

/// Every place one instance uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Configuration file.
    pub config: PathBuf,
    /// Store and audit record; one instance holds its lock.
    pub state_dir: PathBuf,
    /// Sockets.
    pub run_dir: PathBuf,
    /// Pinned programs and maps.
    pub pin_root: PathBuf,
    /// The API socket of this instance.
    pub socket: PathBuf,
}

impl Places {
    /// The configuration file of a role.
    #[must_use]
    pub fn config_of(&self, role: Role) -> PathBuf {
        let default = match role {
            Role::Gateway => "/etc/jvpn/gateway.toml",
            Role::Relay => "/etc/jvpn/relay.toml",
            Role::Client => "/etc/jvpn/client.toml",
        };
        self.config.clone().unwrap_or_else(|| default.into())
    }

    /// Where sockets are, without a configuration file at hand.
    #[must_use]
    pub fn run_dir_or_default(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| "/run/jvpn".into())
    }

    /// Where a gateway's state is, without a configuration file at hand.
    #[must_use]
    pub fn state_dir_or_default(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| "/var/lib/jvpn".into())
    }

    /// Every place of an instance called `name`.
    #[must_use]
    pub fn resolve(&self, role: Role, name: &str, file: &FilePaths) -> Paths {
        let pick = |flag: &Option<PathBuf>, file: &Option<PathBuf>, default: &Path| {
            flag.clone().or_else(|| file.clone()).unwrap_or_else(|| default.to_path_buf())
        };
        // A client beside a gateway on one host has a directory of its own inside the gateway's.
        let (state, socket) = match role {
            Role::Gateway => (PathBuf::from("/var/lib/jvpn"), "gateway.sock".to_owned()),
            Role::Relay => (PathBuf::from("/var/lib/jvpn/relay"), "relay.sock".to_owned()),
            Role::Client => (PathBuf::from(format!("/var/lib/jvpn/client-{name}")), format!("client-{name}.sock")),
        };
        let run_dir = pick(&self.run_dir, &file.run_dir, Path::new("/run/jvpn"));
        Paths {
            config: self.config_of(role),
            state_dir: pick(&self.state_dir, &file.state_dir, &state),
            pin_root: pick(&self.pin_root, &file.pin_root, Path::new("/sys/fs/bpf/jvpn")),
            socket: run_dir.join(socket),
            run_dir,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file =
            FilePaths { run_dir: Some("/file/run".into()), state_dir: Some("/file/state".into()), pin_root: None };
        let places = Places { run_dir: Some("/flag/run".into()), ..Places::default() };
        let paths = places.resolve(Role::Gateway, "gw", &file);
        assert_eq!(paths.run_dir, Path::new("/flag/run"));
        assert_eq!(paths.socket, Path::new("/flag/run/gateway.sock"));
        assert_eq!(paths.state_dir, Path::new("/file/state"));
        assert_eq!(paths.pin_root, Path::new("/sys/fs/bpf/jvpn"));
        let client = places.resolve(Role::Client, "till", &FilePaths::default());
        assert_eq!(client.socket, Path::new("/flag/run/client-till.sock"));
    }
}
