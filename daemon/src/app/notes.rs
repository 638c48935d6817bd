//! From what the agent and the electorate noticed to Kubernetes Events that `describe` shows.

use super::now;
use gaggle_sched::controller::{Note, notes};
use gaggle_sched::state::{Propose, View};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Notes stored in one go.
const AT_ONCE: usize = 128;
/// After a failure (no quorum) notes wait this long.
const AGAIN: Duration = Duration::from_secs(1);

/// Stores notes as events until the agent ends.
pub async fn store_forever(
    view: View,
    propose: Arc<dyn Propose>,
    mut notes: mpsc::Receiver<Note>,
    node: String,
) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while notes.recv_many(&mut batch, AT_ONCE).await > 0 {
        let txns = view.read(|store| notes::record(store, &batch, &now(), &node));
        let proposals = txns.into_iter().map(|txn| propose.propose(txn));
        for outcome in futures::future::join_all(proposals).await {
            match outcome {
                Ok(Ok(_)) => {}
                Ok(Err(refused)) => tracing::debug!(%refused, "an event was not stored"),
                Err(error) => {
                    tracing::debug!(%error, "events are not stored now");
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
            }
        }
        batch.clear();
    }
}
