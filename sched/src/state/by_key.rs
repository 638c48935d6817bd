//! Values by key, in maps of which a copy costs next to nothing: a snapshot of many objects holds up nobody who writes.

use super::{Key, Resource};
use imbl::OrdMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A map of keys whose copies share what neither has changed since. Its order is that of keys.
#[derive(Clone, Debug)]
pub struct ByKey<V: Clone>(BTreeMap<Resource, BTreeMap<String, OrdMap<Arc<str>, V>>>);

/// A key that is part of a map. It is written down as a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place<'a> {
    pub resource: &'a Resource,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl Place<'_> {
    pub fn key(self) -> Key {
        Key::new(self.resource.clone(), self.namespace, self.name)
    }
}

impl<'a> From<&'a Key> for Place<'a> {
    fn from(key: &'a Key) -> Self {
        Self { resource: &key.resource, namespace: &key.namespace, name: &key.name }
    }
}

impl<V: Clone> Default for ByKey<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V: Clone> ByKey<V> {
    pub fn get<'a>(&self, place: impl Into<Place<'a>>) -> Option<&V> {
        let Place { resource, namespace, name } = place.into();
        self.0.get(resource)?.get(namespace)?.get(name)
    }

    /// What was there before.
    pub fn insert(&mut self, key: &Key, value: V) -> Option<V> {
        let name = || Arc::from(key.name.as_str());
        if let Some(namespaces) = self.0.get_mut(&key.resource) {
            match namespaces.get_mut(&key.namespace) {
                Some(names) => names.insert(name(), value),
                None => {
                    namespaces.insert(key.namespace.clone(), OrdMap::unit(name(), value));
                    None
                }
            }
        } else {
            let names = OrdMap::unit(name(), value);
            self.0.insert(key.resource.clone(), BTreeMap::from([(key.namespace.clone(), names)]));
            None
        }
    }

    /// What was there.
    pub fn remove(&mut self, key: &Key) -> Option<V> {
        let namespaces = self.0.get_mut(&key.resource)?;
        let names = namespaces.get_mut(&key.namespace)?;
        let removed = names.remove(key.name.as_str());
        if names.is_empty() {
            namespaces.remove(&key.namespace);
        }
        if namespaces.is_empty() {
            self.0.remove(&key.resource);
        }
        removed
    }

    pub fn iter(&self) -> impl Iterator<Item = (Place<'_>, &V)> {
        self.0.iter().flat_map(|(resource, namespaces)| {
            namespaces.iter().flat_map(move |(namespace, names)| {
                names.iter().map(move |(name, value)| (Place { resource, namespace, name }, value))
            })
        })
    }

    /// Those of a resource, in one namespace or in all.
    pub fn of<'a>(
        &'a self,
        resource: &Resource,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (Place<'a>, &'a V)> + use<'a, V> {
        let from = namespace.map_or(Bound::Unbounded, Bound::Included);
        let found = self.0.get_key_value(resource).into_iter();
        let found = found.flat_map(move |(resource, namespaces)| {
            let here = namespaces.range::<str, _>((from, Bound::Unbounded));
            here.map(move |(namespace, names)| (resource, namespace.as_str(), names))
        });
        let found = found.take_while(move |(_, found, _)| namespace.is_none_or(|wanted| wanted == *found));
        found.flat_map(|(resource, namespace, names)| {
            names.iter().map(move |(name, value)| (Place { resource, namespace, name }, value))
        })
    }

    /// Every resource of which there is something.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.0.keys()
    }
}

impl<V: Clone> FromIterator<(Key, V)> for ByKey<V> {
    fn from_iter<I: IntoIterator<Item = (Key, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(&key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        let resource = prop::sample::select(vec!["pods", "jobs.batch", "nodes"]).prop_map(Resource::fixed);
        (resource, "[ab]{0,2}", "[a-c]{1,2}")
            .prop_map(|(resource, namespace, name)| Key::new(resource, namespace, name))
    }

    fn list(map: &ByKey<u32>) -> Vec<(Key, u32)> {
        map.iter().map(|(place, value)| (place.key(), *value)).collect()
    }

    proptest! {
        /// It is the map of keys that one would write without a thought for copies, and copies do not change with it.
        #[test]
        fn it_is_an_ordered_map_and_a_copy_stays_as_it_was(
            steps in prop::collection::vec((key(), prop::option::of(any::<u32>())), 0..60),
            copied_at in 0..60_usize,
        ) {
            let (mut map, mut plain) = (ByKey::default(), BTreeMap::new());
            let mut copied = None;
            for (at, (key, value)) in steps.into_iter().enumerate() {
                if at == copied_at {
                    copied = Some((map.clone(), list(&map)));
                }
                match value {
                    Some(value) => prop_assert_eq!(map.insert(&key, value), plain.insert(key.clone(), value)),
                    None => prop_assert_eq!(map.remove(&key), plain.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), plain.get(&key));
            }
            let plain: Vec<(Key, u32)> = plain.into_iter().collect();
            prop_assert_eq!(&list(&map), &plain);
            let resources: Vec<Resource> = map.resources().cloned().collect();
            let mut wanted: Vec<Resource> = plain.iter().map(|(key, _)| key.resource.clone()).collect();
            wanted.dedup();
            prop_assert_eq!(resources, wanted);
            for resource in ["pods", "jobs.batch", "nodes"].map(Resource::fixed) {
                for namespace in [None, Some(""), Some("a"), Some("bb")] {
                    let found: Vec<Key> = map.of(&resource, namespace).map(|(place, _)| place.key()).collect();
                    let is_in = |key: &&Key| key.resource == resource && namespace.is_none_or(|it| key.namespace == it);
                    let wanted: Vec<Key> = plain.iter().map(|(key, _)| key).filter(is_in).cloned().collect();
                    prop_assert_eq!(found, wanted);
                }
            }
            if let Some((copy, before)) = copied {
                prop_assert_eq!(list(&copy), before);
            }
        }
    }
}
