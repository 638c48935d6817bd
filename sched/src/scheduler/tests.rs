use super::*;
use crate::controller::harness::{Dice, World};
use crate::state::Key;
use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;

fn fencing() -> Fencing {
    Fencing { group: "flock".into(), epoch: 3, term: 7 }
}

fn node(world: &mut World, name: &str, cpu: &str, edit: impl FnOnce(&mut Value)) -> Key {
    let mut value = json!({
        "metadata": {"labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    });
    edit(&mut value);
    world.create::<Node>("", name, value)
}

fn pod(world: &mut World, name: &str, spec: Value) -> Key {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "main", "image": "busybox"}]);
    }
    world.create::<Pod>("default", name, json!({"metadata": {"labels": {"app": "web"}}, "spec": spec}))
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"name": "main", "image": "web", "resources": {"requests": {"cpu": cpu}}}]})
}

fn run(world: &mut World, images: &[(&str, &str)]) -> Plan {
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (node, image) in images {
        there.entry((*node).to_owned()).or_default().insert((*image).to_owned());
    }
    let plan = schedule(&world.store, &there, &fencing(), &world.now);
    plan.writes.iter().for_each(|txn| world.txn(txn.clone()));
    plan
}

fn place_of(world: &World, key: &Key) -> Option<String> {
    Some(world.value(key)["spec"]["nodeName"].as_str()?.to_owned())
}

fn why(world: &World, key: &Key) -> String {
    let conditions = world.value(key)["status"]["conditions"].as_array().unwrap();
    let scheduled = conditions.iter().find(|one| one["type"] == SCHEDULED).unwrap();
    assert_eq!((&scheduled["status"], &scheduled["reason"]), (&json!("False"), &json!("Unschedulable")));
    scheduled["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_binding_names_its_node_and_its_leader() {
    let mut world = World::new(1);
    node(&mut world, "a", "4", |_| ());
    let key = pod(&mut world, "one", json!({}));
    let plan = run(&mut world, &[]);
    assert_eq!(place_of(&world, &key).as_deref(), Some("a"));
    let annotations = &world.value(&key)["metadata"]["annotations"];
    assert_eq!((&annotations[GROUP], &annotations[ATTEMPT]), (&json!("flock"), &json!("3.7")));
    assert_eq!(plan.events[0].message, "Successfully assigned default/one to a");
    assert_eq!(run(&mut world, &[]), Plan::default(), "nothing is left to do");
}

#[test]
fn every_rejection_is_explained_in_the_known_words() {
    let taint = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
    let wide = json!({"containers": [{
        "name": "main", "image": "web",
        "ports": [{"containerPort": 80, "hostPort": 80}]
    }]});
    type Edit = fn(&mut Value, &Value);
    let cases: [(Edit, Value, &str); 7] = [
        (|node, _| node["spec"]["unschedulable"] = json!(true), json!({}), "1 node(s) were unschedulable"),
        (
            |node, taint| node["spec"]["taints"] = taint.clone(),
            json!({}),
            "1 node(s) had untolerated taint {gpu: yes}",
        ),
        (|_, _| (), asking("64"), "1 Insufficient cpu"),
        (|node, _| node["status"]["allocatable"]["pods"] = json!("0"), json!({}), "1 Too many pods"),
        (
            |_, _| (),
            json!({"nodeSelector": {"disk": "ssd"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            |node, _| node["status"]["conditions"][0]["status"] = json!("Unknown"),
            json!({}),
            "1 node(s) were not ready",
        ),
        (|_, _| (), wide.clone(), "1 node(s) didn't have free ports for the requested pod ports"),
    ];
    for (number, (edit, spec, reason)) in cases.into_iter().enumerate() {
        let mut world = World::new(2);
        node(&mut world, "a", "4", |value| edit(value, &taint));
        if number == 6 {
            pod(&mut world, "first", wide.clone());
            run(&mut world, &[]);
        }
        let key = pod(&mut world, "one", spec);
        let plan = run(&mut world, &[]);
        let message = why(&world, &key);
        assert!(
            message.starts_with(&format!("0/1 nodes are available: {reason}. preemption: 0/1")),
            "{message}"
        );
        assert_eq!(plan.events.last().unwrap().reason, "FailedScheduling");
        assert!(run(&mut world, &[]).writes.is_empty(), "said once");
    }
}

#[test]
fn reasons_are_counted() {
    let mut world = World::new(3);
    node(&mut world, "a", "1", |_| ());
    node(&mut world, "b", "1", |_| ());
    let taint = json!([{"key": "k", "value": "v", "effect": "NoExecute"}]);
    node(&mut world, "c", "8", |value| value["spec"]["taints"] = taint);
    let key = pod(&mut world, "big", asking("2"));
    run(&mut world, &[]);
    assert_eq!(
        why(&world, &key),
        "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu. preemption: 0/3 \
         nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let empty = &mut World::new(3);
    let key = pod(empty, "alone", json!({}));
    run(empty, &[]);
    assert_eq!(why(empty, &key), "no nodes available to schedule pods");
}

#[test]
fn the_important_come_first_and_gates_are_waited_for() {
    let mut world = World::new(4);
    node(&mut world, "a", "1", |_| ());
    let low = pod(&mut world, "a-low", asking("1"));
    let mut spec = asking("1");
    spec["priority"] = json!(10);
    let high = pod(&mut world, "z-high", spec.clone());
    spec["schedulingGates"] = json!([{"name": "quota"}]);
    spec["priority"] = json!(100);
    let gated = pod(&mut world, "gated", spec);
    run(&mut world, &[]);
    assert_eq!(place_of(&world, &high).as_deref(), Some("a"));
    assert_eq!((place_of(&world, &low), place_of(&world, &gated)), (None, None));
    assert_eq!(world.value(&gated)["status"]["conditions"][0]["reason"], "SchedulingGated");
}

#[test]
fn what_is_there_already_and_what_is_wished_for_decide() {
    let mut world = World::new(5);
    for name in ["a", "b", "c"] {
        node(&mut world, name, "8", |_| ());
    }
    let near = pod(&mut world, "near", json!({}));
    run(&mut world, &[("b", "busybox:latest")]);
    assert_eq!(place_of(&world, &near).as_deref(), Some("b"), "the image is there");
    let wish = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 50,
        "preference": {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["c"]}]}
    }]}}});
    let wished = pod(&mut world, "wished", wish);
    run(&mut world, &[]);
    assert_eq!(place_of(&world, &wished).as_deref(), Some("c"));
}

