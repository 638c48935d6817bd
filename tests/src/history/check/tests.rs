//! Histories made by hand: good ones that must pass, and for each rule bad ones that must not.

use super::*;
use crate::history::record::{Action, Entry, Fields, Outcome, Told, Version};
use gaggle_sched::state::Revision;
use std::collections::BTreeMap;

fn fields(value: &str) -> Fields {
    Fields::from([("value".to_owned(), value.to_owned())])
}

fn version(revision: u64, value: &str) -> Version {
    Version { uid: "u".into(), revision, fields: fields(value) }
}

fn ordered(revision: u64, value: &str) -> Outcome {
    Outcome::Ordered { version: Some(version(revision, value)) }
}

fn kept() -> Outcome {
    kept_of(None)
}

/// Kept where an object of this uid is known.
fn kept_of(uid: Option<&str>) -> Outcome {
    Outcome::Kept { warning: "no quorum: kept as intent".into(), uid: uid.map(str::to_owned) }
}

fn refused() -> Outcome {
    Outcome::Refused { code: 409, why: "conflict".into() }
}

fn unknown(code: u16) -> Outcome {
    Outcome::Unknown { code, why: "cut".into() }
}

fn found(revision: u64, value: &str) -> Outcome {
    Outcome::Found { version: version(revision, value) }
}

fn create(name: &str, value: &str) -> Action {
    Action::Create { name: name.into(), fields: fields(value) }
}

fn set(name: &str, expects: Version, value: &str) -> Action {
    Action::Replace { name: name.into(), expects, fields: fields(value) }
}

fn delete(name: &str, expects: Version) -> Action {
    Action::Delete { name: name.into(), expects }
}

fn merge(name: &str, field: &str) -> Action {
    Action::Merge { name: name.into(), fields: many(&[field]) }
}

fn many(fields: &[&str]) -> Fields {
    fields.iter().map(|field| ((*field).to_owned(), "1".to_owned())).collect()
}

fn grown(revision: u64, fields: &[&str]) -> Version {
    Version { uid: "u".into(), revision, fields: many(fields) }
}

fn get(name: &str, at_least: Option<u64>) -> Action {
    Action::Get { name: name.into(), at_least }
}

/// A history in the making. Its clock moves by one with each entry.
#[derive(Default)]
struct Story {
    history: History,
    ops: usize,
}

impl Story {
    fn now(&self) -> u64 {
        self.history.entries.len() as u64
    }

    fn begin(&mut self, client: usize, action: Action) -> usize {
        let (at_us, op) = (self.now(), self.ops);
        self.ops += 1;
        self.history.entries.push(Entry::Invoke { at_us, op, client, desktop: 1, action });
        op
    }

    fn end(&mut self, op: usize, outcome: Outcome) {
        let at_us = self.now();
        self.history.entries.push(Entry::Complete { at_us, op, outcome });
    }

    fn does(mut self, client: usize, action: Action, outcome: Outcome) -> Self {
        let op = self.begin(client, action);
        self.end(op, outcome);
        self
    }

    fn told(mut self, told: Told) -> Self {
        let at_us = self.now();
        self.history.entries.push(Entry::Watch { at_us, watcher: 0, desktop: 1, told });
        self
    }

    fn ends_with(mut self, items: &[(&str, Version)]) -> Self {
        let items: BTreeMap<_, _> = items.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        for desktop in 1..=2 {
            let at_us = self.now();
            self.history.entries.push(Entry::Final { at_us, desktop, items: items.clone() });
        }
        self
    }

    /// What is wrong with it, in one line.
    fn wrong(&self) -> String {
        judge(&self.history).into_iter().map(|violation| violation.what).collect::<Vec<_>>().join("; ")
    }
}

#[track_caller]
fn assert_good(story: &Story) {
    let violations = judge(&story.history);
    assert!(violations.is_empty(), "{}", describe(&story.history, &violations));
}

#[track_caller]
fn assert_wrong(story: &Story, because: &str) {
    let wrong = story.wrong();
    assert!(wrong.contains(because), "expected {because:?} among: {wrong:?}");
}

fn register() -> Story {
    Story::default().does(0, create("r", "a"), ordered(5, "a")).does(
        1,
        set("r", version(5, "a"), "b"),
        ordered(6, "b"),
    )
}

