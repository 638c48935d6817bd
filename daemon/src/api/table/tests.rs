use super::duration::human;
use super::*;
use crate::api::kinds;

fn now() -> Timestamp {
    "2030-01-01T01:00:00Z".parse().unwrap()
}

fn pod_row(status: Value) -> (String, String, String) {
    let pod = json!({
        "metadata": {"name": "p", "creationTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]},
        "status": status,
    });
    let cells = pod::cells(&pod, now());
    let cell = |i: usize| cells[i].as_str().unwrap().to_owned();
    (cell(1), cell(2), cell(3))
}

#[test]
fn pod_status_names_what_matters() {
    let row = |ready: &str, status: &str, restarts: &str| (ready.into(), status.into(), restarts.into());
    assert_eq!(pod_row(json!({"phase": "Pending"})), row("0/1", "Pending", "0"));
    let running = json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "ready": true, "restartCount": 2, "state": {"running": {}},
         "lastState": {"terminated": {"finishedAt": "2030-01-01T00:55:00Z"}}}]});
    assert_eq!(pod_row(running), row("1/1", "Running", "2 (5m ago)"));
    let backing_off = json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "ready": false, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    assert_eq!(pod_row(backing_off), row("0/1", "CrashLoopBackOff", "1"));
    let done = json!({"phase": "Succeeded", "containerStatuses": [
        {"name": "a", "ready": false, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
    assert_eq!(pod_row(done), row("0/1", "Completed", "0"));
    let init =
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]});
    assert_eq!(pod_row(init), row("0/1", "Init:0/1", "0"));
    let failed = json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "i", "restartCount": 3, "state": {"terminated": {"exitCode": 2}}}]});
    assert_eq!(pod_row(failed), row("0/1", "Init:ExitCode:2", "3"));
}

#[test]
fn a_pod_that_is_deleted_is_terminating() {
    let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2030-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
    assert_eq!(pod::cells(&pod, now())[2], "Terminating");
}

#[test]
fn durations_are_short() {
    for (seconds, expected) in [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (47 * 3600, "47h"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
    ] {
        assert_eq!(human(seconds), expected, "{seconds}");
    }
}

#[test]
fn every_kind_has_a_cell_for_each_column_also_of_an_empty_object() {
    for kind in kinds::all() {
        let cells = kind.cells(&json!({}), now());
        assert_eq!(cells.len(), kind.columns.len(), "{}", kind.kind);
    }
}
