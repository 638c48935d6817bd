//! What people wrote and a group ordered that did not go on: kept as their intent, to be adopted by the group that did.

use gaggle_gossip::intent::Intent;
use gaggle_sched::state::{Revision, Store, View};

/// Changes of documents, each with the document's key.
type Changes = Vec<(String, Vec<u8>)>;

/// The intent of the changes that a store still knows.
fn written(store: &Store) -> Changes {
    let changes = match store.changes_after(Revision::default()) {
        Ok(changes) => changes,
        // What is older than the log has long been in the documents.
        Err(expired) => store.changes_after(expired.oldest).unwrap_or_default(),
    };
    let written = changes.iter().filter_map(|change| Some((change.key.to_string(), change.intent.as_ref()?)));
    let written = written.filter(|(_, intent)| !intent.change.is_empty());
    written.map(|(doc, intent)| (doc, intent.change.clone())).collect()
}

/// Puts what a log held into this node's documents.
pub(super) async fn keep_intent(store: &Store, intent: &Intent) {
    keep(written(store), intent).await;
}

/// Puts what this node's view knows into its documents, before its history ends with a new founding: the objects would
/// say that they were adopted from documents that nobody has.
pub(super) async fn keep_intent_of_view(view: &View, intent: &Intent) {
    keep(view.read(written), intent).await;
}

async fn keep(changes: Changes, intent: &Intent) {
    let count = changes.len();
    let failed = match intent.apply_many(changes).await {
        Ok(outcomes) => outcomes.into_iter().find_map(Result::err),
        Err(error) => Some(error),
    };
    match failed {
        Some(error) => {
            tracing::error!(%error, "writes of a group that did not go on could not be kept as intent")
        }
        None if count > 0 => tracing::info!(count, "writes of a group that did not go on are kept as intent"),
        None => {}
    }
}
