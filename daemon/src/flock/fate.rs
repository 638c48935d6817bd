//! What became of a transaction whose answer was lost: read off the changes that the group has ordered since. Pure.
//!
//! It is asked after a barrier: a later transaction has been ordered, by the same leader or a newer one, and the view
//! shows it. A leader orders what it was given in turn, and a new one brings everything that its voters hold into the
//! order before anything of its own; so what is not among the changes by then will not come any more.

use gaggle_sched::state::{Change, Expect, Revision, Seen, Store, Txn, Write};
use serde_json::Value;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was ordered, and ended at this revision.
    Ordered(Revision),
    /// It was not, and will not be.
    Lost,
    /// The history does not reach back to when it was sent, or is another group's.
    Unknown,
}

/// The fate of a transaction that was sent when the view stood at `since`.
pub(super) fn fate(store: &Store, since: Seen, txn: &Txn) -> Fate {
    if store.generation() != since.generation {
        return Fate::Unknown;
    }
    let Ok(changes) = store.changes_after(since.revision) else { return Fate::Unknown };
    // A transaction's changes stand in a row; a status that was so already leaves none.
    let writes: Vec<&Write> =
        txn.writes.iter().filter(|write| !matches!(write, Write::Status { .. })).collect();
    if writes.is_empty() {
        return Fate::Unknown;
    }
    let is_status_between = |change: &Change| {
        txn.writes.iter().any(|write| matches!(write, Write::Status { .. }) && *write.key() == change.key)
    };
    for start in 0..changes.len() {
        let mut rest = writes.iter().peekable();
        let mut last = None;
        for change in &changes[start..] {
            match rest.peek() {
                Some(write) if made(change, write) => {
                    last = Some(change.revision);
                    rest.next();
                }
                Some(_) if last.is_some() && is_status_between(change) => {}
                _ => break,
            }
        }
        if let (None, Some(revision)) = (rest.peek(), last) {
            return Fate::Ordered(revision);
        }
    }
    Fate::Lost
}

/// Whether it may be sent a second time: should both be ordered after all, the second one is refused.
pub(super) fn is_guarded(txn: &Txn) -> bool {
    txn.writes.iter().all(|write| match write {
        Write::Put { expect, .. } | Write::Delete { expect, .. } => {
            matches!(expect, Expect::Absent | Expect::Revision(_) | Expect::Uid(_))
        }
        // Said twice, it is the same.
        Write::Status { .. } => true,
    })
}

/// Whether a change is what the write makes.
fn made(change: &Change, write: &Write) -> bool {
    if change.key != *write.key() {
        return false;
    }
    match (write, &change.object) {
        (Write::Put { value, .. }, Some(object)) => same(object.value(), value),
        (Write::Delete { expect, intent, .. }, None) => {
            let heads = intent.as_ref().map(|intent| &intent.heads);
            let expected = match (expect, &change.previous) {
                (Expect::Uid(uid), Some(previous)) => previous.uid() == uid,
                (Expect::Revision(revision), Some(previous)) => previous.revision() == *revision,
                // A follower's history does not hold what was there before: the documents' change tells.
                _ => true,
            };
            expected && heads == change.intent.as_ref().map(|intent| &intent.heads)
        }
        _ => false,
    }
}

