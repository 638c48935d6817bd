//! The two ways between intent documents and the scheduling state.
//!
//! Committed writes carry their intent change, and [`apply_forever`] brings it into this node's documents.
//! Edits that were kept without a quorum are in documents only; [`adopt_forever`], on the leader, finds documents
//! that are ahead of what was adopted and proposes them, in one order, as the writes they should have been. What is
//! adopted and how is decided in [`super::adoption`].

use super::adoption::{
    Ahead, Burial, CARRIED_BYTES, RUNNER_SPEAKS_WITHIN, Said, adoption, adopts, agree, beginning, burial,
    conflict_notes, differing, doc_key, may_run_already, noted, object_key, outlives,
};
use crate::documents::{DocumentError, Documents, Trouble, wish_of};
use gaggle_gossip::intent::{Beyond, Change, Heads, Intent, IntentError, Keeper, PrepareError};
use gaggle_sched::controller::{Note, notes};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Adopted, Expect, Expired, Key, Object, Propose, Revision, Seen, View, Write};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long a write waits for its document to catch up with the object it changes.
const CATCH_UP: Duration = Duration::from_secs(3);
/// The same for an edit that can be made on a copy that is behind.
const CATCH_UP_BRIEFLY: Duration = Duration::from_millis(300);
/// How long committed changes gather before they go into their documents together, unless somebody waits for one: each time
/// costs a flush, which holds up the log's.
const GATHER: Duration = Duration::from_millis(250);
/// How often documents of deleted objects are looked through.
const COMPACT_EVERY: Duration = Duration::from_secs(3600);
/// Documents that changed are looked at for unadopted edits after this, so that a burst is seen whole.
const SETTLE: Duration = Duration::from_millis(300);
/// Documents that are compared with the state while nobody can write.
const AT_ONCE: usize = 1000;
/// For how long others can write then.
const LET_WRITE: Duration = Duration::from_millis(1);
/// How often the leader looks for documents of objects that controllers deleted.
const BURY_EVERY: Duration = Duration::from_secs(10);

/// The API's way to the documents.
pub struct FlockDocuments {
    intent: Intent,
    keeper: Keeper,
    view: View,
    /// Writes are ordered now: edits that were kept without an order are being adopted.
    quorum: watch::Receiver<bool>,
    hurry: Arc<Notify>,
}

impl FlockDocuments {
    /// `hurry` is told when somebody waits for a committed change: see [`apply_forever`].
    pub fn new(
        intent: Intent,
        keeper: Keeper,
        view: View,
        quorum: watch::Receiver<bool>,
        hurry: Arc<Notify>,
    ) -> Self {
        Self { intent, keeper, view, quorum, hurry }
    }

    /// Waits until the document and the object are of one mind: the document holds what the object was last adopted
    /// from, and, while there is an order, the object what the document holds. A change that is made sooner is
    /// refused by the store, and made again by the API.
    async fn caught_up(&self, key: &Key, doc: &str, patience: Duration) {
        let (mut changed, mut revisions) = (self.intent.changed(), self.view.subscribe());
        let wait = async {
            loop {
                changed.mark_unchanged();
                revisions.mark_unchanged();
                let adopted = self.view.read(|store| store.adopted(key).cloned());
                // An error is the preparation's to tell.
                let covers = match &adopted {
                    Some(adopted) => self.intent.covers(doc, adopted).await.unwrap_or(true),
                    None => true,
                };
                if agree(covers, *self.quorum.borrow(), &said(&self.intent, doc), adopted.as_ref()) {
                    return;
                }
                self.hurry.notify_one();
                tokio::select! {
                    result = changed.changed() => if result.is_err() { return },
                    result = revisions.changed() => if result.is_err() { return },
                }
            }
        };
        if tokio::time::timeout(patience, wait).await.is_err() {
            tracing::warn!(%key, "the document and the object differ; a change may be refused");
        }
    }
}

fn said(intent: &Intent, doc: &str) -> Said {
    Said { buried: intent.is_buried(doc), deleted: intent.is_deleted(doc), heads: intent.heads(doc) }
}

fn adopted(change: Change) -> Adopted {
    Adopted { change: change.bytes, heads: change.heads, base: change.base }
}

/// The whole chain: what to do stands in the cause.
fn document_error(key: &Key, error: IntentError) -> DocumentError {
    let kind = match &error {
        IntentError::Prepare { source: PrepareError::Behind, .. } => Trouble::Behind,
        error if error.is_disk() => Trouble::Disk,
        _ => Trouble::Other,
    };
    DocumentError { key: key.clone(), why: format!("{:#}", anyhow::Error::from(error)), kind }
}

