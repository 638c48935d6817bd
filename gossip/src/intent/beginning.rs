//! First changes that need no unpacking: most documents are one change for most of their lives, and to build automerge's
//! columns for each costs more than everything else that happens to it. Pure.

use super::guard::caught;
use super::leaf::value_leaf;
use super::tree::ROOT;
use super::vet;
use automerge::{ActorId, Change, ExpandedChange, ScalarValue, legacy};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::num::NonZeroU64;

/// The first change of a document, which puts each of these keys once: the one that a transaction in an empty document would
/// end with, without the document.
pub fn of(actor: ActorId, put: impl Iterator<Item = (String, ScalarValue)>) -> Change {
    let operations = put.map(|(key, value)| legacy::Op {
        action: legacy::OpType::Put(value),
        obj: legacy::ObjectId::Root,
        key: legacy::Key::Map(key.as_str().into()),
        pred: legacy::SortedVec::new(),
        insert: false,
    });
    Change::from(ExpandedChange {
        operations: operations.collect(),
        actor_id: actor,
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    })
}

/// Whether this is a whole object as [`prepare`](super::document::Document::prepare) writes one into an empty document: each
/// field put once, in the one form that automerge has for it. Such a change it takes, and gives out again as it was.
/// `false` says nothing: it may be good as well.
pub fn is_one(change: &Change) -> bool {
    if !change.deps().is_empty() || change.start_op().get() != 1 || !change.extra_bytes().is_empty() {
        return false;
    }
    let expanded = change.decode();
    let mut keys = BTreeSet::new();
    let mut has_root = false;
    for op in &expanded.operations {
        let (legacy::ObjectId::Root, legacy::Key::Map(key)) = (&op.obj, &op.key) else { return false };
        let legacy::OpType::Put(value) = &op.action else { return false };
        if op.insert || !op.pred.is_empty() || !keys.insert(key.as_str()) {
            return false;
        }
        has_root |= key == ROOT && value_leaf(&automerge::Value::Scalar(Cow::Borrowed(value))).is_some();
    }
    drop(keys);
    has_root && Change::from(ExpandedChange { hash: None, ..expanded }).raw_bytes() == change.raw_bytes()
}

/// The first change, if what a document is read back from is just that: such a document need not be unpacked.
pub fn read(saved: &[u8]) -> Option<Change> {
    let first = vet::change(saved).ok()?;
    caught(|| is_one(&first)).unwrap_or_default().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Target};
    use super::super::samples::{deployment, object};
    use super::super::schema::KubernetesLists;
    use super::*;
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{Automerge, ReadDoc};
    use proptest::prelude::*;
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    fn first_change(object: &Value) -> Vec<u8> {
        let prepared = Document::new(1).prepare("a", Target::Object(object), &KubernetesLists).unwrap();
        prepared.change.unwrap()
    }

    /// What must hold of a change that is taken without unpacking it.
    fn holds(change: &Change) -> Result<(), TestCaseError> {
        let mut doc = Automerge::new();
        doc.apply_changes([change.clone()]).unwrap();
        prop_assert_eq!(doc.get_heads(), vec![change.hash()]);
        let out = doc.get_change_by_hash(&change.hash()).unwrap();
        prop_assert_eq!(out.raw_bytes(), change.raw_bytes());
        for saved in [change.raw_bytes().to_vec(), doc.save()] {
            prop_assert_eq!(Automerge::load(&saved).unwrap().get_heads(), vec![change.hash()]);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn every_new_object_begins_with_one(object in object()) {
            let change = vet::change(&first_change(&object)).unwrap();
            prop_assert!(is_one(&change));
            holds(&change)?;
            let mut document = Document::new(1);
            document.apply(vec![change.clone()]).unwrap();
            prop_assert_eq!(document.heads(), vec![change.hash().0]);
            prop_assert!(document.has_object() && document.deleted_at_ms().is_none());
            let read_back = Document::load(1, document.saved(), &[] as &[&[u8]]).unwrap();
            // What others lack is told before anything is unpacked as it is after.
            let lacking = (vec![change.raw_bytes().to_vec()], true);
            for document in [&document, &read_back] {
                prop_assert_eq!(document.since(&[], 1), lacking.clone());
                prop_assert_eq!(document.since(&[change.hash().0], 1), (Vec::new(), true));
            }
            prop_assert_eq!(read_back.heads(), document.heads());
            prop_assert_eq!(read_back.value(&KubernetesLists), document.value(&KubernetesLists));
            prop_assert_eq!(read_back.since(&[], 1), lacking);
        }

        /// Two versions of the program that make the same object make the same change of it.
        #[test]
        fn it_is_the_change_that_a_transaction_makes(object in object()) {
            let change = vet::change(&first_change(&object)).unwrap();
            let mut doc = Automerge::new().with_actor(change.actor_id().clone());
            let mut transaction = doc.transaction();
            for op in change.decode().operations {
                let (legacy::Key::Map(key), legacy::OpType::Put(value)) = (op.key, op.action) else { unreachable!() };
                transaction.put(automerge::ROOT, key.as_str(), value).unwrap();
            }
            transaction.commit_with(CommitOptions::default().with_time(0));
            let made = doc.get_last_local_change().unwrap();
            prop_assert_eq!(made.raw_bytes(), change.raw_bytes());
        }

        #[test]
        fn one_that_was_tampered_with_is_as_good_or_is_none(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
        ) {
            let mut bytes = first_change(&deployment());
            for (at, byte, kind) in edits {
                let at = at.index(bytes.len());
                match kind {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            if bytes.len() > 9 {
                // Its checksum set right, so that the deeper checks see it.
                let hash = Sha256::digest(&bytes[8..]);
                bytes[4..8].copy_from_slice(&hash[..4]);
            }
            if let Ok(change) = vet::change(&bytes) && is_one(&change) {
                holds(&change)?;
            }
        }
    }
}
