//! One name, several objects: made, deleted, made anew, and forgotten in the end.

use super::*;
use crate::intent::document::MAX_PENDING;
use crate::intent::frame::Body;
use crate::intent::state::{Ageing, BURIAL_COUNTS_MS, BURIAL_KEPT_MS, BURY_AFTER_MS, Standing, ageing};

#[test]
fn delete_wins_over_a_concurrent_edit() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.delete();
    let b = right.set(&with(&base, "/metadata/labels/team", json!("birds")));
    assert_eq!(meet(left.clone(), right, &[a], std::slice::from_ref(&b)), None);
    left.take(&b);
    assert_eq!(left.state.unwrap().standing(), Standing::Deleted { at_ms: 0 });
}

#[test]
fn what_is_created_anew_is_not_touched_by_the_past() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let deleted = left.delete();
    let anew = with(&base, "/spec/replicas", json!(1));
    let created = left.set(&anew);
    let late = right.set(&with(&base, "/spec/paused", json!(true)));
    let late_delete = right.delete();
    assert_eq!(left.identity().unwrap().0, 2);
    assert_eq!(meet(left, right, &[deleted, created], &[late, late_delete]), Some(anew));
}

/// A name that lived and died more than once.
fn worn_name() -> Side {
    let mut side = Side::named("side");
    for uid in ["first", "second", "third"] {
        side.set(&config_map(uid, json!({"of": uid})));
        side.delete();
    }
    side
}

#[test]
fn an_object_that_was_made_by_who_knew_none_of_the_lives_of_its_name_is_made_anew() {
    let there = worn_name();
    // It was off all the time.
    let mut back = Side::named("back");
    let made = config_map("fourth", json!({"of": "fourth"}));
    back.set(&made);
    let also = back.clone();
    back.take(&whole(&there));
    assert_eq!(back.value().as_ref(), Some(&made));
    assert_eq!(back.identity().unwrap().0, 4);
    // Whoever else had a copy does the same with it.
    let mut also = Side { name: "also", ..also };
    also.take(&whole(&there));
    assert_eq!(also.identity(), back.identity());
    let mut others = there.clone();
    others.take(&whole(&back));
    assert_eq!((others.identity(), others.value()), (back.identity(), Some(made)));
    // It can be deleted as any other, and does not come back by a copy of its first document.
    others.delete();
    let mut late = Side::named("late");
    late.set(&config_map("fourth", json!({"of": "fourth"})));
    late.take(&whole(&others));
    assert_eq!(late.value(), None);
}

#[test]
fn an_object_that_was_made_in_ignorance_becomes_part_of_the_one_that_is_there() {
    let mut there = worn_name();
    there.set(&config_map("fourth", json!({"here": "1", "both": "1"})));
    let mut back = Side::named("back");
    back.set(&config_map("mine", json!({"mine": "2", "both": "2"})));
    let copy = back.clone();
    back.take(&whole(&there));
    assert_eq!(back.value().unwrap()["data"], json!({"here": "1", "mine": "2", "both": "2"}));
    assert_eq!(back.value().unwrap()["metadata"]["uid"], "mine");
    there.take(&whole(&back));
    assert_eq!(there.identity(), back.identity());
    // Who deletes the one that was there, and has not heard of the other, does not delete the other.
    let mut unaware = worn_name();
    unaware.set(&config_map("fourth", json!({"here": "1", "both": "1"})));
    unaware.delete();
    unaware.take(&whole(&there));
    assert_eq!(unaware.value().unwrap(), config_map("mine", json!({"mine": "2", "both": "2"})));
    // Who knows of both deletes both.
    there.delete();
    let mut late = copy;
    late.take(&whole(&there));
    assert_eq!(late.value(), None);
}

#[test]
fn a_copy_of_an_object_that_was_deleted_does_not_come_back() {
    let mut there = Side::named("there");
    let mut copies = Vec::new();
    for uid in ["first", "second", "third"] {
        there.set(&config_map(uid, json!({})));
        copies.push(there.clone());
        there.delete();
    }
    for mut copy in copies {
        copy.take(&whole(&there));
        assert_eq!(copy.value(), None);
        assert_eq!(copy.identity(), there.identity());
    }
    // Also when another one is there now, and the copy was edited.
    let (mut there, mut copy) = apart(&config_map("first", json!({})));
    there.delete();
    there.set(&config_map("second", json!({"mine": "1"})));
    copy.set(&config_map("first", json!({"late": "1"})));
    copy.take(&whole(&there));
    assert_eq!(copy.value(), there.value());
}

