//! Follow streams over the transport: this node's view at a voter's newest revision, and others' at ours.

use super::FOLLOW;
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::Transport;
use gaggle_sched::raft::{self, Group};
use gaggle_sched::state::View;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};

/// Followers served at once; a further one finds another voter.
const FOLLOWERS: usize = 128;

/// A status of the group, as the voter that is followed told it.
pub(super) struct Heard {
    pub from: PeerId,
    pub status: raft::Status,
}

/// Follows a voter on another desktop until the stream breaks; says why it did.
pub(super) async fn follow_peer(
    transport: Transport,
    from: PeerId,
    view: View,
    heard: mpsc::Sender<Heard>,
) -> String {
    let stream = match transport.open(from, FOLLOW).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    let told = |status: raft::Status| {
        // A full channel only delays: the newest status comes with the next heartbeat.
        let _ = heard.try_send(Heard { from, status });
    };
    match raft::follow::follow(view, stream, told).await {
        Ok(never) => match never {},
        // With its causes, which say what the other side said.
        Err(error) => format!("{:#}", anyhow::Error::from(error)),
    }
}

/// Serves followers until the transport ends.
pub(super) async fn serve_followers(transport: Transport, view: View, part: watch::Receiver<Option<Group>>) {
    let mut acceptor = match transport.accept(FOLLOW, 64) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "followers cannot be served"),
    };
    let places = Arc::new(Semaphore::new(FOLLOWERS));
    while let Some((peer, stream)) = acceptor.next().await {
        // Not a voter, or too many: the end of the stream sends the follower elsewhere.
        let Some(status) = part.borrow().as_ref().map(Group::status) else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (view, mut ends) = (view.clone(), part.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                result = raft::follow::serve(view, status, stream) => {
                    tracing::debug!(%peer, error = ?result.err(), "a follower is gone");
                }
                _ = ends.wait_for(Option::is_none) => {}
            }
        });
    }
}
