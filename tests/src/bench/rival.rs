//! Owns the programs benches compare with, of whichever kind: where each is found, how it says its version, how two of it are
//! joined over an underlay. Never built, linked or changed here: a program that is there or not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::rig::INNER_MTU;
use super::wireguard::{self, INNER_CLIENT, INNER_GATEWAY, Place};
use crate::lab::child::KillOnDrop;
use crate::lab::netns::{Netns, run};
use crate::lab::topology::GATEWAY_V4;

const INTERFACE: &str = "rival0";
const GATEWAY: &str = "gateway";
const SIDES: [&str; 2] = [GATEWAY, "client"];

/// Another VPN, and how it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WireGuard(wireguard::Kind),
    OpenVpn,
    Nebula,
}

/// Two processes joined between two namespaces.
#[derive(Debug)]
pub enum Joined {
    WireGuard(wireguard::Joined),
    Other(Pair),
}

/// Two processes that read files: the gateway's, then the client's.
#[derive(Debug)]
pub struct Pair {
    kind: Kind,
    place: Place,
    program: PathBuf,
    ends: Vec<KillOnDrop>,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::WireGuard(kind) => kind.name,
            Kind::OpenVpn => "openvpn",
            Kind::Nebula => "nebula",
        }
    }

    /// What to run when it is missing.
    pub const fn install(self) -> &'static str {
        match self {
            Kind::WireGuard(kind) => kind.install,
            Kind::OpenVpn => "apt-get install openvpn",
            Kind::Nebula => "apt-get install nebula",
        }
    }

    pub fn find(self) -> Option<PathBuf> {
        match self {
            Kind::WireGuard(kind) => kind.find(),
            Kind::OpenVpn | Kind::Nebula => wireguard::found(self.name()),
        }
    }

    /// What it is, in a line: version, cipher.
    pub fn told(self, program: Option<&Path>) -> Result<String> {
        let Some(program) = program else { return Ok("not installed".into()) };
        let file = program.to_str().context("the path of a program is not UTF-8")?;
        Ok(match self {
            Kind::WireGuard(_) => {
                format!("{}, ChaCha20-Poly1305, its defaults, MTU {INNER_MTU}", wireguard::version(program)?)
            }
            Kind::OpenVpn => {
                let said = run(&[file, "--version"], None)?;
                let version = said.split(' ').take(2).collect::<Vec<_>>().join(" ");
                format!("{version}, UDP, AES-256-GCM, without its kernel module, MTU {INNER_MTU}")
            }
            Kind::Nebula => {
                let version = run(&[file, "-version"], None)?;
                format!("nebula {}, AES-256-GCM, MTU {INNER_MTU}", version.trim())
            }
        })
    }

    /// Both ends of it, the gateway's at [`INNER_GATEWAY`], between two namespaces of which the gateway's has its address.
    pub fn join(self, place: Place, program: &Path) -> Result<Joined> {
        match self {
            Kind::WireGuard(kind) => {
                return Ok(Joined::WireGuard(wireguard::Joined::start(place, kind, program)?));
            }
            Kind::OpenVpn => SIDES.iter().try_for_each(|side| certificate(&place.files, side))?,
            Kind::Nebula => authority(&place.files)?,
        }
        let mut pair = Pair { kind: self, place, program: program.to_owned(), ends: Vec::new() };
        for side in SIDES {
            pair.ends.push(pair.end(side)?);
        }
        Ok(Joined::Other(pair))
    }
}

impl Pair {
    /// One process with the files that were made for it.
    fn end(&self, side: &str) -> Result<KillOnDrop> {
        let files = &self.place.files;
        let words = match self.kind {
            Kind::Nebula => {
                let config = files.join(format!("{side}.yml"));
                fs::write(&config, nebula(files, side)?)?;
                vec!["-config".to_owned(), text(config)]
            }
            _ => openvpn(files, side, &fingerprint(files, side)?),
        };
        let space = if side == GATEWAY { &self.place.gateway } else { &self.place.client };
        spawn(space, &self.program, &words, &files.join(format!("{side}.log")))
    }
}

impl Joined {
    /// Kills the gateway's process (SIGKILL) and starts it again with the same keys.
    pub fn crash_gateway(&mut self) -> Result<()> {
        match self {
            Joined::WireGuard(joined) => joined.crash_gateway(),
            Joined::Other(pair) => {
                // The old one is gone before the new one wants its port.
                drop(pair.ends.remove(0));
                pair.ends.insert(0, pair.end(GATEWAY)?);
                Ok(())
            }
        }
    }

    /// Whether both processes still run.
    pub fn alive(&mut self) -> bool {
        match self {
            Joined::WireGuard(joined) => joined.alive(),
            Joined::Other(pair) => pair.ends.iter_mut().all(|end| matches!(end.0.try_wait(), Ok(None))),
        }
    }
}

fn spawn(space: &Netns, program: &Path, words: &[String], log: &Path) -> Result<KillOnDrop> {
    let mut command = Command::new(program);
    let log = fs::File::create(log)?;
    command.args(words).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = space.enter(move || command.spawn().with_context(|| format!("run {}", program.display())))?;
    Ok(KillOnDrop(child))
}

fn text(file: PathBuf) -> String {
    file.display().to_string()
}