#[test]
fn writes_one_after_another_are_fine() {
    assert_good(&register().ends_with(&[("r", version(6, "b"))]));
    let deleted = register().does(0, delete("r", version(6, "b")), Outcome::Ordered { version: None });
    assert_good(&deleted.does(0, create("r", "c"), ordered(9, "c")).ends_with(&[("r", version(9, "c"))]));
}

#[test]
fn two_that_compared_with_the_same_are_seen() {
    let story = register().does(2, set("r", version(5, "a"), "c"), ordered(7, "c"));
    let story = story.ends_with(&[("r", version(7, "c"))]);
    assert_wrong(&story, "can not have happened in any one order");
    assert_wrong(&story, "an update of r is lost");
}

#[test]
fn two_that_created_the_same_are_seen() {
    let story = register().does(2, create("r", "c"), ordered(7, "c")).ends_with(&[("r", version(7, "c"))]);
    assert_wrong(&story, "can not have happened in any one order");
}

#[test]
fn a_set_that_vanishes_is_seen() {
    assert_wrong(&register().ends_with(&[("r", version(9, "a"))]), "nor what is there at the end");
    assert_wrong(&register().ends_with(&[]), "nor what is there at the end");
}

#[test]
fn concurrent_sets_may_come_in_either_order_but_not_in_none() {
    let concurrent = |expects_of_last: Version| {
        let mut story = Story::default().does(0, create("r", "a"), ordered(5, "a"));
        let one = story.begin(1, set("r", version(6, "b"), "c"));
        let other = story.begin(2, set("r", version(5, "a"), "b"));
        story.end(one, ordered(7, "c"));
        story.end(other, ordered(6, "b"));
        story.does(0, set("r", expects_of_last, "d"), ordered(8, "d")).ends_with(&[("r", version(8, "d"))])
    };
    assert_good(&concurrent(version(7, "c")));
    assert_wrong(&concurrent(version(6, "b")), "can not have happened in any one order");
}

#[test]
fn a_write_does_not_happen_after_its_answer() {
    // The answer to `b` came before `c` was asked for, and yet `c` compares with what was before `b`.
    let story = Story::default()
        .does(0, create("r", "a"), ordered(5, "a"))
        .does(1, set("r", version(5, "a"), "b"), ordered(9, "b"))
        .does(2, set("r", version(5, "a"), "c"), ordered(7, "c"))
        .does(2, set("r", version(7, "c"), "a"), ordered(8, "a"))
        .ends_with(&[("r", version(9, "b"))]);
    assert_wrong(&story, "can not have happened in any one order");
    assert_wrong(&story, "which got the older 7");
}

#[test]
fn an_unknown_write_may_have_happened_or_not() {
    for code in [0, 504] {
        let story = || register().does(2, set("r", version(6, "b"), "c"), unknown(code));
        assert_good(&story().ends_with(&[("r", version(6, "b"))]));
        assert_good(&story().ends_with(&[("r", version(7, "c"))]));
        let later = story().does(0, set("r", version(6, "b"), "d"), ordered(7, "d"));
        assert_good(&later.ends_with(&[("r", version(7, "d"))]));
        let both = story()
            .does(0, set("r", version(6, "b"), "d"), ordered(8, "d"))
            .does(0, set("r", version(9, "c"), "e"), ordered(10, "e"))
            .ends_with(&[("r", version(10, "e"))]);
        // What answers 504 compared; what got lost on the way may have been kept, and be put into effect later.
        match code {
            504 => assert_wrong(&both, "can not have happened in any one order"),
            _ => assert_good(&both),
        }
    }
}

#[test]
fn a_kept_write_happens_at_any_later_moment_or_loses() {
    let story = || register().does(2, set("r", version(5, "a"), "k"), kept());
    assert_good(&story().ends_with(&[("r", version(6, "b"))]));
    assert_good(&story().ends_with(&[("r", version(8, "k"))]));
    let after = story().does(0, set("r", version(8, "k"), "d"), ordered(9, "d"));
    assert_good(&after.ends_with(&[("r", version(9, "d"))]));
    // But not before it was asked for.
    let early = register().does(0, set("r", version(7, "k"), "d"), ordered(8, "d"));
    let early = early.does(2, set("r", version(5, "a"), "k"), kept()).ends_with(&[("r", version(8, "d"))]);
    assert_wrong(&early, "can not have happened in any one order");
}

