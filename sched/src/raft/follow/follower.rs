//! The follower's side of a follow stream.

use super::super::codec;
use super::super::snapshot::MAX_SNAPSHOT_BYTES;
use super::super::status::Status;
use super::SILENCE;
use super::frame::{self, Hello, Item, Message};
use crate::state::{Claim, Lineage, Snapshot, Store, View};
use std::convert::Infallible;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why following ended. Except for [`FollowError::Superseded`], try another voter.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// This node votes itself now, or follows on another stream: the view has another writer.
    #[error("the view is written by another")]
    Superseded,
    #[error("the peer cannot be followed: {0}")]
    Refused(String),
    #[error("the follow stream broke")]
    Stream(#[from] io::Error),
    #[error("the peer breaks the rules: {0}")]
    Protocol(String),
}

/// Keeps the view at what the voter on the other end has committed, and hands over each status it sends (the
/// voter's own: `role` is the voter's). Ends only with an error.
///
/// # Errors
/// See [`FollowError`]. What was received until then is in the view.
pub async fn follow<S>(
    view: View,
    mut stream: S,
    mut on_status: impl FnMut(Status) + Send,
) -> Result<Infallible, FollowError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let claim = view.write(Store::claim).ok_or(FollowError::Superseded)?;
    let (lineage, revision) = view.read(|store| (store.lineage().cloned(), store.revision()));
    // Without a lineage, what the view holds means nothing to anybody.
    frame::write(&mut stream, &Hello { lineage, revision }).await?;
    loop {
        match frame::read(&mut stream, SILENCE).await? {
            Message::Snapshot { lineage, bytes } => {
                let state = receive(&mut stream, bytes, &mut on_status).await?;
                replace(&view, claim, state, lineage)?;
            }
            Message::Changes { term, items } => {
                let items = items.iter().map(|item| rmp_serde::from_slice(item));
                let items = items.collect::<Result<Vec<Item>, _>>();
                apply(&view, claim, term, items.map_err(|error| FollowError::Protocol(error.to_string()))?)?;
            }
            Message::Beat(status) => {
                if !view.read(|store| store.is_claimed_by(claim)) {
                    return Err(FollowError::Superseded);
                }
                on_status(status);
            }
            Message::Refused(why) => return Err(FollowError::Refused(why)),
            Message::Part(_) => return Err(FollowError::Protocol("a part of no snapshot".into())),
        }
    }
}

async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    len: u64,
    on_status: &mut (impl FnMut(Status) + Send),
) -> Result<Snapshot, FollowError> {
    if len > MAX_SNAPSHOT_BYTES {
        return Err(FollowError::Protocol(format!("a snapshot of {len} bytes is too large")));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        match frame::read(stream, SILENCE).await? {
            Message::Part(part) if !part.is_empty() => bytes.extend_from_slice(&part),
            Message::Beat(status) => on_status(status),
            _ => return Err(FollowError::Protocol("a snapshot was broken off".into())),
        }
    }
    if bytes.len() as u64 != len {
        return Err(FollowError::Protocol("a snapshot is longer than announced".into()));
    }
    let decoded = tokio::task::spawn_blocking(move || codec::decode(&bytes)).await;
    let decoded = decoded.map_err(|error| FollowError::Protocol(error.to_string()))?;
    decoded.map_err(|error| FollowError::Protocol(error.to_string()))
}

fn replace(view: &View, claim: Claim, state: Snapshot, lineage: Lineage) -> Result<(), FollowError> {
    let store = Store::from_snapshot(state);
    view.write(|current| {
        if !current.is_claimed_by(claim) {
            return Err(FollowError::Superseded);
        }
        current.replace(store, lineage);
        Ok(())
    })
}

fn apply(view: &View, claim: Claim, term: u64, items: Vec<Item>) -> Result<(), FollowError> {
    view.write(|store| {
        if !store.is_claimed_by(claim) {
            return Err(FollowError::Superseded);
        }
        for item in items {
            if item.revision <= store.revision() {
                return Err(FollowError::Protocol(format!("revision {} comes twice", item.revision)));
            }
            store.follow(item.revision, &item.key, item.value, item.intent);
        }
        // Also where nothing has changed: a new leader's first entry.
        store.set_term(term);
        Ok(())
    })
}