#[test]
fn pods_of_one_owner_spread() {
    let mut world = World::new(6);
    for name in ["a", "b", "c"] {
        node(&mut world, name, "8", |_| ());
    }
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true}]);
    let keys: Vec<Key> = (0..6)
        .map(|number| {
            let spec = json!({"containers": [{"name": "main", "image": "web"}]});
            let value = json!({"metadata": {"ownerReferences": owner}, "spec": spec});
            world.create::<Pod>("default", &format!("web-{number}"), value)
        })
        .collect();
    run(&mut world, &[("a", "web:latest")]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for key in &keys {
        *counts.entry(place_of(&world, key).unwrap()).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
}

#[test]
fn anti_affinity_and_spread_hold_within_one_call() {
    let labels = json!({"matchLabels": {"app": "web"}});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": labels}
    ]}}});
    let mut world = World::new(7);
    for name in ["a", "b"] {
        node(&mut world, name, "8", |_| ());
    }
    let keys: Vec<Key> = (0..3).map(|number| pod(&mut world, &format!("p{number}"), apart.clone())).collect();
    run(&mut world, &[]);
    let placed: BTreeSet<String> = keys.iter().filter_map(|key| place_of(&world, key)).collect();
    assert_eq!(placed.len(), 2);
    assert!(why(&world, &keys[2]).contains("2 node(s) didn't match pod anti-affinity rules"));
    let plain = pod(&mut world, "plain", json!({}));
    run(&mut world, &[]);
    assert!(why(&world, &plain).contains("2 node(s) didn't satisfy existing pods anti-affinity rules"));

    let even = json!({"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": labels
    }]});
    let mut world = World::new(8);
    node(&mut world, "a", "8", |_| ());
    node(&mut world, "b", "8", |value| value["status"]["allocatable"]["pods"] = json!("1"));
    let keys: Vec<Key> = (0..4).map(|number| pod(&mut world, &format!("p{number}"), even.clone())).collect();
    run(&mut world, &[]);
    let placed = keys.iter().filter(|key| place_of(&world, key).is_some()).count();
    assert_eq!(placed, 3, "two on a, one on b, and then a would be two ahead");
}