#[async_trait::async_trait]
impl Documents for FlockDocuments {
    async fn prepare(&self, key: &Key, object: Option<&Value>) -> Result<Adopted, DocumentError> {
        let doc = doc_key(key);
        self.caught_up(key, &doc, CATCH_UP).await;
        let noted = self.view.read(|store| noted(store, key));
        match self.intent.prepare_on(&doc, object, noted.as_ref()).await {
            Ok(change) => Ok(adopted(change)),
            // What no client ever wrote (a namespace that every cluster begins with) leaves nothing to take back.
            Err(IntentError::Prepare { source: PrepareError::Missing, .. }) => {
                Ok(Adopted { change: Vec::new(), heads: Vec::new(), base: None })
            }
            Err(error) => Err(document_error(key, error)),
        }
    }

    async fn prepare_edit(&self, key: &Key, before: &Value, after: &Value) -> Result<Adopted, DocumentError> {
        let doc = doc_key(key);
        let prepare = async || {
            let noted = self.view.read(|store| noted(store, key));
            self.intent.prepare_edit(&doc, before, after, noted.as_ref()).await
        };
        // What was ordered a moment ago is to be in it, or the edit would contradict it.
        self.caught_up(key, &doc, CATCH_UP_BRIEFLY).await;
        let mut prepared = prepare().await;
        if matches!(prepared, Err(IntentError::Prepare { source: PrepareError::Behind, .. })) {
            self.caught_up(key, &doc, CATCH_UP).await;
            prepared = prepare().await;
        }
        prepared.map(adopted).map_err(|error| document_error(key, error))
    }

    async fn prepare_made(&self, key: &Key, object: &Value) -> Result<Adopted, DocumentError> {
        let doc = doc_key(key);
        self.caught_up(key, &doc, CATCH_UP).await;
        let noted = self.view.read(|store| noted(store, key));
        let prepared = self.intent.prepare_made(&doc, object, noted.as_ref()).await;
        prepared.map(adopted).map_err(|error| document_error(key, error))
    }

    async fn keep(&self, key: &Key, adopted: &Adopted) -> Result<(), DocumentError> {
        let kept = self.keeper.keep(&doc_key(key), &adopted.change).await;
        kept.map(|_| ()).map_err(|error| document_error(key, error))
    }
}

/// Brings the changes of committed writes into this node's documents, until the view ends; what has gathered, at once when
/// `hurry` says that somebody waits.
pub async fn apply_forever(view: View, intent: Intent, hurry: Arc<Notify>) {
    let mut revisions = view.subscribe();
    // From the oldest change that is still known: after a crash some may be committed and in no document yet.
    let mut seen = Seen { revision: Revision::default(), ..view.seen() };
    loop {
        match view.changes_after(seen) {
            Ok(changes) => {
                let batch: Vec<(String, Vec<u8>)> = changes
                    .iter()
                    .filter_map(|change| Some((doc_key(&change.key), change.intent.as_ref()?.change.clone())))
                    .filter(|(_, change)| !change.is_empty())
                    .collect();
                if !batch.is_empty() {
                    keep_batch(&intent, batch).await;
                }
                if let Some(last) = changes.last() {
                    seen.revision = last.revision;
                }
            }
            // History does not reach back so far, or is another group's: what is missed comes by the exchange
            // between desktops.
            Err(Expired { oldest }) => {
                seen = view.seen_until(oldest);
                continue;
            }
        }
        if revisions.changed().await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = hurry.notified() => {}
        }
    }
}

async fn keep_batch(intent: &Intent, batch: Vec<(String, Vec<u8>)>) {
    let failed = match intent.apply_many(batch).await {
        Ok(outcomes) => outcomes.into_iter().find_map(Result::err),
        Err(error) => Some(error),
    };
    if let Some(error) = failed {
        tracing::error!(%error, "committed intent could not be kept; the exchange between desktops will bring it");
    }
}

/// Forgets, hour by hour, what documents of deleted objects need not say any more.
pub async fn compact_forever(intent: Intent) {
    let mut hours = tokio::time::interval(COMPACT_EVERY);
    loop {
        hours.tick().await;
        let now_ms = crate::app::now().0.as_millisecond();
        match intent.compact(u64::try_from(now_ms).unwrap_or_default()).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::debug!(forgotten, "documents of deleted objects were reduced"),
            Err(error) => tracing::warn!(%error, "documents of deleted objects are kept whole"),
        }
    }
}

