use super::*;
use crate::controller::harness::{Act, World};
use crate::state::{Key, Resource};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::{Value, json};

fn pod(spec: Value) -> Pod {
    let value = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    serde_json::from_value(value).unwrap()
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

fn limits(world: &mut World, item: Value) {
    world.create::<LimitRange>("default", "range", json!({"metadata": {}, "spec": {"limits": [item]}}));
}

fn quota(world: &mut World, spec: Value) -> Key {
    world.create::<ResourceQuota>("default", "q", json!({"metadata": {}, "spec": spec}))
}

fn replica_set(world: &mut World, replicas: i32, requests: Value) -> Key {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
        container(requests.clone(), requests)
    ]}});
    let spec =
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    world.create::<ReplicaSet>("default", "web", json!({"metadata": {}, "spec": spec}))
}

#[test]
fn what_a_container_does_not_say_the_range_says() {
    let mut world = World::new(1);
    limits(
        &mut world,
        json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}),
    );
    let mut one = pod(
        json!({"containers": [{"name": "c"}], "initContainers": [container(json!({}), json!({"cpu": "2"}))]}),
    );
    complete(&world.store, &mut one).unwrap();
    let told = &one.metadata.annotations.as_ref().unwrap()["kubernetes.io/limit-ranger"];
    assert_eq!(
        told,
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c; cpu request for init \
         container c"
    );
    let spec = one.spec.unwrap();
    let resources = spec.containers[0].resources.as_ref().unwrap();
    assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "1");
    assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "500m");
}

#[test]
fn bounds_are_told_as_kubernetes_tells_them() {
    let check = |item: Value, spec: Value| {
        let mut world = World::new(2);
        limits(&mut world, item);
        check_limits(&world.store, &pod(spec)).err().unwrap_or_default()
    };
    let bounds = json!({"type": "Container", "max": {"cpu": "800m"}, "min": {"cpu": "200m"}});
    for (requests, limits, expected) in [
        ("500m", "1500m", "maximum cpu usage per Container is 800m, but limit is 1500m"),
        ("100m", "800m", "minimum cpu usage per Container is 200m, but request is 100m"),
        ("500m", "800m", ""),
    ] {
        let one = container(json!({"cpu": requests}), json!({"cpu": limits}));
        assert_eq!(check(bounds.clone(), json!({"containers": [one]})), expected);
    }
    let one =
        container(json!({"cpu": "1200m", "memory": "1100Mi"}), json!({"cpu": "1200m", "memory": "1100Mi"}));
    let of_pod = json!({"type": "Pod", "max": {"cpu": "2", "memory": "2Gi"}});
    assert_eq!(
        check(of_pod, json!({"containers": [one, one]})),
        "[maximum cpu usage per Pod is 2, but limit is 2400m, maximum memory usage per Pod is 2Gi, but limit is \
         2200Mi]"
    );
    let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"memory": "2"}});
    let one = container(json!({"memory": "100Mi"}), json!({"memory": "300Mi"}));
    assert_eq!(
        check(ratio, json!({"containers": [one]})),
        "memory max limit to request ratio per Container is 2, but provided ratio is 3.000000"
    );
}

#[test]
fn a_quota_is_charged_and_says_what_it_lacks() {
    let mut world = World::new(3);
    let key = quota(&mut world, json!({"hard": {"requests.memory": "1Gi", "limits.cpu": "2", "pods": "5"}}));
    world.run();
    let one = |memory: &str| {
        pod(json!({"containers": [container(json!({"memory": memory}), json!({"cpu": "1"}))]}))
    };
    let mut ledger = Ledger::new(&world.store);
    ledger.admit(&mut one("600Mi")).unwrap();
    assert_eq!(
        ledger.admit(&mut one("700Mi")).unwrap_err(),
        "exceeded quota: q, requested: requests.memory=700Mi, used: requests.memory=600Mi, limited: \
         requests.memory=1Gi"
    );
    assert_eq!(
        ledger.admit(&mut pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}))).unwrap_err(),
        "failed quota: q: must specify limits.cpu for: a,b; requests.memory for: a,b"
    );
    let writes = ledger.writes();
    world.txn(writes.into());
    let status = &world.value(&key)["status"];
    assert_eq!(status["used"], json!({"limits.cpu": "1", "pods": "1", "requests.memory": "600Mi"}));
    assert_eq!(status["hard"], json!({"limits.cpu": "2", "pods": "5", "requests.memory": "1Gi"}));
}

