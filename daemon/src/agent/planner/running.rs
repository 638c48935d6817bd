//! The next step of a pod that should run.

use super::backoff::{after, delay};
use super::standing::{Current, Ended, PodStanding, Standing};
use super::{Action, Draft, Input, Verdict, Waiting, ending, images};
use crate::agent::identity::spec_hash;
use crate::agent::spec::{self, MessageFile, Volume, is_sidecar};
use k8s_openapi::api::core::v1::Container;

/// Starts what should run, restarts what should run again, and winds up what is finished.
pub fn carry_on(input: &Input, pod: &PodStanding, draft: &mut Draft) {
    tidy(pod, draft);
    if sandbox_is_lost(input, pod, draft) {
        return;
    }
    restart_unwell(input, pod, draft);
    let finished = |standing: &Standing| matches!(&standing.current, Current::Ended(ended) if !restarts(input, &standing.container, ended));
    let init_failed = pod.init.iter().any(|init| {
        !is_sidecar(&init.container)
            && matches!(&init.current, Current::Ended(ended) if !ended.succeeded())
            && finished(init)
    });
    if init_failed || (!pod.main.is_empty() && pod.main.iter().all(finished)) {
        ending::leave_finished(input, pod, draft);
        return;
    }
    let mut starts = Starts { input, pod, draft, volumes: None, needs_sandbox: false };
    // What is to look into a pod that does not come up must not wait for it.
    for standing in &pod.ephemeral {
        starts.bring_up(standing);
    }
    if starts.initialise() {
        for standing in &pod.main {
            starts.bring_up(standing);
        }
    }
    let needs_sandbox = starts.needs_sandbox;
    if needs_sandbox && pod.sandbox.is_none() {
        start_sandbox(input, pod, draft);
    }
}

/// Whether a container that ended is to run again.
pub fn restarts(input: &Input, container: &Container, ended: &Ended) -> bool {
    let spec = input.context.pod.spec.as_ref();
    if spec.is_some_and(|spec| spec::is_ephemeral(spec, &container.name)) {
        return false;
    }
    if ended.spec_hash.as_ref().is_some_and(|hash| !hash.is_empty() && *hash != spec_hash(container)) {
        return true;
    }
    if is_sidecar(container) {
        return true;
    }
    let is_init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let is_init = is_init.into_iter().any(|init| init.name == container.name);
    match spec.and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => false,
        Some("OnFailure") => !ended.succeeded(),
        _ => !(is_init && ended.succeeded()),
    }
}

/// Removes what a newer one has replaced; the newest that ended is kept for `logs --previous`.
fn tidy(pod: &PodStanding, draft: &mut Draft) {
    let mut surplus: Vec<_> = pod.old_sandboxes.clone();
    for standing in pod.all() {
        let kept = usize::from(!standing.is_absent());
        surplus.extend(standing.older.iter().rev().skip(kept).filter(|older| !older.is_running()));
    }
    for observed in surplus {
        // The memory volumes are the newer one's too.
        draft.actions.push(Action::Remove { id: observed.id.clone(), volumes: Vec::new() });
    }
}

/// A sandbox that ended (the engine was restarted, the desktop rebooted) takes its network with it: what still
/// runs in it is stopped, and the pod goes on in a new one.
fn sandbox_is_lost(input: &Input, pod: &PodStanding, draft: &mut Draft) -> bool {
    let mut running = pod.running().peekable();
    match pod.sandbox {
        Some(sandbox) if sandbox.is_running() => return false,
        None if running.peek().is_none() => return false,
        Some(sandbox) if running.peek().is_none() => {
            draft.actions.push(Action::Remove { id: sandbox.id.clone(), volumes: Vec::new() });
        }
        _ => {
            for (container, observed) in running {
                let why = "Pod sandbox changed, it will be killed and re-created.";
                ending::stop(input, container, observed, why, draft);
            }
        }
    }
    for standing in pod.all().filter(|standing| !matches!(standing.current, Current::Ended(_))) {
        draft.waiting.insert(standing.container.name.clone(), Waiting::new("ContainerCreating", ""));
    }
    true
}

