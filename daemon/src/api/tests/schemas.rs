//! The real kubectl where it goes by schemas and field managers.

use super::kubectl::Kubectl;
use crate::api::kinds;
use serde_json::Value;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'nginx:1', ports: [{containerPort: 80}]}
";

#[tokio::test]
async fn every_kind_is_explained_down_to_its_last_field() {
    let Some(k) = Kubectl::start().await else { return };
    let explained = k.ok(&["explain", "pod.spec.containers", "--recursive"]).await;
    for line in ["  name\t<string> -required-", "    limits\t<map[string]Quantity>", "  env\t<[]EnvVar>"] {
        assert!(explained.contains(line), "{line}: {explained}");
    }
    let ports = k.ok(&["explain", "service.spec.ports.targetPort"]).await;
    assert!(ports.contains("FIELD: targetPort <IntOrString>"), "{ports}");
    for kind in kinds::all() {
        let name = if kind.group.is_empty() {
            kind.plural.to_owned()
        } else {
            format!("{}.{}", kind.plural, kind.group)
        };
        let explained = k.ok(&["explain", &name, "--recursive"]).await;
        assert!(explained.contains(&format!("KIND:       {}", kind.kind)), "{explained}");
        assert!(
            explained.contains("  metadata\t<ObjectMeta>") && explained.contains("DESCRIPTION:\n    "),
            "{explained}"
        );
    }
}

#[tokio::test]
async fn client_side_apply_merges_by_the_schemas_keys() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    let sidecar = "[{\"op\": \"add\", \"path\": \"/spec/template/spec/containers/0\", \"value\": {\"name\": \"proxy\", \"image\": \"p\"}}]";
    k.ok(&["patch", "deploy", "web", "--type=json", "-p", sidecar]).await;
    k.ok_with(&["apply", "-f", "-"], &DEPLOYMENT.replace("nginx:1", "nginx:2")).await;
    let images = k.ok(&["get", "deploy", "web", "-o", "jsonpath={..image}"]).await;
    assert_eq!(images, "p nginx:2", "what somebody else put there stays");
    let recreate = format!("{DEPLOYMENT}  strategy: {{type: Recreate}}\n");
    k.ok_with(&["apply", "-f", "-"], &recreate).await;
    let strategy = k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.strategy}"]).await;
    assert_eq!(strategy, "{\"type\":\"Recreate\"}");
}

#[tokio::test]
async fn server_side_apply_has_managers_conflicts_and_a_past() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    let applied = k
        .ok_with(&["apply", "--server-side", "-f", "-"], &DEPLOYMENT.replace("replicas: 2", "replicas: 3"))
        .await;
    assert_eq!(
        applied, "deployment.apps/web serverside-applied\n",
        "what kubectl applied client-side was its own"
    );
    let shown: Value =
        serde_json::from_str(&k.ok(&["get", "deploy", "web", "-o", "json", "--show-managed-fields"]).await)
            .unwrap();
    let managers = shown["metadata"]["managedFields"].as_array().unwrap();
    let kubectl = managers.iter().find(|one| one["manager"] == "kubectl").unwrap();
    assert_eq!(kubectl["operation"], "Apply");
    let last = shown["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(last.unwrap().contains("\"replicas\":3"), "{last:?}");

    let scaled = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 7}\n";
    let hpa = ["apply", "--server-side", "--field-manager=hpa", "-f", "-"];
    let conflict = k.fails(&hpa, scaled).await;
    assert!(
        conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"),
        "{conflict}"
    );
    k.ok_with(&[&hpa[..], &["--force-conflicts"]].concat(), scaled).await;
    let conflict = k.fails(&["apply", "--server-side", "-f", "-"], DEPLOYMENT).await;
    assert!(conflict.contains("conflict with \"hpa\": .spec.replicas"), "{conflict}");
    k.ok_with(&["apply", "--server-side", "-f", "-"], &DEPLOYMENT.replace("  replicas: 2\n", "")).await;
    assert_eq!(k.ok(&["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"]).await, "7");
    let unknown =
        k.fails(&["apply", "--server-side", "-f", "-"], &DEPLOYMENT.replace("replicas", "replicaz")).await;
    assert!(unknown.contains(".spec.replicaz: field not declared in schema"), "{unknown}");
}

