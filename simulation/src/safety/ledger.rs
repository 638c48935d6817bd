//! Everything that was ever ordered in a run, as a tree: an entry names the one before it.
//!
//! A log is its last entry, and so is a view. That one log holds all of another is then a question that can be asked,
//! also across foundings.

use gaggle_sched::electorate::founding::Position;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{Lineage, Revision, Txn};
use std::collections::BTreeSet;
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

/// Who votes: `before` during a joint stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters {
    pub now: BTreeSet<usize>,
    pub before: Option<BTreeSet<usize>>,
}

impl Voters {
    pub fn is_quorum(&self, there: impl Fn(usize) -> bool) -> bool {
        let more_than_half =
            |set: &BTreeSet<usize>| set.iter().filter(|n| there(**n)).count() * 2 > set.len();
        more_than_half(&self.now) && self.before.as_ref().is_none_or(more_than_half)
    }

    pub fn names(&self, node: usize) -> bool {
        self.now.contains(&node) || self.before.as_ref().is_some_and(|before| before.contains(&node))
    }

    pub fn all(&self) -> BTreeSet<usize> {
        self.now.iter().chain(self.before.iter().flatten()).copied().collect()
    }
}

#[derive(Clone, Debug)]
pub enum Content {
    Founding,
    /// A new leader's first entry.
    Blank,
    Voters(Rc<Voters>),
    Roster(Rc<Roster>),
    /// Something that a client, a controller or the scheduler writes.
    Write,
    /// The same, with its content.
    Txns(Rc<Vec<Txn>>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub before: Option<Id>,
    /// How many entries came before it, in all epochs.
    pub depth: u32,
    pub lineage: Rc<Lineage>,
    pub term: u64,
    /// As the state says that holds everything up to this entry.
    pub position: Position,
    pub voters: Rc<Voters>,
    pub roster: Rc<Roster>,
    pub roster_revision: Revision,
    pub what: Content,
    /// Committed, as some leader found.
    pub committed: bool,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// A bent rule: an entry that changes nothing does not make a log newer.
    only_changes_count: bool,
    entries: Vec<Entry>,
}

impl Ledger {
    pub fn new(only_changes_count: bool) -> Self {
        Self { only_changes_count, entries: Vec::new() }
    }

    /// What the next entry will be called.
    pub fn next(&self) -> Id {
        Id(u32::try_from(self.entries.len()).expect("a run is shorter than that"))
    }

    pub fn get(&self, id: Id) -> &Entry {
        &self.entries[id.0 as usize]
    }

    pub fn mark_committed(&mut self, id: Id) {
        self.entries[id.0 as usize].committed = true;
    }

    fn push(&mut self, entry: Entry) -> Id {
        let id = self.next();
        self.entries.push(entry);
        id
    }

    /// A group is founded with what `before` holds.
    pub fn found(&mut self, before: Option<Id>, lineage: Rc<Lineage>, founder: usize) -> Id {
        let known = before.map(|id| self.get(id).clone());
        let old = known.as_ref().map_or(Revision::default(), |known| known.position.revision);
        // As `Store::found` does.
        let revision = old.max(Revision::first_of(lineage.epoch)).next();
        let epoch = lineage.epoch;
        self.push(Entry {
            before,
            depth: known.as_ref().map_or(0, |known| known.depth + 1),
            lineage,
            term: 0,
            position: Position { epoch, term: 0, revision },
            voters: Rc::new(Voters { now: [founder].into(), before: None }),
            roster: known.as_ref().map(|known| known.roster.clone()).unwrap_or_default(),
            roster_revision: known.map_or(Revision::default(), |known| known.roster_revision),
            what: Content::Founding,
            committed: true,
        })
    }

    pub fn append(&mut self, head: Id, term: u64, what: Content) -> Id {
        let last = self.get(head).clone();
        let mut entry = Entry { before: Some(head), depth: last.depth + 1, term, committed: false, ..last };
        let changes = matches!(what, Content::Roster(_) | Content::Write | Content::Txns(_));
        if changes {
            entry.position.revision = entry.position.revision.next();
        }
        if changes || !self.only_changes_count {
            entry.position.term = term;
        }
        match &what {
            Content::Voters(voters) => entry.voters = voters.clone(),
            Content::Roster(roster) => {
                entry.roster = roster.clone();
                entry.roster_revision = entry.position.revision;
            }
            Content::Founding | Content::Blank | Content::Write | Content::Txns(_) => {}
        }
        entry.what = what;
        self.push(entry)
    }

    /// Whether `all` holds everything that `part` holds.
    pub fn holds(&self, all: Id, part: Id) -> bool {
        let depth = self.get(part).depth;
        let mut at = all;
        while self.get(at).depth > depth {
            match self.get(at).before {
                Some(before) => at = before,
                None => return false,
            }
        }
        at == part
    }

    /// The last entry up to this one that changed the state.
    pub fn last_change(&self, id: Id) -> Id {
        let changes = |entry: &Entry| !matches!(entry.what, Content::Blank | Content::Voters(_));
        self.back_from(id).find(|(_, entry)| changes(entry)).map_or(id, |(id, _)| id)
    }

    /// From this entry backwards.
    pub fn back_from(&self, id: Id) -> impl Iterator<Item = (Id, &Entry)> {
        std::iter::successors(Some(id), |id| self.get(*id).before).map(|id| (id, self.get(id)))
    }
}
