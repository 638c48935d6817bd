//! Doing what a plan says to the engine, and reporting each step. One task a pod; it must never decide anything.

use super::{Limits, Report};
use crate::agent::PodTokens;
use crate::agent::engine::{
    ContainerSpec, Engine, EngineError, Exit, Found, Network, PAUSE_IMAGE, RunState, pause_image,
};
use crate::agent::files::{self, Upkeep};
use crate::agent::hold::{Hold, May};
use crate::agent::identity::{self, Observed, Owner, PodId};
use crate::agent::planner::{Action, PodNote};
use crate::agent::spec::MessageFile;
use k8s_openapi::jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the hands have to work with.
#[derive(Clone)]
pub struct Hands {
    pub engine: Arc<dyn Engine>,
    pub owner: Owner,
    pub reports: mpsc::Sender<Report>,
    pub limits: Arc<Limits>,
    pub hold: Hold,
    pub tokens: Arc<dyn PodTokens>,
}

/// The part of a log that stands in for a termination message: Kubernetes keeps 2 KiB or 80 lines.
const LOG_MESSAGE_LINES: u64 = 80;
const LOG_MESSAGE_BYTES: usize = 2048;

/// How long a stopped container has after a `preStop` command used its grace period up. (Kubernetes gives 2 s.)
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// What a process ends with that a SIGKILL ended, as the kernel's when memory runs out.
pub(super) const KILLED: i32 = 137;

/// How long after the end of a container that was killed Docker may tell that its memory ran out: the two come from different
/// sources, in either order. Who does not hear of it by then is told that the container was killed.
const OUT_OF_MEMORY_WITHIN: Duration = Duration::from_millis(500);

impl Hands {
    async fn report(&self, report: Report) {
        // The loop ended: nobody is left to tell.
        let _ = self.reports.send(report).await;
    }

    async fn note(&self, pod: &PodId, note: PodNote) {
        self.report(Report::Note { pod: pod.clone(), note }).await;
    }