#[tokio::test]
async fn differences_and_dry_runs_leave_no_trace() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    let version = ["get", "deploy", "web", "-o", "jsonpath={.metadata.resourceVersion}"];
    let before = k.ok(&version).await;
    let changed = DEPLOYMENT.replace("replicas: 2", "replicas: 5");
    let same = k.ok_with(&["diff", "-f", "-"], DEPLOYMENT).await;
    assert_eq!(same, "");
    for how in [&[][..], &["--server-side"]] {
        let ran = k.run_with(&[&["diff", "-f", "-"][..], how].concat(), &changed).await;
        assert!(!ran.ok && ran.out.contains("-  replicas: 2\n+  replicas: 5"), "{}{}", ran.out, ran.err);
    }
    for arguments in [
        &["apply", "-f", "-"][..],
        &["apply", "--server-side", "-f", "-"],
        &["replace", "-f", "-"],
        &["delete", "-f", "-"],
        &["scale", "deploy/web", "--replicas=9"],
        &["label", "deploy/web", "a=b"],
        &["annotate", "deploy/web", "a=b"],
        &["set", "image", "deploy/web", "web=other"],
        &["patch", "deploy", "web", "-p", "{\"spec\":{\"paused\":true}}"],
        &["delete", "deploy", "web"],
        &["delete", "deploy", "--all"],
    ] {
        let said = k.run_with(&[arguments, &["--dry-run=server"]].concat(), &changed).await;
        // Of a patch kubectl does not say so.
        let is_said = arguments[0] == "patch" || said.out.contains("(server dry run)");
        assert!(said.ok && is_said, "{arguments:?}: {}{}", said.out, said.err);
        assert_eq!(k.ok(&version).await, before, "{arguments:?}");
    }
    let made = k.ok(&["create", "cm", "c", "--from-literal=a=b", "--dry-run=server"]).await;
    assert_eq!(made, "configmap/c created (server dry run)\n");
    k.fails(&["get", "cm", "c"], "").await;
}

#[tokio::test]
async fn who_asks_is_told_who_it_is_and_what_it_may() {
    let Some(k) = Kubectl::start().await else { return };
    assert_eq!(k.ok(&["auth", "can-i", "create", "deployments"]).await, "yes\n");
    let listed = k.ok(&["auth", "can-i", "--list"]).await;
    assert!(listed.contains("*.*") && listed.contains("[*]"), "{listed}");
    let who = k.ok(&["auth", "whoami"]).await;
    assert!(who.contains("admin") && who.contains("[system:masters]"), "{who}");
}

#[tokio::test]
async fn autoscalers_may_be_made_in_their_older_form() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok_with(&["apply", "-f", "-"], DEPLOYMENT).await;
    let made = k.ok(&["autoscale", "deployment", "web", "--min=2", "--max=5", "--cpu-percent=70"]).await;
    assert_eq!(made, "horizontalpodautoscaler.autoscaling/web autoscaled\n");
    let path = "jsonpath={.spec.maxReplicas} {.spec.metrics[0].resource.target.averageUtilization}";
    assert_eq!(k.ok(&["get", "hpa", "web", "-o", path]).await, "5 70");
    let older = "horizontalpodautoscalers.v1.autoscaling";
    let path = "jsonpath={.apiVersion} {.spec.targetCPUUtilizationPercentage} {.status}";
    let read = k.ok(&["get", older, "web", "-o", path]).await;
    assert_eq!(read, r#"autoscaling/v1 70 {"currentReplicas":0,"desiredReplicas":0}"#);
    let manifest = "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: old}\nspec:\n  \
                    scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  maxReplicas: 3\n  \
                    targetCPUUtilizationPercentage: 50\n";
    assert_eq!(
        k.ok_with(&["apply", "-f", "-"], manifest).await,
        "horizontalpodautoscaler.autoscaling/old created\n"
    );
    assert_eq!(
        k.ok_with(&["apply", "-f", "-"], manifest).await,
        "horizontalpodautoscaler.autoscaling/old unchanged\n"
    );
    let more = manifest.replace("50", "60");
    for arguments in [&["apply", "-f", "-"][..], &["apply", "--server-side", "--force-conflicts", "-f", "-"]]
    {
        k.ok_with(arguments, &more).await;
        let path = "jsonpath={.apiVersion} {.spec.minReplicas} {.spec.metrics[*].resource.target.averageUtilization}";
        assert_eq!(k.ok(&["get", "hpa", "old", "-o", path]).await, "autoscaling/v2 1 60", "{arguments:?}");
    }
    let memory = r#"[{"op": "add", "path": "/spec/metrics/-", "value": {"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "Utilization", "averageUtilization": 40}}}}]"#;
    k.ok(&["patch", "hpa", "old", "--type=json", "-p", memory]).await;
    k.ok(&["patch", older, "old", "--type=merge", "-p", r#"{"spec": {"maxReplicas": 4}}"#]).await;
    let path = "jsonpath={.spec.maxReplicas} {.spec.metrics[*].resource.target.averageUtilization} {.metadata.annotations}";
    let kept = k.ok(&["get", "hpa", "old", "-o", path]).await;
    assert!(kept.starts_with("4 60 40 ") && !kept.contains("alpha.kubernetes.io"), "{kept}");
    assert!(
        k.ok(&["explain", "hpa.spec", "--api-version=autoscaling/v1"])
            .await
            .contains("targetCPUUtilizationPercentage")
    );
    k.fails(
        &["patch", older, "old", "--type=merge", "-p", r#"{"spec": {"targetCPUUtilizationPercentage": 0}}"#],
        "must be greater than 0",
    )
    .await;
}