/// Stops containers that fail their liveness probe or whose image was changed; their end restarts them.
fn restart_unwell(input: &Input, pod: &PodStanding, draft: &mut Draft) {
    for (container, observed) in pod.running() {
        let failed = input.memory.health.get(&observed.id).and_then(|health| health.failed.clone());
        if let Some(why) = failed {
            ending::stop(input, container, observed, &why, draft);
        } else if !observed.spec_hash.is_empty() && observed.spec_hash != spec_hash(container) {
            let why = format!("Container {} definition changed, will be restarted", container.name);
            ending::stop(input, container, observed, &why, draft);
        }
    }
}

fn start_sandbox(input: &Input, pod: &PodStanding, draft: &mut Draft) {
    if let Some(refusal) = input.memory.refusals.get(&None)
        && input.now < refusal.retry_at()
    {
        draft.wake(refusal.retry_at());
        return;
    }
    // A pod that ran before has its sandbox's number in no label any more; the containers' numbers do.
    let count = pod.all().map(Standing::next_count).max().unwrap_or_default();
    // Without its volumes a pod does not start at all.
    if let Ok(spec) = spec::volumes(&input.context).and_then(|_| spec::sandbox(&input.context, count)) {
        draft.actions.push(Action::StartSandbox { spec: Box::new(spec) });
    }
}

/// Whether what must have started before the next container has.
pub fn has_started(input: &Input, standing: &Standing) -> bool {
    let Current::Running { observed, .. } = standing.current else { return false };
    standing.container.startup_probe.is_none()
        || input.memory.health.get(&observed.id).is_some_and(|health| health.started)
}

struct Starts<'d, 'a> {
    input: &'d Input<'a>,
    pod: &'d PodStanding<'a>,
    draft: &'d mut Draft,
    volumes: Option<Vec<Volume>>,
    needs_sandbox: bool,
}

impl Starts<'_, '_> {
    /// Brings the init containers up in order; true once all have done their part.
    fn initialise(&mut self) -> bool {
        let pod = self.pod;
        // Once a main container has been made, those before it have ended well, also if they are gone by now.
        let passed = pod.main.iter().any(|main| !main.is_absent());
        for standing in &pod.init {
            let done = match &standing.current {
                _ if is_sidecar(&standing.container) => {
                    self.bring_up(standing);
                    has_started(self.input, standing)
                }
                _ if passed => true,
                Current::Ended(ended)
                    if ended.succeeded() && !restarts(self.input, &standing.container, ended) =>
                {
                    true
                }
                _ => {
                    self.bring_up(standing);
                    false
                }
            };
            if !done && !passed {
                self.not_yet();
                return false;
            }
        }
        true
    }

    /// Everything that has not had its turn waits for the init containers.
    fn not_yet(&mut self) {
        for standing in self.pod.all().filter(|standing| standing.is_absent()) {
            let waiting = Waiting::new("PodInitializing", "");
            self.draft.waiting.entry(standing.container.name.clone()).or_insert(waiting);
        }
    }

    fn bring_up(&mut self, standing: &Standing) {
        match &standing.current {
            Current::Running { .. } => {}
            // Left behind by a start that did not come to its end.
            Current::Created(observed) => {
                self.draft.actions.push(Action::Remove { id: observed.id.clone(), volumes: Vec::new() });
                self.wait(standing, Waiting::new("ContainerCreating", ""));
            }
            Current::Absent => self.start(standing),
            Current::Ended(ended) => {
                if restarts(self.input, &standing.container, ended) && !self.backing_off(standing, ended) {
                    self.start(standing);
                }
            }
        }
    }

    fn wait(&mut self, standing: &Standing, waiting: Waiting) {
        self.draft.waiting.insert(standing.container.name.clone(), waiting);
    }