#[test]
fn pod_affinity_lets_the_first_of_a_group_in() {
    let together = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}
    ]}}});
    let mut world = World::new(9);
    for name in ["a", "b"] {
        node(&mut world, name, "8", |_| ());
    }
    let keys: Vec<Key> =
        (0..4).map(|number| pod(&mut world, &format!("p{number}"), together.clone())).collect();
    run(&mut world, &[]);
    let placed: BTreeSet<Option<String>> = keys.iter().map(|key| place_of(&world, key)).collect();
    assert_eq!(placed.len(), 1);
    assert!(!placed.contains(&None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// In random clusters: no node is given more than it offers, none a pod that it must not have, and no pod
    /// waits while a node could take it.
    #[test]
    fn nothing_is_overcommitted_and_nothing_waits_in_vain(seed: u64, nodes in 1..6_usize, pods in 1..40_usize) {
        let mut world = World::new(seed);
        let mut dice = Dice(seed);
        for number in 0..nodes {
            let (zone, tainted, ready) = (dice.roll(2), dice.roll(4) == 0, dice.roll(6) != 0);
            let cpu = (1 + dice.roll(8)).to_string();
            let count = (1 + dice.roll(9)).to_string();
            node(&mut world, &format!("n{number}"), &cpu, |value| {
                value["metadata"]["labels"]["zone"] = json!(zone.to_string());
                value["status"]["allocatable"]["pods"] = json!(count);
                if tainted {
                    value["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]);
                }
                if !ready {
                    value["status"]["conditions"][0]["status"] = json!("Unknown");
                }
            });
        }
        for number in 0..pods {
            let mut spec = json!({"containers": [{
                "name": "main", "image": "web",
                "resources": {"requests": {
                    "cpu": format!("{}m", 100 * dice.roll(30)), "memory": format!("{}Mi", 256 * dice.roll(12))
                }},
            }]});
            if dice.roll(3) == 0 {
                spec["nodeSelector"] = json!({"zone": dice.roll(3).to_string()});
            }
            if dice.roll(3) == 0 {
                spec["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
            }
            if dice.roll(5) == 0 {
                spec["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]);
            }
            pod(&mut world, &format!("p{number}"), spec);
            if dice.roll(4) == 0 {
                run(&mut world, &[]);
            }
        }
        run(&mut world, &[]);
        let cluster = Cluster::new(&world.store, &BTreeMap::new());
        for machine in &cluster.machines {
            for (name, used) in &machine.used {
                prop_assert!(*used <= machine.offers.get(name).copied().unwrap_or(0), "{} of {}", name, machine.name);
            }
            let ports: usize = machine.pods.iter().map(|pod| pod.ports.len()).sum();
            prop_assert_eq!(ports, machine.ports.len(), "a port was given twice");
            for placed in &machine.pods {
                prop_assert!(machine.ready);
                let spec = placed.spec().unwrap();
                let tolerant = spec.tolerations.is_some();
                prop_assert!(machine.taints.is_empty() || tolerant);
                let zone = spec.node_selector.as_ref().map(|selector| &selector["zone"]);
                prop_assert!(zone.is_none_or(|zone| *zone == machine.labels["zone"]));
            }
        }
        for (key, waiting) in world.pods().into_iter().filter(|(_, pod)| pods::node_of(pod).is_none()) {
            let demand = Demand::new(key.clone(), Arc::new(waiting));
            let topology = Topology::new(&demand, &cluster);
            for machine in &cluster.machines {
                let verdict = filter::check(&demand, machine, &topology);
                prop_assert!(verdict.is_err_and(|rejection| !rejection.reasons.is_empty()));
            }
            let start = format!("0/{nodes} nodes are available: ");
            prop_assert!(why(&world, &key).starts_with(&start));
        }
    }
}