/// Adopts edits that were kept without a quorum, while this node leads.
pub async fn adopt_forever(
    view: View,
    intent: Intent,
    propose: Arc<dyn Propose>,
    mut lead: watch::Receiver<Option<Lead>>,
) {
    let mut changed = intent.changed();
    let mut strangers: BTreeMap<Key, Instant> = BTreeMap::new();
    let (mut look, mut led) = (Look::default(), None);
    let mut buried: Option<Instant> = None;
    loop {
        let leads = match lead.wait_for(Option::is_some).await {
            Ok(lead) => lead.clone(),
            Err(_) => return,
        };
        // A leader that begins has seen nothing.
        if led != leads {
            (look, led) = (Look::default(), leads);
        }
        changed.mark_unchanged();
        tokio::time::sleep(SETTLE).await;
        // Who does not lead any more, or is about to yield, adopts nothing.
        if lead.borrow().is_none() {
            continue;
        }
        let mut again = false;
        // Where many are gone, looking at them takes a while.
        let many = view.read(|store| store.gone_but_adopted(None).nth(AT_ONCE).is_some());
        if !many || buried.is_none_or(|last| last.elapsed() >= BURY_EVERY) {
            bury(&view, &intent, &*propose).await;
            buried = Some(Instant::now());
        }
        let ahead = look.ahead(&view, &intent).await;
        strangers.retain(|key, _| ahead.iter().any(|one| object_key(&one.doc).as_ref() == Some(key)));
        let mut next_look = BURY_EVERY;
        for found in ahead {
            if lead.borrow().is_none() {
                again = true;
                break;
            }
            let doc = &found.doc;
            let Some(key) = object_key(doc) else { continue };
            if view.read(|store| may_run_already(store, &key)) {
                let seen = strangers.entry(key.clone()).or_insert_with(Instant::now);
                let left = RUNNER_SPEAKS_WITHIN.saturating_sub(seen.elapsed());
                if !left.is_zero() {
                    next_look = next_look.min(left);
                    continue;
                }
            }
            let object = match intent.value(doc).await {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!(%key, %error, "a document cannot be read");
                    continue;
                }
            };
            if let Some(there) = view.read(|store| outlives(store, &key, object.as_ref(), &found)) {
                again |= begin_anew(&intent, &*propose, &key, &there, &found).await;
                continue;
            }
            let since = found.adopted.clone().unwrap_or_default();
            let conflicts = intent.conflicts(doc, &since).await.unwrap_or_default();
            // With the order goes what was ordered: whoever holds the one could else wait for ever for the other, if
            // this desktop and the one that kept the edit are lost.
            let change = intent.changes_beyond(doc, &since, CARRIED_BYTES).await.ok().flatten();
            let (change, now) = (change.unwrap_or_default(), crate::app::now());
            let Some(txn) = view.read(|store| adoption(store, &key, object, &found, change, &now)) else {
                continue;
            };
            // What was made anew takes the place of the old one as soon as that is gone.
            again |= !txn.writes.iter().any(adopts);
            match propose.propose(txn).await {
                Ok(Ok(applied)) => {
                    tracing::info!(%key, revision = %applied.revision, "adopted an edit made without a quorum");
                    tell(&view, &*propose, conflict_notes(&key, &conflicts)).await;
                }
                // Somebody was faster, or the group is busy: the document still is ahead.
                Ok(Err(refused)) => {
                    again = true;
                    tracing::debug!(%refused, "an adoption was refused");
                }
                Err(error) => {
                    again = true;
                    tracing::debug!(%error, "an adoption did not happen");
                }
            }
        }
        if again {
            continue;
        }
        tokio::select! {
            result = changed.changed() => if result.is_err() { return },
            result = lead.changed() => if result.is_err() { return },
            () = tokio::time::sleep(next_look) => {}
        }
    }
}

/// Gives an object that is there a document again; whether that is to be tried again at once.
async fn begin_anew(
    intent: &Intent,
    propose: &dyn Propose,
    key: &Key,
    there: &Object,
    found: &Ahead,
) -> bool {
    let wish = wish_of(there.value());
    let change = match intent.prepare(&found.doc, Some(&wish)).await {
        Ok(change) => adopted(change),
        Err(error) => {
            tracing::error!(%key, %error, "an object's document cannot begin anew");
            return false;
        }
    };
    match propose.propose(beginning(key, there, found, change)).await {
        Ok(Ok(_)) => {
            tracing::info!(%key, "what was ordered outlives the end of its document, which it was not made from");
            false
        }
        // Somebody was faster, or the group is busy.
        Ok(Err(_)) | Err(_) => true,
    }
}