    fn backing_off(&mut self, standing: &Standing, ended: &Ended) -> bool {
        let name = &standing.container.name;
        let crashes = self.input.memory.crashes_in_a_row(name, ended.restart_count, ended.ran());
        // The first restart is at once; an end whose time nobody knows is not waited for.
        let (Some(finished_at), true) = (ended.finished_at(), crashes > 0) else { return false };
        let until = after(finished_at, delay(crashes));
        // An end that is still to come says that the clock was set back: how long ago it was is not known then.
        if self.input.now >= until || self.input.now < finished_at {
            return false;
        }
        self.draft.wake(until);
        let pod = &self.input.context.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let message = format!(
            "back-off {} restarting failed container={name} pod={}_{}({})",
            readable(delay(crashes).as_secs()),
            text(&pod.name),
            text(&pod.namespace),
            text(&pod.uid)
        );
        self.wait(standing, Waiting::new("CrashLoopBackOff", message));
        true
    }

    fn start(&mut self, standing: &Standing) {
        let (container, count) = (&*standing.container, standing.next_count());
        let sandbox_wanted = self.pod.sandbox.is_none();
        if let Err(waiting) = images::ready(self.input, container, count, self.draft) {
            // The image comes while the sandbox starts.
            self.needs_sandbox |= waiting.reason == "ContainerCreating";
            self.wait(standing, waiting);
            return;
        }
        if let Some(refusal) = self.input.memory.refusals.get(&Some(container.name.clone()))
            && self.input.now < refusal.retry_at()
        {
            self.draft.wake(refusal.retry_at());
            let waiting = Waiting::new(refusal.reason, refusal.message.clone());
            self.wait(standing, waiting);
            return;
        }
        if self.volumes.is_none() {
            match spec::volumes(&self.input.context) {
                Ok(volumes) => self.volumes = Some(volumes),
                // As the kubelet does: the pod waits for its volumes, with a FailedMount event.
                Err(error) => {
                    self.wait(
                        standing,
                        Waiting::new("ContainerCreating", format!("MountVolume.SetUp failed: {error}")),
                    );
                    return;
                }
            }
        }
        let volumes = self.volumes.as_deref().unwrap_or_default();
        let sandbox = self.pod.sandbox.map_or("", |sandbox| sandbox.id.as_str());
        let built = spec::container(&self.input.context, container, volumes, sandbox, count);
        match built {
            Err(error) => {
                self.wait(standing, Waiting::new("CreateContainerConfigError", error.to_string()));
                self.needs_sandbox = true;
            }
            Ok(_) if sandbox_wanted => {
                self.needs_sandbox = true;
                let refusal = self.input.memory.refusals.get(&None);
                let message = refusal.map(|refusal| refusal.message.clone()).unwrap_or_default();
                self.wait(standing, Waiting::new("ContainerCreating", message));
            }
            Ok(mut spec) => {
                match self.process_namespace(&container.name) {
                    Ok(namespace) => spec.pid = namespace.or(spec.pid),
                    Err(waiting) => return self.wait(standing, waiting),
                }
                self.draft.actions.push(Action::StartContainer {
                    name: container.name.clone(),
                    restart_count: count,
                    spec: Box::new(spec),
                    volumes: volumes.to_vec(),
                    message: MessageFile::of(self.input.context.dir, &container.name, count),
                });
                self.wait(standing, Waiting::new("ContainerCreating", ""));
            }
        }
    }

    /// Whose processes a container is to see, where that is another one's.
    fn process_namespace(&self, name: &str) -> Result<Option<String>, Waiting> {
        let spec = self.input.context.pod.spec.as_ref();
        let Some(target) = spec.and_then(|spec| spec::process_target(spec, name)) else { return Ok(None) };
        let mut running = self.pod.running();
        let found = running.find(|(container, _)| container.name == target);
        let missing =
            || Waiting::new("CreateContainerError", format!("the target container {target} does not run"));
        found.map(|(_, observed)| Some(format!("container:{}", observed.id))).ok_or_else(missing)
    }
}

/// Seconds as Kubernetes' messages write them: `10s`, `2m40s`, `5m0s`.
fn readable(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// The pod failed as a whole.
pub fn deadline_verdict() -> Verdict {
    Verdict {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    }
}
