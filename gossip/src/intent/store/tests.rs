//! What is left after a restart, and after a disk lost a part of the file.

use crate::intent::held::Held;
use crate::intent::samples::{deployment, with};
use crate::intent::state::{BURIAL_KEPT_MS, BURY_AFTER_MS};
use crate::intent::state::{Standing, State};
use crate::intent::store::{Store, Summary};
use crate::intent::{Intent, IntentError, KubernetesLists, Noted, PrepareError, StoreError, Want, now_ms};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const KEY: &str = "deployments.apps/default/web";

fn open(path: &Path) -> Result<Intent, IntentError> {
    Intent::open(path, "peer", KubernetesLists)
}

async fn set(intent: &Intent, key: &str, object: Option<&Value>) {
    let change = intent.prepare(key, object).await.unwrap();
    assert_eq!(intent.apply(key, &change.bytes).await.unwrap(), change.heads);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intent.redb");
    let intent = open(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "documents hold Secrets");
    set(&intent, KEY, Some(&deployment())).await;
    set(&intent, "gone", Some(&deployment())).await;
    set(&intent, "gone", None).await;
    let edited = with(&deployment(), "/spec/replicas", json!(4));
    let first = intent.prepare(KEY, Some(&edited)).await.unwrap();
    let later = open(&dir.path().join("other.redb")).unwrap();
    // A change whose ground is missing waits, also over a restart.
    later.apply(KEY, &first.bytes).await.unwrap();
    assert_eq!((later.heads(KEY), later.keys()), (None, vec![]));
    drop(later);
    let later = open(&dir.path().join("other.redb")).unwrap();
    let ground = intent.since(vec![Want { key: KEY.into(), incarnation: 0, heads: vec![] }], 1 << 20);
    let (_, ground, complete) = ground.await.unwrap().frames.remove(0);
    assert!(complete);
    assert_eq!(later.apply(KEY, &ground).await.unwrap(), first.heads);
    assert_eq!(later.value(KEY).await.unwrap(), Some(edited));

    let digest = intent.digest();
    drop(intent);
    let intent = open(&path).unwrap();
    assert_eq!(intent.digest(), digest);
    assert_eq!(intent.value(KEY).await.unwrap(), Some(deployment()));
    assert_eq!(intent.keys(), [KEY]);
    assert!(intent.is_deleted("gone") && !intent.is_deleted(KEY));
    assert!(
        matches!(open(&path), Err(IntentError::Store(error)) if matches!(*error, StoreError::Open { .. }))
    );
}

#[tokio::test]
async fn what_is_not_here_cannot_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let intent = open(&dir.path().join("intent.redb")).unwrap();
    let error = intent.prepare(KEY, None).await.unwrap_err();
    assert!(matches!(error, IntentError::Prepare { source: PrepareError::Missing, .. }));
    assert!(matches!(intent.prepare("", Some(&json!({}))).await, Err(IntentError::Key { bytes: 0 })));
    let huge = json!({"data": "x".repeat(4 << 20)});
    assert!(intent.prepare(KEY, Some(&huge)).await.is_err());
    assert_eq!(intent.heads(KEY), None);
}

/// A desktop that has just come back has no copy yet of what was made and deleted meanwhile.
#[tokio::test]
async fn what_was_deleted_elsewhere_is_made_anew_after_that_and_nothing_else_is_done_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let there = open(&dir.path().join("there.redb")).unwrap();
    let behind = open(&dir.path().join("behind.redb")).unwrap();
    set(&there, KEY, Some(&deployment())).await;
    let live = Noted { heads: there.heads(KEY).unwrap(), gone: false };
    let edit = behind.prepare_on(KEY, Some(&deployment()), Some(&live)).await.unwrap();
    assert_eq!(edit.base, Some(vec![]), "what others order by is not known here");
    set(&there, KEY, None).await;
    let ended = Noted { heads: there.heads(KEY).unwrap(), gone: true };
    let anew = behind.prepare_on(KEY, Some(&deployment()), Some(&ended)).await.unwrap();
    assert_eq!(anew.base.as_ref(), Some(&ended.heads));
    for intent in [&behind, &there] {
        assert_eq!(intent.apply(KEY, &anew.bytes).await.unwrap(), anew.heads);
        assert_eq!(intent.value(KEY).await.unwrap(), Some(deployment()));
    }
    // Whose copy is that far goes by the copy.
    set(&there, KEY, None).await;
    let ended = Noted { heads: there.heads(KEY).unwrap(), gone: true };
    let again = there.prepare_on(KEY, Some(&deployment()), Some(&ended)).await.unwrap();
    assert_eq!((again.base, there.is_buried(KEY)), (Some(ended.heads), false));
}

