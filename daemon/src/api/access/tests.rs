use super::attributes::{Asked, Attributes};
use super::policy::{Policy, Verdict};
use super::rules;
use crate::api::auth::User;
use crate::api::kinds::{Kinds, Subresource};
use crate::api::target::Target;
use axum::http::{Method, Uri};
use gaggle_sched::state::{Expect, Key, Resource, Store, View, Write};
use k8s_openapi::api::rbac::v1::PolicyRule;
use proptest::prelude::*;
use serde_json::{Value, json};

fn attributes(method: &str, uri: &str) -> Attributes {
    Attributes::of(&method.parse::<Method>().unwrap(), &uri.parse::<Uri>().unwrap())
}

fn rule(rule: Value) -> PolicyRule {
    serde_json::from_value(rule).unwrap()
}

fn put(store: &mut Store, plural: &str, namespace: &str, name: &str, mut object: Value) {
    object["metadata"] = json!({"name": name, "namespace": namespace, "uid": name});
    let key = Key::new(Resource::new(super::GROUP, plural), namespace, name);
    store.apply(&Write::Put { key, value: object, expect: Expect::Any, intent: None }.into()).unwrap();
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    User { name: name.into(), groups, ..User::default() }
}

#[test]
fn requests_are_about_what_kubernetes_says() {
    let of = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
        Attributes::object(verb, group, resource, namespace, name)
    };
    for (method, uri, expected) in [
        ("GET", "/api/v1/pods", of("list", "", "pods", "", "")),
        ("GET", "/api/v1/namespaces/a/pods/b", of("get", "", "pods", "a", "b")),
        ("HEAD", "/api/v1/namespaces/a/pods/b", of("get", "", "pods", "a", "b")),
        ("GET", "/api/v1/namespaces/a/pods?watch=1", of("watch", "", "pods", "a", "")),
        ("GET", "/api/v1/pods?watch=true&fieldSelector=metadata.name%3Db", of("watch", "", "pods", "", "b")),
        ("GET", "/api/v1/pods?fieldSelector=spec.x%21%3Dy,metadata.name==b", of("list", "", "pods", "", "b")),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%21%3Db", of("list", "", "pods", "", "")),
        ("DELETE", "/api/v1/namespaces/a/pods", of("deletecollection", "", "pods", "a", "")),
        ("DELETE", "/api/v1/namespaces/a/pods/b", of("delete", "", "pods", "a", "b")),
        ("POST", "/apis/apps/v1/namespaces/a/deployments", of("create", "apps", "deployments", "a", "")),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/b", of("update", "apps", "deployments", "a", "b")),
        ("PATCH", "/api/v1/nodes/n%31", of("patch", "", "nodes", "", "n1")),
        ("GET", "/api/v1/namespaces", of("list", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/a", of("get", "", "namespaces", "a", "a")),
        ("GET", "/apis/no.such/v7/things", of("list", "no.such", "things", "", "")),
    ] {
        assert_eq!(attributes(method, uri), expected, "{method} {uri}");
    }
    let part = |method: &str, uri: &str| format!("{:?}", attributes(method, uri));
    assert!(part("POST", "/api/v1/namespaces/a/pods/b/exec").contains("subresource: \"exec\""));
    assert!(part("PUT", "/api/v1/namespaces/a/finalize").contains("subresource: \"finalize\""));
    for path in [
        "/api",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v3",
        "/healthz",
        "/gaggle/v1/leave",
        "/apis/a%2Fb/v1/c",
    ] {
        assert!(part("POST", path).contains("Path("), "{path}");
        assert_eq!(attributes("POST", path).verb, "post");
    }
}

#[test]
fn rules_allow_what_they_name_and_nothing_else() {
    let pods = rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}));
    let scale = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}));
    let one =
        rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}));
    let all = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
    for (rule, method, uri, allowed) in [
        (&pods, "GET", "/api/v1/namespaces/x/pods", true),
        (&pods, "GET", "/api/v1/namespaces/x/pods/b/log", true),
        (&pods, "GET", "/api/v1/namespaces/x/pods/b/status", false),
        (&pods, "GET", "/api/v1/namespaces/x/pods?watch=1", false),
        (&pods, "POST", "/api/v1/namespaces/x/pods", false),
        (&pods, "GET", "/apis/metrics.k8s.io/v1/namespaces/x/pods", false),
        (&scale, "PUT", "/apis/apps/v1/namespaces/x/deployments/b/scale", true),
        (&scale, "PUT", "/apis/apps/v1/namespaces/x/deployments/b", false),
        (&one, "GET", "/api/v1/namespaces/x/secrets/a", true),
        (&one, "GET", "/api/v1/namespaces/x/secrets/b", false),
        (&one, "GET", "/api/v1/namespaces/x/secrets", false),
        (&all, "DELETE", "/apis/apps/v1/namespaces/x/deployments/b", true),
        (&all, "GET", "/api/v1/namespaces/x/pods/b/exec", true),
        (&all, "GET", "/healthz", false),
        (&paths, "GET", "/healthz", true),
        (&paths, "GET", "/healthz/ping", false),
        (&paths, "GET", "/api/v1", true),
        (&paths, "GET", "/api", false),
        (&paths, "POST", "/api/v1", false),
        (&paths, "GET", "/api/v1/pods", false),
    ] {
        assert_eq!(rules::allows(rule, &attributes(method, uri)), allowed, "{method} {uri}");
    }
}

