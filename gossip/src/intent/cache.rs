//! The documents that were used last, unpacked. A bounded map; knows nothing of storage.

use super::DocKey;
use super::state::State;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// How many documents are kept unpacked: what a rollout or a busy workflow touches, at some 20 KiB each.
const CACHED: usize = 256;

#[derive(Default)]
pub struct Cache {
    states: HashMap<DocKey, (u64, Arc<State>)>,
    by_use: BTreeMap<u64, DocKey>,
    uses: u64,
}

impl Cache {
    pub fn get(&mut self, key: &str) -> Option<Arc<State>> {
        let (used, state) = self.states.get_mut(key)?;
        if let Some(key) = self.by_use.remove(used) {
            self.uses += 1;
            *used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(state.clone())
    }

    pub fn put(&mut self, key: DocKey, state: Arc<State>) {
        self.remove(&key);
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.states.insert(key, (self.uses, state));
        while self.states.len() > CACHED
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.states.remove(&oldest);
        }
    }

    pub fn remove(&mut self, key: &str) {
        if let Some((used, _)) = self.states.remove(key) {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_goes_first() {
        let mut cache = Cache::default();
        for n in 0..=CACHED as u64 {
            assert!(cache.get("0").is_some() || n == 0);
            cache.put(n.to_string(), Arc::new(State::Buried { incarnation: 1, at_ms: n }));
        }
        assert!(cache.get("1").is_none());
        assert!(cache.get("0").is_some());
        assert_eq!((cache.states.len(), cache.by_use.len()), (CACHED, CACHED));
        cache.remove("0");
        assert_eq!((cache.states.len(), cache.by_use.len()), (CACHED - 1, CACHED - 1));
    }
}
