//! What this desktop and its containers take: counters that are read when somebody asks, and what became of them since.
//!
//! Nothing is measured while nobody asks.

use super::engine::{Counters, Engine, EngineError};
use super::identity::{Owner, Role, pod_and_role};
use crate::usage::{CONTAINERS, ContainerUsage, Measured, Usage};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What was measured is told again for this long, so that a crowd that watches costs no more than one.
const FRESH: Duration = Duration::from_secs(5);
/// Over which time processors are measured when nobody has asked lately.
const WINDOW: Duration = Duration::from_secs(1);
/// Counters that are older say nothing about now.
const LATELY: Duration = Duration::from_secs(60);
/// Containers whose counters are read at once.
const AT_ONCE: usize = 8;

/// Reads the counters, and remembers the last ones.
#[derive(Default)]
pub struct Meter {
    last: Mutex<Option<(Sample, Option<Measured>)>>,
}

/// The counters of one moment.
#[derive(Clone, Debug)]
struct Sample {
    taken: Instant,
    at: Timestamp,
    node: Counters,
    containers: BTreeMap<String, (ContainerUsage, Counters)>,
}

impl Meter {
    pub async fn measure(&self, engine: &dyn Engine, owner: &Owner) -> Result<Measured, EngineError> {
        let mut last = self.last.lock().await;
        let before = match last.take().filter(|(sample, _)| sample.taken.elapsed() < LATELY) {
            Some((sample, Some(measured))) if sample.taken.elapsed() < FRESH => {
                *last = Some((sample, Some(measured.clone())));
                return Ok(measured);
            }
            Some((sample, _)) if sample.taken.elapsed() >= WINDOW => sample,
            _ => {
                let first = sample(engine, owner).await?;
                tokio::time::sleep(WINDOW).await;
                first
            }
        };
        let now = sample(engine, owner).await?;
        let measured = between(&before, &now);
        *last = Some((now, Some(measured.clone())));
        Ok(measured)
    }
}

async fn sample(engine: &dyn Engine, owner: &Owner) -> Result<Sample, EngineError> {
    let ours = engine.running(&owner.labels()).await?.into_iter().filter_map(|running| {
        let (pod, role) = pod_and_role(&running.labels)?;
        (role != Role::Sandbox).then_some((running.id, pod, role))
    });
    let counted = ours.take(CONTAINERS).map(async |(id, pod, role)| match engine.counters(&id).await {
        Ok(counters) => {
            let usage = ContainerUsage {
                namespace: pod.namespace,
                pod: pod.name,
                uid: pod.uid,
                container: role.as_str().to_owned(),
                usage: Usage::default(),
            };
            Ok(Some((id, (usage, counters))))
        }
        // It ended meanwhile.
        Err(EngineError::NotFound(_) | EngineError::Conflict(_)) => Ok(None),
        Err(error) => Err(error),
    });
    let containers = futures::stream::iter(counted)
        .buffer_unordered(AT_ONCE)
        .try_filter_map(async |counted| Ok(counted))
        .try_collect()
        .await?;
    Ok(Sample { taken: Instant::now(), at: Timestamp::now(), node: of_desktop().await, containers })
}

/// What was taken from one moment to the next. A container that began meanwhile is measured from its beginning, as its
/// counter is 0 there.
fn between(before: &Sample, now: &Sample) -> Measured {
    let window = now.taken.saturating_duration_since(before.taken).max(Duration::from_millis(1));
    let usage = |before: u64, now: &Counters| Usage {
        nanocores: rate(now.cpu_nanos.saturating_sub(before), window),
        memory_bytes: now.memory_bytes,
    };
    let containers = now.containers.iter().map(|(id, (container, counters))| {
        let began = before.containers.get(id).map_or(0, |(_, before)| before.cpu_nanos);
        ContainerUsage { usage: usage(began, counters), ..container.clone() }
    });
    Measured {
        at: now.at,
        window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        node: usage(before.node.cpu_nanos, &now.node),
        containers: containers.collect(),
    }
}

