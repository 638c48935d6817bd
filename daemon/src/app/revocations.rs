//! What this desktop's own document says of revoked tokens, heeded before it is ordered.

use crate::flock::adoption::doc_key;
use crate::tokens::Revocations;
use gaggle_gossip::intent::Intent;

/// Reads the document once; whether it could be read.
pub async fn heed(intent: &Intent, revocations: &Revocations) -> bool {
    match intent.value(&doc_key(&Revocations::key())).await {
        Ok(document) => {
            revocations.heard(document.as_ref());
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the document of revoked tokens cannot be read");
            false
        }
    }
}

/// Reads it again whenever it changes.
pub async fn heed_forever(intent: Intent, revocations: Revocations) {
    let mut changed = intent.changed();
    let mut seen = None;
    loop {
        let heads = intent.heads(&doc_key(&Revocations::key()));
        if heads != seen && heed(&intent, &revocations).await {
            seen = heads;
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