#[test]
fn controllers_make_as_many_as_the_quota_allows_and_say_why_no_more() {
    let mut world = World::with_nodes(4, 2);
    let key = quota(&mut world, json!({"hard": {"requests.cpu": "1", "count/pods": "10"}}));
    let set = replica_set(&mut world, 3, json!({"cpu": "400m"}));
    world.run();
    assert_eq!(world.pods().len(), 2);
    assert_eq!(world.value(&key)["status"]["used"], json!({"count/pods": "2", "requests.cpu": "800m"}));
    let said = world.said("FailedCreate")[0];
    assert!(said.starts_with("Error creating: pods \"web-"), "{said}");
    assert!(
        said.ends_with(
            "is forbidden: exceeded quota: q, requested: requests.cpu=400m, used: requests.cpu=800m, \
                            limited: requests.cpu=1"
        ),
        "{said}"
    );
    world.edit(&key, |value| value["spec"]["hard"]["requests.cpu"] = json!("2"));
    world.run();
    world.advance(10);
    world.run();
    assert_eq!(world.pods().len(), 3, "it is asked again");
    world.edit(&set, |value| value["spec"]["replicas"] = json!(1));
    world.run();
    assert_eq!(world.value(&key)["status"]["used"], json!({"count/pods": "1", "requests.cpu": "400m"}));
}

#[test]
fn what_has_ended_is_free_and_scopes_choose_the_pods() {
    let mut world = World::with_nodes(5, 1);
    let key = quota(&mut world, json!({"hard": {"pods": "9"}, "scopes": ["NotTerminating"]}));
    for (name, spec) in [("forever", json!({})), ("bounded", json!({"activeDeadlineSeconds": 9}))] {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
        world.create::<Pod>("default", name, json!({"metadata": {}, "spec": spec}));
    }
    world.run();
    world.advance(60);
    world.run();
    assert_eq!(world.value(&key)["status"]["used"], json!({"pods": "1"}), "made without being charged");
    world.settle(&mut |_| Act::Succeed, &mut |_| ());
    assert_eq!(world.value(&key)["status"]["used"], json!({"pods": "0"}));
}

#[test]
fn a_class_is_a_number() {
    let mut world = World::new(6);
    let class = |value: i32, global: bool| json!({"metadata": {}, "value": value, "globalDefault": global});
    world.create::<PriorityClass>("", "high", class(1000, false));
    let resolve = |world: &World, spec: Value| {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let mut one = pod(spec);
        complete(&world.store, &mut one).map(|()| one.spec.unwrap().priority)
    };
    assert_eq!(resolve(&world, json!({"priorityClassName": "high"})), Ok(Some(1000)));
    assert_eq!(
        resolve(&world, json!({"priorityClassName": "system-node-critical"})),
        Ok(Some(2_000_001_000))
    );
    assert_eq!(resolve(&world, json!({})), Ok(None));
    let unknown = resolve(&world, json!({"priorityClassName": "low"}));
    assert_eq!(unknown, Err("no PriorityClass with name low was found".into()));
    assert!(resolve(&world, json!({"priority": 7})).unwrap_err().contains("computed 0"));
    world.create::<PriorityClass>("", "usual", class(10, true));
    assert_eq!(resolve(&world, json!({})), Ok(Some(10)));
}

#[test]
fn of_several_ranges_the_first_is_heard_and_sidecars_count() {
    let mut world = World::new(7);
    let default = |cpu: &str| json!([{"type": "Container", "default": {"cpu": cpu}}]);
    for (name, cpu) in [("a", "1"), ("b", "2")] {
        world.create::<LimitRange>(
            "default",
            name,
            json!({"metadata": {}, "spec": {"limits": default(cpu)}}),
        );
    }
    let mut one = pod(json!({"containers": [{"name": "c"}]}));
    complete(&world.store, &mut one).unwrap();
    let spec = one.spec.unwrap();
    assert_eq!(spec.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["cpu"].0, "1");

    let mut world = World::new(8);
    limits(&mut world, json!({"type": "Pod", "max": {"memory": "1Gi"}}));
    let memory = |amount: &str| container(json!({"memory": amount}), json!({"memory": amount}));
    let mut sidecar = memory("600Mi");
    sidecar["restartPolicy"] = json!("Always");
    // One container says nothing: what the others say counts all the same.
    let spec = json!({"containers": [memory("600Mi"), {"name": "quiet"}], "initContainers": [sidecar]});
    assert_eq!(
        check_limits(&world.store, &pod(spec)).unwrap_err(),
        "maximum memory usage per Pod is 1Gi, but limit is 1200Mi"
    );
}

