//! Tokens: signed for people and for ServiceAccounts, asked about, taken back.

use super::client::Answer;
use super::kubectl::Kubectl;
use super::server::{Server, TOKEN, token_of};
use axum::body::Body;
use gaggle_sched::state::{Expect, Key, Resource, Write};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEW: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

impl Server {
    async fn sign(&self, name: &str, seconds: i64) -> Answer {
        self.post("/gaggle/v1/users", &json!({"name": name, "seconds": seconds})).await
    }

    async fn token(&self, name: &str) -> String {
        let answer = self.sign(name, 600).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        answer.json()["token"].as_str().unwrap().to_owned()
    }

    async fn revoke(&self, name: &str) -> Answer {
        self.post("/gaggle/v1/revocations", &json!({"name": name})).await
    }

    /// The user that a token is taken for.
    async fn user(&self, token: &str) -> Option<String> {
        let answer = self.call_as(token, "POST", WHO, "application/json", "{}").await;
        let name = answer.json()["status"]["userInfo"]["username"].as_str().map(str::to_owned);
        assert_eq!(answer.code == 401, name.is_none(), "{}", answer.json());
        name
    }

    async fn account(&self, name: &str) -> String {
        let made = self.post(ACCOUNTS, &json!({"metadata": {"name": name}})).await;
        assert_eq!(made.code, 201);
        made.json()["metadata"]["uid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_users_token_is_good_until_it_is_taken_back() {
    let server = Server::start().await;
    let (first, other) = (server.token("cat@lab").await, server.token("dan").await);
    assert_eq!(server.user(&first).await.as_deref(), Some("cat@lab"));
    assert_eq!(
        server.call_as(&first, "GET", PODS, "", Body::empty()).await.code,
        403,
        "no role gives it anything"
    );
    assert_eq!(server.revoke("cat@lab").await.code, 201);
    assert_eq!((server.user(&first).await, server.user(&other).await.as_deref()), (None, Some("dan")));
    let second = server.token("cat@lab").await;
    assert_eq!(server.user(&second).await.as_deref(), Some("cat@lab"));
    assert_eq!(server.revoke("cat@lab").await.code, 201);
    assert_eq!(server.revoke("dan").await.code, 201);
    for token in [&first, &second, &other] {
        assert_eq!(server.user(token).await, None);
    }
    let list = server.get("/api/v1/namespaces/kube-system/configmaps/gaggle-revoked-users").await.json();
    let keys: Vec<&String> = list["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["cat_40lab.1", "cat_40lab.2", "dan.1"]);

    // Without a quorum it is kept, and heeded by whoever hears of it.
    let third = server.token("cat@lab").await;
    server.quorum.send_replace(false);
    let kept = server.revoke("cat@lab").await;
    assert_eq!((kept.code, kept.warnings.len()), (201, 1), "{:?}", kept.warnings);
    let (key, document) = server.documents.kept.lock().unwrap().last().cloned().unwrap();
    assert_eq!(key, crate::tokens::Revocations::key());
    server.revoked.heard(document.as_ref());
    assert_eq!(server.user(&third).await, None);
}

#[tokio::test]
async fn tokens_are_signed_only_for_names_and_times_that_are_some_and_by_who_may() {
    let server = Server::start().await;
    for (name, seconds) in [
        ("", 600),
        ("admin", 600),
        ("system:masters", 600),
        ("system:serviceaccount:a:b", 600),
        ("a b", 600),
        ("a/b", 600),
        ("ann", 0),
        ("ann", -1),
        ("ann", 40_000_000),
    ] {
        let refused = server.sign(name, seconds).await;
        assert_eq!(
            (refused.code, refused.json()["kind"].as_str()),
            (400, Some("Status")),
            "{name:?} {seconds}"
        );
    }
    assert_eq!(server.revoke("a b").await.code, 400);
    let ask = async |path: &str| {
        let asked = json!({"name": "ben", "seconds": 600}).to_string();
        server.call_as(&token_of("ann"), "POST", path, "application/json", asked).await.code
    };
    assert_eq!((ask("/gaggle/v1/users").await, ask("/gaggle/v1/revocations").await), (403, 403));
    // Who may come here may still be nobody that he may not be.
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([{"nonResourceURLs": ["/gaggle/v1/*"], "verbs": ["*"]}]);
    server
        .post(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "keys"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "keys"}, "subjects": [{"kind": "User", "name": "ann"}],
        "roleRef": {"kind": "ClusterRole", "name": "keys", "apiGroup": "rbac.authorization.k8s.io"}});
    assert_eq!(server.post(&format!("{rbac}/clusterrolebindings"), &binding).await.code, 201);
    assert_eq!(ask("/gaggle/v1/users").await, 403);
}

#[tokio::test]
async fn a_service_accounts_token_says_who_it_is_and_ends_with_it() {
    let server = Server::start().await;
    let uid = server.account("bot").await;
    let ask = async |spec: Value| {
        let asked = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
        server.post(&format!("{ACCOUNTS}/bot/token"), &asked).await
    };
    let answer = ask(json!({"expirationSeconds": 700})).await;
    assert_eq!(answer.code, 201, "{}", answer.json());
    let request = answer.json();
    assert_eq!(request["spec"]["expirationSeconds"], 700);
    let token = request["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(server.user(&token).await.as_deref(), Some("system:serviceaccount:default:bot"));

    let review = async |token: &str, audiences: Value| {
        let asked = json!({"spec": {"token": token, "audiences": audiences}});
        server.post(REVIEW, &asked).await.json()["status"].clone()
    };
    let known = review(&token, json!([])).await;
    assert_eq!((&known["authenticated"], &known["user"]["uid"]), (&json!(true), &json!(uid)));
    assert_eq!(review(&token, json!(["vault"])).await["authenticated"], Value::Null);
    assert_eq!(review("nonsense", json!([])).await["authenticated"], Value::Null);
    let vault =
        ask(json!({"audiences": ["vault"]})).await.json()["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(server.user(&vault).await, None, "it is not for the API");
    assert_eq!(review(&vault, json!(["x", "vault"])).await["audiences"], json!(["vault"]));

    for (spec, code) in [
        (json!({"expirationSeconds": 60}), 422),
        (json!({"expirationSeconds": 1_u64 << 33}), 422),
        (json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "none"}}), 404),
        (json!({"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "j"}}), 400),
    ] {
        assert_eq!(ask(spec.clone()).await.code, code, "{spec}");
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "bot",
        "containers": [{"name": "m", "image": "i"}]}});
    let pod = server.post(PODS, &pod).await.json();
    let reference = |uid: &Value| json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid});
    assert_eq!(ask(json!({"boundObjectRef": reference(&json!("other"))})).await.code, 409);
    let bound = ask(json!({"boundObjectRef": reference(&pod["metadata"]["uid"])})).await.json();
    let bound = bound["status"]["token"].as_str().unwrap().to_owned();
    assert!(server.user(&bound).await.is_some());
    let gone = Write::Delete {
        key: Key::new(Resource::fixed("pods"), "default", "p"),
        expect: Expect::Present,
        intent: None,
    };
    server.view.write(|store| store.apply(&gone.into())).unwrap();
    assert_eq!((server.user(&bound).await, server.user(&token).await.is_some()), (None, true));
    server.call_as(TOKEN, "DELETE", &format!("{ACCOUNTS}/bot"), "", Body::empty()).await;
    assert_eq!(server.user(&token).await, None);
}

#[tokio::test]
async fn kubectl_makes_tokens_of_service_accounts() {
    let Some(k) = Kubectl::start().await else { return };
    k.ok(&["create", "serviceaccount", "bot"]).await;
    let token = k.ok(&["create", "token", "bot", "--duration=20m"]).await;
    let name = k.server.user(token.trim()).await;
    assert_eq!(name.as_deref(), Some("system:serviceaccount:default:bot"));
    assert!(k.fails(&["create", "token", "none"], "").await.contains("serviceaccounts \"none\" not found"));
    assert!(k.fails(&["create", "token", "bot", "--duration=1m"], "").await.contains("10 minutes"));
    let asked = ["--as=system:serviceaccount:default:bot", "auth", "can-i", "list", "pods"];
    assert_eq!(k.run_with(&asked, "").await.out, "no\n");
    k.ok(&["create", "rolebinding", "b", "--clusterrole=view", "--serviceaccount=default:bot"]).await;
    assert_eq!(k.ok(&asked).await, "yes\n");
}