#[test]
fn bindings_give_roles_to_users_groups_and_service_accounts() {
    let mut store = Store::default();
    let rules = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    put(&mut store, "clusterroles", "", "reader", json!({"rules": rules}));
    put(&mut store, "roles", "a", "reader", json!({"rules": rules}));
    let bound = |kind: &str, role: &str, subjects: Value| {
        let role = json!({"apiGroup": super::GROUP, "kind": kind, "name": role});
        json!({"roleRef": role, "subjects": subjects})
    };
    let groups = json!([{"kind": "Group", "name": "physics"}]);
    put(&mut store, "clusterrolebindings", "", "everywhere", bound("ClusterRole", "reader", groups));
    let subjects = json!([{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "bot"}]);
    put(&mut store, "rolebindings", "a", "own", bound("Role", "reader", subjects));
    let other = json!([{"kind": "ServiceAccount", "name": "bot", "namespace": "b"}]);
    put(&mut store, "rolebindings", "a", "others", bound("ClusterRole", "reader", other));
    put(
        &mut store,
        "rolebindings",
        "a",
        "lost",
        bound("Role", "gone", json!([{"kind": "User", "name": "eve"}])),
    );

    let may = |user: &User, uri: &str| Policy(&store).decide(user, &attributes("GET", uri));
    let (in_a, in_b, anywhere) = ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/b/pods", "/api/v1/pods");
    for (user, uri, allowed) in [
        (user("x", &["physics"]), anywhere, true),
        (user("x", &["physics"]), in_b, true),
        (user("x", &["chemistry"]), in_a, false),
        (user("ann", &[]), in_a, true),
        (user("ann", &[]), in_b, false),
        (user("ann", &[]), anywhere, false),
        (user("physics", &[]), in_a, false),
        (user("system:serviceaccount:a:bot", &[]), in_a, true),
        (user("system:serviceaccount:b:bot", &[]), in_a, true),
        (user("system:serviceaccount:c:bot", &[]), in_a, false),
        (user("bot", &[]), in_a, false),
        (user("x", &["system:masters"]), "/gaggle/v1/leave", true),
    ] {
        assert_eq!(may(&user, uri).is_allowed(), allowed, "{} {uri}", user.name);
    }
    let why = "RBAC: allowed by RoleBinding \"own/a\" of Role \"reader\" to User \"ann\"";
    assert_eq!(may(&user("ann", &[]), in_a), Verdict::Allowed(why.into()));
    let Verdict::Denied(why) = may(&user("eve", &[]), in_a) else { panic!("eve may") };
    assert_eq!(why, "RBAC: role.rbac.authorization.k8s.io \"gone\" not found");
    let said = attributes("GET", in_a).refusal("eve", "");
    let expected = "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\"";
    assert_eq!(said.message, expected);
    let said = attributes("GET", "/apis/apps/v1/namespaces/a/deployments/d/scale").refusal("eve", "");
    let expected = "deployments.apps \"d\" is forbidden: User \"eve\" cannot get resource \"deployments/scale\" in API \
                    group \"apps\" in the namespace \"a\"";
    assert_eq!(said.message, expected);
    let said = attributes("GET", "/metrics").refusal("eve", "").message;
    assert_eq!(said, "forbidden: User \"eve\" cannot get path \"/metrics\"");
}

