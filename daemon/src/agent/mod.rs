//! Pods on this desktop: what is bound to this node becomes containers on its Docker engine, and what becomes of
//! them is reported.
//!
//! `planner` decides (pure), `spec` describes containers (pure), `shell` is the one loop that owns all state,
//! `engine` is the border to Docker. The agent talks to the group through `Propose` and the view alone: it must
//! never know controllers, the scheduler, or how a message reaches another desktop.

pub mod engine;
mod files;
pub mod hold;
mod identities;
pub mod identity;
mod logs;
pub mod offer;
pub mod planner;
mod shell;
pub mod spec;
mod talk;
mod usage;

pub use engine::EngineError;
use engine::{Docker, Engine, Facts};
pub use hold::noted;
pub use identities::Identities;
pub use spec::{ApiPlace, TokenWish};

use crate::pods::{ByteStream, LogOptions, PodRef, Process, ProcessOptions, Stdio, StreamError};
use crate::usage::Measured;
use futures::{FutureExt, StreamExt};
use gaggle_sched::controller::Note;
use gaggle_sched::state::{Propose, View};
use k8s_openapi::jiff::Timestamp;
use shell::{Connector, Inputs, Question, Shell};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use talk::Address;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// In the agent's directory: when an acting leader was last heard.
#[must_use]
pub fn heard_file(agent_dir: &Path) -> PathBuf {
    agent_dir.join("heard")
}

/// Events about pods that wait to be stored; more are dropped, since they only tell what statuses also show.
const NOTES_WAITING: usize = 1024;

/// How long a pod may take to accept a connection to one of its ports.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// This desktop's name: pods with it as `spec.nodeName` are run.
    pub node: String,
    /// Marks containers as this cluster's, so that two clusters on one engine do not touch each other's.
    pub cluster: String,
    /// `unix:///path` or `tcp://address:port`; `None`: `DOCKER_HOST`, then Docker's usual socket.
    pub docker_host: Option<String>,
    /// Where pods' volumes are kept. Docker must see the same path.
    pub dir: PathBuf,
    /// Nameservers for pods; empty: those of the engine.
    pub dns: Vec<String>,
    /// Search domains that go with `dns`, as `svc.cluster.local` first.
    pub dns_search: Vec<String>,
    /// The API of this desktop, for pods; `None`: they are told of none.
    pub api: Option<ApiPlace>,
}

/// Signs the tokens that pods are given.
pub trait PodTokens: Send + Sync + 'static {
    fn sign(&self, wish: &TokenWish) -> String;
}

/// What is known of this desktop's engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineState {
    pub version: String,
    /// Why it cannot be used now; `None` if it can.
    pub problem: Option<String>,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub os: String,
    pub kernel: String,
    /// As `uname -m` spells it.
    pub arch: String,
    /// This desktop as its containers reach it.
    pub gateway: Option<IpAddr>,
}

impl EngineState {
    fn of(facts: &Facts) -> Self {
        Self {
            version: facts.version.clone(),
            problem: None,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            os: facts.os.clone(),
            kernel: facts.kernel.clone(),
            arch: facts.arch.clone(),
            gateway: facts.gateway,
        }
    }
}

/// Where images come from when no registry can be reached.
#[async_trait::async_trait]
pub trait ImagePeers: Send + Sync + 'static {
    /// A `docker save` archive of `image` (with its tag) from a desktop that has it; `None` if none has.
    async fn fetch(&self, image: &str) -> Result<Option<ByteStream>, String>;
}

