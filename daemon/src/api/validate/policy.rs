//! LimitRanges, ResourceQuotas, PodDisruptionBudgets and PriorityClasses.

use super::{Problems, metadata, names, quantity, workload};
use crate::api::value::{flag, is_set, items, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The largest priority that is not the system's.
const HIGHEST_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";
/// Names without a group that a quota may bound, beside `requests.`, `limits.` and `count/` of something.
const QUOTA_NAMES: [&str; 12] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// Amounts that a quota may bound, and those of them that are of pods of a scope.
const AMOUNTS: [&str; 7] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
];
const COMPUTE: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 6] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
];

pub fn limit_range(object: &Value, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (i, item) in items(object, "/spec/limits").iter().enumerate() {
        let at = format!("spec.limits[{i}]");
        let of = text(item, "/type");
        if !seen.insert(of) {
            problems.duplicate(&format!("{at}.type"), of);
        }
        if of == "Pod" {
            for field in ["default", "defaultRequest"] {
                if item.get(field).and_then(Value::as_object).is_some_and(|given| !given.is_empty()) {
                    let why = "may not be specified when `type` is 'Pod'";
                    problems.forbidden(&format!("{at}.{field}"), why);
                }
            }
        }
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            for (resource, amount) in item.get(field).and_then(Value::as_object).into_iter().flatten() {
                quantity::check(problems, &format!("{at}.{field}[{resource}]"), amount);
            }
        }
        let bounded = ["min", "max"].iter().any(|bound| is_set(item, &format!("/{bound}/storage")));
        if of == "PersistentVolumeClaim" && !bounded {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            problems.required(&format!("{at}.limits"), why);
        }
        for (lower, upper, said, than) in [
            ("min", "max", "min value", "max value"),
            ("min", "defaultRequest", "min value", "default request value"),
            ("defaultRequest", "max", "default request value", "max value"),
            ("defaultRequest", "default", "default request value", "default limit value"),
            ("min", "default", "min value", "default value"),
            ("default", "max", "default value", "max value"),
        ] {
            in_order(&at, item, (lower, upper), (said, than), problems);
        }
        for (resource, ratio) in
            item.get("maxLimitRequestRatio").and_then(Value::as_object).into_iter().flatten()
        {
            let given = ratio.as_str().and_then(quantity::milli);
            if given.is_some_and(|ratio| (0..1000).contains(&ratio)) {
                let why = format!("ratio {} is less than 1", ratio.as_str().unwrap_or_default());
                problems.invalid(&format!("{at}.maxLimitRequestRatio[{resource}]"), ratio, &why);
            }
        }
    }
}

/// No resource may have a lower bound above its upper one.
fn in_order(
    at: &str,
    item: &Value,
    (lower, upper): (&str, &str),
    (said, than): (&str, &str),
    problems: &mut Problems,
) {
    // What is about a default is told at the default.
    let blamed = if matches!(upper, "default" | "defaultRequest") && lower == "min" { upper } else { lower };
    for (resource, low) in item.get(lower).and_then(Value::as_object).into_iter().flatten() {
        let Some(high) = item.get(upper).and_then(|upper| upper.get(resource)) else { continue };
        let amount = |value: &Value| value.as_str().and_then(quantity::milli);
        if let (Some(least), Some(most)) = (amount(low), amount(high))
            && least > most
        {
            let given = if blamed == lower { low } else { high };
            let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!("{said} {} is greater than {than} {}", plain(low), plain(high));
            problems.invalid(&format!("{at}.{blamed}[{resource}]"), given, &why);
        }
    }
}

