//! What of the intent documents becomes part of the scheduling state, and how: pure.
//!
//! [`super::adopt`] looks, waits and proposes; here is what it goes by.

use crate::api::apply::note_adoption;
use gaggle_gossip::intent::{Beyond, Conflict, Heads, Noted};
use gaggle_sched::controller::Note;
use gaggle_sched::controller::definition::definition_of;
use gaggle_sched::controller::deletion::{self, Grace};
use gaggle_sched::scheduler::{ATTEMPT, GROUP};
use gaggle_sched::state::{Adopted, Expect, Key, Object, Resource, Store, Txn, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long a pod that was made without an order waits for a desktop that says that it runs there.
pub const RUNNER_SPEAKS_WITHIN: Duration = Duration::from_secs(10);
/// What an adoption carries of its document's changes, about: what does not fit comes by the exchange between desktops.
pub const CARRIED_BYTES: usize = 1 << 20;
/// Events about one adoption, and characters of a value in one.
const CONFLICTS_TOLD: usize = 8;
const VALUE_SHOWN: usize = 120;

/// The name of an object's document.
pub fn doc_key(key: &Key) -> String {
    key.to_string()
}

/// `resource/namespace/name` or `resource/name`, the inverse of [`doc_key`].
pub fn object_key(doc: &str) -> Option<Key> {
    let mut parts = doc.splitn(3, '/');
    let (resource, second, third) = (parts.next()?, parts.next()?, parts.next());
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let resource = Resource::new(group, plural);
    Some(match third {
        Some(name) => Key::new(resource, second, name),
        None => Key::new(resource, "", second),
    })
}

/// Of documents with their heads those that are not at what was adopted from them last, with what that was.
pub fn differing(
    store: &Store,
    digest: impl Iterator<Item = (String, Heads)>,
) -> impl Iterator<Item = (String, Option<Heads>)> {
    digest.filter_map(|(doc, heads)| {
        let adopted = store.adopted(&object_key(&doc)?).cloned();
        (adopted.as_ref() != Some(&heads)).then_some((doc, adopted))
    })
}

/// A document that holds more than was adopted from it.
#[derive(Clone, Debug)]
pub struct Ahead {
    pub doc: String,
    pub heads: Heads,
    /// What was adopted from it when it was looked at.
    pub adopted: Option<Heads>,
    /// The object that was adopted last has been deleted since, and made anew.
    pub anew: bool,
}

impl Ahead {
    /// `beyond`: what the document holds, if it holds what was adopted. One that lacks that is behind, not ahead: its
    /// changes are still on the way. One that was begun anew since never will hold it, and what it says is newer.
    pub fn of(doc: String, adopted: Option<Heads>, beyond: Option<Beyond>) -> Option<Self> {
        let Beyond { heads, anew } = beyond.filter(|beyond| adopted.as_ref() != Some(&beyond.heads))?;
        Some(Self { doc, heads, adopted, anew })
    }
}

/// A pod that nobody here knows may run already, on a desktop of a group that has just yielded: that desktop is to say so
/// before the pod is bound elsewhere.
pub fn may_run_already(store: &Store, key: &Key) -> bool {
    key.resource == Resource::fixed("pods") && store.get(key).is_none()
}

/// From what an object was last adopted, for whoever prepares a change of it.
pub fn noted(store: &Store, key: &Key) -> Option<Noted> {
    let heads = store.adopted(key)?.clone();
    Some(Noted { heads, gone: store.get(key).is_none() })
}

/// What a document says that is asked whether it should end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub buried: bool,
    pub deleted: bool,
    pub heads: Option<Heads>,
}

/// Whether a document and its object are of one mind, so that a change can be made on top of both: the document holds what
/// the object was last adopted from (`covers`), and, while there is an order, the object what the document holds.
pub fn agree(covers: bool, quorum: bool, said: &Said, adopted: Option<&Heads>) -> bool {
    let ahead = quorum && !said.buried && adopted.is_some() && adopted != said.heads.as_ref();
    covers && !ahead
}

/// How the document of an object ends that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Burial {
    /// It says no more, so there is nothing that could have been adopted from it.
    Forget,
    /// By a change that deletes the object.
    End,
}

