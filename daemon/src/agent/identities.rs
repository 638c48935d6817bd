//! The identities that run on this desktop's engine, for whoever must end them without an agent.

use super::engine::{Docker, Engine, EngineError};
use super::identity::{Owner, Role, SINGLE, pod_and_role};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// How long the engine may take to say what runs.
const LIST_WITHIN: Duration = Duration::from_secs(15);
/// How long it may take to kill one container, before that is asked for again.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// Containers killed at once.
const AT_ONCE: usize = 16;

/// A container of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningIdentity {
    id: String,
    /// The pod's name.
    pub pod: String,
}

/// A look at the engine.
pub struct Identities {
    engine: Arc<dyn Engine>,
    owner: Owner,
}

impl Identities {
    /// Of this node of this cluster.
    pub async fn connect(docker_host: &str, cluster: String, node: String) -> Result<Self, EngineError> {
        let engine = Arc::new(Docker::connect(Some(docker_host)).await?);
        Ok(Self { engine, owner: Owner { cluster, node } })
    }

    /// Their containers that run; what holds a pod's namespaces does nothing and is left alone.
    pub async fn running(&self) -> Result<Vec<RunningIdentity>, EngineError> {
        let mut labels = self.owner.labels().to_vec();
        labels.push((SINGLE.to_owned(), "true".to_owned()));
        let listed = tokio::time::timeout(LIST_WITHIN, self.engine.running(&labels)).await;
        let found = listed.unwrap_or_else(|_| {
            Err(EngineError::Refused(format!("no answer within {} s", LIST_WITHIN.as_secs())))
        })?;
        let identities = found.into_iter().filter_map(|container| {
            let (pod, _) = pod_and_role(&container.labels).filter(|(_, role)| *role != Role::Sandbox)?;
            Some(RunningIdentity { id: container.id, pod: pod.name })
        });
        Ok(identities.collect())
    }

    /// Kills these, and says which could not be killed and why. What came of it the next look shows.
    pub async fn kill(&self, running: &[RunningIdentity]) -> Vec<String> {
        let kills = running.iter().map(async |container| {
            let stop = self.engine.stop(&container.id, Duration::ZERO);
            let why = match tokio::time::timeout(KILL_WITHIN, stop).await {
                Ok(killed) => killed.err()?.to_string(),
                Err(_) => "Docker has not killed it in time".to_owned(),
            };
            Some(format!("{}: {why}", container.pod))
        });
        let killed = futures::stream::iter(kills).buffer_unordered(AT_ONCE);
        killed.filter_map(async |failed| failed).collect().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::fake::FakeEngine;
    use super::super::engine::{ContainerSpec, RunState};
    use super::*;
    use gaggle_sched::controller::identity::AT_MOST_ONCE;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, single: bool) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("default".into());
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(format!("uid-{name}"));
        pod.metadata.annotations = single.then(|| [(AT_MOST_ONCE.to_owned(), "true".to_owned())].into());
        pod
    }

    #[tokio::test]
    async fn of_all_containers_the_running_identities_of_this_node_are_killed() {
        let engine = FakeEngine::default();
        engine.add_image("app:1");
        let owner = |node: &str| Owner { cluster: "lab".into(), node: node.into() };
        let main = Role::Container("main".into());
        for (name, node, role, single) in [
            ("db", "ada", &main, true),
            ("db-box", "ada", &Role::Sandbox, true),
            ("web", "ada", &main, false),
            ("db-of-bob", "bob", &main, true),
        ] {
            let labels = owner(node).labels_for(&pod(name, single), role, 0);
            let spec =
                ContainerSpec { name: name.into(), image: "app:1".into(), labels, ..Default::default() };
            let id = engine.create(&spec).await.unwrap();
            engine.start(&id).await.unwrap();
        }
        let identities = Identities { engine: Arc::new(engine.clone()), owner: owner("ada") };
        let running = identities.running().await.unwrap();
        let names: Vec<_> = running.iter().map(|container| container.pod.as_str()).collect();
        assert_eq!(names, ["db"]);
        identities.kill(&running).await;
        assert!(identities.running().await.unwrap().is_empty());
        let still = |state: &RunState| matches!(state, RunState::Running { .. });
        let running = engine.state().containers.values().filter(|found| still(&found.state)).count();
        assert_eq!(running, 3, "the others run on");
        engine.take_away();
        assert!(identities.running().await.is_err());
    }
}
