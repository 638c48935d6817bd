//! One pod as the loop keeps it, and how the view's pods become entries.

use super::Shell;
use crate::agent::files::Upkeep;
use crate::agent::identity::{Attempt, Observed, PodId, attempt_of};
use crate::agent::offer::OWNER_APPEARS_WITHIN;
use crate::agent::planner::Memory;
use crate::agent::spec::{Filling, is_volume_of};
use gaggle_sched::controller::identity::is_single;
use gaggle_sched::state::{Key, Object, resource_of};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// A pod as the view has it.
#[derive(Clone)]
pub struct Wanted {
    pub object: Arc<Object>,
    pub pod: Arc<Pod>,
}

pub struct Entry {
    pub id: PodId,
    /// `None`: only its containers say that it was here.
    pub wanted: Option<Wanted>,
    /// The newest binding that was obeyed.
    pub attempt: Attempt,
    pub containers: BTreeMap<String, Observed>,
    pub memory: Memory,
    /// A task is at work on its containers.
    pub busy: bool,
    /// Containers whose end is being looked into.
    pub concluding: BTreeSet<String>,
    pub wake_at: Option<Timestamp>,
    /// Nothing of it is left here: its object is to go.
    pub forgotten: bool,
    /// A status (or the deletion) is under way to the group.
    pub flying: bool,
    pub refusals: u32,
    pub retry_at: Option<Instant>,
    /// Which group's view it was wanted by.
    pub of_group: Option<String>,
    /// That group yielded: what it was there, and until when the new one is waited for.
    pub offered: Option<(Arc<Object>, Timestamp)>,
    /// A stop failed: another is not tried sooner.
    pub stop_after: Option<Instant>,
    /// When its tokens are to be written anew; `None`: not known yet.
    pub renew_at: Option<Timestamp>,
    /// What its volumes' files hold may have changed since they were written.
    pub outdated: bool,
    pub upkeep: Arc<Upkeep>,
}

impl Entry {
    pub fn new(id: PodId, now: Timestamp) -> Self {
        Self {
            id,
            wanted: None,
            attempt: Attempt::default(),
            containers: BTreeMap::new(),
            memory: Memory::new(now),
            busy: false,
            concluding: BTreeSet::new(),
            wake_at: None,
            forgotten: false,
            flying: false,
            refusals: 0,
            retry_at: None,
            of_group: None,
            offered: None,
            stop_after: None,
            renew_at: None,
            outdated: false,
            upkeep: Arc::default(),
        }
    }

    /// The pod as the view has it.
    pub fn pod(&self) -> Option<&Pod> {
        self.wanted.as_ref().map(|wanted| wanted.pod.as_ref())
    }

    /// Whether at most one of the pod may run in the whole flock.
    pub fn is_single(&self) -> bool {
        self.containers.values().any(|observed| observed.single)
            || self.wanted.as_ref().is_some_and(|wanted| is_single(&wanted.pod))
    }

    /// Whether something that failed is not to be tried again yet.
    pub fn is_resting(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() < at)
    }

    pub fn key(&self) -> Key {
        Key::of::<Pod>(self.id.namespace.clone(), self.id.name.clone())
    }
}

impl Shell {
    /// Takes in what changed in the view since the last look.
    pub fn follow(&mut self) {
        let changes = self.seen.map(|seen| self.inputs.view.changes_after(seen));
        let Some(Ok(changes)) = changes else { return self.follow_all() };
        let (pods, nodes) = (resource_of::<Pod>(), resource_of::<Node>());
        let sets = resource_of::<ReplicaSet>();
        let (config_maps, secrets) = (resource_of::<ConfigMap>(), resource_of::<Secret>());
        let accounts = resource_of::<ServiceAccount>();
        let mut look = false;
        if let (Some(seen), Some(last)) = (&mut self.seen, changes.last()) {
            seen.revision = last.revision;
        }
        for change in &changes {
            let resource = &change.key.resource;
            if *resource == pods {
                let here = change.object.as_ref().is_some_and(|object| self.is_bound_here(object));
                let known = self.entries.values().any(|entry| {
                    entry.id.name == change.key.name && entry.id.namespace == change.key.namespace
                });
                look |= here || known;
            } else if *resource == nodes {
                look |= change.key.name == self.inputs.owner.node;
                let waiting = self.entries.iter().filter(|(_, entry)| entry.offered.is_some());
                self.dirty.extend(waiting.map(|(uid, _)| uid.clone()));
            } else if *resource == sets {
                let waiting = self.entries.iter().filter(|(_, entry)| entry.offered.is_some());
                self.dirty.extend(waiting.map(|(uid, _)| uid.clone()));
            } else if *resource == config_maps || *resource == secrets {
                let of = if *resource == config_maps { Filling::ConfigMap } else { Filling::Secret };
                let name = change.key.name.as_str();
                for (uid, entry) in &mut self.entries {
                    if entry.id.namespace == change.key.namespace {
                        let pod = entry.wanted.as_ref().map(|wanted| &wanted.pod);
                        entry.outdated |= pod.is_some_and(|pod| is_volume_of(pod, of, name));
                        self.dirty.insert(uid.clone());
                    }
                }
            } else if *resource == accounts {
                // Another one of the name has other tokens.
                for (uid, entry) in &mut self.entries {
                    if entry.id.namespace == change.key.namespace {
                        entry.renew_at = None;
                        self.dirty.insert(uid.clone());
                    }
                }
            }
        }
        if look {
            self.look();
        }
    }

