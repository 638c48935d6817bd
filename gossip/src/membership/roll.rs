//! The roll of members: made from what gossip holds, with what is expensive to read kept from last time.
//!
//! Pure: time is an argument. Must never know chitchat's types: it gets sightings. Whoever was evicted is not on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::Member;
use super::detector::{Beat, Detector};
use super::facts::{decode, decode_addresses};

/// Members on the roll. Gossip's own messages carry about eleven hundred nodes.
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
    pub(super) heartbeat: u64,
    pub(super) node: Option<Value<'a>>,
    pub(super) group: Option<Value<'a>>,
    pub(super) images: Option<Value<'a>>,
    pub(super) addresses: Option<Value<'a>>,
}

/// How this node looks at the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) now: Instant,
    /// The most that counts of the time since the last look.
    pub(super) step: Duration,
    /// Silence after which a connected node is dead.
    pub(super) patience: Duration,
    /// Oneself: alive and connected whatever gossip says.
    pub(super) local: PeerId,
    pub(super) connected: &'a BTreeSet<PeerId>,
    /// Peers that were removed for good.
    pub(super) refused: &'a BTreeSet<PeerId>,
}

/// What an update brought.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) changed: bool,
    /// Who died, or came to life (again).
    pub(super) turned: Vec<(PeerId, bool)>,
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
pub(super) struct Roll {
    lines: BTreeMap<PeerId, Line>,
    detector: Detector,
}

impl Roll {
    /// Takes in what gossip holds now. Who is not in it any more is dropped.
    pub(super) fn update<'a>(
        &mut self,
        sightings: impl Iterator<Item = Sighting<'a>>,
        look: &Look<'_>,
    ) -> Update {
        let mut newest: BTreeMap<PeerId, Sighting<'a>> = BTreeMap::new();
        for sighting in sightings.filter(|sighting| !look.refused.contains(&sighting.peer)) {
            let known = newest.entry(sighting.peer).or_insert(sighting);
            if known.generation < sighting.generation {
                *known = sighting;
            }
        }
        let mut update = Update::default();
        let before = self.lines.len();
        self.lines.retain(|peer, _| newest.contains_key(peer));
        self.detector.retain(|peer| newest.contains_key(peer));
        self.detector.look(look.now, look.step);
        update.changed |= self.lines.len() != before;
        for (peer, sighting) in newest {
            if !self.lines.contains_key(&peer) {
                if self.lines.len() >= MOST_MEMBERS {
                    continue;
                }
                self.lines.insert(peer, Line::new(&sighting, look.now));
                update.changed = true;
            }
            let own = peer == look.local;
            let connected = own || look.connected.contains(&peer);
            let Sighting { generation, heartbeat, .. } = sighting;
            let beat = Beat { peer, generation, heartbeat, connected };
            let alive = own || self.detector.judge(beat, look.patience);
            if let Some(line) = self.lines.get_mut(&peer) {
                line.update(&sighting, alive, connected, look.now, &mut update);
            }
        }
        update
    }

    /// The lines, sorted by peer id.
    pub(super) fn members(&self) -> Vec<Member> {
        self.lines.values().map(|line| line.member.clone()).collect()
    }

    pub(super) fn generation(&self, peer: &PeerId) -> Option<u64> {
        self.lines.get(peer).map(|line| line.member.generation)
    }
}

impl Line {
    fn new(sighting: &Sighting<'_>, now: Instant) -> Self {
        let member = Member {
            peer: sighting.peer,
            generation: sighting.generation,
            alive: false,
            connected: false,
            node: None,
            group: None,
            images: Arc::default(),
            since: now,
        };
        Self { member, read: [None; 4] }
    }

    fn update(
        &mut self,
        sighting: &Sighting<'_>,
        alive: bool,
        connected: bool,
        now: Instant,
        update: &mut Update,
    ) {
        let member = &mut self.member;
        if member.generation != sighting.generation {
            // A new run of the node says everything anew; versions of different runs cannot be compared.
            member.generation = sighting.generation;
            (member.node, member.group, member.images) = (None, None, Arc::default());
            self.read = [None; 4];
            update.changed = true;
        }
        if member.alive != alive {
            member.alive = alive;
            member.since = now;
            update.turned.push((member.peer, alive));
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

    const NOBODY: &BTreeSet<PeerId> = &BTreeSet::new();

    fn sighting(peer: PeerId, generation: u64, heartbeat: u64) -> Sighting<'static> {
        Sighting { peer, generation, heartbeat, node: None, group: None, images: None, addresses: None }
    }

    fn value(version: u64, text: &str) -> Option<Value<'_>> {
        Some(Value { version, text })
    }

