//! A desktop's containers, as its engine keeps them.

use super::Later;
use super::objects;
use crate::safety::MS;
use crate::safety::world::{World, name};
use gaggle::agent::engine::{ContainerSpec, Exit, Found, RunState};
use gaggle::agent::identity::{Attempt, Observed, Owner, PodId, Role};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;

/// Killed by a signal: 128 + SIGKILL.
const KILLED: i32 = 137;
/// A desktop that has just woken up is given this long before what it runs counts: its agent looks several times a second.
const AWAKE: u64 = 500 * MS;

#[derive(Default)]
pub struct Engine {
    pub containers: BTreeMap<String, Observed>,
    made: u64,
    /// The newest binding by which each pod's containers were started here.
    pub obeyed: BTreeMap<String, Attempt>,
}

pub fn owner(node: usize) -> Owner {
    Owner { cluster: "lab".into(), node: name(node) }
}

/// Identities are told apart by namespace and name.
fn identity(pod: &PodId) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

impl Engine {
    /// Makes a container.
    pub fn create(&mut self, node: usize, spec: &ContainerSpec) -> Option<String> {
        self.made += 1;
        let id = format!("{}{}", name(node), self.made);
        let found = Found {
            id: id.clone(),
            labels: spec.labels.clone(),
            image_id: "sha256:1".into(),
            state: RunState::Created,
            ips: Vec::new(),
        };
        let observed = owner(node).recognise(found)?;
        self.containers.insert(id.clone(), observed);
        Some(id)
    }

    pub fn of_pod<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Observed> {
        self.containers.values().filter(move |container| container.pod.uid == uid)
    }
}

impl World<'_> {
    /// The group whose order a machine's view holds, by which its agent plans; empty for none.
    pub fn group_in_view(&self, node: usize) -> String {
        let lineage = self.work.desks[node].life.as_ref().and_then(|life| life.store.lineage());
        lineage.map_or_else(String::new, |lineage| lineage.group.clone())
    }

    /// Starts what was planned for a group.
    pub fn start_container(&mut self, node: usize, group: &str, id: &str) {
        let now = self.queue.now();
        let at = self.work.wall(node, now);
        let Some(container) = self.work.desks[node].engine.containers.get_mut(id) else { return };
        container.state = RunState::Running { started_at: at };
        if container.role == Role::Sandbox {
            container.ips = vec![format!("172.17.{}.2", node % 250)];
            return;
        }
        let (pod, single, attempt) = (container.pod.clone(), container.single, container.attempt);
        self.stats.started += 1;
        self.note(node, || format!("runs {} by binding {attempt}", pod.name));
        let obeyed = self.work.desks[node].engine.obeyed.entry(pod.uid.clone()).or_default();
        let newest = *obeyed;
        *obeyed = newest.max(attempt);
        if attempt < newest {
            let what = format!("{} runs {} by {attempt} after {newest}", name(node), pod.name);
            self.violated("an agent obeys no older binding", what);
        }
        if single {
            // Groups that were founded apart promise nothing to each other.
            let identity = format!("{} of {group}", identity(&pod));
            self.work.identities.entry(identity.clone()).or_default().insert(id.to_owned(), node);
            self.check_identity(&identity);
        }
        let typed = self.work.desks[node].life.as_ref().and_then(|life| life.agent.pod(&pod.uid));
        let Some(typed) = typed else { return };
        if let Some((ms, code)) = objects::program(&typed, self.work.random()) {
            let crashes = self.machines[node].crashes;
            self.later(ms * MS, Later::Ends { node, crashes, id: id.to_owned(), code });
        }
    }

    pub fn end_container(&mut self, node: usize, id: &str, code: i32) {
        let at = self.work.wall(node, self.queue.now());
        let Some(container) = self.work.desks[node].engine.containers.get_mut(id) else { return };
        let RunState::Running { started_at } = container.state else { return };
        container.state = RunState::Exited(exit(code, started_at, at));
        let ended = container.clone();
        self.note(node, || format!("{} has ended with {code}", ended.pod.name));
        self.forget_identity(&ended.pod, id, ended.single);
        if let Some(life) = &mut self.work.desks[node].life {
            life.agent.ended(&ended);
        }
    }

    pub fn remove_container(&mut self, node: usize, id: &str) {
        let Some(container) = self.work.desks[node].engine.containers.remove(id) else { return };
        self.forget_identity(&container.pod, id, container.single);
        if let Some(life) = &mut self.work.desks[node].life {
            life.agent.gone(&container.pod.uid, id);
        }
    }

    fn forget_identity(&mut self, pod: &PodId, id: &str, single: bool) {
        let begins = format!("{} of ", identity(pod));
        let of_groups = self.work.identities.range_mut(begins.clone()..);
        for (_, places) in of_groups.take_while(|(identity, _)| single && identity.starts_with(&begins)) {
            places.remove(id);
        }
    }

    /// The machine is off: nothing runs on it.
    pub fn stop_engine(&mut self, node: usize) {
        let at = self.work.wall(node, self.queue.now());
        let engine = &mut self.work.desks[node].engine;
        for container in engine.containers.values_mut() {
            if let RunState::Running { started_at } = container.state {
                container.state = RunState::Exited(exit(KILLED, started_at, at));
            }
        }
        for places in self.work.identities.values_mut() {
            places.retain(|_, at| *at != node);
        }
    }

    fn check_identity(&mut self, identity: &str) {
        let now = self.queue.now();
        let Some(places) = self.work.identities.get(identity) else { return };
        let runs =
            |node: &usize| !self.machines[*node].asleep && now >= self.work.desks[*node].woke_at + AWAKE;
        let running: Vec<(&String, usize)> =
            places.iter().filter(|(_, node)| runs(node)).map(|(id, node)| (id, *node)).collect();
        if running.len() > 1 {
            let what = format!("{identity} runs as {running:?} at once");
            self.violated("an identity runs at most once", what);
        }
    }

    /// Identities on a desktop that has been awake for a moment.
    pub fn check_identities_of(&mut self, node: usize) {
        let here: Vec<String> = self
            .work
            .identities
            .iter()
            .filter(|(_, places)| places.len() > 1 && places.values().any(|at| *at == node))
            .map(|(identity, _)| identity.clone())
            .collect();
        here.iter().for_each(|identity| self.check_identity(identity));
    }
}

fn exit(code: i32, started_at: Timestamp, finished_at: Timestamp) -> Exit {
    Exit { code, oom_killed: false, started_at: Some(started_at), finished_at, error: String::new() }
}
