//! Who may: users with roles by kubeconfigs of their own, taken back everywhere; programs in pods by their tokens.

use anyhow::{Context, Result, ensure};
use gaggle_tests::bench::{Desktop, Outcome, on_bench};
use gaggle_tests::kube::{RECOVERS, SOON};
use std::path::{Path, PathBuf};

/// A kubeconfig that `gaggle` makes on a desktop, for the machine at `server`.
fn kubeconfig(on: &Desktop, server: &Desktop, name: &str, arguments: &str) -> Result<PathBuf> {
    let text =
        on.gaggle(&format!("kubeconfig --user {name} --server {} {arguments}", server.address()))?.ok()?;
    let file = on.dir().join(format!("{name}-{}.kubeconfig", server.name()));
    std::fs::write(&file, text)?;
    Ok(file)
}

fn kubectl_as(desktop: &Desktop, file: &Path, line: &str) -> Result<Outcome> {
    desktop.exec(&format!("kubectl --kubeconfig '{}' {line}", file.display()))
}

/// The same user's kubeconfig, for another desktop.
fn at(file: &Path, from: &Desktop, to: &Desktop) -> Result<PathBuf> {
    let text = std::fs::read_to_string(file)?;
    let from = from.address().to_string();
    ensure!(text.contains(&from), "{} does not name {from}", file.display());
    let moved = file.with_extension(to.name());
    std::fs::write(&moved, text.replace(&from, &to.address().to_string()))?;
    Ok(moved)
}

fn is_unauthorized(outcome: &Outcome) -> bool {
    !outcome.success() && outcome.stderr.contains("Unauthorized")
        || outcome.stderr.contains("must be logged in to the server")
}

