//! Who should be on the roster, and the write that brings it there.

use gaggle_sched::controller::node;
use gaggle_sched::electorate::presence::Leases;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{Expect, Resource, Revision, Store, Txn, Write};
use std::collections::BTreeSet;

/// A change of the roster that is due.
pub(super) struct Step {
    pub txn: Txn,
    pub why: String,
}

/// The next step towards the nodes that belong: those with a Node object that are not leaving (peer ids in `leaving`)
/// and were not removed for good. `None` also while the leader with these leases could not act by the new roster.
pub(super) fn step(store: &Store, leaving: &BTreeSet<String>, leases: &Leases, now_ms: u64) -> Option<Step> {
    let found = Roster::of(store);
    let expect = found.as_ref().map_or(Expect::Absent, |(_, revision)| Expect::Revision(*revision));
    let (roster, revision) = found.unwrap_or((Roster::default(), Revision::default()));
    let nodes = store.list(&Resource::fixed("nodes"), None);
    let peers = nodes.filter_map(|(_, object)| object.annotation(node::PEER).map(str::to_owned));
    let mut wanted: BTreeSet<String> = peers.collect();
    wanted.retain(|peer| !leaving.contains(peer) && !roster.evicted.contains_key(peer));
    if wanted.is_empty() {
        // The last one to leave keeps what there is.
        wanted = roster.members.clone();
    }
    let next = roster.next(&wanted, |peer| leases.noted(peer, revision))?;
    if !next.has_majority(|peer| leases.holds(peer, now_ms)) {
        return None;
    }
    let why = match &next.before {
        Some(before) => format!("{} desktops belong instead of {}", next.members.len(), before.len()),
        None => format!("{} desktops belong, and enough know it", next.members.len()),
    };
    let write = Write::Put { key: Roster::key(), value: next.object(), expect, intent: None };
    Some(Step { txn: write.into(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::state::{Key, Lineage};
    use serde_json::json;

    fn store(peers: &[&str]) -> Store {
        let mut store = Store::default();
        store.found(Lineage { group: "g".into(), epoch: 1 });
        for peer in peers {
            let value = json!({"metadata": {"name": peer, "annotations": {"gaggle.dev/peer": peer}}});
            let key = Key::new(Resource::fixed("nodes"), "", *peer);
            store.apply(&Write::Put { key, value, expect: Expect::Any, intent: None }.into()).unwrap();
        }
        store
    }

    fn leases(peers: &[&str], noted: Revision) -> Leases {
        let mut leases = Leases::default();
        for peer in peers {
            leases.granted(peer, 0, noted);
        }
        leases
    }

    /// Takes the step; the members and the members before.
    fn take(store: &mut Store, leaving: &[&str], leases: &Leases) -> Option<(String, String)> {
        let leaving = leaving.iter().map(|peer| peer.to_string()).collect();
        let step = step(store, &leaving, leases, 10)?;
        store.apply(&step.txn).unwrap();
        let (roster, _) = Roster::of(store).unwrap();
        let joined = |set: &BTreeSet<String>| set.iter().cloned().collect::<String>();
        Some((joined(&roster.members), roster.before.as_ref().map(joined).unwrap_or_default()))
    }

    fn now(store: &Store) -> Revision {
        Roster::of(store).map_or(Revision::default(), |(_, revision)| revision)
    }

    #[test]
    fn it_follows_the_nodes_through_joint_stages_and_never_beyond_what_the_leader_holds() {
        let mut flock = store(&["a"]);
        assert_eq!(take(&mut flock, &[], &leases(&["a"], Revision(0))), Some(("a".into(), String::new())));
        assert_eq!(take(&mut flock, &[], &leases(&["a"], Revision(0))), None);
        for peer in ["b", "c"] {
            let value = json!({"metadata": {"annotations": {"gaggle.dev/peer": peer}}});
            let key = Key::new(Resource::fixed("nodes"), "", peer);
            flock.apply(&Write::Put { key, value, expect: Expect::Any, intent: None }.into()).unwrap();
        }
        let alone = leases(&["a"], now(&flock));
        assert_eq!(take(&mut flock, &[], &alone), None, "one of three: it would cut itself off");
        let two = leases(&["a", "b"], now(&flock));
        assert_eq!(take(&mut flock, &[], &two), Some(("abc".into(), "a".into())));
        assert_eq!(take(&mut flock, &[], &two), None, "nobody has noted it yet");
        let noted = leases(&["a", "b"], now(&flock));
        assert_eq!(take(&mut flock, &[], &noted), Some(("abc".into(), String::new())));

        let noted = leases(&["a", "b", "c"], now(&flock));
        assert_eq!(take(&mut flock, &["c"], &noted), Some(("ab".into(), "abc".into())), "leaving takes away");
        let noted = leases(&["a", "b", "c"], now(&flock));
        assert_eq!(take(&mut flock, &["c"], &noted), Some(("ab".into(), String::new())));
        let noted = leases(&["a", "b"], now(&flock));
        assert_eq!(take(&mut flock, &["a", "b", "c"], &noted), None, "somebody has to keep it");
    }

    #[test]
    fn who_was_removed_for_good_does_not_come_back_with_its_node() {
        let mut flock = store(&["a", "b"]);
        let roster = Roster { members: ["a".to_owned()].into(), ..Roster::default() }.evicting("b", "bob");
        let write =
            Write::Put { key: Roster::key(), value: roster.object(), expect: Expect::Absent, intent: None };
        flock.apply(&write.into()).unwrap();
        let both = leases(&["a", "b"], now(&flock));
        assert_eq!(take(&mut flock, &[], &both), None);
    }
}