/// Whether the document of an object that is gone is to end.
pub fn burial(said: &Said, adopted: Option<&Heads>) -> Option<Burial> {
    match said {
        Said { buried: true, .. } => Some(Burial::Forget),
        Said { deleted: false, heads, .. } if heads.as_ref() == adopted => Some(Burial::End),
        _ => None,
    }
}

/// What to say to whoever edited a field that somebody else edited at the same time.
pub fn conflict_notes(key: &Key, conflicts: &[Conflict]) -> Vec<Note> {
    let secret = key.resource == Resource::fixed("secrets");
    // What every creation sets differently is nobody's edit.
    let made = ["metadata.uid", "metadata.creationTimestamp"];
    let edits = conflicts.iter().filter(|conflict| !made.contains(&conflict.field.as_str()));
    let notes = edits.take(CONFLICTS_TOLD).map(|conflict| {
        let shown = |value: &Value| {
            let text = value.to_string();
            match text.char_indices().nth(VALUE_SHOWN) {
                Some((at, _)) => format!("{}...", &text[..at]),
                None => text,
            }
        };
        let lost: Vec<String> = conflict.lost.iter().map(shown).collect();
        let values = match secret {
            true => "one value was kept and another lost".to_owned(),
            false => format!("{} was kept, {} was lost", shown(&conflict.kept), lost.join(" and ")),
        };
        let field = &conflict.field;
        let message = format!("{field} was edited on two sides that could not reach each other: {values}");
        Note::warning(key, "intent", "ConflictingEdits", message)
    });
    notes.collect()
}

/// The write that makes the scheduling state what the document says. It is refused if something else was adopted since
/// the document was looked at: what it said then may be older than what was ordered meanwhile.
pub fn adoption(
    store: &Store,
    key: &Key,
    intended: Option<Value>,
    found: &Ahead,
    change: Vec<u8>,
    now: &Time,
) -> Option<Txn> {
    let (known, base) = (found.adopted.is_some(), found.adopted.clone());
    let adopted = Some(Adopted { change, heads: found.heads.clone(), base });
    let current = store.get(key);
    let write = match (intended, current) {
        (None, None) if !known => return None,
        // Both sides deleted it. Unless that is noted, the document stays ahead, and nobody can make the object anew.
        (None, None) => Write::Delete { key: key.clone(), expect: Expect::Absent, intent: adopted },
        // See `outlives`.
        (None, Some(_)) if found.anew => return None,
        (None, Some(current)) => {
            with_intent(deletion::delete(key, current, Grace::AsSpecified, now)?, adopted)
        }
        // The object is the new one already: another desktop was faster, and it is not to go for itself.
        (Some(_), Some(_)) if found.anew && store.adopted(key) != found.adopted.as_ref() => return None,
        // It is another object of the same name. The old one goes first, as it does where there is an order: its
        // containers end, its dependents go, and watches are told.
        (Some(_), Some(current)) if found.anew => deletion::delete(key, current, Grace::AsSpecified, now)?,
        (Some(mut value), current) => {
            if let Some(fields) = value.as_object_mut() {
                if let Some(current) = current {
                    keep_ordered(key, current.value(), fields);
                }
                let generation = next_generation(current.map(|current| current.value()), fields.get("spec"));
                if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("generation".into(), generation.into());
                }
            }
            if let Some(current) = current {
                let definition = store.get(&definition_of(&key.resource)).map(|found| found.value());
                note_adoption(current.value(), &mut value, definition, &now.0.to_string());
            }
            let expect = current.map_or(Expect::Absent, |current| Expect::Revision(current.revision()));
            Write::Put { key: key.clone(), value, expect, intent: adopted }
        }
    };
    Some(write.into())
}

/// An object that is there although its document has ended: it was ordered on one that a later one had ended already, which
/// its maker had not heard of. What was acknowledged is not deleted for that; its document is to begin anew, from it.
pub fn outlives(store: &Store, key: &Key, intended: Option<&Value>, found: &Ahead) -> Option<Arc<Object>> {
    store.get(key).filter(|_| found.anew && intended.is_none()).cloned()
}

/// The order with which the document of an object that outlived it begins anew, by a change that says what the object does.
pub fn beginning(key: &Key, there: &Object, found: &Ahead, change: Adopted) -> Txn {
    let intent = Some(Adopted { base: found.adopted.clone(), ..change });
    let (value, expect) = (there.value().clone(), Expect::Revision(there.revision()));
    Write::Put { key: key.clone(), value, expect, intent }.into()
}

