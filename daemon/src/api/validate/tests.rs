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
            "spec.template.spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
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
fn a_token_in_a_volume_has_a_place_and_a_life_that_can_be_renewed() {
    let wrong = |token: Value| {
        let spec =
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": token}]}}]});
        let mut problems = Problems::default();
        volume::check("volumes", &spec, &mut problems);
        problems
            .into_causes()
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect::<Vec<_>>()
    };
    let at = "volumes[0].projected.sources[0].serviceAccountToken";
    assert!(wrong(json!({"path": "token", "expirationSeconds": 600})).is_empty());
    let short =
        format!("{at}.expirationSeconds: Invalid value: 0: may not specify a duration less than 10 minutes");
    assert_eq!(wrong(json!({"path": "token", "expirationSeconds": 0})), [short]);
    assert_eq!(wrong(json!({})), [format!("{at}.path: Required value")]);
    let outside = format!("{at}.path: Invalid value: \"../x\": must not contain '..'");
    assert_eq!(wrong(json!({"path": "../x"})), [outside]);
    assert_eq!(wrong(json!({"path": "t", "expirationSeconds": 4_294_967_297_i64})).len(), 1);
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
            kind.default(&mut object);
            kind.begin(&mut object);
            let mut problems = Problems::default();
            metadata::check(kind, &object, &mut problems);
            kind.validate(&object, Some(&object), &mut problems);
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

/// What is wrong with an object by one kind's rules.
fn said_of(validate: fn(&Value, &mut Problems), object: Value) -> Vec<String> {
    let mut problems = Problems::default();
    validate(&object, &mut problems);
    problems.into_causes().into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
}

#[test]
fn a_quota_is_told_which_scopes_fit_together() {
    let wrong = |spec: Value| said_of(policy::resource_quota, json!({"spec": spec}));
    let one_of = |scope: &str, operator: &str, values: Value| {
        json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": scope, "operator": operator, "values": values}]}})
    };
    for good in [
        json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "Terminating"]}),
        json!({"hard": {"requests.cpu": "1", "count/jobs.batch": "1"}, "scopes": ["NotBestEffort"]}),
        one_of("PriorityClass", "In", json!(["high"])),
        one_of("Terminating", "Exists", json!([])),
    ] {
        assert_eq!(wrong(good.clone()), [""; 0], "{good}");
    }
    for (bad, expected) in [
        (
            json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
            "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
        ),
        (
            json!({"hard": {"requests.cpu": "1"}, "scopes": ["BestEffort"]}),
            "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
        ),
        (
            json!({"hard": {"configmaps": "1"}, "scopes": ["Terminating"]}),
            "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
        ),
        (
            one_of("Terminating", "DoesNotExist", json!([])),
            "spec.scopeSelector.matchExpressions[0].operator: Invalid value: \"DoesNotExist\": must be 'Exist' when \
             scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
             ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity",
        ),
    ] {
        assert_eq!(wrong(bad), [expected]);
    }
}

#[test]
fn a_range_is_of_quantities_and_a_system_class_is_what_it_is() {
    let item = |item: Value| said_of(policy::limit_range, json!({"spec": {"limits": [item]}}));
    assert_eq!(item(json!({"type": "Container", "max": {"cpu": "800m"}})), [""; 0]);
    let [said] = &item(json!({"type": "Container", "default": {"cpu": "much"}}))[..] else { panic!() };
    assert!(
        said.starts_with("spec.limits[0].default[cpu]: Invalid value: \"much\": quantities must"),
        "{said}"
    );
    let class = |value: i64, global: bool| {
        let class = json!({"metadata": {"name": "system-node-critical"}, "value": value, "globalDefault": global,
            "preemptionPolicy": "PreemptLowerPriority"});
        said_of(policy::priority_class, class)
    };
    assert_eq!(class(2_000_001_000, false), [""; 0]);
    assert!(
        class(7, false)[0].ends_with("error: value of system-node-critical PriorityClass must be 2000001000")
    );
    assert!(class(2_000_001_000, true)[0].ends_with("PriorityClass must be false"));
}

#[test]
fn a_replication_controllers_pods_have_no_end_and_subjects_have_their_group() {
    let mut spec = json!({"replicas": 1, "selector": {"a": "b"}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}});
    spec["template"]["spec"]["activeDeadlineSeconds"] = json!(7);
    let mut object = json!({"metadata": {"name": "web"}, "spec": spec});
    defaults::replication_controller(&mut object);
    assert_eq!(
        said_of(workload::replication_controller, object),
        [
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not \
          Supported"
        ]
    );
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"});
    let binding = |subject: Value| said_of(access::binding, json!({"roleRef": role, "subjects": [subject]}));
    assert_eq!(binding(json!({"kind": "ServiceAccount", "name": "a", "namespace": "b"})), [""; 0]);
    let user = binding(json!({"kind": "User", "name": "a", "apiGroup": "example.com"}));
    assert_eq!(
        user,
        [
            "subjects[0].apiGroup: Unsupported value: \"example.com\": supported values: \"rbac.authorization.k8s.io\""
        ]
    );
}

#[test]
fn secrets_hold_what_their_type_promises() {
    let wrong = |secret: Value| {
        let mut problems = Problems::default();
        core::secret(&secret, &mut problems);
        let causes = problems.into_causes().into_iter();
        causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
    };
    let of = |kind: &str, data: Value| json!({"type": format!("kubernetes.io/{kind}"), "data": data});
    let required =
        |keys: &[&str]| keys.iter().map(|key| format!("data[{key}]: Required value")).collect::<Vec<_>>();
    assert_eq!(wrong(of("basic-auth", json!({}))), required(&["username", "password"]));
    assert!(wrong(of("basic-auth", json!({"password": ""}))).is_empty(), "one of them is enough");
    assert_eq!(wrong(of("ssh-auth", json!({"ssh-privatekey": ""}))), required(&["ssh-privatekey"]));
    assert_eq!(wrong(of("tls", json!({"tls.crt": "eA=="}))), required(&["tls.key"]));
    assert_eq!(wrong(of("dockercfg", json!({}))), required(&[".dockercfg"]));
    assert!(wrong(of("dockerconfigjson", json!({".dockerconfigjson": "e30="}))).is_empty());
    let told = wrong(of("dockerconfigjson", json!({".dockerconfigjson": "c2VjcmV0"})));
    assert!(
        told.len() == 1 && told[0].contains("<secret contents redacted>") && !told[0].contains("secret\""),
        "{told:?}"
    );
    let account = wrong(of("service-account-token", json!({})));
    assert_eq!(account, ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]);
}

#[test]
fn services_have_addresses_of_one_family() {
    let wrong = |spec: Value| {
        let mut service = json!({"metadata": {"name": "web"}, "spec": spec});
        service["spec"]["ports"] = json!([{"port": 80}]);
        defaults::service(&mut service);
        let mut problems = Problems::default();
        core::service(&service, &mut problems);
        let causes = problems.into_causes().into_iter();
        causes.map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>()
    };
    assert!(wrong(json!({})).is_empty());
    assert!(wrong(json!({"ipFamilyPolicy": "PreferDualStack"})).is_empty(), "it gets the one that there is");
    assert_eq!(
        wrong(json!({"ipFamilies": ["IPv6"]})),
        ["spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"]
    );
    assert_eq!(
        wrong(json!({"ipFamilyPolicy": "RequireDualStack"})),
        [
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        ]
    );
}
