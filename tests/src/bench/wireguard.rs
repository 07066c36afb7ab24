//! Owns running userspace WireGuards over an underlay: any program that makes an interface of a name it is given and
//! speaks WireGuard's control protocol. Never built, linked or changed here: a program that is found or not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::secret::{PrivateKey, Secret};

use super::rig::INNER_MTU;
use crate::lab::netns::{Netns, run};
use crate::lab::topology::GATEWAY_V4;

/// The gateway's address inside.
pub const INNER_GATEWAY: &str = "10.201.0.1";
/// The client's.
pub const INNER_CLIENT: &str = "10.201.0.2";
const PORT: u16 = 51_820;
const START_LIMIT: Duration = Duration::from_secs(5);
/// Where every userspace WireGuard has its control sockets.
const SOCKETS: &str = "/var/run/wireguard";

/// A program and how it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    /// What its file is called.
    pub file: &'static str,
    /// What to run when it is missing.
    pub install: &'static str,
    /// Words before the interface's name.
    words: &'static [&'static str],
}

pub const GOTATUN: Kind = Kind {
    name: "gotatun",
    file: "gotatun",
    install: "cargo install gotatun-cli --root target/tools",
    words: &["-f", "--disable-drop-privileges", "--verbosity", "error"],
};
pub const BORINGTUN: Kind = Kind {
    name: "boringtun",
    file: "boringtun-cli",
    install: "cargo install boringtun-cli --root target/tools",
    words: &["-f", "--disable-drop-privileges", "--verbosity", "error"],
};
pub const WIREGUARD_GO: Kind =
    Kind { name: "wireguard-go", file: "wireguard-go", install: "apt-get install wireguard-go", words: &["-f"] };
/// One that was named on the command line: started as wireguard-go is, which all but a few understand.
pub const NAMED: Kind = Kind { name: "named", file: "", install: "name a program that is there", words: &["-f"] };

impl Kind {
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        found(self.file)
    }
}

/// A program, from `target/tools`, PATH or ~/.cargo/bin.
pub fn found(file: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let above = own.iter().flat_map(|exe| exe.ancestors().skip(1).take(2));
    let tools = above.map(|directory| directory.join("tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let places = tools.chain(std::env::split_paths(&path)).chain(home);
    places.map(|directory| directory.join(file)).find(|file| file.is_file())
}

/// Its version, as it says.
pub fn version(program: &Path) -> Result<String> {
    let program = program.to_str().context("the path of a program is not UTF-8")?;
    Ok(run(&[program, "--version"], None)?.lines().next().unwrap_or_default().to_owned())
}

/// Where it runs.
#[derive(Clone, Debug)]
pub struct Place {
    pub client: Netns,
    pub gateway: Netns,
    /// Control sockets share one directory, so names begin with this.
    pub prefix: String,
    /// For its logs.
    pub files: PathBuf,
}

/// Two processes joined over an underlay.
#[derive(Debug)]
pub struct Joined {
    place: Place,
    kind: Kind,
    program: PathBuf,
    keys: [[u8; 32]; 2],
    ends: Vec<End>,
}

#[derive(Debug)]
struct End {
    child: Child,
    socket: PathBuf,
}

impl Drop for End {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

impl Joined {
    /// Both ends of it, between two namespaces of which the gateway's has its address.
    pub fn start(place: Place, kind: Kind, program: &Path) -> Result<Joined> {
        let keys = [secret()?, secret()?];
        let mut tunnel = Joined { place, kind, program: program.to_owned(), keys, ends: Vec::new() };
        for side in 0..2 {
            let end = tunnel.end(side)?;
            tunnel.ends.push(end);
        }
        Ok(tunnel)
    }

    /// One process with its keys, its peer and its address.
    fn end(&self, side: usize) -> Result<End> {
        let (place, keys) = (&self.place, &self.keys);
        let end = start_end(place, self.kind, &self.program, side)?;
        let peer = public(&keys[1 - side])?;
        let wanted = if side == 0 {
            format!("public_key={peer}\nendpoint={GATEWAY_V4}:{PORT}\nallowed_ip=0.0.0.0/0\n")
        } else {
            format!("public_key={peer}\nallowed_ip={INNER_CLIENT}/32\n")
        };
        let listen = if side == 1 { format!("listen_port={PORT}\n") } else { String::new() };
        let own = hex::encode(keys[side]);
        end.ask(&format!("set=1\nprivate_key={own}\n{listen}replace_peers=true\n{wanted}\n"))?;
        let (space, address) = if side == 0 { (&place.client, INNER_CLIENT) } else { (&place.gateway, INNER_GATEWAY) };
        let name = interface(place, side);
        space.ip(&format!("address add {address}/24 dev {name}\nlink set {name} mtu {INNER_MTU} up\n"))?;
        Ok(end)
    }

    /// Kills the gateway's process (SIGKILL) and starts it again with the same keys.
    pub fn crash_gateway(&mut self) -> Result<()> {
        drop(self.ends.pop().context("it does not run")?);
        let end = self.end(1)?;
        self.ends.push(end);
        Ok(())
    }

    /// Whether both processes still run.
    pub fn alive(&mut self) -> bool {
        self.ends.iter_mut().all(|end| matches!(end.child.try_wait(), Ok(None)))
    }
}

fn interface(place: &Place, side: usize) -> String {
    format!("{}{}", place.prefix, if side == 0 { "c" } else { "g" })
}

fn start_end(place: &Place, kind: Kind, program: &Path, side: usize) -> Result<End> {
    let name = interface(place, side);
    let says = place.files.join(format!("{name}.err"));
    let space = if side == 0 { &place.client } else { &place.gateway };
    let mut command = Command::new(program);
    command.args(kind.words).arg(&name).env("LOG_LEVEL", "error");
    let log = fs::File::create(&says)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = space.enter(move || command.spawn().with_context(|| format!("run {}", kind.name)))?;
    let mut end = End { child, socket: PathBuf::from(SOCKETS).join(format!("{name}.sock")) };
    let deadline = Instant::now() + START_LIMIT;
    while UnixStream::connect(&end.socket).is_err() {
        let ended = end.child.try_wait()?;
        let says = fs::read_to_string(&says).unwrap_or_default();
        ensure!(ended.is_none() && Instant::now() < deadline, "{} has no control socket: {ended:?} {says}", kind.name);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(end)
}

impl End {
    /// One request of the WireGuard control protocol.
    fn ask(&self, request: &str) -> Result<()> {
        let mut stream = UnixStream::connect(&self.socket).context("control socket of a WireGuard")?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        let mut buffer = [0; 512];
        while !answer.ends_with("\n\n") {
            let n = stream.read(&mut buffer).context("answer of a WireGuard")?;
            ensure!(n > 0, "a WireGuard closed its control socket after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        ensure!(answer.contains("errno=0"), "a WireGuard refuses its configuration: {answer:?}");
        Ok(())
    }
}

fn secret() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("random key")?;
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    Ok(bytes)
}

fn public(private: &[u8; 32]) -> Result<String> {
    let key = PrivateKey::from_secret(Secret::take(&mut private.clone())).context("own key")?;
    Ok(hex::encode(key.public().as_bytes()))
}
