//! After a restart: sessions come back without keys, and wait for their clients.
//!
//! Owns the way from stored sessions into the table. Slots of the previous start stay reserved and unbound,
//! so that probes under old locators are still echoed with the new incarnation. Must never bind anything.

use super::Engine;
use super::reload::InForce;
use super::table::{Live, Waiting};
use crate::event::Record;
use crate::ids::{Generation, SessionId, Slot, Version};
use crate::reason::Reason;
use crate::secret::PublicKey;
use crate::session::version::Gap;
use crate::session::{Input, Session};

/// A session as the store and the record know it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Its core, on this boot's clock.
    pub core: Session,
    /// Its peer.
    pub peer: PublicKey,
    /// Ceiling in the store.
    pub ceiling: Version,
    /// Versions that may be missing from the record.
    pub gap: Option<Gap>,
    /// Slots it holds in the maps.
    pub slots: Vec<(Slot, Generation)>,
}

impl Engine {
    /// Takes sessions of the previous start over; call before the first input.
    pub fn restore(&mut self, restored: Vec<Restored>) {
        for Restored { core, peer, ceiling, gap, slots } in restored {
            let id: SessionId = core.id();
            for (slot, generation) in slots {
                self.table.reserve(slot, generation, id);
            }
            let removed = !self.config.peers.contains_key(&peer);
            if let Some(gap) = gap {
                let record = Record::gap(&self.context(&peer), &core, gap);
                self.commands.push_back(super::command::Command::Record(Box::new(record)));
            }
            let waiting = Waiting { restarted: true, end: removed.then_some(Reason::PolicyTermination), rekeyed: None };
            let suspicions = super::security::Suspicions::default();
            let policy = InForce::only(self.policy(&peer));
            let live = Live { core, peer, policy, slot: None, ceiling, reason: None, busy: None, waiting, suspicions };
            self.table.enlist(id, live);
            // A timer that ran out meanwhile fires first; unless the session is over then, the rest waits.
            let input = if removed { Input::PeerRemoved } else { Input::ControllerRestarted };
            let policy = self.policy_of(id);
            let step = self.table.sessions.get(&id).map(|live| {
                live.core.step(&input, &policy, self.now).or_else(|_| live.core.step(&Input::Tick, &policy, self.now))
            });
            match step {
                Some(Ok(step)) => {
                    let owner = step.session.owner_epoch().to_string();
                    let (change, mut commit) = self.propose(id, step, super::commit::Locators::default(), Vec::new());
                    let tell = |record: &mut Record| record.note("owner_epoch", owner.as_str().into());
                    commit.records.iter_mut().for_each(tell);
                    self.commit(change, commit);
                }
                _ => self.arm_later(id),
            }
        }
    }
}
