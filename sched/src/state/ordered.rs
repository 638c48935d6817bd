//! Which transactions were ordered lately, so that one that is sent again is not applied a second time.

use super::{Revision, TxnId};
use std::collections::{HashMap, VecDeque};

/// How many are remembered: those of some seconds of a very busy flock. A transaction is sent again within seconds; one
/// that was forgotten meanwhile is judged anew by its expectations, as if it had never been sent.
const LIMIT: usize = 8192;

/// The newest transactions that changed something and carried an id, with the revision each left behind.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    by_id: HashMap<TxnId, Revision>,
    oldest_first: VecDeque<TxnId>,
}

impl Ordered {
    pub fn get(&self, id: TxnId) -> Option<Revision> {
        self.by_id.get(&id).copied()
    }

    pub fn insert(&mut self, id: TxnId, revision: Revision) {
        if self.by_id.insert(id, revision).is_none() {
            self.oldest_first.push_back(id);
        }
        while self.oldest_first.len() > LIMIT {
            if let Some(id) = self.oldest_first.pop_front() {
                self.by_id.remove(&id);
            }
        }
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<(TxnId, Revision)> {
        self.oldest_first.iter().filter_map(|id| Some((*id, self.get(*id)?))).collect()
    }
}

impl FromIterator<(TxnId, Revision)> for Ordered {
    fn from_iter<I: IntoIterator<Item = (TxnId, Revision)>>(list: I) -> Self {
        let mut ordered = Self::default();
        list.into_iter().for_each(|(id, revision)| ordered.insert(id, revision));
        ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first_and_the_order_survives_a_snapshot() {
        let id = |n: usize| TxnId(n as u64, 7);
        let all: Ordered = (0..=LIMIT).map(|n| (id(n), Revision(n as u64))).collect();
        assert_eq!(all.get(id(0)), None);
        assert_eq!(all.get(id(1)), Some(Revision(1)));
        let mut again: Ordered = all.list().into_iter().collect();
        again.insert(id(LIMIT + 1), Revision(0));
        assert_eq!((again.get(id(1)), again.get(id(2))), (None, Some(Revision(2))));
    }
}