#[tokio::test]
async fn one_bad_change_does_not_hold_up_the_others_and_all_ring_once() {
    let dir = tempfile::tempdir().unwrap();
    let intent = open(&dir.path().join("intent.redb")).unwrap();
    let good = intent.prepare("a", Some(&deployment())).await.unwrap();
    let mut changed = intent.changed();
    changed.mark_unchanged();
    let frames = vec![
        ("a".to_owned(), good.bytes.clone()),
        ("b".to_owned(), b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x01!".to_vec()),
        ("c".to_owned(), good.bytes.clone()),
    ];
    let outcomes = intent.apply_many(frames).await.unwrap();
    assert!(outcomes[0].is_ok() && outcomes[1].is_err() && outcomes[2].is_ok());
    assert!(changed.has_changed().unwrap());
    assert_eq!(intent.keys(), ["a", "c"]);
    assert!(intent.covers("a", &good.heads).await.unwrap());
    assert!(!intent.covers("a", &vec![[1; 32]]).await.unwrap());
    let all = intent.changes_beyond("a", &vec![], 1 << 20).await.unwrap().unwrap();
    assert_eq!(intent.apply("d", &all).await.unwrap(), good.heads, "a copy can be made of it");
    assert_eq!(intent.changes_beyond("a", &good.heads, 1 << 20).await.unwrap(), None);
    changed.mark_unchanged();
    intent.apply("a", &good.bytes).await.unwrap();
    assert!(!changed.has_changed().unwrap(), "what is known already does not ring");
}

#[tokio::test]
async fn the_dead_are_buried_and_then_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intent.redb");
    let intent = open(&path).unwrap();
    set(&intent, "live", Some(&deployment())).await;
    set(&intent, KEY, Some(&deployment())).await;
    set(&intent, KEY, None).await;
    assert_eq!(intent.compact(now_ms()).await.unwrap(), 0);
    assert_eq!(intent.compact(now_ms() + BURY_AFTER_MS).await.unwrap(), 1);
    assert!(intent.is_deleted(KEY));
    drop(intent);
    let intent = open(&path).unwrap();
    assert!(intent.is_deleted(KEY));
    assert_eq!(intent.heads(KEY), Some(vec![]));
    assert_eq!(intent.compact(now_ms() + BURIAL_KEPT_MS).await.unwrap(), 1);
    assert!(!intent.is_deleted(KEY));
    assert_eq!(intent.keys(), ["live"]);
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_damage_or_whole_but_never_less() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intent.redb");
    let intent = open(&path).unwrap();
    for n in 0..20 {
        set(&intent, &format!("key-{n}"), Some(&with(&deployment(), "/spec/replicas", json!(n)))).await;
    }
    let digest = intent.digest();
    drop(intent);
    let whole = std::fs::read(&path).unwrap();
    let cut = dir.path().join("cut.redb");
    let lengths = (0..64).chain((64..whole.len()).step_by(whole.len() / 150 + 1)).chain([whole.len() - 1]);
    for length in lengths {
        std::fs::write(&cut, &whole[..length]).unwrap();
        match open(&cut) {
            Ok(intent) => assert_eq!(intent.digest(), digest, "cut at {length} of {}", whole.len()),
            Err(IntentError::Store(error)) => {
                assert!(matches!(*error, StoreError::Corrupt { .. }), "cut at {length}: {error:?}");
                assert!(error.to_string().contains("sets the file aside"));
            }
            Err(error) => panic!("cut at {length}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn a_flipped_byte_is_damage_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intent.redb");
    let intent = open(&path).unwrap();
    set(&intent, KEY, Some(&deployment())).await;
    let digest = intent.digest();
    drop(intent);
    let whole = std::fs::read(&path).unwrap();
    let spoilt = dir.path().join("spoilt.redb");
    for at in (0..512).step_by(7).chain((512..whole.len()).step_by(whole.len() / 100)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&spoilt, &bytes).unwrap();
        if let Ok(intent) = open(&spoilt) {
            // redb keeps the commit before the last one too, and falls back to it.
            assert!(intent.digest() == digest || intent.digest().is_empty(), "flipped at {at}");
            let _ = intent.value(KEY).await;
        }
    }
}

#[tokio::test]
async fn a_damaged_file_goes_aside_and_the_documents_begin_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("intent.redb");
    set(&open(&path).unwrap(), KEY, Some(&deployment())).await;
    let (intent, aside) = Intent::open_or_begin_anew(&path, "peer", KubernetesLists).unwrap();
    assert_eq!((intent.keys().len(), aside), (1, None), "a whole file stays");
    drop(intent);
    for round in 1..=3_usize {
        std::fs::write(&path, vec![7; round]).unwrap();
        let (intent, aside) = Intent::open_or_begin_anew(&path, "peer", KubernetesLists).unwrap();
        assert_eq!(intent.keys(), Vec::<String>::new());
        assert_eq!(std::fs::read(aside.unwrap()).unwrap(), vec![7; round], "the damaged one is kept");
        set(&intent, KEY, Some(&deployment())).await;
        assert_eq!(intent.keys(), [KEY]);
    }
    let kept = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(kept, 3, "the file and two damaged ones");
}

