//! The flock as the rest of the daemon holds it.

use super::raft_net::{RaftNetwork, serve_group};
use super::shell::{Outlets, Shell};
use super::{FlockStatus, Part, ToLeader, follow};
use gaggle_gossip::membership::{Member, Membership};
use gaggle_gossip::transport::Transport;
use gaggle_sched::raft;
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Lineage, Resource, View};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

#[derive(Clone)]
pub struct FlockConfig {
    /// Where the Raft log and snapshots are kept.
    pub raft: PathBuf,
    /// Where a follower keeps what it has seen.
    pub view: PathBuf,
    pub started_ms: u64,
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
    /// `Some` while this node may act as the leader.
    pub lead: watch::Receiver<Option<Lead>>,
    pub propose: Arc<ToLeader>,
    view: View,
    membership: Membership,
    stop: mpsc::Sender<Stop>,
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
    ) -> anyhow::Result<Self> {
        let network = Arc::new(RaftNetwork::new(transport.clone()));
        match raft::load_view(&config.view) {
            Ok(Some(saved)) => view.write(|store| *store = saved),
            Ok(None) => {}
            // A copy of what others hold: it is fetched again.
            Err(error) => tracing::warn!(%error, "the saved view is unreadable and is fetched anew"),
        }
        let resumed = super::shell::take_up(&config, transport.local(), network.clone(), &view).await?;
        let of = match &resumed {
            Some(group) => Some(Lineage { group: group.id().to_string(), epoch: group.epoch() }),
            // The group of a desktop that has always been alone, and that it has no log of any more, nobody else
            // can go on with: another is founded on what the view still shows.
            None => view.read(|store| {
                let alone = store.list(&Resource::fixed("nodes"), None).count() <= 1;
                store.lineage().filter(|_| !alone).cloned()
            }),
        };

        let (part_tx, part) = watch::channel(resumed);
        let (status_tx, status) = watch::channel(FlockStatus::default());
        let (lead_tx, lead) = watch::channel(None);
        let (invitations_tx, invitations) = mpsc::channel(16);
        let (stop_tx, stop) = mpsc::channel(1);

        tokio::spawn({
            let (transport, view, part) = (transport.clone(), view.clone(), part.clone());
            async move {
                if let Err(error) = serve_group(transport, view, part, invitations_tx).await {
                    tracing::error!(%error, "Raft cannot be served");
                }
            }
        });
        tokio::spawn(follow::serve_followers(transport.clone(), view.clone(), part.clone()));
        let propose = Arc::new(ToLeader::new(transport.clone(), view.clone(), status.clone(), part));
        let outlets = Outlets { part: part_tx, status: status_tx, lead: lead_tx };
        let shell = Shell::new(config, transport, membership.clone(), view.clone(), network, of, outlets);
        tokio::spawn(shell.run(invitations, stop));
        Ok(Self { status, lead, propose, view, membership, stop: stop_tx })
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
        let nodes = Resource::fixed("nodes");
        match self.view.read(|store| store.list(&nodes, None).any(|(key, _)| key.name == node)) {
            true => LeaveProgress::InRoster,
            false => LeaveProgress::Left,
        }
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
