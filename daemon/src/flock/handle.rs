//! The flock as the rest of the daemon holds it.

use super::presence::{Leader, Leading, Promises, serve_presence};
use super::raft_net::{RaftNetwork, serve_group};
use super::shell::{Inlets, Outlets, Shell, Surroundings};
use super::tell::Tell;
use super::{FlockStatus, Part, ToLeader, follow};
use gaggle_gossip::intent::Intent;
use gaggle_gossip::membership::{Member, Membership};
use gaggle_gossip::transport::Transport;
use gaggle_sched::controller::Note;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::raft;
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Lineage, Resource, View};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What peers ask the shell to decide at once; more are told to come again.
const ERRANDS: usize = 64;

#[derive(Clone)]
pub struct FlockConfig {
    /// Where the Raft log and snapshots are kept.
    pub raft: PathBuf,
    /// Where a follower keeps what it has seen.
    pub view: PathBuf,
    /// Where this node writes down what it promised.
    pub word: PathBuf,
    pub started_ms: u64,
    /// After this long with less than half of the desktops those that are here go on by themselves, if the owner said so.
    pub autonomy: Option<Duration>,
    /// The largest electorate; the leader's counts.
    pub voters: usize,
    /// Takes what becomes of the group and its electorate, to be stored as events.
    pub notes: mpsc::Sender<Note>,
}

/// What [`Flock::leave`] waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaveProgress {
    /// Nobody else is of the group: it stays on this disk.
    Last,
    /// Still a voter.
    Voting,
    /// Out of the electorate, still in the roster.
    InRoster,
    Left,
}

/// The handle on the shell.
#[derive(Clone)]
pub struct Flock {
    pub status: watch::Receiver<FlockStatus>,
    /// `Some` while this node leads and may act.
    pub lead: watch::Receiver<Option<Lead>>,
    /// See `Promises::led`: when a leader that acts, and counts on this node, was heard last.
    pub led: watch::Receiver<u64>,
    leading: watch::Receiver<Leading>,
    pub propose: Arc<ToLeader>,
    view: View,
    membership: Membership,
    stop: mpsc::Sender<Stop>,
    recover: mpsc::Sender<RecoverOrder>,
}

/// People want this group to go on with those who are here.
pub(super) struct RecoverOrder {
    pub answer: oneshot::Sender<Result<String, String>>,
}

pub(super) struct Stop {
    /// Nothing of the group is to be left on this disk.
    pub forget: bool,
    pub done: oneshot::Sender<()>,
}

