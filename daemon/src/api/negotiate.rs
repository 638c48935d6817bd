//! In which form an answer is wanted: the `Accept` header.

use super::kinds::Kind;
use super::status::ApiError;
use super::table::{RowObject, partial, table};
use axum::http::{HeaderMap, header};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// The forms in which objects can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    Table(RowObject),
    /// Metadata alone.
    Partial,
}

impl Form {
    /// The first acceptable form in the order in which the client names them, as Kubernetes does.
    pub fn of(headers: &HeaderMap, include_object: &str) -> Result<Self, ApiError> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
        for wanted in accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*" | "") {
                continue;
            }
            let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
            match parameter("as") {
                None => return Ok(Self::Object),
                Some("Table") => {
                    let with = match include_object {
                        "None" => RowObject::None,
                        "Object" => RowObject::Object,
                        _ => RowObject::Metadata,
                    };
                    return Ok(Self::Table(with));
                }
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => return Ok(Self::Partial),
                Some(_) => {}
            }
        }
        Err(ApiError::not_acceptable("application/json"))
    }

    /// One object in this form.
    pub fn object(self, kind: &Kind, object: &Value, now: Timestamp) -> Value {
        match self {
            Self::Object => kind.shown(object).into_owned(),
            Self::Partial => partial(object),
            Self::Table(with) => {
                let revision = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
                table(kind, [object], json!({"resourceVersion": revision}), with, now)
            }
        }
    }

    /// A list in this form; `metadata` is the list's.
    pub fn list<'a>(
        self,
        kind: &Kind,
        objects: impl IntoIterator<Item = &'a Value>,
        metadata: Value,
        now: Timestamp,
    ) -> Value {
        match self {
            Self::Table(with) => table(kind, objects, metadata, with, now),
            Self::Object => json!({
                "kind": kind.list, "apiVersion": kind.api_version(), "metadata": metadata,
                "items": objects.into_iter().map(|object| kind.shown(object).into_owned()).collect::<Vec<_>>(),
            }),
            Self::Partial => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": objects.into_iter().map(partial).collect::<Vec<_>>(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Result<Form, ApiError> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        Form::of(&headers, "")
    }

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Ok(Form::Table(RowObject::Metadata)));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Object));
        assert_eq!(form("application/vnd.kubernetes.protobuf, */*"), Ok(Form::Object));
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(form(partial), Ok(Form::Partial));
        assert_eq!(form("text/html").unwrap_err().code, 406);
        assert_eq!(Form::of(&HeaderMap::new(), ""), Ok(Form::Object));
    }
}
