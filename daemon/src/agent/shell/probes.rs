//! Asking containers how they are: startup, readiness and liveness probes, by command, HTTP or TCP.
//!
//! One task a container; it must never decide what follows from an answer.

use super::Report;
use crate::agent::engine::Engine;
use crate::agent::identity::PodId;
use crate::agent::planner::{Health, PodNote};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How much of an HTTP answer is read: its status line, and something for the message.
const ANSWER_BYTES: u64 = 10 << 10;

pub struct Watched {
    pub engine: Arc<dyn Engine>,
    pub id: String,
    pub pod: PodId,
    pub container: Container,
    /// The pod's.
    pub address: String,
    pub started_at: Timestamp,
}

pub fn wanted(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.readiness_probe.is_some()
        || container.liveness_probe.is_some()
}

/// One probe's run of answers.
struct Run<'p> {
    kind: &'static str,
    probe: &'p Probe,
    successes: u32,
    failures: u32,
    next: Instant,
}

impl<'p> Run<'p> {
    fn new(kind: &'static str, probe: Option<&'p Probe>, age: Duration) -> Option<Self> {
        let probe = probe?;
        let delay = seconds(probe.initial_delay_seconds, 0).saturating_sub(age);
        Some(Self { kind, probe, successes: 0, failures: 0, next: Instant::now() + delay })
    }

    fn threshold(&self, of: Option<i32>, default: u32) -> u32 {
        of.and_then(|of| u32::try_from(of).ok()).filter(|of| *of > 0).unwrap_or(default)
    }

    /// `Some`: enough answers of one kind in a row.
    fn count(&mut self, ok: bool) -> Option<bool> {
        if ok {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
            (self.successes >= self.threshold(self.probe.success_threshold, 1)).then_some(true)
        } else {
            (self.successes, self.failures) = (0, self.failures.saturating_add(1));
            (self.failures >= self.threshold(self.probe.failure_threshold, 3)).then_some(false)
        }
    }
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(default))
}

/// Kubernetes' default of a probe's period and time-out, in seconds.
const PERIOD_S: u64 = 10;
const TIMEOUT_S: u64 = 1;

pub async fn watch(watched: Watched, reports: mpsc::Sender<Report>) {
    let container = &watched.container;
    let age = Duration::try_from(Timestamp::now().duration_since(watched.started_at)).unwrap_or_default();
    let mut startup = Run::new("Startup", container.startup_probe.as_ref(), age);
    let mut others: Vec<_> = [
        Run::new("Readiness", container.readiness_probe.as_ref(), age),
        Run::new("Liveness", container.liveness_probe.as_ref(), age),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut health = Health { started: startup.is_none(), ready: false, failed: None };
    let mut told = None;
    loop {
        let run = match &mut startup {
            Some(startup) => startup,
            None => match others.iter_mut().min_by_key(|run| run.next) {
                Some(run) => run,
                None => return,
            },
        };
        tokio::time::sleep_until(run.next).await;
        let timeout = seconds(run.probe.timeout_seconds, TIMEOUT_S).max(Duration::from_secs(1));
        let answer = ask(&watched, run.probe, timeout).await;
        run.next = Instant::now() + seconds(run.probe.period_seconds, PERIOD_S).max(Duration::from_secs(1));
        if let Err(why) = &answer {
            let note = PodNote::warning("Unhealthy", format!("{} probe failed: {why}", run.kind));
            let _ = reports.send(Report::Note { pod: watched.pod.clone(), note }).await;
        }
        let verdict = run.count(answer.is_ok());
        let kind = run.kind;
        match (kind, verdict) {
            ("Readiness", Some(ready)) => health.ready = ready,
            ("Startup", Some(true)) => {
                health.started = true;
                startup = None;
            }
            ("Startup" | "Liveness", Some(false)) => {
                let kind = kind.to_lowercase();
                health.failed =
                    Some(format!("Container {} failed {kind} probe, will be restarted", container.name));
            }
            _ => {}
        }
        if told.as_ref() != Some(&health) {
            told = Some(health.clone());
            if reports.send(Report::Probed { id: watched.id.clone(), health: health.clone() }).await.is_err()
            {
                return;
            }
        }
        if health.failed.is_some() {
            return;
        }
    }
}

async fn ask(watched: &Watched, probe: &Probe, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result =
            watched.engine.exec(&watched.id, &command, timeout).await.map_err(|error| error.to_string())?;
        return if result.code == 0 { Ok(()) } else { Err(result.output.trim().to_owned()) };
    }
    let answer = async {
        if let Some(http) = &probe.http_get {
            return get(watched, http).await;
        }
        let (host, port) = if let Some(tcp) = &probe.tcp_socket {
            (tcp.host.as_deref(), port(&watched.container, &tcp.port)?)
        } else if let Some(grpc) = &probe.grpc {
            // That it listens is what can be said without its protocol.
            (None, u16::try_from(grpc.port).map_err(|_| format!("invalid port {}", grpc.port))?)
        } else {
            return Err("the probe has no action".to_owned());
        };
        connect(watched, host, port).await.map(drop)
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Err("context deadline exceeded (no answer in time)".to_owned()),
    }
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named =
                ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port).next();
            named.or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("couldn't find port: {port:?}"))
}

async fn connect(watched: &Watched, host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let host = host.filter(|host| !host.is_empty()).unwrap_or(&watched.address);
    TcpStream::connect((host, port)).await.map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

async fn get(watched: &Watched, http: &HTTPGetAction) -> Result<(), String> {
    let port = port(&watched.container, &http.port)?;
    let path = http.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let mut stream = connect(watched, http.host.as_deref(), port).await?;
    if http.scheme.as_deref() == Some("HTTPS") {
        // Certificates are not checked by such probes: that it accepts a connection is what is asked here.
        return Ok(());
    }
    let headers = http.http_headers.iter().flatten();
    let own_host = headers.clone().any(|header| header.name.eq_ignore_ascii_case("host"));
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\n");
    if !own_host {
        request.push_str(&format!("Host: {}:{port}\r\n", watched.address));
    }
    for header in headers {
        let clean = |text: &str| text.replace(['\r', '\n'], "");
        request.push_str(&format!("{}: {}\r\n", clean(&header.name), clean(&header.value)));
    }
    request.push_str("\r\n");
    let failed = |error: std::io::Error| format!("Get \"http://{}:{port}{path}\": {error}", watched.address);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES);
    // The status line is enough.
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await.map_err(failed)? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let code =
        line.strip_prefix("HTTP/").and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u16>().ok());
    match code {
        Some(code) if (200..400).contains(&code) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("Get \"http://{}:{port}{path}\": malformed HTTP response", watched.address)),
    }
}
