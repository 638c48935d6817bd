//! Edits of fields and of lists on two sides.

use super::*;

const CONTAINERS: &str = "/spec/template/spec/containers";

#[test]
fn edits_of_different_fields_are_both_kept() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.set(&with(&base, "/spec/replicas", json!(5)));
    let b = right.set(&with(&base, "/metadata/labels/team", json!("birds")));
    let both = with(&with(&base, "/spec/replicas", json!(5)), "/metadata/labels/team", json!("birds"));
    assert_eq!(meet(left, right, &[a], &[b]), Some(both));
}

#[test]
fn two_edits_of_one_field_are_found_once_and_alike_on_both_sides() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let before = left.identity().unwrap().1;
    let image = format!("{CONTAINERS}/0/image");
    let a = left.set(&with(&with(&base, "/spec/replicas", json!(5)), &image, json!("nginx:2")));
    let b =
        right.set(&with(&with(&base, "/spec/replicas", json!(7)), "/metadata/labels/team", json!("birds")));
    right.take(&a);
    left.take(&b);
    let conflicts = |side: &Side, since: &crate::intent::Heads| match &side.state {
        Some(State::Document(document)) => document.conflicts(since),
        _ => Vec::new(),
    };
    let found = conflicts(&left, &before);
    assert_eq!(found, conflicts(&right, &before));
    let [conflict] = found.as_slice() else { panic!("one field: {found:?}") };
    let kept = left.value().unwrap()["spec"]["replicas"].clone();
    let lost = if kept == 5 { 7 } else { 5 };
    assert_eq!(conflict.field, "spec.replicas");
    assert_eq!((&conflict.kept, &conflict.lost), (&kept, &vec![json!(lost)]));
    // Told once: another edit later finds nothing new.
    let merged = left.identity().unwrap().1;
    let value = left.value().unwrap();
    left.set(&with(&value, "/metadata/labels/later", json!("yes")));
    assert!(conflicts(&left, &merged).is_empty());
    // Whoever sets the field again ends the conflict.
    let value = left.value().unwrap();
    left.set(&with(&value, "/spec/replicas", json!(9)));
    assert!(conflicts(&left, &before).is_empty());
}

#[test]
fn an_inserted_sidecar_does_not_get_another_containers_image() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.set(&with(&base, &format!("{CONTAINERS}/1/image"), json!("fluent:2")));
    let mut containers = base.pointer(CONTAINERS).unwrap().as_array().unwrap().clone();
    containers.insert(0, json!({"name": "side", "image": "envoy:1"}));
    let inserted = with(&base, CONTAINERS, containers.into());
    let b = right.set(&inserted);
    let both = with(&inserted, &format!("{CONTAINERS}/2/image"), json!("fluent:2"));
    assert_eq!(meet(left, right, &[a], &[b]), Some(both));
}

#[test]
fn containers_inserted_on_both_sides_are_both_there() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.set(&with(&base, &format!("{CONTAINERS}/2"), json!({"name": "x", "image": "x"})));
    let b = right.set(&with(&base, &format!("{CONTAINERS}/2"), json!({"name": "y", "image": "y"})));
    let merged = meet(left, right, &[a], &[b]).unwrap();
    let names: Vec<_> = merged.pointer(CONTAINERS).unwrap().as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "log", "x", "y"]);
}

#[test]
fn the_first_annotation_of_each_side_is_kept() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.set(&with(&base, "/metadata/annotations", json!({"a": "1"})));
    let b = right.set(&with(&base, "/metadata/annotations", json!({"b": "2"})));
    let both = with(&base, "/metadata/annotations", json!({"a": "1", "b": "2"}));
    assert_eq!(meet(left, right, &[a], &[b]), Some(both));
}

#[test]
fn a_label_outlives_the_removal_of_all_others() {
    let base = with(&deployment(), "/metadata/annotations", json!({"a": "1"}));
    let (mut left, mut right) = apart(&base);
    let mut without = base.clone();
    without["metadata"].as_object_mut().unwrap().remove("annotations");
    let a = left.set(&without);
    let b = right.set(&with(&base, "/metadata/annotations/b", json!("2")));
    let both = with(&base, "/metadata/annotations", json!({"b": "2"}));
    assert_eq!(meet(left, right, &[a], &[b]), Some(both));
}

#[test]
fn a_removed_container_does_not_come_back_in_half() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let web = base.pointer(&format!("{CONTAINERS}/0")).unwrap().clone();
    let without = with(&base, CONTAINERS, json!([web]));
    let a = left.set(&without);
    let b = right.set(&with(&base, &format!("{CONTAINERS}/1/image"), json!("fluent:2")));
    assert_eq!(meet(left, right, &[a], &[b]), Some(without));
}

#[test]
fn the_same_manifest_applied_on_both_sides_is_one_object() {
    let (mut left, mut right) = (Side::named("left"), Side::named("right"));
    let a = left.set(&with(&deployment(), "/metadata/uid", json!("u-1")));
    let b = right.set(&with(&deployment(), "/metadata/uid", json!("u-2")));
    let merged = meet(left, right, &[a], &[b]).unwrap();
    assert_eq!(with(&merged, "/metadata/uid", json!("u-1")), deployment());
}

#[test]
fn what_takes_a_while_to_make_a_change_of_is_known_beforehand() {
    let light = |object: &Value| state::Wanted::Whole(Some(object.clone())).is_light();
    assert!(light(&deployment()) && state::Wanted::Whole(None).is_light());
    assert!(!light(&json!({"data": {"text": "x".repeat(20_000)}})));
    let names = |count: u32| (0..count).map(|n| (n.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
    assert!(light(&json!({"data": names(200)})) && !light(&json!({"data": names(300)})));
    let long = json!({"data": {"x".repeat(20_000): 1}});
    assert!(!light(&long) && !state::Wanted::Edit { before: json!({}), after: long }.is_light());
}
