//! OpenAPI as clients fetch it.

use super::server::{Server, TOKEN};
use crate::api::kinds;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

async fn document(server: &Server, name: &str) -> Value {
    let answer = server.get(&format!("/openapi/v3/{name}")).await;
    assert_eq!(answer.code, 200, "{name}");
    answer.json()
}

#[tokio::test]
async fn every_document_is_in_the_index_and_may_be_kept_for_as_long_as_its_hash_is_the_same() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await.json();
    let paths = index["paths"].as_object().unwrap();
    // The groups of the kinds, and the two in which one asks who may.
    assert_eq!(paths.len(), kinds::group_versions(kinds::all()).len() + 2);
    for (name, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let answer = server.get(url).await;
        assert_eq!(
            (answer.code, answer.headers["cache-control"].to_str().unwrap().contains("immutable")),
            (200, true)
        );
        assert_eq!(answer.json()["openapi"], "3.0.0", "{name}");
        let request = Request::get(url)
            .header("host", "x")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("if-none-match", &answer.headers["etag"]);
        let again = server.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!((again.code, again.body.len()), (304, 0), "{name}");
        let stale = server.get(&format!("/openapi/v3/{name}?hash=OLD")).await;
        assert_eq!((stale.code, stale.headers["location"].to_str().unwrap()), (301, url));
    }
    assert_eq!(server.get("/openapi/v3/apis/nothing/v1").await.code, 404);
}

#[tokio::test]
async fn schemas_are_whole_and_say_how_lists_are_merged() {
    let server = Server::start().await;
    for (group, version) in kinds::group_versions(kinds::all()) {
        let name = match group {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        let document = document(&server, &name).await;
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let referred = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(referred), "{name}: {referred} is missing");
        }
        for kind in kinds::all().filter(|kind| kind.group == group && kind.version == version) {
            let identity = json!([{"group": group, "version": version, "kind": kind.kind}]);
            let of_kind = |schema: &&Value| schema["x-kubernetes-group-version-kind"] == identity;
            let schema = schemas.values().find(of_kind).unwrap_or_else(|| panic!("{}", kind.kind));
            assert!(
                schema["description"].is_string() && schema["properties"]["metadata"]["allOf"].is_array()
            );
            assert_ne!(schema["required"], json!(["metadata"]), "{}: clients may leave it out", kind.kind);
        }
    }
    let core = document(&server, "api/v1").await;
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &pod["containers"];
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(pod["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(pod["tolerations"]["x-kubernetes-list-type"], "atomic");
    assert_eq!(pod["nodeSelector"]["x-kubernetes-map-type"], "atomic");
}

#[tokio::test]
async fn operations_say_what_kubectl_looks_for() {
    let server = Server::start().await;
    let apps = document(&server, "apis/apps/v1").await;
    let item = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    let deployment = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], deployment);
    let names = |operation: &Value| -> Vec<String> {
        let parameters = operation["parameters"].as_array().unwrap();
        parameters.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(patch), ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let bodies: Vec<&String> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    let expected = ["apply-patch+yaml", "json-patch+json", "merge-patch+json", "strategic-merge-patch+json"];
    assert_eq!(bodies, expected.map(|form| format!("application/{form}")).iter().collect::<Vec<_>>());
    assert_eq!(names(item), ["name", "namespace"]);
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let scale = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(scale["operationId"], "readAppsV1NamespacedDeploymentScale");
    let all = &apps["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(all["operationId"], "listAppsV1DeploymentForAllNamespaces");
    assert!(names(all).contains(&"labelSelector".to_owned()));
}

#[tokio::test]
async fn kinds_are_named_where_other_groups_hold_them() {
    let server = Server::start().await;
    let apps = document(&server, "apis/apps/v1").await;
    for (name, group, version, kind) in [
        ("io.k8s.api.core.v1.PersistentVolumeClaim", "", "v1", "PersistentVolumeClaim"),
        ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "v1", "Scale"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Status", "", "v1", "Status"),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "apps", "v1", "DeleteOptions"),
    ] {
        let schema = &apps["components"]["schemas"][name];
        let identity = json!([{"group": group, "version": version, "kind": kind}]);
        assert_eq!(schema["x-kubernetes-group-version-kind"], identity, "{name}");
        assert_ne!(schema["required"], json!(["metadata"]), "{name}");
    }
}

#[tokio::test]
async fn questions_are_explained_like_kinds() {
    let server = Server::start().await;
    let document = document(&server, "apis/authorization.k8s.io/v1").await;
    let path = "/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews";
    let asked = &document["paths"][path]["post"];
    let identity =
        json!({"group": "authorization.k8s.io", "version": "v1", "kind": "LocalSubjectAccessReview"});
    assert_eq!(asked["x-kubernetes-group-version-kind"], identity);
    assert_eq!(asked["operationId"], "createAuthorizationV1NamespacedLocalSubjectAccessReview");
    let schema = &document["components"]["schemas"]["io.k8s.api.authorization.v1.LocalSubjectAccessReview"];
    assert_eq!(schema["x-kubernetes-group-version-kind"], json!([identity]));
    assert!(schema["properties"]["spec"]["allOf"].is_array(), "{schema}");
}

#[tokio::test]
async fn streams_are_connections_with_parameters() {
    let server = Server::start().await;
    let core = document(&server, "api/v1").await;
    let exec = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"];
    for (method, id) in
        [("get", "connectCoreV1GetNamespacedPodExec"), ("post", "connectCoreV1PostNamespacedPodExec")]
    {
        let operation = &exec[method];
        assert_eq!((&operation["operationId"], &operation["requestBody"]), (&json!(id), &Value::Null));
        assert_eq!(operation["x-kubernetes-action"], "connect");
        assert_eq!(operation["parameters"][0]["name"], "command");
    }
    let ports = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/portforward"]["get"]["parameters"];
    assert_eq!(ports[0]["name"], "ports");
}

#[tokio::test]
async fn documents_come_compressed_if_one_likes_and_never_as_something_else() {
    let server = Server::start().await;
    let ask = |name: &'static str, value: &'static str| {
        let request = Request::get("/openapi/v3/apis/apps/v1")
            .header("host", "x")
            .header("authorization", format!("Bearer {TOKEN}"))
            .header(name, value);
        server.send(request.body(Body::empty()).unwrap())
    };
    let plain = ask("accept", "application/json").await;
    let packed = ask("accept-encoding", "deflate, gzip;q=0.9").await;
    assert_eq!((packed.code, packed.headers["content-encoding"].to_str().unwrap()), (200, "gzip"));
    assert!(packed.body.len() * 4 < plain.body.len());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut text).unwrap();
    assert!(text == plain.body, "both are the same text");
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    assert_eq!(ask("accept", protobuf).await.code, 406);
}