#[test]
fn a_refused_write_that_happened_is_seen() {
    let story = register().does(2, set("r", version(6, "b"), "c"), refused());
    assert_wrong(&story.ends_with(&[("r", version(7, "c"))]), "of #2, which was refused");
}

#[test]
fn a_value_from_nowhere_or_from_the_future_is_seen() {
    assert_wrong(&register().does(0, get("r", None), found(6, "x")), "holds value=x that nobody wrote");
    let early = register().does(0, get("r", None), found(7, "z"));
    assert_wrong(&early.does(1, set("r", version(6, "b"), "z"), ordered(7, "z")), "which was not yet made");
}

#[test]
fn a_revision_that_is_two_things_is_seen() {
    let story = register().does(0, get("r", None), found(6, "a"));
    assert_wrong(&story, "revision 6 of r is one thing to");
}

#[test]
fn a_client_that_is_shown_less_than_before_is_seen() {
    let story = |at_least| {
        let shown = register().does(3, get("r", None), found(6, "b"));
        shown.does(3, get("r", at_least), found(5, "a")).ends_with(&[("r", version(6, "b"))])
    };
    assert_wrong(&story(Some(6)), "client 3 was shown r at revision 6 and later");
    // Who does not say what it has seen may be shown another desktop's past.
    assert_good(&story(None));
    let absent = register().does(1, get("r", Some(6)), Outcome::Absent);
    assert_wrong(&absent.ends_with(&[("r", version(6, "b"))]), "though nobody deleted it");
    let list = Outcome::Listed { revision: 4, items: BTreeMap::new() };
    assert_wrong(&register().does(1, Action::List { at_least: Some(6) }, list), "not older than 6 and got 4");
}

fn added(revision: u64, value: &str) -> Told {
    Told::Added { name: "r".into(), version: version(revision, value) }
}

fn modified(revision: u64, value: &str) -> Told {
    Told::Modified { name: "r".into(), version: version(revision, value) }
}

fn watched() -> Story {
    let third = register().does(0, set("r", version(6, "b"), "c"), ordered(7, "c"));
    let fourth = third.does(0, set("r", version(7, "c"), "d"), ordered(8, "d"));
    fourth.told(Told::Listed { revision: 4, items: BTreeMap::new() }).ends_with(&[("r", version(8, "d"))])
}

#[test]
fn a_watch_that_tells_all_is_fine() {
    let story = watched().told(added(5, "a")).told(modified(6, "b"));
    let story = story.told(Told::Ended { why: "cut".into() }).told(Told::Opened { after: 6 });
    assert_good(&story.told(modified(7, "c")).told(modified(8, "d")));
}

#[test]
fn a_watch_with_a_gap_is_seen() {
    let story = watched().told(added(5, "a")).told(modified(7, "c")).told(modified(8, "d"));
    assert_wrong(&story, "was never told of r at 6 (1 changes are missing)");
    // The end of what was told is no gap, nor is what lies before a new beginning.
    assert_good(&watched().told(added(5, "a")));
    let items = BTreeMap::from([("r".to_owned(), version(7, "c"))]);
    let anew = watched().told(added(5, "a")).told(Told::Expired).told(Told::Listed { revision: 7, items });
    assert_good(&anew.told(modified(8, "d")));
}

#[test]
fn a_watch_that_goes_back_or_repeats_is_seen() {
    let story = || watched().told(added(5, "a")).told(modified(6, "b"));
    assert_wrong(&story().told(modified(5, "a")), "told r at 5 after 6");
    assert_wrong(&story().told(modified(6, "b")), "told r at 6 after 6");
    let older = Told::Listed { revision: 5, items: BTreeMap::new() };
    assert_wrong(&story().told(older), "listed 5 after it had told 6: it went back");
}

#[test]
fn a_watch_that_makes_no_sense_is_seen() {
    assert_wrong(&watched().told(modified(5, "a")), "but r is not there");
    assert_wrong(&watched().told(added(5, "a")).told(added(6, "b")), "but r is there already");
    let deleted = Told::Deleted { name: "r".into(), version: version(6, "b") };
    assert_wrong(&watched().told(deleted), "but r is not there");
}

