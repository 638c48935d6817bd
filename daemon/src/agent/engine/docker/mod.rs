//! The engine trait over Docker's HTTP API: the only place that knows bollard.

mod hijack;
mod inside;
mod multiplex;
mod process;
mod translate;

use super::{
    ContainerSpec, Counters, EndOfInput, Engine, EngineError, EngineEvent, ExecResult, Facts, Found, Image,
    LogQuery, PullProgress, Running,
};
use crate::pods::{ByteStream, Process, Stdio};
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, ImportImageOptions, InspectContainerOptions,
    ListContainersOptions, ListImagesOptions, LogsOptions, RemoveContainerOptions, RemoveVolumeOptions,
    StartContainerOptions, StatsOptions, StopContainerOptions,
};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use hyper::body::Bytes;
use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// How long one call may take before the engine counts as gone. Creating and starting is 0.1-0.3 s on an idle
/// desktop; a desktop whose disk is busy has been seen to need tens of seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// An engine that does not answer the lightest question for this long is stuck. It answers that one in milliseconds
/// also while it works on others; a desktop that swaps has been seen to need seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// What a stop may take beyond its grace period: the kill and the clean-up.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// How many containers are inspected at once when a listing is made.
const INSPECTIONS: usize = 8;

/// How much of a command's output is kept: enough for a message.
const EXEC_OUTPUT_BYTES: usize = 4096;

/// A Docker engine behind a socket. Nothing is connected until the first call, and every call connects anew
/// when it must, so an engine that restarts is found again.
#[derive(Clone)]
pub struct Docker {
    host: String,
    client: bollard::Docker,
}

impl Docker {
    /// The containers with all of these labels as the engine lists them: those that run, or `all`.
    async fn summaries(
        &self,
        labels: &[(String, String)],
        all: bool,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let filters = Some(HashMap::from([("label".to_owned(), labels)]));
        let options = ListContainersOptions { all, filters, ..Default::default() };
        self.client.list_containers(Some(options)).await.map_err(self.error_of())
    }

    /// `host` is `unix:///path` or `tcp://address:port`; `None` takes `DOCKER_HOST`, then Docker's usual socket.
    pub async fn connect(host: Option<&str>) -> Result<Self, EngineError> {
        let host = host
            .map(str::to_owned)
            .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let (timeout, version) = (CALL_TIMEOUT.as_secs(), bollard::API_DEFAULT_VERSION);
        let client = match host.strip_prefix("unix://") {
            Some(path) => bollard::Docker::connect_with_unix(path, timeout, version),
            None => bollard::Docker::connect_with_http(&host, timeout, version),
        };
        let unreachable = |why: bollard::errors::Error| EngineError::Unreachable {
            host: host.clone(),
            why: why.to_string(),
        };
        let negotiated = client.map_err(unreachable)?.negotiate_version();
        let client = tokio::time::timeout(ANSWER_TIMEOUT, negotiated).await;
        let client = client.map_err(|_| stuck(&host))?.map_err(unreachable)?;
        Ok(Self { host, client })
    }

    fn error(&self, error: bollard::errors::Error) -> EngineError {
        translate::error(&self.host, error)
    }

    fn error_of(&self) -> impl Fn(bollard::errors::Error) -> EngineError + Send + Sync + 'static {
        let host = self.host.clone();
        move |error| translate::error(&host, error)
    }
}

fn stuck(host: &str) -> EngineError {
    let why = format!("it takes connections and has not answered for {} s", ANSWER_TIMEOUT.as_secs());
    EngineError::Unreachable { host: host.to_owned(), why }
}

