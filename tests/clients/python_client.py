"""What programs do with the Python client `kubernetes`: python_client.py KUBECONFIG

Lists by pages, watches that go on where they ended, a loop as informers run it, server-side apply with conflicts, and
streams into a pod. It prints the name of each part when that is done, and fails with the first thing that is not as it
should be.
"""

import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.stream import portforward, stream

DEADLINE_S = 60


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def until(what, look):
    """Looks until it is there."""
    end = time.monotonic() + DEADLINE_S
    while not (found := look()):
        check(time.monotonic() < end, f"gave up waiting for {what}")
        time.sleep(0.1)
    return found


def fails(code, action):
    """The refusal of an action that must be refused with this code."""
    try:
        action()
    except client.ApiException as error:
        check(error.status == code, f"{error.status} instead of {code}: {error.body}")
        return error
    raise AssertionError(f"it was not refused with {code}")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"of": "python"}), data=data)


def lists(core):
    for index in range(5):
        core.create_namespaced_config_map("default", config_map(f"page-{index}", index=str(index)))
    names, token = [], None
    while True:
        page = core.list_namespaced_config_map("default", label_selector="of=python", limit=2, _continue=token)
        check(len(page.items) <= 2, "a page is larger than its limit")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    check(names == [f"page-{index}" for index in range(5)], names)
    one = core.list_namespaced_config_map("default", field_selector="metadata.name=page-3")
    check([item.data for item in one.items] == [{"index": "3"}], one)
    fails(409, lambda: core.create_namespaced_config_map("default", config_map("page-0")))
    fails(404, lambda: core.read_namespaced_config_map("none", "default"))
    stale = core.read_namespaced_config_map("page-0", "default")
    core.patch_namespaced_config_map("page-0", "default", {"data": {"more": "1"}})
    fails(409, lambda: core.replace_namespaced_config_map("page-0", "default", stale))


def watches(core):
    """A watch that ended goes on from what it saw last, without a gap and without a repetition."""
    begun = core.list_namespaced_config_map("default", label_selector="of=python")
    seen, revision = [], begun.metadata.resource_version

    def follow(count):
        nonlocal revision
        following = watch.Watch()
        events = following.stream(
            core.list_namespaced_config_map, "default", label_selector="of=python",
            resource_version=revision, allow_watch_bookmarks=True, timeout_seconds=DEADLINE_S)
        for event in events:
            revision = event["object"].metadata.resource_version
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == count:
                following.stop()

    core.create_namespaced_config_map("default", config_map("watched", a="1"))
    core.patch_namespaced_config_map("watched", "default", {"data": {"a": "2"}})
    follow(2)
    core.delete_namespaced_config_map("watched", "default")
    core.create_namespaced_config_map("default", config_map("watched", a="3"))
    follow(4)
    expected = [(kind, "watched") for kind in ("ADDED", "MODIFIED", "DELETED", "ADDED")]
    check(seen == expected, seen)
    # The server ends a watch when its time is over.
    start = time.monotonic()
    ended = list(watch.Watch().stream(core.list_namespaced_config_map, "default", label_selector="of=nobody",
                                      timeout_seconds=1))
    check(ended == [] and time.monotonic() - start < 10, ended)


def informs(core):
    """List, watch, list again when the revision is too old: what every controller does."""
    known, stop = {}, threading.Event()

    def run():
        revision = "1"
        while not stop.is_set():
            try:
                for event in watch.Watch().stream(core.list_namespaced_config_map, "default",
                                                  label_selector="of=python", resource_version=revision,
                                                  timeout_seconds=2):
                    changed = event["object"]
                    revision = changed.metadata.resource_version
                    if event["type"] == "DELETED":
                        known.pop(changed.metadata.name, None)
                    else:
                        known[changed.metadata.name] = changed.data
            except client.ApiException as error:
                check(error.status == 410, error)
                listed = core.list_namespaced_config_map("default", label_selector="of=python")
                known.clear()
                known.update({item.metadata.name: item.data for item in listed.items})
                revision = listed.metadata.resource_version

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until("the cache to be filled", lambda: "page-4" in known and "watched" in known)
    core.delete_namespaced_config_map("page-4", "default")
    core.patch_namespaced_config_map("page-3", "default", {"data": {"index": "three"}})
    until("the cache to follow", lambda: "page-4" not in known and known.get("page-3") == {"index": "three"})
    stop.set()
    thread.join(DEADLINE_S)
    core.delete_collection_namespaced_config_map("default", label_selector="of=python")
    check(core.list_namespaced_config_map("default", label_selector="of=python").items == [], "some are left")


