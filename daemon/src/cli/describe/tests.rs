use super::*;
use serde_json::json;

fn printed(page: &Page) -> String {
    let mut out = Vec::new();
    page.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

#[test]
fn a_pending_pod_says_what_it_waits_for_and_what_happened() {
    let pod = json!({"metadata": {"name": "web", "namespace": "lab", "uid": "u1", "labels": {"a": "b", "c": "d"}},
        "spec": {"containers": [{"name": "main", "image": "web:1", "args": ["--x", "1"],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]}});
    let event = |uid: &str, message: &str| {
        json!({"type": "Warning", "reason": "FailedScheduling", "message": message, "count": 4,
            "involvedObject": {"uid": uid}, "source": {"component": "scheduler"},
            "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:30Z"})
    };
    let mut page = Page::default();
    pod::describe(&mut page, &pod);
    events::add(
        &mut page,
        &pod,
        vec![event("u1", "3 Insufficient cpu"), event("u0", "of its predecessor")],
        now(),
    );
    let text = printed(&page);
    for line in [
        "Waits for:       Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.\n",
        "Labels:          a=b\n                 c=d\n",
        "    Args:         --x\n                  1\n",
        "    Environment:  A=1\n                  B from the pod's metadata.name\n",
        "  Warning   FailedScheduling   30s (x4 over 10m)   scheduler   3 Insufficient cpu\n",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    assert!(!text.contains("predecessor"), "{text}");
}

#[test]
fn a_crashed_container_shows_how_it_ended() {
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "main", "image": "x"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "main", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}});
    let mut page = Page::default();
    pod::describe(&mut page, &pod);
    let text = printed(&page);
    for word in ["CrashLoopBackOff", "OOMKilled", "137", "Restart Count:  3"] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
}

#[test]
fn deployments_and_jobs_say_how_far_they_are() {
    let set = |name: &str, revision: &str, replicas: i64| {
        json!({"metadata": {"name": name, "annotations": {"deployment.kubernetes.io/revision": revision}},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas}})
    };
    let deployment = json!({"metadata": {"name": "web", "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"replicas": 4, "updatedReplicas": 2, "availableReplicas": 3}});
    let mut page = Page::default();
    let sets = [set("web-new", "2", 2), set("web-old", "1", 2), set("web-gone", "0", 0)];
    workload::describe_deployment(&mut page, &deployment, &sets);
    let text = printed(&page);
    assert!(text.contains("3 desired | 2 updated | 4 total | 3 available | 0 unavailable"), "{text}");
    assert!(
        text.contains("web-new (2/2") && text.contains("web-old (2/2") && !text.contains("web-gone"),
        "{text}"
    );

    let job = json!({"metadata": {"name": "skim"}, "spec": {"completions": 24, "parallelism": 6},
        "status": {"active": 6, "succeeded": 10, "startTime": "2026-01-01T00:57:00Z", "completedIndexes": "0-9"}});
    let mut page = Page::default();
    job::describe(&mut page, &job, now());
    let text = printed(&page);
    assert!(text.contains("6 Active (0 Ready) / 10 Succeeded / 0 Failed"), "{text}");
    assert!(text.contains("Duration:           3m\n") && text.contains("0-9"), "{text}");
}

#[test]
fn a_node_shows_its_pods_that_have_not_ended() {
    let node = json!({"metadata": {"name": "pc1"}, "spec": {"taints": [{"key": "owner", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    let pod = |name: &str, phase: &str| {
        json!({"metadata": {"name": name, "namespace": "lab"}, "status": {"phase": phase},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}, {}]}})
    };
    let mut page = Page::default();
    node::describe(&mut page, &node, &[pod("a", "Running"), pod("b", "Succeeded")], now());
    let text = printed(&page);
    assert!(text.contains("owner:NoSchedule") && text.contains("1 not ended"), "{text}");
    assert!(text.contains("  lab         a      500m"), "{text}");
}

#[test]
fn anything_else_is_a_tree_and_a_secret_stays_secret() {
    let mut page = Page::default();
    generic::describe(
        &mut page,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
        "data": {"a.txt": "one\ntwo"}, "spec": {"maxItems": [1, 2], "rules": [{"name": "r", "x": null}]}}),
    );
    let text = printed(&page);
    assert!(text.contains("Data:\n  a.txt:  one\n          two\n"), "{text}");
    assert!(text.contains("Max Items:  1\n              2\n"), "{text}");
    let mut page = Page::default();
    generic::describe(
        &mut page,
        &json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGVsbG8="}}),
    );
    let text = printed(&page);
    assert!(text.contains("k:  5 bytes") && !text.contains("aGVsbG8"), "{text}");
}

#[test]
fn objects_of_any_shape_are_described_without_panic() {
    for object in [
        json!(null),
        json!({"metadata": 1, "spec": [1], "status": "x"}),
        json!({"spec": {"containers": [1]}}),
    ] {
        let mut page = Page::default();
        pod::describe(&mut page, &object);
        node::describe(&mut page, &object, std::slice::from_ref(&object), now());
        workload::describe_deployment(&mut page, &object, std::slice::from_ref(&object));
        workload::describe_replica_set(&mut page, &object, std::slice::from_ref(&object));
        job::describe(&mut page, &object, now());
        generic::describe(&mut page, &object);
        events::add(&mut page, &object, vec![object.clone()], now());
        printed(&page);
    }
}
