//! Which kinds are served now: those of the table, and those that the definitions in the view add to them.

use super::{Kind, TABLE, extensions, find, version};
use crate::api::definition::{self, DEFINITIONS};
use crate::api::openapi::Documents;
use gaggle_sched::state::{Object, Resource, Revision, Store, View};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Tells one state of the definitions from another: how many there are, and the last change of one. (A definition that goes
/// lowers the number, and one that comes has a higher revision than all before.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    generation: u64,
    count: usize,
    newest: Revision,
}

/// The kinds of one state of the definitions.
pub struct Catalogue {
    mark: Mark,
    defined: Vec<Arc<Kind>>,
    /// By definition, so that a change of one costs the others nothing.
    made: HashMap<String, (Revision, Vec<Arc<Kind>>)>,
    /// The OpenAPI documents of what is defined, made when somebody asks first.
    documents: OnceLock<Documents>,
}

impl Catalogue {
    /// Every kind, in the order in which discovery lists them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        TABLE.iter().chain(&self.defined)
    }

    /// The kinds that people defined.
    pub fn defined(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.defined.iter()
    }

    fn find_defined(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let mut defined = self.defined.iter();
        defined.find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// The OpenAPI documents of the groups that people defined.
    pub fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| Documents::of_defined(self))
    }

    fn new(mark: Mark, mut objects: Vec<(String, Arc<Object>)>, before: Option<&Self>) -> Self {
        if objects.len() > DEFINITIONS {
            tracing::warn!(count = objects.len(), DEFINITIONS, "there are more definitions than are served");
            objects.sort_by_key(|(name, object)| {
                (
                    crate::api::value::text(object.value(), "/metadata/creationTimestamp").to_owned(),
                    name.clone(),
                )
            });
            objects.truncate(DEFINITIONS);
        }
        let made = objects.into_iter().map(|(name, object)| {
            // Revisions of another group may be the same ones.
            let before = before.filter(|before| before.mark.generation == mark.generation);
            let known = before.and_then(|before| before.made.get(&name));
            let kinds = match known.filter(|(revision, _)| *revision == object.revision()) {
                Some((_, kinds)) => kinds.clone(),
                None => definition::kinds_of(object.value()).into_iter().map(Arc::new).collect(),
            };
            (name, (object.revision(), kinds))
        });
        let made: HashMap<String, (Revision, Vec<Arc<Kind>>)> = made.collect();
        let by_name: BTreeMap<&String, &Vec<Arc<Kind>>> =
            made.iter().map(|(name, (_, kinds))| (name, kinds)).collect();
        let mut defined: Vec<Arc<Kind>> = by_name.into_values().flatten().cloned().collect();
        defined
            .sort_by(|a, b| a.group.cmp(&b.group).then_with(|| version::by_priority(&a.version, &b.version)));
        Self { mark, defined, made, documents: OnceLock::new() }
    }
}

fn definitions(store: &Store) -> impl Iterator<Item = (String, &Arc<Object>)> {
    let resource = Resource::new(extensions::GROUP, "customresourcedefinitions");
    store.list(&resource, None).map(|(key, object)| (key.name, object))
}

fn mark(store: &Store) -> Mark {
    let start = Mark { generation: store.generation(), count: 0, newest: Revision::default() };
    definitions(store).fold(start, |mark, (_, object)| Mark {
        count: mark.count + 1,
        newest: mark.newest.max(object.revision()),
        ..mark
    })
}

/// The way to the catalogue of now. Cheap to clone.
#[derive(Clone)]
pub struct Kinds {
    view: View,
    last: Arc<Mutex<Option<Arc<Catalogue>>>>,
}

impl Kinds {
    pub fn new(view: View) -> Self {
        Self { view, last: Arc::default() }
    }

    /// A kind that is served now. Those of the table are found without waiting for anybody who reads a definition.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let known = find(group, version, plural);
        known.cloned().or_else(|| self.now().find_defined(group, version, plural).cloned())
    }

    /// The catalogue of what the view holds now.
    pub fn now(&self) -> Arc<Catalogue> {
        // One at a time: who comes while a schema is read finds it read.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.view.read(|store| {
            let mark = mark(store);
            match &*last {
                Some(catalogue) if catalogue.mark == mark => Err(catalogue.clone()),
                // Read without the store's lock, which writers wait for.
                _ => {
                    let all = definitions(store).map(|(name, object)| (name, object.clone()));
                    Ok((mark, all.collect::<Vec<_>>()))
                }
            }
        });
        match found {
            Err(known) => known,
            Ok((mark, objects)) => {
                let catalogue = Arc::new(Catalogue::new(mark, objects, last.as_deref()));
                *last = Some(catalogue.clone());
                catalogue
            }
        }
    }
}
