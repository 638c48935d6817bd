use super::*;
use crate::api::{defaults, kinds};
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> Value {
    let mut object = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}}}});
    defaults::deployment(&mut object);
    object
}

/// What is wrong with a good Deployment once `value` stands at `pointer`.
fn wrong_with(pointer: &str, value: Value) -> Vec<String> {
    let mut object = deployment();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
    let mut problems = Problems::default();
    workload::deployment(&object, &mut problems);
    problems.into_causes().into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
}

#[test]
fn errors_read_as_kubernetes_writes_them() {
    let spec = "/spec/template/spec";
    assert!(wrong_with("/metadata/name", json!("web")).is_empty(), "the example itself is good");
    for (pointer, value, expected) in [
        ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "/spec/template/metadata/labels",
            json!({"app": "other"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ),
        (
            &format!("{spec}/restartPolicy"),
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            &format!("{spec}/containers/0/image"),
            json!(""),
            "spec.template.spec.containers[0].image: Required value",
        ),
        (&format!("{spec}/containers"), json!([]), "spec.template.spec.containers: Required value"),
        (
            &format!("{spec}/containers/0/volumeMounts"),
            json!([{"name": "gone", "mountPath": "/x"}]),
            "spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"gone\"",
        ),
        (
            &format!("{spec}/containers/0/resources"),
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}),
            "spec.template.spec.containers[0].resources.requests[cpu]: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 1500m",
        ),
        (
            "/spec/strategy/rollingUpdate",
            json!({"maxSurge": 0, "maxUnavailable": "0%"}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
    ] {
        assert_eq!(wrong_with(pointer, value), [expected], "{pointer}");
    }
    let twins = json!([
        {"name": "a", "image": "x", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"},
        {"name": "a", "image": "x", "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}
    ]);
    let wrong = wrong_with("/spec/template/spec/containers", twins);
    assert_eq!(wrong, ["spec.template.spec.containers[1].name: Duplicate value: \"a\""]);
}

#[test]
fn a_running_job_keeps_its_template_and_a_pod_its_spec() {
    let job = json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}, "completions": 3}});
    let mut other = job.clone();
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "b".into();
    let mut problems = Problems::default();
    workload::job_update(&other, &job, &mut problems);
    assert_eq!(problems.into_causes()[0].field, "spec.template");

    let pod = json!({"spec": {"containers": [{"name": "c", "image": "a"}]}});
    let mut image = pod.clone();
    image["spec"]["containers"][0]["image"] = "b".into();
    let mut problems = Problems::default();
    pod::update(&image, &pod, &mut problems);
    assert!(problems.into_causes().is_empty(), "a pod's image may change");
    image["spec"]["containers"][0]["command"] = json!(["x"]);
    let mut problems = Problems::default();
    pod::update(&image, &pod, &mut problems);
    assert_eq!(problems.into_causes()[0].field, "spec");
}

#[test]
fn quantities_are_compared_by_amount() {
    for (text, milli) in [
        ("1", 1000),
        ("500m", 500),
        ("0.5", 500),
        ("1Ki", 1_024_000),
        ("1k", 1_000_000),
        ("2e3", 2_000_000),
        ("1E", 1_000_000_000_000_000_000_000),
        (".5", 500),
        ("-1", -1000),
    ] {
        assert_eq!(quantity::milli(text), Some(milli), "{text}");
    }
    for wrong in ["", "m", "1x", "1.2.3", "1 Gi", "one", "1e999", "--1", "1Gib"] {
        assert_eq!(quantity::milli(wrong), None, "{wrong}");
    }
}

#[test]
fn names_are_those_of_dns() {
    for good in ["a", "a-b", "a.b", "0"] {
        assert!(subdomain(good).is_ok(), "{good}");
    }
    let long = "a".repeat(254);
    for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "ä", &long] {
        assert!(subdomain(bad).is_err(), "{bad}");
    }
    assert!(label_1035("1a").is_err() && label("1a").is_ok() && label("a.b").is_err());
}

