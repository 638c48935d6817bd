//! Desktops that were removed for good: they are refused here, a desktop that was removed itself notices, and a group that
//! this one joins hears of it.

use super::FlockStatus;
use super::eviction::{self, Eviction};
use crate::datadir::write_atomically;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_gossip::transport::Transport;
use gaggle_sched::electorate::roster::{EVICTED_LIMIT, Roster};
use gaggle_sched::state::{Propose, Revision, Store, View};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long an eviction that this desktop brings along waits after it was refused: the flock may spare the vote later.
const BRING_AGAIN: Duration = Duration::from_secs(2);

/// Refuses whom the flock has evicted, until the view ends: as the view shows it, if that is of this node's own group. Who
/// goes to another group goes by what that one has evicted, and tells it of the rest ([`bring_forever`]): it could follow
/// nobody there if it refused who leads it. Never oneself: that is for [`until_evicted`].
pub async fn refuse_forever(view: View, transport: Transport, mut status: watch::Receiver<FlockStatus>) {
    let mut revisions = view.subscribe();
    let mut read = None;
    loop {
        let group = status.borrow_and_update().group.clone();
        // Read again only when it has changed: revisions come by the thousand.
        let now = Some((view.read(decided), group.clone()));
        if now != read {
            read = now;
            let is_own = view.read(|store| is_of(store, &group));
            let mut evicted = if is_own { view.read(evicted) } else { BTreeSet::new() };
            evicted.remove(&transport.local());
            transport.refuse(evicted);
        }
        let ended = tokio::select! {
            changed = revisions.changed() => changed.is_err(),
            changed = status.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// The group whose order a view holds, and the revision of its roster: while these stay, so does whom it has evicted.
fn decided(store: &Store) -> (Option<String>, Option<Revision>) {
    let group = store.lineage().map(|lineage| lineage.group.clone());
    (group, store.get(&Roster::key()).map(|object| object.revision()))
}

/// Whether the view is of this group; of any, while this node knows of none.
fn is_of(store: &Store, group: &str) -> bool {
    group.is_empty() || store.lineage().is_some_and(|lineage| lineage.group == group)
}

/// Evictions that this desktop has seen in any group of the cluster, with the names of those who went.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known(BTreeMap<String, String>);

impl Known {
    /// What is in the file. It is only a copy of what groups have decided: one that is damaged is begun anew.
    fn read(path: &Path) -> Self {
        let read = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        };
        Self(read.unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), error, "the list of evicted desktops starts anew");
            BTreeMap::new()
        }))
    }

    /// Waits for the disk.
    fn write(&self, path: &Path) {
        let written = serde_json::to_vec_pretty(&self.0).map_err(anyhow::Error::from);
        if let Err(error) = written.and_then(|bytes| write_atomically(path, &bytes)) {
            tracing::warn!(%error, "the list of evicted desktops is not kept over a restart");
        }
    }

    /// Whether it has grown by what this roster says.
    fn learn(&mut self, roster: &Roster) -> bool {
        let before = self.0.len();
        for (peer, name) in &roster.evicted {
            if self.0.len() < EVICTED_LIMIT {
                self.0.entry(peer.clone()).or_insert_with(|| name.clone());
            }
        }
        self.0.len() > before
    }

    /// One whom this roster does not refuse. None where its list is full: whoever is not on it was forgotten.
    fn missing(&self, roster: &Roster) -> Option<(&String, &String)> {
        let has_room = roster.evicted.len() < EVICTED_LIMIT;
        self.0.iter().find(|(peer, _)| has_room && !roster.evicted.contains_key(*peer))
    }
}

