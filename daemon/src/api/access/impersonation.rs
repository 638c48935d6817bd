//! Acting as somebody else: `kubectl --as`. (Kubernetes, "Authenticating", user impersonation.)

use super::attributes::{Asked, Attributes};
use super::gate::authorize;
use super::policy::SERVICE_ACCOUNT;
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::api::ApiState;
use crate::api::auth::User;
use crate::api::status::ApiError;
use axum::http::HeaderMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// Groups and further values that one request may ask for.
const WISHES: usize = 256;

/// Whom the request is to be taken for: `user` itself, or whom it names and `user` may be.
pub fn wished(state: &ApiState, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let all = |name: &str| -> Result<Vec<String>, ApiError> {
        headers.get_all(name).iter().map(|value| readable(name, value.to_str().ok())).collect()
    };
    let name = all(USER)?.into_iter().next().unwrap_or_default();
    let mut groups = all(GROUP)?;
    let uid = all(UID)?.into_iter().next().unwrap_or_default();
    let mut extra: Vec<(String, String)> = Vec::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.push((key.to_owned(), readable(header.as_str(), value.to_str().ok())?));
        }
    }
    if name.is_empty() {
        return match groups.is_empty() && uid.is_empty() && extra.is_empty() {
            true => Ok(user),
            false => Err(ApiError::bad_request(
                "a group, a uid or more of a user is impersonated without the user: send Impersonate-User, too",
            )),
        };
    }
    if groups.len() + extra.len() > WISHES {
        return Err(ApiError::bad_request(format!("more than {WISHES} Impersonate-* headers")));
    }
    let may = |group: &str, resource: &str, part: &str, namespace: &str, name: &str| {
        let mut attributes = Attributes::object("impersonate", group, resource, namespace, name);
        if let Asked::Objects { subresource, .. } = &mut attributes.asked {
            part.clone_into(subresource);
        }
        authorize(state, &user, &attributes)
    };
    match name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            may("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                groups = crate::tokens::service_account_groups(namespace);
            }
        }
        None => may("", "users", "", "", &name)?,
    }
    for group in &all(GROUP)? {
        may("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        may("authentication.k8s.io", "uids", "", "", &uid)?;
    }
    for (key, value) in &extra {
        may("authentication.k8s.io", "userextras", key, "", value)?;
    }
    let is_anonymous = name == ANONYMOUS || groups.iter().any(|group| group == UNAUTHENTICATED);
    let own = if is_anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == own) {
        groups.push(own.to_owned());
    }
    tracing::info!(user = %user.name, r#as = %name, "a request is made as somebody else");
    let mut wished = User { name, groups, uid, ..User::default() };
    for (key, value) in extra {
        wished.extra.entry(key).or_default().push(value);
    }
    Ok(wished)
}

fn readable(header: &str, value: Option<&str>) -> Result<String, ApiError> {
    let unreadable = || ApiError::bad_request(format!("the header {header} cannot be read"));
    value.map(str::to_owned).ok_or_else(unreadable)
}