/// Objects that controllers deleted (an owner's dependents, a namespace's content) leave documents that still say that
/// somebody wants them: those end too, or the next group to adopt them would make the objects again.
async fn bury(view: &View, intent: &Intent, propose: &dyn Propose) {
    let mut after = None;
    loop {
        let gone = view
            .read(|store| store.gone_but_adopted(after.as_ref()).take(AT_ONCE).cloned().collect::<Vec<_>>());
        let left = gone.len() / AT_ONCE;
        after = gone.last().cloned();
        if !bury_these(view, intent, propose, gone).await || left == 0 {
            return;
        }
        let_write(left).await;
    }
}

/// Whether others are to be looked at.
async fn bury_these(view: &View, intent: &Intent, propose: &dyn Propose, gone: Vec<Key>) -> bool {
    for key in gone {
        let doc = doc_key(&key);
        let adopted = view.read(|store| store.adopted(&key).cloned());
        let ended = match burial(&said(intent, &doc), adopted.as_ref()) {
            Some(Burial::Forget) => Some(Adopted { change: Vec::new(), heads: Vec::new(), base: None }),
            Some(Burial::End) => {
                let change = intent.prepare(&doc, None).await.ok();
                change.map(|change| Adopted { change: change.bytes, heads: change.heads, base: change.base })
            }
            None => None,
        };
        let Some(ended) = ended else { continue };
        let write = Write::Delete { key: key.clone(), expect: Expect::Absent, intent: Some(ended) };
        match propose.propose(write.into()).await {
            Ok(Ok(_)) => tracing::debug!(%key, "the document of a deleted object has ended"),
            Ok(Err(refused)) => tracing::debug!(%refused, "somebody made the object anew"),
            Err(error) => {
                tracing::debug!(%error, "documents of deleted objects are ended later");
                return false;
            }
        }
    }
    true
}

/// Lets others write, if there is more to do.
async fn let_write(left: usize) {
    if left > 0 {
        tokio::time::sleep(LET_WRITE).await;
    }
}

async fn tell(view: &View, propose: &dyn Propose, notes: Vec<Note>) {
    if notes.is_empty() {
        return;
    }
    let events = view.read(|store| notes::record(store, &notes, &crate::app::now(), "leader"));
    for event in events {
        if !matches!(propose.propose(event).await, Ok(Ok(_))) {
            tracing::debug!("an event about two edits was not stored");
        }
    }
}

/// How far the leader has looked through the documents.
#[derive(Default)]
struct Look {
    /// See [`Intent::digest_since`]; `None`: everything is still to be looked at.
    mark: Option<u64>,
    /// Those that were ahead when last looked at.
    ahead: BTreeSet<String>,
    /// When everything was looked at.
    whole: Option<Instant>,
}

impl Look {
    /// The documents that hold more than was adopted from them: of those that changed since the last look and those that were
    /// ahead then. Now and then all are looked at.
    async fn ahead(&mut self, view: &View, intent: &Intent) -> Vec<Ahead> {
        if self.whole.is_none_or(|whole| whole.elapsed() >= BURY_EVERY) {
            *self = Self { whole: Some(Instant::now()), ..Self::default() };
        }
        let (digest, mark) = intent.digest_since(self.mark);
        self.mark = Some(mark);
        // What changed says itself what it holds now.
        let mut digest: BTreeMap<String, Heads> = digest.into_iter().collect();
        for doc in std::mem::take(&mut self.ahead) {
            if let Some(heads) = intent.heads(&doc) {
                digest.insert(doc, heads);
            }
        }
        let mut candidates = Vec::new();
        let mut digest = digest.into_iter();
        while digest.len() > 0 {
            let some = digest.by_ref().take(AT_ONCE);
            candidates.extend(view.read(|store| differing(store, some).collect::<Vec<_>>()));
            let_write(digest.len()).await;
        }
        let mut ahead = Vec::new();
        for (doc, adopted) in candidates {
            // Its heads are those of the moment in which it held what was adopted: any older ones would take that back.
            let beyond = match &adopted {
                Some(adopted) => intent.beyond(&doc, adopted).await.unwrap_or_default(),
                None => intent.heads(&doc).map(|heads| Beyond { heads, anew: false }),
            };
            ahead.extend(Ahead::of(doc, adopted, beyond));
        }
        self.ahead = ahead.iter().map(|found| found.doc.clone()).collect();
        ahead
    }
}
