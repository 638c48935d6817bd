//! The two ways between intent documents and the scheduling state.
//!
//! Committed writes carry their intent change, and [`apply_forever`] brings it into this node's documents.
//! Edits that were kept without a quorum are in documents only; [`adopt_forever`], on the leader, finds documents
//! that are ahead of what was adopted and proposes them, in one order, as the writes they should have been.

use crate::documents::{DocumentError, Documents};
use gaggle_gossip::intent::{Intent, IntentError, Keeper, PrepareError};
use gaggle_sched::controller::deletion::{self, Grace};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{
    Adopted, Expect, Expired, Key, Propose, Resource, Revision, Seen, Store, Txn, View, Write,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a write waits for its document to catch up with the object it changes.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How often documents of deleted objects are looked through.
const COMPACT_EVERY: Duration = Duration::from_secs(3600);
/// Documents that changed are looked at for unadopted edits after this, so that a burst is seen whole.
const SETTLE: Duration = Duration::from_millis(300);

fn doc_key(key: &Key) -> String {
    key.to_string()
}

/// `resource/namespace/name` or `resource/name`, the inverse of [`doc_key`].
fn object_key(doc: &str) -> Option<Key> {
    let mut parts = doc.splitn(3, '/');
    let (resource, second, third) = (parts.next()?, parts.next()?, parts.next());
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let resource = Resource::new(group, plural);
    Some(match third {
        Some(name) => Key::new(resource, second, name),
        None => Key::new(resource, "", second),
    })
}

/// The API's way to the documents.
pub struct FlockDocuments {
    intent: Intent,
    keeper: Keeper,
    view: View,
}

impl FlockDocuments {
    pub fn new(intent: Intent, keeper: Keeper, view: View) -> Self {
        Self { intent, keeper, view }
    }

    /// The document must hold what the object was last adopted from, or the new change would look as if it had
    /// been made at the same time as that.
    async fn caught_up(&self, key: &Key, doc: &str) {
        let mut changed = self.intent.changed();
        let wait = async {
            loop {
                changed.mark_unchanged();
                let adopted = self.view.read(|store| store.adopted(key).cloned());
                let Some(adopted) = adopted else { return };
                // An error is the preparation's to tell.
                if self.intent.covers(doc, &adopted).await.unwrap_or(true) || changed.changed().await.is_err()
                {
                    return;
                }
            }
        };
        if tokio::time::timeout(CATCH_UP, wait).await.is_err() {
            tracing::warn!(%key, "the document lags behind the object; the change is made all the same");
        }
    }
}

/// The whole chain: what to do stands in the cause.
fn document_error(key: &Key, error: IntentError) -> DocumentError {
    let disk = error.is_disk();
    DocumentError { key: key.clone(), why: format!("{:#}", anyhow::Error::from(error)), disk }
}

#[async_trait::async_trait]
impl Documents for FlockDocuments {
    async fn prepare(&self, key: &Key, object: Option<&Value>) -> Result<Adopted, DocumentError> {
        let doc = doc_key(key);
        self.caught_up(key, &doc).await;
        match self.intent.prepare(&doc, object).await {
            Ok(change) => Ok(Adopted { change: change.bytes, heads: change.heads }),
            // What no client ever wrote (a namespace that every cluster begins with) leaves nothing to take back.
            Err(IntentError::Prepare { source: PrepareError::Missing, .. }) => {
                Ok(Adopted { change: Vec::new(), heads: Vec::new() })
            }
            Err(error) => Err(document_error(key, error)),
        }
    }

    async fn keep(&self, key: &Key, adopted: &Adopted) -> Result<(), DocumentError> {
        let kept = self.keeper.keep(&doc_key(key), &adopted.change).await;
        kept.map(|_| ()).map_err(|error| document_error(key, error))
    }
}

/// Brings the changes of committed writes into this node's documents, until the view ends.
pub async fn apply_forever(view: View, intent: Intent) {
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
    loop {
        if lead.wait_for(Option::is_some).await.is_err() {
            return;
        }
        changed.mark_unchanged();
        tokio::time::sleep(SETTLE).await;
        let mut again = false;
        for (doc, heads) in ahead(&view, &intent).await {
            let Some(key) = object_key(&doc) else { continue };
            let object = match intent.value(&doc).await {
                Ok(object) => object,
                Err(error) => {
                    tracing::error!(%key, %error, "a document cannot be read");
                    continue;
                }
            };
            let now = crate::app::now();
            let Some(txn) = view.read(|store| adoption(store, &key, object, heads, &now)) else { continue };
            match propose.propose(txn).await {
                Ok(Ok(applied)) => {
                    tracing::info!(%key, revision = %applied.revision, "adopted an edit made without a quorum")
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
        }
    }
}

/// The documents that hold more than was adopted from them.
async fn ahead(view: &View, intent: &Intent) -> Vec<(String, Vec<[u8; 32]>)> {
    let digest = intent.digest();
    let candidates: Vec<_> = view.read(|store| {
        digest
            .into_iter()
            .filter_map(|(doc, _, heads)| {
                let adopted = store.adopted(&object_key(&doc)?).cloned();
                (adopted.as_ref() != Some(&heads)).then_some((doc, heads, adopted))
            })
            .collect()
    });
    let mut ahead = Vec::new();
    for (doc, heads, adopted) in candidates {
        // A document that lacks what was adopted is behind, not ahead: its changes are still on the way.
        let behind = match &adopted {
            Some(adopted) => !intent.covers(&doc, adopted).await.unwrap_or(false),
            None => false,
        };
        if !behind {
            ahead.push((doc, heads));
        }
    }
    ahead
}

/// The write that makes the scheduling state what the document says.
fn adoption(
    store: &Store,
    key: &Key,
    intended: Option<Value>,
    heads: Vec<[u8; 32]>,
    now: &Time,
) -> Option<Txn> {
    let adopted = Some(Adopted { change: Vec::new(), heads });
    let current = store.get(key);
    let write = match (intended, current) {
        (None, None) => return None,
        (None, Some(current)) => {
            with_intent(deletion::delete(key, current, Grace::AsSpecified, now)?, adopted)
        }
        (Some(mut value), current) => {
            if let Some(fields) = value.as_object_mut() {
                if let Some(status) = current.and_then(|current| current.value().get("status")) {
                    fields.insert("status".into(), status.clone());
                }
                let generation = next_generation(current.map(|current| current.value()), fields.get("spec"));
                if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.insert("generation".into(), generation.into());
                }
            }
            let expect = current.map_or(Expect::Absent, |current| Expect::Revision(current.revision()));
            Write::Put { key: key.clone(), value, expect, intent: adopted }
        }
    };
    Some(write.into())
}

fn with_intent(mut write: Write, adopted: Option<Adopted>) -> Write {
    if let Write::Put { intent, .. } | Write::Delete { intent, .. } = &mut write {
        *intent = adopted;
    }
    write
}

fn next_generation(current: Option<&Value>, spec: Option<&Value>) -> i64 {
    let Some(current) = current else { return 1 };
    let generation = current.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(1);
    if current.get("spec") == spec { generation } else { generation + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_of_documents_come_back() {
        for key in [
            Key::new(Resource::new("apps", "deployments"), "default", "web"),
            Key::new(Resource::new("", "pods"), "default", "a.b"),
            Key::new(Resource::new("", "namespaces"), "", "argo"),
        ] {
            assert_eq!(object_key(&doc_key(&key)), Some(key));
        }
        assert_eq!(object_key("pods"), None);
    }

    #[test]
    fn an_adopted_edit_keeps_the_status_and_counts_the_generation() {
        let mut store = Store::default();
        let key = Key::new(Resource::new("apps", "deployments"), "default", "web");
        let value =
            json!({"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        store
            .apply(&Write::Put { key: key.clone(), value, expect: Expect::Absent, intent: None }.into())
            .unwrap();
        let intended = json!({"metadata": {}, "spec": {"replicas": 2}});
        let txn = adoption(&store, &key, Some(intended), vec![[1; 32]], &crate::app::now()).unwrap();
        store.apply(&txn).unwrap();
        let object = store.get(&key).unwrap().value();
        assert_eq!(object["status"]["replicas"], 1);
        assert_eq!(object["metadata"]["generation"], 4);
        assert_eq!(store.adopted(&key), Some(&vec![[1; 32]]));
    }
}
