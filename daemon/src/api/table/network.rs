//! Ingresses, network policies and endpoints.

use super::{Column, age, column, name, name_column, or_none, selector};
use crate::api::value::{int, items, text};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// Addresses that are shown of many.
const SHOWN: usize = 3;

pub const INGRESS: &[Column] =
    &[name_column(), column("Class"), column("Hosts"), column("Address"), column("Ports"), column("Age")];

pub fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<&str> = items(object, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host"))
        .filter(|host| !host.is_empty())
        .collect();
    let addresses: Vec<&str> = items(object, "/status/loadBalancer/ingress")
        .iter()
        .map(|one| match text(one, "/ip") {
            "" => text(one, "/hostname"),
            ip => ip,
        })
        .collect();
    let ports = if items(object, "/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        or_none(text(object, "/spec/ingressClassName")),
        if hosts.is_empty() { "*".into() } else { few(&hosts).into() },
        addresses.join(",").into(),
        ports.into(),
        age(object, now),
    ]
}

pub const INGRESS_CLASS: &[Column] =
    &[name_column(), column("Controller"), column("Parameters"), column("Age")];

pub fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |field: &str| text(object, &format!("/spec/parameters/{field}"));
    let parameters = match (of("apiGroup"), of("kind"), of("name")) {
        (_, "", _) => "<none>".to_owned(),
        ("", kind, name) => format!("{kind}/{name}"),
        (group, kind, name) => format!("{kind}.{group}/{name}"),
    };
    vec![name(object), text(object, "/spec/controller").into(), parameters.into(), age(object, now)]
}

pub const POLICY: &[Column] = &[name_column(), column("Pod-Selector"), column("Age")];

pub fn policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(object, "/spec/podSelector").into(), age(object, now)]
}

pub const ENDPOINTS: &[Column] = &[name_column(), column("Endpoints"), column("Age")];

pub fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in items(object, "/subsets") {
        for address in items(subset, "/addresses") {
            let ip = text(address, "/ip");
            let ports = items(subset, "/ports");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            all.extend(ports.iter().map(|port| format!("{ip}:{}", int(port, "/port").unwrap_or(0))));
        }
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    vec![name(object), or_none(&few(&all)), age(object, now)]
}

pub const SLICE: &[Column] =
    &[name_column(), column("AddressType"), column("Ports"), column("Endpoints"), column("Age")];

pub fn slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "/ports")
        .iter()
        .map(|port| int(port, "/port").map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let endpoints = items(object, "/endpoints").iter();
    let all: Vec<&str> =
        endpoints.flat_map(|one| items(one, "/addresses")).filter_map(Value::as_str).collect();
    let shown = |all: &[&str]| if all.is_empty() { Value::from("<unset>") } else { few(all).into() };
    vec![name(object), text(object, "/addressType").into(), shown(&ports), shown(&all), age(object, now)]
}

/// The first of many, and how many more there are.
fn few(all: &[&str]) -> String {
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => all.join(","),
        Some(more) => format!("{} + {more} more...", all[..SHOWN].join(",")),
    }
}
