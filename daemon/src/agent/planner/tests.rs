//! The planner against a small world: an engine that does what it is told, and containers that end as they like.

use super::*;
use crate::agent::engine::{Exit, Image, RunState};
use crate::agent::identity::Owner;
use crate::agent::spec::Desktop;
use gaggle_sched::state::Store;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use proptest::prelude::*;
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

#[test]
fn a_pod_comes_up_and_says_so() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    let first = world.step();
    assert!(matches!(first.actions[..], [Action::StartSandbox { .. }]), "{:?}", first.actions);
    assert_eq!(first.status.phase.as_deref(), Some("Pending"));
    assert_eq!(waiting(&first.status, "a"), "ContainerCreating");
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("172.17.0.9"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    for type_ in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"] {
        assert_eq!(condition(&status, type_), "True", "{type_}");
    }
    assert!(container(&status, "a").ready && container(&status, "a").started == Some(true));
}

#[test]
fn restart_policies_decide_what_an_end_means() {
    for (policy, code, phase, restarts) in [
        ("Never", 0, "Succeeded", false),
        ("Never", 1, "Failed", false),
        ("OnFailure", 0, "Succeeded", false),
        ("OnFailure", 1, "Running", true),
        ("Always", 0, "Running", true),
        ("Always", 1, "Running", true),
    ] {
        let mut world = World::new(containers(&["a"], policy));
        world.rest();
        world.wait(3);
        world.exit("a", code);
        let status = world.rest();
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
        assert_eq!(world.starts.len(), 1 + usize::from(restarts), "{policy} {code}");
        if !restarts {
            assert_eq!(world.sandboxes(), 0, "a finished pod needs no sandbox");
            assert_eq!(world.observed.len(), 1, "but its container stays for its log");
            world.wait(100_000);
            assert_eq!(world.rest().phase.as_deref(), Some(phase));
            assert_eq!(world.starts.len(), 1);
        }
    }
}

#[test]
fn crashes_back_off_and_a_good_run_forgives() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    for (crash, delay) in [0, 10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        world.wait(1);
        world.exit("a", 1);
        let status = world.rest();
        if delay > 0 {
            assert_eq!(waiting(&status, "a"), "CrashLoopBackOff", "{crash}");
            let last = container(&status, "a").last_state.as_ref().unwrap().terminated.as_ref().unwrap();
            assert_eq!(last.exit_code, 1);
            world.wait(delay - 1);
            world.rest();
            assert_eq!(world.starts.len(), crash + 1, "not before {delay} s");
            world.wait(1);
            world.rest();
        }
        assert_eq!(world.starts.len(), crash + 2);
    }
    world.wait(600);
    world.exit("a", 1);
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "", "after ten good minutes it is restarted at once");
    assert_eq!(container(&status, "a").restart_count, 9);
    assert_eq!(
        world.observed.iter().filter(|o| o.role != Role::Sandbox).count(),
        2,
        "the one before is kept"
    );
}

#[test]
fn init_containers_go_first_and_in_order() {
    let mut spec = containers(&["main"], "Never");
    spec["initContainers"] = json!([
        {"name": "one", "image": "app:1"},
        {"name": "side", "image": "app:1", "restartPolicy": "Always"},
        {"name": "two", "image": "app:1"},
    ]);
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!(waiting(&status, "main"), "PodInitializing");
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&status, "Initialized"), "False");
    world.exit("one", 0);
    world.rest();
    world.exit("two", 0);
    let status = world.rest();
    let names: Vec<_> = world.starts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "side", "two", "main"]);
    assert_eq!(condition(&status, "Initialized"), "True");
    world.exit("main", 0);
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "the sidecar is stopped and does not count");
    assert!(world.observed.iter().all(|observed| !observed.is_running()));
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut spec = containers(&["main"], "Never");
    spec["initContainers"] = json!([{"name": "one", "image": "app:1"}]);
    let mut world = World::new(spec);
    world.rest();
    world.exit("one", 2);
    assert_eq!(world.rest().phase.as_deref(), Some("Failed"));
    assert_eq!(world.starts.len(), 1);
    assert_eq!(world.sandboxes(), 0);
}

#[test]
fn deletion_stops_removes_and_forgets() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    world.rest();
    world.exit("b", 1);
    world.delete();
    let plan = world.step();
    assert!(
        matches!(&plan.actions[..], [Action::Stop { container, grace, .. }] if container == "a" && grace.as_secs() == 5),
        "{:?}",
        plan.actions
    );
    world.rest();
    assert!(world.forgotten && world.observed.is_empty());
}

#[test]
fn a_shorter_grace_period_is_obeyed() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    let id = world.observed.iter().find(|observed| observed.role != Role::Sandbox).unwrap().id.clone();
    world.delete();
    world.memory.stopping.insert(id, at(300));
    assert_eq!(world.plan().actions.len(), 1);
    world.memory.stopping.values_mut().for_each(|deadline| *deadline = at(5));
    assert_eq!(world.plan().actions, vec![], "it is under way");
}

