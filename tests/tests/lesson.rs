//! Every kubectl command of a lesson that teaches physicists the cloud, typed in the lesson's order with the lesson's own
//! manifests, which are read where they lie.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{BenchConfig, Desktop, with_bench};
use gaggle_tests::corpus::{self, stand_ins};
use gaggle_tests::script::{self, Line};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One command.
struct Step {
    /// As the lesson has it.
    says: &'static str,
    /// As it is typed here: with names filled in. Empty where nothing has to be.
    typed: &'static str,
    /// What it must print.
    prints: &'static [&'static str],
}

impl Step {
    fn line(&self) -> Line {
        script::line(if self.typed.is_empty() { self.says } else { self.typed }, self.prints)
    }
}

const fn step(says: &'static str, prints: &'static [&'static str]) -> Step {
    Step { says, typed: "", prints }
}

const fn typed(says: &'static str, typed: &'static str, prints: &'static [&'static str]) -> Step {
    Step { says, typed, prints }
}

/// The lesson's basics, its namespace, its storage, its fileserver, its Jobs, and the end.
const STEPS: &[Step] = &[
    typed("kubectl [command] --help", "kubectl run --help", &["Usage:"]),
    typed(
        "kubectl config use-context minikube",
        "kubectl config use-context gaggle",
        &["Switched to context"],
    ),
    typed(
        "kubectl config use-context docker-desktop",
        "kubectl config use-context gaggle",
        &["Switched to context"],
    ),
    step("kubectl get nodes", &["d1", "d2", "Ready"]),
    step("kubectl run mynginx --image=nginx", &["pod/mynginx created"]),
    step("kubectl get pods", &["mynginx   1/1     Running"]),
    typed("kubectl [command] [TYPE] [NAME] [flags]", "kubectl get pod mynginx -o name", &["pod/mynginx"]),
    step("kubectl get pods -o wide", &["NOMINATED NODE", "mynginx   1/1     Running"]),
    step("kubectl describe pod mynginx", &["Image:          nginx", "Started container mynginx"]),
    step("kubectl delete pod mynginx", &["pod \"mynginx\" deleted"]),
    step("kubectl create -f myapp.yaml", &["pod/myapp-pod created"]),
    step("kubectl get pods -o wide", &["myapp-pod   1/1     Running"]),
    step("kubectl describe pod myapp-pod", &["DBCON:  myconnectionstring"]),
    // As at a terminal.
    typed(
        "kubectl exec -it myapp-pod -- bash",
        "script -qec 'kubectl exec -it myapp-pod -- bash -c \"tty; echo \\$DBCON\"' /dev/null",
        &["/dev/pts", "myconnectionstring"],
    ),
    step("kubectl delete -f myapp.yaml", &["pod \"myapp-pod\" deleted"]),
    step("kubectl get namespaces", &["default", "kube-system", "Active"]),
    step("kubectl get ns", &["kube-public"]),
    step("kubectl get pods -n kube-system", &[]),
    step("kubectl get nodes", &["d2"]),
    step("kubectl describe node", &["Allocatable:", "Allocated resources:"]),
    typed("kubectl describe node <node name>", "kubectl describe node d2", &["Name:               d2"]),
    step("kubectl apply -f deploy-example.yaml", &["deployment.apps/deploy-example created"]),
    step("kubectl get deploy", &["deploy-example   3/3"]),
    step("kubectl get pods -o wide", &["deploy-example-"]),
    // A prefix of three pods' names.
    step("kubectl describe pod deploy-example", &["nginx:alpine", "cpu:     250m", "memory:  256Mi"]),
    step("kubectl get rs", &["deploy-example-", "3         3         3"]),
    step("kubectl delete -f deploy-example.yaml", &["deployment.apps \"deploy-example\" deleted"]),
    step("kubectl cluster-info", &["Kubernetes control plane", "is running at"]),
    step("kubectl cluster-info  # Display addresses of the master and services", &["is running at"]),
    step("kubectl get pod", &[]),
    step("kubectl get services", &[]),
    step("kubectl create -h", &["Available Commands:"]),
    step("kubectl create deployment mynginx-depl --image=nginx", &["deployment.apps/mynginx-depl created"]),
    step("kubectl get deployment", &["mynginx-depl   1/1"]),
    step("kubectl get pod", &["mynginx-depl-"]),
    step("kubectl delete deployment mynginx-depl", &["deployment.apps \"mynginx-depl\" deleted"]),
    typed("kubectl create ns <NAMESPACE>", "kubectl create ns mine", &["namespace/mine created"]),
    step("kubectl create ns argo", &["namespace/argo created"]),
    step(
        "kubectl create clusterrolebinding YOURNAME-cluster-admin-binding --clusterrole=cluster-admin --user=YOUREMAIL@gmail.com",
        &["YOURNAME-cluster-admin-binding created"],
    ),
    step(
        "kubectl create clusterrolebinding cern-cms-cluster-admin-binding --clusterrole=cluster-admin --user=cms-gXXX@arkivum.com",
        &["cern-cms-cluster-admin-binding created"],
    ),
    step(
        "kubectl create clusterrolebinding cms-cluster-admin-binding --clusterrole=cluster-admin --user=cms-g001@arkivum.com",
        &["cms-cluster-admin-binding created"],
    ),
    step("kubectl apply -f argo/service_account.yaml", &["serviceaccount/argo-service-account created"]),
    step(
        "kubectl apply -f argo/argo_role.yaml",
        &["role.rbac.authorization.k8s.io/argo-service-account created"],
    ),
    step("kubectl apply -f argo/argo_role_binding.yaml", &["argo-role-binding created"]),
    step(
        "kubectl apply -f manifests/",
        &["serviceaccount/argo-service-account unchanged", "argo-role-binding unchanged"],
    ),
    typed(
        "kubectl create secret generic s3-credentials \\",
        "kubectl create secret generic s3-credentials --from-literal=accessKey=a --from-literal=secretKey=b -n argo",
        &["secret/s3-credentials created"],
    ),
    // It comes with Argo.
    typed(
        "",
        "kubectl create configmap workflow-controller-configmap -n argo --from-literal=a=b",
        &["created"],
    ),
    step(
        "kubectl patch configmap workflow-controller-configmap -n argo --patch \"$(cat patch-workflow-controller-configmap.yaml)\"",
        &["configmap/workflow-controller-configmap patched"],
    ),
    typed(
        "",
        "kubectl get configmap workflow-controller-configmap -n argo -o jsonpath='{.data.artifactRepository}'",
        &["archiveLogs: false"],
    ),
    step("kubectl config set-context --current --namespace=argo", &["modified"]),
    typed("", "kubectl get secret s3-credentials -o name", &["secret/s3-credentials"]),
    step("kubectl apply -f pv.yaml", &["persistentvolume/task-pv-volume created"]),
    step("kubectl apply -f pv.yaml -n argo", &["persistentvolume/task-pv-volume unchanged"]),
    step("kubectl get pv", &["task-pv-volume   5Gi        RWX            Retain"]),
    step("kubectl apply -f pvc.yaml -n argo", &["persistentvolumeclaim/task-pv-claim created"]),
    step("kubectl get pvc -n argo", &["task-pv-claim"]),
    step("kubectl apply -f pv-pod.yaml -n argo", &["pod/task-pv-pod created"]),
    step("kubectl get pods -n argo", &["task-pv-pod"]),
    step("kubectl apply -n argo -f 001-nfs-server.yaml", &["replicationcontroller/nfs-server created"]),
    step("kubectl apply -n argo -f 002-nfs-server-service.yaml", &["service/nfs-server created"]),
    step("kubectl get svc -n argo", &["nfs-server"]),
    step("kubectl apply -f 003-pv.yaml", &["persistentvolume/nfs-1 created"]),
    step("kubectl apply -n argo -f 003-pvc.yaml", &["persistentvolumeclaim/nfs-1 created"]),
    step(
        "kubectl apply -n argo -f 003-pv-pvc.yaml",
        &["persistentvolume/nfs-1 unchanged", "persistentvolumeclaim/nfs-1 unchanged"],
    ),
    typed("kubectl get pvc nfs-<NUMBER> -n argo", "kubectl get pvc nfs-1 -n argo", &["nfs-1"]),
    step(
        "kubectl create configmap basic-config --from-file=conf.d -n argo",
        &["configmap/basic-config created"],
    ),
    step(
        "kubectl create -n argo -f deployment-http-fileserver.yaml",
        &["deployment.apps/http-fileserver created"],
    ),
    step(
        "kubectl expose deployment http-fileserver -n argo --type LoadBalancer --port 80 --target-port 80",
        &["service/http-fileserver exposed"],
    ),
    typed(
        "kubectl expose deployment",
        "kubectl expose deployment http-fileserver -n argo --name again --port 81",
        &["service/again exposed"],
    ),
    step(
        "kubectl get all -n argo",
        &["service/http-fileserver", "deployment.apps/http-fileserver", "replicationcontroller/nfs-server"],
    ),
    step("kubectl get pods -n argo -o wide", &["http-fileserver-"]),
    step("kubectl delete svc/http-fileserver -n argo", &["service \"http-fileserver\" deleted"]),
    step("kubectl apply -n argo -f job-data-download.yaml", &["job.batch/job-data-download created"]),
    step("kubectl get job -n argo", &["job-data-download   Complete   1/1"]),
    step("kubectl get pod -n argo", &["job-data-download-", "Completed"]),
    // Any pod's: what the lesson looks at here is a workflow's.
    typed(
        "kubectl describe pod <pod name> -n argo",
        "kubectl describe pod job-data-download -n argo",
        &["Exit Code:    0"],
    ),
    typed(
        "kubectl describe pod <pod-name> -n argo",
        "kubectl describe pod job-data-download -n argo",
        &["Exit Code:    0"],
    ),
    typed(
        "kubectl logs <pod-name> -n argo",
        "kubectl logs $(kubectl get pods -n argo -l job-name=job-data-download -o name) -n argo",
        &["download -r 123"],
    ),
    step("kubectl delete ns argo", &["namespace \"argo\" deleted"]),
    typed("", "kubectl get ns", &["mine"]),
    typed("", "kubectl get all,cm,secret,pvc,role -n argo", &[]),
];

