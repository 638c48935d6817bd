//! Planning what changed, and handing out what the plans say: actions to tasks, statuses to the group.

use super::entry::{Entry, Wanted};
use super::{Outcome, PROPOSALS_AT_ONCE, Shell, probes};
use crate::agent::engine::RunState;
use crate::agent::files::{self, Renew};
use crate::agent::hold::May;
use crate::agent::identity::{Role, attempt_of};
use crate::agent::offer::{self, Offer};
use crate::agent::planner::{self, Action, Input, PodNote, note_for, notes_between};
use crate::agent::spec::{self, Context, Source, find_container};
use futures::FutureExt;
use gaggle_sched::controller::deletion;
use gaggle_sched::state::{Txn, Write};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// The wait after a status could not be ordered, doubled each time.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Tokens are written anew at least so often, however long they are good for.
const LONGEST_RENEWAL: Duration = Duration::from_secs(24 * 3600);
/// When to look again whether a pod without tokens has some.
const LOOK_AGAIN_S: u64 = 600;

impl Shell {
    /// Plans every pod that something changed for.
    pub fn settle(&mut self) {
        // Without an engine nothing is known, so nothing is said.
        if self.linked.is_none() {
            return;
        }
        let now = Timestamp::now();
        for uid in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entries.get(&uid) else { continue };
            match entry.wanted.clone() {
                Some(wanted) => self.settle_pod(&uid, &wanted, now),
                None if self.knows_all_wanted() => self.settle_orphan(&uid, now),
                None => self.settle_held(&uid, now),
            }
        }
        self.sweep();
    }

    fn settle_pod(&mut self, uid: &str, wanted: &Wanted, now: Timestamp) {
        let dir = self.pod_dir(uid);
        let Some(entry) = self.entries.get(uid) else { return };
        // The containers tell of a newer binding than the view: what it wants is not known here yet.
        if attempt_of(&wanted.pod) < entry.attempt {
            return self.settle_held(uid, now);
        }
        let may = self.inputs.hold.may(entry.is_single());
        let observed: Vec<_> = entry.containers.values().cloned().collect();
        let sandbox_ips =
            observed.iter().filter(|observed| observed.role == Role::Sandbox && observed.is_running());
        let mut pod_ips =
            sandbox_ips.max_by_key(|sandbox| sandbox.restart_count).map(|sandbox| sandbox.ips.clone());
        if wanted.pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
            pod_ips = Some(self.desktop.host_ips.clone());
        }
        let plan = self.inputs.view.read(|store| {
            planner::plan(&Input {
                context: Context {
                    pod: &wanted.pod,
                    store,
                    owner: &self.inputs.owner,
                    desktop: &self.desktop,
                    pod_ips: pod_ips.as_deref().unwrap_or_default(),
                    dir: &dir,
                },
                observed: &observed,
                memory: &entry.memory,
                images: &self.images,
                may,
                now,
            })
        });
        let before = entry.memory.status.as_ref().or(wanted.pod.status.as_ref());
        let notes: Vec<_> =
            notes_between(before, &plan.status).into_iter().map(|note| note_for(&entry.id, note)).collect();
        notes.into_iter().for_each(|note| self.note(note));
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.memory.status = Some(plan.status);
        entry.wake_at = plan.wake_at;
        self.act(uid, plan.actions, now);
        self.watch_health(uid, &wanted.pod);
        self.renew(uid, &wanted.pod, pod_ips.as_deref().unwrap_or_default(), now);
        self.propose(uid);
    }

    /// Writes the files of a pod that runs anew: when what they hold has changed, and tokens long before they expire, so that
    /// a second try still comes in time.
    fn renew(&mut self, uid: &str, pod: &Pod, pod_ips: &[String], now: Timestamp) {
        let dir = self.pod_dir(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let runs = entry.containers.values().any(|observed| observed.is_running());
        let tokens_due = entry.renew_at.is_none_or(|at| now >= at);
        // Whoever is at work on its containers writes files as well, and is followed by another look.
        if !runs || entry.busy || !(tokens_due || entry.outdated) {
            return;
        }
        entry.outdated = false;
        let volumes = self.inputs.view.read(|store| {
            spec::present_volumes(&Context {
                pod,
                store,
                owner: &self.inputs.owner,
                desktop: &self.desktop,
                pod_ips,
                dir: &dir,
            })
        });
        if tokens_due {
            let shortest = files::token_wishes(&volumes).map(|wish| wish.seconds).min();
            let wait =
                Duration::from_secs(shortest.map_or(LOOK_AGAIN_S, |seconds| u64::from(seconds) * 2 / 5))
                    .min(LONGEST_RENEWAL);
            entry.renew_at = Some(now.checked_add(wait).unwrap_or(Timestamp::MAX));
        }
        if !volumes.iter().any(|volume| matches!(volume.source, Source::Files { .. })) {
            return;
        }
        let which = if tokens_due { Renew::All } else { Renew::Contents };
        let upkeep = entry.upkeep.clone();
        if !upkeep.note(volumes, which) {
            return;
        }
        let (tokens, pod) = (self.inputs.tokens.clone(), entry.id.name.clone());
        self.tasks.spawn_blocking(move || {
            if let Err(error) = upkeep.renew(&*tokens) {
                tracing::warn!(error = %error.full(), pod, "a pod's files are not renewed");
            }
        });
    }

    /// Offers a pod of a group that yielded to the one that is followed now; `false` if it is to end.
    fn offer(&mut self, uid: &str, now: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(uid) else { return false };
        let Some((last, until)) = entry.offered.clone().filter(|_| !entry.containers.is_empty()) else {
            return false;
        };
        let status = entry.memory.status.as_ref();
        let made = self.inputs.view.read(|store| offer::offer(store, &last, status, &self.inputs.owner));
        if made == Offer::Never || now >= until {
            tracing::info!(pod = %entry.id.name, "the group followed now does not want a pod that runs here");
            entry.offered = None;
            return false;
        }
        entry.wake_at = Some(until);
        if let Offer::Make(write) = made
            && entry.retry_at.is_none_or(|at| Instant::now() >= at)
        {
            tracing::info!(pod = %entry.id.name, "offering a running pod to the group followed now");
            entry.flying = true;
            let (propose, uid) = (self.inputs.propose.clone(), uid.to_owned());
            self.proposals.push(async move { (uid, propose.propose((*write).into()).await) }.boxed());
        }
        true
    }

    /// Containers of which the view knows nothing yet: identities among them end when they must.
    fn settle_held(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.entries.get(uid) else { return };
        if entry.is_single() && self.inputs.hold.may(true) == May::Stop {
            let running = entry.containers.values().filter(|observed| observed.is_running());
            let actions = planner::clear_away(running, &entry.memory);
            self.act(
                uid,
                actions.into_iter().filter(|action| matches!(action, Action::Stop { .. })).collect(),
                now,
            );
        }
    }

    /// Kills every identity here, whatever it is that would be planned for it.
    pub fn stop_singles(&mut self) {
        let now = Timestamp::now();
        for uid in self.singles() {
            let Some(entry) = self.entries.get(&uid) else { continue };
            let running = entry.containers.values().filter(|observed| observed.is_running());
            let actions = planner::clear_away(running, &entry.memory);
            self.act(
                &uid,
                actions.into_iter().filter(|action| matches!(action, Action::Stop { .. })).collect(),
                now,
            );
        }
    }

    /// Containers whose pod is not, or not any more, one of this node's.
    fn settle_orphan(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.entries.get(uid) else { return };
        if entry.busy || entry.flying {
            return;
        }
        if self.offer(uid, now) {
            return;
        }
        let Some(entry) = self.entries.get(uid) else { return };
        if !entry.containers.is_empty() {
            if entry.is_resting() {
                return;
            }
            let actions = planner::clear_away(entry.containers.values(), &entry.memory);
            return self.act(uid, actions, now);
        }
        self.entries.remove(uid);
        let dir = self.pod_dir(uid);
        self.tasks.spawn_blocking(move || {
            if let Err(error) = files::remove(&dir) {
                tracing::warn!(error = %error.full(), "a pod's files stay behind");
            }
        });
    }

    /// Once after the start: files of pods that went while the daemon did not run.
    fn sweep(&mut self) {
        if self.swept || !self.knows_all_wanted() {
            return;
        }
        self.swept = true;
        let root = self.inputs.dir.join("pods");
        let known: BTreeSet<String> = self.entries.keys().cloned().collect();
        self.tasks.spawn_blocking(move || {
            for uid in files::pods_with_files(&root).into_iter().filter(|uid| !known.contains(uid)) {
                if let Err(error) = files::remove(&root.join(uid)) {
                    tracing::warn!(error = %error.full(), "an old pod's files stay behind");
                }
            }
        });
    }

    fn act(&mut self, uid: &str, actions: Vec<Action>, now: Timestamp) {
        let mut in_order = Vec::new();
        for action in actions {
            match action {
                Action::Stop { id, container, grace, pre_stop, why } => {
                    self.stop_container(uid, id, &container, grace, pre_stop, why, now);
                }
                Action::Pull { container, restart_count, image } => {
                    self.pull(uid, container, restart_count, image)
                }
                other => in_order.push(other),
            }
        }
        let (dir, hands) = (self.pod_dir(uid), self.hands());
        let (Some(hands), Some(entry)) = (hands, self.entries.get_mut(uid)) else { return };
        let resting = entry.is_resting();
        in_order.retain(|action| match action {
            Action::Remove { .. } => !resting,
            Action::Forget => !entry.forgotten,
            _ => true,
        });
        if in_order.is_empty() || entry.busy {
            return;
        }
        entry.busy = true;
        let mut notes = Vec::new();
        for action in &in_order {
            if let Action::StartContainer { name, restart_count, spec, .. } = action {
                remember_start(entry, name, *restart_count);
                if !entry.memory.pulls.contains_key(&(name.clone(), *restart_count)) {
                    let message = format!("Container image \"{}\" already present on machine", spec.image);
                    notes.push(note_for(&entry.id, PodNote::normal("Pulled", message)));
                }
            }
        }
        let (id, upkeep) = (entry.id.clone(), entry.upkeep.clone());
        notes.into_iter().for_each(|note| self.note(note));
        self.tasks.spawn(hands.perform(id, dir, upkeep, in_order));
    }

    #[allow(clippy::too_many_arguments)]
    fn stop_container(
        &mut self,
        uid: &str,
        id: String,
        container: &str,
        grace: Duration,
        pre_stop: Option<Vec<String>>,
        why: String,
        now: Timestamp,
    ) {
        let (Some(hands), Some(entry)) = (self.hands(), self.entries.get_mut(uid)) else { return };
        let at_once = grace.is_zero();
        let waits = if at_once { entry.stop_after } else { entry.retry_at };
        if entry.concluding.contains(&id) || waits.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if at_once {
            entry.memory.killing.insert(id.clone());
        }
        entry.memory.stopping.insert(id.clone(), now.checked_add(grace).unwrap_or(Timestamp::MAX));
        tracing::debug!(container, pod = %entry.id.name, %why, "stopping a container");
        let note = note_for(&entry.id, PodNote::normal("Killing", why));
        self.note(note);
        self.tasks.spawn(hands.stop(id, grace, pre_stop));
    }

    fn pull(&mut self, uid: &str, container: String, restart_count: u32, image: String) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.memory.pull_begun(&container, restart_count);
        let note = note_for(&entry.id, PodNote::normal("Pulling", format!("Pulling image \"{image}\"")));
        self.note(note);
        let waiter = (uid.to_owned(), container, restart_count);
        if let Some(waiters) = self.awaited.get_mut(&image) {
            waiters.push(waiter);
            return;
        }
        let Some(linked) = &self.linked else { return };
        let present = self.images.find(&image).is_some();
        self.tasks.spawn(linked.pulls.clone().get(image.clone(), present, self.reports.clone()));
        self.awaited.insert(image, vec![waiter]);
    }

    fn watch_health(&mut self, uid: &str, pod: &Pod) {
        let (Some(linked), Some(entry)) = (&self.linked, self.entries.get(uid)) else { return };
        for observed in entry.containers.values() {
            let Role::Container(name) = &observed.role else { continue };
            let RunState::Running { started_at } = observed.state else { continue };
            if self.probes.contains_key(&observed.id) {
                continue;
            }
            let container = pod.spec.as_ref().and_then(|spec| find_container(spec, name));
            let Some(container) = container.filter(|container| probes::wanted(container)) else {
                continue;
            };
            let ips = entry.memory.status.as_ref().and_then(|status| status.pod_ip.clone());
            let watched = probes::Watched {
                engine: linked.engine.clone(),
                id: observed.id.clone(),
                pod: entry.id.clone(),
                container: container.into_owned(),
                address: ips.unwrap_or_default(),
                started_at,
            };
            let task = self.tasks.spawn(probes::watch(watched, self.reports.clone()));
            self.probes.insert(observed.id.clone(), task);
        }
    }

    /// Sends a pod's status, or its removal, if the view does not show it yet and nothing of it is under way.
    fn propose(&mut self, uid: &str) {
        let full = self.proposals.len() >= PROPOSALS_AT_ONCE;
        let Some(entry) = self.entries.get_mut(uid) else { return };
        if entry.flying || entry.is_resting() {
            return;
        }
        let key = entry.key();
        let mut writes = Vec::new();
        // What the view has now, which may be newer than what is obeyed.
        let shown = self.inputs.view.read(|store| store.get(&key).cloned());
        let Some(shown) = shown.filter(|shown| shown.uid() == uid) else { return };
        let noted = shown.typed::<Pod>().and_then(|pod| pod.status.clone());
        let status = entry.memory.status.clone().map(|status| planner::with_others(status, noted.as_ref()));
        let status = status.and_then(|status| serde_json::to_value(status).ok());
        if let Some(status) = status
            && shown.value().get("status") != Some(&status)
        {
            let (uid, seen) = (uid.to_owned(), Some(shown.revision()));
            writes.push(Write::Status { key: key.clone(), uid, status, seen });
        }
        if entry.forgotten
            && let Some(removal @ Write::Delete { .. }) = deletion::finish(&key, &shown)
        {
            writes.push(removal);
        }
        if writes.is_empty() {
            return;
        }
        if full {
            // The first that comes back makes room.
            self.dirty.insert(uid.to_owned());
            return;
        }
        entry.flying = true;
        let (propose, uid) = (self.inputs.propose.clone(), uid.to_owned());
        self.proposals.push(async move { (uid, propose.propose(Txn::from(writes)).await) }.boxed());
    }

    pub fn proposed(&mut self, (uid, outcome): Outcome) {
        let uid = uid.as_str();
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.flying = false;
        match outcome {
            Ok(Ok(_)) => entry.refusals = 0,
            // Somebody else changed or removed it, which the view shows by now: it is planned again.
            Ok(Err(refused)) => tracing::debug!(%refused, "a status came too late"),
            Err(unavailable) => {
                tracing::debug!(%unavailable, pod = %entry.id.name, "a status waits");
                let wait = FIRST_RETRY.saturating_mul(1 << entry.refusals.min(8)).min(LONGEST_RETRY);
                entry.refusals = entry.refusals.saturating_add(1);
                entry.retry_at = Some(Instant::now() + wait);
            }
        }
        self.follow();
        self.dirty.insert(uid.to_owned());
    }
}

/// Counts a restart, for the wait before the next one.
fn remember_start(entry: &mut Entry, name: &str, restart_count: u32) {
    let role = Role::Container(name.to_owned());
    let before = entry.containers.values().filter(|observed| observed.role == role);
    let ran =
        before.max_by_key(|observed| observed.restart_count).and_then(|observed| match &observed.state {
            RunState::Exited(exit) => {
                Duration::try_from(exit.finished_at.duration_since(exit.started_at?)).ok()
            }
            _ => None,
        });
    entry.memory.restarted(name, restart_count, ran);
    entry.memory.made(None);
}
