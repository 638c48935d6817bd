//! An engine in memory, for tests of the loop: it does what it is told at once, and can be taken away.

use super::*;
use crate::pods::{ProcessOptions, fake};
use futures::StreamExt;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::broadcast;

#[derive(Default)]
pub struct State {
    pub containers: BTreeMap<String, Found>,
    pub names: BTreeMap<String, String>,
    pub images: BTreeMap<String, Image>,
    /// What registries have.
    pub registry: Vec<String>,
    /// Images whose pull never comes to its end.
    pub stuck: Vec<String>,
    /// Every call that changes something.
    pub calls: Vec<String>,
    pub away: bool,
    /// Takes connections and answers nothing.
    pub silent: bool,
    /// What containers take: billionths of a processor, and bytes.
    pub takes: BTreeMap<String, (u64, u64)>,
    /// Starts of containers whose name has this in it fail.
    pub start_fails: Option<String>,
    next: u32,
}

#[derive(Clone)]
pub struct FakeEngine {
    state: Arc<Mutex<State>>,
    born: tokio::time::Instant,
    events: broadcast::Sender<Result<EngineEvent, EngineError>>,
}

fn gone() -> EngineError {
    EngineError::Unreachable { host: "fake".into(), why: "taken away".into() }
}

impl Default for FakeEngine {
    fn default() -> Self {
        Self { state: Arc::default(), born: tokio::time::Instant::now(), events: broadcast::channel(1024).0 }
    }
}

impl FakeEngine {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn here(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.state();
        if state.away { Err(gone()) } else { Ok(state) }
    }

    pub fn add_image(&self, name: &str) {
        let image =
            Image { id: format!("sha256:{name}"), names: vec![name.into()], digests: vec![], bytes: 1 };
        self.state().images.insert(name.into(), image);
        let _ = self.events.send(Ok(EngineEvent::ImagesChanged));
    }

    pub fn take_away(&self) {
        self.state().away = true;
        let _ = self.events.send(Err(gone()));
    }

    /// From now on a container takes so much.
    pub fn takes(&self, id: &str, nanocores: u64, memory_bytes: u64) {
        self.state().takes.insert(id.to_owned(), (nanocores, memory_bytes));
    }

    pub fn bring_back(&self) {
        self.state().away = false;
    }

    /// Ends a running container.
    pub fn exit(&self, id: &str, code: i32) {
        let event = {
            let mut state = self.state();
            let Some(found) = state.containers.get_mut(id) else { return };
            let RunState::Running { started_at } = found.state else { return };
            let at = Timestamp::now();
            let exit = Exit {
                code,
                oom_killed: false,
                started_at: Some(started_at),
                finished_at: at,
                error: String::new(),
            };
            found.state = RunState::Exited(exit);
            EngineEvent::Died { id: id.into(), labels: found.labels.clone(), code, at }
        };
        let _ = self.events.send(Ok(event));
    }

    /// Tells that a container ran out of memory, before or after its end.
    pub fn out_of_memory(&self, id: &str) {
        let _ = self.events.send(Ok(EngineEvent::OutOfMemory { id: id.into() }));
    }

    /// The ids of the containers of a role, running or not.
    pub fn ids(&self, pod: &str, container: &str) -> Vec<String> {
        let state = self.state();
        let label =
            |found: &Found, name: &str, value: &str| found.labels.get(name).is_some_and(|l| l == value);
        let matching = state.containers.values().filter(|found| {
            label(found, "gaggle.dev/pod-name", pod) && label(found, "gaggle.dev/container", container)
        });
        matching.map(|found| found.id.clone()).collect()
    }
}

#[async_trait::async_trait]
impl Engine for FakeEngine {
    async fn ping(&self) -> Result<(), EngineError> {
        let state = self.here()?;
        if state.silent { Err(gone()) } else { Ok(()) }
    }

    async fn facts(&self) -> Result<Facts, EngineError> {
        drop(self.here()?);
        Ok(Facts {
            version: "fake".into(),
            cpus: 4,
            memory_bytes: 8 << 30,
            arch: "x86_64".into(),
            ..Facts::default()
        })
    }

    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Found>, EngineError> {
        let state = self.here()?;
        let has = |found: &&Found| labels.iter().all(|(name, value)| found.labels.get(name) == Some(value));
        Ok(state.containers.values().filter(has).cloned().collect())
    }

    async fn running(&self, labels: &[(String, String)]) -> Result<Vec<Running>, EngineError> {
        let mut found = self.list(labels).await?;
        found.retain(|found| matches!(found.state, RunState::Running { .. }));
        Ok(found.into_iter().map(|found| Running { id: found.id, labels: found.labels }).collect())
    }

    async fn inspect(&self, id: &str) -> Result<Found, EngineError> {
        let state = self.here()?;
        let id = state.names.get(id).map_or(id, String::as_str);
        state.containers.get(id).cloned().ok_or_else(|| EngineError::NotFound(id.into()))
    }

