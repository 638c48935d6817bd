//! Bodies: bytes to objects, with what the client should know about its mistakes.

use super::kinds::Kind;
use super::query::FieldValidation;
use super::schema::{Node, Scalar, Shape};
use super::status::ApiError;
use super::value::text;
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
    let Checked { known, twice, unknown, .. } = read_as(kind, decoded)?;
    let mut complaints: Vec<String> = Vec::new();
    if validation != FieldValidation::Ignore {
        complaints.extend(twice.iter().map(|path| format!("duplicate field \"{path}\"")));
        complaints.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    }
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(cannot(kind, &format!("strict decoding error: {}", complaints.join(", "))));
    }
    Ok((known, complaints))
}

/// Checks the part of an object that somebody applies, and returns it as it was written: what was left out stays out.
pub fn check_applied(
    kind: &Kind,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let Checked { mut given, twice, unknown, .. } = read_as(kind, decoded)?;
    let failed = |why: String| {
        let (name, version) = (text(&given, "/metadata/name"), kind.api_version());
        let subject = match text(&given, "/metadata/namespace") {
            "" => format!("/{name}"),
            namespace => format!("{namespace}/{name}"),
        };
        let message =
            format!("failed to create typed patch object ({subject}; {version}, Kind={}): {why}", kind.kind);
        ApiError::bad_request(message)
    };
    // Fields that nobody could manage: no wish of the client's makes them pass.
    if !unknown.is_empty() {
        let lines: Vec<String> =
            unknown.iter().map(|path| format!(".{path}: field not declared in schema")).collect();
        return Err(failed(lines.join("\n")));
    }
    let complaints: Vec<String> = match validation {
        FieldValidation::Ignore => Vec::new(),
        _ => twice.iter().map(|path| format!("duplicate field \"{path}\"")).collect(),
    };
    if validation == FieldValidation::Strict && !complaints.is_empty() {
        return Err(cannot(kind, &format!("strict decoding error: {}", complaints.join(", "))));
    }
    drop_nulls(&mut given);
    Ok((given, complaints))
}

/// An object that was read as one of a kind.
struct Checked {
    /// As it was written, without fields that the kind does not have.
    given: Value,
    /// As the Kubernetes type holds it.
    known: Value,
    twice: Vec<String>,
    unknown: Vec<String>,
}

fn cannot(kind: &Kind, why: &str) -> ApiError {
    let message =
        format!("{0} in version \"{1}\" cannot be handled as a {0}: {why}", kind.kind, kind.version);
    ApiError::bad_request(message)
}

fn read_as(kind: &Kind, decoded: Decoded) -> Result<Checked, ApiError> {
    let Decoded { value: mut given, twice } = decoded;
    if !given.is_object() {
        return Err(cannot(kind, "the body is not an object"));
    }
    for (field, expected) in [("kind", kind.kind.as_str()), ("apiVersion", kind.api_version().as_str())] {
        match given.get(field).and_then(Value::as_str).unwrap_or_default() {
            "" => given[field] = expected.into(),
            found if found == expected => {}
            found => {
                let message = format!(
                    "the {field} in the data ({found}) does not match the expected {field} ({expected})"
                );
                return Err(ApiError::bad_request(message));
            }
        }
    }
    let mut unknown = Vec::new();
    if let Some(of) = kind.node() {
        normalize(&mut given, of);
        unknown = strict::drop_unknown(&mut given, of);
    }
    let decode = |value: &Value| kind.decode(value);
    let known = decode(&given).map_err(|why| match strict::culprit(&given, &decode) {
        field if field.is_empty() => cannot(kind, &why),
        field => cannot(kind, &format!("{field}: {why}")),
    })?;
    Ok(Checked { given, known, twice, unknown })
}

/// A field that is null is one that was left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Forms that Go reads and the model does not: quantities as plain numbers (`cpu: 2`), empty values in maps of strings
/// (`label:`), and base64 of several lines.
fn normalize(value: &mut Value, of: Node<'_>) {
    match value {
        Value::Number(number) if matches!(of.shape(), Shape::Scalar(Scalar::Quantity)) => {
            *value = number.to_string().into();
        }
        Value::String(text) if matches!(of.shape(), Shape::Scalar(Scalar::Bytes)) => {
            text.retain(|c| !matches!(c, '\n' | '\r'));
        }
        Value::Array(items) => {
            let Some(of) = of.items() else { return };
            items.iter_mut().for_each(|item| normalize(item, of));
        }
        Value::Object(fields) => {
            let in_map = matches!(of.shape(), Shape::Map { .. });
            for (key, value) in fields {
                let Some(of) = of.child(key) else { continue };
                match (&*value, of.shape()) {
                    (Value::Null, Shape::Scalar(Scalar::Text | Scalar::Bytes)) if in_map => {
                        *value = "".into()
                    }
                    _ => normalize(value, of),
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
    fn base64_may_be_wrapped() {
        let kind = kinds::find("", "v1", "secrets").unwrap();
        let text = "data: {a: \"aGVs\\nbG8=\\n\", b: }";
        let decoded = decode("application/yaml", text.as_bytes()).unwrap();
        let (value, _) = check(kind, decoded, FieldValidation::Strict).unwrap();
        assert_eq!(value["data"], serde_json::json!({"a": "aGVsbG8=", "b": ""}));
    }

    #[test]
    fn numbers_are_quantities_and_other_kinds_are_refused() {
        let text = "spec: {template: {spec: {containers: [{name: a, resources: {limits: {cpu: 2}}}]}}}";
        let (value, _) = check_yaml(text, FieldValidation::Strict).unwrap();
        let limit = value.pointer("/spec/template/spec/containers/0/resources/limits/cpu").unwrap();
        assert_eq!(limit, "2");
        let (value, _) = check_yaml("metadata: {labels: {a: }}", FieldValidation::Strict).unwrap();
        assert_eq!(value["metadata"]["labels"]["a"], "");
        let other = check_yaml("kind: Pod", FieldValidation::Ignore).unwrap_err();
        assert!(other.contains("does not match the expected kind (Deployment)"), "{other}");
        let wrong = check_yaml("spec: {replicas: many}", FieldValidation::Ignore).unwrap_err();
        assert!(wrong.contains("spec.replicas: invalid type"), "{wrong}");
    }
}
