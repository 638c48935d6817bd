//! Who may: what roles and bindings allow, and what nobody may give away.

use super::client::Answer;
use super::kubectl::Kubectl;
use super::server::{Server, TOKEN, token_of};
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

impl Server {
    async fn get_as(&self, name: &str, path: &str) -> Answer {
        self.call_as(&token_of(name), "GET", path, "", Body::empty()).await
    }

    async fn post_as(&self, name: &str, path: &str, object: &Value) -> Answer {
        self.call_as(&token_of(name), "POST", path, "application/json", object.to_string()).await
    }

    /// Makes a ClusterRole of these rules, and gives it to somebody in a namespace, or everywhere where that is empty.
    async fn give(&self, name: &str, namespace: &str, rules: Value) {
        let role = format!("for-{name}-{}", rules.to_string().len());
        let object = json!({"metadata": {"name": role}, "rules": rules});
        assert_eq!(self.post(&format!("{RBAC}/clusterroles"), &object).await.code, 201);
        self.bind(name, namespace, &role).await;
    }

    async fn bind(&self, name: &str, namespace: &str, role: &str) {
        let answer = self.post(&bindings(namespace), &binding(&format!("{name}-{role}"), name, role)).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
    }
}

fn bindings(namespace: &str) -> String {
    match namespace {
        "" => format!("{RBAC}/clusterrolebindings"),
        namespace => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
    }
}

fn binding(binding: &str, name: &str, role: &str) -> Value {
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role});
    let subjects = json!([{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}]);
    json!({"metadata": {"name": binding}, "roleRef": role, "subjects": subjects})
}

fn message(answer: &Answer) -> String {
    answer.json()["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nobody_may_what_no_role_gives() {
    let server = Server::start().await;
    server.config_map("c", json!({"a": "b"})).await;
    let refused = server.get_as("ann", PODS).await;
    let why = "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \
               \"default\"";
    assert_eq!((refused.code, message(&refused).as_str()), (403, why));
    assert_eq!(refused.json()["details"], json!({"kind": "pods"}));
    // What clients need to find their way is everybody's.
    for path in ["/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v3", "/version", "/healthz"] {
        assert_eq!(server.get_as("ann", path).await.code, 200, "{path}");
    }
    for path in ["/gaggle/v1/status", "/metrics", "/apis/no.such/v1/things", "/api/v1/nodes"] {
        assert_eq!(server.get_as("ann", path).await.code, 403, "{path}");
    }

    server.bind("ann", "default", "view").await;
    for (path, code) in [
        (PODS, 200),
        ("/api/v1/namespaces/default/pods/x", 404),
        ("/api/v1/namespaces/default/pods/x/log", 404),
        ("/api/v1/namespaces/default/pods/x/exec?command=a", 403),
        ("/api/v1/namespaces/default", 200),
        ("/api/v1/namespaces/default/configmaps/c", 200),
        ("/api/v1/namespaces/default/secrets", 403),
        ("/api/v1/namespaces/kube-system/pods", 403),
        ("/api/v1/pods", 403),
    ] {
        assert_eq!(server.get_as("ann", path).await.code, code, "{path}");
    }
    let config_maps = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "d"}});
    let ann = token_of("ann");
    for (method, path) in [("POST", ""), ("DELETE", ""), ("DELETE", "/c"), ("PATCH", "/c"), ("PUT", "/c")] {
        let (path, media) = (format!("{config_maps}{path}"), "application/merge-patch+json");
        let refused = server.call_as(&ann, method, &path, media, object.to_string()).await;
        assert_eq!(refused.code, 403, "{method} {path}");
    }
    assert_eq!(server.get(&format!("{config_maps}/c")).await.code, 200, "nothing was changed");
    server.bind("ann", "default", "edit").await;
    assert_eq!(server.post_as("ann", config_maps, &object).await.code, 201);
    assert_eq!(server.get_as("ann", "/api/v1/namespaces/default/secrets").await.code, 200);
}

#[tokio::test]
async fn who_may_see_one_object_may_list_and_watch_it_alone() {
    let server = Server::start().await;
    server.config_map("a", json!({"a": "b"})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"],
        "verbs": ["get", "list", "patch"]}]);
    server.give("ann", "default", rules).await;
    let config_maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(server.get_as("ann", config_maps).await.code, 403);
    let one = server.get_as("ann", &format!("{config_maps}?fieldSelector=metadata.name%3Da")).await;
    assert_eq!((one.code, one.json()["items"].as_array().map(Vec::len)), (200, Some(1)));

    // What an apply makes anew is made, which has to be allowed, too.
    let apply = async |name: &str| {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "y"}});
        let path = format!("{config_maps}/{name}?fieldManager=ann");
        let media = "application/apply-patch+yaml";
        server.call_as(&token_of("ann"), "PATCH", &path, media, object.to_string()).await
    };
    assert_eq!(apply("a").await.code, 200);
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]);
    server.give("ann", "default", rules).await;
    let refused = apply("new").await;
    assert_eq!(refused.code, 403);
    assert!(message(&refused).contains("cannot create resource \"configmaps\""), "{}", message(&refused));
}

