//! The paths of a kind: what may be done with its objects, and with which parameters.

use super::components::{self, refer};
use super::path_of;
use crate::api::discovery;
use crate::api::kinds::{Kind, Scope, Subresource};
use crate::api::reviews::{self, Review};
use serde_json::{Map, Value, json};

/// Parameters in the query, with their types.
type Parameters = &'static [(&'static str, &'static str)];

const NONE: Parameters = &[];
const LIST: Parameters = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: Parameters = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: Parameters =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: Parameters = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const DELETE_MANY: Parameters = &[
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LOG: Parameters = &[
    ("container", "string"),
    ("follow", "boolean"),
    ("limitBytes", "integer"),
    ("previous", "boolean"),
    ("sinceSeconds", "integer"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];

const EXEC: Parameters = &[
    ("command", "string"),
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];
const ATTACH: Parameters = &[
    ("container", "string"),
    ("stderr", "boolean"),
    ("stdin", "boolean"),
    ("stdout", "boolean"),
    ("tty", "boolean"),
];
const PORT_FORWARD: Parameters = &[("ports", "integer")];

/// Media types of patches, in the order in which clients prefer them.
const PATCH_BODIES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// ... and of parts that have no managers.
const PART_PATCH_BODIES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
/// ... and of kinds whose lists have no keys that a strategic merge patch could go by.
const DEFINED_PATCH_BODIES: &[&str] =
    &["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const DEFINED_PART_PATCH_BODIES: &[&str] = &["application/json-patch+json", "application/merge-patch+json"];
const OBJECT_BODIES: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Adds everything that can be asked about a kind. `schema` is its schema's name.
pub fn add(paths: &mut Map<String, Value>, kind: &Kind, schema: &str) {
    let start = format!("/{}", path_of(&kind.group, &kind.version));
    let all = format!("{start}/{}", kind.plural);
    let collection = match kind.is_namespaced() {
        true => format!("{start}/namespaces/{{namespace}}/{}", kind.plural),
        false => all.clone(),
    };
    let item = format!("{collection}/{{name}}");
    let (list, removed) = (components::list_of(schema), components::STATUS);
    let whole = Part { kind, name: "", of: (&kind.group, &kind.version, &kind.kind), schema };
    if kind.is_namespaced() {
        paths.insert(all, json!({"get": whole.operation("listForAllNamespaces", "list", LIST, &list)}));
    }
    let options = body(OBJECT_BODIES, components::DELETE_OPTIONS);
    let mut operations = json!({
        "parameters": in_path(&collection),
        "get": whole.operation("list", "list", LIST, &list),
        "post": whole.write("create", "post"),
        "delete": whole.operation("deleteCollection", "deletecollection", DELETE_MANY, removed),
    });
    operations["delete"]["requestBody"] = options.clone();
    paths.insert(collection, operations);
    let mut operations = json!({
        "parameters": in_path(&item),
        "get": whole.operation("read", "get", NONE, schema),
        "put": whole.write("replace", "put"),
        "patch": whole.patch(),
        "delete": whole.operation("delete", "delete", DELETE, removed),
    });
    operations["delete"]["requestBody"] = options;
    paths.insert(item.clone(), operations);
    for part in &kind.subresources {
        let path = format!("{item}/{}", part.name());
        let of = discovery::served_as(kind, *part);
        let (schema, parameters) = match (part, of.2) {
            (Subresource::Log, _) => ("", LOG),
            (Subresource::Exec, _) => ("", EXEC),
            (Subresource::Attach, _) => ("", ATTACH),
            (Subresource::PortForward, _) => ("", PORT_FORWARD),
            (_, "Scale") => (components::SCALE, NONE),
            (_, "Eviction") => (components::EVICTION, NONE),
            (_, "TokenRequest") => (components::TOKEN_REQUEST, NONE),
            (_, own) if own == kind.kind => (schema, NONE),
            _ => ("", NONE),
        };
        let is_stream = matches!(part, Subresource::Exec | Subresource::Attach | Subresource::PortForward);
        let verbs = discovery::verbs_of(*part);
        let part = Part { kind, name: part.name(), of, schema };
        let mut operations = json!({"parameters": in_path(&path)});
        for verb in verbs {
            match *verb {
                "get" if is_stream => operations["get"] = part.connect("Get", parameters),
                "create" if is_stream => operations["post"] = part.connect("Post", parameters),
                "get" => operations["get"] = part.operation("read", "get", parameters, schema),
                "update" => operations["put"] = part.write("replace", "put"),
                "patch" => operations["patch"] = part.patch(),
                "create" => operations["post"] = part.write("create", "post"),
                _ => {}
            }
        }
        paths.insert(path, operations);
    }
}

/// What can be asked by a review: its creation, which answers it. `schema` is its schema's name.
pub fn of_review(review: &Review, schema: &str) -> Value {
    let (group, version) = (capital(short_group(review.group)), capital(reviews::VERSION));
    let scope = if review.scope == Scope::Namespaced { "Namespaced" } else { "" };
    json!({
        "parameters": in_path(&review.route()),
        "post": {
            "operationId": format!("create{group}{version}{scope}{}", review.kind),
            "tags": [format!("{}_{}", short_group(review.group), reviews::VERSION)],
            "x-kubernetes-action": "post",
            "x-kubernetes-group-version-kind": components::identity(review.group, reviews::VERSION, review.kind),
            "parameters": in_query(WRITE),
            "requestBody": body(OBJECT_BODIES, schema),
            "responses": {"201": {"description": "Created",
                "content": {"application/json": {"schema": refer(schema)}}}},
        },
    })
}

fn in_query(parameters: Parameters) -> Value {
    parameters
        .iter()
        .map(|(name, of)| json!({"name": name, "in": "query", "schema": {"type": of, "uniqueItems": true}}))
        .collect()
}

/// The parameters that a path holds.
fn in_path(path: &str) -> Value {
    let held = ["name", "namespace"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    held.map(|name| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
    })
    .collect()
}

/// A kind's objects, or a part of them with a path of its own.
struct Part<'a> {
    kind: &'a Kind,
    /// Empty for the whole object.
    name: &'static str,
    /// Group, version and kind of what is read and written.
    of: (&'a str, &'a str, &'a str),
    /// The schema of that; empty for plain text.
    schema: &'a str,
}

impl Part<'_> {
    fn write(&self, verb: &str, action: &str) -> Value {
        let mut operation = self.operation(verb, action, WRITE, self.schema);
        operation["requestBody"] = body(OBJECT_BODIES, self.schema);
        operation
    }

    fn patch(&self) -> Value {
        let mut operation = self.operation("patch", "patch", PATCH, self.schema);
        let own = (self.kind.group.as_str(), self.kind.version.as_str(), self.kind.kind.as_str());
        let bodies = match (self.of == own, self.kind.definition().is_some()) {
            (true, false) => PATCH_BODIES,
            (true, true) => DEFINED_PATCH_BODIES,
            (false, false) => PART_PATCH_BODIES,
            (false, true) => DEFINED_PART_PATCH_BODIES,
        };
        operation["requestBody"] = body(bodies, components::PATCH);
        operation
    }

    /// A request that becomes a stream.
    fn connect(&self, method: &str, parameters: Parameters) -> Value {
        let mut operation = self.operation("connect", "connect", parameters, "");
        operation["operationId"] = self.operation_id("connect", method).into();
        operation["responses"]["200"]["content"] = json!({"*/*": {"schema": {"type": "string"}}});
        operation
    }

    fn operation(&self, verb: &str, action: &str, parameters: Parameters, answer: &str) -> Value {
        let content = match answer {
            "" => json!({"text/plain": {"schema": {"type": "string"}}}),
            answer => json!({"application/json": {"schema": refer(answer)}}),
        };
        let (group, version, kind) = self.of;
        json!({
            "operationId": self.operation_id(verb, ""),
            "tags": [format!("{}_{}", short_group(&self.kind.group), self.kind.version)],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            "parameters": in_query(parameters),
            "responses": {"200": {"description": "OK", "content": content}},
        })
    }

    /// `replaceAppsV1NamespacedDeploymentScale`, `connectCoreV1GetNamespacedPodExec`
    fn operation_id(&self, verb: &str, method: &str) -> String {
        let everywhere = verb == "listForAllNamespaces";
        let (verb, scope) = match (everywhere, self.kind.is_namespaced()) {
            (true, _) => ("list", ""),
            (false, true) => (verb, "Namespaced"),
            (false, false) => (verb, ""),
        };
        let end = if everywhere { "ForAllNamespaces" } else { "" };
        let (group, version) = (capital(short_group(&self.kind.group)), capital(&self.kind.version));
        format!("{verb}{group}{version}{method}{scope}{}{}{end}", self.kind.kind, capital(self.name))
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn body(media: &[&str], schema: &str) -> Value {
    let of = if schema.is_empty() { json!({"type": "object"}) } else { refer(schema) };
    let content: Map<String, Value> =
        media.iter().map(|media| ((*media).to_owned(), json!({"schema": of}))).collect();
    json!({"content": content, "required": true})
}

fn short_group(group: &str) -> &str {
    match group.split('.').next() {
        None | Some("") => "core",
        Some(group) => group,
    }
}