fn log() -> Story {
    let outcome = Outcome::Ordered { version: Some(grown(5, &["x"])) };
    Story::default().does(0, merge("log", "x"), outcome).does(1, merge("log", "y"), kept())
}

#[test]
fn what_was_added_is_there_at_the_end() {
    assert_good(&log().ends_with(&[("log", grown(7, &["x", "y"]))]));
    assert_wrong(&log().ends_with(&[("log", grown(7, &["y"]))]), "these are missing: x=1");
    assert_wrong(&log().ends_with(&[("log", grown(7, &["x"]))]), "these are missing: y=1");
    assert_wrong(&log().ends_with(&[]), "it is not there");
    // What nobody knows of, or was refused, need not be there.
    let story = || log().does(2, merge("log", "u"), unknown(504)).does(3, merge("log", "f"), refused());
    assert_good(&story().ends_with(&[("log", grown(7, &["x", "y"]))]));
    assert_good(&story().ends_with(&[("log", grown(7, &["x", "y", "u"]))]));
    assert_wrong(&story().ends_with(&[("log", grown(7, &["x", "y", "f"]))]), "which was refused");
}

#[test]
fn what_is_missing_for_a_while_is_seen() {
    let outcome = Outcome::Found { version: grown(6, &["y"]) };
    let story = log().does(0, get("log", None), outcome).ends_with(&[("log", grown(7, &["x", "y"]))]);
    assert_wrong(&story, "x was in log at revision 5 and is not at 6");
}

#[test]
fn a_group_founded_anew_may_do_without_for_a_while_but_not_for_ever() {
    let anew = Revision::first_of(1).0;
    let without = |revision| Outcome::Found { version: grown(revision, &["y"]) };
    let story = || log().does(0, get("log", None), without(anew + 1));
    assert_good(&story().ends_with(&[("log", grown(anew + 2, &["x", "y"]))]));
    assert_wrong(&story().ends_with(&[("log", grown(anew + 1, &["y"]))]), "these are missing: x=1");
    let again = story().does(0, get("log", None), Outcome::Found { version: grown(anew + 2, &["x", "y"]) });
    let again = again
        .does(0, get("log", None), without(anew + 3))
        .ends_with(&[("log", grown(anew + 4, &["x", "y"]))]);
    assert_wrong(&again, "x was in log at revision");
}

#[test]
fn a_client_whose_revision_is_valid_no_more_begins_anew() {
    let seen =
        || Story::default().does(0, create("r", "a"), ordered(5, "a")).does(1, get("r", None), found(5, "a"));
    let gone = Outcome::Refused { code: 410, why: "too old".into() };
    let ends = |story: Story| story.ends_with(&[("r", version(5, "a"))]);
    assert_wrong(&ends(seen().does(1, get("r", Some(5)), Outcome::Absent)), "later that there is none");
    assert_good(&ends(seen().does(1, get("r", Some(5)), gone.clone()).does(
        1,
        get("r", Some(1)),
        Outcome::Absent,
    )));
    let another = seen().does(2, get("r", Some(5)), gone).does(1, get("r", Some(5)), Outcome::Absent);
    assert_wrong(&ends(another), "later that there is none");
}

#[test]
fn what_its_only_writer_was_told_is_there_at_the_end() {
    let made = || Story::default().does(0, create("thing", "a"), ordered(5, "a"));
    assert_good(&made().ends_with(&[("thing", version(5, "a"))]));
    assert_wrong(&made().ends_with(&[]), "it is not there");
    let unsure = || made().does(0, delete("thing", version(5, "a")), unknown(0));
    assert_good(&unsure().ends_with(&[]));
    assert_good(&unsure().ends_with(&[("thing", version(5, "a"))]));
    for outcome in [kept(), Outcome::Ordered { version: None }] {
        let deleted = || made().does(0, delete("thing", version(5, "a")), outcome.clone());
        assert_good(&deleted().ends_with(&[]));
        assert_wrong(&deleted().ends_with(&[("thing", version(5, "a"))]), "it was deleted, but there it is");
    }
}

