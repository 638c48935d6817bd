//! What this node promised, and to whom: written down before it is said.

use super::{Answer, LeaseAsk, position_in};
use crate::boottime::boottime_ms;
use crate::flock::FlockStatus;
use gaggle_gossip::PeerId;
use gaggle_sched::electorate::founding::{self, Ask, NoPledge, Position};
use gaggle_sched::electorate::presence::{Grants, LEASE_MS};
use gaggle_sched::electorate::roster::{Count, Roster};
use gaggle_sched::raft;
use gaggle_sched::state::{Lineage, Revision, View};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// A leader that asked this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::flock) struct HeardLeader {
    pub lineage: Lineage,
    pub peer: PeerId,
    pub term: u64,
    pub acting: bool,
    pub count: Count,
    pub at_ms: u64,
}

impl HeardLeader {
    /// Whether it was heard within a lease.
    pub fn is_recent(&self) -> bool {
        boottime_ms().saturating_sub(self.at_ms) < LEASE_MS
    }
}

/// The node's side of leases and pledges. Clones share it.
#[derive(Clone)]
pub(in crate::flock) struct Promises {
    shared: Arc<Shared>,
}

struct Shared {
    file: PathBuf,
    view: View,
    /// What this node follows; the shell says so.
    of: watch::Receiver<Option<Lineage>>,
    status: watch::Receiver<FlockStatus>,
    heard: watch::Sender<Option<HeardLeader>>,
    /// See [`Promises::led`].
    led: watch::Sender<u64>,
    kept: Mutex<Kept>,
}

struct Kept {
    grants: Grants,
    /// When a lease or a pledge was given last; the start, if none was yet.
    given_ms: u64,
}

/// Why this node promises nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::flock) enum Unkept {
    #[error(transparent)]
    NoPledge(NoPledge),
    #[error("the disk does not take it: {0}")]
    Disk(String),
}