def applies(api):
    """Server-side apply: fields have managers, who are told when another one wants theirs."""
    deployments = dynamic.DynamicClient(api).resources.get(api_version="apps/v1", kind="Deployment")

    def wish(replicas, **more):
        spec = {"selector": {"matchLabels": {"app": "py"}}, "template": {
            "metadata": {"labels": {"app": "py"}},
            "spec": {"containers": [{"name": "main", "image": "busybox", "command": ["sleep", "1"]}]}}}
        spec |= {"replicas": replicas} if replicas is not None else {}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py", **more}, "spec": spec}

    def apply(body, manager, force=False):
        return deployments.server_side_apply(body=body, name="py", namespace="default", field_manager=manager,
                                             force_conflicts=force)

    check(apply(wish(0), "one").spec.replicas == 0, "it was not made")
    check(apply(wish(0, labels={"a": "b"}), "one").metadata.labels.a == "b", "it was not changed")
    fails(409, lambda: apply({**wish(0), "spec": {"replicas": 3}}, "two"))
    taken = apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py"}, "spec": {"replicas": 2}},
                  "two", force=True)
    check(taken.spec.replicas == 2, taken)
    kept = apply(wish(None), "one")
    check(kept.spec.replicas == 2 and "labels" not in kept.metadata.to_dict(), kept)
    managers = sorted(entry.manager for entry in kept.metadata.managedFields if entry.operation == "Apply")
    check(managers == ["one", "two"], managers)
    deployments.delete(name="py", namespace="default")


def streams(core):
    """exec, logs and port-forward."""
    core.create_namespaced_pod("default", {
        "metadata": {"name": "py", "labels": {"of": "python"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "mkdir /www; echo page > /www/index.html; echo ready; httpd -f -p 8080 -h /www"]}]}})
    until("the pod to run", lambda: core.read_namespaced_pod("py", "default").status.phase == "Running")
    until("its log", lambda: core.read_namespaced_pod_log("py", "default") == "ready\n")
    followed = watch.Watch()
    for line in followed.stream(core.read_namespaced_pod_log, "py", "default"):
        check(line == "ready", line)
        followed.stop()
    said = stream(core.connect_get_namespaced_pod_exec, "py", "default", command=["sh", "-c", "echo out; hostname"],
                  stdout=True, stderr=True, stdin=False, tty=False)
    check(said == "out\npy\n", repr(said))
    talk = stream(core.connect_get_namespaced_pod_exec, "py", "default", command=["sh"], stdin=True, stdout=True,
                  stderr=True, tty=False, _preload_content=False)
    talk.write_stdin("echo typed; echo wrong >&2; exit 7\n")
    talk.run_forever(timeout=DEADLINE_S)
    check((talk.read_stdout(), talk.read_stderr()) == ("typed\n", "wrong\n"), "something else came back")
    check(talk.returncode == 7, talk.returncode)
    forward = portforward(core.connect_get_namespaced_pod_portforward, "py", "default", ports="8080")
    port = forward.socket(8080)
    port.setblocking(True)
    port.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
    answer = b""
    while part := port.recv(4096):
        answer += part
    check(answer.startswith(b"HTTP/1.") and answer.endswith(b"page\n"), answer)
    check(forward.error(8080) is None, forward.error(8080))
    core.delete_namespaced_pod("py", "default")


def main():
    config.load_kube_config(sys.argv[1])
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    version = client.VersionApi(api).get_code()
    check((version.major, version.minor) == ("1", "32"), version)
    for part, of in ((lists, core), (watches, core), (informs, core), (applies, api), (streams, core)):
        if len(sys.argv) < 3 or part.__name__ in sys.argv[2:]:
            part(of)
            print(part.__name__, flush=True)


if __name__ == "__main__":
    main()
