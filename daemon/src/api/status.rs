//! Errors as Kubernetes clients read them: a `Status` object with reason, code and details.

use super::apply::{ApplyError, CONFLICTS_SHOWN, Conflict};
use super::kinds::{self, Kind};
use crate::documents::{DocumentError, Trouble};
use crate::pods::StreamError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use gaggle_sched::controller::disruption::Blocked;
use gaggle_sched::state::{Refused, Unavailable};
use serde_json::{Value, json};

/// How many seconds a client should wait before it tries again when nobody could order its write.
const RETRY_AFTER_S: u32 = 1;
/// The same for an eviction whose budget is about to be counted.
const UNCOUNTED_S: u32 = 10;

/// One reason why an object was found invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

/// A request that failed, and what the client is told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    details: Option<Box<Value>>,
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after_s: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} \"{name}\" is forbidden: {why}", kind.qualified()))
            .about(kind, name)
    }

    /// Somebody may not do something with a resource, which need not be one that is served.
    pub fn forbidden_of(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let subject = match (resource, group) {
            ("", _) => "forbidden".to_owned(),
            (resource, "") => resource.to_owned(),
            (resource, group) => format!("{resource}.{group}"),
        };
        let message = match (resource, name) {
            ("", _) => format!("{subject}: {why}"),
            (_, "") => format!("{subject} is forbidden: {why}"),
            (_, name) => format!("{subject} {name:?} is forbidden: {why}"),
        };
        let mut error = Self::new(403, "Forbidden", message);
        let mut details = json!({"kind": resource});
        for (field, value) in [("name", name), ("group", group)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        error.details = Some(Box::new(details));
        error
    }

    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(kind, name)
    }

    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(406, "NotAcceptable", message)
    }

    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    pub fn modified(kind: &Kind, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// Why something cannot be applied, such as fields that others manage.
    pub fn from_apply(error: ApplyError) -> Self {
        let message = error.to_string();
        let conflicts = match error {
            ApplyError::Conflicts(conflicts) => conflicts,
            ApplyError::Malformed(_) => {
                return Self::bad_request(format!("the object cannot be applied: {message}"));
            }
        };
        let causes: Vec<Value> = conflicts
            .iter()
            .take(CONFLICTS_SHOWN)
            .map(|Conflict { with, field }| {
                let message = format!("conflict with {with}");
                json!({"reason": "FieldManagerConflict", "message": message, "field": field})
            })
            .collect();
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(Box::new(json!({"causes": causes})));
        error
    }

    pub fn expired(why: impl Into<String>) -> Self {
        Self::new(410, "Expired", why)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit} bytes");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(got: &str, accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({got}) - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let lines: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let all = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let subject = match kind.group.as_str() {
            "" => kind.kind.clone(),
            group => format!("{}.{group}", kind.kind),
        };
        let mut error = Self::new(422, "Invalid", format!("{subject} \"{name}\" is invalid: {all}"));
        let causes: Vec<Value> = causes
            .iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        let details = json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        error.details = Some(Box::new(details));
        error
    }

    /// What a list or a watch may not ask for.
    pub fn list_options(why: &str) -> Self {
        Self::options("ListOptions", why)
    }

    /// What a request's parameters may not say; `options` is what Kubernetes calls them together.
    pub fn options(options: &str, why: &str) -> Self {
        Self::new(422, "Invalid", format!("{options}.meta.k8s.io \"\" is invalid: {why}"))
    }

    /// A disruption budget stands against an eviction. Without a `Retry-After` while it is spent: clients would try again
    /// in silence, and nobody would learn what they wait for.
    pub fn disrupts(blocked: &Blocked) -> Self {
        if *blocked == Blocked::Several {
            return Self::internal(blocked);
        }
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        let mut error = Self::new(429, "TooManyRequests", message);
        let causes = json!([{"reason": "DisruptionBudget", "message": blocked.to_string()}]);
        let mut details = json!({"causes": causes});
        if let Blocked::NotCounted(_) = blocked {
            error.retry_after_s = Some(UNCOUNTED_S);
            details["retryAfterSeconds"] = UNCOUNTED_S.into();
        }
        error.details = Some(Box::new(details));
        error
    }

    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }

    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", why).retry()
    }

    /// The revision that was asked for has not reached this node yet.
    pub fn not_yet(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", message).retry();
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        error.details = Some(Box::new(json!({"causes": causes, "retryAfterSeconds": RETRY_AFTER_S})));
        error
    }

    /// Why a change has no place in this desktop's documents. 507 is WebDAV's, and says what it is.
    pub fn from_documents(error: &DocumentError) -> Self {
        match error.kind {
            Trouble::Disk => Self::new(507, "InsufficientStorage", format!("{error}; nothing was changed")),
            Trouble::Behind => Self::unavailable(error.to_string()),
            Trouble::Other => Self::internal(error),
        }
    }

    /// What the order of writes said no to: the object, or what was to be written together with it.
    pub fn refused(kind: &Kind, refused: &Refused) -> Self {
        let (name, resource) = (&refused.key().name, &refused.key().resource);
        if *resource != kind.resource() {
            let other =
                kinds::all().find(|other| other.resource() == *resource).map_or(kind, |other| &**other);
            if other.is("policy", "PodDisruptionBudget") {
                return Self::disrupts(&Blocked::NotCounted(name.clone()));
            }
            return Self::modified(other, name);
        }
        match refused {
            Refused::AlreadyExists(_) => Self::already_exists(kind, name),
            Refused::NotFound(_) => Self::not_found(kind, name),
            Refused::Conflict { .. } => Self::modified(kind, name),
        }
    }

    /// Why a stream of a pod cannot be had.
    pub fn from_stream(error: StreamError) -> Self {
        match error {
            StreamError::BadRequest(why) => Self::bad_request(why),
            StreamError::NotFound(why) => Self::new(404, "NotFound", why),
            StreamError::Unavailable(why) => Self::unavailable(why),
        }
    }

    pub fn from_unavailable(unavailable: &Unavailable) -> Self {
        match unavailable {
            Unavailable::NoQuorum(why) => Self::unavailable(format!(
                "{why}: less than half of the cluster's desktops can be reached, and this change cannot be kept \
                 until they are back; try again then"
            )),
            Unavailable::Unknown(why) => {
                let message =
                    format!("{why}: the change may or may not have happened; read the object and try again");
                // No `Retry-After`: clients would repeat a creation that has happened, and call it a clash.
                Self::new(504, "Timeout", message)
            }
            Unavailable::Busy(waiting) => {
                let message = format!("{waiting} changes are waiting to be ordered, try again later");
                Self::new(429, "TooManyRequests", message).retry()
            }
        }
    }

    fn retry(mut self) -> Self {
        self.retry_after_s = Some(RETRY_AFTER_S);
        self
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = Some(Box::new(json!({"name": name, "group": kind.group, "kind": kind.plural})));
        self
    }

    /// The `Status` object, also sent inside watches.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        if let (Some(seconds), true) = (self.retry_after_s, self.details.is_none()) {
            status["details"] = json!({"retryAfterSeconds": seconds});
        }
        status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.code, &self.to_status());
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == 401 {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer.
pub fn json_response(code: u16, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Adds a warning that kubectl prints. Characters that a header cannot carry are left out.
pub fn warn(response: &mut Response, text: &str) {
    let clean: String = text
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 gaggle \"{clean}\"")) {
        response.headers_mut().append(header::WARNING, value);
    }
}