#[test]
fn a_name_with_too_many_lives_to_list_them_gives_way_as_one_that_lists_none() {
    let mut there = Side::named("there");
    for life in 0..=crate::intent::document::MAX_ENDED {
        there.set(&config_map(&life.to_string(), json!({})));
        there.delete();
    }
    let mut back = Side::named("back");
    back.set(&config_map("mine", json!({})));
    back.take(&whole(&there));
    assert_eq!(back.value(), None);
    assert!(whole(&there).len() < 16 << 10, "{}", whole(&there).len());
}

#[test]
fn changes_that_are_prepared_and_never_committed_do_no_harm() {
    let base = deployment();
    let (left, mut right) = apart(&base);
    let first = left.prepare(Some(&with(&base, "/spec/replicas", json!(3)))).unwrap();
    let same = left.prepare(Some(&with(&base, "/spec/replicas", json!(3)))).unwrap();
    let other = left.prepare(Some(&with(&base, "/spec/paused", json!(true)))).unwrap();
    assert_eq!(first, same);
    right.take(&other);
    right.take(&first);
    let both = with(&with(&base, "/spec/replicas", json!(3)), "/spec/paused", json!(true));
    assert_eq!(meet(left, right, &[], &[first, other]).unwrap(), both);
}

#[test]
fn what_is_not_intent_never_enters() {
    let mut side = Side::named("a");
    let mut noisy = deployment();
    noisy["status"] = json!({"replicas": 1});
    for counted in ["resourceVersion", "managedFields", "generation"] {
        noisy["metadata"][counted] = json!("7");
    }
    let frame = side.prepare(Some(&noisy)).unwrap();
    side.take(&frame);
    assert_eq!(side.value(), Some(deployment()));
    let again = side.prepare(Some(&noisy)).unwrap();
    assert_eq!(Frame::decode(&again).unwrap().body, Body::Changes(vec![]), "nothing to say twice");
}

#[test]
fn a_deleted_object_is_buried_and_stays_so_until_everybody_forgot() {
    let (mut left, mut right) = apart(&deployment());
    left.delete();
    let standing = left.state.as_ref().unwrap().standing();
    assert_eq!(ageing(standing, BURY_AFTER_MS - 1), Ageing::Stays);
    assert_eq!(ageing(standing, BURY_AFTER_MS), Ageing::Bury { at_ms: 0 });
    let burial = Frame { incarnation: 1, body: Body::Burial { at_ms: 0 } }.encode();
    left.take(&burial);
    let late = right.set(&with(&deployment(), "/spec/replicas", json!(9)));
    left.take(&late);
    assert_eq!(left.value(), None, "a copy from before the deletion does not come back");
    right.take(&burial);
    assert_eq!((left.identity(), right.value()), (right.identity(), None));
    let created = left.clone().set(&deployment());
    right.take(&created);
    assert_eq!((right.identity().unwrap().0, right.value()), (2, Some(deployment())));

    let forgotten = Side { now_ms: BURIAL_COUNTS_MS, ..Side::named("new") }.set(&deployment());
    left.now_ms = BURIAL_COUNTS_MS;
    left.take(&forgotten);
    assert_eq!(left.value(), Some(deployment()), "what another node forgot may be begun again");
    let buried = Standing::Buried { at_ms: 0 };
    assert_eq!(ageing(buried, BURIAL_KEPT_MS - 1), Ageing::Stays);
    assert_eq!(ageing(buried, BURIAL_KEPT_MS), Ageing::Forget);
}

#[test]
fn changes_wait_for_those_they_depend_on_within_a_bound() {
    let mut writer = Side::named("writer");
    let numbers = 0..(MAX_PENDING as u64 + 2);
    let frames: Vec<_> =
        numbers.map(|n| writer.set(&with(&deployment(), "/spec/replicas", json!(n)))).collect();
    let mut reader = Side::named("reader");
    for frame in frames[1..].iter().rev().take(MAX_PENDING) {
        reader.take(frame);
        assert_eq!(reader.value(), None);
    }
    let one_more = Frame::decode(&frames[1]).unwrap();
    assert!(state::apply(reader.state.as_ref(), &one_more, &KubernetesLists, 0).is_err());
    frames.iter().for_each(|frame| reader.take(frame));
    assert_eq!(reader.value(), writer.value());
    assert_eq!(reader.identity(), writer.identity());
}