#[test]
fn a_lost_sandbox_is_made_anew_with_its_containers() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    world.wait(5);
    world.end(|observed| observed.role == Role::Sandbox, 137);
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(world.starts.len(), 2);
    assert_eq!(world.sandboxes(), 1);
    assert_eq!(container(&status, "a").restart_count, 1);
}

#[test]
fn what_the_engine_lost_has_failed_and_is_not_run_twice() {
    let mut world = World::new(containers(&["a"], "Never"));
    world.rest();
    world.observed.clear();
    world.memory = Memory::new(at(9));
    let status = world.rest();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let terminated = container(&status, "a").state.clone().unwrap().terminated.unwrap();
    assert_eq!((terminated.exit_code, terminated.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!(world.starts.len(), 1);
}

#[test]
fn images_are_pulled_as_the_policy_says() {
    for (image, policy, pulls, reason) in [
        ("app:1", None, false, "ContainerCreating"),
        ("app:1", Some("Always"), true, "ContainerCreating"),
        ("app:1", Some("Never"), false, "ContainerCreating"),
        ("other:1", None, true, "ContainerCreating"),
        ("other:1", Some("Never"), false, "ErrImageNeverPull"),
        ("other", Some("IfNotPresent"), true, "ContainerCreating"),
        ("bad name", None, false, "InvalidImageName"),
    ] {
        let mut spec = containers(&["a"], "Always");
        spec["containers"][0]["image"] = json!(image);
        spec["containers"][0]["imagePullPolicy"] = json!(policy);
        let plan = World::new(spec).plan();
        let pulled = plan.actions.iter().any(|action| matches!(action, Action::Pull { .. }));
        assert_eq!((pulled, waiting(&plan.status, "a").as_str()), (pulls, reason), "{image} {policy:?}");
    }
}

#[test]
fn a_failed_pull_backs_off_and_recovers() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["image"] = json!("other:1");
    let mut world = World::new(spec);
    world.pulls_fail = true;
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "ErrImagePull");
    world.wait(4);
    let plan = world.step();
    assert_eq!(waiting(&plan.status, "a"), "ImagePullBackOff");
    assert_eq!(plan.wake_at, Some(at(10)));
    world.pulls_fail = false;
    let image = Image { id: "sha256:o".into(), names: vec!["other:1".into()], digests: vec![], bytes: 1 };
    world.images = ImageIndex::new(&[image]);
    assert_eq!(world.rest().phase.as_deref(), Some("Running"));
}

#[test]
fn a_missing_config_map_is_named_until_it_is_there() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!(waiting(&status, "a"), "CreateContainerConfigError");
    let state = container(&status, "a").state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().message.as_deref(), Some("configmap \"settings\" not found"));
    let key = gaggle_sched::state::Key::of::<k8s_openapi::api::core::v1::ConfigMap>("default", "settings");
    let value = json!({"metadata": {"name": "settings", "uid": "s"}, "data": {"A": "1"}});
    let write = gaggle_sched::state::Write::Put {
        key,
        value,
        expect: gaggle_sched::state::Expect::Any,
        intent: None,
    };
    world.store.apply(&write.into()).unwrap();
    assert_eq!(world.rest().phase.as_deref(), Some("Running"));
}

#[test]
fn an_active_deadline_ends_a_pod() {
    let mut spec = containers(&["a"], "Always");
    spec["activeDeadlineSeconds"] = json!(60);
    let mut world = World::new(spec);
    world.rest();
    assert_eq!(world.plan().wake_at, Some(at(60)));
    world.wait(60);
    let status = world.rest();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
    assert!(world.observed.iter().all(|observed| !observed.is_running()));
    assert_eq!(world.rest().reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn an_unhealthy_container_is_restarted_and_an_unready_one_is_not_ready() {
    let mut spec = containers(&["a"], "Always");
    spec["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}});
    spec["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 80}});
    let mut world = World::new(spec);
    let status = world.rest();
    assert_eq!((status.phase.as_deref(), condition(&status, "Ready")), (Some("Running"), "False"));
    let id = world.observed.iter().find(|observed| observed.role != Role::Sandbox).unwrap().id.clone();
    world.memory.health.insert(id.clone(), Health { started: true, ready: true, failed: None });
    assert_eq!(condition(&world.rest(), "Ready"), "True");
    let failed = Some("Container a failed liveness probe, will be restarted".to_owned());
    world.memory.health.insert(id, Health { started: true, ready: true, failed });
    world.rest();
    assert_eq!(world.starts.len(), 2);
}

#[test]
fn a_changed_image_restarts_its_container_only() {
    let mut world = World::new(containers(&["a", "b"], "Always"));
    world.rest();
    world.wait(1);
    world.pod.spec.as_mut().unwrap().containers[0].image = Some("app:2".into());
    let image = |tag: &str| Image {
        id: format!("sha256:{tag}"),
        names: vec![format!("app:{tag}")],
        digests: vec![],
        bytes: 1,
    };
    world.images = ImageIndex::new(&[image("1"), image("2")]);
    world.rest();
    let names: Vec<_> = world.starts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "a"]);
}

#[test]
fn orphans_are_stopped_before_they_are_removed() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    let actions = clear_away(world.observed.iter(), &world.memory);
    assert!(matches!(&actions[..], [Action::Stop { .. }]), "{actions:?}");
    actions.into_iter().for_each(|action| world.perform(action));
    let actions = clear_away(world.observed.iter(), &world.memory);
    assert_eq!(actions.len(), 2);
    assert!(actions.iter().all(|action| matches!(action, Action::Remove { .. })));
}

#[test]
fn conditions_of_others_stay_and_times_move_only_with_the_status() {
    let mut world = World::new(containers(&["a"], "Always"));
    let gate =
        json!([{"type": "PodScheduled", "status": "True"}, {"type": "example.com/gate", "status": "True"}]);
    world.pod.status.as_mut().unwrap().conditions = serde_json::from_value(gate).unwrap();
    world.rest();
    world.wait(50);
    let status = world.rest();
    assert_eq!(condition(&status, "example.com/gate"), "True");
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.last_transition_time.unwrap().0, at(0));
}

