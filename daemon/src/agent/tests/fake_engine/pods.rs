//! Pods, and an engine that is slow, goes, or is stuck.

use super::*;
use crate::agent::engine::ContainerSpec;
use crate::agent::tests::group::log_of;
use crate::pods::{ByteStream, Ended, LogOptions, Output, PodRef, ProcessOptions, Stdio, StreamError};
use futures::StreamExt;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test]
async fn a_pod_costs_as_few_calls_as_it_can() {
    let bench = bench();
    let pod = bench.group.pod("web", one("app:1"));
    let status = bench.group.until_phase("web", "Running").await;
    assert_eq!(status["podIP"], "172.17.0.2");
    let id = bench.engine.ids("web", "main").remove(0);
    let calls: Vec<_> =
        bench.engine.state().calls.iter().map(|call| call.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(calls, ["import", "create", "start", "create", "start"]);
    assert_eq!(log_of(&bench.agent, &pod, LogOptions::default()).await, format!("log of {id}\n"));
    bench.group.delete("web", 7);
    bench.group.until_gone("web").await;
    assert!(bench.engine.state().calls.contains(&format!("stop {id} 7")));
    assert!(bench.engine.state().containers.is_empty());
    bench.agent.stop().await;
}

#[tokio::test]
async fn a_pod_that_a_finalizer_holds_is_ended_but_its_object_is_left() {
    let bench = bench();
    bench.engine.state().stuck.push("big:1".into());
    bench.group.pod("ran", one("app:1"));
    // One that never ran has failed all the same: a Job waits for a final phase.
    bench.group.pod("waited", one("big:1"));
    bench.group.until_phase("ran", "Running").await;
    bench.until_engine("the pull", |engine| engine.state().calls.contains(&"pull big:1".to_owned())).await;
    for name in ["ran", "waited"] {
        bench.group.change(name, |pod| {
            pod["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
        });
        bench.group.delete(name, 1);
        let status = bench.group.until_phase(name, "Failed").await;
        assert!(bench.group.object(name).is_some(), "{status}");
    }
    bench.until_engine("the containers to go", |engine| engine.state().containers.is_empty()).await;
    for name in ["ran", "waited"] {
        bench.group.change(name, |pod| pod["metadata"]["finalizers"] = json!([]));
        bench.group.until_gone(name).await;
    }
    bench.agent.stop().await;
}

#[tokio::test]
async fn a_slow_pull_holds_nobody_else_up_and_a_deletion_does_not_wait_for_it() {
    let bench = bench();
    bench.engine.state().stuck.push("big:1".into());
    bench.group.pod("slow", one("big:1"));
    bench.group.pod("slow-too", one("big:1"));
    bench.until_engine("the pull", |engine| engine.state().calls.contains(&"pull big:1".to_owned())).await;
    bench.group.pod("quick", one("app:1"));
    bench.group.until_phase("quick", "Running").await;
    bench.group.delete("slow", 1);
    bench.group.until_gone("slow").await;
    let pulls = bench.engine.state().calls.iter().filter(|call| call.starts_with("pull")).count();
    assert_eq!(pulls, 1, "two pods share one pull");
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_image_of_no_registry_comes_from_a_peer_once() {
    struct Peer(AtomicUsize);
    #[async_trait::async_trait]
    impl ImagePeers for Peer {
        async fn fetch(&self, image: &str) -> Result<Option<ByteStream>, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let archive = image.as_bytes().to_vec();
            Ok(Some(futures::stream::iter([Ok(archive)]).boxed()))
        }
    }
    let peer = Arc::new(Peer(AtomicUsize::new(0)));
    let bench = bench_with(peer.clone());
    bench.group.pod("first", one("lab/skim"));
    bench.group.until_phase("first", "Running").await;
    // `:latest` and untagged ask the registry each time, and do without it.
    bench.group.pod("second", one("lab/skim"));
    bench.group.until_phase("second", "Running").await;
    assert_eq!(peer.0.load(Ordering::SeqCst), 1);
    assert!(bench.agent.images().borrow().contains(&"lab/skim:latest".to_owned()));
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_image_that_nobody_has_says_what_each_said() {
    let bench = bench();
    let pod = bench.group.pod("web", one("lab/none:1"));
    let failed = |status: &Value| reason(status) == "ErrImagePull";
    let status = bench.group.until("web", "failing to pull", failed).await;
    let message = status["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("no such host") && message.contains("none has it"), "{message}");
    let error = bench.agent.logs(&pod, &LogOptions::default()).await.err().unwrap();
    assert!(matches!(error, StreamError::BadRequest(_)), "{error:?}");
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_engine_that_goes_leaves_statuses_alone_and_is_found_again() {
    let bench = bench();
    bench.group.pod("web", one("app:1"));
    let before = bench.group.until_phase("web", "Running").await;
    let mut state = bench.agent.engine();
    bench.engine.take_away();
    within("the problem", state.wait_for(|state| state.problem.is_some())).await.unwrap();
    assert_eq!(bench.group.object("web").unwrap().value()["status"], before);
    bench.group.pod("later", one("app:1"));
    bench.engine.bring_back();
    within("the engine", state.wait_for(|state| state.problem.is_none())).await.unwrap();
    bench.group.until_phase("later", "Running").await;
    assert_eq!(
        bench.group.object("web").unwrap().value()["status"]["containerStatuses"],
        before["containerStatuses"]
    );
    bench.agent.stop().await;
}

#[tokio::test]
async fn statuses_wait_for_a_quorum() {
    let bench = bench();
    // The group is heard first, or nothing would be started at all.
    bench.group.pod("first", one("app:1"));
    bench.group.until_phase("first", "Running").await;
    bench.group.set_away(true);
    bench.group.pod("web", one("app:1"));
    bench.until_engine("the container", |engine| engine.ids("web", "main").len() == 1).await;
    assert_eq!(bench.group.object("web").unwrap().value()["status"]["phase"], "Pending");
    bench.group.set_away(false);
    bench.group.until_phase("web", "Running").await;
    bench.agent.stop().await;
}

#[tokio::test]
async fn unexplained_containers_go_only_when_the_view_is_current_and_never_those_of_others() {
    let mut bench = bench();
    bench.group.pod("stays", one("app:1"));
    bench.group.pod("goes", one("app:1"));
    bench.group.until_phase("stays", "Running").await;
    bench.group.until_phase("goes", "Running").await;
    let foreign =
        ContainerSpec { name: "somebody's".into(), image: "app:1".into(), ..ContainerSpec::default() };
    let foreign = bench.engine.create(&foreign).await.unwrap();
    let mut labels = bench.engine.inspect(&bench.engine.ids("goes", "main")[0]).await.unwrap().labels;
    labels.insert("gaggle.dev/cluster".into(), "another".into());
    let neighbour =
        ContainerSpec { name: "neighbour".into(), image: "app:1".into(), labels, ..ContainerSpec::default() };
    let neighbour = bench.engine.create(&neighbour).await.unwrap();
    bench.agent.stop().await;
    bench.group.vanish("goes");
    bench.current.send_replace(false);
    bench.restart();
    // A later pod runs, so the loop has seen everything by then.
    bench.group.pod("later", one("app:1"));
    bench.group.until_phase("later", "Running").await;
    assert_eq!(bench.engine.ids("goes", "POD").len(), 1, "not current: nothing is removed");
    bench.current.send_replace(true);
    bench.until_engine("the orphan to go", |engine| engine.ids("goes", "POD").is_empty()).await;
    let state = bench.engine.state().containers.keys().cloned().collect::<Vec<_>>();
    assert!(state.contains(&foreign) && state.contains(&neighbour), "{state:?}");
    assert_eq!(bench.engine.ids("stays", "main").len(), 1);
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_older_binding_is_not_obeyed() {
    let mut bench = bench();
    let attempt = |bench: &Bench, attempt: &str, image: &str| {
        bench.group.change("web", |pod| {
            pod["metadata"]["annotations"] = json!({"gaggle.dev/attempt": attempt});
            pod["spec"]["containers"][0]["image"] = json!(image);
        });
    };
    bench.engine.add_image("app:2");
    bench.engine.add_image("app:3");
    bench.group.pod("web", one("app:1"));
    attempt(&bench, "2.5", "app:2");
    bench
        .group
        .until("web", "app:2", |status| {
            status["containerStatuses"][0]["image"] == "app:2" && status["phase"] == "Running"
        })
        .await;
    let fence = |bench: &Bench, name: &str| {
        bench.group.pod(name, one("app:1"));
        let group = bench.group.clone();
        let name = name.to_owned();
        async move { group.until_phase(&name, "Running").await }
    };
    attempt(&bench, "2.4", "app:3");
    fence(&bench, "after").await;
    let images = |bench: &Bench| {
        let ids = bench.engine.ids("web", "main");
        ids.iter().map(|id| bench.engine.state().containers[id].image_id.clone()).collect::<Vec<_>>()
    };
    assert!(!images(&bench).contains(&"sha256:app:3".to_owned()));
    // The next daemon knows it from the labels.
    bench.agent.stop().await;
    bench.restart();
    fence(&bench, "after-the-restart").await;
    assert!(!images(&bench).contains(&"sha256:app:3".to_owned()));
    assert_eq!(bench.engine.ids("web", "POD").len(), 1, "and its containers are kept");
    bench.agent.stop().await;
}

#[tokio::test]
async fn what_cannot_be_executed_has_ended() {
    let bench = bench();
    bench.engine.state().start_fails = Some("_main_web".into());
    let mut spec = one("app:1");
    spec["restartPolicy"] = json!("Never");
    bench.group.pod("web", spec);
    let status = bench.group.until_phase("web", "Failed").await;
    let terminated = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["reason"], "ContainerCannotRun");
    assert_eq!(terminated["message"], "it cannot be executed");
    bench.agent.stop().await;
}

#[tokio::test]
async fn a_container_left_half_made_is_made_again() {
    let mut bench = bench();
    let pod: PodRef = bench.group.pod("web", one("app:1"));
    bench.group.until_phase("web", "Running").await;
    // As if the daemon had died between creating and starting the next one.
    bench.agent.stop().await;
    let mut labels = bench.engine.inspect(&bench.engine.ids("web", "main")[0]).await.unwrap().labels;
    bench.engine.exit(&bench.engine.ids("web", "main")[0], 1);
    labels.insert("gaggle.dev/restart-count".into(), "1".into());
    let name = format!("gaggle_main_web_default_{}_1", &pod.uid.replace('-', "")[..8]);
    let half = ContainerSpec { name, image: "app:1".into(), labels, ..ContainerSpec::default() };
    bench.engine.create(&half).await.unwrap();
    bench.restart();
    let again = |status: &Value| {
        status["containerStatuses"][0]["restartCount"] == 1
            && status["containerStatuses"][0]["state"]["running"].is_object()
    };
    bench.group.until("web", "running again", again).await;
    bench.agent.stop().await;
}

#[tokio::test]
async fn a_container_that_ends_is_reported_and_its_log_stays() {
    let bench = bench();
    let mut spec = one("app:1");
    spec["restartPolicy"] = json!("OnFailure");
    let pod = bench.group.pod("web", spec);
    bench.group.until_phase("web", "Running").await;
    let id = bench.engine.ids("web", "main").remove(0);
    bench.engine.exit(&id, 0);
    let status = bench.group.until_phase("web", "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    bench.until_engine("the sandbox to go", |engine| engine.ids("web", "POD").is_empty()).await;
    assert_eq!(log_of(&bench.agent, &pod, LogOptions::default()).await, format!("log of {id}\n"));
    let stranger = PodRef { uid: "other".into(), ..pod };
    let error = bench.agent.logs(&stranger, &LogOptions::default()).await.err().unwrap();
    assert!(matches!(error, StreamError::NotFound(_)), "{error:?}");
    bench.agent.stop().await;
}

#[tokio::test]
async fn memory_that_ran_out_is_told_whether_docker_says_so_before_the_end_or_after_it() {
    let bench = bench();
    let mut spec = one("app:1");
    spec["restartPolicy"] = json!("Never");
    for (name, before, after) in [("early", true, false), ("late", false, true), ("killed", false, false)] {
        bench.group.pod(name, spec.clone());
        bench.group.until_phase(name, "Running").await;
        let id = bench.engine.ids(name, "main").remove(0);
        if before {
            bench.engine.out_of_memory(&id);
        }
        bench.engine.exit(&id, 137);
        if after {
            bench.engine.out_of_memory(&id);
        }
        let status = bench.group.until_phase(name, "Failed").await;
        let why = if before || after { "OOMKilled" } else { "Error" };
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], why, "{name}");
    }
    bench.agent.stop().await;
}

#[tokio::test]
async fn a_desktop_that_has_left_keeps_no_container() {
    let bench = bench();
    let mut spec = one("app:1");
    spec["restartPolicy"] = json!("Never");
    bench.group.pod("done", spec);
    bench.group.until_phase("done", "Running").await;
    bench.engine.exit(&bench.engine.ids("done", "main")[0], 0);
    bench.group.until_phase("done", "Succeeded").await;
    bench.group.pod("runs", one("app:1"));
    bench.group.until_phase("runs", "Running").await;
    // Whoever has left follows nobody, and nobody takes its reports.
    bench.current.send_replace(false);
    bench.group.set_away(true);
    bench.agent.clear();
    within("the pods to be gone", async {
        bench.agent.pods().wait_for(|pods| *pods == 0).await.unwrap();
    })
    .await;
    assert!(bench.engine.state().containers.is_empty());
    assert_eq!(bench.group.object("done").unwrap().value()["status"]["phase"], "Succeeded");
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_stuck_is_noticed_and_pods_are_left_as_they_are() {
    let bench = bench();
    bench.group.pod("web", one("app:1"));
    bench.group.until_phase("web", "Running").await;
    let (before, mut engine) = (bench.engine.state().calls.clone(), bench.agent.engine());
    assert_eq!(engine.borrow_and_update().problem, None);
    bench.engine.state().silent = true;
    let limit = std::time::Duration::from_secs(30);
    let noticed = tokio::time::timeout(limit, engine.wait_for(|state| state.problem.is_some())).await.is_ok();
    assert!(noticed, "nobody asks a silent engine whether it is there");
    bench.engine.state().silent = false;
    let back = tokio::time::timeout(limit, engine.wait_for(|state| state.problem.is_none())).await.is_ok();
    assert!(back, "it was not found again");
    bench.group.until_phase("web", "Running").await;
    assert_eq!(bench.engine.state().calls, before, "nothing was done to the pod");
    bench.agent.stop().await;
}

#[tokio::test]
async fn people_talk_with_what_runs_and_with_nothing_else() {
    let bench = bench();
    let container = json!({"name": "main", "image": "app:1", "tty": true, "stdin": true, "stdinOnce": true});
    let pod = bench.group.pod("web", json!({"restartPolicy": "Never", "containers": [container]}));
    bench.group.until_phase("web", "Running").await;
    let talk = async |pod: &PodRef, container: &str, command: Option<&[&str]>| {
        let command = command.map(|words| words.iter().map(|&word| word.to_owned()).collect());
        let stdio = Stdio { stdout: true, ..Stdio::default() };
        bench.agent.process(pod, &ProcessOptions { container: container.into(), command, stdio }).await
    };
    let mut process = talk(&pod, "main", Some(&["exit", "3"])).await.unwrap();
    assert_eq!(process.output.recv().await, Some(Output::Ended(Ended::Exited(3))));
    talk(&pod, "main", None).await.unwrap();
    let id = bench.engine.ids("web", "main").pop().unwrap();
    let calls = bench.engine.state().calls.clone();
    // The terminal and the input are as the container was made.
    assert_eq!(
        calls[calls.len() - 2..],
        [format!("talk {id} exit 3"), format!("attach {id} tty=true Closes")]
    );
    let missing = talk(&pod, "other", None).await.unwrap_err();
    assert_eq!(missing, StreamError::NotFound("container not found (\"other\")".into()));
    let elsewhere = PodRef { uid: "another".into(), ..pod.clone() };
    assert!(matches!(talk(&elsewhere, "main", None).await, Err(StreamError::NotFound(_))));
    bench.engine.exit(&id, 2);
    bench.group.until_phase("web", "Failed").await;
    let ended = talk(&pod, "main", Some(&["cat"])).await.unwrap_err().to_string();
    assert!(ended.ends_with("is not running: it ended with exit code 2"), "{ended}");
}
