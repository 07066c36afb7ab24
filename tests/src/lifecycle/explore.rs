//! Breadth first through every world there is, each met once.
//!
//! Owns the set of worlds met and the shortest way to one that is wrong. Must never forget a world before all that can
//! happen in it did; where it stops early, it says so.

use super::world::{Action, Rules, World};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::hash::{Hash as _, Hasher};

/// Worlds a thread takes at once.
const CHUNK: usize = 256;

/// What an exploration saw.
#[derive(Debug)]
pub struct Explored {
    /// Different worlds.
    pub worlds: usize,
    /// Things that happened in them and made a difference.
    pub steps: u64,
    /// How many things happen on the shortest way to the farthest world.
    pub depth: usize,
    /// Whether nothing new was left.
    pub whole: bool,
    /// The shortest way to something wrong, and what.
    pub wrong: Option<(Vec<Action>, String)>,
}

/// How a world was first reached.
#[derive(Clone, Copy)]
struct Step {
    parent: usize,
    action: Action,
}

/// The bytes that a value would be hashed by.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Half a digest: among millions of worlds no two share it.
fn fingerprint(world: &World) -> u128 {
    let mut bytes = Bytes::default();
    world.hash(&mut bytes);
    let digest: [u8; 32] = Sha256::digest(&bytes.0).into();
    digest.iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte))
}

/// What one world leads to.
struct Next {
    parent: usize,
    action: Action,
    world: World,
    fingerprint: u128,
}

/// Where some worlds lead; or the first of them that is wrong, and how.
fn follow(rules: &Rules, at: &[(usize, World)]) -> Result<Vec<Next>, (usize, String)> {
    let mut all = Vec::new();
    let mut actions = Vec::new();
    for (parent, world) in at {
        let wrong = world.wrong.clone().or_else(|| world.guarantee(rules).err());
        if let Some(wrong) = wrong {
            return Err((*parent, wrong));
        }
        actions.clear();
        world.actions(rules, &mut actions);
        for &action in &actions {
            let Some(world) = world.next(rules, action) else { continue };
            all.push(Next { parent: *parent, action, fingerprint: fingerprint(&world), world });
        }
    }
    Ok(all)
}

/// Explores until nothing is new, something is wrong, or `depth` things have happened.
///
/// # Panics
/// When a thread does.
#[must_use]
pub fn explore(rules: &Rules, depth: usize) -> Explored {
    let first = World::first(rules);
    let mut met: HashSet<u128> = HashSet::from([fingerprint(&first)]);
    let mut ways = vec![Step { parent: usize::MAX, action: Action::Wait }];
    let mut frontier = vec![(0, first)];
    let mut seen = Explored { worlds: 1, steps: 0, depth: 0, whole: false, wrong: None };
    while !frontier.is_empty() && seen.depth < depth {
        seen.depth += 1;
        let mut ahead = Vec::new();
        for pair in frontier.chunks(2 * CHUNK) {
            let (left, right) = pair.split_at(pair.len() / 2);
            let found = std::thread::scope(|scope| {
                let other = scope.spawn(|| follow(rules, right));
                [follow(rules, left), other.join().expect("it says why itself")]
            });
            for found in found {
                let found = match found {
                    Ok(found) => found,
                    Err((at, wrong)) => {
                        seen.worlds = ways.len();
                        seen.wrong = Some((way(&ways, at), wrong));
                        return seen;
                    }
                };
                seen.steps += found.len() as u64;
                for next in found {
                    if met.insert(next.fingerprint) {
                        ways.push(Step { parent: next.parent, action: next.action });
                        ahead.push((ways.len() - 1, next.world));
                    }
                }
            }
        }
        frontier = ahead;
    }
    (seen.worlds, seen.whole) = (ways.len(), frontier.is_empty());
    seen
}

/// The actions that lead to a world.
fn way(ways: &[Step], mut at: usize) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(step) = ways.get(at).filter(|step| step.parent != usize::MAX) {
        actions.push(step.action);
        at = step.parent;
    }
    actions.reverse();
    actions
}

/// The way told: what happened and where the session was after it.
#[must_use]
pub fn told(rules: &Rules, way: &[Action]) -> String {
    let mut world = World::first(rules);
    let mut lines = Vec::new();
    for &action in way {
        let Some(next) = world.next(rules, action) else { break };
        world = next;
        lines.push(format!("{action:?}\n    {} {:?}", world.session.place(), world.mail));
    }
    lines.join("\n")
}
