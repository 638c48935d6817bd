//! Reviews: questions about oneself that are asked by creating an object, which is answered and kept nowhere.
//!
//! `kubectl auth can-i` and `kubectl auth whoami` ask them. Whoever has a token may do everything, so that there is
//! nothing to look up.

use super::auth::User;
use super::body;
use super::discovery::Answered;
use super::status::{ApiError, json_response};
use super::value::{set, text};
use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub const VERSION: &str = "v1";

/// One kind of question.
pub struct Review {
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    status: fn(&User) -> Value,
}

pub static ALL: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        status: |user| json!({"userInfo": {"username": user.name, "groups": user.groups}}),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        status: |_| json!({"allowed": true, "reason": "whoever has a token of this cluster may do everything"}),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        status: |_| {
            json!({"incomplete": false,
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
        },
    },
];

/// For discovery.
pub fn answered() -> impl Iterator<Item = Answered> {
    ALL.iter().map(|review| Answered {
        group: review.group,
        version: VERSION,
        kind: review.kind,
        plural: review.plural,
        singular: review.singular,
        is_namespaced: false,
        verbs: &["create"],
    })
}

impl Review {
    pub fn path(&self) -> String {
        format!("/apis/{}/{VERSION}/{}", self.group, self.plural)
    }

    /// `POST` of such an object.
    pub async fn answer(&self, user: &User, headers: &HeaderMap, body: Body) -> Response {
        match self.answered(user, headers, body).await {
            Ok(answer) => json_response(201, &answer),
            Err(error) => error.into_response(),
        }
    }

    async fn answered(&self, user: &User, headers: &HeaderMap, body: Body) -> Result<Value, ApiError> {
        let bytes = body::read(body).await?;
        let mut review = body::decode(body::media_type(headers), &bytes)?.value;
        if !review.is_object() {
            return Err(ApiError::bad_request("the body is not an object"));
        }
        let api_version = format!("{}/{VERSION}", self.group);
        for (field, expected) in [("kind", self.kind), ("apiVersion", api_version.as_str())] {
            let found = text(&review, &format!("/{field}"));
            if !found.is_empty() && found != expected {
                let message = format!(
                    "the {field} in the data ({found}) does not match the expected {field} ({expected})"
                );
                return Err(ApiError::bad_request(message));
            }
            set(&mut review, field, expected);
        }
        set(&mut review, "status", (self.status)(user));
        Ok(review)
    }
}
