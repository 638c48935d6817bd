//! What is known of every key without opening its document, and the hashes that two nodes compare. Pure.
//!
//! Keys fall into [`BUCKETS`] by hash. A bucket's hash is over its keys, incarnations and heads; the root is over
//! the buckets' hashes. Keys whose first change has not come yet are as if absent.

use super::state::Standing;
use super::store::Summary;
use super::{DocKey, Heads};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

pub const BUCKETS: usize = 256;

/// How many changes back it can be said what changed; who asks for more looks at everything.
const JOURNAL: usize = 8192;

pub type Hash = [u8; 32];

#[derive(Default)]
struct Bucket {
    documents: BTreeMap<DocKey, Summary>,
    /// `None` after a change, until it is asked for.
    hash: Option<Hash>,
}

pub struct Index {
    buckets: Vec<Bucket>,
    documents: usize,
    /// What was changed last, oldest first.
    journal: VecDeque<DocKey>,
    /// How many changes there have been.
    changes: u64,
}

impl Index {
    pub fn new(summaries: Vec<(DocKey, Summary)>) -> Self {
        let mut buckets = Vec::new();
        buckets.resize_with(BUCKETS, Bucket::default);
        let mut index = Self { buckets, documents: 0, journal: VecDeque::new(), changes: 0 };
        for (key, summary) in summaries {
            index.set(key, Some(summary));
        }
        index
    }

    /// How many keys there are, dead ones too.
    pub fn len(&self) -> usize {
        self.documents
    }

    pub fn get(&self, key: &str) -> Option<&Summary> {
        self.buckets[usize::from(bucket_of(key))].documents.get(key)
    }

    pub fn set(&mut self, key: DocKey, summary: Option<Summary>) {
        let bucket = &mut self.buckets[usize::from(bucket_of(&key))];
        bucket.hash = None;
        self.changes += 1;
        self.journal.push_back(key.clone());
        if self.journal.len() > JOURNAL {
            self.journal.pop_front();
        }
        let (before, after) = match summary {
            Some(summary) => (bucket.documents.insert(key, summary), 1),
            None => (bucket.documents.remove(&key), 0),
        };
        self.documents = self.documents + after - usize::from(before.is_some());
    }

    /// How many changes there have been since this node started.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What the changes after the first `changes` were of; `None` if that is too long ago.
    pub fn changed_since(&self, changes: u64) -> Option<impl Iterator<Item = &DocKey>> {
        let newer = usize::try_from(self.changes.checked_sub(changes)?).ok()?;
        let from = self.journal.len().checked_sub(newer)?;
        Some(self.journal.range(from..))
    }

    /// Everything, by bucket and key.
    pub fn iter(&self) -> impl Iterator<Item = (&DocKey, &Summary)> {
        self.buckets.iter().flat_map(|bucket| &bucket.documents)
    }

    pub fn hashes(&mut self) -> Vec<Hash> {
        self.buckets.iter_mut().map(Bucket::hash).collect()
    }

    pub fn root(&mut self) -> Hash {
        Sha256::digest(self.hashes().concat()).into()
    }

    /// What one bucket says, by key, from the one after `after`.
    pub fn page<'a>(
        &'a self,
        bucket: u8,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a DocKey, u32, &'a Heads)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.buckets[usize::from(bucket)].documents.range::<str, _>((from, Bound::Unbounded));
        page.filter(|(_, summary)| is_known(summary))
            .map(|(key, summary)| (key, summary.incarnation, &summary.heads))
    }
}

impl Bucket {
    fn hash(&mut self) -> Hash {
        let documents = &self.documents;
        *self.hash.get_or_insert_with(|| {
            let mut hash = Sha256::new();
            for (key, summary) in documents.iter().filter(|(_, summary)| is_known(summary)) {
                hash.update((key.len() as u64).to_be_bytes());
                hash.update(key);
                hash.update(summary.incarnation.to_be_bytes());
                hash.update((summary.heads.len() as u64).to_be_bytes());
                summary.heads.iter().for_each(|head| hash.update(head));
            }
            hash.finalize().into()
        })
    }
}

pub fn is_known(summary: &Summary) -> bool {
    summary.standing != Standing::Partial
}

pub fn bucket_of(key: &str) -> u8 {
    Sha256::digest(key)[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(n: u8) -> Summary {
        Summary { incarnation: 1, heads: vec![[n; 32]], standing: Standing::Live, saved_bytes: 0 }
    }

    #[test]
    fn what_changed_since_is_said_as_long_as_it_is_known() {
        let mut index = Index::new(vec![("a".into(), summary(1))]);
        let mark = index.changes();
        let since =
            |index: &Index, mark| index.changed_since(mark).map(|keys| keys.cloned().collect::<Vec<_>>());
        assert_eq!(since(&index, mark), Some(vec![]));
        index.set("b".into(), Some(summary(2)));
        index.set("a".into(), None);
        assert_eq!(since(&index, mark), Some(vec!["b".into(), "a".into()]));
        assert_eq!(since(&index, index.changes() + 1), None, "a mark of another run");
        for _ in 0..JOURNAL {
            index.set("c".into(), Some(summary(3)));
        }
        assert_eq!(since(&index, mark), None);
        assert_eq!(since(&index, mark + 2).map(|keys| keys.len()), Some(JOURNAL));
    }
}
