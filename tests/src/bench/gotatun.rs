//! Owns running gotatun, a userspace WireGuard, over an underlay. Never built, linked or changed here: a program that
//! is found or not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jvpn_common::secret::{PrivateKey, Secret};

use super::rig::INNER_MTU;
use super::underlay::Underlay;
use crate::lab::netns::run;
use crate::lab::topology::GATEWAY_V4;

/// What to run when it is missing.
pub const INSTALL: &str = "cargo install gotatun-cli --root target/tools";
/// The gateway's address inside.
pub const INNER_GATEWAY: &str = "10.201.0.1";
const INNER_CLIENT: &str = "10.201.0.2";
const PORT: u16 = 51_820;
const START_LIMIT: Duration = Duration::from_secs(5);
/// Where every userspace WireGuard has its control sockets.
const SOCKETS: &str = "/var/run/wireguard";

/// The program, from `target/tools`, PATH or ~/.cargo/bin.
pub fn find() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let tools = own.iter().flat_map(|exe| exe.ancestors().skip(1).take(2)).map(|directory| directory.join("tools/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    tools
        .chain(std::env::split_paths(&path))
        .chain(home)
        .map(|directory| directory.join("gotatun"))
        .find(|file| file.is_file())
}

/// Its version, as it says.
pub fn version(program: &std::path::Path) -> Result<String> {
    let program = program.to_str().context("the path of gotatun is not UTF-8")?;
    Ok(run(&[program, "--version"], None)?.lines().next().unwrap_or_default().to_owned())
}

/// Two processes joined over an underlay.
#[derive(Debug)]
pub struct Gotatun {
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

impl Gotatun {
    pub fn start(underlay: &Underlay, program: &std::path::Path) -> Result<Gotatun> {
        let keys = [secret()?, secret()?];
        let mut ends = Vec::new();
        for side in 0..2 {
            let end = start_end(underlay, program, side)?;
            let peer = public(&keys[1 - side])?;
            let wanted = if side == 0 {
                format!("public_key={peer}\nendpoint={GATEWAY_V4}:{PORT}\nallowed_ip=0.0.0.0/0\n")
            } else {
                format!("public_key={peer}\nallowed_ip={INNER_CLIENT}/32\n")
            };
            let listen = if side == 1 { format!("listen_port={PORT}\n") } else { String::new() };
            let own = hex::encode(keys[side]);
            end.ask(&format!("set=1\nprivate_key={own}\n{listen}replace_peers=true\n{wanted}\n"))?;
            let (space, address) =
                if side == 0 { (underlay.client(), INNER_CLIENT) } else { (underlay.gateway(), INNER_GATEWAY) };
            let name = interface(underlay, side);
            space.ip(&format!("address add {address}/24 dev {name}\nlink set {name} mtu {INNER_MTU} up\n"))?;
            ends.push(end);
        }
        Ok(Gotatun { ends })
    }

    /// Whether both processes still run.
    pub fn alive(&mut self) -> bool {
        self.ends.iter_mut().all(|end| matches!(end.child.try_wait(), Ok(None)))
    }
}

/// Control sockets share one directory, so the name is this underlay's own.
fn interface(underlay: &Underlay, side: usize) -> String {
    format!("{}{}", underlay.ground.prefix(), if side == 0 { "c" } else { "g" })
}

fn start_end(underlay: &Underlay, program: &std::path::Path, side: usize) -> Result<End> {
    let name = interface(underlay, side);
    let log = underlay.ground.files().join(format!("{name}.log"));
    let space = if side == 0 { underlay.client() } else { underlay.gateway() };
    let mut command = Command::new(program);
    command.args(["-f", "--disable-drop-privileges", "--verbosity", "error", "--log"]).arg(&log).arg(&name);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log.with_extension("err"))?);
    let child = space.enter(move || command.spawn().context("run gotatun"))?;
    let mut end = End { child, socket: PathBuf::from(SOCKETS).join(format!("{name}.sock")) };
    let deadline = Instant::now() + START_LIMIT;
    while UnixStream::connect(&end.socket).is_err() {
        let ended = end.child.try_wait()?;
        let says = fs::read_to_string(log.with_extension("err")).unwrap_or_default();
        ensure!(ended.is_none() && Instant::now() < deadline, "gotatun has no control socket: {ended:?} {says}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(end)
}

impl End {
    /// One request of the WireGuard control protocol.
    fn ask(&self, request: &str) -> Result<()> {
        let mut stream = UnixStream::connect(&self.socket).context("control socket of gotatun")?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        let mut buffer = [0; 512];
        while !answer.ends_with("\n\n") {
            let n = stream.read(&mut buffer).context("answer of gotatun")?;
            ensure!(n > 0, "gotatun closed its control socket after {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        ensure!(answer.contains("errno=0"), "gotatun refuses its configuration: {answer:?}");
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
