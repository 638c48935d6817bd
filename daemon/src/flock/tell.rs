//! What becomes of the group and its electorate, as Kubernetes Events about the desktops concerned: for whoever asks
//! afterwards.

use gaggle_gossip::PeerId;
use gaggle_sched::controller::{Note, node};
use gaggle_sched::state::{Key, Lineage, Resource, View};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// As events name it.
const SOURCE: &str = "electorate";
const NODES: Resource = Resource::fixed("nodes");
/// Names in one message; more are counted.
const NAMES_TOLD: usize = 8;

/// A group that this node has begun, and why. It is told once this node acts: before that nothing is ordered.
pub(super) struct Begun {
    pub of: Lineage,
    /// Of the event: one word.
    pub reason: &'static str,
    pub why: String,
    pub missing: BTreeSet<String>,
}

/// Where it is told. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tell {
    me: PeerId,
    view: View,
    notes: mpsc::Sender<Note>,
}

impl Tell {
    pub fn new(me: PeerId, view: View, notes: mpsc::Sender<Note>) -> Self {
        Self { me, view, notes }
    }

    pub fn begun(&self, begun: &Begun) {
        let names = self.names();
        let Some(me) = names.get(&self.me.to_string()) else { return };
        let missing = match begun.missing.len() {
            0 => String::new(),
            _ => format!("; missing: {}", listed(begun.missing.iter().map(|peer| name(&names, peer)))),
        };
        let Lineage { group, epoch } = &begun.of;
        let message = format!("{me} began epoch {epoch} of group {group}: {}{missing}", begun.why);
        self.note(Note::warning(&about(me), SOURCE, begun.reason, message));
    }

    /// The electorate is another one.
    pub fn voters(&self, before: &BTreeSet<String>, after: &BTreeSet<String>, why: &str) {
        let names = self.names();
        let why = names.iter().fold(why.to_owned(), |why, (peer, name)| why.replace(peer.as_str(), name));
        let message = format!(
            "{why}; now {} vote: {}",
            after.len(),
            listed(after.iter().map(|peer| name(&names, peer)))
        );
        for (changed, reason) in [(after - before, "VoterAdded"), (before - after, "VoterRemoved")] {
            for name in changed.iter().filter_map(|peer| names.get(peer)) {
                self.note(Note::normal(&about(name), SOURCE, reason, message.clone()));
            }
        }
    }

    /// Others belong than before. Told of the leader's Node: those that went may have none any more.
    pub fn roster(&self, why: &str) {
        if let Some(me) = self.names().get(&self.me.to_string()) {
            self.note(Note::normal(&about(me), SOURCE, "RosterChanged", why));
        }
    }

    /// Nodes by peer id.
    fn names(&self) -> BTreeMap<String, String> {
        self.view.read(|store| {
            let nodes = store.list(&NODES, None);
            nodes
                .filter_map(|(key, object)| Some((object.annotation(node::PEER)?.to_owned(), key.name)))
                .collect()
        })
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            tracing::debug!("a note is dropped: nobody takes them, or too many wait");
        }
    }
}

fn about(name: &str) -> Key {
    Key::new(NODES, "", name)
}

fn name<'a>(names: &'a BTreeMap<String, String>, peer: &'a str) -> &'a str {
    names.get(peer).map_or(peer, String::as_str)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMES_TOLD);
    names.truncate(NAMES_TOLD);
    let listed = names.join(", ");
    if more > 0 { format!("{listed} and {more} more") } else { listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::controller::NoteKind;
    use gaggle_sched::state::{Expect, Write};
    use serde_json::json;

    fn teller(names: &[(&str, &str)]) -> (Tell, mpsc::Receiver<Note>, PeerId) {
        let (me, view) = (PeerId::random(), View::default());
        let mine = me.to_string();
        for (peer, name) in names.iter().copied().chain([(mine.as_str(), "me")]) {
            let value = json!({"metadata": {"name": name, "annotations": {node::PEER: peer}}});
            let write = Write::Put { key: about(name), value, expect: Expect::Any, intent: None };
            view.write(|store| store.apply(&write.into())).unwrap();
        }
        let (notes, told) = mpsc::channel(64);
        (Tell::new(me, view, notes), told, me)
    }

    fn set(peers: &[&str]) -> BTreeSet<String> {
        peers.iter().map(|peer| (*peer).to_owned()).collect()
    }

    #[test]
    fn a_founding_says_who_which_epoch_why_and_who_was_missing() {
        let (tell, mut told, _) = teller(&[("p1", "ada"), ("p2", "bob")]);
        let of = Lineage { group: "g".into(), epoch: 4 };
        let (why, missing) = ("no leader is heard".to_owned(), set(&["p2", "p1", "p9"]));
        tell.begun(&Begun { of, reason: "GroupFoundedAnew", why, missing });
        let note = told.try_recv().unwrap();
        assert_eq!(
            (&*note.reason, note.kind, &*note.about.name),
            ("GroupFoundedAnew", NoteKind::Warning, "me")
        );
        assert_eq!(note.message, "me began epoch 4 of group g: no leader is heard; missing: ada, bob, p9");
    }

    #[test]
    fn who_got_and_who_lost_a_vote_is_told_by_name() {
        let (tell, mut told, me) = teller(&[("p1", "ada"), ("p2", "bob")]);
        let me = me.to_string();
        tell.voters(&set(&[&me, "p1"]), &set(&[&me, "p2"]), "p1 is dead: p2 votes in its place");
        let message = "ada is dead: bob votes in its place; now 2 vote: bob, me";
        for (name, reason) in [("bob", "VoterAdded"), ("ada", "VoterRemoved")] {
            let note = told.try_recv().unwrap();
            assert_eq!((&*note.about.name, &*note.reason, &*note.message), (name, reason, message));
        }
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn long_lists_are_cut_and_a_full_channel_holds_nobody_up() {
        assert_eq!(listed(["b", "a"].into_iter()), "a, b");
        let many: Vec<String> = (10..21).map(|number| format!("pc{number}")).collect();
        assert!(listed(many.iter().map(String::as_str)).ends_with("pc17 and 3 more"));
        let (tell, told, _) = teller(&[]);
        drop(told);
        tell.roster("3 desktops belong instead of 4");
    }
}