#[test]
fn users_may_what_their_roles_say_until_they_are_revoked_or_their_time_is_over() {
    on_bench(3, |bench| {
        let flock = bench.up()?;
        let (leader, others) = bench.leader_and_others(&flock)?;
        let (one, two) = (others[0], others[1]);
        one.kubectl("create namespace physics")?.ok()?;

        let viewer = kubeconfig(one, one, "vera", "--role view --for 8h")?;
        let editor = kubeconfig(one, two, "eddie@lab", "--role edit -n physics --for 8h")?;
        let administrator = kubeconfig(two, one, "ada", "--role admin -n physics")?;
        let nobody = kubeconfig(one, one, "nora", "")?;
        let may = |file: &Path, line: &str| -> Result<()> { kubectl_as(one, file, line)?.ok().map(drop) };
        let may_not = |file: &Path, line: &str, why: &str| -> Result<()> {
            let said = kubectl_as(one, file, line)?.refused()?;
            ensure!(said.contains(why), "{line}: {said}");
            Ok(())
        };
        bench.wait_until(SOON, "the role to be given", || {
            Ok(kubectl_as(one, &viewer, "get pods -A")?.success().then_some(()))
        })?;
        may_not(
            &viewer,
            "get secrets",
            "User \"vera\" cannot list resource \"secrets\" in API group \"\" in the namespace",
        )?;
        may_not(&viewer, "create configmap c --from-literal=a=b", "configmaps is forbidden")?;
        may(&editor, "create configmap c --from-literal=a=b")?;
        may(&editor, "create deployment web --image=busybox -- sleep 1000")?;
        may_not(&editor, "get pods -n default", "pods is forbidden: User \"eddie@lab\" cannot list")?;
        may_not(
            &editor,
            "create rolebinding r --clusterrole=view --user=x",
            "cannot create resource \"rolebindings\"",
        )?;
        may(&administrator, "create rolebinding r --clusterrole=view --user=x")?;
        may_not(
            &administrator,
            "create rolebinding s --clusterrole=cluster-admin --user=x",
            "not currently held",
        )?;
        may_not(&nobody, "get pods", "pods is forbidden")?;
        may(&nobody, "auth whoami")?;
        let listed = kubectl_as(one, &editor, "auth can-i --list")?.ok()?;
        ensure!(listed.contains("pods/exec") && !listed.contains("*.*"), "{listed}");
        let bindings = one.kubectl("get clusterrolebindings,rolebindings -A -o wide")?.ok()?;
        ensure!(bindings.contains("gaggle-user:vera:view") && bindings.contains("eddie@lab"), "{bindings}");
        // Nothing of the administrator's has come along, and nothing of the daemon's is theirs.
        ensure!(!std::fs::read_to_string(&viewer)?.contains(&token_of(one)?), "the administrator's token");
        let status = one.exec(&format!(
            "'{}' status --kubeconfig '{}'",
            bench.layout().binary.display(),
            viewer.display()
        ))?;
        ensure!(status.success(), "a viewer sees the flock: {status}");
        let down = one.exec(&format!(
            "'{}' down --kubeconfig '{}'",
            bench.layout().binary.display(),
            editor.display()
        ))?;
        ensure!(!down.success() && down.stderr.contains("cannot post path"), "{down}");
        for (wrong, why) in [
            ("--user system:masters", "cannot be a user's name"),
            ("--user x --role no-such", "there is no such ClusterRole"),
            ("--user x --for 0s", "say for how long"),
        ] {
            let said = one.gaggle(&format!("kubeconfig {wrong}"))?.refused()?;
            ensure!(said.contains(why), "{wrong}: {said}");
        }

        // Any desktop takes it, also when the leader has died, and on the side that decides nothing.
        leader.power_cut()?;
        let elsewhere = at(&viewer, one, two)?;
        for (desktop, file) in [(one, &viewer), (two, &elsewhere)] {
            bench.wait_until(RECOVERS, "an answer without the leader", || {
                Ok(kubectl_as(desktop, file, "get pods -A")?.success().then_some(()))
            })?;
        }
        bench.cut(&[&[one.index()], &[two.index()]])?;
        bench.wait_until(RECOVERS, "the quorum to be gone", || Ok((!one.status()?.quorum).then_some(())))?;
        kubectl_as(one, &viewer, "get pods -A")?.ok()?;
        let late = kubeconfig(one, one, "lars", "")?;
        kubectl_as(one, &late, "auth whoami")?.ok()?;
        // Taken back where nobody orders anything: at once here, there as soon as it is heard of.
        let said = one.gaggle("kubeconfig --revoke vera")?;
        ensure!(said.success() && said.stderr.contains("no quorum"), "{said}");
        bench.wait_until(SOON, "the revocation to be heeded", || {
            Ok(is_unauthorized(&kubectl_as(one, &viewer, "get pods -A")?).then_some(()))
        })?;
        kubectl_as(two, &elsewhere, "get pods -A")?.ok()?;
        bench.heal()?;
        bench.wait_until(RECOVERS, "the other desktop to hear of it", || {
            Ok(is_unauthorized(&kubectl_as(two, &elsewhere, "get pods -A")?).then_some(()))
        })?;
        // It survives, and another one can be made.
        two.kill_daemon()?;
        two.restart_daemon()?;
        bench.wait_until(RECOVERS, "the daemon to be back", || {
            Ok(two.kubectl("get --raw /healthz")?.success().then_some(()))
        })?;
        let again = kubectl_as(two, &elsewhere, "get pods -A")?;
        ensure!(is_unauthorized(&again), "{again}");
        bench.wait_until(RECOVERS, "a quorum", || Ok(two.status()?.quorum.then_some(())))?;
        let anew = kubeconfig(two, two, "vera", "--role view --for 5s")?;
        bench.wait_until(RECOVERS, "the five seconds to pass", || {
            let said = kubectl_as(two, &anew, "get pods -A")?;
            Ok(is_unauthorized(&said).then_some(()))
        })?;
        kubectl_as(two, &at(&late, one, two)?, "auth whoami")?.ok()?;
        Ok(())
    });
}

/// The administrator's token of a desktop.
fn token_of(desktop: &Desktop) -> Result<String> {
    let text = desktop.gaggle("kubeconfig")?.ok()?;
    let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
    Ok(token.context("no token in the kubeconfig")?.to_owned())
}

const PROGRAMS: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  serviceAccountName: reader
  containers:
  - name: main
    image: busybox
    command: [sleep, '1000']
    volumeMounts: [{name: kubectl, mountPath: /bin/kubectl}, {name: vault, mountPath: /vault}]
  volumes:
  - {name: kubectl, hostPath: {path: KUBECTL, type: File}}
  - name: vault
    projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  containers:
  - {name: main, image: busybox, command: [sleep, '1000'], volumeMounts: [{name: kubectl, mountPath: /bin/kubectl}]}
  volumes: [{name: kubectl, hostPath: {path: KUBECTL, type: File}}]
---
apiVersion: v1
kind: Pod
metadata: {name: mute}
spec:
  automountServiceAccountToken: false
  containers: [{name: main, image: busybox, command: [sleep, '1000']}]
";