    /// Does a pod's actions one after the other.
    pub async fn perform(self, pod: PodId, dir: PathBuf, upkeep: Arc<Upkeep>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::StartSandbox { spec } => self.start_sandbox(&pod, &spec).await,
                Action::StartContainer { name, spec, volumes, message, .. } => {
                    let (tokens, upkeep) = (self.tokens.clone(), upkeep.clone());
                    let prepared = tokio::task::spawn_blocking(move || {
                        let _writing = upkeep.writing();
                        files::prepare(&volumes, &message, &*tokens)
                    });
                    match prepared.await {
                        Ok(Ok(())) => self.start_container(&pod, &name, &spec).await,
                        Ok(Err(error)) => {
                            self.note(&pod, PodNote::warning("FailedMount", error.full())).await;
                            self.refused(&pod, Some(&name), "CreateContainerError", error.full()).await;
                        }
                        Err(_) => break,
                    }
                }
                Action::Remove { id, volumes } => self.remove(&id, &volumes).await,
                Action::Forget => {
                    let dir = dir.clone();
                    let removed = tokio::task::spawn_blocking(move || files::remove(&dir)).await;
                    if let Ok(Err(error)) = removed {
                        tracing::warn!(error = %error.full(), pod = %pod.name, "a pod's files stay behind");
                    }
                    self.report(Report::Forgotten { uid: pod.uid.clone() }).await;
                }
                // These have tasks of their own.
                Action::Pull { .. } | Action::Stop { .. } => {}
            }
        }
        self.report(Report::Done { uid: pod.uid }).await;
    }

    async fn refused(&self, pod: &PodId, container: Option<&str>, reason: &'static str, message: String) {
        let container = container.map(str::to_owned);
        self.report(Report::Refused { uid: pod.uid.clone(), container, reason, message }).await;
    }

    async fn start_sandbox(&self, pod: &PodId, spec: &ContainerSpec) {
        let _permit = self.limits.sandbox().await;
        let started = async {
            let id = match self.create(spec).await {
                // Somebody has removed it; nothing else provides it.
                Err(EngineError::NotFound(_)) => {
                    let arch = self.engine.facts().await?.arch;
                    self.engine.import(PAUSE_IMAGE, pause_image(&arch)?, "/pause").await?;
                    self.create(spec).await?
                }
                created => created?,
            };
            self.engine.start(&id).await?;
            let ips =
                if spec.network == Network::Host { Vec::new() } else { self.engine.inspect(&id).await?.ips };
            Ok::<_, EngineError>((id, ips))
        };
        match started.await {
            Ok((id, ips)) => self.report(Report::SandboxUp { id, ips }).await,
            // The engine went: that says nothing about the pod.
            Err(error) if error.is_unreachable() => {}
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                self.note(pod, PodNote::warning("FailedCreatePodSandBox", message.clone())).await;
                self.refused(pod, None, "FailedCreatePodSandBox", message).await;
            }
        }
    }

    async fn start_container(&self, pod: &PodId, name: &str, spec: &ContainerSpec) {
        let _permit = self.limits.container().await;
        let id = match self.create(spec).await {
            Ok(id) => id,
            Err(EngineError::NotFound(message)) => {
                // The image went between the look and the start.
                self.report(Report::ImagesChanged).await;
                return self.refused(pod, Some(name), "CreateContainerError", message).await;
            }
            Err(error) if error.is_unreachable() => return,
            Err(error) => {
                self.note(pod, PodNote::warning("Failed", format!("Error: {error}"))).await;
                return self.refused(pod, Some(name), "CreateContainerError", error.to_string()).await;
            }
        };
        self.note(pod, PodNote::normal("Created", format!("Created container: {name}"))).await;
        // The engine may have taken its time: what may run elsewhere by now is not started.
        let single = spec.labels.contains_key(identity::SINGLE);
        if single && self.hold.may(true) != May::Run {
            return;
        }
        // Taken before, so that a container that ends at once does not end before it started.
        let at = Timestamp::now();
        match self.engine.start(&id).await {
            Ok(()) => {
                self.report(Report::Started { id, at }).await;
                self.note(pod, PodNote::normal("Started", format!("Started container {name}"))).await;
            }
            Err(error) => {
                self.note(pod, PodNote::warning("Failed", format!("Error: {error}"))).await;
                self.start_failed(&id, &error).await;
            }
        }
    }

    /// A container that was made but cannot start has ended for its pod: its restart policy says what now.
    async fn start_failed(&self, id: &str, error: &EngineError) {
        /// The shell's code for what cannot be executed; Docker knows better most of the time.
        const CANNOT_RUN: i32 = 128;
        let exit = match self.engine.inspect(id).await {
            Ok(Found { state: RunState::Exited(exit), .. }) => exit,
            // It runs after all (the answer was lost), or the engine is gone: the next listing tells.
            Ok(Found { state: RunState::Running { started_at }, .. }) => {
                return self.report(Report::Started { id: id.to_owned(), at: started_at }).await;
            }
            Err(error) if error.is_unreachable() => return,
            _ => Exit {
                code: CANNOT_RUN,
                oom_killed: false,
                started_at: None,
                finished_at: Timestamp::now(),
                error: error.to_string(),
            },
        };
        let finished_at = if exit.started_at.is_some() { exit.finished_at } else { Timestamp::now() };
        let exit = Exit { finished_at, ..exit };
        self.report(Report::Ended { id: id.to_owned(), exit, message: String::new() }).await;
    }

    /// Creates a container and reports it. One of the same name can only be ours, from a call whose answer was lost.
    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let id = match self.engine.create(spec).await {
            Err(EngineError::Conflict(_)) => {
                let found = self.engine.inspect(&spec.name).await?;
                let Some(observed) = self.owner.recognise(found) else {
                    return Err(EngineError::Conflict(format!(
                        "the container name {} is taken by a container that is not this cluster's: remove or rename it",
                        spec.name
                    )));
                };
                self.engine.remove(&observed.id).await?;
                self.report(Report::Gone { id: observed.id }).await;
                self.engine.create(spec).await?
            }
            created => created?,
        };
        let found = Found {
            id: id.clone(),
            labels: spec.labels.clone(),
            image_id: String::new(),
            state: RunState::Created,
            ips: Vec::new(),
        };
        if let Some(observed) = self.owner.recognise(found) {
            self.report(Report::Created { observed: Box::new(observed), image: spec.image.clone() }).await;
        }
        Ok(id)
    }

    async fn remove(&self, id: &str, volumes: &[String]) {
        let _permit = self.limits.removal().await;
        match self.engine.remove(id).await {
            Ok(()) => self.report(Report::Gone { id: id.to_owned() }).await,
            Err(error) => {
                tracing::warn!(%error, container = id, "a container is not removed yet");
                self.report(Report::Failed { id: id.to_owned() }).await;
                return;
            }
        }
        for volume in volumes {
            if let Err(error) = self.engine.remove_volume(volume).await {
                tracing::warn!(%error, volume, "a memory volume stays behind");
            }
        }
    }

    /// Lets a container end, and kills it if it does not. Takes as long as that does.
    pub async fn stop(self, id: String, grace: Duration, pre_stop: Option<Vec<String>>) {
        let mut left = grace;
        if let Some(command) = pre_stop.filter(|_| !grace.is_zero()) {
            let begun = tokio::time::Instant::now();
            if let Err(error) = self.engine.exec(&id, &command, grace).await {
                tracing::info!(%error, container = %id, "a preStop command failed");
            }
            left = grace.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
        }
        let result = self.engine.stop(&id, left).await;
        if let Err(error) = &result {
            tracing::warn!(%error, container = %id, "a container is not stopped yet");
        }
        self.report(Report::StopEnded { id, ok: result.is_ok() }).await;
    }

    /// Learns how a container ended: whether memory ran out, where that is possible, and what it left as a message.
    pub async fn conclude(
        self,
        observed: Observed,
        mut exit: Exit,
        memory_ran_out: Option<oneshot::Receiver<()>>,
        dir: PathBuf,
    ) {
        if exit.code == KILLED && !exit.oom_killed {
            exit.oom_killed = self.ran_out_of_memory(&observed.id).await;
        }
        if let Some(told) = memory_ran_out.filter(|_| !exit.oom_killed) {
            let told = tokio::time::timeout(OUT_OF_MEMORY_WITHIN, told).await;
            exit.oom_killed = matches!(told, Ok(Ok(()))) || self.ran_out_of_memory(&observed.id).await;
        }
        let message = self.last_words(&observed, &exit, dir).await;
        self.report(Report::Ended { id: observed.id, exit, message }).await;
    }

    /// What Docker says when it is asked. It learns of it beside the end, a moment before or after.
    async fn ran_out_of_memory(&self, id: &str) -> bool {
        let found = self.engine.inspect(id).await;
        matches!(found, Ok(Found { state: RunState::Exited(Exit { oom_killed: true, .. }), .. }))
    }

    pub async fn last_words(&self, observed: &Observed, exit: &Exit, dir: PathBuf) -> String {
        let crate::agent::identity::Role::Container(name) = &observed.role else { return String::new() };
        let file = MessageFile::of(&dir, name, observed.restart_count);
        let left = tokio::task::spawn_blocking(move || files::message(&file)).await.unwrap_or_default();
        if !left.is_empty() || exit.code == 0 || !observed.logs_as_message {
            return left;
        }
        use futures::StreamExt;
        let query =
            crate::agent::engine::LogQuery { tail_lines: Some(LOG_MESSAGE_LINES), ..Default::default() };
        let mut logs = self.engine.logs(&observed.id, &query);
        let mut text = Vec::new();
        while let Some(Ok(part)) = logs.next().await {
            text.extend(part);
            let surplus = text.len().saturating_sub(LOG_MESSAGE_BYTES);
            text.drain(..surplus);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
