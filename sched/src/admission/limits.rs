//! LimitRanges: what a container asks for that says nothing, and the least and most that may be asked for
//! (<https://kubernetes.io/docs/concepts/policy/limit-range/>).

use super::amount::{Amount, Amounts, amounts, of_container};
use super::usage;
use crate::state::Store;
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Where it is told what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// What it is told as in messages about whole pods and claims.
const CONTAINER: &str = "Container";
const POD: &str = "Pod";
const CLAIM: &str = "PersistentVolumeClaim";

fn items(store: &Store, namespace: Option<&str>) -> Vec<LimitRangeItem> {
    let ranges = store.list_as::<LimitRange>(Some(namespace.unwrap_or_default()));
    ranges.iter().filter_map(|range| range.spec.clone()).flat_map(|spec| spec.limits).collect()
}

pub(super) fn complete(store: &Store, pod: &mut Pod) {
    let items = items(store, pod.metadata.namespace.as_deref());
    let (mut limits, mut requests) = (BTreeMap::new(), BTreeMap::new());
    // Of several that say something about a resource, the first one is heard.
    for item in items.into_iter().filter(|item| item.type_ == CONTAINER).rev() {
        limits.extend(item.default.into_iter().flatten());
        requests.extend(item.default_request.into_iter().flatten());
    }
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut told = Vec::new();
    let spec = pod.spec.get_or_insert_default();
    for container in &mut spec.containers {
        fill(container, "container", &limits, &requests, &mut told);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        fill(container, "init container", &limits, &requests, &mut told);
    }
    if !told.is_empty() {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.into(), format!("LimitRanger plugin set: {}", told.join("; ")));
    }
}

fn fill(
    container: &mut Container,
    what: &str,
    limits: &BTreeMap<String, Quantity>,
    requests: &BTreeMap<String, Quantity>,
    told: &mut Vec<String>,
) {
    let resources = container.resources.get_or_insert_default();
    for (given, defaults, kind) in
        [(&mut resources.requests, requests, "request"), (&mut resources.limits, limits, "limit")]
    {
        let missing: Vec<&String> = defaults
            .keys()
            .filter(|name| given.as_ref().is_none_or(|given| !given.contains_key(*name)))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
        told.push(format!("{} {kind} for {what} {}", names.join(", "), container.name));
        let filled = given.get_or_insert_default();
        missing.into_iter().for_each(|name| drop(filled.insert(name.clone(), defaults[name].clone())));
    }
}

pub(super) fn check(store: &Store, pod: &Pod) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(spec) = &pod.spec else { return reasons };
    for item in items(store, pod.metadata.namespace.as_deref()) {
        match item.type_.as_str() {
            CONTAINER => {
                let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
                for container in all {
                    let (requests, limits) = of_container(container.resources.as_ref());
                    hold(&item, CONTAINER, &requests, &limits, &mut reasons);
                }
            }
            POD => {
                let (requests, limits) = usage::of_containers(spec);
                hold(&item, POD, &requests, &limits, &mut reasons);
            }
            _ => {}
        }
    }
    reasons
}

pub(super) fn check_claim(store: &Store, claim: &PersistentVolumeClaim) -> Vec<String> {
    let mut reasons = Vec::new();
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let asked = amounts(resources.and_then(|resources| resources.requests.as_ref()));
    let Some(asked) = asked.get("storage") else { return reasons };
    for item in items(store, claim.metadata.namespace.as_deref()).iter().filter(|item| item.type_ == CLAIM) {
        let bound =
            |given: &Option<BTreeMap<String, Quantity>>| amounts(given.as_ref()).get("storage").copied();
        if let Some(least) = bound(&item.min).filter(|least| asked.millis < least.millis) {
            reasons.push(format!("minimum storage usage per {CLAIM} is {least}, but request is {asked}"));
        }
        if let Some(most) = bound(&item.max).filter(|most| asked.millis > most.millis) {
            reasons.push(format!("maximum storage usage per {CLAIM} is {most}, but request is {asked}"));
        }
    }
    reasons
}

/// Holds what is asked for against the bounds of one item.
fn hold(item: &LimitRangeItem, per: &str, requests: &Amounts, limits: &Amounts, reasons: &mut Vec<String>) {
    for (name, least) in amounts(item.min.as_ref()) {
        let bound = format!("minimum {name} usage per {per} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => reasons.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if request.millis < least.millis => {
                reasons.push(format!("{bound}, but request is {request}"));
            }
            (_, Some(limit)) if limit.millis < least.millis => {
                reasons.push(format!("{bound}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    for (name, most) in amounts(item.max.as_ref()) {
        let bound = format!("maximum {name} usage per {per} is {most}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => reasons.push(format!("{bound}.  No limit is specified")),
            (Some(limit), _) if limit.millis > most.millis => {
                reasons.push(format!("{bound}, but limit is {limit}"));
            }
            (_, Some(request)) if request.millis > most.millis => {
                reasons.push(format!("{bound}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(item.max_limit_request_ratio.as_ref()) {
        let bound = format!("{name} max limit to request ratio per {per} is {ratio}");
        let some = |amount: Option<&Amount>| amount.copied().filter(|amount| amount.millis != 0);
        match (some(requests.get(&name)), some(limits.get(&name))) {
            (None, _) => reasons.push(format!("{bound}, but no request is specified or request is 0")),
            (_, None) => reasons.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                // limit / request > ratio, without fractions; all are in thousandths.
                if limit.millis.saturating_mul(1000) > ratio.millis.saturating_mul(request.millis) {
                    let provided = limit.millis as f64 / request.millis as f64;
                    reasons.push(format!("{bound}, but provided ratio is {provided:.6}"));
                }
            }
        }
    }
}