    fn look(connected: &BTreeSet<PeerId>, now: Instant) -> Look<'_> {
        let (step, patience) = (Duration::from_secs(3600), Duration::from_secs(2));
        Look { now, step, patience, local: PeerId::random(), connected, refused: NOBODY }
    }

    #[test]
    fn only_the_newest_run_of_a_node_counts() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let old = Sighting { node: value(9, r#"{"name":"old"}"#), ..sighting(peer, 1, 7) };
        let new = Sighting { node: value(2, r#"{"name":"new"}"#), ..sighting(peer, 2, 1) };
        for order in [[old, new], [new, old]] {
            roll.update(order.into_iter(), &look(NOBODY, now));
            let members = roll.members();
            assert_eq!((members.len(), members[0].generation, members[0].alive), (1, 2, false));
            assert_eq!(members[0].node.as_ref().unwrap().name, "new");
        }
    }

    #[test]
    fn nonsense_leaves_what_was_known_and_nothing_new_is_no_change() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let good = Sighting { node: value(1, r#"{"name":"lab"}"#), ..sighting(peer, 1, 1) };
        assert!(roll.update([good].into_iter(), &look(NOBODY, now)).changed);
        assert!(!roll.update([good].into_iter(), &look(NOBODY, now)).changed);
        let bad = Sighting { node: value(2, "{"), ..good };
        roll.update([bad].into_iter(), &look(NOBODY, now));
        assert_eq!(roll.members()[0].node.as_ref().unwrap().name, "lab");
    }

    #[test]
    fn since_moves_with_life_and_death_alone() {
        let (peer, start, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let connected = BTreeSet::from([peer]);
        roll.update([sighting(peer, 1, 1)].into_iter(), &look(&connected, start));
        assert_eq!((roll.members()[0].connected, roll.members()[0].since), (true, start));
        roll.update([sighting(peer, 1, 2)].into_iter(), &look(NOBODY, at(1)));
        let member = roll.members().remove(0);
        assert_eq!((member.alive, member.connected, member.since), (true, false, start));
        roll.update([sighting(peer, 1, 2)].into_iter(), &look(NOBODY, at(5)));
        assert_eq!((roll.members()[0].alive, roll.members()[0].since), (false, at(5)));
        assert!(roll.update([].into_iter(), &look(NOBODY, at(6))).changed);
        assert!(roll.members().is_empty());
    }

    #[test]
    fn oneself_is_alive_whatever_gossip_says_and_the_evicted_are_not_there() {
        let (me, evicted, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut roll = Roll::default();
        let both = || [sighting(me, 1, 1), sighting(evicted, 1, 1)].into_iter();
        let connected = BTreeSet::from([evicted]);
        let before = Look { local: me, ..look(&connected, now) };
        roll.update(both(), &before);
        assert!(roll.members().iter().all(|member| member.alive && member.connected));
        let refused = BTreeSet::from([evicted]);
        let update = roll.update(both(), &Look { refused: &refused, ..before });
        let members = roll.members();
        assert_eq!((update.changed, members.len(), members[0].peer), (true, 1, me));
    }

    #[test]
    fn addresses_are_told_once_and_the_roll_is_bounded() {
        let (peer, now, mut roll) = (PeerId::random(), Instant::now(), Roll::default());
        let told = Sighting { addresses: value(1, r#"["10.0.0.1:7"]"#), ..sighting(peer, 1, 1) };
        let update = roll.update([told].into_iter(), &look(NOBODY, now));
        assert_eq!(update.addresses, vec![(peer, vec!["10.0.0.1:7".parse().unwrap()])]);
        let crowd: Vec<PeerId> = (0..2 * MOST_MEMBERS).map(|_| PeerId::random()).collect();
        let crowd = crowd.iter().map(|peer| sighting(*peer, 1, 1)).chain([told]);
        assert!(roll.update(crowd, &look(NOBODY, now)).addresses.is_empty());
        assert_eq!(roll.members().len(), MOST_MEMBERS);
    }
}
