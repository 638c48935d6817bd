//! `scale`: the number of replicas of anything that has one, as an `autoscaling/v1` object.

use super::ApiState;
use super::apply::Operation;
use super::commit::Done;
use super::kinds::Kind;
use super::negotiate::Form;
use super::patch::Patch;
use super::query::Query;
use super::read;
use super::status::ApiError;
use super::table::{of_scale, partial};
use super::target::Target;
use super::update;
use super::value::{child, int, items, pairs, set, text};
use serde_json::{Value, json};

/// Where an object's scale stands in it, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub replicas: String,
    pub seen: String,
    /// A text; for kinds without one it is made of `spec.selector`.
    pub selector: Option<String>,
}

fn paths_of(kind: &Kind) -> Paths {
    let defined = kind.definition().and_then(|definition| definition.scale().cloned());
    defined.unwrap_or_else(|| Paths {
        replicas: "/spec/replicas".into(),
        seen: "/status/replicas".into(),
        selector: None,
    })
}

/// The scale of an object.
pub fn scale_of(kind: &Kind, object: &Value) -> Value {
    let paths = paths_of(kind);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            set(&mut metadata, field, value.clone());
        }
    }
    let mut status = json!({"replicas": int(object, &paths.seen).unwrap_or(0)});
    let selector = match (&paths.selector, kind.definition()) {
        (Some(path), _) => text(object, path).to_owned(),
        (None, Some(_)) => String::new(),
        (None, None) => selector_text(object),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": int(object, &paths.replicas).unwrap_or(0)}, "status": status,
    })
}

fn selector_text(object: &Value) -> String {
    // A ReplicationController's selector is a map of labels.
    let is_plain = object.get("kind").is_some_and(|kind| kind == "ReplicationController");
    let labels = if is_plain { "/spec/selector" } else { "/spec/selector/matchLabels" };
    let mut parts: Vec<String> = pairs(object, labels).map(|(key, value)| format!("{key}={value}")).collect();
    for expression in items(object, "/spec/selector/matchExpressions") {
        let values: Vec<&str> = items(expression, "/values").iter().filter_map(Value::as_str).collect();
        let (key, values) = (text(expression, "/key"), values.join(","));
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    parts.join(",")
}

/// The scale as it is wanted: itself, or a table with its own columns.
pub fn get(state: &ApiState, target: &Target, form: Form) -> Result<Value, ApiError> {
    let current = read::current(state, target)?;
    let shown = target.kind.shown(current.value());
    let replicas = paths_of(&target.kind).replicas;
    if target.kind.definition().is_some() && int(&shown, &replicas).is_none() {
        let field = replicas.replace('/', ".");
        return Err(ApiError::internal(format!("the spec replicas field {field:?} does not exist")));
    }
    let scale = scale_of(&target.kind, &shown);
    Ok(match form {
        Form::Object => scale,
        Form::Partial => partial(&scale),
        Form::Table(with) => of_scale(&scale, with, super::now()),
    })
}

/// How the new scale is given.
pub enum Wish {
    Whole(Value),
    Patch(Patch),
}

/// `PUT` or `PATCH` of a scale: changes the number of replicas that the object wishes for, and nothing else.
pub async fn change(state: &ApiState, target: &Target, query: &Query, wish: Wish) -> Result<Done, ApiError> {
    let main = Target { subresource: None, ..target.clone() };
    let author = update::author(target, query, Operation::Update)?;
    let (mut done, _) = update::change(state, &main, query, &author, |current| {
        let scale = scale_of(&target.kind, current);
        let wished = match &wish {
            Wish::Whole(wished) => wished.clone(),
            Wish::Patch(patch) => patch.apply(&scale, None)?,
        };
        let revision = read::revision_of(&wished);
        if !revision.is_empty() && revision != read::revision_of(current) {
            return Err(ApiError::modified(&target.kind, &target.name));
        }
        let replicas = match wished.pointer("/spec/replicas") {
            None | Some(Value::Null) => 0,
            Some(replicas) => replicas.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
                ApiError::bad_request(format!("spec.replicas: {replicas} is not a number of replicas"))
            })?,
        };
        let mut object = current.clone();
        let path = paths_of(&target.kind).replicas;
        let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let Some((last, parents)) = steps.split_last() {
            let parent = parents.iter().fold(&mut object, |parent, step| child(parent, step));
            set(parent, last, replicas);
        }
        Ok((object, Vec::new()).into())
    })
    .await?;
    done.object = scale_of(&target.kind, &done.object);
    Ok(done)
}
