//! Who is asking: bearer tokens, and the middleware that lets nobody else past.
//!
//! Anonymous requests get `/healthz`, `/livez`, `/readyz` and `/version` (with what follows them), as on a
//! Kubernetes API server; everything else needs a token. Tokens are never logged and have no Debug.

use super::access::{ANONYMOUS, UNAUTHENTICATED};
use super::status::ApiError;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who a token belongs to, in the words of Kubernetes' authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
    /// Empty where the name says it all.
    pub uid: String,
    /// What else is known, such as the pod that asks.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// As reviews show it.
    pub fn to_info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

/// Knows the users by their tokens.
pub trait Authenticate: Send + Sync + 'static {
    /// The user of a token, in a time that tells nothing about the tokens that are known.
    fn authenticate(&self, token: &str) -> Option<User>;
}

/// A fixed set of tokens, kept as digests.
pub struct Tokens(Vec<([u8; 32], User)>);

impl Tokens {
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = (T, User)>) -> Self {
        let digest = |token: &str| Sha256::digest(token.as_bytes()).into();
        Self(tokens.into_iter().map(|(token, user)| (digest(token.as_ref()), user)).collect())
    }
}

impl Authenticate for Tokens {
    fn authenticate(&self, token: &str) -> Option<User> {
        let given: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        // Every known token is compared in full: neither position nor common prefix shows in the time.
        let mut found = None;
        for (known, user) in &self.0 {
            let difference = known.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
            if std::hint::black_box(difference) == 0 {
                found = Some(user);
            }
        }
        found.cloned()
    }
}

/// For `axum::middleware::from_fn_with_state`: answers 401 without a known token, and puts the [`User`] into the
/// request's extensions otherwise.
pub async fn require_token(
    State(auth): State<Arc<dyn Authenticate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let user = match token {
        Some(token) => auth.authenticate(token),
        None if open_to_all(request.uri().path()) => {
            let groups = vec![UNAUTHENTICATED.to_owned()];
            Some(User { name: ANONYMOUS.to_owned(), groups, ..User::default() })
        }
        None => None,
    };
    let Some(user) = user else { return ApiError::unauthorized().into_response() };
    request.extensions_mut().insert(user);
    next.run(request).await
}

/// Whether a path tells how a desktop is and nothing else.
pub(super) fn open_to_all(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let groups = vec!["system:masters".into()];
        let user = User { name: "admin".into(), groups, ..User::default() };
        let tokens = Tokens::new([("secret", user.clone())]);
        assert_eq!(tokens.authenticate("secret"), Some(user));
        for wrong in ["", "secre", "secret ", "secrets", "SECRET"] {
            assert_eq!(tokens.authenticate(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_health_and_version_are_open() {
        assert!(open_to_all("/healthz") && open_to_all("/readyz/x") && open_to_all("/version"));
        for closed in ["/api", "/apis/version", "/versions", "/", "/openapi/v3", "/gaggle/v1/status"] {
            assert!(!open_to_all(closed), "{closed}");
        }
    }
}