/// Tells every group that this desktop comes to whom others of the cluster have evicted, until the view ends. `node`: this
/// desktop's name, for the events; `path`: where they are kept over a restart.
///
/// Groups that were founded apart decide apart, and one of them yields: what it had decided for good is to stay so.
pub async fn bring_forever(
    view: View,
    propose: Arc<dyn Propose>,
    members: watch::Receiver<Arc<Vec<Member>>>,
    mut status: watch::Receiver<FlockStatus>,
    (node, path): (String, PathBuf),
) {
    let mut known = Known::read(&path);
    let mut revisions = view.subscribe();
    let (mut read, mut roster) = (None, Roster::default());
    let mut complained = None;
    loop {
        let now = view.read(decided);
        if read.as_ref() != Some(&now) {
            roster = view.read(|store| Roster::of(store).map(|(roster, _)| roster).unwrap_or_default());
            if known.learn(&roster) {
                let (known, path) = (known.clone(), path.clone());
                // It says itself what has become of it.
                let _ = tokio::task::spawn_blocking(move || known.write(&path)).await;
            }
            read = Some(now.clone());
        }
        let flock = status.borrow_and_update().clone();
        let follows = flock.quorum && flock.current && now.0.as_ref() == Some(&flock.group);
        let mut again = None;
        if let Some((peer, name)) = known.missing(&roster).filter(|_| follows) {
            let (whom, now) = ((name.as_str(), peer.as_str()), crate::app::now());
            let planned = view.read(|store| Eviction::of(store, &flock, &members.borrow(), whom, &now));
            let refused = match planned {
                Ok(eviction) => match propose.propose(eviction.txn).await {
                    Ok(Ok(_)) => {
                        eviction::tell(&view, &*propose, &eviction.events, &node).await;
                        None
                    }
                    Ok(Err(refused)) => Some(refused.to_string()),
                    Err(error) => Some(error.to_string()),
                },
                Err(not_now) => Some(not_now.to_string()),
            };
            match refused {
                None => {
                    tracing::info!(%name, %peer, "evicted here as well, as a group of this cluster had decided")
                }
                Some(why) if complained.as_ref() == Some(peer) => {
                    tracing::debug!(%name, %peer, why, "an eviction is brought again");
                }
                Some(why) => tracing::warn!(%name, %peer, why, "evicted by another group, and not here yet"),
            }
            complained = Some(peer.clone());
            again = Some(BRING_AGAIN);
        }
        let pause = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        // While one is refused, the view moving on is no reason to try again at once.
        let ended = tokio::select! {
            () = pause => false,
            changed = revisions.changed(), if again.is_none() => changed.is_err(),
            changed = status.changed(), if again.is_none() => changed.is_err(),
        };
        if ended {
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

    fn roster(evicted: &[(&str, &str)]) -> Roster {
        let mut roster = Roster::default();
        for (peer, name) in evicted {
            roster = roster.evicting(peer, name);
        }
        roster
    }

    #[test]
    fn what_one_group_has_decided_is_missing_in_the_next_and_survives_a_restart_between() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evicted.json");
        let mut known = Known::read(&path);
        assert!(
            known.learn(&roster(&[("p", "pc1"), ("q", "pc2")])) && !known.learn(&roster(&[("p", "pc1")]))
        );
        known.write(&path);
        let known = Known::read(&path);
        let missing = |roster: Roster| known.missing(&roster).map(|(peer, name)| format!("{peer} {name}"));
        assert_eq!(missing(roster(&[])), Some("p pc1".into()));
        assert_eq!(missing(roster(&[("p", "other name")])), Some("q pc2".into()));
        assert_eq!(missing(roster(&[("p", "pc1"), ("q", "pc2"), ("r", "pc3")])), None);
        std::fs::write(&path, b"{").unwrap();
        assert_eq!(Known::read(&path), Known::default());
    }

    #[test]
    fn a_full_list_is_left_alone() {
        let mut known = Known::default();
        let full = (0..EVICTED_LIMIT)
            .fold(Roster::default(), |roster, n| roster.evicting(&format!("p{n:04}"), "pc"));
        known.learn(&roster(&[("first", "pc")]));
        assert!(known.learn(&full));
        assert_eq!((known.0.len(), known.missing(&full)), (EVICTED_LIMIT, None));
    }

    #[test]
    fn a_view_of_the_group_that_was_left_refuses_nobody() {
        let mut store = Store::default();
        store.found(gaggle_sched::state::Lineage { group: "old".into(), epoch: 1 });
        assert!(is_of(&store, "old") && is_of(&store, "") && !is_of(&store, "new"));
    }

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