#[tokio::test]
async fn nobody_waits_for_a_write_or_sees_it_before_it_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let intent = open(&dir.path().join("intent.redb")).unwrap();
    set(&intent, KEY, Some(&deployment())).await;
    let before = intent.heads(KEY);
    let edited = with(&deployment(), "/spec/replicas", json!(4));
    let change = intent.prepare(KEY, Some(&edited)).await.unwrap();
    // The engine takes one writer at a time.
    let other = intent.0.reader.held.store.guarded(|database| Ok(database.begin_write()?)).unwrap();
    let mut writing = std::pin::pin!(intent.apply(KEY, &change.bytes));
    assert!(futures::poll!(&mut writing).is_pending());
    for _ in 0..3 {
        assert_eq!(intent.value(KEY).await.unwrap(), Some(deployment()));
        assert_eq!(intent.prepare(KEY, Some(&edited)).await.unwrap().base, before);
        assert!(intent.prepare("another", Some(&edited)).await.is_ok());
        assert!(futures::poll!(&mut writing).is_pending(), "it was to wait");
    }
    other.abort().unwrap();
    assert_eq!(writing.await.unwrap(), change.heads);
    assert_eq!((intent.heads(KEY), intent.value(KEY).await.unwrap()), (Some(change.heads), Some(edited)));
}

#[test]
fn what_is_written_is_read_from_then_on() {
    const WRITES: u64 = 60;
    // More than are remembered, so that they are read from the disk time and again.
    const KEYS: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let (store, summaries) = Store::open(&dir.path().join("intent.redb")).unwrap();
    let held = Held::new(store, summaries);
    let write = |at_ms: u64| {
        let next = |key: usize| {
            let standing = Standing::Buried { at_ms };
            let summary = Summary { incarnation: 1, heads: vec![], standing, saved_bytes: 0 };
            (key.to_string(), Some((Arc::new(State::Buried { incarnation: 1, at_ms }), summary)))
        };
        held.write((0..KEYS).map(next).collect()).unwrap();
    };
    let read = |key: usize| match held.state(&key.to_string()).unwrap().as_deref() {
        Some(State::Buried { at_ms, .. }) => *at_ms,
        state => panic!("{state:?}"),
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    (0..KEYS).for_each(|key| _ = read(key));
                }
            });
        }
        let stale = (1..=WRITES).find(|at_ms| {
            write(*at_ms);
            (0..KEYS).any(|key| read(key) != *at_ms)
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(stale, None, "an older one is remembered");
    });
}