#[tokio::test]
async fn rights_are_handed_out_only_by_who_has_them() {
    let server = Server::start().await;
    server.bind("ann", "default", "admin").await;
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let roles = format!("{RBAC}/namespaces/default/roles");
    let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    assert_eq!(server.post_as("ann", &roles, &role("own", pods.clone())).await.code, 201);
    let quotas = json!([{"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["get", "delete"]}]);
    let refused = server.post_as("ann", &roles, &role("more", quotas.clone())).await;
    let why = "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) \
               is attempting to grant RBAC permissions not currently held:\n\
               {APIGroups:[\"\"], Resources:[\"resourcequotas\"], Verbs:[\"delete\"]}";
    assert_eq!((refused.code, message(&refused).as_str()), (403, why));
    // Nor by an edit.
    let patch = json!({"rules": quotas}).to_string();
    let media = "application/merge-patch+json";
    let own = format!("{roles}/own");
    assert_eq!(server.call_as(&token_of("ann"), "PATCH", &own, media, patch).await.code, 403);
    assert_eq!(server.get(&own).await.json()["rules"], pods);

    let give = async |name: &str, to: &str, what: &str| {
        server.post_as("ann", &bindings("default"), &binding(name, to, what)).await
    };
    assert_eq!(give("a", "ben", "view").await.code, 201);
    assert_eq!(give("b", "ben", "cluster-admin").await.code, 403);
    assert_eq!(give("c", "ben", "no-such").await.code, 404);
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "resourceNames": ["cluster-admin"], "verbs": ["bind"]}]);
    server.give("ann", "default", rules).await;
    assert_eq!(give("b", "ben", "cluster-admin").await.code, 201);
    assert_eq!(server.post_as("ann", &bindings(""), &binding("d", "ben", "view")).await.code, 403);

    // A role that is made of others holds whatever they will hold.
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "verbs": ["create", "escalate"]}]);
    let aggregated = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let cluster_roles = format!("{RBAC}/clusterroles");
    let only_create = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
        "verbs": ["create"]}]);
    server.give("ben", "", only_create).await;
    assert_eq!(server.post_as("ben", &cluster_roles, &aggregated).await.code, 403);
    server.give("ben", "", rules).await;
    assert_eq!(server.post_as("ben", &cluster_roles, &aggregated).await.code, 201);
}

#[tokio::test]
async fn acting_as_somebody_else_has_to_be_allowed() {
    let server = Server::start().await;
    let ask = async |token: &str, headers: &[(&str, &str)]| {
        let mut request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("host", "x")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        server.send(request.body(Body::from("{}")).unwrap()).await
    };
    let ben = ask(TOKEN, &[("Impersonate-User", "ben"), ("Impersonate-Group", "physics")]).await;
    let info = ben.json()["status"]["userInfo"].clone();
    assert_eq!(info, json!({"username": "ben", "groups": ["physics", "system:authenticated"]}));
    let account = ask(TOKEN, &[("Impersonate-User", "system:serviceaccount:a:bot")]).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
    assert_eq!(account.json()["status"]["userInfo"]["groups"], json!(groups));
    assert_eq!(ask(TOKEN, &[("Impersonate-Group", "physics")]).await.code, 400);

    let ann = token_of("ann");
    let refused = ask(&ann, &[("Impersonate-User", "ben")]).await;
    let why = "users \"ben\" is forbidden: User \"ann\" cannot impersonate resource \"users\" in API group \"\" at the \
               cluster scope";
    assert_eq!((refused.code, message(&refused).as_str()), (403, why));
    let rules = json!([{"apiGroups": [""], "resources": ["users"], "resourceNames": ["ben"], "verbs": ["impersonate"]}]);
    server.give("ann", "", rules).await;
    assert_eq!(ask(&ann, &[("Impersonate-User", "ben")]).await.code, 201);
    let as_master = [("Impersonate-User", "ben"), ("Impersonate-Group", "system:masters")];
    assert_eq!(ask(&ann, &as_master).await.code, 403);
    assert_eq!(ask(&ann, &[("Impersonate-User", "admin")]).await.code, 403);
}