/// Whether two objects are alike but for the revision that the store gives.
fn same(stored: &Value, wanted: &Value) -> bool {
    let (Value::Object(stored), Value::Object(wanted)) = (stored, wanted) else { return stored == wanted };
    let without = |metadata: Option<&Value>| {
        let mut metadata = metadata.cloned().unwrap_or_default();
        if let Some(fields) = metadata.as_object_mut() {
            fields.remove("resourceVersion");
        }
        metadata
    };
    stored.len() == wanted.len()
        && stored.iter().all(|(field, value)| match field.as_str() {
            "metadata" => without(Some(value)) == without(wanted.get(field)),
            _ => wanted.get(field) == Some(value),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::state::{HISTORY_LIMIT, Key, Resource, View};
    use proptest::prelude::*;
    use serde_json::json;

    fn key(name: &str) -> Key {
        Key::new(Resource::fixed("configmaps"), "default", name)
    }

    fn put(name: &str, data: u64, expect: Expect) -> Write {
        let value = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "data": data});
        Write::Put { key: key(name), value, expect, intent: None }
    }

    fn order(view: &View, txn: impl Into<Txn>) -> Revision {
        view.write(|store| store.apply(&txn.into())).unwrap().revision
    }

    fn fate_in(view: &View, since: Seen, txn: &Txn) -> Fate {
        view.read(|store| fate(store, since, txn))
    }

    #[test]
    fn what_was_ordered_is_recognised_also_when_it_was_changed_since() {
        let view = View::default();
        let since = view.seen();
        let txn = Txn { writes: vec![put("a", 1, Expect::Absent), put("b", 1, Expect::Absent)] };
        assert_eq!(fate_in(&view, since, &txn), Fate::Lost);
        order(&view, put("c", 1, Expect::Absent));
        let at = order(&view, txn.clone());
        order(&view, put("a", 2, Expect::Present));
        assert_eq!(fate_in(&view, since, &txn), Fate::Ordered(at));
        assert_eq!(fate_in(&view, view.seen(), &txn), Fate::Lost, "that was before it was sent");
    }

    #[test]
    fn a_deletion_is_recognised_by_what_it_deleted() {
        let view = View::default();
        order(&view, put("a", 1, Expect::Absent));
        let since = view.seen();
        let delete = |uid: &str| -> Txn {
            Write::Delete { key: key("a"), expect: Expect::Uid(uid.into()), intent: None }.into()
        };
        let at = order(&view, delete("a"));
        assert_eq!(fate_in(&view, since, &delete("a")), Fate::Ordered(at));
        assert_eq!(fate_in(&view, since, &delete("another")), Fate::Lost);
    }

    #[test]
    fn half_of_it_is_not_it() {
        let view = View::default();
        let since = view.seen();
        order(&view, put("a", 1, Expect::Absent));
        order(&view, put("c", 1, Expect::Absent));
        order(&view, put("b", 1, Expect::Absent));
        let txn = Txn { writes: vec![put("a", 1, Expect::Absent), put("b", 1, Expect::Absent)] };
        assert_eq!(fate_in(&view, since, &txn), Fate::Lost);
    }

    #[test]
    fn a_history_that_does_not_reach_back_tells_nothing() {
        let view = View::default();
        let since = view.seen();
        let txn = Txn::from(put("a", 0, Expect::Absent));
        for data in 0..=HISTORY_LIMIT as u64 {
            order(&view, put("b", data, Expect::Any));
        }
        assert_eq!(fate_in(&view, since, &txn), Fate::Unknown);
        let other = Seen { generation: since.generation + 1, ..view.seen() };
        assert_eq!(fate_in(&view, other, &txn), Fate::Unknown);
    }

    #[test]
    fn only_guarded_writes_are_sent_again() {
        for (expect, guarded) in [
            (Expect::Absent, true),
            (Expect::Revision(Revision(3)), true),
            (Expect::Any, false),
            (Expect::Present, false),
        ] {
            assert_eq!(is_guarded(&put("a", 1, expect).into()), guarded);
        }
    }

    proptest! {
        /// Sent once or twice, lost or not, among others' writes: it is told right, and is there once.
        #[test]
        fn the_answer_is_right(before in 0..4_u64, between in 0..4_u64, happened in any::<bool>(), own in 10..20_u64) {
            let view = View::default();
            order(&view, put("a", 0, Expect::Absent));
            for data in 0..before {
                order(&view, put("a", data + 1, Expect::Present));
            }
            let since = view.seen();
            let current = view.read(|store| store.get(&key("a")).unwrap().revision());
            let txn = Txn::from(put("a", own, Expect::Revision(current)));
            let at = happened.then(|| order(&view, txn.clone()));
            for data in 0..between {
                order(&view, put("a", data + 100, Expect::Present));
            }
            let expected = at.map_or(Fate::Lost, Fate::Ordered);
            prop_assert_eq!(fate_in(&view, since, &txn), expected);
            let again = view.write(|store| store.apply(&txn));
            prop_assert_eq!(again.is_ok(), !happened && between == 0);
        }
    }
}