impl Promises {
    /// Goes on from what the disk says was promised.
    pub fn open(
        file: PathBuf,
        view: View,
        of: watch::Receiver<Option<Lineage>>,
        status: watch::Receiver<FlockStatus>,
    ) -> Self {
        let now = boottime_ms();
        let grants = match raft::load_word(&file) {
            Ok(word) => Grants::new(word.unwrap_or_default(), now),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    error = format!("{error:#}"),
                    "what this desktop promised is lost: it helps to found no group anew until it follows a newer one"
                );
                Grants::lost(now)
            }
        };
        let kept = Mutex::new(Kept { grants, given_ms: now });
        let heard = watch::Sender::new(None);
        let led = watch::Sender::new(0);
        Self { shared: Arc::new(Shared { file, view, of, status, heard, led, kept }) }
    }

    /// The leader of this node's group that asked last.
    pub fn heard(&self) -> watch::Receiver<Option<HeardLeader>> {
        self.shared.heard.subscribe()
    }

    /// When ([`boottime_ms`]) a leader that acts, and that had this node's last answer, asked last; 0 if none has since the
    /// start. Hearing it is not enough: where only one direction is cut, it takes this node for dead.
    pub fn led(&self) -> watch::Receiver<u64> {
        self.shared.led.subscribe()
    }

    /// Answers a leader. `from` is who the transport says it is; this node asks itself too.
    pub async fn lease(&self, from: PeerId, ask: &LeaseAsk) -> Answer {
        let mine = self.shared.of.borrow().clone();
        if mine.as_ref() == Some(&ask.lineage) {
            if !self.may_lead(from) {
                return Answer::Stranger;
            }
            self.hear(from, ask);
        }
        let mut kept = self.shared.kept.lock().await;
        let mut grants = kept.grants.clone();
        if let Err(no_lease) = grants.grant(&ask.lineage, mine.as_ref(), boottime_ms()) {
            return Answer::NoLease(no_lease);
        }
        grants.note_roster(&ask.lineage, self.roster_in_force(&ask.lineage));
        let noted = grants.word().roster;
        if let Err(why) = self.keep(&mut kept, grants).await {
            return Answer::Unable(why);
        }
        kept.given_ms = boottime_ms();
        if ask.acting && ask.holds {
            self.shared.led.send_replace(boottime_ms());
        }
        Answer::Lease { noted }
    }

    /// Whether this node would pledge itself, as far as can be said without looking into its log.
    pub async fn preview(&self, from: PeerId, ask: &Ask) -> Result<(), NoPledge> {
        let mine = self.shared.of.borrow().clone();
        let position = self.shared.view.read(|store| position_in(&ask.lineage.group, store));
        let mut grants = self.shared.kept.lock().await.grants.clone();
        founding::pledge(&mut grants, ask, &from.to_string(), mine.as_ref(), position, boottime_ms())
    }

    /// Pledges this node, which holds `position` and takes no part in the electorate any more.
    pub async fn pledge(&self, from: PeerId, ask: &Ask, position: Position) -> Result<(), Unkept> {
        let mine = self.shared.of.borrow().clone();
        let mut kept = self.shared.kept.lock().await;
        let mut grants = kept.grants.clone();
        founding::pledge(&mut grants, ask, &from.to_string(), mine.as_ref(), position, boottime_ms())
            .map_err(Unkept::NoPledge)?;
        self.keep(&mut kept, grants).await.map_err(Unkept::Disk)?;
        kept.given_ms = boottime_ms();
        Ok(())
    }

    /// Whether this node has promised not to go on with this lineage.
    pub async fn has_passed(&self, lineage: &Lineage) -> bool {
        self.shared.kept.lock().await.grants.has_passed(lineage)
    }

    /// The highest epoch of a group that this node has promised anything to; 0 if none.
    pub async fn reached(&self, group: &str) -> u64 {
        self.shared.kept.lock().await.grants.reached(group)
    }

    /// How long nothing was promised to anybody.
    pub async fn unled_ms(&self) -> u64 {
        boottime_ms().saturating_sub(self.shared.kept.lock().await.given_ms)
    }

    /// What is said must be on the disk first.
    async fn keep(&self, kept: &mut Kept, grants: Grants) -> Result<(), String> {
        if grants.word() != kept.grants.word() {
            let (file, word) = (self.shared.file.clone(), grants.word().clone());
            let saved = tokio::task::spawn_blocking(move || raft::save_word(&file, &word)).await;
            let saved = saved.map_err(|error| error.to_string());
            let saved =
                saved.and_then(|saved| saved.map_err(|error| format!("{:#}", anyhow::Error::from(error))));
            if let Err(why) = &saved {
                tracing::error!(why, "a promise cannot be written down, and is not given");
            }
            saved?;
        }
        kept.grants = grants;
        Ok(())
    }

    fn roster_in_force(&self, lineage: &Lineage) -> Revision {
        self.shared.view.read(|store| match store.lineage() == Some(lineage) {
            true => store.get(&Roster::key()).map_or(Revision::default(), |object| object.revision()),
            false => Revision::default(),
        })
    }

    /// Where a leader is known, only it and those who may follow it are listened to: every lease holds up whoever has
    /// to found the group anew.
    fn may_lead(&self, peer: PeerId) -> bool {
        let status = self.shared.status.borrow();
        status.leader.is_none_or(|leader| leader == peer) || status.voters.contains(&peer)
    }

    fn hear(&self, peer: PeerId, ask: &LeaseAsk) {
        let (lineage, at_ms) = (ask.lineage.clone(), boottime_ms());
        let (term, acting, count) = (ask.term, ask.acting, ask.count());
        let heard = HeardLeader { lineage, peer, term, acting, count, at_ms };
        self.shared.heard.send_if_modified(|last| {
            let older =
                last.as_ref().is_some_and(|last| last.lineage == heard.lineage && last.term > heard.term);
            if older {
                return false;
            }
            // That it was heard again is no news, unless it had fallen silent.
            let same = |last: &HeardLeader| HeardLeader { at_ms: heard.at_ms, ..last.clone() } == heard;
            let news = !last.as_ref().is_some_and(|last| same(last) && last.is_recent());
            *last = Some(heard);
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::electorate::founding::NoPledge;
    use gaggle_sched::electorate::presence::{HOLD_MS, NoLease};
    use std::time::Duration;

    struct Node {
        dir: tempfile::TempDir,
        view: View,
        of: watch::Sender<Option<Lineage>>,
        status: watch::Sender<FlockStatus>,
    }

    fn lineage(epoch: u64) -> Lineage {
        Lineage { group: "00112233aabbccdd".into(), epoch }
    }

    fn question(epoch: u64) -> LeaseAsk {
        let lineage = lineage(epoch);
        LeaseAsk { lineage, term: 1, acting: true, holds: true, there: 2, of: 3, roster: Revision::default() }
    }

    fn founding(epoch: u64) -> Ask {
        let position = Position { epoch: 1, term: 9, revision: Revision(u64::MAX) };
        Ask { lineage: lineage(epoch), position, roster: Revision(u64::MAX) }
    }

    impl Node {
        fn new() -> Self {
            let (of, _) = watch::channel(Some(lineage(1)));
            let (status, _) = watch::channel(FlockStatus::default());
            let view = View::default();
            view.write(|store| store.found(lineage(1)));
            Self { dir: tempfile::tempdir().unwrap(), view, of, status }
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("word")
        }

        fn start(&self) -> Promises {
            let (of, status) = (self.of.subscribe(), self.status.subscribe());
            Promises::open(self.file(), self.view.clone(), of, status)
        }
    }

    #[tokio::test]
    async fn what_was_promised_is_on_the_disk_when_it_is_said() {
        let (node, leader) = (Node::new(), PeerId::random());
        let promises = node.start();
        assert!(matches!(promises.lease(leader, &question(1)).await, Answer::Lease { .. }));
        assert_eq!(raft::load_word(&node.file()).unwrap().unwrap().given, Some(lineage(1)));
        assert!(promises.heard().borrow().as_ref().is_some_and(|heard| heard.acting && heard.is_recent()));
        let held = promises.preview(leader, &founding(2)).await;
        assert_eq!(held, Err(NoPledge::Led));
        // The time of a lease is the machine's, which no test can turn.
        tokio::time::sleep(Duration::from_millis(HOLD_MS)).await;
        assert_eq!(promises.preview(leader, &founding(2)).await, Ok(()));
        assert!(!promises.has_passed(&lineage(1)).await, "to say that one would changes nothing");
        promises.pledge(leader, &founding(2), Position::default()).await.unwrap();
        assert_eq!(promises.reached(&lineage(1).group).await, 2);

        let again = node.start();
        assert!(again.has_passed(&lineage(1)).await);
        let answer = again.lease(leader, &question(1)).await;
        assert!(matches!(answer, Answer::NoLease(NoLease::Passed(2))), "{answer:?}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_promised() {
        let (node, leader) = (Node::new(), PeerId::random());
        let promises = node.start();
        // A directory in the way of the file: not even root can write it.
        std::fs::create_dir(node.file()).unwrap();
        let answer = promises.lease(leader, &question(1)).await;
        assert!(matches!(answer, Answer::Unable(_)), "{answer:?}");
        std::fs::remove_dir(node.file()).unwrap();
        assert!(matches!(promises.lease(leader, &question(1)).await, Answer::Lease { .. }));
    }

    #[tokio::test]
    async fn strangers_and_other_foundings_get_no_lease() {
        let (node, leader, stranger) = (Node::new(), PeerId::random(), PeerId::random());
        let promises = node.start();
        node.status.send_modify(|status| status.leader = Some(leader));
        assert!(matches!(promises.lease(stranger, &question(1)).await, Answer::Stranger));
        assert!(promises.heard().borrow().is_none(), "and is not taken for the leader");
        assert!(matches!(promises.lease(leader, &question(1)).await, Answer::Lease { .. }));
        let answer = promises.lease(leader, &question(7)).await;
        assert!(matches!(answer, Answer::NoLease(NoLease::Elsewhere(_))), "{answer:?}");
    }

    #[tokio::test]
    async fn a_damaged_word_pledges_nothing() {
        let (node, peer) = (Node::new(), PeerId::random());
        std::fs::write(node.file(), b"nonsense").unwrap();
        let promises = node.start();
        assert_eq!(promises.preview(peer, &founding(2)).await, Err(NoPledge::Unsure));
        let early = promises.lease(peer, &question(1)).await;
        assert!(
            matches!(early, Answer::NoLease(NoLease::Held(_))),
            "it may have been given to another: {early:?}"
        );
        // The time of a lease is the machine's, which no test can turn.
        tokio::time::sleep(Duration::from_millis(HOLD_MS)).await;
        assert!(matches!(promises.lease(peer, &question(1)).await, Answer::Lease { .. }));
    }
}
