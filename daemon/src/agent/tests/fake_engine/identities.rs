//! Pods of which at most one runs in the whole flock.

use super::*;

/// The hold of identities, in milliseconds.
fn hold_ms() -> u64 {
    u64::try_from(gaggle_sched::controller::identity::IDENTITY_HOLD.as_millis()).unwrap()
}

#[tokio::test]
async fn an_identity_is_killed_when_no_leader_is_heard_and_other_pods_go_on() {
    let bench = bench();
    bench.single("db");
    bench.group.pod("web", one("app:1"));
    bench.group.until_phase("db", "Running").await;
    bench.group.until_phase("web", "Running").await;
    let id = bench.engine.ids("db", "main").remove(0);
    bench.group.set_away(true);
    bench.heard.send_replace(boottime_ms() - hold_ms());
    bench.until_engine("the identity to be killed", |_| !bench.runs("db")).await;
    assert!(bench.engine.state().calls.contains(&format!("stop {id} 0")), "it has no time to end");
    assert!(bench.runs("web"));
    // A leader is heard again, but nothing tells yet that the view is true.
    bench.heard.send_replace(boottime_ms());
    bench.group.pod("fence", one("app:1"));
    bench.until_engine("a later pod", |_| bench.runs("fence")).await;
    assert!(!bench.runs("db"), "the view may be old");
    bench.group.set_away(false);
    bench.until_engine("the identity to run again", |_| bench.runs("db")).await;
    bench.agent.stop().await;
}

/// Its end was not its own doing: it does not wait as one that crashes.
#[tokio::test]
async fn an_identity_that_was_killed_again_and_again_does_not_back_off() {
    let bench = bench();
    bench.single("db");
    bench.group.until_phase("db", "Running").await;
    for starts in 2..7 {
        bench.heard.send_replace(boottime_ms() - hold_ms());
        bench.until_engine("the identity to be killed", |_| !bench.runs("db")).await;
        bench.heard.send_replace(boottime_ms());
        bench.until_engine("the identity to run again", |_| bench.runs("db")).await;
        assert_eq!(bench.starts("db"), starts);
        let pod = bench.group.object("db").unwrap();
        assert!(!pod.value().to_string().contains("CrashLoopBackOff"), "{}", pod.value());
    }
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_identity_that_was_moved_meanwhile_is_not_started_again() {
    let bench = bench();
    bench.single("db");
    bench.group.until_phase("db", "Running").await;
    bench.heard.send_replace(boottime_ms() - hold_ms());
    bench.until_engine("the identity to be killed", |_| !bench.runs("db")).await;
    bench.group.vanish("db");
    bench.heard.send_replace(boottime_ms());
    bench.until_engine("its containers to go", |engine| engine.ids("db", "POD").is_empty()).await;
    bench.group.pod("fence", one("app:1"));
    bench.group.until_phase("fence", "Running").await;
    assert!(bench.engine.ids("db", "main").is_empty());
    bench.agent.stop().await;
}

#[tokio::test]
async fn an_identity_outlives_a_short_absence_of_its_daemon_and_no_long_one() {
    for (silent_ms, survives) in [(0, true), (hold_ms(), false)] {
        let mut bench = bench();
        bench.single("db");
        bench.group.until_phase("db", "Running").await;
        let id = bench.engine.ids("db", "main").remove(0);
        let file = bench.dir.path().join("heard");
        let noted = boottime_ms() - silent_ms;
        bench.heard.send_replace(noted);
        within("the note", async {
            while crate::agent::hold::noted(&file) != noted {
                tokio::task::yield_now().await;
            }
        })
        .await;
        bench.agent.stop().await;
        // The next daemon has heard nobody yet, and its group does not answer.
        bench.heard = watch::channel(0).0;
        bench.group.set_away(true);
        bench.restart();
        if survives {
            bench.group.set_away(false);
            bench.group.pod("fence", one("app:1"));
            bench.group.until_phase("fence", "Running").await;
            assert!(bench.runs("db"));
            assert_eq!(bench.starts("db"), 1, "it was not touched");
        } else {
            bench.until_engine("the identity to be killed", |_| !bench.runs("db")).await;
            assert!(bench.engine.state().calls.contains(&format!("stop {id} 0")));
        }
        bench.agent.stop().await;
    }
}

#[tokio::test]
async fn a_daemon_that_has_just_started_waits_for_the_group_before_it_starts_or_removes_anything() {
    let mut bench = bench();
    bench.group.pod("kept", one("app:1"));
    bench.group.until_phase("kept", "Running").await;
    bench.group.pod("unknown-to-the-old-view", one("app:1"));
    bench.group.until_phase("unknown-to-the-old-view", "Running").await;
    bench.agent.stop().await;
    // What the disk remembers: a pod that has been moved since, and not the one that was bound a moment ago.
    bench.group.set_away(true);
    let unknown = bench.group.object("unknown-to-the-old-view").unwrap().value().clone();
    bench.group.vanish("unknown-to-the-old-view");
    bench.group.pod("moved", one("app:1"));
    bench.restart();
    bench.group.change("kept", |pod| pod["metadata"]["labels"]["seen"] = json!("yes"));
    let mut state = bench.agent.engine();
    within("the engine", state.wait_for(|state| state.problem.is_none())).await.unwrap();
    bench.agent.pods().wait_for(|pods| *pods == 3).await.unwrap();
    // Now it catches up.
    bench.group.vanish("moved");
    bench.group.put("pods", "default", "unknown-to-the-old-view", unknown);
    bench.group.set_away(false);
    bench.group.pod("fence", one("app:1"));
    bench.group.until_phase("fence", "Running").await;
    assert!(bench.engine.ids("moved", "POD").is_empty());
    for name in ["kept", "unknown-to-the-old-view"] {
        assert!(bench.runs(name) && bench.starts(name) == 1, "{name} was not touched");
    }
    bench.agent.stop().await;
}
