//! `gaggle kubeconfig`: what kubectl and every other Kubernetes client need to reach the cluster, as its administrator
//! or as a user with a role.

use super::Place;
use super::connection::{Connection, JSON, RequestError, kubeconfig_file, read_kubeconfig};
use super::target::parse_duration;
use anyhow::{Context, bail, ensure};
use axum::http::{Method, Uri};
use serde_json::json;
use serde_yaml_ng::{Mapping, Value};
use std::io::Write;
use std::time::Duration;

/// Print a kubeconfig for kubectl and other clients
///
/// Without --user it holds a token with all rights in the cluster: keep it as you keep the phrase. With --user it is
/// for somebody who may what the role says, everywhere or in one namespace, and for so long; every desktop takes it.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct KubeconfigArgs {
    /// Reach the API there instead of on this desktop; every desktop of the cluster serves it
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// For this user instead of the administrator
    #[arg(long, value_name = "NAME", conflicts_with = "revoke")]
    user: Option<String>,
    /// What the user may, beside what roles give already: view, edit, admin, cluster-admin or another ClusterRole
    #[arg(long, value_name = "ROLE", requires = "user")]
    role: Option<String>,
    /// Where the user may it [default: everywhere]
    #[arg(short = 'n', long, value_name = "NAMESPACE", requires = "role")]
    namespace: Option<String>,
    /// For how long, such as 30m, 8h or 720h; a year at most
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration, requires = "user", default_value = "8h")]
    lifetime: Duration,
    /// Take back every kubeconfig that the user has, and the roles that came with them
    #[arg(long, value_name = "NAME", conflicts_with_all = ["server"])]
    revoke: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  gaggle kubeconfig > ~/.kube/gaggle && chmod 600 ~/.kube/gaggle
  KUBECONFIG=~/.kube/gaggle kubectl get nodes
  gaggle kubeconfig --server pc7.lab.example > laptop.kubeconfig     for a laptop that is no node
  gaggle kubeconfig --user ann --role view --for 8h > ann.kubeconfig
  gaggle kubeconfig --user ben --role edit -n physics --for 720h --server pc7 > ben.kubeconfig
  gaggle kubeconfig --revoke ann";

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
/// On bindings that were made here: whose they are.
const USER_ANNOTATION: &str = "gaggle.dev/user";

