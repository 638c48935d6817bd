//! Pods of a group that yielded to another one.

use super::*;
use gaggle_sched::state::{Expect, Key, Lineage, Resource, Store, Write};

impl Bench {
    /// The desktop turns to another group, which knows this desktop and these objects.
    fn turn_to_another_group(&self, objects: &[(&str, &str, &str, Value)]) {
        let mut store = Store::default();
        for (group, plural, name, value) in objects {
            let namespace = if *plural == "nodes" { "" } else { "default" };
            let key = Key::new(Resource::new(group, plural), namespace, *name);
            let write = Write::Put { key, value: value.clone(), expect: Expect::Absent, intent: None };
            store.apply(&write.into()).unwrap();
        }
        let lineage = Lineage { group: "another".into(), epoch: 1 };
        self.group.view.write(|view| view.replace(store, lineage));
    }
}

#[tokio::test]
async fn a_running_pod_is_taken_over_by_the_group_that_its_own_yields_to() {
    let bench = bench();
    let labels = json!({"app": "web", "pod-template-hash": "h"});
    bench.group.pod("wanted", one("app:1"));
    bench.group.pod("unwanted", one("app:1"));
    for (name, hash) in [("wanted", "h"), ("unwanted", "other")] {
        bench.group.change(name, |pod| {
            pod["metadata"]["labels"] = json!({"app": "web", "pod-template-hash": hash});
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "web-h", "uid": "of-the-old-group", "controller": true}]);
        });
        bench.group.until_phase(name, "Running").await;
    }
    // A later pod runs, so the loop has seen the changes by then.
    bench.single("db");
    bench.group.until_phase("db", "Running").await;
    let node = json!({"metadata": {"name": NODE, "uid": "n"}});
    let set = json!({"metadata": {"name": "web-h", "uid": "of-the-new-group", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}}});
    let id = bench.engine.ids("wanted", "main").remove(0);
    bench.turn_to_another_group(&[("", "nodes", NODE, node)]);
    bench.until_engine("the identity to go", |engine| engine.ids("db", "POD").is_empty()).await;
    assert!(bench.runs("wanted"), "its owner may still be on its way");
    let key = Key::new(Resource::new("apps", "replicasets"), "default", "web-h");
    let write = Write::Put { key, value: set, expect: Expect::Absent, intent: None };
    bench.group.view.write(|store| store.apply(&write.into())).unwrap();
    let status = bench.group.until_phase("wanted", "Running").await;
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    let object = bench.group.object("wanted").unwrap();
    assert_eq!(object.value()["metadata"]["ownerReferences"][0]["uid"], "of-the-new-group");
    bench.until_engine("the rest to go", |engine| engine.ids("unwanted", "POD").is_empty()).await;
    assert!(bench.group.object("unwanted").is_none() && bench.group.object("db").is_none());
    assert_eq!(
        (bench.engine.ids("wanted", "main"), bench.starts("wanted")),
        (vec![id], 1),
        "it was not touched"
    );
    bench.agent.stop().await;
}
