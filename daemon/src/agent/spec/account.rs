//! What a pod's program needs to speak with the API: where it is, who it is, and how it knows it.
//! (Kubernetes, "Configure Service Accounts for Pods" and "Accessing the Kubernetes API from a Pod".)

use super::volumes::{Content, File, Source, Volume};
use super::{Context, SpecError};
use crate::agent::engine::Mount;
use crate::tokens::{Account, BoundTo};
use gaggle_sched::controller::serviceaccount::DEFAULT;
use k8s_openapi::api::core::v1::{Container, Pod, ServiceAccount};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where programs look for it.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// No volume of a pod can be called so.
const VOLUME: &str = ".kube-api-access";
const MODE: u32 = 0o644;
/// How long a token is good for whose pod does not say; it is replaced long before.
const LIFETIME_S: u32 = 3607;
/// What a pod may ask for: a shorter one would be replaced all the time, and a longer one outlives most mistakes.
const SHORTEST_S: u32 = 600;
const LONGEST_S: u32 = 366 * 24 * 3600;
/// The names under which the API's certificate can be checked from inside a pod.
const NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// This desktop's API, for the pods on it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiPlace {
    pub listens: SocketAddr,
    pub authority_pem: Arc<str>,
}

/// A token that is wanted; whoever writes it down has it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWish {
    pub account: Account,
    pub audiences: Vec<String>,
    pub seconds: u32,
}

/// The address of the API as the pod reaches it; `None` where it does not.
pub fn address(context: &Context) -> Option<SocketAddr> {
    let ApiPlace { listens, .. } = context.desktop.api.as_ref()?;
    let own_network = context.pod.spec.as_ref().is_none_or(|spec| spec.host_network != Some(true));
    let ip = match listens.ip() {
        ip if ip.is_unspecified() && own_network => context.desktop.gateway?,
        ip if ip.is_unspecified() => [127, 0, 0, 1].into(),
        // An API that its owner keeps on the desktop's loopback is not for what has a network of its own.
        ip if ip.is_loopback() && own_network => return None,
        ip => ip,
    };
    Some(SocketAddr::new(ip, listens.port()))
}

/// The variables by which programs find the API.
pub fn variables(context: &Context) -> Vec<(String, String)> {
    let Some(address) = address(context) else { return Vec::new() };
    let (host, port) = (address.ip().to_string(), address.port());
    let own = |name: &str, value: String| (name.to_owned(), value);
    vec![
        own("KUBERNETES_SERVICE_HOST", host.clone()),
        own("KUBERNETES_SERVICE_PORT", port.to_string()),
        own("KUBERNETES_SERVICE_PORT_HTTPS", port.to_string()),
        own("KUBERNETES_PORT", format!("tcp://{address}")),
        (format!("KUBERNETES_PORT_{port}_TCP"), format!("tcp://{address}")),
        (format!("KUBERNETES_PORT_{port}_TCP_PROTO"), "tcp".to_owned()),
        (format!("KUBERNETES_PORT_{port}_TCP_PORT"), port.to_string()),
        (format!("KUBERNETES_PORT_{port}_TCP_ADDR"), host),
    ]
}

/// `NAME:ADDRESS` for the names of the API.
pub fn hosts(context: &Context) -> Vec<String> {
    let ip = address(context).map(|address| address.ip());
    ip.into_iter().flat_map(|ip| NAMES.map(|name| format!("{name}:{ip}"))).collect()
}

/// The ServiceAccount of a pod.
pub fn account_name(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    let named =
        spec.and_then(|spec| spec.service_account_name.as_deref().or(spec.service_account.as_deref()));
    named.filter(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

fn account(context: &Context) -> Option<Arc<ServiceAccount>> {
    context.store.get_as::<ServiceAccount>(context.namespace(), account_name(context.pod))
}

/// A token for the pod, as a file of a volume.
pub fn token_file(
    context: &Context,
    path: PathBuf,
    audience: Option<&str>,
    seconds: Option<i64>,
    mode: u32,
) -> Result<File, SpecError> {
    let name = account_name(context.pod);
    let missing = || SpecError::Missing { kind: "serviceaccount", name: name.to_owned() };
    let account = account(context).ok_or_else(missing)?;
    let id = &context.pod.metadata;
    let bound = BoundTo {
        kind: "Pod".to_owned(),
        name: id.name.clone().unwrap_or_default(),
        uid: id.uid.clone().unwrap_or_default(),
    };
    let wish = TokenWish {
        account: Account {
            namespace: context.namespace().to_owned(),
            name: name.to_owned(),
            uid: account.metadata.uid.clone().unwrap_or_default(),
            bound: Some(bound),
        },
        audiences: audience.filter(|audience| !audience.is_empty()).map(str::to_owned).into_iter().collect(),
        seconds: seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(LIFETIME_S)
            .clamp(SHORTEST_S, LONGEST_S),
    };
    Ok(File { path, content: Content::Token(wish), mode })
}

/// The volume that every container has which does not say otherwise.
pub fn volume(context: &Context) -> Result<Option<Volume>, SpecError> {
    let Some(api) = &context.desktop.api else { return Ok(None) };
    let account = account(context);
    if account.is_none() && account_name(context.pod) == DEFAULT {
        // A leader of an older version makes none.
        return Ok(None);
    }
    let of_account = account.as_ref().and_then(|account| account.automount_service_account_token);
    let of_pod = context.spec()?.automount_service_account_token;
    if of_pod.or(of_account) == Some(false) {
        return Ok(None);
    }
    let written =
        |name: &str, content: &str| File { path: name.into(), content: Content::from(content), mode: MODE };
    let files = vec![
        token_file(context, "token".into(), None, None, MODE)?,
        written("ca.crt", &api.authority_pem),
        written("namespace", context.namespace()),
    ];
    let dir = context.dir.join("volumes").join(VOLUME);
    Ok(Some(Volume { name: VOLUME.to_owned(), source: Source::Files { dir, files }, group: None }))
}

/// How a container gets it, unless something of its own is there.
pub fn mount(container: &Container, volumes: &[Volume]) -> Option<Mount> {
    let taken = container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| mount.mount_path.trim_end_matches('/') == MOUNT_PATH);
    let volume = volumes.iter().find(|volume| volume.name == VOLUME).filter(|_| !taken)?;
    let Source::Files { dir, .. } = &volume.source else { return None };
    Some(Mount::Bind {
        source: dir.to_string_lossy().into_owned(),
        target: MOUNT_PATH.to_owned(),
        read_only: true,
        propagation: None,
    })
}
