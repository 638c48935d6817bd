//! The roll of members: made from what gossip holds, with what is expensive to read kept from last time.
//!
//! Pure: time is an argument. Must never know chitchat's types: it gets sightings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use libp2p::PeerId;

use super::Member;
use super::facts::{decode, decode_addresses};

/// Members on the roll. Gossip's own messages carry about six hundred nodes.
const MOST_MEMBERS: usize = 1024;

/// A value as gossip holds it. The version tells whether it has to be read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    pub(super) version: u64,
    pub(super) text: &'a str,
}

/// One run of one node, as gossip knows it at present.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting<'a> {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    pub(super) alive: bool,
    pub(super) node: Option<Value<'a>>,
    pub(super) group: Option<Value<'a>>,
    pub(super) images: Option<Value<'a>>,
    pub(super) addresses: Option<Value<'a>>,
}

/// What an update brought.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) changed: bool,
    /// Addresses that a member newly says it listens on.
    pub(super) addresses: Vec<(PeerId, Vec<SocketAddr>)>,
}

struct Line {
    member: Member,
    /// Versions of the values that the member was read from: node, group, images, addresses.
    read: [Option<u64>; 4],
}

/// Everybody that gossip knows, one line each.
#[derive(Default)]
pub(super) struct Roll(BTreeMap<PeerId, Line>);

impl Roll {
    /// Takes in what gossip holds now. Who is not in it any more is dropped.
    pub(super) fn update<'a>(
        &mut self,
        sightings: impl Iterator<Item = Sighting<'a>>,
        connected: &BTreeSet<PeerId>,
        now: Instant,
    ) -> Update {
        let mut newest: BTreeMap<PeerId, Sighting<'a>> = BTreeMap::new();
        for sighting in sightings {
            let known = newest.entry(sighting.peer).or_insert(sighting);
            if known.generation < sighting.generation {
                *known = sighting;
            }
        }
        let mut update = Update::default();
        let before = self.0.len();
        self.0.retain(|peer, _| newest.contains_key(peer));
        update.changed |= self.0.len() != before;
        for (peer, sighting) in newest {
            if !self.0.contains_key(&peer) {
                if self.0.len() >= MOST_MEMBERS {
                    continue;
                }
                self.0.insert(peer, Line::new(&sighting, now));
                update.changed = true;
            }
            if let Some(line) = self.0.get_mut(&peer) {
                line.update(&sighting, connected.contains(&peer), now, &mut update);
            }
        }
        update
    }

    /// The lines, sorted by peer id.
    pub(super) fn members(&self) -> Vec<Member> {
        self.0.values().map(|line| line.member.clone()).collect()
    }

    pub(super) fn is_alive(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|line| line.member.alive)
    }

    pub(super) fn generation(&self, peer: &PeerId) -> Option<u64> {
        self.0.get(peer).map(|line| line.member.generation)
    }
}

impl Line {
    fn new(sighting: &Sighting<'_>, now: Instant) -> Self {
        let member = Member {
            peer: sighting.peer,
            generation: sighting.generation,
            alive: sighting.alive,
            connected: false,
            node: None,
            group: None,
            images: Arc::default(),
            since: now,
        };
        Self { member, read: [None; 4] }
    }

    fn update(&mut self, sighting: &Sighting<'_>, connected: bool, now: Instant, update: &mut Update) {
        let member = &mut self.member;
        if member.generation != sighting.generation {
            // A new run of the node says everything anew; versions of different runs cannot be compared.
            member.generation = sighting.generation;
            (member.node, member.group, member.images) = (None, None, Arc::default());
            self.read = [None; 4];
            update.changed = true;
        }
        if member.alive != sighting.alive {
            member.alive = sighting.alive;
            member.since = now;
            update.changed = true;
        }
        if member.connected != connected {
            member.connected = connected;
            update.changed = true;
        }
        let [node, group, images, addresses] = &mut self.read;
        if let Some(value) = fresh(node, sighting.node) {
            member.node = keep(decode(value), member.node.take());
            update.changed = true;
        }
        if let Some(value) = fresh(group, sighting.group) {
            member.group = keep(decode(value), member.group.take());
            update.changed = true;
        }
        if let Some(value) = fresh(images, sighting.images) {
            member.images = Arc::new(decode(value).unwrap_or_default());
            update.changed = true;
        }
        if let Some(value) = fresh(addresses, sighting.addresses) {
            update.addresses.push((member.peer, decode_addresses(value)));
        }
    }
}

