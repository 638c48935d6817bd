//! Bodies: bytes to objects, with what the client should know about its mistakes.

use super::kinds::Kind;
use super::query::FieldValidation;
use super::status::ApiError;
use super::{protobuf, strict};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde_json::Value;
use std::time::Duration;

/// The largest body, as on a Kubernetes API server: the largest known manifests fit.
pub const BODY_BYTES: usize = 3 * 1024 * 1024;
/// A body of that size takes a moment on a slow network; a client that dawdles longer holds memory for nothing.
const BODY_TIME: Duration = Duration::from_secs(60);

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Reads a whole body, up to [`BODY_BYTES`].
pub async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    match tokio::time::timeout(BODY_TIME, collect(body)).await {
        Ok(bytes) => bytes,
        Err(_) => Err(ApiError::new(408, "Timeout", "the request body did not arrive in time")),
    }
}

async fn collect(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let unreadable =
            |error| ApiError::bad_request(format!("the request body could not be read: {error}"));
        let chunk = chunk.map_err(unreadable)?;
        if bytes.len() + chunk.len() > BODY_BYTES {
            return Err(ApiError::too_large(BODY_BYTES));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A body that was read as an object.
#[derive(Debug, Default)]
pub struct Decoded {
    pub value: Value,
    /// Paths of fields that stood there twice.
    pub twice: Vec<String>,
}

/// The media type of a request without its parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Decodes by media type; with none, JSON is assumed, as Kubernetes does.
pub fn decode(media: &str, bytes: &[u8]) -> Result<Decoded, ApiError> {
    let unreadable =
        |error: String| ApiError::bad_request(format!("the request body cannot be read: {error}"));
    let (value, twice) = match media {
        "" | "application/json" => strict::from_json(bytes).map_err(unreadable)?,
        "application/yaml" | "application/x-yaml" | "text/yaml" => {
            strict::from_yaml(bytes).map_err(unreadable)?
        }
        "application/vnd.kubernetes.protobuf" => {
            let value = protobuf::decode(bytes).map_err(|error| match error {
                protobuf::ProtobufError::UnknownKind(_) => {
                    ApiError::new(415, "UnsupportedMediaType", error.to_string())
                }
                error => unreadable(error.to_string()),
            })?;
            (value, Vec::new())
        }
        other => return Err(ApiError::unsupported_media_type(other, ACCEPTED)),
    };
    Ok(Decoded { value, twice })
}

/// Checks that an object is of the kind, drops what the kind does not have, and returns the object with the
/// warnings that the client wished for.
pub fn check(
    kind: &Kind,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let Decoded { mut value, twice } = decoded;
    let cannot = |why: String| {
        let message =
            format!("{0} in version \"{1}\" cannot be handled as a {0}: {why}", kind.kind, kind.version);
        ApiError::bad_request(message)
    };
    if !value.is_object() {
        return Err(cannot("the body is not an object".into()));
    }
    for (field, expected) in [("kind", kind.kind), ("apiVersion", kind.api_version().as_str())] {
        match value.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" => value[field] = expected.into(),
            given if given == expected => {}
            given => {
                let message = format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({expected})"
                );
                return Err(ApiError::bad_request(message));
            }
        }
    }
    normalize(&mut value);
    let known = (kind.decode)(&value).map_err(|why| match strict::culprit(&value, &kind.decode) {
        field if field.is_empty() => cannot(why),
        field => cannot(format!("{field}: {why}")),
    })?;
    let mut complaints: Vec<String> = Vec::new();
    if validation != FieldValidation::Ignore {
        complaints.extend(twice.iter().map(|path| format!("duplicate field \"{path}\"")));
        let unknown = strict::unknown_fields(&value, &known);
        complaints.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    }
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(cannot(format!("strict decoding error: {}", complaints.join(", "))));
    }
    Ok((known, complaints))
}

/// Forms that Go reads and the model does not: quantities as plain numbers (`cpu: 2`), and empty values in maps
/// of strings (`label:`).
fn normalize(value: &mut Value) {
    const AMOUNTS: &[&str] = &["limits", "requests", "capacity", "allocatable", "overhead", "hard", "used"];
    const TEXTS: &[&str] = &["labels", "annotations", "data", "stringData", "matchLabels", "nodeSelector"];
    let stringify = |value: &mut Value| {
        if let Value::Number(number) = value {
            *value = number.to_string().into();
        }
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value) {
                    (key, Value::Object(texts)) if TEXTS.contains(&key) => {
                        texts.values_mut().filter(|text| text.is_null()).for_each(|text| *text = "".into());
                    }
                    (key, Value::Object(amounts)) if AMOUNTS.contains(&key) => {
                        amounts.values_mut().for_each(stringify);
                    }
                    ("sizeLimit", value) => stringify(value),
                    (_, value) => normalize(value),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds;

    fn check_yaml(text: &str, validation: FieldValidation) -> Result<(Value, Vec<String>), String> {
        let kind = kinds::find("apps", "v1", "deployments").unwrap();
        let decoded = decode("application/yaml", text.as_bytes()).unwrap();
        check(kind, decoded, validation).map_err(|error| error.message)
    }

    const UNKNOWN: &str = "apiVersion: apps/v1\nkind: Deployment\nspec:\n  x: 1\n";

    #[test]
    fn unknown_fields_are_refused_warned_of_or_dropped() {
        let refused = check_yaml(UNKNOWN, FieldValidation::Strict).unwrap_err();
        let expected = "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
                        unknown field \"spec.x\"";
        assert_eq!(refused, expected);
        let (value, warnings) = check_yaml(UNKNOWN, FieldValidation::Warn).unwrap();
        assert_eq!(warnings, ["unknown field \"spec.x\""]);
        assert!(value["spec"].get("x").is_none());
        let (_, warnings) = check_yaml(UNKNOWN, FieldValidation::Ignore).unwrap();
        assert!(warnings.is_empty());
    }

    #[test]
    fn numbers_are_quantities_and_other_kinds_are_refused() {
        let text = "spec: {template: {spec: {containers: [{name: a, resources: {limits: {cpu: 2}}}]}}}";
        let (value, _) = check_yaml(text, FieldValidation::Strict).unwrap();
        let limit = value.pointer("/spec/template/spec/containers/0/resources/limits/cpu").unwrap();
        assert_eq!(limit, "2");
        let other = check_yaml("kind: Pod", FieldValidation::Ignore).unwrap_err();
        assert!(other.contains("does not match the expected kind (Deployment)"), "{other}");
        let wrong = check_yaml("spec: {replicas: many}", FieldValidation::Ignore).unwrap_err();
        assert!(wrong.contains("spec.replicas: invalid type"), "{wrong}");
    }
}