impl Flock {
    /// Takes up what the disk remembers and begins to look for the others.
    pub async fn start(
        config: FlockConfig,
        transport: Transport,
        membership: Membership,
        view: View,
        intent: Intent,
    ) -> anyhow::Result<Self> {
        let network = Arc::new(RaftNetwork::new(transport.clone()));
        match raft::load_view(&config.view) {
            Ok(Some(saved)) => view.write(|store| *store = saved),
            Ok(None) => {}
            // A copy of what others hold: it is fetched again.
            Err(error) => tracing::warn!(%error, "the saved view is unreadable and is fetched anew"),
        }
        let tell = Tell::new(transport.local(), view.clone(), config.notes.clone());
        let (leader, leases) =
            Leader::new(transport.clone(), view.clone(), membership.clone(), tell.clone(), config.voters);
        let (of_tx, of) = watch::channel(view.read(|store| store.lineage().cloned()));
        let (status_tx, status) = watch::channel(FlockStatus::default());
        let promises = Promises::open(config.word.clone(), view.clone(), of, status.clone());

        // A node that has promised not to go on with its part's epoch keeps the part's files for whoever founds the next.
        let aside = match raft::salvage(&config.raft).await {
            Ok(Some(left)) if promises.has_passed(&left.lineage).await => Some(left),
            // Damage is told by resuming. What cannot be read now may hold an epoch that was promised away.
            Err(error) if !error.is_damage() => return Err(error.into()),
            _ => None,
        };
        let resumed = match &aside {
            Some(_) => None,
            None => {
                let (me, gate) = (transport.local(), leases.gate());
                super::shell::take_up(&config, me, gate, network.clone(), &view).await?
            }
        };
        let of = match (&resumed, &aside) {
            (Some(group), _) => Some(Lineage { group: group.id().to_string(), epoch: group.epoch() }),
            (None, Some(aside)) => Some(aside.lineage.clone()),
            // The group of a desktop that has always been alone, and that it has no log of any more, nobody else
            // can go on with: another is founded on what the view still shows.
            (None, None) => view.read(|store| {
                let alone = store.list(&Resource::fixed("nodes"), None).count() <= 1;
                store.lineage().filter(|_| !alone).cloned()
            }),
        };
        of_tx.send_replace(of);

        let (part_tx, part) = watch::channel(resumed);
        let (lead_tx, lead) = watch::channel(None);
        let (invitations_tx, invitations) = mpsc::channel(16);
        let (stop_tx, stop) = mpsc::channel(1);
        let (recover_tx, recover) = mpsc::channel(1);
        let (errands_tx, errands) = mpsc::channel(ERRANDS);

        tokio::spawn({
            let (transport, view, part) = (transport.clone(), view.clone(), part.clone());
            async move {
                if let Err(error) = serve_group(transport, view, part, invitations_tx).await {
                    tracing::error!(%error, "Raft cannot be served");
                }
            }
        });
        tokio::spawn(follow::serve_followers(transport.clone(), view.clone(), part.clone()));
        tokio::spawn(serve_presence(transport.clone(), promises.clone(), errands_tx));
        tokio::spawn(leader.run(promises.clone(), part.clone()));
        let propose = Arc::new(ToLeader::new(transport.clone(), view.clone(), status.clone(), part));
        let outlets = Outlets { part: part_tx, of: of_tx, status: status_tx, lead: lead_tx };
        let inlets = Inlets { invitations, errands, recover, stop };
        let surroundings =
            Surroundings { transport, membership: membership.clone(), view: view.clone(), network, tell };
        let (led, leading) = (promises.led(), leases.leading());
        let shell = Shell::new(config, surroundings, intent, promises, leases, outlets, aside);
        tokio::spawn(shell.run(inlets));
        Ok(Self { status, lead, led, leading, propose, view, membership, stop: stop_tx, recover: recover_tx })
    }

    /// The peers that stand behind this node while it leads.
    pub fn held(&self) -> Arc<BTreeSet<String>> {
        self.leading.borrow().held.clone()
    }

    /// Goes on with those who are here although they are less than half, because people say so. Tells what was done.
    ///
    /// # Errors
    /// In words: why not, and what to do.
    pub async fn recover(&self) -> Result<String, String> {
        let (answer, answered) = oneshot::channel();
        let order = RecoverOrder { answer };
        if self.recover.try_send(order).is_err() {
            return Err("a recovery is under way already, or this desktop is stopping".into());
        }
        answered.await.unwrap_or_else(|_| Err("this desktop is stopping".into()))
    }

    /// How far a leave has come, once this node's facts say that it is leaving.
    pub fn leave_progress(&self, node: &str) -> LeaveProgress {
        let status = self.status.borrow().clone();
        let members = self.membership.members().borrow().clone();
        let others = members.iter().any(|member| {
            let of_group = member.group.as_ref().is_some_and(|group| group.group == status.group);
            member.alive && !self.is_me(member) && of_group
        });
        if !others || status.group.is_empty() {
            return LeaveProgress::Last;
        }
        if status.part != Part::Follower {
            return LeaveProgress::Voting;
        }
        let (nodes, me) = (Resource::fixed("nodes"), self.propose.me().to_string());
        let listed = self.view.read(|store| {
            let counts = Roster::of(store).is_some_and(|(roster, _)| roster.names(&me));
            counts || store.list(&nodes, None).any(|(key, _)| key.name == node)
        });
        if listed { LeaveProgress::InRoster } else { LeaveProgress::Left }
    }

    fn is_me(&self, member: &Member) -> bool {
        self.propose.me() == member.peer
    }

    /// Ends this node's part; with `forget`, also on disk (it has left, or yields to another cluster).
    pub async fn stop(&self, forget: bool) {
        let (done, finished) = oneshot::channel();
        if self.stop.send(Stop { forget, done }).await.is_ok() {
            let _ = finished.await;
        }
    }
}
