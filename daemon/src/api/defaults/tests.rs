use super::*;

#[test]
fn a_short_deployment_gets_what_kubernetes_gives_it() {
    let mut object = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "x", "image": "nginx", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0}}]}
    }}});
    deployment(&mut object);
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}});
    assert_eq!(spec["strategy"], rolling);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod["restartPolicy"], "Always");
    let container = &pod["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(container["livenessProbe"]["periodSeconds"], 10);
    assert_eq!(container["livenessProbe"]["httpGet"]["scheme"], "HTTP");
    let once = object.clone();
    deployment(&mut object);
    assert_eq!(object, once, "defaulting twice changes nothing");
}

#[test]
fn a_job_selects_its_own_pods_only() {
    let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
        "restartPolicy": "Never", "containers": []}}}});
    job(&mut object);
    let spec = &object["spec"];
    assert_eq!(spec["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
    assert_eq!(spec["template"]["metadata"]["labels"]["job-name"], "j");
    assert_eq!((&spec["completions"], &spec["parallelism"]), (&json!(1), &json!(1)));
    assert_eq!((&spec["backoffLimit"], &spec["suspend"]), (&json!(6), &json!(false)));

    let mut queue = json!({"spec": {"parallelism": 3}});
    job(&mut queue);
    assert!(queue["spec"].get("completions").is_none(), "a work queue has no fixed number of completions");
}

#[test]
fn what_is_written_as_text_in_a_secret_is_stored_encoded() {
    let mut object = json!({"stringData": {"password": "x"}, "data": {"other": "eQ=="}});
    secret(&mut object);
    assert_eq!(object, json!({"type": "Opaque", "data": {"password": "eA==", "other": "eQ=="}}));
}

#[test]
fn a_rule_about_a_pods_condition_is_about_one_that_holds() {
    let rules =
        json!([{"action": "FailJob", "onPodConditions": [{"type": "A"}, {"type": "B", "status": "False"}]}]);
    // The model writes an empty text where nothing was given.
    let mut object = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"podFailurePolicy": {"rules": rules},
        "template": {"spec": {"restartPolicy": "Never", "containers": []}}}});
    object["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] = json!("");
    job(&mut object);
    let conditions = &object["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"];
    assert_eq!(conditions, &json!([{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]));
}
