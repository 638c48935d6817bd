//! Desktops that were removed for good: they are refused here, and a desktop that was removed itself notices.

use super::FlockStatus;
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::Transport;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::state::{Revision, Store, View};
use std::collections::BTreeSet;
use std::str::FromStr;
use tokio::sync::watch;

/// Refuses whom the flock has evicted, as this node's view shows it, until the view ends. Never oneself: that is for
/// [`until_evicted`].
pub async fn refuse_forever(view: View, transport: Transport) {
    let mut revisions = view.subscribe();
    let mut read: Option<Revision> = None;
    loop {
        let written = view.read(|store| Some(store.get(&Roster::key())?.revision()));
        if written != read {
            read = written;
            let mut evicted = view.read(evicted);
            evicted.remove(&transport.local());
            transport.refuse(evicted);
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

/// Returns when this node has been evicted, with the reason to tell its owner.
pub async fn until_evicted(
    view: View,
    transport: Transport,
    mut status: watch::Receiver<FlockStatus>,
) -> String {
    let (me, mut told, mut revisions) = (transport.local(), transport.evicted(), view.subscribe());
    loop {
        let shown = view.read(|store| evicted(store).contains(&me));
        let by = *told.borrow_and_update();
        if is_evicted(shown, by, &status.borrow_and_update()) {
            return match by {
                Some(peer) if !shown => {
                    format!("this desktop was evicted from the cluster (peer {peer} says so)")
                }
                _ => "this desktop was evicted from the cluster".into(),
            };
        }
        let ended = tokio::select! {
            changed = told.changed() => changed.is_err(),
            changed = status.changed() => changed.is_err(),
            changed = revisions.changed() => changed.is_err(),
        };
        if ended {
            // The daemon is stopping.
            return std::future::pending().await;
        }
    }
}

/// What this node's own group has decided counts at once. What another peer says counts only for a node that has no group
/// which acts: one that remembers an eviction from another group of this cluster cannot stop a flock that works.
fn is_evicted(shown: bool, told_by: Option<PeerId>, status: &FlockStatus) -> bool {
    shown || told_by.is_some() && !status.quorum
}

fn evicted(store: &Store) -> BTreeSet<PeerId> {
    let roster = Roster::of(store).map(|(roster, _)| roster).unwrap_or_default();
    roster.evicted.keys().filter_map(|peer| PeerId::from_str(peer).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_peer_cannot_stop_a_desktop_whose_flock_acts() {
        let (alone, acting) =
            (FlockStatus::default(), FlockStatus { quorum: true, ..FlockStatus::default() });
        let peer = Some(PeerId::random());
        assert!(is_evicted(true, None, &acting), "its own group has decided it");
        assert!(is_evicted(false, peer, &alone));
        assert!(!is_evicted(false, peer, &acting));
        assert!(!is_evicted(false, None, &alone));
    }
}
