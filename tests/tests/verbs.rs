//! kubectl's verbs, each as its help describes it, against desktops that work.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Desktop, on_bench};
use gaggle_tests::kube::SOON;
use gaggle_tests::script::{Line, line, play, refused, without};
use std::path::{Path, PathBuf};

/// Files that the commands name.
const FILES: [(&str, &str); 9] = [
    ("f.txt", "hello\n"),
    ("e.env", "A=1\nB=2\n"),
    (
        "two.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m1, labels: {set: one}}\ndata: {a: b}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m2, labels: {set: one}}\ndata: {a: b}\n",
    ),
    ("one.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m1, labels: {set: one}}\ndata: {a: b}\n"),
    (
        "kustomization.yaml",
        "namePrefix: k-\nresources: [web.yaml]\nconfigMapGenerator:\n- {name: gen, literals: [a=b]}\n\
         images:\n- {name: busybox, newTag: '1.36'}\n",
    ),
    (
        "web.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 0\n  \
         selector: {matchLabels: {app: k}}\n  template:\n    metadata: {labels: {app: k}}\n    \
         spec: {containers: [{name: a, image: busybox}]}\n",
    ),
    (
        "access.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: rec, namespace: default}\n\
         rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: rec, namespace: default}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: rec}\n\
         subjects: [{kind: User, name: u, apiGroup: rbac.authorization.k8s.io}]\n",
    ),
    (
        "less.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: rec, namespace: default}\n\
         rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]\n",
    ),
    (
        "bare.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: bare, labels: {app: bare}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  nodeSelector: {kubernetes.io/hostname: d2}\n  containers:\n  \
         - {name: main, image: 'busybox:1.36', command: [sh, -c, 'while true; do date; sleep 1; done']}\n",
    ),
];