/// Processor time in nanoseconds over a window, in billionths of a processor.
fn rate(nanos: u64, window: Duration) -> u64 {
    let rate = u128::from(nanos) * 1_000_000_000 / window.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The whole desktop, as the kernel counts; zeros where it does not say.
async fn of_desktop() -> Counters {
    let read = async |path: &str| tokio::fs::read_to_string(path).await.unwrap_or_default();
    Counters {
        cpu_nanos: busy_nanos(&read("/proc/stat").await),
        memory_bytes: used_bytes(&read("/proc/meminfo").await),
    }
}

/// Of `/proc/stat`: what all processors spent on anything but idling and waiting for disks, see proc_stat(5). Its unit is a
/// hundredth of a second on every Linux that Docker runs on.
fn busy_nanos(stat: &str) -> u64 {
    let first = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal; guests' time is in the first two already.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum();
    busy.saturating_mul(10_000_000)
}

/// Of `/proc/meminfo`: what cannot be given to somebody else at once, see proc_meminfo(5).
fn used_bytes(meminfo: &str) -> u64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    kib("MemTotal").saturating_sub(kib("MemAvailable")).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::super::engine::ContainerSpec;
    use super::super::engine::fake::FakeEngine;
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn the_kernels_words_are_understood() {
        let stat = "cpu  100 10 50 9999 77 3 4 1 5 6\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 1\n";
        assert_eq!(busy_nanos(stat), 168 * 10_000_000);
        assert_eq!(busy_nanos(""), 0);
        let meminfo = "MemTotal:        8000 kB\nMemFree:         1000 kB\nMemAvailable:    3000 kB\n";
        assert_eq!(used_bytes(meminfo), 5000 * 1024);
        assert_eq!(used_bytes("MemTotal: many kB\n"), 0);
    }

    async fn started(engine: &FakeEngine, owner: &Owner, name: &str, role: &Role) -> String {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        let labels = owner.labels_for(&pod, role, 0);
        let name = format!("{name}-{}", role.as_str());
        let spec = ContainerSpec { name, image: "app:1".into(), labels, ..Default::default() };
        let id = engine.create(&spec).await.unwrap();
        engine.start(&id).await.unwrap();
        id
    }

    #[tokio::test(start_paused = true)]
    async fn processors_are_measured_over_a_window_and_told_again_for_a_while() {
        let engine = FakeEngine::default();
        engine.add_image("app:1");
        let owner = Owner { cluster: "lab".into(), node: "ada".into() };
        let main = Role::Container("main".into());
        let id = started(&engine, &owner, "web", &main).await;
        started(&engine, &owner, "web", &Role::Sandbox).await;
        // Half a processor.
        engine.takes(&id, 500_000_000, 5 << 20);
        let meter = Meter::default();
        let measured = meter.measure(&engine, &owner).await.unwrap();
        let [container] = measured.containers.as_slice() else { panic!("{measured:?}") };
        assert_eq!((container.pod.as_str(), container.container.as_str()), ("web", "main"));
        assert!(container.usage.nanocores.abs_diff(500_000_000) < 5_000_000, "{measured:?}");
        assert_eq!(container.usage.memory_bytes, 5 << 20);
        let asked = Instant::now();
        assert_eq!(meter.measure(&engine, &owner).await.unwrap(), measured);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        // Later the window is the time since somebody asked.
        tokio::time::advance(Duration::from_secs(20)).await;
        let later = meter.measure(&engine, &owner).await.unwrap();
        assert_eq!(later.window_ms, 20_000);
        assert!(later.containers[0].usage.nanocores.abs_diff(500_000_000) < 5_000_000, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_gone_is_an_error_and_the_next_time_is_as_the_first() {
        let engine = FakeEngine::default();
        let owner = Owner { cluster: "lab".into(), node: "ada".into() };
        let meter = Meter::default();
        engine.take_away();
        assert!(meter.measure(&engine, &owner).await.is_err());
    }
}
