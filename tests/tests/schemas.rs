//! What the schemas are for: apply in both ways, explain, diff, and mistakes that are named.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Desktop, on_bench};

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: busybox, command: [sleep, '1000'], ports: [{containerPort: 80}]}
";

/// Applies, and fails on any word of complaint.
fn apply(desktop: &Desktop, how: &str, manifest: &str) -> Result<String> {
    let ran = desktop.kubectl_with(&format!("apply {how} -f -"), manifest)?;
    ensure!(ran.success() && ran.stderr.is_empty(), "{ran}");
    Ok(ran.stdout)
}

#[test]
fn manifests_are_applied_explained_compared_and_refused_as_anywhere() {
    on_bench(2, |bench| {
        bench.up()?;
        let (one, two) = (bench.desktop(1), bench.desktop(2));

        // Client-side, three times: the third patch is made by the schema's merge keys.
        ensure!(apply(one, "", DEPLOYMENT)?.contains("created"));
        ensure!(apply(two, "", DEPLOYMENT)?.contains("unchanged"));
        let sidecar = "      - {name: log, image: busybox, command: [sleep, '1000']}\n";
        ensure!(apply(two, "", &format!("{DEPLOYMENT}{sidecar}"))?.contains("configured"));
        ensure!(apply(one, "", DEPLOYMENT)?.contains("configured"));
        let names = one.kubectl("get deploy web -o jsonpath={..containers[*].name}")?.ok()?;
        ensure!(names == "web", "the sidecar is gone again: {names}");

        let explained = two.kubectl("explain pod.spec.containers --recursive")?.ok()?;
        for word in ["imagePullPolicy", "livenessProbe", "<[]EnvVar>", "-required-"] {
            ensure!(explained.contains(word), "{word} is not in {explained}");
        }
        // Whatever objects can be made of: what is only measured has no document yet.
        for kind in one.kubectl("api-resources --verbs=create,list --no-headers -o name")?.ok()?.lines() {
            let said = one.kubectl(&format!("explain {kind}"))?.ok()?;
            ensure!(said.contains("KIND:") && said.contains("metadata"), "{kind}: {said}");
        }

        let three = DEPLOYMENT.replace("replicas: 1", "replicas: 3");
        let differs = one.kubectl_with("diff -f -", &three)?;
        ensure!(differs.code == 1 && differs.stdout.contains("+  replicas: 3"), "{differs}");
        ensure!(one.kubectl_with("diff -f -", DEPLOYMENT)?.code == 0);

        let dry = apply(two, "--dry-run=server", &three)?;
        ensure!(dry.contains("configured (server dry run)"), "{dry}");
        ensure!(one.kubectl("get deploy web -o jsonpath={.spec.replicas}")?.ok()? == "1");

        // Server-side: what kubectl applied before is its own; what another manager sets is not.
        ensure!(apply(one, "--server-side", DEPLOYMENT)?.contains("serverside-applied"));
        let scaled = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 2}\n";
        let conflict = two.kubectl_with("apply --server-side --field-manager=hpa -f -", scaled)?.refused()?;
        let expected = "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas";
        ensure!(conflict.contains(expected), "{conflict}");
        apply(two, "--server-side --field-manager=hpa --force-conflicts", scaled)?;
        let conflict = one.kubectl_with("apply --server-side -f -", DEPLOYMENT)?.refused()?;
        ensure!(conflict.contains("conflict with \"hpa\": .spec.replicas"), "{conflict}");
        apply(one, "--server-side", &DEPLOYMENT.replace("  replicas: 1\n", ""))?;
        ensure!(two.kubectl("get deploy web -o jsonpath={.spec.replicas}")?.ok()? == "2");

        let unknown = DEPLOYMENT.replace("replicas:", "replicaz:");
        let refused = one.kubectl_with("apply -f -", &unknown)?.refused()?;
        ensure!(refused.contains("strict decoding error: unknown field \"spec.replicaz\""), "{refused}");
        let refused = one.kubectl_with("apply --server-side -f -", &unknown)?.refused()?;
        ensure!(refused.contains(".spec.replicaz: field not declared in schema"), "{refused}");

        ensure!(two.kubectl("auth can-i delete nodes")?.ok()?.trim() == "yes");
        ensure!(one.kubectl("auth whoami")?.ok()?.contains("system:masters"));
        Ok(())
    });
}
