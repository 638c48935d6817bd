//! Reviews: questions about who one is and who may what, asked by creating an object, which is answered and kept
//! nowhere.
//!
//! `kubectl auth can-i` and `kubectl auth whoami` ask them. What is answered is what `access` decides by.

use super::ApiState;
use super::access::{Attributes, Policy, Verdict};
use super::auth::User;
use super::body;
use super::discovery::Answered;
use super::kinds::Scope;
use super::schema::{Describe, describe};
use super::status::{ApiError, json_response};
use super::value::{items, set, text};
use crate::tokens::AUDIENCE;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenReview};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};

pub const VERSION: &str = "v1";

/// One kind of question.
pub struct Review {
    pub group: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub scope: Scope,
    pub describe: Describe,
    status: fn(&Asking) -> Result<Value, ApiError>,
}

/// A question as it was asked.
struct Asking<'a> {
    review: &'a Review,
    state: &'a ApiState,
    user: &'a User,
    /// Empty for questions that are in none.
    namespace: &'a str,
    spec: &'a Value,
}

pub static ALL: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        scope: Scope::Cluster,
        describe: describe::<SelfSubjectReview>,
        status: |asking| Ok(json!({"userInfo": asking.user.to_info()})),
    },
    Review {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        scope: Scope::Cluster,
        describe: describe::<TokenReview>,
        status: |asking| asking.token(),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        scope: Scope::Cluster,
        describe: describe::<SelfSubjectAccessReview>,
        status: |asking| asking.may(asking.user),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        scope: Scope::Cluster,
        describe: describe::<SelfSubjectRulesReview>,
        status: |asking| asking.rules(),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        scope: Scope::Cluster,
        describe: describe::<SubjectAccessReview>,
        status: |asking| asking.may(&asking.subject()?),
    },
    Review {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        scope: Scope::Namespaced,
        describe: describe::<LocalSubjectAccessReview>,
        status: |asking| {
            let namespace = text(asking.spec, "/resourceAttributes/namespace");
            match namespace == asking.namespace {
                true => asking.may(&asking.subject()?),
                false => Err(ApiError::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {}",
                    asking.namespace
                ))),
            }
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
        scope: review.scope,
        verbs: &["create"],
    })
}

impl Asking<'_> {
    fn may(&self, user: &User) -> Result<Value, ApiError> {
        let attributes = Attributes::of_review(self.spec).map_err(|error| self.invalid(&error.message))?;
        let verdict = self.state.view.read(|store| Policy(store).decide(user, &attributes));
        let mut status = json!({"allowed": verdict.is_allowed()});
        if !verdict.reason().is_empty() {
            set(&mut status, "reason", verdict.reason());
        }
        if let Verdict::Denied(reason) = &verdict
            && !reason.is_empty()
        {
            set(&mut status, "evaluationError", reason.as_str());
        }
        Ok(status)
    }

    /// The one that a question is about who is not the one that asks.
    fn subject(&self) -> Result<User, ApiError> {
        let groups = items(self.spec, "/groups").iter().filter_map(Value::as_str).map(str::to_owned);
        let (name, groups) = (text(self.spec, "/user").to_owned(), groups.collect::<Vec<_>>());
        if name.is_empty() && groups.is_empty() {
            let why = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
            return Err(self.invalid(why));
        }
        Ok(User { name, groups, ..User::default() })
    }

    fn token(&self) -> Result<Value, ApiError> {
        let token = text(self.spec, "/token");
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let mut audiences: Vec<&str> =
            items(self.spec, "/audiences").iter().filter_map(Value::as_str).collect();
        if audiences.is_empty() {
            audiences.push(AUDIENCE);
        }
        Ok(match self.state.tokens.review(token, &audiences) {
            Some((user, audiences)) => {
                json!({"authenticated": true, "user": user.to_info(), "audiences": audiences})
            }
            None => {
                json!({"user": {}, "error": "the token is not known, not for these audiences, or no longer good"})
            }
        })
    }

    fn rules(&self) -> Result<Value, ApiError> {
        let namespace = text(self.spec, "/namespace");
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let held = self.state.view.read(|store| Policy(store).held(self.user, namespace));
        let (paths, objects): (Vec<&PolicyRule>, Vec<_>) =
            held.rules.iter().partition(|rule| rule.non_resource_urls.iter().flatten().next().is_some());
        let with = |rule: &PolicyRule, fields: &[(&str, &Option<Vec<String>>)]| {
            let mut shown = json!({"verbs": rule.verbs});
            for (field, list) in fields {
                if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                    set(&mut shown, field, list.as_slice());
                }
            }
            shown
        };
        let objects = objects.into_iter().map(|rule| {
            let fields = [
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
                ("resourceNames", &rule.resource_names),
            ];
            with(rule, &fields)
        });
        let paths = paths.into_iter().map(|rule| with(rule, &[("nonResourceURLs", &rule.non_resource_urls)]));
        let mut status = json!({"incomplete": false, "resourceRules": objects.collect::<Vec<_>>(),
            "nonResourceRules": paths.collect::<Vec<_>>()});
        if !held.missing.is_empty() {
            set(&mut status, "evaluationError", held.missing.join(", "));
        }
        Ok(status)
    }

    fn invalid(&self, why: &str) -> ApiError {
        let Review { group, kind, .. } = self.review;
        ApiError::new(422, "Invalid", format!("{kind}.{group} \"\" is invalid: {why}"))
    }
}

impl Review {
    /// Where it is asked, as the router writes paths.
    pub fn route(&self) -> String {
        let inside = if self.scope == Scope::Namespaced { "namespaces/{namespace}/" } else { "" };
        format!("/apis/{}/{VERSION}/{inside}{}", self.group, self.plural)
    }

    /// `POST` of such an object.
    pub async fn answer(
        &self,
        state: &ApiState,
        user: &User,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Response {
        match self.answered(state, user, uri, headers, body).await {
            Ok(answer) => json_response(201, &answer),
            Err(error) => error.into_response(),
        }
    }

    async fn answered(
        &self,
        state: &ApiState,
        user: &User,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Value, ApiError> {
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
        let attributes = Attributes::of(&Method::POST, uri);
        let asking = Asking {
            review: self,
            state,
            user,
            namespace: attributes.namespace(),
            spec: review.get("spec").unwrap_or(&Value::Null),
        };
        let status = (self.status)(&asking)?;
        set(&mut review, "status", status);
        Ok(review)
    }
}
