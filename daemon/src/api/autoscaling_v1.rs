//! `autoscaling/v1`: the older form of HorizontalPodAutoscalers, which are kept in `autoscaling/v2`.
//!
//! What the older form cannot say stands in annotations while it is shown so, and goes back where it was with the next
//! write, so that nothing is lost by it. The annotations are Kubernetes' own
//! (k8s.io/kubernetes/pkg/apis/autoscaling/annotations.go), with the newer form's JSON in them.

use super::defaults;
use super::validate::{self, Problems};
use super::value::{child, items, remove, set, text};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const CPU_TARGET: &str = "targetCPUUtilizationPercentage";
const CPU_CURRENT: &str = "currentCPUUtilizationPercentage";
/// Part of an object, field, and the annotation that holds it.
const BESIDE: [(&str, &str, &str); 4] = [
    ("spec", "metrics", "autoscaling.alpha.kubernetes.io/metrics"),
    ("spec", "behavior", "autoscaling.alpha.kubernetes.io/behavior"),
    ("status", "currentMetrics", "autoscaling.alpha.kubernetes.io/current-metrics"),
    ("status", "conditions", "autoscaling.alpha.kubernetes.io/conditions"),
];

/// The newer form of an older one.
pub fn to_v2(mut scaler: Value) -> Value {
    set(&mut scaler, "apiVersion", "autoscaling/v2");
    for (part, field, annotation) in BESIDE {
        let written = scaler.pointer_mut("/metadata/annotations").and_then(|all| remove(all, annotation));
        let written = written.and_then(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
        if let Some(value) = written.filter(|value| !value.is_null()) {
            set(child(&mut scaler, part), field, value);
        }
    }
    let is_empty = |all: &mut Value| all.as_object().is_some_and(Map::is_empty);
    if scaler.pointer_mut("/metadata/annotations").is_some_and(is_empty) {
        remove(child(&mut scaler, "metadata"), "annotations");
    }
    for (part, older, newer, amount) in
        [("spec", CPU_TARGET, "metrics", "target"), ("status", CPU_CURRENT, "currentMetrics", "current")]
    {
        let Some(fields) = scaler.get_mut(part) else { continue };
        let Some(percent) = remove(fields, older).filter(|percent| !percent.is_null()) else { continue };
        let mut of_cpu = json!({"averageUtilization": percent});
        if part == "spec" {
            of_cpu["type"] = "Utilization".into();
        }
        let mut metrics = vec![json!({"type": "Resource", "resource": {"name": "cpu", amount: of_cpu}})];
        metrics.extend(items(fields, &format!("/{newer}")).iter().cloned());
        set(fields, newer, metrics);
    }
    // Kubernetes writes it also where nothing was measured.
    if let Some(status) = scaler.get_mut("status").filter(|status| status.get("currentMetrics").is_none()) {
        set(status, "currentMetrics", Value::Null);
    }
    defaults::autoscaler(&mut scaler);
    scaler
}

/// The older form of a newer one.
pub fn to_v1(mut scaler: Value) -> Value {
    set(&mut scaler, "apiVersion", "autoscaling/v1");
    // Whoever wrote these in the newer form meant nothing by it, and they must not be read back as if he had.
    if let Some(annotations) = scaler.pointer_mut("/metadata/annotations") {
        BESIDE.iter().for_each(|(_, _, annotation)| drop(remove(annotations, annotation)));
    }
    for (part, older, newer, amount) in [
        ("spec", CPU_TARGET, "metrics", "/resource/target/averageUtilization"),
        ("status", CPU_CURRENT, "currentMetrics", "/resource/current/averageUtilization"),
    ] {
        let Some(fields) = scaler.get_mut(part) else { continue };
        let mut metrics = items(fields, &format!("/{newer}")).to_vec();
        let of_cpu =
            |metric: &Value| text(metric, "/resource/name") == "cpu" && metric.pointer(amount).is_some();
        if let Some(at) = metrics.iter().position(of_cpu) {
            let percent = metrics.remove(at).pointer(amount).cloned().unwrap_or_default();
            set(fields, older, percent);
        }
        match metrics.is_empty() {
            true => _ = remove(fields, newer),
            false => set(fields, newer, metrics),
        }
    }
    for (part, field, annotation) in BESIDE {
        let value = scaler.get_mut(part).and_then(|fields| remove(fields, field));
        if let Some(value) = value.filter(|value| !value.is_null()) {
            set(child(child(&mut scaler, "metadata"), "annotations"), annotation, value.to_string());
        }
    }
    scaler
}

/// What a new object starts with.
pub fn begin(scaler: &mut Value) {
    // What was seen of it is not for its maker to say.
    if let Some(annotations) = scaler.pointer_mut("/metadata/annotations") {
        let of_status = BESIDE.iter().filter(|(part, ..)| *part == "status");
        of_status.for_each(|(_, _, annotation)| drop(remove(annotations, annotation)));
    }
    set(scaler, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
}

pub fn default(scaler: &mut Value) {
    let spec = child(scaler, "spec");
    if spec.get("minReplicas").is_none_or(Value::is_null) {
        set(spec, "minReplicas", 1);
    }
}

pub fn validate(scaler: &Value, problems: &mut Problems) {
    let percent = scaler.pointer("/spec").and_then(|spec| spec.get(CPU_TARGET));
    if percent.and_then(Value::as_i64).is_some_and(|percent| percent < 1) {
        let percent = percent.cloned().unwrap_or_default();
        problems.invalid(&format!("spec.{CPU_TARGET}"), &percent, "must be greater than 0");
    }
    let annotations = scaler.pointer("/metadata/annotations").and_then(Value::as_object);
    for (_, _, annotation) in BESIDE {
        let Some(written) = annotations.and_then(|all| all.get(annotation)) else { continue };
        if serde_json::from_str::<Value>(written.as_str().unwrap_or_default()).is_err() {
            let why = "is not JSON: it holds what autoscaling/v1 cannot say";
            return problems.invalid(&format!("metadata.annotations[{annotation}]"), written, why);
        }
    }
    // What the annotations say is checked as what it becomes.
    let newer = to_v2(scaler.clone());
    match HorizontalPodAutoscaler::deserialize(&newer) {
        Ok(_) => validate::workload::autoscaler(&newer, problems),
        Err(error) => {
            let why = format!("hold what autoscaling/v2 does not have: {error}");
            problems.invalid("metadata.annotations", &Value::Null, &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_is_a_metric_of_the_newer_one() {
        let spec = json!({"maxReplicas": 5, "minReplicas": 2, "targetCPUUtilizationPercentage": 80});
        let older = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": spec});
        let newer = to_v2(older.clone());
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        let expected = json!({"maxReplicas": 5, "minReplicas": 2, "metrics": metrics});
        assert_eq!((&newer["apiVersion"], &newer["spec"]), (&json!("autoscaling/v2"), &expected));
        assert_eq!(to_v1(newer), older);
    }

    #[test]
    fn what_the_older_form_cannot_say_is_not_lost() {
        let target = json!({"type": "AverageValue", "averageValue": "100Mi"});
        let newer = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {"maxReplicas": 5, "minReplicas": 1, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 9}},
                "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": target}}]},
            "status": {"desiredReplicas": 3, "currentReplicas": 2, "conditions": [{"type": "AbleToScale"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}]}});
        let older = to_v1(newer.clone());
        assert_eq!(older["spec"], json!({"maxReplicas": 5, "minReplicas": 1}));
        assert_eq!(
            older["status"],
            json!({"desiredReplicas": 3, "currentReplicas": 2, "currentCPUUtilizationPercentage": 7})
        );
        assert_eq!(to_v2(older), newer);
        for (written, why) in [("[", "is not JSON"), ("5", "does not have")] {
            let mut problems = Problems::default();
            let broken =
                json!({"metadata": {"annotations": {BESIDE[1].2: written}}, "spec": {"maxReplicas": 1}});
            validate(&broken, &mut problems);
            assert!(format!("{problems:?}").contains(why), "{problems:?}");
        }
        let stale =
            json!({"metadata": {"annotations": {BESIDE[0].2: "[1]", "a": "b"}}, "spec": {"metrics": []}});
        assert_eq!(to_v1(stale)["metadata"]["annotations"], json!({"a": "b"}));
    }
}
