//! Owns the two-instruction program that lets a veth end receive XDP_TX and redirected frames. Never inspects or
//! changes a packet.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;
use super::sys;

/// `r0 = XDP_PASS; exit`, as the kernel's instruction words.
const PROGRAM: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// `XDP_FLAGS_DRV_MODE`: generic mode would not receive redirected frames, and would hide that.
const DRIVER_MODE: u32 = 1 << 2;
/// `XDP_FLAGS_SKB_MODE`.
const GENERIC_MODE: u32 = 1 << 1;
const IFLA_XDP_NESTED: u16 = 43 | (1 << 15);
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const RTM_SETLINK: u16 = 19;
const REQUEST_WITH_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;

pub fn load() -> Result<OwnedFd> {
    sys::load_xdp(&PROGRAM).context("load the lab's XDP pass program (needs root)")
}

/// Attaches over rtnetlink, so the program stays when this process ends: a kept lab must go on working.
pub fn attach(space: &Netns, interface: &str, program: &OwnedFd) -> Result<()> {
    attach_in(DRIVER_MODE, space, interface, program)
}

/// The same in the stack.
pub fn attach_generic(space: &Netns, interface: &str, program: &OwnedFd) -> Result<()> {
    attach_in(GENERIC_MODE, space, interface, program)
}

fn attach_in(mode: u32, space: &Netns, interface: &str, program: &OwnedFd) -> Result<()> {
    space
        .enter(|| {
            let socket =
                Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
            let index = name_to_index(&socket, interface)?;
            socket.send(&request(mode, index, program.as_raw_fd()))?;
            let mut reply = [0u8; 256];
            let length = (&socket).read_reply(&mut reply)?;
            match outcome(&reply[..length]) {
                Some(0) => Ok(()),
                Some(code) => Err(std::io::Error::from_raw_os_error(-code).into()),
                None => bail!("rtnetlink answered {length} bytes that are no acknowledgement"),
            }
        })
        .with_context(|| format!("attach the pass program to {interface} in {}", space.name()))
}

trait ReadReply {
    fn read_reply(&mut self, buffer: &mut [u8]) -> std::io::Result<usize>;
}

impl ReadReply for &Socket {
    fn read_reply(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        std::io::Read::read(self, buffer)
    }
}

fn request(mode: u32, index: u32, program: i32) -> Vec<u8> {
    let attribute = |kind: u16, value: [u8; 4]| {
        let mut bytes = Vec::from(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes
    };
    let mut nested = attribute(IFLA_XDP_FD, program.to_ne_bytes());
    nested.extend(attribute(IFLA_XDP_FLAGS, mode.to_ne_bytes()));
    let mut body = vec![0u8; 16]; // ifinfomsg: family, pad, type, index, flags, change
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body.extend((4 + nested.len() as u16).to_ne_bytes());
    body.extend(IFLA_XDP_NESTED.to_ne_bytes());
    body.extend(nested);
    let mut message = Vec::from((16 + body.len() as u32).to_ne_bytes());
    message.extend(RTM_SETLINK.to_ne_bytes());
    message.extend(REQUEST_WITH_ACK.to_ne_bytes());
    message.extend([0u8; 8]); // sequence and port: one request, one answer
    message.extend(body);
    message
}

fn outcome(reply: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(reply.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(reply.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_own_length_and_carries_interface_and_program() {
        let message = request(DRIVER_MODE, 7, 9);
        assert_eq!(message.len(), 52);
        assert_eq!(message[0..4], 52u32.to_ne_bytes());
        assert_eq!(message[20..24], 7u32.to_ne_bytes());
        assert_eq!(message[40..44], 9i32.to_ne_bytes());
    }

    #[test]
    fn only_an_acknowledgement_counts_as_an_outcome() {
        let mut reply = vec![0u8; 20];
        assert_eq!(outcome(&reply), None);
        reply[4] = 2;
        assert_eq!(outcome(&reply), Some(0));
        assert_eq!(outcome(&reply[..19]), None);
    }
}
