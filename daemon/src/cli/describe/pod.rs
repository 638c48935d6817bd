//! A pod, and the pod templates of what makes pods.

use super::super::table::{labels_text, text};
use super::page::{Page, map_lines};
use serde_json::Value;

pub fn describe(page: &mut Page, pod: &Value) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    page.metadata(pod);
    let node = text(&spec["nodeName"]);
    let address = text(&status["hostIP"]);
    page.pair(
        0,
        "Node",
        match (node.as_str(), address.as_str()) {
            ("", _) => "<none>".to_owned(),
            (node, "") => node.to_owned(),
            (node, address) => format!("{node}/{address}"),
        },
    );
    page.some(0, "Start Time", &status["startTime"]);
    let deleted = &pod["metadata"]["deletionTimestamp"];
    if deleted.is_string() {
        page.pair(0, "Status", format!("Terminating since {}", text(deleted)));
    } else {
        page.some(0, "Status", &status["phase"]);
    }
    page.some(0, "Reason", &status["reason"]);
    page.some(0, "Message", &status["message"]);
    if let Some(why) = waits_for(status) {
        page.pair(0, "Waits for", why);
    }
    page.pair(
        0,
        "IP",
        match text(&status["podIP"]) {
            ip if ip.is_empty() => "<none>".to_owned(),
            ip => ip,
        },
    );
    controlled_by(page, pod);
    containers(page, 0, "Init Containers", &spec["initContainers"], &status["initContainerStatuses"]);
    containers(page, 0, "Containers", &spec["containers"], &status["containerStatuses"]);
    let (added, of_added) = (&spec["ephemeralContainers"], &status["ephemeralContainerStatuses"]);
    containers(page, 0, "Ephemeral Containers", added, of_added);
    page.conditions(&status["conditions"]);
    volumes(page, 0, &spec["volumes"]);
    placement(page, spec);
}

