//! What two or three sides that edit apart come to hold when they meet. Pure: prepare, frames, apply.

use super::document::MAX_PENDING;
use super::frame::{Body, Frame};
use super::samples::{deployment, object, with};
use super::schema::KubernetesLists;
use super::state::{
    self, Ageing, BURIAL_COUNTS_MS, BURIAL_KEPT_MS, BURY_AFTER_MS, PrepareError, Standing, State, ageing,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const CONTAINERS: &str = "/spec/template/spec/containers";

#[derive(Clone, Default)]
struct Side {
    name: &'static str,
    state: Option<State>,
    now_ms: u64,
}

impl Side {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn prepare(&self, object: Option<&Value>) -> Result<Vec<u8>, PrepareError> {
        let prepared = state::prepare(self.state.as_ref(), self.name, object, &KubernetesLists, self.now_ms);
        prepared.map(|(frame, _)| frame)
    }

    fn take(&mut self, frame: &[u8]) {
        let frame = Frame::decode(frame).unwrap();
        if let Some(state) = state::apply(self.state.as_ref(), &frame, &KubernetesLists, self.now_ms).unwrap()
        {
            self.state = Some(state);
        }
    }

    fn set(&mut self, object: &Value) -> Vec<u8> {
        let frame = self.prepare(Some(object)).unwrap();
        self.take(&frame);
        assert_eq!(self.value().as_ref(), Some(object), "what was asked for is what the document says");
        frame
    }

    fn delete(&mut self) -> Vec<u8> {
        let frame = self.prepare(None).unwrap();
        self.take(&frame);
        assert_eq!(self.value(), None);
        frame
    }

    fn value(&self) -> Option<Value> {
        self.state.as_ref().and_then(|state| state.value(&KubernetesLists))
    }

    fn identity(&self) -> Option<(u32, super::Heads)> {
        self.state.as_ref().map(|state| (state.incarnation(), state.heads()))
    }
}

/// Sides that hold the same object, and then are cut off from each other.
fn apart(object: &Value) -> (Side, Side) {
    let mut left = Side::named("left");
    left.set(object);
    (left.clone(), Side { name: "right", ..left })
}

/// Both sides' frames, delivered to both; what both hold afterwards.
fn meet(mut left: Side, mut right: Side, from_left: &[Vec<u8>], from_right: &[Vec<u8>]) -> Option<Value> {
    from_right.iter().for_each(|frame| left.take(frame));
    from_left.iter().rev().for_each(|frame| right.take(frame));
    assert_eq!(left.identity(), right.identity());
    assert_eq!(left.value(), right.value());
    left.value()
}

#[test]
fn edits_that_wait_for_an_order_are_all_kept() {
    // The object is shown as it was ordered last, however often it was edited since.
    let shown = json!({"metadata": {"name": "a"}, "data": {"kept": "1", "gone": "1"}});
    let mut side = Side::named("side");
    side.set(&shown);
    let edit = |side: &mut Side, after: &Value| {
        let state = side.state.as_ref();
        let (frame, heads) =
            state::prepare_edit(state, "side", &shown, after, &KubernetesLists, side.now_ms).unwrap();
        side.take(&frame);
        assert_eq!(side.state.as_ref().map(State::marked_heads), Some(heads));
    };
    edit(&mut side, &with(&shown, "/data/first", json!("1")));
    edit(&mut side, &json!({"metadata": {"name": "a"}, "data": {"kept": "2"}}));
    edit(&mut side, &with(&shown, "/data/third", json!("1")));
    let wanted = json!({"metadata": {"name": "a"}, "data": {"kept": "2", "first": "1", "third": "1"}});
    assert_eq!(side.value(), Some(wanted));
    // The later one of one person's edits of a field wins.
    edit(&mut side, &with(&shown, "/data/first", json!("2")));
    assert_eq!(side.value().unwrap()["data"]["first"], "2");
    // And a deletion wins over all.
    side.delete();
    edit(&mut side, &with(&shown, "/data/fourth", json!("1")));
    assert_eq!(side.value(), None);
    assert_eq!(side.state.as_ref().unwrap().incarnation(), 1);
}

#[test]
fn who_makes_an_object_that_waits_for_its_order_takes_nothing_back() {
    let mut side = Side::named("side");
    let make = |side: &mut Side, uid: &str, data: Value| {
        let made = json!({"metadata": {"name": "a", "uid": uid}, "data": data});
        let wanted = state::Wanted::Made(made);
        let state = side.state.as_ref();
        let change = state::change(state, "side", &wanted, None, &KubernetesLists, side.now_ms).unwrap();
        side.take(&change.bytes);
        side.value().unwrap()
    };
    make(&mut side, "first", json!({"one": "1", "both": "1"}));
    let both = make(&mut side, "second", json!({"two": "2", "both": "2"}));
    let wanted =
        json!({"metadata": {"name": "a", "uid": "second"}, "data": {"one": "1", "two": "2", "both": "2"}});
    assert_eq!(both, wanted);
    // One that was deleted is another object.
    side.delete();
    let anew = make(&mut side, "third", json!({"three": "3"}));
    assert_eq!(anew, json!({"metadata": {"name": "a", "uid": "third"}, "data": {"three": "3"}}));
    assert_eq!(side.state.as_ref().unwrap().incarnation(), 2);
}

/// Found by the property below.
#[test]
fn one_of_two_that_were_made_apart_outlives_the_deletion_of_the_other() {
    for (deleted, apart) in [("x", "y"), ("y", "x")] {
        let (mut a, mut b) = (Side::named("a"), Side::named("b"));
        b.set(&config_map(apart, json!({apart: "1"})));
        a.set(&config_map(deleted, json!({deleted: "1"})));
        let mut c = Side::named("c");
        c.take(&whole(&a));
        b.take(&whole(&c));
        // Who deletes the one has not heard of the other, and neither has who makes a third.
        a.delete();
        c.take(&whole(&a));
        c.set(&config_map("third", json!({"third": "1"})));
        for frame in [whole(&c), whole(&b)] {
            a.take(&frame);
            b.take(&frame);
            c.take(&frame);
        }
        let last = whole(&b);
        a.take(&last);
        c.take(&last);
        assert!(a.value() == b.value() && b.value() == c.value(), "{deleted}");
        let data = &b.value().unwrap()["data"];
        assert!(data.get(apart).is_some() && data.get("third").is_some(), "{deleted}: {data}");
    }
}

#[test]
fn what_is_made_on_another_ones_document_is_not_deleted_with_it() {
    // It was ordered, and its maker does not see it yet: only its document has come.
    let there = json!({"metadata": {"name": "a", "uid": "ordered"}, "data": {"one": "1", "same": "0"}});
    let made = json!({"metadata": {"name": "a", "uid": "made"}, "data": {"two": "2", "same": "0"}});
    let (mut left, mut right) = apart(&there);
    let wanted = state::Wanted::Made(made.clone());
    let change = state::change(right.state.as_ref(), "right", &wanted, None, &KubernetesLists, right.now_ms);
    let joined = change.unwrap().bytes;
    right.take(&joined);
    let both =
        json!({"metadata": {"name": "a", "uid": "made"}, "data": {"one": "1", "two": "2", "same": "0"}});
    assert_eq!(right.value(), Some(both));
    // Nobody who deletes the one knows of the other.
    let end = left.delete();
    let (deleted, known) = (left.state.as_ref().unwrap().marked_heads(), left.clone());
    assert_eq!(meet(left, right, &[end], std::slice::from_ref(&joined)), Some(made));
    let mut adopter = known;
    adopter.take(&joined);
    let (incarnation, heads) = super::mark::unmarked(&deleted);
    let beyond = state::beyond(adopter.state.as_ref(), incarnation, &heads).unwrap();
    assert!(!beyond.anew && beyond.heads != deleted, "whoever has deleted the one adopts the other");
}

#[test]
fn what_is_made_on_a_copy_that_is_behind_is_another_object_and_an_edit_is_refused() {
    let change = |side: &Side, wanted: state::Wanted, noted: &super::Noted| {
        state::change(side.state.as_ref(), "side", &wanted, Some(noted), &KubernetesLists, side.now_ms)
    };
    let shown = json!({"metadata": {"name": "a"}, "data": {"one": "1"}});
    let (mut left, right) = apart(&json!({"metadata": {"name": "a"}, "data": {"old": "1"}}));
    // It was deleted and made anew over there, and is shown here before its document came.
    left.delete();
    left.set(&shown);
    let heads = left.state.as_ref().unwrap().marked_heads();
    let noted = |gone| super::Noted { heads: heads.clone(), gone };
    let edit = state::Wanted::Edit { before: shown.clone(), after: with(&shown, "/data/one", json!("2")) };
    for behind in [&right, &Side::named("side")] {
        assert_eq!(change(behind, edit.clone(), &noted(false)), Err(PrepareError::Behind));
    }
    let edited = change(&left, edit, &noted(false)).unwrap();
    assert_eq!(edited.base.as_ref(), Some(&heads));
    // A controller has deleted it since: whoever makes it makes another one, whether this copy has all of it or not.
    for mut side in [left.clone(), right, Side::named("side")] {
        let made = json!({"metadata": {"name": "a", "uid": "new"}});
        let anew = change(&side, state::Wanted::Made(made.clone()), &noted(true)).unwrap();
        assert_eq!(anew.base.as_ref(), Some(&heads));
        side.take(&anew.bytes);
        assert_eq!(side.value(), Some(made));
        assert_eq!(side.state.as_ref().unwrap().incarnation(), 3);
    }
}

#[test]
fn a_copy_that_is_behind_is_told_from_one_that_was_begun_anew() {
    let beyond = |side: &Side, heads: &super::Heads| {
        let (incarnation, heads) = super::mark::unmarked(heads);
        state::beyond(side.state.as_ref(), incarnation, &heads).map(|beyond| beyond.anew)
    };
    let marked = |side: &Side| side.state.as_ref().unwrap().marked_heads();
    let (mut ordered, mut behind) = apart(&deployment());
    let before = marked(&behind);
    let end = ordered.delete();
    let deleted = marked(&ordered);
    assert_eq!(beyond(&ordered, &before), Some(false));
    assert_eq!(beyond(&behind, &deleted), None, "its end is on its way");
    let mut anew = ordered.clone();
    let made = anew.set(&deployment());
    assert_eq!(beyond(&anew, &deleted), Some(true), "it will never hold what was before it");
    assert_eq!(beyond(&anew, &before), Some(true));
    assert_eq!(beyond(&ordered, &marked(&anew)), None);
    // Heads that nobody marked are held or not.
    assert_eq!(beyond(&anew, &super::mark::unmarked(&deleted).1), None);
    behind.take(&made);
    assert_eq!(beyond(&behind, &deleted), Some(true));
    behind.take(&end);
    assert_eq!(behind.value(), Some(deployment()), "the end of what was before is nothing to it");
}

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
    let conflicts = |side: &Side, since: &super::Heads| match &side.state {
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
fn delete_wins_over_a_concurrent_edit() {
    let base = deployment();
    let (mut left, mut right) = apart(&base);
    let a = left.delete();
    let b = right.set(&with(&base, "/metadata/labels/team", json!("birds")));
    assert_eq!(meet(left.clone(), right, &[a], std::slice::from_ref(&b)), None);
    left.take(&b);
    assert_eq!(left.state.unwrap().standing(None), Standing::Deleted { at_ms: 0 });
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

fn config_map(uid: &str, data: Value) -> Value {
    json!({"metadata": {"name": "a", "uid": uid}, "data": data})
}

/// What a side holds, as anti-entropy brings it to one that holds nothing of it.
fn whole(side: &Side) -> Vec<u8> {
    state::since(side.state.as_ref().unwrap(), 0, &[], usize::MAX).unwrap().0
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
    for life in 0..=super::document::MAX_ENDED {
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
    let standing = left.state.as_ref().unwrap().standing(None);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_object_comes_back_as_it_was(first in object(), second in object()) {
        let mut side = Side::named("a");
        // `set` asserts it, of a fresh document and of one that says something else.
        side.set(&first);
        side.set(&second);
    }

    /// Anti-entropy brings everybody to one state, and what somebody made and nobody deleted is in it.
    #[test]
    fn sides_that_make_and_delete_apart_agree_and_lose_nothing(
        steps in prop::collection::vec((0..3usize, 0..4u8), 1..24),
        order in prop::collection::vec((0..3usize, 0..3usize), 60),
    ) {
        let mut sides = [Side::named("a"), Side::named("b"), Side::named("c")];
        // Of each side the object that it made, and nobody else has heard of.
        let mut own: [Option<String>; 3] = Default::default();
        for (step, (at, what)) in steps.into_iter().enumerate() {
            match what {
                0 if sides[at].value().is_some() => {
                    sides[at].delete();
                    own[at] = None;
                }
                1 | 2 if sides[at].value().is_none() => {
                    let uid = format!("uid-{step}");
                    sides[at].set(&config_map(&uid, json!({uid.clone(): "1"})));
                    own[at] = Some(uid);
                }
                3 => {
                    let from = (at + 1) % 3;
                    if sides[from].state.is_some() {
                        let frame = whole(&sides[from]);
                        sides[at].take(&frame);
                        own[from] = None;
                    }
                }
                _ => {}
            }
        }
        let fields: Vec<_> = own.into_iter().flatten().collect();
        let met = order.into_iter().chain((0..9).map(|i| (i / 3, i % 3))).chain((0..9).map(|i| (i / 3, i % 3)));
        for (from, to) in met {
            if from != to && sides[from].state.is_some() {
                let frame = whole(&sides[from]);
                sides[to].take(&frame);
            }
        }
        for side in &sides[1..] {
            prop_assert_eq!(sides[0].identity(), side.identity());
            prop_assert_eq!(sides[0].value(), side.value());
        }
        let value = sides[0].value().unwrap_or_default();
        for field in fields {
            prop_assert!(value["data"].get(&field).is_some(), "{field} is lost: {value}");
        }
    }

    #[test]
    fn sides_agree_in_whatever_order_they_hear(
        base in object(),
        edits in prop::collection::vec((0..3usize, prop::option::weighted(0.85, object()), any::<bool>()), 1..7),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut sides = [Side::named("a"), Side::named("b"), Side::named("c")];
        let mut frames = vec![sides[0].set(&base)];
        sides[1].take(&frames[0]);
        sides[2].take(&frames[0]);
        for (side, object, hears) in edits {
            if hears {
                let heard = frames.clone();
                heard.iter().for_each(|frame| sides[side].take(frame));
            }
            frames.push(match &object {
                Some(object) => sides[side].set(object),
                None => sides[side].delete(),
            });
        }
        for (index, side) in sides.iter_mut().enumerate() {
            let mut queue = frames.clone();
            queue.extend(frames.first().cloned());
            for pick in order.iter().skip(index) {
                if queue.is_empty() { break }
                let at = pick.index(queue.len());
                side.take(&queue.remove(at));
            }
            queue.iter().for_each(|frame| side.take(frame));
        }
        prop_assert_eq!(sides[0].identity(), sides[1].identity());
        prop_assert_eq!(sides[0].identity(), sides[2].identity());
        prop_assert_eq!(sides[0].value(), sides[1].value());
        prop_assert_eq!(sides[0].value(), sides[2].value());
    }
}
