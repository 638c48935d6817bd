use super::*;
use serde_json::json;

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
