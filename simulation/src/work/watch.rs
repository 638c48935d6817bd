//! Clients that watch: one at every desktop, for ever, and one that goes from desktop to desktop with the revision that it
//! was shown last. What they know by watching is what the views hold.

use super::Bend;
use crate::random::Random;
use crate::safety::ledger::{Id, Ledger};
use crate::safety::world::{World, name};
use gaggle_sched::state::{Change, Expired, Key, Revision, Seen, Store};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of a thousand looks at a desktop, so many are the roaming client's.
const ROAMS_PERMILLE: u64 = 30;

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
        self.take(&changes)?;
        match store.revision() == self.seen.revision || (changes.is_empty() && before == store.revision()) {
            true => Ok(()),
            false => {
                Err(format!("the view is at {}, and its watch at {}", store.revision(), self.seen.revision))
            }
        }
    }

    /// What a client is told of changes, one after the other.
    fn take(&mut self, changes: &[Arc<Change>]) -> Result<(), String> {
        for change in changes {
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
        Ok(())
    }

    /// Whether everything that the view holds was told.
    fn is_whole(&self, store: &Store) -> bool {
        self.objects == list(store)
    }
}

/// A client with a revision and no desktop of its own. Wherever it asks, its revision is valid there, or it is told that it
/// is not (410) and lists again, or it is not known there yet and it waits.
pub struct Roamer {
    /// Numbers of its own: where it goes must not change what happens.
    random: Random,
    /// What it was told, and the entry up to which that goes, which it does not know.
    shown: Option<(Watch, Id)>,
}

impl Roamer {
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ 0x0a3e_11e7), shown: None }
    }

    /// Goes on at a desktop whose view holds what is up to `view`, from where it stood at another one, as `api::watch` and
    /// `api::read::still_valid` have it.
    ///
    /// # Errors
    /// Says what it would miss, see twice, or see go back.
    fn visit(&mut self, store: &Store, view: Id, ledger: &Ledger, believed: bool) -> Result<(), String> {
        let Some((mut watch, before)) = self.shown.take() else {
            self.shown = Some((Watch::new(store), view));
            return Ok(());
        };
        let seen = watch.seen.revision;
        if store.revision() < seen {
            self.shown = Some((watch, before));
            return Ok(());
        }
        let valid = believed || !store.has_lost(seen);
        if valid && !ledger.holds(view, before) {
            return Err(format!(
                "{seen} is valid at {}, which is without what was shown then",
                store.revision()
            ));
        }
        match store.changes_after(seen).ok().filter(|_| valid) {
            Some(changes) => watch.take(&changes)?,
            None => watch = Watch::new(store),
        }
        if !watch.is_whole(store) {
            return Err(format!("from {seen} to {}, and was not told everything", store.revision()));
        }
        self.shown = Some((watch, view));
        Ok(())
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
        self.roam(node);
    }

    fn roam(&mut self, node: usize) {
        if !self.work.roamer.random.permille(ROAMS_PERMILLE) {
            return;
        }
        let believed = self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::Believed);
        let view = self.machines[node].process.as_ref().and_then(|process| process.view);
        let (Some(life), Some(view)) = (&self.work.desks[node].life, view) else { return };
        let view = self.work.archive.last_seen(&self.ledger, view);
        if let Err(what) = self.work.roamer.visit(&life.store, view, &self.ledger, believed) {
            let what = format!("through {}: {what}", name(node));
            self.violated("who goes from desktop to desktop misses nothing", what);
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
