//! Kinds that people define, as kubectl uses them from any desktop.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Desktop, on_bench};
use gaggle_tests::kube::SOON;

/// Shaped like the example of Kubernetes' documentation.
const CRONTABS: &str = r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: When to run., pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}}
";

/// Shaped like Argo's in its minimal form: what is in it is its controller's to know.
const WORKFLOWS: &str = r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workflows.argoproj.io}
spec:
  group: argoproj.io
  scope: Namespaced
  names: {kind: Workflow, listKind: WorkflowList, plural: workflows, shortNames: [wf], singular: workflow}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {}
    additionalPrinterColumns:
    - {name: Status, type: string, jsonPath: .status.phase}
    - {name: Age, type: date, format: date-time, jsonPath: .status.startedAt}
    schema:
      openAPIV3Schema:
        type: object
        required: [metadata, spec]
        properties:
          apiVersion: {type: string}
          kind: {type: string}
          metadata: {type: object}
          spec: {type: object, x-kubernetes-map-type: atomic, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-map-type: atomic, x-kubernetes-preserve-unknown-fields: true}
";

fn crontab(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

/// Applies, and fails on any word of complaint.
fn apply(desktop: &Desktop, manifest: &str) -> Result<String> {
    let ran = desktop.kubectl_with("apply -f -", manifest)?;
    ensure!(ran.success() && ran.stderr.is_empty(), "{ran}");
    Ok(ran.stdout)
}

#[test]
fn kinds_that_people_define_are_kinds_like_any_other_on_every_desktop() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, two, three) = (bench.desktop(1), bench.desktop(2), bench.desktop(3));
        apply(one, CRONTABS)?;
        apply(one, WORKFLOWS)?;
        for name in ["crontabs.stable.example.com", "workflows.argoproj.io"] {
            one.kubectl(&format!("wait --for=condition=established --timeout=30s crd/{name}"))?.ok()?;
        }
        bench.wait_until(SOON, "another desktop to serve it", || {
            let listed = two.kubectl("api-resources --api-group=stable.example.com --no-headers")?.ok()?;
            Ok(listed.contains("CronTab").then_some(()))
        })?;
        used_from_another_desktop(two, three)?;
        workflows_keep_what_nobody_described(two)?;

        // Without a quorum an object is kept and adopted, as of any kind.
        bench.cut(&[&[1, 2], &[3]])?;
        bench.wait_until(SOON, "the minority to notice", || Ok((!three.status()?.quorum).then_some(())))?;
        let kept = three.kubectl_with("create -f -", &crontab("lone", "cronSpec: '* * * * *'"))?;
        ensure!(kept.success() && kept.stderr.contains("Warning:"), "{kept}");
        bench.heal()?;
        bench.wait_until(SOON, "what was kept to be adopted", || {
            let found = one.kubectl("get ct lone --ignore-not-found -o name")?.ok()?;
            Ok((!found.is_empty()).then_some(()))
        })?;

        let defined = one.get("crd", "crontabs.stable.example.com")?;
        ensure!(defined["status"]["storedVersions"][0] == "v1", "{}", defined["status"]);
        two.kubectl("delete crd crontabs.stable.example.com --timeout=60s")?.ok()?;
        let gone = two.kubectl("get ct")?.refused()?;
        // By what it remembers of the server, or after it has asked anew.
        let said = ["could not find the requested resource", "doesn't have a resource type"];
        ensure!(said.iter().any(|said| gone.contains(said)), "{gone}");
        // Its objects went with it: whoever defines it anew begins with none.
        apply(one, CRONTABS)?;
        one.kubectl("wait --for=condition=established --timeout=30s crd/crontabs.stable.example.com")?
            .ok()?;
        let none = one.kubectl("get ct -o name")?.ok()?;
        ensure!(none.is_empty(), "{none}");
        Ok(())
    });
}

fn used_from_another_desktop(two: &Desktop, three: &Desktop) -> Result<()> {
    apply(two, &crontab("mine", "cronSpec: '* * * * */5', image: my-image"))?;
    let table = two.kubectl("get crontabs")?.ok()?;
    ensure!(table.contains("REPLICAS") && table.contains("* * * * */5"), "{table}");
    ensure!(two.kubectl("get all")?.ok()?.contains("crontab.stable.example.com/mine"));
    let refused =
        two.kubectl_with("apply -f -", &crontab("bad", "cronSpec: now, replicas: 11"))?.refused()?;
    for part in ["spec.cronSpec in body should match", "should be less than or equal to 10"] {
        ensure!(refused.contains(part), "{part}: {refused}");
    }
    let refused =
        two.kubectl_with("apply -f -", &crontab("bad", "cronSpec: '* * * * *', odd: 1"))?.refused()?;
    ensure!(refused.contains("strict decoding error: unknown field \"spec.odd\""), "{refused}");
    two.kubectl("scale ct/mine --replicas=3")?.ok()?;
    ensure!(two.kubectl("get ct/mine -o jsonpath={.spec.replicas}")?.ok()? == "3");
    let explained = three.kubectl("explain ct.spec.cronSpec")?.ok()?;
    ensure!(
        explained.contains("FIELD: cronSpec <string>") && explained.contains("When to run."),
        "{explained}"
    );
    two.kubectl(r#"patch ct mine --subresource=status --type=merge -p '{"status":{"replicas":3}}'"#)?.ok()?;
    two.kubectl("wait --for=jsonpath={.status.replicas}=3 --timeout=30s ct/mine")?.ok()?;
    ensure!(two.gaggle("get ct")?.ok()?.contains("mine"), "gaggle's own command knows it, too");
    Ok(())
}

fn workflows_keep_what_nobody_described(desktop: &Desktop) -> Result<()> {
    let workflow = r#"{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "hello-"},
        "spec": {"entrypoint": "main", "templates": [{"name": "main", "container": {"image": "busybox"}}]}}"#;
    let made = desktop.kubectl_with("create -f - -o name", workflow)?.ok()?;
    let name = made.trim();
    ensure!(name.starts_with("workflow.argoproj.io/hello-"), "{name}");
    let image =
        desktop.kubectl(&format!("get {name} -o jsonpath={{.spec.templates[0].container.image}}"))?.ok()?;
    ensure!(image == "busybox", "{image}");
    desktop
        .kubectl(&format!(r#"patch {name} --type=merge -p '{{"status":{{"phase":"Running"}}}}'"#))?
        .ok()?;
    let table = desktop.kubectl("get wf")?.ok()?;
    ensure!(table.contains("STATUS") && table.contains("Running"), "{table}");
    Ok(())
}