/// Whether a write notes what was adopted.
pub fn adopts(write: &Write) -> bool {
    let (Write::Put { intent, .. } | Write::Delete { intent, .. }) = write else { return false };
    intent.is_some()
}

/// What the ordered state alone knows of an object, and no wish speaks of.
fn keep_ordered(key: &Key, current: &Value, wished: &mut serde_json::Map<String, Value>) {
    let mut keep = |parent: &str, names: &[&str]| {
        let kept = current.pointer(parent).and_then(Value::as_object).into_iter().flatten();
        let kept: Vec<_> = kept.filter(|(name, _)| names.contains(&name.as_str())).collect();
        let mut at = Some(&mut *wished);
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            at = at.and_then(|at| {
                let child = at.entry(name).or_insert_with(|| Value::Object(serde_json::Map::new()));
                child.as_object_mut()
            });
        }
        let Some(at) = at.filter(|_| !kept.is_empty()) else { return };
        at.extend(kept.into_iter().map(|(name, value)| (name.clone(), value.clone())));
    };
    keep("", &["status"]);
    // Two sides may have made an object of this name without knowing of each other. Its wishes merge, but it is the one
    // that was ordered: others name it as their owner, and would be taken for orphans if it became another. Whoever
    // made it without an order was told so, and sees the other's uid; where both did, one of theirs is chosen, the same
    // everywhere.
    keep("/metadata", &["uid", "creationTimestamp"]);
    let going = current.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null());
    if going {
        keep("/metadata", &["deletionTimestamp", "deletionGracePeriodSeconds", "finalizers"]);
    }
    if key.resource == Resource::fixed("pods") {
        // Where a pod runs is no wish: without it, it would run a second time elsewhere.
        keep("/spec", &["nodeName"]);
        keep("/metadata/annotations", &[GROUP, ATTEMPT]);
    }
}

fn with_intent(mut write: Write, adopted: Option<Adopted>) -> Write {
    if let Write::Put { intent, .. } | Write::Delete { intent, .. } = &mut write {
        *intent = adopted;
    }
    write
}