/// The text of a value that has not been read yet.
fn fresh<'a>(read: &mut Option<u64>, value: Option<Value<'a>>) -> Option<&'a str> {
    let value = value.filter(|value| *read != Some(value.version))?;
    *read = Some(value.version);
    Some(value.text)
}

/// What makes no sense changes nothing.
fn keep<T>(read: Option<T>, before: Option<T>) -> Option<T> {
    if read.is_none() {
        tracing::trace!("a gossiped fact makes no sense and is ignored");
    }
    read.or(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(peer: PeerId, generation: u64, alive: bool) -> Sighting<'static> {
        Sighting { peer, generation, alive, node: None, group: None, images: None, addresses: None }
    }

    fn value(version: u64, text: &str) -> Option<Value<'_>> {
        Some(Value { version, text })
    }

    #[test]
    fn only_the_newest_run_of_a_node_counts() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let old = Sighting { node: value(9, r#"{"name":"old"}"#), ..sighting(peer, 1, true) };
        let new = Sighting { node: value(2, r#"{"name":"new"}"#), ..sighting(peer, 2, false) };
        for order in [[old, new], [new, old]] {
            roll.update(order.into_iter(), &BTreeSet::new(), now);
            let members = roll.members();
            assert_eq!((members.len(), members[0].generation, members[0].alive), (1, 2, false));
            assert_eq!(members[0].node.as_ref().unwrap().name, "new");
        }
    }

    #[test]
    fn nonsense_leaves_what_was_known_and_nothing_new_is_no_change() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let good = Sighting { node: value(1, r#"{"name":"lab"}"#), ..sighting(peer, 1, true) };
        assert!(roll.update([good].into_iter(), &BTreeSet::new(), now).changed);
        assert!(!roll.update([good].into_iter(), &BTreeSet::new(), now).changed);
        let bad = Sighting { node: value(2, "{"), ..good };
        roll.update([bad].into_iter(), &BTreeSet::new(), now);
        assert_eq!(roll.members()[0].node.as_ref().unwrap().name, "lab");
    }

    #[test]
    fn since_moves_with_life_and_death_alone() {
        let (peer, start, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let at = |seconds| start + std::time::Duration::from_secs(seconds);
        roll.update([sighting(peer, 1, true)].into_iter(), &BTreeSet::new(), start);
        roll.update([sighting(peer, 1, true)].into_iter(), &BTreeSet::from([peer]), at(1));
        assert_eq!((roll.members()[0].connected, roll.members()[0].since), (true, start));
        roll.update([sighting(peer, 1, false)].into_iter(), &BTreeSet::new(), at(2));
        assert_eq!((roll.members()[0].alive, roll.members()[0].since), (false, at(2)));
        assert!(roll.update([].into_iter(), &BTreeSet::new(), at(3)).changed);
        assert!(roll.members().is_empty());
    }

    #[test]
    fn addresses_are_told_once_and_the_roll_is_bounded() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let told = Sighting { addresses: value(1, r#"["10.0.0.1:7"]"#), ..sighting(peer, 1, true) };
        let update = roll.update([told].into_iter(), &BTreeSet::new(), now);
        assert_eq!(update.addresses, vec![(peer, vec!["10.0.0.1:7".parse().unwrap()])]);
        let crowd: Vec<PeerId> = (0..2 * MOST_MEMBERS).map(|_| PeerId::random()).collect();
        let crowd = crowd.iter().map(|peer| sighting(*peer, 1, true)).chain([told]);
        assert!(roll.update(crowd, &BTreeSet::new(), now).addresses.is_empty());
        assert_eq!(roll.members().len(), MOST_MEMBERS);
    }
}