/// A certificate that only its fingerprint vouches for.
fn certificate(files: &Path, side: &str) -> Result<()> {
    let (key, certificate) = (text(files.join(format!("{side}.key"))), text(files.join(format!("{side}.crt"))));
    let subject = format!("/CN={side}");
    let curve = "ec_paramgen_curve:prime256v1";
    let made = ["-keyout", &key, "-out", &certificate, "-days", "2", "-subj", &subject];
    let command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", curve, "-nodes"];
    run(&[&command[..], &made[..]].concat(), None)?;
    Ok(())
}

/// Of the other end's certificate.
fn fingerprint(files: &Path, side: &str) -> Result<String> {
    let peer = text(files.join(if side == GATEWAY { "client.crt" } else { "gateway.crt" }));
    let said = run(&["openssl", "x509", "-in", &peer, "-noout", "-fingerprint", "-sha256"], None)?;
    Ok(said.trim().split_once('=').context("no fingerprint")?.1.to_owned())
}

/// One end of OpenVPN: both know each other by the fingerprint of a certificate, so that no authority is needed.
fn openvpn(files: &Path, side: &str, fingerprint: &str) -> Vec<String> {
    let (certificate, key) = (text(files.join(format!("{side}.crt"))), text(files.join(format!("{side}.key"))));
    let role = if side == GATEWAY {
        format!("--tls-server --dh none --lport 1194 --ifconfig {INNER_GATEWAY} {INNER_CLIENT}")
    } else {
        format!("--tls-client --nobind --remote {GATEWAY_V4} 1194 --ifconfig {INNER_CLIENT} {INNER_GATEWAY}")
    };
    let common = format!(
        "--dev {INTERFACE} --dev-type tun --proto udp4 --tun-mtu {INNER_MTU} --data-ciphers AES-256-GCM --disable-dco \
         --keepalive 10 60 --verb 1"
    );
    let words = role.split(' ').chain(common.split(' ')).map(str::to_owned);
    let named = [("--cert", certificate), ("--key", key), ("--peer-fingerprint", fingerprint.to_owned())];
    words.chain(named.into_iter().flat_map(|(name, value)| [name.to_owned(), value])).collect()
}

/// Nebula's own authority, and a certificate of it for each end.
fn authority(files: &Path) -> Result<()> {
    let [crt, key] = ["ca.crt", "ca.key"].map(|name| text(files.join(name)));
    run(&["nebula-cert", "ca", "-name", "bench", "-out-crt", &crt, "-out-key", &key], None)?;
    for (side, address) in [("gateway", INNER_GATEWAY), ("client", INNER_CLIENT)] {
        let (own, secret) = (text(files.join(format!("{side}.crt"))), text(files.join(format!("{side}.key"))));
        let address = format!("{address}/24");
        let signed = ["-name", side, "-ip", &address, "-out-crt", &own, "-out-key", &secret];
        run(&[&["nebula-cert", "sign", "-ca-crt", &crt, "-ca-key", &key], &signed[..]].concat(), None)?;
    }
    Ok(())
}

/// One end of Nebula: the gateway is the lighthouse the client asks.
fn nebula(files: &Path, side: &str) -> Result<String> {
    let directory = files.to_str().context("a path that is not UTF-8")?;
    let is_gateway = side == GATEWAY;
    let hosts = if is_gateway { "[]".to_owned() } else { format!("[\"{INNER_GATEWAY}\"]") };
    let port = if is_gateway { 4_242 } else { 0 };
    Ok(format!(
        "pki: {{ca: {directory}/ca.crt, cert: {directory}/{side}.crt, key: {directory}/{side}.key}}\n\
         static_host_map: {{\"{INNER_GATEWAY}\": [\"{GATEWAY_V4}:4242\"]}}\n\
         lighthouse: {{am_lighthouse: {is_gateway}, hosts: {hosts}}}\n\
         listen: {{host: 0.0.0.0, port: {port}}}\n\
         cipher: aes\n\
         tun: {{dev: {INTERFACE}, mtu: {INNER_MTU}}}\n\
         firewall:\n  outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_client_of_openvpn_calls_and_each_end_knows_the_other() {
        let [gateway, client] = ["gateway", "client"].map(|side| openvpn(Path::new("x"), side, "AA:BB"));
        let after = |words: &[String], name: &str| words.iter().skip_while(|word| *word != name).nth(1).cloned();
        assert_eq!((after(&gateway, "--remote"), after(&client, "--remote")), (None, Some(GATEWAY_V4.into())));
        for (words, own) in [(&gateway, "x/gateway.crt"), (&client, "x/client.crt")] {
            assert_eq!(after(words, "--cert").as_deref(), Some(own));
            assert_eq!(after(words, "--peer-fingerprint").as_deref(), Some("AA:BB"));
        }
    }

    #[test]
    fn the_gateway_is_nebula_s_lighthouse_and_the_client_asks_it() {
        let [gateway, client] = ["gateway", "client"].map(|side| nebula(Path::new("x"), side).unwrap());
        assert!(gateway.contains("am_lighthouse: true, hosts: []") && gateway.contains("port: 4242"));
        assert!(client.contains(&format!("am_lighthouse: false, hosts: [\"{INNER_GATEWAY}\"]")));
    }

    #[test]
    fn who_is_not_there_is_said_to_be_missing() {
        assert_eq!(Kind::Nebula.told(None).unwrap(), "not installed");
    }
}
