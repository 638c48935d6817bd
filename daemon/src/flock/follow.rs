//! Keeping this node's view at the group's newest revision, from its own state machine or a voter's stream.

use super::FOLLOW;
use crate::flock::shell::Heard;
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::Transport;
use gaggle_sched::raft::{self, Group};
use gaggle_sched::state::View;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, watch};

/// Followers served at once; a further one finds another voter.
const FOLLOWERS: usize = 128;

/// Follows the state machine in this process until `group` stops.
pub(super) async fn follow_own(group: Group, own: View, view: View, heard: mpsc::Sender<Heard>) {
    let mut status = group.status();
    let mut revisions = own.subscribe();
    loop {
        revisions.mark_unchanged();
        let now = status.borrow_and_update().clone();
        catch_up(&own, &view);
        if heard.send(Heard { from: None, status: now }).await.is_err() {
            return;
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            changed = status.changed() => if changed.is_err() { return },
        }
    }
}

/// Brings `view` to the revision of `own`; never back.
fn catch_up(own: &View, view: &View) {
    let at = view.revision();
    if own.revision() <= at {
        // While a new voter's log is replayed its state machine is behind what was followed before.
        return;
    }
    match own.changes_after(at) {
        Ok(changes) => view.write(|store| {
            for change in changes {
                store.follow_shared(&change);
            }
        }),
        Err(_) => {
            let fork = own.read(|store| store.fork());
            view.write(|store| *store = fork);
        }
    }
}

/// Follows a voter on another desktop until the stream breaks; says why it did.
pub(super) async fn follow_peer(
    transport: Transport,
    peer: PeerId,
    known: raft::Known,
    view: View,
    heard: mpsc::Sender<Heard>,
) -> String {
    let stream = match transport.open(peer, FOLLOW).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    let told = |status: raft::Status| {
        // A full channel only delays: the newest status comes with the next heartbeat.
        let _ = heard.try_send(Heard { from: Some(peer), status });
    };
    match raft::follow(view, known, stream, told).await {
        Ok(()) => "the stream ended".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Serves followers until the transport ends.
pub(super) async fn serve_followers(transport: Transport, voting: watch::Receiver<Option<(Group, View)>>) {
    let mut acceptor = match transport.accept(FOLLOW, 64) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "followers cannot be served"),
    };
    let places = Arc::new(Semaphore::new(FOLLOWERS));
    while let Some((peer, stream)) = acceptor.next().await {
        // Not a voter, or too many: the end of the stream sends the follower elsewhere.
        let Some((group, own)) = voting.borrow().clone() else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let mut ends = voting.clone();
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                result = raft::serve(own, group.status(), stream) => {
                    tracing::debug!(%peer, error = ?result.err(), "a follower is gone");
                }
                _ = ends.wait_for(Option::is_none) => {}
            }
        });
    }
}