/// The handle on the agent; its loop runs until `stop`.
#[derive(Clone)]
pub struct Agent {
    engine_state: watch::Receiver<EngineState>,
    images: watch::Receiver<Vec<String>>,
    engine: watch::Receiver<Option<Arc<dyn Engine>>>,
    questions: mpsc::Sender<Question>,
    pods: watch::Receiver<usize>,
    notes: Arc<Mutex<Option<mpsc::Receiver<Note>>>>,
    left: CancellationToken,
    owner: Arc<identity::Owner>,
    meter: Arc<usage::Meter>,
    stop: CancellationToken,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Agent {
    /// `current`: the view follows a group. Only then are containers removed that no pod explains. `heard`: the moment
    /// ([`crate::boottime::boottime_ms`]) at which an acting leader was last heard, 0 for never.
    pub fn start(
        config: AgentConfig,
        view: View,
        current: watch::Receiver<bool>,
        heard: watch::Receiver<u64>,
        propose: Arc<dyn Propose>,
        peers: Arc<dyn ImagePeers>,
        tokens: Arc<dyn PodTokens>,
    ) -> Self {
        let host = config.docker_host.clone();
        let connector: Connector = Arc::new(move || {
            let host = host.clone();
            async move {
                let docker = Docker::connect(host.as_deref()).await?;
                Ok(Arc::new(docker) as Arc<dyn Engine>)
            }
            .boxed()
        });
        Self::start_with(config, view, (current, heard), propose, (peers, tokens), connector)
    }

    fn start_with(
        config: AgentConfig,
        view: View,
        (current, heard): (watch::Receiver<bool>, watch::Receiver<u64>),
        propose: Arc<dyn Propose>,
        (peers, tokens): (Arc<dyn ImagePeers>, Arc<dyn PodTokens>),
        connector: Connector,
    ) -> Self {
        let looking =
            EngineState { problem: Some("looking for Docker".to_owned()), ..EngineState::default() };
        let (engine_state_sender, engine_state) = watch::channel(looking);
        let (images_sender, images) = watch::channel(Vec::new());
        let (engine_sender, engine) = watch::channel(None);
        let (pods_sender, pods) = watch::channel(0);
        let (questions, asked) = mpsc::channel(shell::QUESTIONS_WAITING);
        let (note_sender, notes) = mpsc::channel(NOTES_WAITING);
        let (left, stop) = (CancellationToken::new(), CancellationToken::new());
        let note = heard_file(&config.dir);
        let hold = hold::Hold::new(heard.clone(), hold::noted(&note));
        tokio::spawn(hold::note_forever(note, heard));
        let owner = identity::Owner { cluster: config.cluster, node: config.node };
        let inputs = Inputs {
            hold,
            owner: owner.clone(),
            // Docker takes absolute paths only.
            dir: std::path::absolute(&config.dir).unwrap_or(config.dir),
            dns: config.dns,
            dns_search: config.dns_search,
            api: config.api,
            tokens,
            view,
            current,
            propose,
            peers,
            connector,
            notes: note_sender,
            questions: asked,
            left: left.clone(),
            stop: stop.clone(),
            engine_state: engine_state_sender,
            images: images_sender,
            engine: engine_sender,
            pods: pods_sender,
        };
        let task = tokio::spawn(Shell::run(inputs));
        Self {
            engine_state,
            images,
            engine,
            questions,
            pods,
            notes: Arc::new(Mutex::new(Some(notes))),
            left,
            owner: Arc::new(owner),
            meter: Arc::default(),
            stop,
            task: Arc::new(Mutex::new(Some(task))),
        }
    }

    pub fn engine(&self) -> watch::Receiver<EngineState> {
        self.engine_state.clone()
    }

    /// The names of the images on this desktop, sorted.
    pub fn images(&self) -> watch::Receiver<Vec<String>> {
        self.images.clone()
    }

    /// How many pods are bound to this desktop or have containers on it.
    pub fn pods(&self) -> watch::Receiver<usize> {
        self.pods.clone()
    }

    /// Events about pods, for whoever stores them. `None` if they were taken already.
    pub fn take_notes(&self) -> Option<mpsc::Receiver<Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn engine_now(&self) -> Result<Arc<dyn Engine>, StreamError> {
        let problem =
            || StreamError::Unavailable(self.engine_state.borrow().problem.clone().unwrap_or_default());
        self.engine.borrow().clone().ok_or_else(problem)
    }

    /// Loads a `docker save` archive and returns the names in it.
    pub async fn load_image(&self, archive: ByteStream) -> Result<Vec<String>, StreamError> {
        let engine = self.engine_now()?;
        engine.load(archive).await.map_err(|error| match error {
            EngineError::Unreachable { .. } => StreamError::Unavailable(error.to_string()),
            error => StreamError::BadRequest(format!("Docker does not take the archive: {error}")),
        })
    }

    /// A `docker save` archive of an image on this desktop. A name that is not here makes the stream fail.
    pub fn export_image(&self, name: &str) -> ByteStream {
        match self.engine_now() {
            Ok(engine) => engine.export(name),
            Err(error) => futures::stream::once(async { Err(std::io::Error::other(error)) }).boxed(),
        }
    }

    /// A container's log, or in Kubernetes' words why there is none.
    pub async fn logs(&self, pod: &PodRef, options: &LogOptions) -> Result<ByteStream, StreamError> {
        let (answer, answered) = oneshot::channel();
        let question = Question::Log { pod: pod.clone(), options: options.clone(), answer };
        let target = self.ask(question, answered).await?;
        logs::open(&self.engine_now()?, &target, options, Timestamp::now())
    }

    /// A conversation with a process in a container, or in Kubernetes' words why there is none.
    pub async fn process(&self, pod: &PodRef, options: &ProcessOptions) -> Result<Process, StreamError> {
        let (answer, answered) = oneshot::channel();
        let container = options.container.clone();
        let running = self.ask(Question::Running { pod: pod.clone(), container, answer }, answered).await?;
        let engine = self.engine_now()?;
        let begun = match &options.command {
            Some(command) => engine.talk(&running.id, command, options.stdio).await,
            // Whether there is a terminal was decided when the container was made.
            None => {
                let stdio = Stdio { tty: running.tty, ..options.stdio };
                engine.attach(&running.id, stdio, running.end).await
            }
        };
        begun.map_err(talk::refusal)
    }

    /// A connection to a port of a pod on this desktop.
    pub async fn port(&self, pod: &PodRef, port: u16) -> Result<TcpStream, StreamError> {
        let (answer, answered) = oneshot::channel();
        let Address { host, sandbox } =
            self.ask(Question::Address { pod: pod.clone(), answer }, answered).await?;
        let connected = async {
            match (TcpStream::connect((host.as_str(), port)).await, sandbox) {
                // Many a server listens on the pod's loopback alone, where Kubernetes looks for it.
                (Err(error), Some(id)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let inside = self.engine_now()?.connect_inside(&id, port).await;
                    inside.map_err(|inside| format!("{error}; on its loopback: {inside}"))
                }
                (connected, _) => connected.map_err(|error| error.to_string()),
            }
            .map_err(|why| {
                StreamError::BadRequest(format!("failed to connect to {host}:{port} inside the pod: {why}"))
            })
        };
        let stream = tokio::time::timeout(CONNECT_WITHIN, connected).await.unwrap_or_else(|_| {
            let within = CONNECT_WITHIN.as_secs();
            Err(StreamError::BadRequest(format!(
                "failed to connect to {host}:{port} inside the pod: no answer within {within} s"
            )))
        })?;
        // What is typed must not wait for more of it; failing to ask for that is harmless.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// What this desktop and its containers take now.
    pub async fn usage(&self) -> Result<Measured, StreamError> {
        let engine = self.engine_now()?;
        let measured = self.meter.measure(engine.as_ref(), &self.owner).await;
        measured.map_err(|error| StreamError::Unavailable(error.to_string()))
    }

    async fn ask<T>(
        &self,
        question: Question,
        answered: oneshot::Receiver<Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        let stopped = || StreamError::Unavailable("the daemon on this desktop is stopping".to_owned());
        self.questions.send(question).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// The cluster goes on without this desktop: every pod here is cleared away, also what was kept for its logs.
    /// [`Agent::pods`] tells when that is done.
    pub fn clear(&self) {
        self.left.cancel();
    }

    /// Ends the agent and leaves the containers running: the next one finds them again.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests;