fn next_generation(current: Option<&Value>, spec: Option<&Value>) -> i64 {
    let Some(current) = current else { return 1 };
    let generation = current.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
    if current.get("spec") == spec { generation } else { generation + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(adopted: Option<Heads>, heads: Heads) -> Ahead {
        Ahead { doc: String::new(), heads, adopted, anew: false }
    }

    #[test]
    fn an_adopted_edit_of_a_pod_leaves_it_where_it_runs_and_does_not_bring_it_back() {
        let mut store = Store::default();
        let key = Key::new(Resource::fixed("pods"), "default", "a");
        let value = json!({
            "metadata": {"uid": "u", "annotations": {ATTEMPT: "1.2", GROUP: "g"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "deletionGracePeriodSeconds": 30, "finalizers": ["x"]},
            "spec": {"nodeName": "ada"},
            "status": {"phase": "Running"}});
        store
            .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into())
            .unwrap();
        let intended =
            json!({"metadata": {"uid": "u", "annotations": {"note": "mine"}}, "spec": {"containers": []}});
        let txn =
            adoption(&store, &key, Some(intended), &found(None, vec![[1; 32]]), vec![], &crate::app::now())
                .unwrap();
        store.apply(&txn).unwrap();
        let object = store.get(&key).unwrap().value();
        assert_eq!(object["spec"], json!({"nodeName": "ada", "containers": []}));
        assert_eq!(object["metadata"]["annotations"], json!({ATTEMPT: "1.2", GROUP: "g", "note": "mine"}));
        assert_eq!(object["metadata"]["finalizers"], json!(["x"]));
        assert!(store.get(&key).unwrap().is_terminating());
    }

    #[test]
    fn an_adopted_edit_is_managed_by_nobody_who_applied_before() {
        let mut store = Store::default();
        let key = Key::new(Resource::new("apps", "deployments"), "default", "web");
        let managed = json!([{"manager": "ci", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}]);
        let mut value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"managedFields": managed},
            "spec": {"replicas": 1, "paused": true}});
        let put = Write::Put { key: key.clone(), value: value.clone(), expect: Expect::Absent, intent: None };
        store.apply(&put.into()).unwrap();
        value["metadata"] = json!({});
        value["spec"]["replicas"] = json!(2);
        let seen = found(None, vec![[1; 32]]);
        let txn = adoption(&store, &key, Some(value), &seen, vec![], &crate::app::now()).unwrap();
        store.apply(&txn).unwrap();
        let managers = store.get(&key).unwrap().value()["metadata"]["managedFields"].clone();
        assert_eq!(managers[0]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
        assert_eq!(managers[1]["manager"], "gaggle-adoption");
        assert_eq!(managers[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    }

    #[test]
    fn an_adopted_edit_of_a_kind_that_people_defined_is_noted_by_its_schema() {
        let mut store = Store::default();
        let resource = Resource::new("example.com", "tabs");
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}}});
        let definition = json!({"metadata": {}, "spec": {"group": "example.com", "scope": "Namespaced", "versions":
            [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}],
                "acceptedNames": {"plural": "tabs", "kind": "Tab"}}});
        let managed = json!([{"manager": "ci", "operation": "Apply", "apiVersion": "example.com/v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:a": {}, "f:b": {}}}}]);
        let mut value = json!({"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"managedFields": managed},
            "spec": {"a": 1, "b": 1}});
        let key = Key::new(resource.clone(), "default", "one");
        for (key, value) in [(definition_of(&resource), definition), (key.clone(), value.clone())] {
            store.apply(&Write::Put { key, value, expect: Expect::Absent, intent: None }.into()).unwrap();
        }
        value["metadata"] = json!({});
        value["spec"]["a"] = json!(2);
        let seen = found(None, vec![[1; 32]]);
        let txn = adoption(&store, &key, Some(value), &seen, vec![], &crate::app::now()).unwrap();
        store.apply(&txn).unwrap();
        let managers = store.get(&key).unwrap().value()["metadata"]["managedFields"].clone();
        assert_eq!(managers[0]["fieldsV1"], json!({"f:spec": {"f:b": {}}}));
        assert_eq!(managers[1]["fieldsV1"], json!({"f:spec": {"f:a": {}}}));
    }

    #[test]
    fn an_object_that_was_made_anew_and_adopted_meanwhile_is_not_taken_for_the_old_one() {
        let mut store = Store::default();
        let key = Key::new(Resource::fixed("configmaps"), "default", "a");
        let intent = |heads: Heads, base| Some(Adopted { change: vec![1], heads, base });
        let put = |store: &mut Store, uid: &str, intent| {
            let value = json!({"metadata": {"uid": uid}});
            store
                .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent }.into())
                .unwrap();
        };
        put(&mut store, "old", intent(vec![[1; 32]], None));
        let anew = Ahead { anew: true, ..found(Some(vec![[1; 32]]), vec![[3; 32]]) };
        let wished = json!({"metadata": {"uid": "new"}});
        let adopt =
            |store: &Store| adoption(store, &key, Some(wished.clone()), &anew, vec![], &crate::app::now());
        // The old one goes first.
        store.apply(&adopt(&store).unwrap()).unwrap();
        assert!(store.get(&key).is_none());
        // The new one is adopted by another desktop, before this one proposes what it has looked at.
        put(&mut store, "new", intent(vec![[3; 32]], Some(vec![[1; 32]])));
        assert_eq!(adopt(&store), None);
    }

    #[test]
    fn what_a_document_said_before_the_last_write_is_not_adopted() {
        let mut store = Store::default();
        let key = Key::new(Resource::fixed("configmaps"), "default", "a");
        let put = |expect, heads: [u8; 32], base: Option<[u8; 32]>, data: &str| -> Txn {
            let base = base.map(|base| vec![base]);
            let intent = Some(Adopted { change: vec![1], heads: vec![heads], base });
            Write::Put { key: key.clone(), value: json!({"metadata": {}, "data": data}), expect, intent }
                .into()
        };
        store.apply(&put(Expect::Absent, [1; 32], None, "old")).unwrap();
        // The document is looked at now, and before what it says is proposed, somebody else writes.
        let (before, heads) = (Some(vec![[1; 32]]), vec![[1; 32], [9; 32]]);
        store.apply(&put(Expect::Any, [2; 32], Some([1; 32]), "new")).unwrap();
        let old = json!({"metadata": {}, "data": "old"});
        let txn =
            adoption(&store, &key, Some(old), &found(before, heads), vec![], &crate::app::now()).unwrap();
        let refused = store.apply(&txn).unwrap_err();
        assert!(matches!(refused, gaggle_sched::state::Refused::Conflict { .. }), "{refused}");
        assert_eq!(store.get(&key).unwrap().value()["data"], "new");
        assert_eq!(store.adopted(&key), Some(&vec![[2; 32]]));
    }

    #[test]
    fn what_both_sides_deleted_can_be_made_anew() {
        let mut store = Store::default();
        let key = Key::new(Resource::fixed("configmaps"), "default", "a");
        let intent = |heads: Heads, base| Some(Adopted { change: vec![1], heads, base });
        let made = intent(vec![[1; 32]], None);
        let value = json!({"metadata": {}});
        let put = Write::Put { key: key.clone(), value: value.clone(), expect: Expect::Absent, intent: made };
        store.apply(&put.into()).unwrap();
        let deleted = intent(vec![[2; 32]], Some(vec![[1; 32]]));
        store
            .apply(&Write::Delete { key: key.clone(), expect: Expect::Any, intent: deleted }.into())
            .unwrap();
        let both = vec![[2; 32], [3; 32]];
        let seen = found(Some(vec![[2; 32]]), both.clone());
        store.apply(&adoption(&store, &key, None, &seen, vec![], &crate::app::now()).unwrap()).unwrap();
        assert_eq!(store.adopted(&key), Some(&both));
        let anew = intent(vec![[4; 32]], Some(both));
        store
            .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: anew }.into())
            .unwrap();
        // Nothing is written about what no group ever held.
        let unknown = Key::new(Resource::fixed("configmaps"), "default", "b");
        let seen = found(None, vec![[5; 32]]);
        assert!(adoption(&store, &unknown, None, &seen, vec![], &crate::app::now()).is_none());
    }

    #[test]
    fn what_was_ordered_stays_the_same_object_for_those_that_it_owns() {
        let mut store = Store::default();
        let key = Key::new(Resource::new("apps", "deployments"), "default", "web");
        let value = json!({"metadata": {"uid": "ordered", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 1}});
        store
            .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into())
            .unwrap();
        let made = json!({"metadata": {"uid": "kept", "creationTimestamp": "2026-01-01T00:00:09Z"}, "spec": {"replicas": 2}});
        let seen = found(None, vec![[1; 32]]);
        let txn = adoption(&store, &key, Some(made.clone()), &seen, b"change".to_vec(), &crate::app::now())
            .unwrap();
        let Write::Put { intent: Some(intent), .. } = &txn.writes[0] else { panic!("{txn:?}") };
        assert_eq!(intent.change, b"change", "whoever has the order has the change");
        store.apply(&txn).unwrap();
        let object = store.get(&key).unwrap();
        assert_eq!((object.uid(), &object.value()["spec"]["replicas"]), ("ordered", &json!(2)));
        assert_eq!(object.value()["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        // Deleted and made anew without an order, it is another one: the old one goes, and then it comes.
        let seen = Ahead { anew: true, ..found(Some(vec![[1; 32]]), vec![[2; 32]]) };
        for there in [false, true] {
            let txn = adoption(&store, &key, Some(made.clone()), &seen, vec![], &crate::app::now()).unwrap();
            assert_eq!(txn.writes.iter().any(adopts), there);
            store.apply(&txn).unwrap();
            assert_eq!(store.get(&key).is_some(), there);
        }
        assert_eq!(store.get(&key).unwrap().uid(), "kept");
        assert_eq!(store.adopted(&key), Some(&vec![[2; 32]]));
    }

    #[test]
    fn what_outlived_its_document_begins_another_one() {
        let key = Key::new(Resource::fixed("configmaps"), "default", "a");
        // Its document, begun anew after another deletion, has ended; after a day it is buried.
        for heads in [vec![[2; 32]], Heads::new()] {
            let mut store = Store::default();
            let made = Some(Adopted { change: vec![1], heads: vec![[1; 32]], base: None });
            let value = json!({"metadata": {"uid": "u"}});
            let put = Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: made };
            store.apply(&put.into()).unwrap();
            let ended = Ahead { anew: true, ..found(Some(vec![[1; 32]]), heads) };
            assert!(adoption(&store, &key, None, &ended, vec![], &crate::app::now()).is_none());
            let there = outlives(&store, &key, None, &ended).unwrap();
            assert!(outlives(&store, &key, None, &Ahead { anew: false, ..ended.clone() }).is_none());
            let change = Adopted { change: vec![3], heads: vec![[3; 32]], base: None };
            store.apply(&beginning(&key, &there, &ended, change.clone())).unwrap();
            assert_eq!((store.get(&key).unwrap().uid(), store.adopted(&key)), ("u", Some(&vec![[3; 32]])));
            let late = beginning(&key, &there, &ended, change);
            assert!(store.apply(&late).is_err(), "it was changed meanwhile");
        }
    }

    #[test]
    fn a_change_on_an_older_document_is_refused() {
        let mut store = Store::default();
        let key = Key::new(Resource::fixed("configmaps"), "default", "a");
        let put = |base: Option<[u8; 32]>, heads: [u8; 32]| -> Txn {
            let base = base.map(|base| vec![base]);
            let intent = Some(Adopted { change: vec![1], heads: vec![heads], base });
            let value = json!({"metadata": {"uid": "u"}});
            Write::Put { key: key.clone(), value, expect: Expect::Any, intent }.into()
        };
        store.apply(&put(None, [1; 32])).unwrap();
        store.apply(&put(Some([1; 32]), [2; 32])).unwrap();
        let refused = store.apply(&put(Some([1; 32]), [3; 32])).unwrap_err();
        assert!(matches!(refused, gaggle_sched::state::Refused::Conflict { .. }), "{refused}");
        assert_eq!(store.adopted(&key), Some(&vec![[2; 32]]));
        // The object goes by a controller's hand; its document's end is adopted, and then forgotten.
        store.apply(&Write::Delete { key: key.clone(), expect: Expect::Any, intent: None }.into()).unwrap();
        let end = |heads: Vec<[u8; 32]>| -> Txn {
            let intent = Some(Adopted { change: Vec::new(), heads, base: None });
            Write::Delete { key: key.clone(), expect: Expect::Absent, intent }.into()
        };
        store.apply(&end(vec![[4; 32]])).unwrap();
        assert_eq!(store.adopted(&key), Some(&vec![[4; 32]]));
        store.apply(&end(Vec::new())).unwrap();
        assert_eq!(store.adopted(&key), None);
        store.apply(&put(None, [5; 32])).unwrap();
        assert!(store.apply(&end(Vec::new())).is_err(), "it was made anew meanwhile");
    }

    #[test]
    fn two_edits_of_one_field_are_told_and_a_secrets_values_are_not() {
        let conflict =
            |field: &str| Conflict { field: field.into(), kept: json!(5), lost: vec![json!("hunter2")] };
        let both = [conflict("spec.replicas"), conflict("metadata.uid")];
        let told = |resource: &'static str| {
            let notes = conflict_notes(&Key::new(Resource::fixed(resource), "default", "a"), &both);
            notes.into_iter().map(|note| note.message).collect::<Vec<_>>()
        };
        let message = &told("configmaps")[0];
        assert!(
            message.contains("spec.replicas") && message.contains("5 was kept, \"hunter2\" was lost"),
            "{message}"
        );
        assert_eq!(told("configmaps").len(), 1, "uids are nobody's edit");
        assert!(!told("secrets")[0].contains("hunter2"), "{:?}", told("secrets"));
    }

    #[test]
    fn keys_of_documents_come_back() {
        for key in [
            Key::new(Resource::new("apps", "deployments"), "default", "web"),
            Key::new(Resource::new("", "pods"), "default", "a.b"),
            Key::new(Resource::new("", "namespaces"), "", "argo"),
        ] {
            assert_eq!(object_key(&doc_key(&key)), Some(key));
        }
        assert_eq!(object_key("pods"), None);
    }

    #[test]
    fn an_adopted_edit_keeps_the_status_and_counts_the_generation() {
        let mut store = Store::default();
        let key = Key::new(Resource::new("apps", "deployments"), "default", "web");
        let value =
            json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        store
            .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into())
            .unwrap();
        let intended = json!({"metadata": {}, "spec": {"replicas": 2}});
        let txn =
            adoption(&store, &key, Some(intended), &found(None, vec![[1; 32]]), vec![], &crate::app::now())
                .unwrap();
        store.apply(&txn).unwrap();
        let object = store.get(&key).unwrap().value();
        assert_eq!(object["status"]["replicas"], 1);
        assert_eq!(object["metadata"]["generation"], 4);
        assert_eq!(store.adopted(&key), Some(&vec![[1; 32]]));
    }
}