#[test]
fn what_was_made_anew_is_owed_again() {
    let deleted = || {
        let made = Story::default().does(0, create("thing", "a"), ordered(5, "a"));
        made.does(0, delete("thing", version(5, "a")), Outcome::Ordered { version: None })
    };
    let there = || [("thing", version(9, "b"))];
    for outcome in [kept(), ordered(9, "b")] {
        let anew = || deleted().does(0, create("thing", "b"), outcome.clone());
        assert_good(&anew().ends_with(&there()));
        assert_wrong(&anew().ends_with(&[]), "it is not there");
    }
    let unsure = || deleted().does(0, create("thing", "b"), unknown(504));
    assert_good(&unsure().ends_with(&there()));
    assert_good(&unsure().ends_with(&[]));
}

#[test]
fn an_edit_of_what_was_deleted_before_is_not_owed_and_one_of_the_new_object_is() {
    let named = |uid: &str, revision, value| Version { uid: uid.into(), ..version(revision, value) };
    let made = |uid: &str, revision, value| Outcome::Ordered { version: Some(named(uid, revision, value)) };
    let anew = || {
        let first = Story::default().does(0, create("thing", "a"), made("first", 5, "a"));
        let gone = first.does(0, delete("thing", named("first", 5, "a")), Outcome::Ordered { version: None });
        gone.does(0, create("thing", "b"), made("second", 9, "b"))
    };
    let there = || [("thing", named("second", 9, "b"))];
    let late = anew().does(0, merge("thing", "x"), kept_of(Some("first")));
    assert_good(&late.ends_with(&there()));
    let edited = anew().does(0, merge("thing", "x"), kept_of(Some("second")));
    assert_wrong(&edited.ends_with(&there()), "these are missing: x=1");
}

#[test]
fn desktops_that_differ_at_the_end_are_seen() {
    let mut story = register().ends_with(&[("r", version(6, "b"))]);
    let at_us = story.now();
    story.history.entries.push(Entry::Final { at_us, desktop: 3, items: BTreeMap::new() });
    assert_wrong(&story, "desktops do not agree at the end: of r d1 holds");
    assert_wrong(&register(), "nobody looked");
}

#[test]
fn a_recording_that_makes_no_sense_is_seen() {
    let mut story = register();
    story.end(0, ordered(9, "a"));
    assert_wrong(&story, "operation 0 was answered twice");
    let mut story = register();
    story.end(7, ordered(9, "a"));
    assert_wrong(&story, "operation 7 was answered and never made");
}

#[test]
fn many_concurrent_writes_are_judged_in_time() {
    let mut story = Story::default().does(0, create("r", "0"), ordered(1, "0"));
    for round in 0..2000_u64 {
        let before = version(1 + round, &round.to_string());
        let lost = story.begin(1, set("r", before.clone(), &format!("lost-{round}")));
        let kept_one = story.begin(2, set("r", before.clone(), &format!("kept-{round}")));
        let next = story.begin(3, set("r", before, &(round + 1).to_string()));
        story.end(next, ordered(2 + round, &(round + 1).to_string()));
        story.end(lost, unknown(504));
        story.end(kept_one, kept());
    }
    assert_good(&story.ends_with(&[("r", version(2001, "2000"))]));
}

#[test]
fn a_history_that_is_too_wide_is_no_pass() {
    // Twenty-four at once that only fit in one order, which nothing tells beforehand; and then one that fits nowhere.
    let mut story = Story::default();
    let mut ops = Vec::new();
    for number in 0..24 {
        ops.push((story.begin(number, create("r", &format!("c{number}"))), number));
        ops.push((story.begin(number, delete("r", version(1, &format!("c{number}")))), number));
    }
    for (op, _) in &ops {
        story.end(*op, Outcome::Ordered { version: None });
    }
    let story = story.ends_with(&[("r", version(1, "never"))]);
    assert_wrong(&story, "too wide to be judged");
}

#[test]
fn a_violation_is_told_with_its_operations_in_order() {
    let story = register().does(2, set("r", version(5, "a"), "c"), ordered(7, "c"));
    let violations = judge(&story.ends_with(&[("r", version(7, "c"))]).history);
    let story = register().does(2, set("r", version(5, "a"), "c"), ordered(7, "c"));
    let text = describe(&story.history, &violations);
    let (one, other) =
        (text.find("#1 client 1 through d1: set r"), text.find("#2 client 2 through d1: set r"));
    assert!(one.is_some() && one < other, "{text}");
}