/// Commands that are not typed, by a part of them, and why.
const NOT_TYPED: [(&str, &str); 12] = [
    ("https://", "it is fetched from the internet, and brings Argo or NFS"),
    ("argo-server", "it is about Argo's server"),
    ("XXXXX", "it is about a pod of a workflow, or of the fileserver, whose files are in a claim"),
    ("simulation-process", "it is about a pod of a workflow"),
    ("kubectl exec --stdin --tty <POD NAME>", "it is about a pod of a workflow"),
    ("grep ClusterIP", "it needs a service"),
    ("kubectl top", "it is tried with what is measured"),
    ("components.yaml", "it brings the server of metrics"),
    ("k8s-app=metrics-server", "it is about the server of metrics"),
    ("nginx-deployment.yaml", "the lesson's copy is not there; the manifest is one of the documentation's"),
    ("kubectl cp", "volumes are not bound to claims yet"),
    ("pv-pod -n argo -- ls", "volumes are not bound to claims yet"),
];

/// The lesson's manifests by the names that it gives them.
const MANIFESTS: [(&str, &str); 15] = [
    ("workshop2023-lesson-introcloud__kubectl__myapp.yaml", "myapp.yaml"),
    ("workshop2023-lesson-introcloud__kubectl__deploy-example.yaml", "deploy-example.yaml"),
    ("workshop2023-lesson-introcloud__minikube__pv.yaml", "pv.yaml"),
    ("workshop2023-lesson-introcloud__minikube__pvc.yaml", "pvc.yaml"),
    ("workshop2023-lesson-introcloud__minikube__pv-pod.yaml", "pv-pod.yaml"),
    ("workshop2023-lesson-introcloud__GKE__001-nfs-server.yaml", "001-nfs-server.yaml"),
    ("workshop2023-lesson-introcloud__GKE__002-nfs-server-service.yaml", "002-nfs-server-service.yaml"),
    ("workshop2023-lesson-introcloud__GKE__003-pv.yaml", "003-pv.yaml"),
    ("workshop2023-lesson-introcloud__GKE__003-pvc.yaml", "003-pvc.yaml"),
    ("workshop2021-lesson-cloud__003-pv-pvc.yaml", "003-pv-pvc.yaml"),
    (
        "workshop2023-lesson-introcloud__GKE__deployment-http-fileserver.yaml",
        "deployment-http-fileserver.yaml",
    ),
    (
        "workshop-payload-kubernetes__patch-workflow-controller-configmap.yaml",
        "patch-workflow-controller-configmap.yaml",
    ),
    ("infomaniak-cloud-test__manifests__argo_role.yaml", "argo_role.yaml"),
    ("infomaniak-cloud-test__manifests__argo_role_binding.yaml", "argo_role_binding.yaml"),
    ("infomaniak-cloud-test__manifests__service_account.yaml", "service_account.yaml"),
];

