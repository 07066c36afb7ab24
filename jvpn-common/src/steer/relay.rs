//! The way of one packet through a relay: who sent it, who gets it.
//!
//! ```text
//! frame ─ outer::parse ─┬─ not our port ────────────────────────────────► Pass
//!                       └─ judge ── type ─┬─ initiation ─ bucket ────────► User
//!                                         ├─ response, cookie ─ an owner ► User
//!                                         └─ locator, generation, flags, tag (of its direction)
//!                                              ├─ control ───────────────► User
//!                                              ├─ probe ─ window ─ echo ──► Answer
//!                                              ├─ up ── lease ── binding ──┐
//!                                              └─ down ─ owner ─ lease ─ active ─ rewrite ► Forward
//! ```
//!
//! Owns who may send through whom. A relay holds steering keys and nothing else: it must never decide what a
//! session does, and what it knows of bindings and owners is a cache under the owner's lease.

use super::rewrite::{self, Onward, Route};
use super::{
    Address, Datagram, Frame, Judgement, Known, Life, Session, Source, Tables, asked, bind, check_tag, configured,
    count_arrival, cut, from_bound, initiation, kind, open, outer, probe, turned,
};
use crate::abi::{Binding, OWNERS_MAX, Owner, OwnerEndpoint, ROLE_RELAY, TrafficField};
use crate::net::{ipv4, ipv6, udp};
use crate::verdict::{Class, Verdict};
use crate::wire::header::{FLAG_DOWN, Kind};

/// Where a datagram goes on from a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The way out: place in `HOPS`, which also tells the address to send from.
    pub hop: u16,
    /// Whom to.
    pub to: Source,
}

/// What became of a frame at a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Verdict, session, header.
    pub judgement: Judgement,
    /// Interface a rewritten frame leaves by; 0 for any other.
    pub ifindex: u32,
}

/// What becomes of a datagram at a relay's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Verdict, session, header.
    pub judgement: Judgement,
    /// Where it goes on, if the verdict is to forward it.
    pub forward: Option<Way>,
}

/// Judges a whole frame, rewrites or answers it, and counts the verdict.
#[inline(always)]
pub fn relay<T: Tables>(frame: &mut impl Frame, tables: &T, route: &impl Route) -> Relayed {
    let mut relayed = Relayed { judgement: Judgement::of(Verdict::Unconfigured), ifindex: 0 };
    let judgement = &mut relayed.judgement;
    // No closure: one that is not inlined would bring this type into BTF, which the kernel does not take.
    let parsed = match configured(tables, ROLE_RELAY) {
        Ok(config) => outer::parse(frame, config.port),
        Err(verdict) => Err(verdict),
    };
    match parsed {
        Err(verdict) => judgement.verdict = verdict,
        Ok(outer) => {
            let datagram = Datagram { at: outer.payload, len: outer.len, source: &outer.source };
            match judge(frame, &datagram, tables, judgement) {
                Ok(onward) => {
                    match rewrite::forward(frame, &outer, &onward, judgement.entry.slot, tables, route) {
                        Ok(ifindex) => relayed.ifindex = ifindex,
                        Err(verdict) => judgement.verdict = verdict,
                    }
                    count(judgement, outer.len, tables);
                }
                Err(verdict) if matches!(verdict.class(), Class::Answer) => {
                    judgement.verdict = turned(frame, &outer, verdict);
                }
                Err(verdict) => judgement.verdict = verdict,
            }
        }
    }
    tables.count(relayed.judgement.verdict);
    relayed
}