#[test]
fn notes_tell_of_back_offs_once() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    world.exit("a", 1);
    let before = world.rest();
    world.exit("a", 1);
    let after = world.rest();
    let notes = notes_between(Some(&before), &after);
    assert_eq!(
        notes,
        [PodNote::warning("BackOff", "Back-off restarting failed container a in pod web_default(u1)")]
    );
    assert_eq!(notes_between(Some(&after), &after), []);
}

/// Something that happens to a pod.
#[derive(Clone, Debug)]
enum Happening {
    Exit(usize, i32),
    Wait(i64),
    SandboxDies,
    EngineForgets(usize),
    DaemonRestarts,
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..3usize, 0..2i32).prop_map(|(which, code)| Happening::Exit(which, code)),
        4 => (1..400i64).prop_map(Happening::Wait),
        1 => Just(Happening::SandboxDies),
        1 => (0..6usize).prop_map(Happening::EngineForgets),
        1 => Just(Happening::DaemonRestarts),
        1 => Just(Happening::Delete),
    ]
}

proptest! {
    /// Whatever happens: the planner comes to rest, says the same when asked twice, keeps to its own containers
    /// (checked in `perform`), never runs two of a kind, never starts what is over, and a deleted pod goes.
    #[test]
    fn whatever_happens_the_pod_comes_to_rest(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        with_init in any::<bool>(),
        happenings in proptest::collection::vec(happening(), 0..25),
    ) {
        let mut spec = containers(&["a", "b"], policy);
        if with_init {
            spec["initContainers"] = json!([{"name": "i", "image": "app:1"}]);
        }
        let mut world = World::new(spec);
        let mut over: Option<String> = None;
        let mut forgets = false;
        for happening in happenings {
            match happening {
                Happening::Exit(which, code) => world.exit(["a", "b", "i"][which], code),
                Happening::Wait(seconds) => world.wait(seconds),
                Happening::SandboxDies => world.end(|observed| observed.role == Role::Sandbox, 137),
                Happening::EngineForgets(which) if which < world.observed.len() => {
                    let lost = world.observed.remove(which);
                    world.memory.gone(&lost.id);
                    forgets = true;
                }
                Happening::EngineForgets(_) => {}
                Happening::DaemonRestarts => world.memory = Memory::new(world.now),
                Happening::Delete => world.delete(),
            }
            let starts = world.starts.len();
            prop_assert_eq!(world.plan(), world.plan());
            let status = world.rest();
            if world.forgotten {
                prop_assert!(world.observed.is_empty());
                break;
            }
            if let Some(over) = &over {
                prop_assert_eq!(status.phase.as_ref(), Some(over), "a finished pod stays finished");
                prop_assert_eq!(world.starts.len(), starts, "and starts nothing");
            }
            over = status.phase.filter(|phase| phase == "Succeeded" || phase == "Failed").or(over);
            if policy == "Never" && !forgets {
                for name in ["a", "b", "i"] {
                    let times = world.starts.iter().filter(|(started, _)| started == name).count();
                    prop_assert!(times <= 1, "{} was started {} times", name, times);
                }
            }
        }
        // A deletion ends it whatever came before.
        world.delete();
        world.rest();
        prop_assert!(world.forgotten && world.observed.is_empty());
    }

    /// A container that always fails is tried for ever, but not more often than the back-off allows.
    #[test]
    fn back_off_is_bounded(runs_s in proptest::collection::vec(0..30i64, 30)) {
        let mut world = World::new(containers(&["a"], "OnFailure"));
        world.rest();
        for (crash, run) in runs_s.into_iter().enumerate() {
            world.wait(run);
            world.exit("a", 1);
            let ended = world.now;
            world.rest();
            while world.starts.len() < crash + 2 {
                let wake = world.plan().wake_at.expect("it is tried again");
                prop_assert!(wake > world.now, "no busy waiting");
                world.now = wake;
                world.rest();
            }
            let waited = world.now.duration_since(ended).as_secs();
            prop_assert!(waited <= 300);
            prop_assert!(crash < 7 || waited == 300);
        }
    }
}