    /// A view that follows no group, or has not caught up with it yet, may have lost what is still wanted; on a desktop that has left, nothing is.
    pub fn knows_all_wanted(&self) -> bool {
        let told = *self.inputs.current.borrow() && self.inputs.hold.was_confirmed();
        told || self.inputs.left.is_cancelled()
    }

    fn is_bound_here(&self, object: &Object) -> bool {
        object.value().pointer("/spec/nodeName").and_then(|node| node.as_str())
            == Some(&self.inputs.owner.node)
    }

    pub fn follow_all(&mut self) {
        self.seen = Some(self.inputs.view.seen());
        self.look();
        // What has changed is not known: anything may have.
        self.entries.values_mut().for_each(|entry| entry.outdated = true);
        self.dirty.extend(self.entries.keys().cloned());
    }

    /// Brings the entries in line with the pods that the view has on this node.
    fn look(&mut self) {
        let node = self.inputs.owner.node.clone();
        let (objects, addresses, group) = self.inputs.view.read(|store| {
            let bound = store.on_node(&node).filter(|_| !self.inputs.left.is_cancelled());
            let objects: Vec<_> = bound.filter_map(|key| store.get(key).cloned()).collect();
            let group = store.lineage().map(|lineage| lineage.group.clone());
            (objects, store.get_as::<Node>("", &node).map(|node| internal_ips(&node)), group)
        });
        if let Some(addresses) = addresses
            && addresses != self.desktop.host_ips
        {
            self.desktop.host_ips = addresses;
            self.dirty.extend(self.entries.keys().cloned());
        }
        let now = Timestamp::now();
        let mut present = BTreeSet::new();
        for object in objects {
            let Some(pod) = object.typed::<Pod>() else { continue };
            let id = PodId::of(&pod);
            if id.uid.is_empty() {
                continue;
            }
            present.insert(id.uid.clone());
            let entry = self.entries.entry(id.uid.clone()).or_insert_with(|| Entry::new(id.clone(), now));
            let attempt = attempt_of(&pod);
            if attempt < entry.attempt {
                tracing::warn!(pod = %id.name, namespace = %id.namespace, %attempt, obeyed = %entry.attempt,
                    "an older binding of a pod is not obeyed");
                continue;
            }
            let same =
                entry.wanted.as_ref().is_some_and(|wanted| wanted.object.revision() == object.revision());
            entry.of_group.clone_from(&group);
            entry.offered = None;
            if !same {
                entry.attempt = attempt;
                // Its volumes may tell of its own labels and annotations.
                let told = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
                entry.outdated |= entry.wanted.as_ref().is_none_or(|wanted| told(&wanted.pod) != told(&pod));
                entry.wanted = Some(Wanted { object, pod });
                self.dirty.insert(id.uid);
            }
        }
        if self.knows_all_wanted() {
            let left = self.inputs.left.is_cancelled();
            for (uid, entry) in &mut self.entries {
                if !present.contains(uid) {
                    let was = entry.wanted.take().filter(|_| entry.of_group != group && !left);
                    if let (Some(was), Ok(until)) = (was, now.checked_add(OWNER_APPEARS_WITHIN)) {
                        entry.offered = Some((was.object, until));
                    }
                    self.dirty.insert(uid.clone());
                }
            }
        }
    }
}

fn internal_ips(node: &Node) -> Vec<String> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == "InternalIP").map(|address| address.address.clone()).collect()
}