/// Why a pending pod has no node, in the scheduler's words.
fn waits_for(status: &Value) -> Option<String> {
    let unscheduled = status["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False")?;
    let said = [text(&unscheduled["reason"]), text(&unscheduled["message"])];
    Some(said.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
}

pub fn controlled_by(page: &mut Page, object: &Value) {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    for owner in owners.filter(|owner| owner["controller"] == true) {
        page.pair(0, "Controlled By", format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
    }
}

/// The template that pods are made from.
pub fn template(page: &mut Page, template: &Value) {
    page.head(0, "Pod Template");
    page.lines(1, "Labels", map_lines(&template["metadata"]["labels"], "="));
    let annotations = map_lines(&template["metadata"]["annotations"], ": ");
    if !annotations.is_empty() {
        page.lines(1, "Annotations", annotations);
    }
    let none = Value::Null;
    containers(page, 1, "Init Containers", &template["spec"]["initContainers"], &none);
    containers(page, 1, "Containers", &template["spec"]["containers"], &none);
    volumes(page, 1, &template["spec"]["volumes"]);
}

fn containers(page: &mut Page, level: usize, title: &str, containers: &Value, statuses: &Value) {
    let Some(containers) = containers.as_array().filter(|containers| !containers.is_empty()) else { return };
    page.head(level, title);
    for container in containers {
        page.head(level + 1, &text(&container["name"]));
        let level = level + 2;
        let of_it = |status: &&Value| status["name"] == container["name"];
        let status = statuses.as_array().and_then(|statuses| statuses.iter().find(of_it));
        page.some(level, "Container ID", status.map_or(&Value::Null, |status| &status["containerID"]));
        page.some(level, "Image", &container["image"]);
        ports(page, level, &container["ports"]);
        for (key, words) in [("Command", &container["command"]), ("Args", &container["args"])] {
            if let Some(words) = words.as_array().filter(|words| !words.is_empty()) {
                page.lines(level, key, words.iter().map(text));
            }
        }
        if let Some(status) = status {
            state(page, level, "State", &status["state"]);
            if status["lastState"].as_object().is_some_and(|state| !state.is_empty()) {
                state(page, level, "Last State", &status["lastState"]);
            }
            page.pair(level, "Ready", if status["ready"] == true { "True" } else { "False" });
            page.pair(level, "Restart Count", status["restartCount"].as_i64().unwrap_or(0).to_string());
        }
        for (key, amounts) in [("Limits", "limits"), ("Requests", "requests")] {
            let amounts = map_lines(&container["resources"][amounts], ": ");
            if !amounts.is_empty() {
                page.lines(level, key, amounts);
            }
        }
        page.lines(level, "Environment", environment(container));
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        page.lines(
            level,
            "Mounts",
            mounts.map(|mount| {
                let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
                format!("{} from {} ({mode})", text(&mount["mountPath"]), text(&mount["name"]))
            }),
        );
    }
}

fn ports(page: &mut Page, level: usize, ports: &Value) {
    let Some(ports) = ports.as_array().filter(|ports| !ports.is_empty()) else { return };
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = text(&port["containerPort"]);
        match port["hostPort"].as_u64() {
            Some(host) => format!("{number}/{protocol} (on the desktop: {host})"),
            None => format!("{number}/{protocol}"),
        }
    };
    page.pair(level, "Ports", ports.iter().map(port).collect::<Vec<_>>().join(", "));
}

fn state(page: &mut Page, level: usize, key: &str, state: &Value) {
    let Some((kind, detail)) = state.as_object().and_then(|state| state.iter().next()) else {
        page.pair(level, key, "Waiting");
        return;
    };
    let name = match kind.as_str() {
        "running" => "Running",
        "terminated" => "Terminated",
        _ => "Waiting",
    };
    page.pair(level, key, name);
    let fields = [
        ("Reason", "reason"),
        ("Message", "message"),
        ("Exit Code", "exitCode"),
        ("Signal", "signal"),
        ("Started", "startedAt"),
        ("Finished", "finishedAt"),
    ];
    for (key, field) in fields {
        page.some(level + 1, key, &detail[field]);
    }
}

fn environment(container: &Value) -> Vec<String> {
    let sources = container["envFrom"].as_array().into_iter().flatten().map(|source| {
        let prefix = text(&source["prefix"]);
        let all = ["configMapRef", "secretRef"].into_iter().find(|kind| source[*kind].is_object());
        let kind = all.unwrap_or("unknown");
        format!("{prefix}* from {} {}", kind.trim_end_matches("Ref"), text(&source[kind]["name"]))
    });
    let single = container["env"].as_array().into_iter().flatten().map(|variable| {
        let name = text(&variable["name"]);
        let from = &variable["valueFrom"];
        let Some((kind, source)) = from.as_object().and_then(|from| from.iter().next()) else {
            return format!("{name}={}", text(&variable["value"]));
        };
        match kind.as_str() {
            "fieldRef" => format!("{name} from the pod's {}", text(&source["fieldPath"])),
            "resourceFieldRef" => format!("{name} from the container's {}", text(&source["resource"])),
            kind => {
                let kind = kind.trim_end_matches("KeyRef");
                format!("{name} from key {} of {kind} {}", text(&source["key"]), text(&source["name"]))
            }
        }
    });
    sources.chain(single).collect()
}

fn volumes(page: &mut Page, level: usize, volumes: &Value) {
    let Some(volumes) = volumes.as_array().filter(|volumes| !volumes.is_empty()) else { return };
    page.head(level, "Volumes");
    for volume in volumes {
        let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
        let (kind, detail) =
            source.map_or(("emptyDir", Value::Null), |(kind, detail)| (kind, detail.clone()));
        page.pair(
            level + 1,
            &text(&volume["name"]),
            match map_lines(&detail, "=") {
                fields if fields.is_empty() => kind.to_owned(),
                fields => format!("{kind} ({})", fields.join(", ")),
            },
        );
    }
}

fn placement(page: &mut Page, spec: &Value) {
    page.pair(0, "Node-Selectors", labels_text(&spec["nodeSelector"]));
    let tolerations = spec["tolerations"].as_array().into_iter().flatten();
    page.lines(
        0,
        "Tolerations",
        tolerations.map(|toleration| {
            let key = match text(&toleration["key"]) {
                key if key.is_empty() => "every taint".to_owned(),
                key => key,
            };
            let value = match text(&toleration["value"]) {
                value if value.is_empty() => String::new(),
                value => format!("={value}"),
            };
            let effect = match text(&toleration["effect"]) {
                effect if effect.is_empty() => String::new(),
                effect => format!(":{effect}"),
            };
            let time = toleration["tolerationSeconds"].as_i64().map(|seconds| format!(" for {seconds}s"));
            format!("{key}{value}{effect}{}", time.unwrap_or_default())
        }),
    );
}
