//! Bytes from peers: nothing they send may end the node, hold a core for long, or spoil a document.

use crate::intent::document::{Document, Target};
use crate::intent::frame::{Body, Frame};
use crate::intent::samples::{deployment, object, with};
use crate::intent::schema::KubernetesLists;
use crate::intent::{state, vet};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ObjType, ROOT};
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

/// A document and a second change of it.
fn edited() -> (Document, Vec<u8>) {
    let mut document = Document::new(1);
    let first = document.prepare("a", Target::Object(&deployment()), &KubernetesLists).unwrap();
    document.apply(vec![vet::change(&first.change.unwrap()).unwrap()]).unwrap();
    let edit = with(&deployment(), "/spec/replicas", json!(7));
    let second = document.prepare("a", Target::Object(&edit), &KubernetesLists).unwrap();
    (document, second.change.unwrap())
}

/// The chunk with its checksum set right, so that what was changed in it reaches the deeper checks.
fn resealed(mut chunk: Vec<u8>) -> Vec<u8> {
    if chunk.len() > 9 {
        // The hash is over the chunk's type, length and content: all that follows magic and checksum.
        let hash = Sha256::digest(&chunk[8..]);
        chunk[4..8].copy_from_slice(&hash[..4]);
    }
    chunk
}

fn made_by(write: impl FnOnce(&mut automerge::transaction::Transaction<'_>)) -> Vec<u8> {
    let mut doc = Automerge::new().with_actor(ActorId::from([7; 16]));
    let mut transaction = doc.transaction();
    write(&mut transaction);
    transaction.commit_with(CommitOptions::default().with_time(0));
    doc.get_last_local_change().unwrap().raw_bytes().to_vec()
}

#[test]
fn only_what_we_make_is_taken() {
    assert!(vet::change(&made_by(|doc| doc.put(ROOT, "./x", 1).unwrap())).is_ok());
    let refused = [
        made_by(|doc| drop(doc.put_object(ROOT, "./x", ObjType::Map).unwrap())),
        made_by(|doc| drop(doc.put_object(ROOT, "./x", ObjType::Text).unwrap())),
        made_by(|doc| {
            let list = doc.put_object(ROOT, "./x", ObjType::List).unwrap();
            doc.insert(&list, 0, 1).unwrap();
        }),
    ];
    for change in refused {
        assert!(vet::change(&change).is_err());
    }
}

#[test]
fn a_compressed_change_is_refused_before_it_is_inflated() {
    let mut doc = Automerge::new().with_actor(ActorId::from([7; 16]));
    let mut transaction = doc.transaction();
    transaction.put(ROOT, "./x", "x".repeat(100_000)).unwrap();
    transaction.commit_with(CommitOptions::default().with_time(0));
    let mut change = doc.get_last_local_change().unwrap();
    assert!(vet::change(change.raw_bytes()).is_ok());
    assert!(vet::change(&change.bytes()).is_err());
}

#[test]
fn a_run_of_a_billion_operations_is_refused() {
    let honest = made_by(|doc| {
        for n in 0..3 {
            doc.put(ROOT, format!("./{n}"), true).unwrap();
        }
    });
    // The action column is one run: three times "put". Three becomes a number of five bytes.
    let run = honest.windows(2).rposition(|window| window == [3, 1]).unwrap();
    let mut huge = honest.clone();
    huge.splice(run..=run, [0x80, 0x94, 0xeb, 0xdc, 0x03]);
    huge[9] += 4;
    let length_of_actions = huge.windows(2).position(|window| window == [0x42, 2]).unwrap() + 1;
    huge[length_of_actions] += 4;
    assert_eq!(vet::change(&resealed(huge)).unwrap_err(), vet::Refused("it has too many operations"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = Frame { incarnation: 1, body: Body::Changes(vec![&bytes]) };
        prop_assert!(state::apply(None, &frame, &super::super::schema::KubernetesLists, 0).is_err());
    }

    #[test]
    fn a_change_that_was_tampered_with_never_spoils_the_document(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..4),
        seal in any::<bool>(),
    ) {
        let (document, mut change) = edited();
        for (at, byte, kind) in edits {
            let at = at.index(change.len());
            match kind {
                0 => change[at] = byte,
                1 => change.insert(at, byte),
                _ => drop(change.remove(at)),
            }
        }
        if seal {
            change = resealed(change);
        }
        let mut tampered = document.clone();
        let outcome = vet::change(&change).map_err(drop).and_then(|change| {
            tampered.apply(vec![change]).map_err(drop)
        });
        if outcome.is_ok() {
            let pending: Vec<_> = tampered.pending().collect();
            let read_back = Document::load(1, tampered.saved(), &pending).unwrap();
            prop_assert_eq!(read_back.heads(), tampered.heads());
            let _ = read_back.value(&KubernetesLists);
            let next = with(&deployment(), "/spec/replicas", json!(9));
            let next = tampered.prepare("b", Target::Object(&next), &KubernetesLists).unwrap();
            tampered.apply(vec![vet::change(&next.change.unwrap()).unwrap()]).unwrap();
            prop_assert_eq!(tampered.value(&KubernetesLists).unwrap()["spec"]["replicas"].clone(), json!(9));
        }
    }

    #[test]
    fn whatever_we_prepare_passes(object in object()) {
        let document = Document::new(1);
        let prepared = document.prepare("a", Target::Object(&object), &KubernetesLists).unwrap();
        prop_assert!(vet::change(&prepared.change.unwrap()).is_ok());
    }
}
