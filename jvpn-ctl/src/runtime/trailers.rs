//! Trailers of every stream: put on what goes to the other side, taken off what comes from there.
//!
//! Owns the keys and counters of both directions, shared between whoever sends. Must never pass a datagram on whose
//! trailer does not open: it would claim a client's address for free.

use jvpn_common::crypto::trailer::{Trailer, TrailerOpener, TrailerSealer};
use jvpn_common::limits::TRAILER_LEN;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses of a relay that have a number.
const LOCALS_MAX: usize = 64;

/// How the other side is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Its UDP address.
    pub(crate) address: SocketAddr,
    /// Our own address it sends to.
    pub(crate) own: Option<IpAddr>,
}

#[derive(Debug)]
struct Side {
    way: Way,
    sealer: TrailerSealer,
    opener: TrailerOpener,
    /// The relay's own addresses by number.
    locals: BTreeMap<u16, SocketAddr>,
}

/// A datagram whose trailer opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vouched<K> {
    /// By whom.
    pub(crate) by: K,
    /// The client it is from, or for.
    pub(crate) client: SocketAddr,
    /// The relay's address that client uses.
    pub(crate) local: SocketAddr,
    /// Bytes before the trailer.
    pub(crate) len: usize,
}

/// The other sides by name: relays for an owner, owners for a relay.
#[derive(Debug)]
pub(crate) struct Trailers<K>(Mutex<BTreeMap<K, Side>>);

impl<K> Default for Trailers<K> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Copy + Ord> Trailers<K> {
    fn sides(&self) -> MutexGuard<'_, BTreeMap<K, Side>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream began: its keys replace earlier ones.
    pub(crate) fn open(&self, side: K, way: Way, sealer: TrailerSealer, opener: TrailerOpener) {
        self.sides().insert(side, Side { way, sealer, opener, locals: BTreeMap::new() });
    }

    /// Our own address a side sends to.
    pub(crate) fn own_address(&self, side: K) -> Option<IpAddr> {
        self.sides().get(&side)?.way.own
    }

    /// A number stands for this address of the relay from now on.
    pub(crate) fn name(&self, side: K, index: u16, address: SocketAddr) {
        if let Some(side) = self.sides().get_mut(&side)
            && (side.locals.len() < LOCALS_MAX || side.locals.contains_key(&index))
        {
            side.locals.insert(index, address);
        }
    }

    /// The number of an address of the relay; a new one is given, and `true` says that the other side must hear it.
    pub(crate) fn number(&self, side: K, address: SocketAddr) -> Option<(u16, bool)> {
        let mut sides = self.sides();
        let locals = &mut sides.get_mut(&side)?.locals;
        if let Some((index, _)) = locals.iter().find(|(_, known)| **known == address) {
            return Some((*index, false));
        }
        let index = u16::try_from(locals.len()).ok().filter(|_| locals.len() < LOCALS_MAX)?;
        locals.insert(index, address);
        Some((index, true))
    }

    /// Which side sends from this address.
    pub(crate) fn side_at(&self, remote: SocketAddr) -> Option<K> {
        self.sides().iter().find(|(_, side)| side.way.address == remote).map(|(name, _)| *name)
    }

    /// A datagram with its trailer, and how it travels; `None` without a stream, or for an address without a number.
    pub(crate) fn seal(&self, side: K, client: SocketAddr, local: SocketAddr, bytes: &[u8]) -> Option<(Way, Vec<u8>)> {
        let mut sides = self.sides();
        let side = sides.get_mut(&side)?;
        let (index, _) = side.locals.iter().find(|(_, known)| **known == local)?;
        let mut sealed = Vec::with_capacity(bytes.len() + TRAILER_LEN);
        sealed.extend_from_slice(bytes);
        side.sealer.seal(&mut sealed, &Trailer { client, local: *index })?;
        Some((side.way, sealed))
    }

    /// Takes a trailer off; `None` if it does not open, or names an address nobody told.
    pub(crate) fn take_off(&self, by: K, datagram: &[u8]) -> Option<Vouched<K>> {
        let mut sides = self.sides();
        let side = sides.get_mut(&by)?;
        let (Trailer { client, local }, len) = side.opener.open(datagram).ok()?;
        Some(Vouched { by, client, local: *side.locals.get(&local)?, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::entropy::System;
    use jvpn_common::crypto::trailer::keys;

    fn ends() -> (Trailers<u8>, Trailers<u8>) {
        let (up, down) = keys(&mut System);
        let way = |port| Way { address: SocketAddr::from(([192, 0, 2, 1], port)), own: None };
        let (relay, owner) = (Trailers::default(), Trailers::default());
        relay.open(1, way(1), TrailerSealer::new(up.duplicate()), TrailerOpener::new(down.duplicate()));
        owner.open(2, way(2), TrailerSealer::new(down), TrailerOpener::new(up));
        (relay, owner)
    }

    #[test]
    fn a_datagram_arrives_with_its_client_and_the_relays_address() {
        let (relay, owner) = ends();
        let (client, local) = (SocketAddr::from(([198, 51, 100, 7], 999)), SocketAddr::from(([192, 0, 2, 9], 51_821)));
        assert!(relay.seal(1, client, local, b"hello").is_none(), "an address without a number");
        let (index, new) = relay.number(1, local).expect("room");
        assert!(new && relay.number(1, local) == Some((index, false)));
        let (way, sealed) = relay.seal(1, client, local, b"hello").expect("sealed");
        assert_eq!(way.address.port(), 1);
        assert!(owner.take_off(2, &sealed).is_none(), "the owner was not told the number");
        owner.name(2, index, local);
        let (_, again) = relay.seal(1, client, local, b"hello").expect("sealed");
        let vouched = owner.take_off(2, &again).expect("opens");
        assert_eq!((vouched.by, vouched.client, vouched.local, vouched.len), (2, client, local, 5));
        assert_eq!(owner.side_at(SocketAddr::from(([192, 0, 2, 1], 2))), Some(2));
    }
}