pub async fn run(place: &Place, args: KubeconfigArgs) -> anyhow::Result<()> {
    if let Some(user) = &args.revoke {
        return revoke(&Connection::open(place).await?, user).await;
    }
    let file = kubeconfig_file(place)?;
    let text = read_kubeconfig(place, &file)?;
    let mut config: Value =
        serde_yaml_ng::from_str(&text).with_context(|| format!("{} is no kubeconfig", file.display()))?;
    if let Some(server) = &args.server {
        set_server(&mut config, server).with_context(|| file.display().to_string())?;
    }
    if let Some(user) = &args.user {
        let connection = Connection::open(place).await?;
        let token = token(&connection, user, &args).await?;
        set_user(&mut config, user, &token, args.namespace.as_deref())
            .with_context(|| file.display().to_string())?;
    }
    // Untouched, it is printed as it is.
    let text = match args.server.is_some() || args.user.is_some() {
        true => serde_yaml_ng::to_string(&config)?,
        false => text,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Gives a user the role that is asked for, and has a token signed.
async fn token(connection: &Connection, user: &str, args: &KubeconfigArgs) -> anyhow::Result<String> {
    // Signed first: a name that is none, or a time that is none, changes nothing.
    let asked = json!({"name": user, "seconds": args.lifetime.as_secs()});
    let issued = connection.write(Method::POST, "/gaggle/v1/users", JSON, &asked).await?;
    let token = issued["token"].as_str().context("the daemon's answer has no token")?;
    if let Some(role) = &args.role {
        bind(connection, user, role, args.namespace.as_deref()).await?;
    }
    Ok(token.to_owned())
}

async fn bind(
    connection: &Connection,
    user: &str,
    role: &str,
    namespace: Option<&str>,
) -> anyhow::Result<()> {
    ensure!(is_segment(role), "--role {role}: this cannot be the name of a ClusterRole");
    match connection.get(&format!("{RBAC}/clusterroles/{role}"), JSON).await {
        Ok(_) => {}
        Err(RequestError::Refused(status)) if status.code == 404 => {
            bail!(
                "--role {role}: there is no such ClusterRole; view, edit, admin and cluster-admin are always there"
            )
        }
        Err(error) => return Err(error.into()),
    }
    let path = match namespace {
        Some(namespace) => {
            ensure!(is_segment(namespace), "--namespace {namespace}: this cannot be a namespace's name");
            format!("{RBAC}/namespaces/{namespace}/rolebindings")
        }
        None => format!("{RBAC}/clusterrolebindings"),
    };
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": {"name": format!("gaggle-user:{user}:{role}"), "annotations": {USER_ANNOTATION: user}},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    match connection.write(Method::POST, &path, JSON, &binding).await {
        Ok(_) => Ok(()),
        // He has it already.
        Err(RequestError::Refused(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn revoke(connection: &Connection, user: &str) -> anyhow::Result<()> {
    connection.write(Method::POST, "/gaggle/v1/revocations", JSON, &json!({"name": user})).await?;
    super::say(&format!("no kubeconfig that {user} had until now is taken any more"));
    for plural in ["clusterrolebindings", "rolebindings"] {
        let list = connection.get(&format!("{RBAC}/{plural}"), JSON).await?;
        for binding in list["items"].as_array().into_iter().flatten() {
            let metadata = &binding["metadata"];
            if metadata["annotations"][USER_ANNOTATION].as_str() != Some(user) {
                continue;
            }
            let name = metadata["name"].as_str().unwrap_or_default();
            let (path, at) = match metadata["namespace"].as_str() {
                Some(namespace) => (
                    format!("{RBAC}/namespaces/{namespace}/{plural}/{name}"),
                    format!(" in the namespace {namespace}"),
                ),
                None => (format!("{RBAC}/{plural}/{name}"), String::new()),
            };
            match connection.write(Method::DELETE, &path, JSON, &json!({})).await {
                Ok(_) => {}
                Err(RequestError::Refused(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
            let role = binding["roleRef"]["name"].as_str().unwrap_or_default();
            super::say(&format!("{user} has the role {role} no more{at}"));
        }
    }
    Ok(())
}

/// What can stand in a path as it is.
fn is_segment(name: &str) -> bool {
    let is_written = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    !name.is_empty() && name.chars().all(is_written) && !matches!(name, "." | "..")
}

/// The same kubeconfig for a user with a token.
fn set_user(config: &mut Value, user: &str, token: &str, namespace: Option<&str>) -> anyhow::Result<()> {
    let named = |name: &str| Value::String(name.to_owned());
    let map = |pairs: Vec<(&str, Value)>| {
        Value::Mapping(pairs.into_iter().map(|(key, value)| (named(key), value)).collect::<Mapping>())
    };
    let credentials = map(vec![("token", named(token))]);
    config["users"] = Value::Sequence(vec![map(vec![("name", named(user)), ("user", credentials)])]);
    let contexts = config.get_mut("contexts").and_then(Value::as_sequence_mut);
    for context in contexts.context("it has no contexts")? {
        context["context"]["user"] = named(user);
        if let Some(namespace) = namespace {
            context["context"]["namespace"] = named(namespace);
        }
    }
    Ok(())
}

/// The same kubeconfig for another desktop; its certificate is checked by the server name that it names, not
/// by its address.
fn set_server(config: &mut Value, server: &str) -> anyhow::Result<()> {
    const DEFAULT_PORT: u16 = crate::options::DEFAULT_API_PORT;
    let bare = server.strip_prefix("https://").unwrap_or(server).trim_end_matches('/');
    let parsed = format!("https://{bare}").parse::<Uri>();
    let parsed = parsed.with_context(|| format!("--server {server}: write HOST or HOST:PORT"))?;
    ensure!(parsed.path() == "/" && parsed.query().is_none(), "--server {server}: write HOST or HOST:PORT");
    let host = parsed.host().with_context(|| format!("--server {server} names no host"))?;
    let url = format!("https://{host}:{}", parsed.port_u16().unwrap_or(DEFAULT_PORT));
    let clusters = config.get_mut("clusters").and_then(Value::as_sequence_mut);
    for cluster in clusters.context("it lists no clusters")? {
        cluster["cluster"]["server"] = Value::String(url.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "clusters:\n- name: gaggle\n  cluster:\n    server: https://127.0.0.1:6443\n    \
                        tls-server-name: gaggle\n";

    fn with_server(text: &str, server: &str) -> anyhow::Result<String> {
        let mut config = serde_yaml_ng::from_str(text)?;
        set_server(&mut config, server)?;
        Ok(serde_yaml_ng::to_string(&config)?)
    }

    #[test]
    fn a_users_kubeconfig_holds_nothing_of_the_administrators() {
        let admin = "users:\n- name: root\n  user:\n    token: secret\ncontexts:\n- name: gaggle\n  context:\n    \
                     cluster: c\n    user: root\n";
        let mut config = serde_yaml_ng::from_str(admin).unwrap();
        set_user(&mut config, "ann", "t", Some("physics")).unwrap();
        let text = serde_yaml_ng::to_string(&config).unwrap();
        assert!(!text.contains("secret") && !text.contains("root"), "{text}");
        assert!(
            text.contains("token: t") && text.contains("user: ann") && text.contains("namespace: physics")
        );
    }

    #[test]
    fn another_server_replaces_the_address_only() {
        for (server, url) in [
            ("pc7", "https://pc7:6443"),
            ("10.0.0.7:7443", "https://10.0.0.7:7443"),
            ("https://pc7/", "https://pc7:6443"),
            ("[fd00::7]", "https://[fd00::7]:6443"),
        ] {
            let text = with_server(FILE, server).unwrap();
            assert!(text.contains(url) && text.contains("tls-server-name: gaggle"), "{text}");
        }
        for server in ["", "a b", "pc7/path", "pc7?x"] {
            assert!(with_server(FILE, server).is_err(), "{server:?} was taken");
        }
        assert!(with_server("{}", "pc7").is_err());
    }
}