const LONG_LIVED: &str = "apiVersion: v1
kind: Secret
metadata:
  name: reader-token
  annotations: {kubernetes.io/service-account.name: reader}
type: kubernetes.io/service-account-token
";

#[test]
fn programs_in_pods_speak_with_the_api_as_who_they_are() {
    on_bench(1, |bench| {
        bench.up()?;
        let one = bench.desktop(1);
        let found = one.exec("readlink -f \"$(command -v kubectl)\"")?.ok()?;
        one.apply(&PROGRAMS.replace("KUBECTL", found.trim()))?;
        for name in ["reader", "stranger", "mute"] {
            one.pod_in(name, &["Running"])?;
        }
        // kubectl inside finds the API, knows it by its certificate, and says who it is.
        let inside = |pod: &str, line: &str| one.kubectl(&format!("exec {pod} -- {line}"));
        let listed = inside("reader", "kubectl get pods -o name")?.ok()?;
        ensure!(listed.contains("pod/reader") && listed.contains("pod/mute"), "{listed}");
        let who = inside("reader", "kubectl auth whoami")?.ok()?;
        ensure!(who.contains("system:serviceaccount:default:reader") && who.contains("pod-name"), "{who}");
        let refused = inside("reader", "kubectl delete pod mute")?.refused()?;
        ensure!(refused.contains("pods \"mute\" is forbidden"), "{refused}");
        let refused = inside("stranger", "kubectl get pods")?.refused()?;
        let expected =
            "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\"";
        ensure!(refused.contains(expected), "{refused}");
        // By its name, too, with what is mounted and nothing else.
        let by_name = "kubectl --server=https://kubernetes.default.svc:$KUBERNETES_SERVICE_PORT \
             --token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token) \
             --certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt get pods -o name";
        let listed = inside("reader", &format!("sh -c '{by_name}'"))?.ok()?;
        ensure!(listed.contains("pod/reader"), "{listed}");
        ensure!(
            !inside("mute", "ls /var/run/secrets/kubernetes.io/serviceaccount")?.success(),
            "it was to have none"
        );

        // A token for others is none for the API; kubectl makes more of them.
        let vault = inside("reader", "cat /vault/token")?.ok()?;
        let with = |token: &str| one.kubectl(&format!("--token '{}' get pods", token.trim()));
        let asked = with(&vault)?;
        ensure!(is_unauthorized(&asked), "{asked}");
        let made = one.kubectl("create token reader --duration=10m")?.ok()?;
        let own = inside("reader", "cat /var/run/secrets/kubernetes.io/serviceaccount/token")?.ok()?;
        ensure!(with(&made)?.success() && with(&own)?.success(), "both are the ServiceAccount's");
        // One that does not expire, for a program outside, in a Secret: with the certificate by which it knows the API.
        one.apply(LONG_LIVED)?;
        let entry = |entry: &str| {
            let path = format!(
                "get secret reader-token -o 'go-template={{{{index .data \"{entry}\" | base64decode}}}}'"
            );
            bench.wait_until(SOON, "the Secret's token", || {
                let held = one.kubectl(&path)?;
                Ok(Some(held.stdout.clone()).filter(|text| held.success() && !text.contains("no value")))
            })
        };
        let (long_lived, certificate) = (entry("token")?, entry("ca.crt")?);
        ensure!(certificate.contains("BEGIN CERTIFICATE"), "{certificate}");
        let who = one.kubectl(&format!("--token '{}' auth whoami", long_lived.trim()))?.ok()?;
        ensure!(who.contains("system:serviceaccount:default:reader"), "{who}");
        // Gone with what they are bound to.
        one.kubectl("delete pod reader --grace-period=0")?.ok()?;
        ensure!(is_unauthorized(&with(&own)?), "its pod is gone");
        ensure!(with(&made)?.success());
        one.kubectl("delete serviceaccount reader")?.ok()?;
        ensure!(is_unauthorized(&with(&made)?), "its account is gone");
        ensure!(is_unauthorized(&with(&long_lived)?), "its account is gone");
        bench.wait_until(SOON, "the Secret to go with its account", || {
            Ok((!one.kubectl("get secret reader-token")?.success()).then_some(()))
        })?;
        // Every namespace has what its pods need.
        one.kubectl("create namespace new")?.ok()?;
        bench.wait_until(SOON, "the account and the certificate of a new namespace", || {
            let there = one.kubectl("get -n new serviceaccount/default configmap/kube-root-ca.crt")?;
            Ok(there.success().then_some(()))
        })?;
        Ok(())
    });
}
