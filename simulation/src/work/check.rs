//! What must have become of everything in the end.

use super::desk::Life;
use super::engine::owner;
use super::record::{Op, Outcome};
use crate::safety::world::{World, name};
use gaggle::agent::identity::{Observed, Role};
use gaggle_gossip::intent::replica;
use gaggle_sched::state::{Key, Object, Resource, Store};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Rules that a run may violate only by not getting there in time.
pub const RESTS: &str = "everything asked for runs in the end, nothing else does, and the controllers rest";

impl World<'_> {
    /// Whether everything is as it was asked for, and nobody writes any more.
    pub fn work_settled(&mut self) -> Result<(), String> {
        if self.plan.work.is_none() {
            return Ok(());
        }
        let Some(leader) = self.leaders().first().copied() else { return Err("nobody acts".into()) };
        let Some(life) = &self.work.desks[leader].life else { return Err("nobody acts".into()) };
        let revision = life.store.revision();
        let before = std::mem::replace(&mut self.work.settled_revision, revision.0);
        if before != revision.0 {
            return Err(format!("{} still writes", name(leader)));
        }
        if let Some(op) = self.work.record.ops.iter().find(|op| op.outcome == Outcome::Open) {
            let there = self.work.desks[op.node].life.as_ref().is_some_and(|life| !life.requests.is_empty());
            if there {
                return Err(format!("{} has not answered {:?}", name(op.node), op.key));
            }
        }
        let store = &self.work.desks[leader].life.as_ref().expect("it acts").store;
        self.documents_are_one(store)?;
        let running = self.running();
        workloads_are_whole(store, &running)?;
        self.nothing_else_runs(store)
    }

    /// The desktops that are on and belong.
    fn here(&self) -> impl Iterator<Item = (usize, &Life)> {
        let lives = self.work.desks.iter().enumerate();
        lives.filter_map(|(node, desk)| Some((node, desk.life.as_deref()?))).filter(|(node, _)| {
            let sees = self.machines[*node].process.as_ref().is_some_and(|process| process.view.is_some());
            self.machines[*node].acts() && sees && !self.is_evicted(*node)
        })
    }

    /// Every desktop's documents say the same, and the leader has adopted it.
    fn documents_are_one(&self, store: &Store) -> Result<(), String> {
        let mut first: Option<(usize, BTreeMap<&String, _>)> = None;
        for (node, _) in self.here() {
            let documents = &self.work.desks[node].documents;
            let heads: BTreeMap<_, _> =
                documents.iter().filter_map(|(doc, held)| Some((doc, replica::heads(held)?))).collect();
            match &first {
                None => first = Some((node, heads)),
                Some((_, same)) if *same == heads => {}
                Some((other, _)) => {
                    return Err(format!("the documents of {} and {} differ", name(*other), name(node)));
                }
            }
        }
        for (doc, heads) in first.map(|(_, heads)| heads).unwrap_or_default() {
            let Some(key) = gaggle::flock::adoption::object_key(doc) else { continue };
            let deleted = store.get(&key).is_none() && store.adopted(&key).is_none();
            if store.adopted(&key) != Some(&heads) && !deleted {
                return Err(format!("{key} is not adopted as its document has it"));
            }
        }
        Ok(())
    }

    /// Containers that run, by pod.
    fn running(&self) -> BTreeMap<&str, Vec<(usize, &Observed)>> {
        let mut running: BTreeMap<&str, Vec<(usize, &Observed)>> = BTreeMap::new();
        for (node, desk) in self.work.desks.iter().enumerate() {
            for container in desk.engine.containers.values() {
                if container.is_running() && container.role != Role::Sandbox {
                    running.entry(container.pod.uid.as_str()).or_default().push((node, container));
                }
            }
        }
        running
    }

    fn nothing_else_runs(&self, store: &Store) -> Result<(), String> {
        for (uid, places) in self.running() {
            for (node, container) in &places {
                let machine = &self.machines[*node];
                if machine.gone || machine.process.is_none() || self.is_evicted(*node) {
                    continue;
                }
                let key = Key::new(
                    Resource::fixed("pods"),
                    container.pod.namespace.clone(),
                    container.pod.name.clone(),
                );
                let pod = store.get(&key).filter(|pod| pod.uid() == uid);
                let bound = pod.and_then(|pod| pod.value().pointer("/spec/nodeName")).and_then(Value::as_str);
                if bound != Some(&owner(*node).node) {
                    return Err(format!(
                        "{} runs {}, which is bound to {bound:?}",
                        name(*node),
                        container.pod.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// After the last moment: views are equal, watches told everything, and no acknowledged write is lost.
    pub fn check_work_at_the_end(&mut self) {
        if self.plan.work.is_none() {
            return;
        }
        let here: Vec<usize> = self.here().map(|(node, _)| node).collect();
        for node in &here {
            self.tick_watch(*node);
            self.check_watch(*node);
        }
        let snapshots: Vec<(usize, _)> =
            self.here().map(|(node, life)| (node, contents(&life.store))).collect();
        let mut different = None;
        for pair in snapshots.windows(2) {
            let [(a, first), (b, second)] = pair else { continue };
            if first.0 == second.0 && first.1 != second.1 {
                let keys: BTreeSet<&Key> = first.1.iter().chain(&second.1).map(|(key, _)| key).collect();
                let key = keys.into_iter().find(|key| find(&first.1, key) != find(&second.1, key));
                let sides = key.map(|key| (find(&first.1, key), find(&second.1, key)));
                different = Some(format!("{} and {} differ in {key:?}: {sides:?}", name(*a), name(*b)));
            }
        }
        let leader = self.leaders().first().copied();
        let store = leader.and_then(|node| self.work.desks[node].life.as_ref()).map(|life| &life.store);
        // Documents stay on the disk of who leaves; its log and its view do not.
        let gone = |op: &Op| {
            op.holders.iter().all(|(node, forgot)| {
                let forgot = op.outcome == Outcome::Ordered && self.work.desks[*node].forgot != *forgot;
                self.machines[*node].gone || self.is_evicted(*node) || forgot
            })
        };
        let lost = store.and_then(|store| self.work.record.lost(store, gone));
        if let Some(what) = different {
            self.violated("views are equal at the same revision", what);
        }
        if let Some(what) = lost {
            self.violated("an acknowledged write is not lost", what);
        }
    }
}

/// A revision, the group, and what is there.
type Contents = ((u64, Option<String>), Vec<(Key, Value)>);

fn contents(store: &Store) -> Contents {
    let values =
        store.freeze().objects.iter().map(|(place, object)| (place.key(), object.value().clone())).collect();
    ((store.revision().0, store.lineage().map(|lineage| format!("{lineage:?}"))), values)
}

fn find<'v>(objects: &'v [(Key, Value)], key: &Key) -> Option<&'v Value> {
    objects.iter().find(|(other, _)| other == key).map(|(_, value)| value)
}

/// Every Deployment and StatefulSet has its replicas running, every Job is over.
fn workloads_are_whole(
    store: &Store,
    running: &BTreeMap<&str, Vec<(usize, &Observed)>>,
) -> Result<(), String> {
    for (key, object) in store.list(&Resource::new("batch", "jobs"), None) {
        let conditions = object.value().pointer("/status/conditions").and_then(Value::as_array);
        let over = |condition: &Value| {
            condition["status"] == "True"
                && (condition["type"] == "Complete" || condition["type"] == "Failed")
        };
        if !conditions.is_some_and(|conditions| conditions.iter().any(over)) {
            return Err(format!("{key} is not over: {}", object.value()["status"]));
        }
    }
    for (plural, kind) in [("deployments", "ReplicaSet"), ("statefulsets", "StatefulSet")] {
        for (key, object) in store.list(&Resource::new("apps", plural), None) {
            let wanted = object.value().pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
            let app = object.value().pointer("/spec/selector/matchLabels/app").and_then(Value::as_str);
            let pods = store.list(&Resource::fixed("pods"), Some(&key.namespace)).filter(|(_, pod)| {
                let owners = pod.value().pointer("/metadata/ownerReferences").and_then(Value::as_array);
                let owned = owners.is_some_and(|owners| owners.iter().any(|owner| owner["kind"] == kind));
                owned && pod.label("app") == app && !pod.is_terminating()
            });
            let runs = |pod: &Arc<Object>| {
                let node = pod.value().pointer("/spec/nodeName").and_then(Value::as_str);
                let places = running.get(pod.uid());
                places.is_some_and(|places| places.iter().any(|(at, _)| Some(name(*at).as_str()) == node))
            };
            let (there, run) =
                pods.fold((0, 0), |(there, run), (_, pod)| (there + 1, run + u64::from(runs(pod))));
            let ready = object.value().pointer("/status/readyReplicas").and_then(Value::as_u64).unwrap_or(0);
            if (there, run, ready) != (wanted, wanted, wanted) {
                return Err(format!("{key} wants {wanted}: {there} are there, {run} run, {ready} are ready"));
            }
        }
    }
    Ok(())
}