pub fn resource_quota(object: &Value, problems: &mut Problems) {
    for (name, amount) in object.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten() {
        let field = format!("spec.hard[{name}]");
        let of_group = ["requests.", "limits.", "count/"].iter().any(|prefix| name.starts_with(prefix));
        if !of_group && !name.contains('/') && !QUOTA_NAMES.contains(&name.as_str()) {
            problems.invalid(&field, &name.as_str().into(), "must be a standard resource for quotas");
        }
        problems.form(&field, name, names::qualified_name);
        quantity::check(problems, &field, amount);
    }
    let given = object.pointer("/spec/scopes").unwrap_or(&Value::Null);
    let scopes: BTreeSet<&str> = items(object, "/spec/scopes").iter().filter_map(Value::as_str).collect();
    if scopes.iter().any(|scope| !SCOPES.contains(scope)) {
        problems.invalid("spec.scopes", given, "unsupported scope");
    }
    in_harmony("spec.scopes", given, &scopes, object, problems);
    let of_selector = object.pointer("/spec/scopeSelector/matchExpressions").unwrap_or(&Value::Null);
    let selected: BTreeSet<&str> = items(object, "/spec/scopeSelector/matchExpressions")
        .iter()
        .map(|one| text(one, "/scopeName"))
        .collect();
    in_harmony("spec.scopeSelector.matchExpressions", of_selector, &selected, object, problems);
    for (i, one) in items(object, "/spec/scopeSelector/matchExpressions").iter().enumerate() {
        let at = format!("spec.scopeSelector.matchExpressions[{i}]");
        let (scope, operator) = (text(one, "/scopeName"), text(one, "/operator"));
        if !SCOPES.contains(&scope) {
            problems.invalid(&format!("{at}.scopeName"), &scope.into(), "unsupported scope");
        }
        problems.one_of(&format!("{at}.operator"), operator, &["In", "NotIn", "Exists", "DoesNotExist"]);
        // Only classes have names to choose from; a pod is of another scope or it is not.
        if SCOPES.contains(&scope) && scope != "PriorityClass" && operator != "Exists" {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                       ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            problems.invalid(&format!("{at}.operator"), &operator.into(), why);
        }
        let lists = matches!(operator, "In" | "NotIn");
        if lists && items(one, "/values").is_empty() {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            problems.required(&format!("{at}.values"), why);
        } else if !lists && !items(one, "/values").is_empty() {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            problems.invalid(&format!("{at}.values"), one.get("values").unwrap_or(&Value::Null), why);
        }
    }
}

/// Scopes that no pod is of at once, and what a quota of them cannot bound.
fn in_harmony(at: &str, given: &Value, scopes: &BTreeSet<&str>, object: &Value, problems: &mut Problems) {
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(one) && scopes.contains(other) {
            problems.invalid(at, given, "conflicting scopes");
        }
    }
    let hard = object.pointer("/spec/hard").and_then(Value::as_object).into_iter().flatten();
    let standard = |name: &&String| QUOTA_NAMES.contains(&name.as_str()) || AMOUNTS.contains(&name.as_str());
    for name in hard.map(|(name, _)| name).filter(standard) {
        let of_pods = name == "pods" || COMPUTE.contains(&name.as_str());
        for scope in scopes.iter().filter(|scope| SCOPES.contains(scope)) {
            if !(if *scope == "BestEffort" { name == "pods" } else { of_pods }) {
                problems.invalid(at, given, "unsupported scope applied to resource");
            }
        }
    }
}

/// What is in use was counted for the scopes.
pub fn resource_quota_update(new: &Value, old: &Value, problems: &mut Problems) {
    problems.same("spec.scopes", new.pointer("/spec/scopes"), old.pointer("/spec/scopes"));
}

pub fn disruption_budget(object: &Value, problems: &mut Problems) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    if is_set(spec, "/minAvailable") && is_set(spec, "/maxUnavailable") {
        problems.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let percent = workload::bound("spec", spec, field, problems);
        let given = spec.get(field).unwrap_or(&Value::Null);
        if given.is_string() && percent.is_some_and(|percent| percent > 100) {
            problems.invalid(&format!("spec.{field}"), given, "must not be greater than 100%");
        }
    }
    if let Some(selector) = spec.get("selector").filter(|selector| !selector.is_null()) {
        metadata::label_selector("spec.selector", selector, problems);
    }
    if is_set(spec, "/unhealthyPodEvictionPolicy") {
        let policy = text(spec, "/unhealthyPodEvictionPolicy");
        problems.one_of("spec.unhealthyPodEvictionPolicy", policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

/// The counts of a budget that are always written.
pub fn nothing_counted() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

pub fn priority_class(object: &Value, problems: &mut Problems) {
    let (name, value) =
        (text(object, "/metadata/name"), object.get("value").and_then(Value::as_i64).unwrap_or(0));
    if name.starts_with(SYSTEM_PREFIX) {
        let known = gaggle_sched::admission::SYSTEM_CLASSES.iter().find(|class| class.0 == name);
        let error = match known {
            None => format!("{name} is not a known system priority class"),
            Some(class) if i64::from(class.1) != value => {
                format!("value of {name} PriorityClass must be {}", class.1)
            }
            Some(_) if flag(object, "/globalDefault") => {
                format!("globalDefault of {name} PriorityClass must be false")
            }
            Some(_) => String::new(),
        };
        if !error.is_empty() {
            let why = format!(
                "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {error}"
            );
            problems.forbidden("metadata.name", &why);
        }
    } else if value > HIGHEST_PRIORITY {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}");
        problems.forbidden("value", &why);
    }
    let policy = text(object, "/preemptionPolicy");
    problems.one_of("preemptionPolicy", policy, &["PreemptLowerPriority", "Never"]);
}

/// Pods have taken over what the class said.
pub fn priority_class_update(new: &Value, old: &Value, problems: &mut Problems) {
    if new.get("value") != old.get("value") {
        problems.forbidden("value", "may not be changed in an update.");
    }
    problems.same("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"));
}
