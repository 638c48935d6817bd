//! Handing out rights: nobody gives what he does not have.
//! (Kubernetes, "Using RBAC Authorization", privilege escalation prevention.)

use super::attributes::Attributes;
use super::policy::{self, Policy, told};
use super::rules;
use crate::api::ApiState;
use crate::api::auth::User;
use crate::api::kinds::Kind;
use crate::api::status::ApiError;
use crate::api::value::{is_set, text};
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use serde::Deserialize;
use serde_json::Value;

/// Whether what somebody writes of a kind was judged by what he holds himself. Without an order it could merge with what others
/// write of the same name on another side: a binding's role from there, and its subjects from here.
pub fn is_judged(user: &User, kind: &Kind) -> bool {
    kind.group == super::GROUP && !policy::is_master(user)
}

/// Whether `user` may write this role or binding; anything else passes. `before` is what it replaces.
pub fn check(
    state: &ApiState,
    user: &User,
    kind: &Kind,
    before: Option<&Value>,
    after: &Value,
) -> Result<(), ApiError> {
    if kind.group != super::GROUP
        || policy::is_master(user)
        || before.is_some_and(|before| is_upkeep(before, after))
    {
        return Ok(());
    }
    let (namespace, name) = (text(after, "/metadata/namespace"), text(after, "/metadata/name"));
    let may = |verb: &str, resource: &str, name: &str| {
        let attributes = Attributes::object(verb, super::GROUP, resource, namespace, name);
        state.view.read(|store| Policy(store).decide(user, &attributes).is_allowed())
    };
    let wanted = match kind.kind.as_str() {
        "Role" | "ClusterRole" => {
            if may("escalate", &kind.plural, name) {
                return Ok(());
            }
            let mut wanted: Vec<PolicyRule> = typed(after.get("rules"))?;
            let is_aggregated = |role: &Value| is_set(role, "/aggregationRule");
            // What it will hold is whatever others label.
            if is_aggregated(after) || before.is_some_and(is_aggregated) {
                wanted.extend(policy::everything());
            }
            wanted
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = RoleRef::deserialize(&after["roleRef"]).map_err(ApiError::internal)?;
            let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
            if may("bind", plural, &role.name) {
                return Ok(());
            }
            let rules = state.view.read(|store| Policy(store).rules_of(&role, namespace));
            rules.map_err(|_| {
                let message = format!("{plural}.{} \"{}\" not found", super::GROUP, role.name);
                ApiError::new(404, "NotFound", message)
            })?
        }
        _ => return Ok(()),
    };
    let held = state.view.read(|store| Policy(store).held(user, namespace));
    rules::covered(&held.rules, &wanted).map_err(|lacking| {
        let groups = rules::quoted(&user.groups);
        let mut why = format!(
            "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{lacking}",
            user.name
        );
        if !held.missing.is_empty() {
            why += &format!("; resolution errors: {}", told(&held.missing));
        }
        ApiError::forbidden(kind, name, &why)
    })
}

/// What a garbage collector changes: nothing that is granted.
fn is_upkeep(before: &Value, after: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    bare(before) == bare(after)
}

fn typed(rules: Option<&Value>) -> Result<Vec<PolicyRule>, ApiError> {
    let rules = rules.filter(|rules| !rules.is_null());
    rules.map_or(Ok(Vec::new()), |rules| Vec::deserialize(rules).map_err(ApiError::internal))
}