#[async_trait::async_trait]
impl Engine for Docker {
    async fn ping(&self) -> Result<(), EngineError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.client.ping()).await;
        answer.map_err(|_| stuck(&self.host))?.map(drop).map_err(self.error_of())
    }

    async fn facts(&self) -> Result<Facts, EngineError> {
        let mut facts = translate::facts(self.client.info().await.map_err(self.error_of())?);
        // An engine without the usual network can still run pods of the desktop's own.
        let network = self.client.inspect_network("bridge", None).await;
        facts.gateway = match network {
            Ok(network) => translate::gateway(network),
            Err(error) => {
                tracing::info!(%error, "Docker's usual network cannot be looked at: pods there are told of no API");
                None
            }
        };
        Ok(facts)
    }

    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Found>, EngineError> {
        let ids = self.summaries(labels, true).await?.into_iter().filter_map(|summary| summary.id);
        // A container may go between the listing and the look at it.
        futures::stream::iter(ids.map(async |id| match self.inspect(&id).await {
            Err(EngineError::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }))
        .buffer_unordered(INSPECTIONS)
        .try_filter_map(async |found| Ok(found))
        .try_collect()
        .await
    }

    async fn running(&self, labels: &[(String, String)]) -> Result<Vec<Running>, EngineError> {
        Ok(self.summaries(labels, false).await?.into_iter().filter_map(translate::running).collect())
    }

    async fn inspect(&self, id: &str) -> Result<Found, EngineError> {
        let found = self.client.inspect_container(id, None::<InspectContainerOptions>).await;
        translate::found(found.map_err(self.error_of())?)
    }

    async fn counters(&self, id: &str) -> Result<Counters, EngineError> {
        let options = StatsOptions { stream: false, one_shot: true };
        let stats = self.client.stats(id, Some(options)).try_next().await.map_err(self.error_of())?;
        stats.and_then(translate::counters).ok_or_else(|| EngineError::NotFound(format!("{id} does not run")))
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let options = CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        let created = self.client.create_container(Some(options), translate::create_body(spec)).await;
        Ok(created.map_err(self.error_of())?.id)
    }

    async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.client.start_container(id, None::<StartContainerOptions>).await.map_err(self.error_of())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
        let client = self.client.clone().with_timeout(grace.saturating_add(STOP_MARGIN));
        match client.stop_container(id, Some(options)).await.map_err(self.error_of()) {
            Err(EngineError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match self.client.remove_container(id, Some(options)).await.map_err(self.error_of()) {
            // A conflict says that its removal is under way.
            Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        match self.client.remove_volume(name, None::<RemoveVolumeOptions>).await.map_err(self.error_of()) {
            Err(EngineError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecResult, EngineError> {
        let config = bollard::models::ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let run = async {
            let exec = self.client.create_exec(id, config).await.map_err(self.error_of())?.id;
            let started =
                self.client.start_exec(&exec, None::<StartExecOptions>).await.map_err(self.error_of())?;
            let mut text = Vec::new();
            if let StartExecResults::Attached { mut output, .. } = started {
                while let Some(part) = output.try_next().await.map_err(self.error_of())? {
                    let left = EXEC_OUTPUT_BYTES.saturating_sub(text.len());
                    let part = part.into_bytes();
                    text.extend_from_slice(&part[..part.len().min(left)]);
                }
            }
            let code =
                self.client.inspect_exec(&exec).await.map_err(self.error_of())?.exit_code.unwrap_or_default();
            Ok(ExecResult { code, output: String::from_utf8_lossy(&text).into_owned() })
        };
        let seconds = timeout.as_secs_f32();
        tokio::time::timeout(timeout, run)
            .await
            .unwrap_or_else(|_| Err(EngineError::Refused(format!("command timed out after {seconds}s"))))
    }

    async fn talk(&self, id: &str, command: &[String], stdio: Stdio) -> Result<Process, EngineError> {
        process::run(self, id, command, stdio).await
    }

    async fn attach(&self, id: &str, stdio: Stdio, end: EndOfInput) -> Result<Process, EngineError> {
        process::attach(self, id, stdio, end).await
    }

    async fn connect_inside(&self, id: &str, port: u16) -> std::io::Result<tokio::net::TcpStream> {
        inside::connect(self, id, port).await
    }

    fn events(&self, since: Option<Timestamp>) -> BoxStream<'static, Result<EngineEvent, EngineError>> {
        let kinds = vec!["container".to_owned(), "image".to_owned()];
        let actions = ["start", "die", "oom", "destroy", "pull", "load", "import", "tag", "untag", "delete"];
        let filters = HashMap::from([
            ("type".to_owned(), kinds),
            ("event".to_owned(), actions.map(str::to_owned).to_vec()),
        ]);
        let since = since.map(translate::unix_nanos);
        let options = EventsOptions { since, filters: Some(filters), ..Default::default() };
        let (error, host) = (self.error_of(), self.host.clone());
        let gone = EngineError::Unreachable { host, why: "its event stream ended".to_owned() };
        self.client
            .events(Some(options))
            .map_err(error)
            .try_filter_map(async |event| Ok(translate::event(event)))
            .chain(futures::stream::once(async { Err(gone) }))
            .boxed()
    }

    fn logs(&self, id: &str, query: &LogQuery) -> BoxStream<'static, Result<Vec<u8>, EngineError>> {
        let options = LogsOptions {
            follow: query.follow,
            stdout: true,
            stderr: true,
            since: query.since_s.and_then(|since| i32::try_from(since).ok()).unwrap_or_default(),
            timestamps: query.timestamps,
            tail: query.tail_lines.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..Default::default()
        };
        let logs = self.client.logs(id, Some(options));
        logs.map_ok(|part: LogOutput| part.into_bytes().to_vec()).map_err(self.error_of()).boxed()
    }

    async fn images(&self) -> Result<Vec<Image>, EngineError> {
        let images = self.client.list_images(None::<ListImagesOptions>).await.map_err(self.error_of())?;
        Ok(images.into_iter().map(translate::image).collect())
    }

    fn pull(&self, image: &str) -> BoxStream<'static, Result<PullProgress, EngineError>> {
        let options = CreateImageOptions { from_image: Some(image.to_owned()), ..Default::default() };
        let pull = self.client.create_image(Some(options), None, None);
        pull.map_ok(translate::progress).map_err(self.error_of()).boxed()
    }

    fn export(&self, image: &str) -> ByteStream {
        // By query parameter: a name with slashes is not one path segment.
        let export = self.client.export_images(&[image]);
        export.map_ok(|part| part.to_vec()).map_err(std::io::Error::other).boxed()
    }

    async fn load(&self, archive: ByteStream) -> Result<Vec<String>, EngineError> {
        let options = ImportImageOptions { quiet: true, ..Default::default() };
        let mut answer = self.client.import_image_stream(options, archive.map_ok(Bytes::from), None);
        let mut names = Vec::new();
        while let Some(line) = answer.next().await {
            let line = line.map_err(|error| self.error(error))?;
            names.extend(line.stream.as_deref().and_then(translate::loaded_name));
        }
        Ok(names)
    }

    async fn import(&self, image: &str, layer: Vec<u8>, entrypoint: &str) -> Result<(), EngineError> {
        let (repo, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
            changes: vec![format!("ENTRYPOINT [\"{entrypoint}\"]")],
            ..Default::default()
        };
        let body = bollard::body_full(Bytes::from(layer));
        let answer = self.client.create_image(Some(options), Some(body), None);
        answer.map_err(self.error_of()).try_for_each(async |_| Ok(())).await
    }
}
