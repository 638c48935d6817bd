//! What is asked for: the pod, the container and the streams, checked before any protocol is changed.

use crate::api::query::Query;
use crate::api::status::ApiError;
use crate::api::target::Target;
use crate::api::value::{items, text};
use crate::pods::{PodRef, ProcessOptions, Stdio};
use serde_json::Value;

/// Ports in one request; each takes two channels of a WebSocket, which are numbered by a byte.
const PORTS: usize = 64;

/// The pod, named for the desktop that runs it.
pub fn pod_ref(target: &Target, pod: &Value) -> Result<PodRef, ApiError> {
    let node = text(pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    Ok(PodRef {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: text(pod, "/metadata/uid").to_owned(),
        node: node.to_owned(),
    })
}

/// The container that a pod says is meant where none is named.
const DEFAULT_CONTAINER: &str = "/metadata/annotations/kubectl.kubernetes.io~1default-container";

/// All containers of a pod, whatever their part in it.
fn declared(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["/spec/initContainers", "/spec/containers", "/spec/ephemeralContainers"];
    lists.into_iter().flat_map(|list| items(pod, list))
}

/// The container that is meant; with none named, the pod's default, or the only one.
pub fn container<'a>(query: &'a Query, pod: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    let containers: Vec<&str> = declared(pod).map(|container| text(container, "/name")).collect();
    let named = match query.text("container") {
        // One that the pod does not have is no default.
        "" => Some(text(pod, DEFAULT_CONTAINER)).filter(|name| containers.contains(name)).unwrap_or_default(),
        named => named,
    };
    match named {
        "" if items(pod, "/spec/containers").len() > 1 => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            containers.join(" ")
        ))),
        "" => Ok(text(pod, "/spec/containers/0/name")),
        wanted if !containers.contains(&wanted) => {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}")))
        }
        wanted => Ok(wanted),
    }
}

/// A command to run in a container, and the streams that the client opens.
pub fn exec(query: &Query, pod: &Value, name: &str) -> Result<(ProcessOptions, Stdio), ApiError> {
    let container = container(query, pod, name)?.to_owned();
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let asked = stdio(query)?;
    Ok((ProcessOptions { container, command: Some(command), stdio: asked }, asked))
}

/// A container's own process, and the streams that the client opens.
pub fn attach(query: &Query, pod: &Value, name: &str) -> Result<(ProcessOptions, Stdio), ApiError> {
    let container = container(query, pod, name)?.to_owned();
    let asked = stdio(query)?;
    let declared = declared(pod).find(|declared| text(declared, "/name") == container);
    let has = |field: &str| declared.and_then(|one| one.get(field)).and_then(Value::as_bool) == Some(true);
    if asked.tty && !has("tty") {
        let message = format!("container {container} of pod {name} has no terminal: attach without a TTY");
        return Err(ApiError::bad_request(message));
    }
    // Kubernetes lets clients type also where nobody reads it. Whether there is a terminal was decided when the
    // container was made.
    let stdio = Stdio { stdin: asked.stdin && has("stdin"), tty: has("tty"), ..asked };
    Ok((ProcessOptions { container, command: None, stdio }, asked))
}

fn stdio(query: &Query) -> Result<Stdio, ApiError> {
    let [stdin, stdout, stderr, tty] = ["stdin", "stdout", "stderr", "tty"].map(|name| query.flag(name));
    // A terminal has one output: Kubernetes ignores that stderr is asked for beside it.
    let (tty, stderr) = (tty?, stderr?);
    let stdio = Stdio { stdin: stdin?, stdout: stdout?, stderr: stderr && !tty, tty };
    if !stdio.stdin && !stdio.stdout && !stdio.stderr {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(stdio)
}

/// The ports that are asked for beforehand, as clients of the older protocol do.
pub fn ports(query: &Query) -> Result<Vec<u16>, ApiError> {
    let words: Vec<&str> =
        query.all("ports").flat_map(|list| list.split(',')).filter(|word| !word.is_empty()).collect();
    if words.len() > PORTS {
        return Err(ApiError::bad_request(format!("more than {PORTS} ports")));
    }
    words.into_iter().map(port).collect()
}

/// One port, as a query or a header names it.
pub fn port(word: &str) -> Result<u16, ApiError> {
    let wrong = || ApiError::bad_request(format!("port {word:?} is not a number between 1 and 65535"));
    word.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn with_no_container_named_the_pods_default_is_meant() {
        let pod = |default: &str| {
            json!({
                "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": default}},
                "spec": {"containers": [{"name": "proxy"}, {"name": "app"}]},
            })
        };
        let of = |query: &str, pod: &Value| {
            let query = Query::of(&format!("/x?{query}").parse().unwrap()).unwrap();
            container(&query, pod, "web")
                .map(str::to_owned)
                .map_err(|error| error.to_status()["message"].clone())
        };
        assert_eq!(of("", &pod("app")), Ok("app".to_owned()));
        assert_eq!(of("container=proxy", &pod("app")), Ok("proxy".to_owned()));
        let which = json!("a container name must be specified for pod web, choose one of: [proxy app]");
        assert_eq!(of("", &pod("gone")), Err(which.clone()));
        assert_eq!(of("", &json!({"spec": pod("")["spec"]})), Err(which));
    }
}
