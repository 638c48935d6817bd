//! Taking in what tasks and the engine tell: state changes only, nothing is begun but looks at the engine.

use super::entry::Entry;
use super::link::{self, Listing};
use super::pulls::{Pulls, Source};
use super::work::KILLED;
use super::{Linked, Report, Shell, pulse};
use crate::agent::EngineState;
use crate::agent::engine::{EngineError, EngineEvent, Exit, Found, Image, RunState};
use crate::agent::identity::{Observed, Role};
use crate::agent::planner::{ImageIndex, PodNote, note_for};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// After a kill that failed: what may run elsewhere by now cannot wait.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// After a removal that failed.
const REMOVE_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Shell {
    /// Starts looking for the engine.
    pub fn link(&mut self) {
        let inputs = &self.inputs;
        let (connect, owner, dir) = (inputs.connector.clone(), inputs.owner.clone(), inputs.dir.clone());
        let (limits, hold, tokens) = (self.limits.clone(), inputs.hold.clone(), inputs.tokens.clone());
        self.tasks.spawn(link::link(connect, owner, dir, limits, hold, tokens, self.reports.clone()));
    }

    fn linked(&mut self, listing: Listing) {
        let Listing { engine, facts, containers, images } = listing;
        tracing::info!(version = %facts.version, containers = containers.len(), "Docker answers");
        self.inputs.engine_state.send_replace(EngineState::of(&facts));
        self.desktop.cpus = facts.cpus;
        self.desktop.memory_bytes = facts.memory_bytes;
        self.desktop.gateway = facts.gateway;
        for entry in self.entries.values_mut() {
            entry.containers.clear();
            entry.concluding.clear();
        }
        self.pod_of.clear();
        self.out_of_memory.clear();
        self.killed.clear();
        for observed in containers {
            self.observe(observed);
        }
        self.inputs.engine.send_replace(Some(engine.clone()));
        let events = engine.events(facts.clock);
        let pulls = Arc::new(Pulls::new(engine.clone(), self.inputs.peers.clone()));
        let pulse = self.tasks.spawn(pulse::watch(engine.clone(), self.reports.clone()));
        self.linked = Some(Linked { engine, events, pulls, pulse });
        self.know_images(&images);
        self.follow_all();
    }

    fn unlinked(&mut self, error: &EngineError) {
        let news = self.inputs.engine_state.send_if_modified(|state| {
            let problem = Some(error.to_string());
            std::mem::replace(&mut state.problem, problem.clone()) != problem
        });
        // It is looked for until it is found; said once.
        if news {
            tracing::warn!(%error, "no pods can run here now");
        }
        self.inputs.engine.send_replace(None);
        if let Some(linked) = self.linked.take() {
            linked.pulse.abort();
        }
        self.images_listing = None;
        for (_, probe) in std::mem::take(&mut self.probes) {
            probe.abort();
        }
    }

    fn observe(&mut self, observed: Observed) {
        let uid = observed.pod.uid.clone();
        let entry = self
            .entries
            .entry(uid.clone())
            .or_insert_with(|| Entry::new(observed.pod.clone(), Timestamp::now()));
        entry.attempt = entry.attempt.max(observed.attempt);
        // Its end may have been told of by an event that was lost with the connection.
        if matches!(observed.state, RunState::Exited(_)) {
            entry.memory.ended(&observed);
        }
        self.pod_of.insert(observed.id.clone(), uid.clone());
        entry.containers.insert(observed.id.clone(), observed);
        self.dirty.insert(uid);
    }

    fn container(&mut self, id: &str) -> Option<&mut Observed> {
        let uid = self.pod_of.get(id)?;
        self.dirty.insert(uid.clone());
        self.entries.get_mut(uid)?.containers.get_mut(id)
    }

    fn entry_of(&mut self, id: &str) -> Option<&mut Entry> {
        let uid = self.pod_of.get(id)?;
        self.dirty.insert(uid.clone());
        self.entries.get_mut(uid)
    }

    pub fn event(&mut self, event: Option<Result<EngineEvent, EngineError>>) {
        match event {
            Some(Ok(event)) => self.happened(event),
            Some(Err(error)) => {
                self.unlinked(&error);
                self.link();
            }
            None => {
                let why = EngineError::Refused("Docker's event stream ended".to_owned());
                self.unlinked(&why);
                self.link();
            }
        }
    }

    fn happened(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Started { id, labels, at } => self.started(id, labels, at),
            EngineEvent::Died { id, labels, code, at } => self.died(id, labels, code, at),
            EngineEvent::OutOfMemory { id } => match self.killed.remove(&id) {
                Some(told) => _ = told.send(()),
                None if self.pod_of.contains_key(&id) => _ = self.out_of_memory.insert(id),
                None => {}
            },
            EngineEvent::Destroyed { id } => self.gone(&id),
            EngineEvent::ImagesChanged => self.list_images(),
        }
    }

    /// A container that only its events tell of, as its labels describe it.
    fn known(&mut self, id: &str, labels: BTreeMap<String, String>, state: RunState) -> bool {
        if !self.pod_of.contains_key(id) {
            let found = Found { id: id.to_owned(), labels, image_id: String::new(), state, ips: Vec::new() };
            let Some(observed) = self.inputs.owner.recognise(found) else { return false };
            self.observe(observed);
        }
        true
    }

    fn started(&mut self, id: String, labels: BTreeMap<String, String>, at: Timestamp) {
        if !self.known(&id, labels, RunState::Created) {
            return;
        }
        let Some(observed) = self.container(&id) else { return };
        let news = match &observed.state {
            RunState::Created => true,
            RunState::Running { .. } => false,
            RunState::Exited(exit) => exit.finished_at < at,
        };
        if news {
            observed.state = RunState::Running { started_at: at };
        }
    }

    fn died(&mut self, id: String, labels: BTreeMap<String, String>, code: i32, at: Timestamp) {
        if !self.known(&id, labels, RunState::Created) {
            return;
        }
        let oom_killed = self.out_of_memory.remove(&id);
        let dir = self.pod_of.get(&id).map(|uid| self.pod_dir(uid)).unwrap_or_default();
        let (Some(hands), Some(entry)) = (self.hands(), self.entry_of(&id)) else { return };
        let Some(observed) = entry.containers.get(&id) else { return };
        let started_at = match &observed.state {
            RunState::Running { started_at } => Some(*started_at),
            RunState::Created => None,
            RunState::Exited(_) => return,
        };
        let exit = Exit { code, oom_killed, started_at, finished_at: at, error: String::new() };
        let observed = observed.clone();
        let is_ours = entry.memory.is_stopping(&id, false) || !matches!(observed.role, Role::Container(_));
        entry.concluding.insert(id.clone());
        let memory_ran_out = (code == KILLED && !oom_killed && !is_ours).then(|| {
            let (told, tells) = oneshot::channel();
            self.killed.insert(id, told);
            tells
        });
        self.tasks.spawn(hands.conclude(observed, exit, memory_ran_out, dir));
    }

    fn gone(&mut self, id: &str) {
        if let Some(entry) = self.entry_of(id) {
            entry.containers.remove(id);
            entry.memory.gone(id);
            entry.concluding.remove(id);
        }
        self.pod_of.remove(id);
        self.out_of_memory.remove(id);
        self.killed.remove(id);
        if let Some(probe) = self.probes.remove(id) {
            probe.abort();
        }
    }

    pub fn take(&mut self, report: Report) {
        match report {
            Report::Linked(listing) => self.linked(*listing),
            Report::Unreachable(error) => self.unlinked(&error),
            Report::Silent { engine, error } => {
                // Not one that was given up for another meanwhile.
                if self.linked.as_ref().is_some_and(|linked| Arc::ptr_eq(&linked.engine, &engine)) {
                    self.event(Some(Err(error)));
                }
            }
            Report::Created { observed, image } => self.created(*observed, &image),
            Report::SandboxUp { id, ips } => {
                if let Some(observed) = self.container(&id) {
                    observed.ips = ips;
                    if observed.state == RunState::Created {
                        observed.state = RunState::Running { started_at: Timestamp::now() };
                    }
                }
            }
            Report::Started { id, at } => {
                if let Some(entry) = self.entry_of(&id)
                    && let Some(Observed { role: Role::Container(name), .. }) = entry.containers.get(&id)
                {
                    entry.memory.made(Some(name));
                }
                if let Some(observed) = self.container(&id)
                    && observed.state == RunState::Created
                {
                    observed.state = RunState::Running { started_at: at };
                }
            }
            Report::Ended { id, exit, message } => self.ended(&id, exit, message),
            Report::Gone { id } => self.gone(&id),
            Report::Failed { id } => {
                if let Some(entry) = self.entry_of(&id) {
                    entry.retry_at = Some(Instant::now() + REMOVE_AGAIN_AFTER);
                }
            }
            Report::StopEnded { id, ok } => {
                if let Some(entry) = self.entry_of(&id).filter(|_| !ok) {
                    entry.memory.stopping.remove(&id);
                    entry.memory.killing.remove(&id);
                    entry.retry_at = Some(Instant::now() + REMOVE_AGAIN_AFTER);
                    entry.stop_after = Some(Instant::now() + KILL_AGAIN_AFTER);
                }
            }
            Report::Refused { uid, container, reason, message } => {
                if let Some(entry) = self.entries.get_mut(&uid) {
                    entry.memory.refused(container.as_deref(), reason, message, Timestamp::now());
                    self.dirty.insert(uid);
                }
            }
            Report::Done { uid } => {
                if let Some(entry) = self.entries.get_mut(&uid) {
                    entry.busy = false;
                    self.dirty.insert(uid);
                }
            }
            Report::Forgotten { uid } => {
                if let Some(entry) = self.entries.get_mut(&uid) {
                    entry.forgotten = true;
                    entry.memory.is_over();
                    self.dirty.insert(uid);
                }
            }
            Report::Note { pod, note } => self.note(note_for(&pod, note)),
            Report::ImagesChanged => self.list_images(),
            Report::Images(images) => self.listed_images(images),
            Report::PullProgress { image, current, total } => self.pull_progress(&image, current, total),
            Report::PullEnded { image, result, images, took, with_waiting } => {
                let mut size = String::new();
                if let Some(images) = images {
                    self.know_images(&images);
                    let id = self.images.find(&image);
                    if let Some(image) = images.iter().find(|listed| Some(listed.id.as_str()) == id) {
                        size = format!(" Image size: {} bytes.", image.bytes);
                    }
                }
                let seconds = |duration: Duration| format!("{:.3}s", duration.as_secs_f64());
                let how =
                    format!("in {} ({} including waiting).{size}", seconds(took), seconds(with_waiting));
                self.pull_ended(&image, &result, &how);
            }
            Report::Probed { id, health } => {
                if let Some(entry) = self.entry_of(&id) {
                    entry.memory.health.insert(id, health);
                }
            }
        }
    }

    fn created(&mut self, mut observed: Observed, image: &str) {
        observed.image_id = self.images.find(image).unwrap_or_default().to_owned();
        if let Some(known) = self.container(&observed.id) {
            // Its events were faster.
            known.image_id = observed.image_id;
        } else {
            self.observe(observed);
        }
    }

    fn ended(&mut self, id: &str, mut exit: Exit, message: String) {
        self.killed.remove(id);
        let Some(entry) = self.entry_of(id) else { return };
        entry.concluding.remove(id);
        if let Some(observed) = entry.containers.get_mut(id) {
            entry.memory.ended(observed);
            // Docker may have been listed meanwhile, and have known better.
            exit.oom_killed |= matches!(&observed.state, RunState::Exited(listed) if listed.oom_killed);
            observed.state = RunState::Exited(exit);
            observed.message = message;
        }
        if let Some(probe) = self.probes.remove(id) {
            probe.abort();
        }
    }

    fn list_images(&mut self) {
        match &mut self.images_listing {
            Some(again) => *again = true,
            None => {
                let Some(linked) = &self.linked else { return };
                self.images_listing = Some(false);
                let (engine, reports) = (linked.engine.clone(), self.reports.clone());
                self.tasks.spawn(async move {
                    let images = engine.images().await.ok();
                    let _ = reports.send(Report::Images(images)).await;
                });
            }
        }
    }

    fn listed_images(&mut self, images: Option<Vec<Image>>) {
        if let Some(images) = images {
            self.know_images(&images);
        }
        if self.images_listing.take() == Some(true) {
            self.list_images();
        }
    }

    fn know_images(&mut self, images: &[Image]) {
        let index = ImageIndex::new(images);
        if index != self.images {
            self.images = index;
            self.inputs.images.send_replace(self.images.names());
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    fn pull_progress(&mut self, image: &str, current: u64, total: u64) {
        const MEGABYTE: f64 = 1e6;
        let (current, total) = (current as f64 / MEGABYTE, total as f64 / MEGABYTE);
        let message = format!("Pulling image \"{image}\": {current:.1} of {total:.1} MB");
        self.note_waiters(image, &[PodNote::normal("Pulling", message)]);
    }

    fn note_waiters(&self, image: &str, notes: &[PodNote]) {
        for (uid, ..) in self.awaited.get(image).into_iter().flatten() {
            let Some(entry) = self.entries.get(uid) else { continue };
            for note in notes {
                self.note(note_for(&entry.id, note.clone()));
            }
        }
    }

    /// `how`: the times and the size, as the kubelet words them.
    fn pull_ended(&mut self, image: &str, result: &Result<Source, String>, how: &str) {
        let notes = match result {
            Ok(Source::Registry) => {
                vec![PodNote::normal("Pulled", format!("Successfully pulled image \"{image}\" {how}"))]
            }
            Ok(Source::Peer(why)) => vec![PodNote::normal(
                "Pulled",
                format!("Image \"{image}\" came from another desktop {how} Its registry: {why}"),
            )],
            Ok(Source::Present(why)) => vec![PodNote::normal(
                "Pulled",
                format!("Container image \"{image}\" already present on machine. Its registry: {why}"),
            )],
            Err(why) => vec![
                PodNote::warning("Failed", format!("Failed to pull image \"{image}\": {why}")),
                PodNote::warning("Failed", "Error: ErrImagePull"),
            ],
        };
        self.note_waiters(image, &notes);
        let now = Timestamp::now();
        for (uid, container, restart_count) in self.awaited.remove(image).unwrap_or_default() {
            if let Some(entry) = self.entries.get_mut(&uid) {
                let result = result.as_ref().map(drop).map_err(Clone::clone);
                entry.memory.pull_ended(&container, restart_count, result, now);
                self.dirty.insert(uid);
            }
        }
    }
}
