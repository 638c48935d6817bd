//! Ingresses, network policies and endpoints.

use crate::api::value::{as_map, child, default_to, is_set, items, items_mut, set};
use serde_json::{Value, json};

pub fn endpoints(endpoints: &mut Value) {
    for subset in items_mut(endpoints, "subsets") {
        items_mut(subset, "ports").iter_mut().for_each(|port| default_to(port, "protocol", "TCP"));
    }
}

pub fn slice(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        default_to(port, "protocol", "TCP");
        as_map(port).entry("name").or_insert_with(|| json!(""));
    }
}

pub fn ingress_class(class: &mut Value) {
    if is_set(class, "/spec/parameters") {
        default_to(child(child(class, "spec"), "parameters"), "scope", "Cluster");
    }
}

/// A policy that names no direction is about what comes in, and about what goes out if it says something of that.
pub fn policy(policy: &mut Value) {
    let spec = child(policy, "spec");
    if items(spec, "/policyTypes").is_empty() {
        let out = !items(spec, "/egress").is_empty();
        let types = if out { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        set(spec, "policyTypes", types);
    }
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            items_mut(rule, "ports").iter_mut().for_each(|port| default_to(port, "protocol", "TCP"));
        }
    }
}