#[test]
fn a_claim_counts_for_its_class_and_growth_is_charged() {
    let mut world = World::new(9);
    let hard =
        json!({"fast.storageclass.storage.k8s.io/requests.storage": "10Gi", "services.nodeports": "1"});
    let key = quota(&mut world, json!({"hard": hard}));
    world.run();
    let claim = |class: &str, storage: &str| json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": storage}}}});
    let claims = Resource::fixed("persistentvolumeclaims");
    let mut ledger = Ledger::new(&world.store);
    ledger.charge(&claims, "default", &claim("slow", "20Gi")).unwrap();
    ledger.charge(&claims, "default", &claim("fast", "8Gi")).unwrap();
    let grown = ledger.charge_growth(&claims, "default", (&claim("fast", "8Gi"), &claim("fast", "11Gi")));
    assert!(grown.unwrap_err().contains("requested: fast.storageclass.storage.k8s.io/requests.storage=3Gi"));
    ledger.charge_growth(&claims, "default", (&claim("fast", "8Gi"), &claim("fast", "10Gi"))).unwrap();
    let service =
        |kind: &str, ports: usize| json!({"spec": {"type": kind, "ports": vec![json!({"port": 80}); ports]}});
    let services = Resource::fixed("services");
    let (inside, outside) = (service("ClusterIP", 1), service("NodePort", 1));
    ledger.charge_growth(&services, "default", (&inside, &outside)).unwrap();
    assert!(ledger.charge_growth(&services, "default", (&outside, &service("NodePort", 2))).is_err());
    let writes = ledger.writes();
    world.txn(writes.into());
    let used = &world.value(&key)["status"]["used"];
    assert_eq!(used["fast.storageclass.storage.k8s.io/requests.storage"], "10Gi");
    assert_eq!(used["services.nodeports"], "1");
}

#[test]
fn a_pod_may_not_contradict_its_class() {
    let mut world = World::new(10);
    let shy = json!({"metadata": {}, "value": 1000, "preemptionPolicy": "Never"});
    world.create::<PriorityClass>("", "shy", shy);
    let resolve = |spec: Value| {
        let mut one = pod(spec);
        complete(&world.store, &mut one).map(|()| one.spec.unwrap().preemption_policy)
    };
    let shy = json!({"containers": [], "priorityClassName": "shy"});
    assert_eq!(resolve(shy.clone()), Ok(Some("Never".into())));
    let mut bold = shy;
    bold["preemptionPolicy"] = json!("PreemptLowerPriority");
    assert!(resolve(bold).unwrap_err().contains("computed Never"));
    let refused = resolve(json!({"containers": [], "preemptionPolicy": "Never"})).unwrap_err();
    assert!(refused.contains("computed PreemptLowerPriority"), "{refused}");
}

#[test]
fn there_is_one_default_class() {
    let mut world = World::new(11);
    let value = json!({"metadata": {}, "value": 10, "globalDefault": true});
    let first = world.create::<PriorityClass>("", "first", value.clone());
    let class = |name: &str, value: &Value| {
        let mut value = value.clone();
        value["metadata"]["name"] = json!(name);
        serde_json::from_value::<PriorityClass>(value).unwrap()
    };
    assert_eq!(
        check_global_default(&world.store, &class("second", &value)),
        Err("PriorityClass first is already marked as default. Only one default can exist".into())
    );
    assert_eq!(check_global_default(&world.store, &class("first", world.value(&first))), Ok(()));
    let usual = json!({"metadata": {}, "value": 10, "globalDefault": false});
    assert_eq!(check_global_default(&world.store, &class("second", &usual)), Ok(()));
}

#[test]
fn what_the_range_fills_in_decides_the_class_of_service() {
    let mut world = World::with_nodes(12, 1);
    let all = json!({"cpu": "1", "memory": "1Gi"});
    limits(&mut world, json!({"type": "Container", "default": all, "defaultRequest": all}));
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    world.create::<ReplicaSet>("default", "web", json!({"metadata": {}, "spec": spec}));
    world.run();
    let (_, one) = &world.pods()[0];
    assert_eq!(one.status.as_ref().unwrap().qos_class.as_deref(), Some("Guaranteed"));
}

#[test]
fn only_quotas_that_count_it_are_counted_when_something_goes() {
    let mut world = World::new(13);
    let pods = quota(&mut world, json!({"hard": {"pods": "5", "requests.cpu": "1"}}));
    let claims = json!({"metadata": {}, "spec": {"hard": {"requests.storage": "1Gi"}}});
    let claims = world.create::<ResourceQuota>("default", "claims", claims);
    let bounded = |key: &Key, resource: &'static str| {
        let quota = world.store.get(key).unwrap().typed::<ResourceQuota>().unwrap();
        quota::counts(&quota, &Resource::fixed(resource))
    };
    assert!(bounded(&pods, "pods") && !bounded(&pods, "events"));
    assert!(bounded(&claims, "persistentvolumeclaims") && !bounded(&claims, "pods"));
}