/// Judges a datagram's payload and counts the verdict. An answer stands in `payload` afterwards, cut to its
/// length, for the caller to send to `source`; what is forwarded is unchanged, for the caller to send on.
#[inline(always)]
pub fn relay_datagram<T: Tables>(payload: &mut impl Frame, source: &Source, tables: &T) -> Passed {
    let len = payload.len();
    let mut judgement = Judgement::of(Verdict::Unconfigured);
    let mut forward = None;
    match judge(payload, &Datagram { at: 0, len, source }, tables, &mut judgement) {
        Err(verdict) => judgement.verdict = cut(payload, len, verdict),
        Ok(onward) => {
            match tables.hop(onward.hop) {
                // The socket finds the neighbour, but from which address to send only the way can tell.
                None => judgement.verdict = Verdict::NoNeighbour,
                Some(hop) if rewrite::too_big(ip_len(source, len), onward.mtu, hop.mtu) => {
                    judgement.verdict = Verdict::TooBig;
                }
                Some(_) if onward.to.is_v4() != source.is_v4() => judgement.verdict = Verdict::NoOtherSide,
                Some(_) => {
                    let to = Source { address: onward.to.bytes(), port: onward.port };
                    forward = Some(Way { hop: onward.hop, to });
                }
            }
            count(&judgement, len, tables);
        }
    }
    tables.count(judgement.verdict);
    Passed { judgement, forward }
}

/// Counts data that goes on, be it by the relay's process.
#[inline(always)]
fn count<T: Tables>(judgement: &Judgement, len: usize, tables: &T) {
    if !matches!(judgement.verdict, Verdict::ForwardedUp | Verdict::ForwardedDown | Verdict::NoNeighbour) {
        return;
    }
    if judgement.header.flags & FLAG_DOWN == 0 {
        count_arrival(&judgement.entry, len, tables);
    } else if tables.counts_arrivals() {
        tables.add(judgement.entry.slot, TrafficField::DownPackets, 1);
        tables.add(judgement.entry.slot, TrafficField::DownBytes, len as u64);
    }
}

/// Bytes of the IP packet around a payload of `len` bytes.
#[inline(always)]
const fn ip_len(source: &Source, len: usize) -> usize {
    len + udp::LEN + if source.is_v4() { ipv4::LEN } else { ipv6::LEN }
}

/// Judges a datagram, writing the answer over it if it is answered. Where it goes on, with that verdict in `judgement`,
/// or what else becomes of it.
#[inline(always)]
fn judge<T: Tables>(
    frame: &mut impl Frame,
    datagram: &Datagram<'_>,
    tables: &T,
    judgement: &mut Judgement,
) -> Result<Onward, Verdict> {
    let source = datagram.source;
    let from = Address::of(&source.address);
    let kind = match kind(frame, datagram)? {
        Kind::Initiation => return Err(initiation(datagram, tables)),
        Kind::Response | Kind::CookieReply if is_an_owner(from, source.port, tables) => return Err(Verdict::Handshake),
        Kind::Response | Kind::CookieReply | Kind::Echo | Kind::Notice => return Err(Verdict::ClientOnly),
        kind => kind,
    };
    let known = open(frame, datagram, kind, FLAG_DOWN, tables, judgement)?;
    if let Kind::Probe = kind {
        return Err(judge_probe(frame, datagram, &known, tables));
    }
    check_tag(&known, None, tables)?;
    let down = known.header.flags & FLAG_DOWN != 0;
    if let (Kind::Control, false) = (kind, down) {
        return Err(Verdict::Control);
    }
    let owner = owner_of(&known, tables)?;
    let end = End::of(&owner, from.is_v4())?;
    if down && !end.is_at(from, source.port) {
        return Err(Verdict::BadDirection);
    }
    if let Kind::Control = kind {
        return Err(Verdict::Control);
    }
    let tick = tables.ticks();
    if !owner.alive(tick) {
        return Err(Verdict::LeaseEnded);
    }
    if down {
        judgement.verdict = Verdict::ForwardedDown;
        return to_client(&known);
    }
    let life = Life { incarnation: owner.incarnation, alive: true };
    judgement.draining = from_bound(frame, datagram, &known, tick, life, tables)?;
    judgement.verdict = Verdict::ForwardedUp;
    Ok(Onward { hop: end.hop(), mtu: end.mtu(), port: end.port(), to: end.to })
}