#[test]
fn nobody_hands_out_what_he_does_not_have() {
    let held = [
        rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]})),
        rule(
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a", "b"]}),
        ),
        rule(json!({"verbs": ["watch"], "apiGroups": [""], "resources": ["pods"]})),
        rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]})),
    ];
    for (wanted, lacking) in [
        (json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]}), ""),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["x/scale"]}), ""),
        (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b"]}), ""),
        (json!({"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/api/x/*"]}), ""),
        (
            json!({"verbs": ["get", "create", "delete"], "apiGroups": [""], "resources": ["pods"]}),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "delete"]}"#,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}),
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
        ),
        (
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["c"]}),
            r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["c"], Verbs:["get"]}"#,
        ),
        (json!({"verbs": ["*"], "nonResourceURLs": ["/x"]}), r#"{NonResourceURLs:["/x"], Verbs:["*"]}"#),
        (
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#,
        ),
    ] {
        let said = rules::covered(&held, &[rule(wanted)]).err().unwrap_or_default();
        assert_eq!(said, lacking);
    }
    // What nobody could compare is not taken for covered, and costs nothing.
    let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let huge = rule(json!({"verbs": many, "apiGroups": many, "resources": many}));
    assert!(rules::covered(&held, std::slice::from_ref(&huge)).is_err());
    assert!(rules::covered(&super::policy::everything(), &[huge]).is_ok());
}

fn some_rule() -> impl Strategy<Value = PolicyRule> {
    let words = |all: &'static [&'static str]| prop::collection::vec(prop::sample::select(all), 1..3);
    (
        words(&["get", "list", "*"]),
        words(&["", "apps", "*"]),
        words(&["pods", "pods/log", "nodes", "*/log", "*"]),
        prop::collection::vec(prop::sample::select(&["a", "b"][..]), 0..2),
    )
        .prop_map(|(verbs, groups, resources, names)| {
            rule(json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}))
        })
}

proptest! {
    /// Whoever holds rules that cover others may do all that those allow.
    #[test]
    fn what_is_covered_allows_nothing_new(
        held in prop::collection::vec(some_rule(), 0..4),
        wanted in some_rule(),
        verb in prop::sample::select(&["get", "list"][..]),
        group in prop::sample::select(&["", "apps"][..]),
        path in prop::sample::select(&["pods", "pods/a", "pods/a/log", "nodes", "nodes/b", "nodes/b/log"][..]),
    ) {
        if rules::covered(&held, std::slice::from_ref(&wanted)).is_ok() {
            let start = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
            let mut asked = attributes("GET", &format!("{start}/{path}"));
            asked.verb = verb.to_owned();
            if rules::allows(&wanted, &asked) {
                prop_assert!(held.iter().any(|rule| rules::allows(rule, &asked)));
            }
        }
    }

    /// What is decided about is what would be done: the gate and the handlers read a path alike.
    #[test]
    fn a_path_is_decided_about_as_what_it_names(
        start in prop::sample::select(&["/api/v1", "/apis/apps/v1", "//api/v1", "/api/v1/"][..]),
        words in prop::collection::vec(
            prop::sample::select(
                &["namespaces", "pods", "nodes", "deployments", "a", "status", "finalize", "log", "scale", "%61", "a%2Fb"][..],
            ),
            1..6,
        ),
    ) {
        let path = format!("{start}/{}", words.join("/"));
        let named = Target::parse(&Kinds::new(View::default()), &path);
        let asked = attributes("POST", &path).asked;
        if let Ok(target) = named {
            let Asked::Objects { group, resource, subresource, namespace, name } = asked else {
                return Err(TestCaseError::fail(format!("{path} is taken for a path")));
            };
            // A namespace is in itself, so that a role in it may be about it.
            let inside = if target.kind.is("", "Namespace") { &target.name } else { &target.namespace };
            let part = target.subresource.map(Subresource::name).unwrap_or_default();
            prop_assert_eq!((group.as_str(), resource.as_str()), (target.kind.group.as_str(), target.kind.plural.as_str()));
            prop_assert_eq!((subresource.as_str(), &namespace, &name), (part, inside, &target.name));
        }
    }
}
