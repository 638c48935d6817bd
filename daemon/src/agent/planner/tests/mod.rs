//! The planner against a small world: an engine that does what it is told, and containers that end as they like.

mod ending;
mod ephemeral;
mod properties;
mod restarts;
mod starting;
mod telling;

use super::*;
use crate::agent::engine::{Exit, Image, RunState};
use crate::agent::identity::Owner;
use crate::agent::spec::Desktop;
use gaggle_sched::state::Store;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};
use std::path::PathBuf;

struct World {
    pod: Pod,
    store: Store,
    owner: Owner,
    desktop: Desktop,
    images: ImageIndex,
    observed: Vec<Observed>,
    memory: Memory,
    now: Timestamp,
    ids: u32,
    forgotten: bool,
    /// Container names in the order of their starts, and when.
    starts: Vec<(String, Timestamp)>,
    pulls_fail: bool,
    may: May,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": spec,
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
    }))
    .unwrap()
}

fn containers(names: &[&str], policy: &str) -> Value {
    let containers: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "app:1"})).collect();
    json!({"restartPolicy": policy, "containers": containers})
}

impl World {
    fn new(spec: Value) -> Self {
        let image = Image { id: "sha256:app".into(), names: vec!["app:1".into()], digests: vec![], bytes: 1 };
        Self {
            pod: pod(spec),
            store: Store::default(),
            owner: Owner { cluster: "lab".into(), node: "ada".into() },
            desktop: Desktop {
                host_ips: vec!["10.0.0.1".into()],
                cpus: 4,
                memory_bytes: 8 << 30,
                ..Desktop::default()
            },
            images: ImageIndex::new(&[image]),
            observed: vec![],
            memory: Memory::new(at(0)),
            now: at(0),
            ids: 0,
            forgotten: false,
            starts: vec![],
            pulls_fail: false,
            may: May::Run,
        }
    }

    fn plan(&self) -> Plan {
        let ips =
            self.observed.iter().find(|observed| observed.role == Role::Sandbox && observed.is_running());
        let ips = ips.map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        plan(&Input {
            context: Context {
                pod: &self.pod,
                store: &self.store,
                owner: &self.owner,
                desktop: &self.desktop,
                pod_ips: &ips,
                dir: &PathBuf::from("/pods/u1"),
            },
            observed: &self.observed,
            memory: &self.memory,
            images: &self.images,
            may: self.may,
            now: self.now,
        })
    }

    /// Plans once and does what the plan says, as the shell would.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.memory.status = Some(plan.status.clone());
        self.pod.status = Some(plan.status.clone());
        for action in plan.actions.clone() {
            self.perform(action);
        }
        plan
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::StartSandbox { spec } => self.run(&spec.labels, Role::Sandbox),
            Action::StartContainer { name, restart_count, spec, .. } => {
                let role = Role::Container(name.clone());
                let before = self.observed.iter().filter(|observed| observed.role == role);
                let ran =
                    before.max_by_key(|observed| observed.restart_count).and_then(|observed| match &observed
                        .state
                    {
                        RunState::Exited(exit) => {
                            Duration::try_from(exit.finished_at.duration_since(exit.started_at?)).ok()
                        }
                        _ => None,
                    });
                self.memory.restarted(&name, restart_count, ran);
                self.starts.push((name, self.now));
                self.run(&spec.labels, role);
            }
            Action::Pull { container, restart_count, .. } => {
                self.memory.pull_begun(&container, restart_count);
                let result = if self.pulls_fail { Err("no way".to_owned()) } else { Ok(()) };
                self.memory.pull_ended(&container, restart_count, result, self.now);
            }
            Action::Stop { id, .. } => self.end(|observed| observed.id == id, 143),
            Action::Remove { id, .. } => {
                assert!(self.observed.iter().any(|observed| observed.id == id), "{id} is not the pod's");
                self.observed.retain(|observed| observed.id != id);
                self.memory.gone(&id);
            }
            Action::Forget => self.forgotten = true,
        }
    }

    fn run(&mut self, labels: &BTreeMap<String, String>, role: Role) {
        self.ids += 1;
        let found = crate::agent::engine::Found {
            id: format!("c{}", self.ids),
            labels: labels.clone(),
            image_id: "sha256:app".into(),
            state: RunState::Running { started_at: self.now },
            ips: if role == Role::Sandbox { vec!["172.17.0.9".into()] } else { vec![] },
        };
        let observed = self.owner.recognise(found).expect("what is made is recognised");
        assert_eq!(observed.role, role);
        assert!(
            !self.observed.iter().any(|other| other.role == role && other.is_running()),
            "two of {role:?} run at once"
        );
        self.observed.push(observed);
    }

    fn end(&mut self, which: impl Fn(&Observed) -> bool, code: i32) {
        for observed in self.observed.iter_mut().filter(|observed| which(observed)) {
            let RunState::Running { started_at } = observed.state else { continue };
            observed.state = RunState::Exited(Exit {
                code,
                oom_killed: false,
                started_at: Some(started_at),
                finished_at: self.now,
                error: String::new(),
            });
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        self.end(|observed| observed.role == Role::Container(name.to_owned()), code);
    }

    /// Steps until there is nothing to do.
    fn rest(&mut self) -> PodStatus {
        const ENOUGH: usize = 40;
        for _ in 0..ENOUGH {
            let plan = self.step();
            if plan.actions.is_empty() || self.forgotten {
                return plan.status;
            }
        }
        panic!("never at rest: {:?}", self.plan().actions);
    }

    fn wait(&mut self, seconds: i64) {
        self.now = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
    }

    fn delete(&mut self) {
        self.pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(5);
    }

    fn sandboxes(&self) -> usize {
        self.observed.iter().filter(|observed| observed.role == Role::Sandbox).count()
    }
}

fn container<'s>(status: &'s PodStatus, name: &str) -> &'s ContainerStatus {
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
    statuses.flatten().find(|status| status.name == name).unwrap()
}

fn waiting(status: &PodStatus, name: &str) -> String {
    let state = container(status, name).state.clone().unwrap();
    state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default()
}

fn condition<'s>(status: &'s PodStatus, type_: &str) -> &'s str {
    let conditions = status.conditions.as_ref().unwrap();
    &conditions.iter().find(|condition| condition.type_ == type_).unwrap().status
}
