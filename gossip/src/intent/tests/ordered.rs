//! What is kept on top of what waits for its order, and on copies that are behind.

use super::*;

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
    let (incarnation, heads) = crate::intent::mark::unmarked(&deleted);
    let beyond = state::beyond(adopter.state.as_ref(), incarnation, &heads).unwrap();
    assert!(!beyond.anew && beyond.heads != deleted, "whoever has deleted the one adopts the other");
}

#[test]
fn what_is_made_on_a_copy_that_is_behind_is_another_object_and_an_edit_is_refused() {
    let change = |side: &Side, wanted: state::Wanted, noted: &crate::intent::Noted| {
        state::change(side.state.as_ref(), "side", &wanted, Some(noted), &KubernetesLists, side.now_ms)
    };
    let shown = json!({"metadata": {"name": "a"}, "data": {"one": "1"}});
    let (mut left, right) = apart(&json!({"metadata": {"name": "a"}, "data": {"old": "1"}}));
    // It was deleted and made anew over there, and is shown here before its document came.
    left.delete();
    left.set(&shown);
    let heads = left.state.as_ref().unwrap().marked_heads();
    let noted = |gone| crate::intent::Noted { heads: heads.clone(), gone };
    let edit = state::Wanted::Edit { before: shown.clone(), after: with(&shown, "/data/one", json!("2")) };
    // Of its document only a later change has come.
    let (mut further, mut partial) = (left.clone(), Side::named("side"));
    partial.take(&further.set(&with(&shown, "/data/one", json!("3"))));
    assert_eq!((partial.state.as_ref().unwrap().incarnation(), partial.value()), (2, None));
    for behind in [&right, &Side::named("side"), &partial] {
        for wanted in [edit.clone(), state::Wanted::Whole(None)] {
            assert_eq!(change(behind, wanted, &noted(false)), Err(PrepareError::Behind));
        }
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
    let beyond = |side: &Side, heads: &crate::intent::Heads| {
        let (incarnation, heads) = crate::intent::mark::unmarked(heads);
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
    assert_eq!(beyond(&anew, &crate::intent::mark::unmarked(&deleted).1), None);
    behind.take(&made);
    assert_eq!(beyond(&behind, &deleted), Some(true));
    behind.take(&end);
    assert_eq!(behind.value(), Some(deployment()), "the end of what was before is nothing to it");
}