#[test]
fn a_lesson_is_typed_from_its_beginning_to_its_end() {
    let Some(lesson) = corpus::find("lesson") else { return };
    with_bench(BenchConfig::desktops(2), |bench| {
        every_command_is_typed_or_has_a_reason(&lesson)?;
        stand_ins::load(bench)?;
        bench.up()?;
        let desktop = bench.desktop(1);
        desktop.make_kubeconfig()?;
        let dir = lay_out(&lesson, desktop)?;
        let lines: Vec<Line> = STEPS.iter().map(Step::line).collect();
        script::play(desktop, &dir, &lines)
    });
}

/// A directory as a learner has it.
fn lay_out(lesson: &Path, desktop: &Desktop) -> Result<PathBuf> {
    let dir = desktop.dir().join("lesson");
    for sub in ["argo", "manifests", "conf.d"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    for (file, name) in MANIFESTS {
        let text =
            std::fs::read_to_string(lesson.join("manifests").join(file)).with_context(|| file.to_owned())?;
        std::fs::write(dir.join(name), &text)?;
        if file.starts_with("infomaniak") {
            std::fs::write(dir.join("argo").join(name), &text)?;
            std::fs::write(dir.join("manifests").join(name), &text)?;
        }
    }
    std::fs::write(dir.join("conf.d/nginx-basic.conf"), "server { listen 80; }\n")?;
    // Its volume is a claim in the lesson, and its image is not here: what it prints are its arguments.
    let job =
        std::fs::read_to_string(lesson.join("manifests/workshop-payload-kubernetes__job-data-list.yaml"))?;
    let job = job
        .replace("clelange/cernopendata-client-go", "busybox:1.28")
        .replace("args: [\"list\", ", "args: [\"echo\", \"download\", ");
    std::fs::write(dir.join("job-data-download.yaml"), job)?;
    Ok(dir)
}

fn every_command_is_typed_or_has_a_reason(lesson: &Path) -> Result<()> {
    let text = std::fs::read_to_string(lesson.join("COMMANDS.md"))?;
    let all = text.split("\n## argo").next().unwrap_or_default().lines();
    let all: BTreeSet<&str> = all.filter_map(|line| line.strip_prefix("    ")).collect();
    ensure!(all.len() > 90, "only {} commands were found", all.len());
    let typed: BTreeSet<&str> = STEPS.iter().map(|step| step.says).filter(|says| !says.is_empty()).collect();
    let left_out = |line: &&&str| NOT_TYPED.iter().any(|(part, _)| line.contains(part));
    let (without, with): (Vec<&&str>, Vec<&&str>) = all.difference(&typed).partition(left_out);
    ensure!(with.is_empty(), "nobody types these, and nobody says why: {with:?}");
    let unknown: Vec<_> = typed.difference(&all).collect();
    ensure!(unknown.is_empty(), "the lesson has no such commands: {unknown:?}");
    for (part, why) in NOT_TYPED {
        ensure!(without.iter().any(|line| line.contains(part)), "no command is left out because {why}");
    }
    Ok(())
}