    async fn counters(&self, id: &str) -> Result<Counters, EngineError> {
        let state = self.here()?;
        if !state.containers.get(id).is_some_and(|found| matches!(found.state, RunState::Running { .. })) {
            return Err(EngineError::NotFound(id.into()));
        }
        let (nanocores, memory_bytes) = state.takes.get(id).copied().unwrap_or_default();
        let nanos = u128::from(nanocores) * self.born.elapsed().as_nanos() / 1_000_000_000;
        Ok(Counters { cpu_nanos: nanos as u64, memory_bytes })
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let mut state = self.here()?;
        if state.names.contains_key(&spec.name) {
            return Err(EngineError::Conflict(format!("{} is taken", spec.name)));
        }
        let name = crate::agent::planner::familiar(&spec.image);
        let Some(image) = state.images.get(&name).map(|image| image.id.clone()) else {
            return Err(EngineError::NotFound(format!("No such image: {}", spec.image)));
        };
        state.next += 1;
        let id = format!("f{}", state.next);
        state.calls.push(format!("create {}", spec.name));
        state.names.insert(spec.name.clone(), id.clone());
        let found = Found {
            id: id.clone(),
            labels: spec.labels.clone(),
            image_id: image,
            state: RunState::Created,
            ips: vec![],
        };
        state.containers.insert(id.clone(), found);
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        let event = {
            let mut state = self.here()?;
            let name = state.names.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
            let name = name.ok_or_else(|| EngineError::NotFound(id.into()))?;
            if state.start_fails.as_ref().is_some_and(|part| name.contains(part.as_str())) {
                return Err(EngineError::Refused("it cannot be executed".into()));
            }
            state.calls.push(format!("start {name}"));
            let at = Timestamp::now();
            let found = state.containers.get_mut(id).ok_or_else(|| EngineError::NotFound(id.into()))?;
            found.state = RunState::Running { started_at: at };
            found.ips = vec!["172.17.0.2".into()];
            EngineEvent::Started { id: id.into(), labels: found.labels.clone(), at }
        };
        let _ = self.events.send(Ok(event));
        Ok(())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        self.here()?.calls.push(format!("stop {id} {}", grace.as_secs()));
        self.exit(id, 143);
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        {
            let mut state = self.here()?;
            state.calls.push(format!("remove {id}"));
            state.names.retain(|_, known| known != id);
            state.containers.remove(id);
        }
        let _ = self.events.send(Ok(EngineEvent::Destroyed { id: id.into() }));
        Ok(())
    }

    async fn remove_volume(&self, _: &str) -> Result<(), EngineError> {
        self.here().map(drop)
    }

    async fn exec(&self, _: &str, _: &[String], _: Duration) -> Result<ExecResult, EngineError> {
        drop(self.here()?);
        Ok(ExecResult { code: 0, output: String::new() })
    }

    async fn talk(&self, id: &str, command: &[String], stdio: Stdio) -> Result<Process, EngineError> {
        self.here()?.calls.push(format!("talk {id} {}", command.join(" ")));
        let command = Some(command.to_vec());
        Ok(fake::process(&ProcessOptions { container: id.into(), command, stdio }))
    }

    async fn attach(&self, id: &str, stdio: Stdio, end: EndOfInput) -> Result<Process, EngineError> {
        self.here()?.calls.push(format!("attach {id} tty={} {end:?}", stdio.tty));
        Ok(fake::process(&ProcessOptions { container: id.into(), command: None, stdio }))
    }

    async fn connect_inside(&self, _: &str, _: u16) -> std::io::Result<tokio::net::TcpStream> {
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    fn events(&self, _: Option<Timestamp>) -> BoxStream<'static, Result<EngineEvent, EngineError>> {
        let events = self.events.subscribe();
        futures::stream::unfold(events, async |mut events| Some((events.recv().await.ok()?, events))).boxed()
    }

    fn logs(&self, id: &str, _: &LogQuery) -> BoxStream<'static, Result<Vec<u8>, EngineError>> {
        let line = format!("log of {id}\n").into_bytes();
        futures::stream::iter([Ok(line)]).boxed()
    }

    async fn images(&self) -> Result<Vec<Image>, EngineError> {
        Ok(self.here()?.images.values().cloned().collect())
    }

    fn pull(&self, image: &str) -> BoxStream<'static, Result<PullProgress, EngineError>> {
        let mut state = self.state();
        state.calls.push(format!("pull {image}"));
        if state.stuck.iter().any(|stuck| stuck == image) {
            let working = PullProgress {
                layer: "l".into(),
                status: "Downloading".into(),
                current_bytes: Some(1),
                total_bytes: Some(2),
            };
            return futures::stream::iter([Ok(working)]).chain(futures::stream::pending()).boxed();
        }
        let known = state.registry.iter().any(|known| known == image);
        drop(state);
        if !known {
            let error = EngineError::Refused("dial tcp: lookup registry: no such host".into());
            return futures::stream::iter([Err(error)]).boxed();
        }
        self.add_image(image);
        futures::stream::empty().boxed()
    }

    fn export(&self, image: &str) -> ByteStream {
        futures::stream::iter([Ok(image.as_bytes().to_vec())]).boxed()
    }

    async fn load(&self, mut archive: ByteStream) -> Result<Vec<String>, EngineError> {
        let mut name = Vec::new();
        while let Some(part) = archive.next().await {
            name.extend(part.map_err(|error| EngineError::Refused(error.to_string()))?);
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        self.add_image(&name);
        Ok(vec![name])
    }

    async fn import(&self, image: &str, _: Vec<u8>, _: &str) -> Result<(), EngineError> {
        self.here()?.calls.push(format!("import {image}"));
        self.add_image(image);
        Ok(())
    }
}