#[tokio::test]
async fn reviews_answer_what_would_be_decided() {
    let server = Server::start().await;
    server.bind("ann", "default", "view").await;
    let about = |verb: &str, namespace: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": namespace}});
    let own = async |spec: Value| {
        let answer = server
            .post_as("ann", &format!("{REVIEWS}/selfsubjectaccessreviews"), &json!({"spec": spec}))
            .await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        answer.json()["status"]["allowed"].as_bool().unwrap()
    };
    assert!(own(about("list", "default")).await);
    assert!(!own(about("delete", "default")).await);
    assert!(!own(about("list", "")).await);
    assert!(own(json!({"nonResourceAttributes": {"verb": "get", "path": "/api/v1"}})).await);
    assert!(!own(json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}})).await);
    let rules = json!({"spec": {"namespace": "default"}});
    let rules = server.post_as("ann", &format!("{REVIEWS}/selfsubjectrulesreviews"), &rules).await.json();
    let text = rules["status"]["resourceRules"].to_string();
    assert!(text.contains("pods/log") && !text.contains("secrets"), "{text}");

    // To ask about others is another right.
    let others = format!("{REVIEWS}/subjectaccessreviews");
    let mut spec = about("list", "default");
    spec["user"] = "ann".into();
    assert_eq!(server.post_as("ann", &others, &json!({"spec": spec})).await.code, 403);
    let answer = server.post(&others, &json!({"spec": spec})).await.json();
    assert_eq!(answer["status"]["allowed"], true, "{answer}");
    assert!(
        answer["status"]["reason"].as_str().unwrap().contains("RoleBinding \"ann-view/default\""),
        "{answer}"
    );
    let local = format!("{REVIEWS}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(server.post(&local, &json!({"spec": spec})).await.json()["status"]["allowed"], true);
    spec["resourceAttributes"]["namespace"] = "kube-system".into();
    assert_eq!(server.post(&local, &json!({"spec": spec})).await.code, 400);
    for wrong in [json!({}), json!({"user": "ann"}), about("list", "default")] {
        assert_eq!(server.post(&others, &json!({"spec": wrong})).await.code, 422);
    }
}

#[tokio::test]
async fn kubectl_says_what_somebody_may() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok(&["create", "rolebinding", "a", "--clusterrole=view", "--user=ann"]).await;
    assert_eq!(k.ok(&["auth", "can-i", "list", "pods", "--as=ann"]).await, "yes\n");
    let no = k.run_with(&["auth", "can-i", "create", "pods", "--as=ann"], "").await;
    assert_eq!((no.out.as_str(), no.code), ("no\n", Some(1)));
    let listed = k.ok(&["auth", "can-i", "--list", "--as=ann"]).await;
    assert!(listed.contains("pods/log") && !listed.contains("secrets"), "{listed}");
    let who = k.ok(&["auth", "whoami", "--as=ann", "--as-group=physics"]).await;
    assert!(who.contains("ann") && who.contains("physics"), "{who}");
    k.ok(&["get", "configmaps", "--as=ann", "-o", "name"]).await;
    let refused = k.fails(&["get", "nodes", "--as=ann"], "").await;
    let why = "Error from server (Forbidden): nodes is forbidden: User \"ann\" cannot list resource \"nodes\" in API \
               group \"\" at the cluster scope\n";
    assert_eq!(refused, why);
    assert!(k.ok(&["get", "clusterroles"]).await.contains("cluster-admin"));
}

#[tokio::test]
async fn rights_that_were_judged_are_not_handed_out_without_an_order() {
    let server = Server::start().await;
    server.bind("ann", "default", "admin").await;
    server.quorum.send_replace(false);
    let give = binding("given", "ben", "view");
    let refused = server.post_as("ann", &bindings("default"), &give).await;
    assert_eq!(refused.code, 503, "{}", refused.json());
    assert!(server.documents.kept.lock().unwrap().is_empty());
    // What is no right is kept as ever, and so is what is written by who may do everything.
    let object = json!({"metadata": {"name": "kept"}});
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(server.post_as("ann", path, &object).await.code, 201);
    assert_eq!(server.post(&bindings("default"), &give).await.code, 201);
    assert_eq!(server.documents.kept.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_read_as_a_path_reaches_nothing() {
    let server = Server::start().await;
    let name = "%61".repeat(400);
    for path in
        [format!("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/{name}"), format!("{PODS}/{name}")]
    {
        assert_eq!(server.get_as("ann", &path).await.code, 404, "{path}");
    }
}

#[tokio::test]
async fn the_list_of_revoked_tokens_is_not_deleted() {
    let server = Server::start().await;
    let config_maps = "/api/v1/namespaces/kube-system/configmaps";
    let list = json!({"metadata": {"name": "gaggle-revoked-users"}, "data": {"ann.1": "{}"}});
    assert_eq!(server.post(config_maps, &list).await.code, 201);
    for path in [format!("{config_maps}/gaggle-revoked-users"), config_maps.to_owned()] {
        let refused = server.call("DELETE", &path, "", Body::empty()).await;
        assert_eq!(refused.code, 403, "{path}: {}", refused.json());
    }
    assert_eq!(server.get(&format!("{config_maps}/gaggle-revoked-users")).await.code, 200);
}