/// Each of kubectl's generators, and what is read back.
const MADE: &[Line] = &[
    line("kubectl create configmap cm1 --from-file=f.txt --from-literal=k=v", &["configmap/cm1 created"]),
    line("kubectl create configmap cm2 --from-env-file=e.env", &["created"]),
    line(
        "kubectl create configmap cm3 --from-literal=k=v --append-hash",
        &["configmap/cm3-ccdk9hd88m created"],
    ),
    line(
        "kubectl get cm cm1 cm2 -o jsonpath='{.items[*].data}'",
        &[r#"{"f.txt":"hello\n","k":"v"} {"A":"1","B":"2"}"#],
    ),
    line("kubectl create secret generic s1 --from-file=f.txt", &["secret/s1 created"]),
    line(
        "kubectl create secret docker-registry s2 --docker-server=r.example.com --docker-username=u --docker-password=p",
        &["created"],
    ),
    line("kubectl describe secret s2", &["Type:  kubernetes.io/dockerconfigjson", ".dockerconfigjson:  "]),
    refused("kubectl create secret generic s4 --type=kubernetes.io/tls", &["data[tls.crt]: Required value"]),
    line("kubectl create serviceaccount sa1", &["serviceaccount/sa1 created"]),
    line("kubectl create job j1 --image=busybox:1.36 -- echo done", &["job.batch/j1 created"]),
    line("kubectl create cronjob c1 --image=busybox:1.36 --schedule='0 5 * * *' -- date", &["created"]),
    line("kubectl create job j2 --from=cronjob/c1", &["job.batch/j2 created"]),
    line("kubectl create role r1 --verb=get,list --resource=pods,pods/log --resource-name=x", &["created"]),
    line("kubectl create clusterrole cr1 --verb=get --resource=nodes", &["created"]),
    line("kubectl create clusterrole cr2 --verb=get --non-resource-url=/metrics", &["created"]),
    line("kubectl create clusterrole cr3 --aggregation-rule=a=b", &["created"]),
    line(
        "kubectl create rolebinding rb1 --role=r1 --user=u --group=g --serviceaccount=default:sa1",
        &["created"],
    ),
    line("kubectl create clusterrolebinding crb1 --clusterrole=cr1 --user=u", &["created"]),
    line("kubectl set subject rolebinding rb1 --user=second", &["subjects updated"]),
    line("kubectl get rolebinding rb1 -o wide", &["Role/r1", "u, second", "default/sa1"]),
    line("kubectl create quota q1 --hard=pods=100,secrets=20 --scopes=", &["resourcequota/q1 created"]),
    line("kubectl get quota q1", &["secrets: 2/20"]),
    line("kubectl delete quota q1", &["deleted"]),
    line(
        "kubectl create priorityclass p1 --value=10 --description=x --preemption-policy=Never",
        &["created"],
    ),
    line("kubectl create pdb pdb1 --selector=app=none --min-available=50%", &["created"]),
    line(
        "kubectl create ingress i1 --rule='a.com/p*=web:80,tls=s3' --default-backend=web:80 --annotation a=b",
        &["created"],
    ),
    line("kubectl create service clusterip ci --tcp=80:8080", &["service/ci created"]),
    line("kubectl create service clusterip hl --clusterip=None", &["created"]),
    line("kubectl create service nodeport np --tcp=80:80", &["created"]),
    line("kubectl create service loadbalancer lb --tcp=80:80", &["created"]),
    line("kubectl create service externalname en --external-name=example.com", &["created"]),
    line("kubectl get svc", &["example.com", "None", "<pending>"]),
    line("kubectl set selector service ci app=web", &["selector updated"]),
    line(
        "kubectl wait job/j1 job/j2 --for=condition=complete --timeout=60s",
        &["job.batch/j1 condition met"],
    ),
    line("kubectl logs job/j1", &["done"]),
];

/// What only looks.
const SEEN: &[Line] = &[
    line("kubectl api-resources", &["deployments", "deploy", "apps/v1"]),
    without("kubectl api-resources --namespaced=false -o name", &["nodes", "clusterroles.rbac"], &["pods"]),
    without(
        "kubectl api-resources --api-group=batch -o wide",
        &["cronjobs", "deletecollection"],
        &["deployments"],
    ),
    line("kubectl api-versions", &["apps/v1", "policy/v1", "v1"]),
    line("kubectl version", &["Server Version: v1.32"]),
    line("kubectl cluster-info", &["Kubernetes control plane is running at https://"]),
    line(
        "kubectl cluster-info dump --output-directory=dump && ls dump dump/default",
        &["nodes.json", "pods.json", "events.json"],
    ),
    line("kubectl config current-context", &["gaggle"]),
    without("kubectl config view --minify", &["current-context: gaggle", "REDACTED"], &["-----BEGIN"]),
    line("kubectl get cm cm1 -o yaml", &["f.txt: |", "kind: ConfigMap"]),
    without("kubectl get cm cm1 -o json", &["\"kind\": \"ConfigMap\""], &["managedFields"]),
    line("kubectl get cm cm1 -o json --show-managed-fields", &["kubectl-create"]),
    line("kubectl get cm cm1 -o name", &["configmap/cm1"]),
    line("kubectl get cm cm1 -o go-template='{{.data.k}}'", &["v"]),
    line("kubectl get cm cm1 -o custom-columns=N:.metadata.name,K:.data.k", &["N     K\ncm1   v"]),
    line("kubectl get cm cm1 -o jsonpath-as-json='{.data}'", &["\"k\": \"v\""]),
    line("kubectl get cm --chunk-size=1 -o name", &["configmap/cm1\nconfigmap/cm2\nconfigmap/cm3"]),
    line("kubectl get cm --sort-by='{.metadata.creationTimestamp}' --no-headers", &["cm1", "cm3"]),
    without("kubectl get secrets -A --field-selector=type=Opaque,metadata.name!=s9", &["s1"], &["s2"]),
    refused("kubectl get cm --field-selector=bogus=1", &["field label not supported: bogus"]),
    refused("kubectl get cm -l a=b=c", &["unable to parse requirement"]),
    line("kubectl get cm,secret --show-kind", &["configmap/cm1", "secret/s1"]),
    line("kubectl get --raw '/api/v1/namespaces/default/configmaps?limit=1'", &["\"continue\":\""]),
    refused("kubectl get nothing", &["the server doesn't have a resource type \"nothing\""]),
    refused("kubectl get cm gone", &["configmaps \"gone\" not found"]),
    line("kubectl get cm gone --ignore-not-found", &[]),
    line("kubectl auth can-i --list", &["*.*"]),
    line("kubectl auth can-i create deployments --subresource=scale", &["yes"]),
    line("kubectl auth whoami", &["system:masters"]),
    line("kubectl explain cronjob.spec.concurrencyPolicy", &["CronJob", "Forbid"]),
    line(
        "kubectl explain selfsubjectaccessreview.spec.resourceAttributes.verb",
        &["SelfSubjectAccessReview", "string"],
    ),
];

/// What changes objects without a controller's help.
const CHANGED: &[Line] = &[
    line("kubectl apply -f two.yaml", &["configmap/m1 created", "configmap/m2 created"]),
    line("kubectl label cm m1 tier=front", &["labeled"]),
    refused("kubectl label cm m1 tier=back", &["already has a value (front), and --overwrite is false"]),
    line("kubectl label cm m1 tier=back --overwrite", &["labeled"]),
    line("kubectl label cm --all lab=yes", &["configmap/m2 labeled"]),
    line("kubectl get cm -l 'lab in (yes),tier notin (front)' -L tier", &["m1", "back"]),
    line("kubectl label cm m1 tier-", &["unlabeled"]),
    line("kubectl annotate cm m1 note='a b'", &["annotated"]),
    line("kubectl annotate cm m1 note-", &["annotated"]),
    line("kubectl patch cm m1 -p '{\"data\":{\"k\":\"2\"}}'", &["patched"]),
    line("kubectl patch cm m1 --type=merge -p '{\"data\":{\"k\":null,\"l\":\"3\"}}'", &["patched"]),
    line(
        "kubectl patch cm m1 --type=json -p '[{\"op\":\"add\",\"path\":\"/data/z\",\"value\":\"1\"}]'",
        &["patched"],
    ),
    refused(
        "kubectl patch cm m1 --type=json -p '[{\"op\":\"test\",\"path\":\"/data/z\",\"value\":\"2\"}]'",
        &["/data/z"],
    ),
    line("kubectl get cm m1 -o jsonpath='{.data}'", &[r#"{"a":"b","l":"3","z":"1"}"#]),
    line("EDITOR=\"sed -i 's/  z: .*/  z: edited/'\" kubectl edit cm m1", &["configmap/m1 edited"]),
    line("EDITOR=true kubectl edit cm m1", &["no changes made"]),
    line("kubectl apply view-last-applied cm m1", &["a: b"]),
    line("kubectl apply set-last-applied -f two.yaml", &["configured"]),
    line("kubectl diff -f two.yaml; echo code $?", &["code 0"]),
    line(
        "kubectl apply --prune -l set=one -f one.yaml --prune-allowlist=core/v1/ConfigMap",
        &["configmap/m2 pruned"],
    ),
    line(
        "KUBECTL_APPLYSET=true kubectl apply --prune --applyset=set -n default -f two.yaml",
        &["configmap/m2 created"],
    ),
    line(
        "KUBECTL_APPLYSET=true kubectl apply --prune --applyset=set -n default -f one.yaml",
        &["configmap/m2 pruned"],
    ),
    line("kubectl replace -f one.yaml", &["configmap/m1 replaced"]),
    line("kubectl get cm m1 -o jsonpath='{.data}'", &[r#"{"a":"b"}"#]),
    line("kubectl replace --force -f one.yaml", &["configmap \"m1\" deleted", "configmap/m1 replaced"]),
    line("kubectl delete -f one.yaml --dry-run=server", &["deleted (server dry run)"]),
    line("kubectl wait cm/m1 --for=jsonpath='{.data.a}'=b --timeout=5s", &["condition met"]),
    line("kubectl wait cm/m1 --for=create --timeout=5s", &["condition met"]),
    refused("kubectl wait cm/m1 --for=delete --timeout=1s", &["timed out waiting for the condition"]),
    line(
        "(sleep 1; kubectl delete cm m1) & kubectl wait cm/m1 --for=delete --timeout=30s",
        &["condition met"],
    ),
    line("kubectl kustomize .", &["name: k-web", "image: busybox:1.36"]),
    line("kubectl apply -k .", &["deployment.apps/k-web created"]),
    line("kubectl diff -k .; echo code $?", &["code 0"]),
    line("kubectl delete -k .", &["deployment.apps \"k-web\" deleted"]),
    line(
        "kubectl auth reconcile -f access.yaml",
        &["role.rbac.authorization.k8s.io/rec reconciled", "missing rules added"],
    ),
    line("kubectl auth reconcile -f less.yaml --remove-extra-permissions", &["extra rules removed"]),
    line("kubectl get role rec -o jsonpath='{.rules[*].verbs}'", &["[\"list\"]"]),
    line("kubectl delete cm --all", &["configmap \"cm1\" deleted"]),
    line("kubectl delete secret -l '!none' --field-selector=type=Opaque", &["secret \"s1\" deleted"]),
];

/// A Deployment's life.
const ROLLED: &[Line] = &[
    line("kubectl create deployment web --image=busybox:1.36 --replicas=2 -- sleep 100000", &["created"]),
    line(
        "kubectl patch deploy web -p '{\"spec\":{\"template\":{\"spec\":{\"terminationGracePeriodSeconds\":1}}}}'",
        &["patched"],
    ),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    line("kubectl wait deploy/web --for=condition=Available --timeout=60s", &["condition met"]),
    line(
        "kubectl wait deploy/web --for=jsonpath='{.status.readyReplicas}'=2 --timeout=60s",
        &["condition met"],
    ),
    line("kubectl wait pod -l app=web --for=condition=Ready --timeout=60s", &["condition met"]),
    line("kubectl get all -l app=web", &["pod/web-", "deployment.apps/web", "replicaset.apps/web-"]),
    line("kubectl annotate deploy web kubernetes.io/change-cause=first", &["annotated"]),
    line("kubectl set image deploy/web busybox=busybox:1.28", &["image updated"]),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    line("kubectl rollout history deploy/web", &["1 ", "2 ", "3 ", "first"]),
    line("kubectl rollout history deploy/web --revision=3", &["busybox:1.28"]),
    line("kubectl rollout undo deploy/web --to-revision=2", &["rolled back"]),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    line("kubectl get deploy web -o jsonpath='{..image}'", &["busybox:1.36"]),
    line("kubectl rollout pause deploy/web", &["paused"]),
    line("kubectl set env deploy/web A=b C-", &["env updated"]),
    line("kubectl set env deploy/web --list", &["A=b"]),
    line(
        "kubectl set resources deploy/web --limits=cpu=200m,memory=64Mi --requests=cpu=10m",
        &["requirements updated"],
    ),
    line("kubectl set serviceaccount deploy/web sa1", &["serviceaccount updated"]),
    refused("kubectl rollout undo deploy/web", &["cannot rollback a paused deployment"]),
    line("kubectl set serviceaccount deploy/web default", &["serviceaccount updated"]),
    line("kubectl rollout resume deploy/web", &["resumed"]),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    line("kubectl exec deploy/web -- sh -c 'echo A is $A'", &["A is b"]),
    line("kubectl rollout restart deploy/web", &["restarted"]),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    refused(
        "kubectl scale deploy/web --current-replicas=7 --replicas=1",
        &["Expected replicas to be 7, was 2"],
    ),
    line("kubectl scale deploy/web --current-replicas=2 --replicas=1", &["scaled"]),
    line("kubectl get deploy web --subresource=scale -o jsonpath='{.spec.replicas}'", &["1"]),
    line("kubectl get deploy web --subresource=scale", &["NAME", "DESIRED", "AVAILABLE", "AGE", "web"]),
    line(
        "kubectl patch deploy web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'",
        &["patched"],
    ),
    line("kubectl autoscale deploy/web --min=1 --max=3 --cpu-percent=50", &["autoscaled"]),
    line("kubectl describe hpa web", &["Deployment/web", "50%"]),
    line("kubectl expose deploy/web --port=80 --target-port=8080 --type=NodePort", &["service/web exposed"]),
    line("kubectl events --for deployment/web", &["ScalingReplicaSet"]),
    line("kubectl events --types=Normal -A", &["default"]),
    line("kubectl logs -l app=web --all-containers --prefix --tail=1", &[]),
    // Orphans are taken back by who has the same template.
    line(
        "kubectl get deploy web -o json | sed /resourceVersion/d > web.json && kubectl delete deploy web --cascade=orphan",
        &["deleted"],
    ),
    line(
        "kubectl get rs -l app=web -o jsonpath='{range .items[*]}[{.metadata.ownerReferences}{.spec.replicas}/{.status.readyReplicas}]{end}'",
        &["[2/2]"],
    ),
    line("kubectl create -f web.json", &["deployment.apps/web created"]),
    line("kubectl rollout status deploy/web --timeout=60s", &["successfully rolled out"]),
    line(
        "kubectl get rs -l app=web -o jsonpath='{range .items[*]}[{.metadata.ownerReferences[0].kind} {.status.readyReplicas}]{end}'",
        &["[Deployment 2]"],
    ),
    line("kubectl delete deploy web --cascade=foreground --timeout=60s", &["deleted"]),
    // No look that is repeated: they went first.
    line("test -z \"$(kubectl get rs,pods -l app=web -o name)\"", &[]),
    line("kubectl create deployment gone --image=busybox:1.36 -- sleep 100000", &["created"]),
    line("kubectl wait deploy/gone --for=condition=Available --timeout=60s", &["condition met"]),
    line("kubectl delete deploy gone --cascade=background", &["deleted"]),
    without("kubectl get rs -l app=gone --ignore-not-found", &[], &["gone"]),
];

/// Desktops, pods and namespaces.
const MOVED: &[Line] = &[
    line("kubectl apply -f bare.yaml", &["pod/bare created"]),
    line("kubectl wait pod/bare --for=condition=Ready --timeout=60s", &["condition met"]),
    line("kubectl logs bare --tail=2 --timestamps --since=60s --limit-bytes=1000", &["Z "]),
    line("kubectl run once --image=busybox:1.36 --restart=Never -i --rm --quiet -- echo said", &["said"]),
    // Long before anybody is attached, and long before it ends.
    line(
        "kubectl run early --image=busybox:1.36 --restart=Never -i --rm --quiet -- sh -c 'echo said; sleep 3'",
        &["said"],
    ),
    line("kubectl cordon d2", &["node/d2 cordoned"]),
    line("kubectl get node d2", &["SchedulingDisabled"]),
    refused("kubectl drain d2 --timeout=5s", &["bare"]),
    line(
        "kubectl drain d2 --force --ignore-daemonsets --delete-emptydir-data --timeout=60s",
        &["evicting pod default/bare", "drained"],
    ),
    refused("kubectl get pod bare", &["not found"]),
    line("kubectl uncordon d2", &["node/d2 uncordoned"]),
    line("kubectl taint node d2 a=b:NoSchedule", &["tainted"]),
    line("kubectl describe node d2", &["a=b:NoSchedule", "Unschedulable:      false"]),
    line("kubectl taint node d2 a-", &["untainted"]),
    line("kubectl label node d1 d2 room=here", &["node/d2 labeled"]),
    line("kubectl get nodes -l room=here -o name", &["node/d1\nnode/d2"]),
    line("kubectl create ns lab", &["created"]),
    line("kubectl -n lab create deployment web --image=busybox:1.36 -- sleep 100000", &["created"]),
    line("kubectl -n lab create cm c --from-literal=a=b", &["created"]),
    line("kubectl -n lab wait deploy/web --for=condition=Available --timeout=60s", &["condition met"]),
    line("kubectl delete ns lab --timeout=90s", &["namespace \"lab\" deleted"]),
    refused("kubectl get ns lab", &["namespaces \"lab\" not found"]),
    line("test -z \"$(kubectl get deploy,rs,pods,cm -n lab -o name)\"", &[]),
];

fn lay_out(desktop: &Desktop) -> Result<PathBuf> {
    let dir = desktop.dir().join("work");
    std::fs::create_dir_all(&dir)?;
    for (name, text) in FILES {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(dir)
}

#[test]
fn every_verb_does_what_its_help_says() {
    on_bench(2, |bench| {
        bench.up()?;
        let desktop = bench.desktop(1);
        desktop.make_kubeconfig()?;
        let dir = lay_out(desktop)?;
        for lines in [MADE, SEEN, CHANGED, ROLLED, MOVED] {
            play(desktop, &dir, lines)?;
        }
        a_watch_tells_what_comes_and_goes(desktop)?;
        a_proxy_passes_on(desktop, &dir)
    });
}

fn a_watch_tells_what_comes_and_goes(desktop: &Desktop) -> Result<()> {
    let watch = desktop.start("kubectl get cm -w --output-watch-events --no-headers -l seen=yes")?;
    desktop.kubectl("create cm seen --from-literal=a=b")?.ok()?;
    desktop.kubectl("label cm seen seen=yes")?.ok()?;
    watch.wait_for("ADDED", SOON)?;
    desktop.kubectl("patch cm seen --type=merge -p '{\"data\":{\"c\":\"d\"}}'")?.ok()?;
    watch.wait_for("MODIFIED", SOON)?;
    // What the selector no longer chooses is gone for who watches by it.
    desktop.kubectl("label cm seen seen-")?.ok()?;
    watch.wait_for("DELETED", SOON)
}

fn a_proxy_passes_on(desktop: &Desktop, dir: &Path) -> Result<()> {
    let proxy = desktop.start("kubectl proxy --port=0")?;
    proxy.wait_for("Starting to serve on ", SOON)?;
    let said = proxy.stdout();
    let address = said.trim().rsplit(' ').next().context("it says where")?.to_owned();
    let line = format!("cd '{}' && curl -sf http://{address}/api/v1/namespaces/default", dir.display());
    let answer = desktop.exec(&line)?.ok()?;
    ensure!(answer.contains("\"phase\":\"Active\""), "{answer}");
    Ok(())
}
