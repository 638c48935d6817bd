//! What people wrote and a group ordered that did not go on: kept as their intent, to be adopted by the group that did.

use gaggle_gossip::intent::Intent;
use gaggle_sched::state::{Revision, Store};

/// Puts the intent of the changes that a store still knows into this node's documents.
pub(super) async fn keep_intent(store: &Store, intent: &Intent) {
    let changes = match store.changes_after(Revision::default()) {
        Ok(changes) => changes,
        // What is older than the log has long been in the documents.
        Err(expired) => store.changes_after(expired.oldest).unwrap_or_default(),
    };
    let written = changes.iter().filter_map(|change| Some((change.key.to_string(), change.intent.as_ref()?)));
    let written = written.filter(|(_, intent)| !intent.change.is_empty());
    let batch: Vec<(String, Vec<u8>)> = written.map(|(doc, intent)| (doc, intent.change.clone())).collect();
    let count = batch.len();
    let failed = match intent.apply_many(batch).await {
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