proptest! {
    #[test]
    fn no_object_that_decodes_makes_a_check_fail_hard(
        which in 0..kinds::all().count(), field in "[a-zA-Z]{1,8}", text in ".{0,20}", number in any::<i64>()
    ) {
        let kind = kinds::all().nth(which).unwrap();
        for value in [json!(text), json!(number), json!([text]), json!({"x": number}), Value::Null] {
            let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.kind,
                "metadata": {"name": text, "labels": {field.clone(): text}}, "spec": {field.clone(): value}});
            (kind.default)(&mut object);
            (kind.begin)(&mut object);
            let mut problems = Problems::default();
            metadata::check(kind, &object, &mut problems);
            (kind.validate)(&object, &mut problems);
            (kind.validate_update)(&object, &object, &mut problems);
        }
    }

    #[test]
    fn any_text_is_a_quantity_or_not(text in ".{0,40}") {
        quantity::milli(&text);
    }
}

#[test]
fn a_stateful_set_is_told_what_it_cannot_have() {
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut object = deployment();
        object["spec"] = json!({"serviceName": "web", "selector": object["spec"]["selector"],
            "template": object["spec"]["template"]});
        change(&mut object);
        defaults::stateful_set(&mut object);
        let mut problems = Problems::default();
        workload::stateful_set(&object, &mut problems);
        problems.into_causes().into_iter().map(|cause| cause.field).collect::<Vec<_>>()
    };
    assert!(wrong(&|_| ()).is_empty(), "the example itself is good");
    let cases: [(&str, Value, &str); 5] = [
        ("podManagementPolicy", json!("Sometimes"), "spec.podManagementPolicy"),
        ("volumeClaimTemplates", json!([{"metadata": {"name": "data"}}]), "spec.volumeClaimTemplates"),
        ("replicas", json!(-1), "spec.replicas"),
        ("ordinals", json!({"start": -1}), "spec.ordinals.start"),
        (
            "updateStrategy",
            json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
            "spec.updateStrategy.rollingUpdate",
        ),
    ];
    for (field, value, expected) in cases {
        assert_eq!(wrong(&|object| object["spec"][field] = value.clone()), [expected], "{field}");
    }
}

#[test]
fn a_daemon_set_rolls_in_one_of_two_ways() {
    let wrong = |rolling: Value| {
        let mut object = deployment();
        object["spec"] = json!({"selector": object["spec"]["selector"], "template": object["spec"]["template"],
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        defaults::daemon_set(&mut object);
        let mut problems = Problems::default();
        workload::daemon_set(&object, &mut problems);
        problems.into_causes().into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect::<Vec<_>>()
    };
    let at = "spec.updateStrategy.rollingUpdate";
    assert!(wrong(json!({})).is_empty() && wrong(json!({"maxSurge": "50%", "maxUnavailable": 0})).is_empty());
    for (rolling, expected) in [
        (json!({"maxUnavailable": 0}), "maxUnavailable: Required value: cannot be 0 when maxSurge is 0"),
        (
            json!({"maxSurge": 1}),
            "maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ),
        (
            json!({"maxUnavailable": -1}),
            "maxUnavailable: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"maxUnavailable": "101%"}),
            "maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
    ] {
        assert_eq!(wrong(rolling), [format!("{at}.{expected}")]);
    }
}

#[test]
fn a_cron_job_is_told_what_its_schedule_lacks() {
    let wrong = |field: &str, value: Value| {
        let mut object = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/5 * * * *",
            "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
                "containers": [{"name": "a", "image": "b"}]}}}}}});
        object["spec"][field] = value;
        defaults::cron_job(&mut object);
        let mut problems = Problems::default();
        workload::cron_job(&object, &mut problems);
        problems.into_causes().into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect::<Vec<_>>()
    };
    assert!(wrong("timeZone", json!("Europe/Berlin")).is_empty());
    for (field, value, expected) in [
        ("schedule", json!(""), "spec.schedule: Required value"),
        (
            "schedule",
            json!("* * *"),
            "spec.schedule: Invalid value: \"* * *\": expected exactly 5 fields, found 3: [* * *]",
        ),
        (
            "schedule",
            json!("TZ=UTC * * * * *"),
            "spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone \
             field instead",
        ),
        ("timeZone", json!("Mars"), "spec.timeZone: Invalid value: \"Mars\": unknown time zone Mars"),
        (
            "concurrencyPolicy",
            json!("Never"),
            "spec.concurrencyPolicy: Unsupported value: \"Never\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        ),
        (
            "startingDeadlineSeconds",
            json!(-1),
            "spec.startingDeadlineSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        assert_eq!(wrong(field, value), [expected], "{field}");
    }
}
