use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

fn put(name: &str, value: &str, expect: Expect) -> Write {
    let key = Key::new(Resource::fixed("configmaps"), "default", name);
    let value = json!({"metadata": {"name": name, "uid": name}, "data": {"v": value}});
    Write::Put { key, value, expect, intent: None }
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let mut store = Store::default();
    store.apply(&put("a", "1", Expect::Absent).into()).unwrap();
    let before = store.snapshot();
    let txn = ["2", "3"].map(|value| put("a", value, Expect::Present));
    let txn = Txn::from([txn.as_slice(), &[put("b", "1", Expect::Present)]].concat());
    let key = Key::new(Resource::fixed("configmaps"), "default", "b");
    assert_eq!(store.apply(&txn), Err(Refused::NotFound(key)));
    assert_eq!(store.snapshot().objects, before.objects);
    assert_eq!(store.revision(), Revision(1));
    assert_eq!(store.changes_after(Revision(0)).unwrap().len(), 1);
}

#[test]
fn a_transaction_that_is_sent_again_happens_once() {
    let mut store = Store::default();
    let create = Txn { id: Some(TxnId(1, 2)), ..put("a", "1", Expect::Absent).into() };
    let first = store.apply(&create).unwrap();
    store.apply(&put("a", "2", Expect::Revision(first.revision)).into()).unwrap();
    assert_eq!(store.apply(&create), Ok(first.clone()), "answered as it was then");
    assert_eq!(store.changes_after(Revision(0)).unwrap().len(), 2);
    let mut restored = Store::from_snapshot(store.snapshot());
    assert_eq!(restored.apply(&create), Ok(first));

    // One that was refused did nothing, and is judged anew.
    let second = Txn { id: Some(TxnId(3, 4)), ..put("b", "1", Expect::Present).into() };
    assert!(store.apply(&second).is_err());
    store.apply(&put("b", "0", Expect::Absent).into()).unwrap();
    assert!(store.apply(&second).is_ok());
}

#[test]
fn a_stale_revision_conflicts() {
    let mut store = Store::default();
    store.apply(&put("a", "1", Expect::Absent).into()).unwrap();
    store.apply(&put("a", "2", Expect::Revision(Revision(1))).into()).unwrap();
    let refused = store.apply(&put("a", "3", Expect::Revision(Revision(1))).into()).unwrap_err();
    assert!(matches!(refused, Refused::Conflict { current: Revision(2), .. }), "{refused}");
}

#[test]
fn a_status_does_not_undo_what_its_writer_has_not_seen() {
    let mut store = Store::default();
    let revision = store.apply(&put("a", "1", Expect::Absent).into()).unwrap().revision;
    let key = Key::new(Resource::fixed("configmaps"), "default", "a");
    let status = |ready: bool, seen| {
        let status = json!({"ready": ready});
        Txn::from(Write::Status { key: key.clone(), uid: "a".into(), status, seen: Some(seen) })
    };
    let newer = store.apply(&status(true, revision)).unwrap().revision;
    let refused = store.apply(&status(false, revision)).unwrap_err();
    assert_eq!(refused, Refused::Conflict { key: key.clone(), current: newer });
    // What is there already need not be written, whatever its writer saw.
    assert_eq!(store.apply(&status(true, revision)).unwrap().revision, newer);
}

#[test]
fn a_watch_that_fell_behind_is_told_so() {
    let mut store = Store::default();
    for n in 0..HISTORY_LIMIT + 10 {
        store.apply(&put("a", &n.to_string(), Expect::Any).into()).unwrap();
    }
    assert_eq!(store.changes_after(Revision(3)).unwrap_err(), Expired { oldest: Revision(10) });
    assert_eq!(store.changes_after(Revision(10)).unwrap().len(), HISTORY_LIMIT);
    assert!(
        store.changes_after(store.revision().next()).is_err(),
        "a revision from the future is another group's"
    );
}

#[test]
fn what_a_founding_left_behind_is_known_also_after_a_snapshot() {
    let lineage = |epoch| Lineage { group: "lab".into(), epoch };
    let mut store = Store::default();
    store.found(lineage(1));
    let held = store.apply(&put("a", "1", Expect::Any).into()).unwrap().revision;
    store.found(lineage(2));
    for store in [Store::from_snapshot(store.snapshot()), Store::from_frozen(store.freeze()), store] {
        assert!(!store.has_lost(held) && !store.has_lost(store.revision()));
        assert!(store.has_lost(held.next()), "another one may have ordered it, and shown it");
    }
}

#[test]
fn who_reads_a_change_reads_its_revision_too() {
    const CHANGES: u64 = 20_000;
    let view = View::default();
    let writer = view.clone();
    let writing = std::thread::spawn(move || {
        for n in 0..CHANGES {
            writer.write(|store| store.apply(&put("a", &n.to_string(), Expect::Any).into())).unwrap();
        }
    });
    loop {
        let read = view.read(Store::revision);
        assert!(view.revision() >= read, "{} is said, {read} was read", view.revision());
        if read == Revision(CHANGES) {
            break;
        }
    }
    writing.join().unwrap();
}

/// What was adopted for an object that is gone, found by looking through everything.
fn gone(store: &Store) -> BTreeSet<Key> {
    let snapshot = store.snapshot();
    let there: BTreeSet<Key> = snapshot.objects.into_iter().map(|(key, ..)| key).collect();
    let adopted = snapshot.adopted.into_iter().filter(|(_, heads)| !heads.is_empty());
    adopted.map(|(key, _)| key).filter(|key| !there.contains(key)).collect()
}

/// Puts and deletes of two objects, with and without a document, some of which are refused.
fn any_write() -> impl Strategy<Value = Write> {
    let heads = prop::option::of(prop::sample::select(vec![vec![], vec![[1; 32]], vec![[2; 32]]]));
    let intent = heads.prop_map(|heads| heads.map(|heads| Adopted { change: vec![], heads, base: None }));
    let expect = prop::sample::select(vec![Expect::Any, Expect::Absent, Expect::Present]);
    (prop::sample::select(vec!["a", "b"]), any::<bool>(), expect, intent).prop_map(
        |(name, puts, expect, intent)| {
            let Write::Put { key, value, .. } = put(name, "1", Expect::Any) else {
                unreachable!("it is a put")
            };
            match puts {
                true => Write::Put { key, value, expect, intent },
                false => Write::Delete { key, expect, intent },
            }
        },
    )
}

proptest! {
    #[test]
    fn objects_that_are_gone_are_known_without_looking_for_them(
        txns in prop::collection::vec(prop::collection::vec(any_write(), 1..4), 0..12),
    ) {
        let (mut store, mut follower) = (Store::default(), Store::default());
        for writes in txns {
            let seen = store.seen();
            _ = store.apply(&Txn::from(writes));
            for change in store.changes_since(seen).unwrap() {
                follower.follow_shared(&change);
            }
            for known in [&store, &follower, &Store::from_snapshot(store.snapshot()), &Store::from_frozen(store.freeze())] {
                prop_assert_eq!(known.gone_but_adopted(None).cloned().collect::<BTreeSet<_>>(), gone(&store));
            }
        }
    }
}
