//! Bindings of roles.

use crate::api::value::{child, default_to, items_mut, text};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn binding(binding: &mut Value) {
    default_to(child(binding, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(binding, "subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            default_to(subject, "apiGroup", GROUP);
        }
    }
}
