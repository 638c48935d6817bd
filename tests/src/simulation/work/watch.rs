//! A client that watches a desktop's view for ever: what it knows by watching is what the view holds.

use crate::simulation::safety::world::{World, name};
use gaggle_sched::state::{Expired, Key, Revision, Seen, Store};
use std::collections::BTreeMap;

/// What the watch has told so far.
pub struct Watch {
    seen: Seen,
    objects: BTreeMap<Key, Revision>,
    /// The group of the list that the watch began with.
    group: Option<String>,
    highest: Revision,
}

impl Watch {
    pub fn new(store: &Store) -> Self {
        Self { seen: store.seen(), objects: list(store), group: group_of(store), highest: store.revision() }
    }

    /// Takes in what changed.
    ///
    /// # Errors
    /// Says what a client would miss, see twice, or see go back.
    fn advance(&mut self, store: &Store) -> Result<(), String> {
        let before = self.seen.revision;
        let changes = match store.changes_since(self.seen) {
            Ok(changes) => changes,
            Err(Expired { .. }) => {
                let went_back = group_of(store) == self.group && store.revision() < self.highest;
                let highest = self.highest;
                *self = Self::new(store);
                return match went_back {
                    true => Err(format!("a list goes back from {highest} to {}", self.highest)),
                    false => Ok(()),
                };
            }
        };
        for change in &changes {
            let known = self.objects.get(&change.key).copied();
            let previous = change.previous.as_ref().map(|object| object.revision());
            if change.revision <= self.seen.revision || known != previous {
                return Err(format!(
                    "{} at {} follows {previous:?}; the watch had told {known:?}, and was at {}",
                    change.key, change.revision, self.seen.revision
                ));
            }
            self.seen.revision = change.revision;
            match &change.object {
                Some(object) => drop(self.objects.insert(change.key.clone(), object.revision())),
                None => drop(self.objects.remove(&change.key)),
            }
        }
        self.highest = self.seen.revision;
        match store.revision() == self.seen.revision || (changes.is_empty() && before == store.revision()) {
            true => Ok(()),
            false => {
                Err(format!("the view is at {}, and its watch at {}", store.revision(), self.seen.revision))
            }
        }
    }

    /// Whether everything that the view holds was told.
    fn is_whole(&self, store: &Store) -> bool {
        self.objects == list(store)
    }
}

fn list(store: &Store) -> BTreeMap<Key, Revision> {
    let resources: Vec<_> = store.resources().cloned().collect();
    let all = resources.iter().flat_map(|resource| store.list(resource, None));
    all.map(|(key, object)| (key, object.revision())).collect()
}

fn group_of(store: &Store) -> Option<String> {
    store.lineage().map(|lineage| lineage.group.clone())
}

impl World<'_> {
    pub fn tick_watch(&mut self, node: usize) {
        let life = self.work.life(node);
        if let Err(what) = life.watch.advance(&life.store) {
            let what = format!("{}: {what}", name(node));
            self.violated("a view never goes back, and a watch of it misses nothing", what);
        }
    }

    pub fn check_watch(&mut self, node: usize) {
        let Some(life) = &self.work.desks[node].life else { return };
        if !life.watch.is_whole(&life.store) {
            let what = format!("{}: the watch has not told what the view holds", name(node));
            self.violated("a view never goes back, and a watch of it misses nothing", what);
        }
    }
}