/// Where an owner is in one IP version, by words: bytes that come from one of two places would take as many words of
/// the kernel's stack.
#[derive(Clone, Copy)]
struct End {
    to: Address,
    fields: u64,
}

impl End {
    #[inline(always)]
    fn of(owner: &Owner, v4: bool) -> Result<Self, Verdict> {
        let [a, b, fields] = if v4 { owner.v4.to_words() } else { owner.v6.to_words() };
        let end = Self { to: Address(a, b), fields };
        if end.port() == 0 { Err(Verdict::NoOtherSide) } else { Ok(end) }
    }

    #[inline(always)]
    const fn port(&self) -> u16 {
        OwnerEndpoint::from_words([0, 0, self.fields]).port
    }

    #[inline(always)]
    const fn hop(&self) -> u16 {
        OwnerEndpoint::from_words([0, 0, self.fields]).hop
    }

    #[inline(always)]
    const fn mtu(&self) -> u16 {
        OwnerEndpoint::from_words([0, 0, self.fields]).mtu
    }

    #[inline(always)]
    fn is_at(&self, address: Address, port: u16) -> bool {
        self.port() == port && self.to == address
    }
}

/// Whether an owner receives at this address and port. There are few, and only handshakes ask: a function of its own
/// in the kernel, whose turns would otherwise crowd the stack of everything else.
#[inline(never)]
fn is_an_owner<T: Tables>(address: Address, port: u16, tables: &T) -> bool {
    let v4 = address.is_v4();
    let mut index = 0;
    while index < OWNERS_MAX {
        let end = tables.owner(index).and_then(|owner| End::of(&owner, v4).ok());
        if end.is_some_and(|end| end.is_at(address, port)) {
            return true;
        }
        index += 1;
    }
    false
}

/// The owner of a session.
#[inline(always)]
fn owner_of<T: Tables>(known: &Known<T>, tables: &T) -> Result<Owner, Verdict> {
    let index = known.session.owner().checked_sub(1).ok_or(Verdict::NoOtherSide)?;
    tables.owner(index).ok_or(Verdict::NoOtherSide)
}

/// To the active binding, whatever transport the owner meant: the client opens on each it holds.
#[inline(always)]
fn to_client<T: Tables>(known: &Known<T>) -> Result<Onward, Verdict> {
    let bound = bind::words(&known.session).ok_or(Verdict::Torn)?;
    let [a, b, fields, _] = bound.active().ok_or(Verdict::NoBinding)?;
    let binding = Binding::from_words([0, 0, fields, 0]);
    Ok(Onward { hop: binding.gateway, mtu: 0, port: binding.port, to: Address(a, b) })
}

/// An echo tells of the owner's life. What would not get to the owner whole gets no echo either, so that a client
/// finds the smaller MTU of both halves.
#[inline(always)]
fn judge_probe<T: Tables>(frame: &mut impl Frame, datagram: &Datagram<'_>, known: &Known<T>, tables: &T) -> Verdict {
    if known.header.flags & FLAG_DOWN != 0 {
        return Verdict::BadDirection;
    }
    let asked = match asked(frame, datagram, known, tables) {
        Ok(asked) => asked,
        Err(verdict) => return verdict,
    };
    let owner = match owner_of(known, tables) {
        Ok(owner) => owner,
        Err(verdict) => return verdict,
    };
    match End::of(&owner, datagram.source.is_v4()) {
        Err(verdict) => return verdict,
        Ok(end) if rewrite::too_big(ip_len(datagram.source, datagram.len), end.mtu(), 0) => {
            return Verdict::ProbeSize;
        }
        Ok(_) => {}
    }
    let (incarnation, until) = (owner.incarnation, owner.alive_until);
    let life = |tick| Some(Life { incarnation, alive: until != 0 && tick <= until });
    probe::echo(frame, datagram, known, &asked, tables, life)
}
