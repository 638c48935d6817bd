//! How changes come into a document: in order, all of them or none, and in a form that it can be read back from.

use super::super::beginning;
use super::super::guard::caught;
use super::{Document, DocumentError, MAX_PENDING, MAX_PENDING_BYTES, automerge_error, heads_of};
use automerge::{Automerge, Change, ChangeHash};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::OnceLock;

/// How many bytes of changes a small document collects before it is written as a whole again; larger ones double.
const CHANGES_BYTES: usize = 4 * 1024;

impl Document {
    /// Merges changes, in any order and any number of times. True if the document is different afterwards. On an
    /// error the document may hold a part of them: drop it.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<bool, DocumentError> {
        let before = (self.heads(), self.pending.len());
        let incoming: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
        for change in changes {
            if !self.has(&change.hash()) {
                self.pending.insert(change.hash(), change);
            }
        }
        let ready = self.take_ready();
        if !ready.is_empty() {
            self.merge(ready, &incoming)?;
        }
        let waiting: usize = self.pending.values().map(|change| change.raw_bytes().len()).sum();
        if self.pending.len() > MAX_PENDING || waiting > MAX_PENDING_BYTES {
            return Err(DocumentError::TooManyPending);
        }
        Ok(before != (self.heads(), self.pending.len()))
    }

    /// Takes the changes whose dependencies are all there (or taken before them) out of those that wait, in order.
    fn take_ready(&mut self) -> Vec<Change> {
        let mut waits_for: BTreeMap<ChangeHash, usize> = BTreeMap::new();
        let mut waited_on: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
        let mut ready = VecDeque::new();
        for (hash, change) in &self.pending {
            let missing: BTreeSet<_> = change.deps().iter().filter(|dep| !self.has(dep)).collect();
            if missing.is_empty() {
                ready.push_back(*hash);
            }
            waits_for.insert(*hash, missing.len());
            for dep in missing {
                waited_on.entry(*dep).or_default().push(*hash);
            }
        }
        let mut taken = Vec::new();
        while let Some(hash) = ready.pop_front() {
            taken.extend(self.pending.remove(&hash));
            for waiting in waited_on.remove(&hash).unwrap_or_default() {
                if let Some(count) = waits_for.get_mut(&waiting) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push_back(waiting);
                    }
                }
            }
        }
        taken
    }

    /// Merges changes that are ready. One that automerge refuses is an error if it has just come; one that had been
    /// waiting is dropped, or it would stand in the way of all that follow.
    fn merge(&mut self, ready: Vec<Change>, incoming: &BTreeSet<ChangeHash>) -> Result<(), DocumentError> {
        let Err(error) = self.attempt(ready.clone()) else { return Ok(()) };
        if ready.iter().all(|change| incoming.contains(&change.hash())) {
            return Err(error);
        }
        for change in ready {
            let hash = change.hash();
            if change.deps().iter().all(|dep| self.has(dep))
                && let Err(error) = self.attempt(vec![change])
                && incoming.contains(&hash)
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Merges all of these or none. A change that automerge takes may still be one that it cannot give out again, and
    /// whoever had it would never be of one mind with others: such a one is refused.
    fn attempt(&mut self, changes: Vec<Change>) -> Result<(), DocumentError> {
        if let ([first], true) = (&*changes, self.is_empty())
            && caught(|| beginning::is_one(first)).unwrap_or_default()
        {
            (self.heads, self.saved) = (vec![first.hash().0], first.raw_bytes().to_vec());
            self.doc = OnceLock::new();
        } else {
            self.merge_unpacked(&changes)?;
        }
        if self.saved.len() > self.whole_bytes + self.whole_bytes.max(CHANGES_BYTES) {
            self.save_whole();
        }
        Ok(())
    }

    fn merge_unpacked(&mut self, changes: &[Change]) -> Result<(), DocumentError> {
        let mut doc = self.doc().clone();
        let merged = caught(|| {
            doc.apply_changes(changes.iter().cloned())?;
            // All at once: each look goes through the operations of the whole document.
            let before: Vec<ChangeHash> = self.heads.iter().map(|head| ChangeHash(*head)).collect();
            let out = doc.get_changes(&before);
            let out: BTreeMap<ChangeHash, &[u8]> =
                out.iter().map(|change| (change.hash(), change.raw_bytes())).collect();
            Ok(changes.iter().all(|change| out.get(&change.hash()) == Some(&change.raw_bytes())))
        });
        if !merged.unwrap_or(Err(automerge::AutomergeError::Fail)).map_err(automerge_error)? {
            return Err(DocumentError::Unreadable);
        }
        changes.iter().for_each(|change| self.saved.extend_from_slice(change.raw_bytes()));
        (self.heads, self.doc) = (heads_of(&doc), doc.into());
        Ok(())
    }

    /// Writes the document as a whole, which is smaller than its changes, and reads it back. Where that does not succeed, it
    /// stays in the form that it is known to be readable in.
    fn save_whole(&mut self) {
        let read_back = caught(|| {
            let saved = self.doc().save();
            Automerge::load(&saved).map(|doc| (saved, doc))
        });
        match read_back {
            Some(Ok((saved, doc))) if heads_of(&doc) == self.heads => {
                (self.saved, self.doc) = (saved, doc.into());
            }
            _ => tracing::warn!(
                bytes = self.saved.len(),
                "a document cannot be written as a whole: its changes are kept"
            ),
        }
        self.whole_bytes = self.saved.len();
    }
}

/// How much of what a document is read back from was written as a whole: its first chunk, if that is no change.
///
/// Source: the Automerge binary format specification, "Chunk header": four bytes of magic, four of checksum, the type, and
/// the length as an unsigned LEB128.
pub(super) fn whole_bytes(saved: &[u8]) -> usize {
    const TYPE_AT: usize = 8;
    const DOCUMENT: u8 = 0;
    let Some((&DOCUMENT, rest)) = saved.get(TYPE_AT..).and_then(<[u8]>::split_first) else { return 0 };
    let bytes = rest.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    let length = rest[..bytes]
        .iter()
        .rev()
        .fold(0usize, |length, byte| length.saturating_mul(0x80).saturating_add(usize::from(byte & 0x7f)));
    (TYPE_AT + 1 + bytes).saturating_add(length).min(saved.len())
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{deployment, with};
    use super::super::super::schema::KubernetesLists;
    use super::super::super::vet;
    use super::super::Target;
    use super::*;
    use serde_json::json;

    /// As one that has few edits, and is read anew for each.
    #[test]
    fn a_document_that_is_read_back_before_each_edit_stays_small() {
        let mut document = Document::new(1);
        for replicas in 0..200 {
            let edit = with(&deployment(), "/spec/replicas", json!(replicas));
            let prepared = document.prepare("a", Target::Object(&edit), &KubernetesLists).unwrap();
            document.apply(vec![vet::change(&prepared.change.unwrap()).unwrap()]).unwrap();
            assert_eq!(document.heads(), prepared.heads);
            let none: &[&[u8]] = &[];
            let read_back = Document::load(1, document.saved(), none).unwrap();
            assert_eq!(read_back.heads(), document.heads());
            assert_eq!(read_back.value(&KubernetesLists).unwrap()["spec"]["replicas"], json!(replicas));
            document = read_back;
            let whole = document.doc().save().len();
            let saved = document.saved().len();
            assert!(saved <= 2 * whole.max(CHANGES_BYTES), "{saved} bytes where {whole} would do");
        }
        assert!(document.whole_bytes > 0 && document.whole_bytes < document.saved().len());
    }
}
