//! The task that owns this node's place in the flock.

use super::raft_net::{Invitation, RaftNetwork, serve_group};
use super::{FlockStatus, Part, ToLeader, follow};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{GroupFacts, Member, Membership, Role as GossipRole};
use gaggle_gossip::transport::Transport;
use gaggle_sched::electorate::{self, Candidate, Decision, Seen, SeenGroup, Situation};
use gaggle_sched::raft::{self, Group, GroupConfig, GroupId, Known, Role};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Resource, Store, View};
use rand::Rng;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The rules are asked again at least this often, since some of them speak of time that passed.
const TICK: Duration = Duration::from_millis(100);
/// A stream that broke is not opened again sooner.
const FOLLOW_AGAIN: Duration = Duration::from_millis(100);
/// What was heard of the group is old after this; heartbeats come every 200 ms.
const STALE: Duration = Duration::from_millis(1500);
/// A node that the committed voters no longer name drops its part in the electorate after this.
const PART_DROPPED_AFTER: Duration = Duration::from_secs(3);
/// A follower writes down what it has seen this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// First epochs are drawn below this, so that two groups founded apart have different revisions, and
/// revisions stay below 2^53 for clients that read them as floating-point numbers.
const FIRST_EPOCHS: u64 = 1 << 12;

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

/// A status of the group, and who told it (`None`: the state machine in this process).
pub(super) struct Heard {
    pub from: Option<PeerId>,
    pub status: raft::Status,
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

struct Stop {
    /// Nothing of the group is to be left on this disk.
    forget: bool,
    done: oneshot::Sender<()>,
}

struct Following {
    from: Option<PeerId>,
    task: JoinHandle<String>,
}

struct Shell {
    config: FlockConfig,
    me: PeerId,
    transport: Transport,
    membership: Membership,
    view: View,
    network: Arc<RaftNetwork>,
    /// This node's part in the electorate: the group and its state machine's store.
    voting: watch::Sender<Option<(Group, View)>>,
    group: watch::Sender<Option<Group>>,
    /// The group that this node is of.
    of: Option<Belonging>,
    /// The group whose state the view holds.
    view_of: Option<Belonging>,
    heard: Option<(Heard, Instant)>,
    heard_tx: mpsc::Sender<Heard>,
    following: Option<Following>,
    follow_after: Instant,
    status: watch::Sender<FlockStatus>,
    lead: watch::Sender<Option<Lead>>,
    started: Instant,
    live: BTreeSet<PeerId>,
    live_since: Instant,
    rival_since: Option<Instant>,
    unnamed_since: Option<Instant>,
    changing: Option<JoinHandle<()>>,
    saved: (Instant, gaggle_sched::state::Revision),
    why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Belonging {
    group: String,
    epoch: u64,
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
        let own = View::default();
        let raft_config = GroupConfig::lan(config.raft.clone(), transport.local().to_string());
        let resumed = Group::resume(raft_config, network.clone(), own.clone()).await?;
        let mut of = None;
        if let Some(group) = &resumed {
            of = Some(Belonging { group: group.id().to_string(), epoch: group.epoch() });
        }
        let mut view_of = None;
        match raft::load_view(&config.view) {
            Ok(Some(saved)) => {
                view.write(|store| *store = Store::from_snapshot(saved.snapshot));
                view_of = Some(Belonging { group: saved.group.to_string(), epoch: saved.epoch });
                of = of.or_else(|| view_of.clone());
            }
            Ok(None) => {}
            // A copy of what others hold: it is fetched again.
            Err(error) => tracing::warn!(%error, "the saved view is unreadable and is fetched anew"),
        }

        let (voting_tx, voting) = watch::channel(resumed.clone().map(|group| (group, own)));
        let (group_tx, group) = watch::channel(resumed);
        let (status_tx, status) = watch::channel(FlockStatus::default());
        let (lead_tx, lead) = watch::channel(None);
        let (heard_tx, heard) = mpsc::channel(64);
        let (invitations_tx, invitations) = mpsc::channel(16);
        let (stop_tx, stop) = mpsc::channel(1);
        let now = Instant::now();

        tokio::spawn({
            let (transport, view, group) = (transport.clone(), view.clone(), group.clone());
            async move {
                if let Err(error) = serve_group(transport, view, group, invitations_tx).await {
                    tracing::error!(%error, "Raft cannot be served");
                }
            }
        });
        tokio::spawn(follow::serve_followers(transport.clone(), voting));
        let propose = Arc::new(ToLeader::new(transport.clone(), view.clone(), status.clone(), group));
        let shell = Shell {
            config,
            me: transport.local(),
            transport,
            membership: membership.clone(),
            view: view.clone(),
            network,
            voting: voting_tx,
            group: group_tx,
            of,
            view_of,
            heard: None,
            heard_tx,
            following: None,
            follow_after: now,
            status: status_tx,
            lead: lead_tx,
            started: now,
            live: BTreeSet::new(),
            live_since: now,
            rival_since: None,
            unnamed_since: None,
            changing: None,
            saved: (now, view.revision()),
            why: "looking for other desktops".into(),
        };
        tokio::spawn(shell.run(heard, invitations, stop));
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

impl Shell {
    async fn run(
        mut self,
        mut heard: mpsc::Receiver<Heard>,
        mut invitations: mpsc::Receiver<Invitation>,
        mut stop: mpsc::Receiver<Stop>,
    ) {
        let mut members = self.membership.members();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut own_status = self.voting.borrow().as_ref().map(|(group, _)| group.status());
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                changed = members.changed() => if changed.is_err() { break },
                changed = changed(&mut own_status) => if changed.is_err() { own_status = None },
                Some(news) = heard.recv() => self.hear(news),
                Some(invitation) = invitations.recv() => {
                    let group = self.accept(invitation.from).await;
                    let _ = invitation.answer.send(group);
                }
                Some(order) = stop.recv() => {
                    self.end(order.forget).await;
                    let _ = order.done.send(());
                    break;
                }
            }
            self.tick(&members.borrow_and_update().clone()).await;
            let group = self.voting.borrow().as_ref().map(|(group, _)| group.clone());
            match group {
                Some(group) if own_status.is_none() => own_status = Some(group.status()),
                None => own_status = None,
                Some(_) => {}
            }
        }
    }

    async fn tick(&mut self, members: &[Member]) {
        self.observe(members);
        let situation = self.situation(members);
        match electorate::decide(&situation) {
            Decision::Stay => self.why = String::new(),
            Decision::Wait { why } => self.why = why,
            Decision::Found { why } => self.found(why).await,
            Decision::Follow { group, epoch, why, .. } => self.turn_to(group, epoch, why).await,
            Decision::Yield { group, epoch, why } => {
                tracing::warn!(group, epoch, why, "this group yields to another");
                self.drop_part(true).await;
                self.turn_to(group, epoch, why).await;
            }
        }
        self.keep_following(members).await;
        self.drop_unnamed_part().await;
        self.tend_electorate(members);
        self.publish();
        self.save();
    }

    fn observe(&mut self, members: &[Member]) {
        let live: BTreeSet<PeerId> =
            members.iter().filter(|member| member.alive).map(|member| member.peer).collect();
        if live != self.live {
            (self.live, self.live_since) = (live, Instant::now());
        }
        let rival = members.iter().any(|member| {
            let group = member.group.as_ref().filter(|group| !group.group.is_empty());
            member.alive
                && group.is_some_and(|group| self.of.as_ref().is_some_and(|of| of.group != group.group))
        });
        match (rival, self.rival_since) {
            (true, None) => self.rival_since = Some(Instant::now()),
            (false, Some(_)) => self.rival_since = None,
            _ => {}
        }
    }

    fn situation(&self, members: &[Member]) -> Situation {
        let now = Instant::now();
        let own = self.own_status();
        let fresh = self.fresh();
        let others = members.iter().filter(|member| member.peer != self.me).map(|member| Seen {
            peer: member.peer.to_string(),
            alive: member.alive,
            connected: member.connected,
            group: member.group.as_ref().filter(|group| !group.group.is_empty()).map(seen_group),
        });
        let mine = self.of.as_ref().map(|of| SeenGroup {
            group: of.group.clone(),
            epoch: of.epoch,
            members: self.roster(),
            leader: own.as_ref().is_some_and(|own| own.role == Role::Leader),
            quorum: fresh.is_some_and(|status| status.quorum && status.group.to_string() == of.group),
        });
        Situation {
            me: self.me.to_string(),
            up_for_ms: now.duration_since(self.started).as_millis() as u64,
            quiet_for_ms: now.duration_since(self.live_since).as_millis() as u64,
            rival_for_ms: self.rival_since.map_or(0, |since| now.duration_since(since).as_millis() as u64),
            mine,
            others: others.collect(),
        }
    }

    fn own_status(&self) -> Option<raft::Status> {
        self.voting.borrow().as_ref().map(|(group, _)| group.status().borrow().clone())
    }

    /// The newest status heard, if it is not old.
    fn fresh(&self) -> Option<&raft::Status> {
        let (heard, at) = self.heard.as_ref()?;
        // Our own state machine says nothing while nothing changes.
        (heard.from.is_none() || at.elapsed() < STALE).then_some(&heard.status)
    }

    fn roster(&self) -> u32 {
        self.view.read(|store| store.list(&Resource::fixed("nodes"), None).count() as u32)
    }

    fn hear(&mut self, news: Heard) {
        let of_ours = self.of.as_ref().is_some_and(|of| news.status.group.to_string() == of.group);
        let source = self.following.as_ref().map(|following| following.from);
        if !of_ours || source != Some(news.from) {
            return;
        }
        if let Some(of) = &mut self.of {
            of.epoch = of.epoch.max(news.status.epoch);
            self.view_of = Some(of.clone());
        }
        self.heard = Some((news, Instant::now()));
    }

    async fn found(&mut self, why: String) {
        let (id, epoch) = {
            let mut random = rand::rng();
            (format!("{:016x}", random.random::<u64>()), random.random_range(1..FIRST_EPOCHS))
        };
        tracing::info!(group = id, epoch, why, "founding a group");
        let own = View::default();
        match Group::found(self.raft_config(), self.network.clone(), own.clone(), GroupId::new(&id), epoch)
            .await
        {
            Ok(group) => {
                self.of = Some(Belonging { group: id, epoch });
                self.take_part(group, own).await;
            }
            Err(error) => {
                self.why = format!("cannot found a group: {error}");
                tracing::error!(%error, "cannot found a group");
            }
        }
    }

    /// From now on this node is of that group.
    async fn turn_to(&mut self, group: String, epoch: u64, why: String) {
        let other = self.of.as_ref().is_none_or(|of| of.group != group || of.epoch < epoch);
        if other {
            tracing::info!(group, epoch, why, "following a group");
            self.stop_following();
            self.heard = None;
            self.of = Some(Belonging { group, epoch });
        }
        self.why = why;
    }

    /// Raft frames arrive although this node has no part: the leader that we follow makes us a voter.
    async fn accept(&mut self, from: PeerId) -> Option<Group> {
        if let Some((group, _)) = &*self.voting.borrow() {
            return Some(group.clone());
        }
        let of = self.of.clone()?;
        let status = self.fresh()?;
        if status.leader.as_deref() != Some(from.to_string().as_str()) || status.group.to_string() != of.group
        {
            tracing::debug!(peer = %from, "Raft frames from a peer that is not the leader we follow");
            return None;
        }
        let own = View::default();
        let group = GroupId::new(&of.group);
        let leader = from.to_string();
        match Group::join(self.raft_config(), self.network.clone(), own.clone(), group, of.epoch, leader)
            .await
        {
            Ok(group) => {
                tracing::info!(leader = %from, "joining the electorate");
                self.voting.send_replace(Some((group.clone(), own)));
                self.group.send_replace(Some(group.clone()));
                self.unnamed_since = None;
                Some(group)
            }
            Err(error) => {
                tracing::error!(%error, "cannot join the electorate");
                None
            }
        }
    }

    fn raft_config(&self) -> GroupConfig {
        GroupConfig::lan(self.config.raft.clone(), self.me.to_string())
    }

    async fn take_part(&mut self, group: Group, own: View) {
        self.stop_following();
        self.voting.send_replace(Some((group.clone(), own)));
        self.group.send_replace(Some(group));
    }

    async fn drop_part(&mut self, forget: bool) {
        let Some((group, _)) = self.voting.send_replace(None) else { return };
        self.group.send_replace(None);
        self.lead.send_replace(None);
        self.stop_following();
        group.stop().await;
        if forget && let Err(error) = Group::forget(&self.config.raft) {
            tracing::warn!(%error, "the files of a group that this node no longer votes in could not be removed");
        }
    }

    /// A voter that was voted out is not always told: it sees it when the leader's voters do not name it.
    async fn drop_unnamed_part(&mut self) {
        let me = self.me.to_string();
        let unnamed = self.voting.borrow().is_some()
            && self.fresh().is_some_and(|status| status.leader.is_some() && !status.voters.contains(&me));
        if !unnamed {
            self.unnamed_since = None;
        } else if self.unnamed_since.get_or_insert_with(Instant::now).elapsed() > PART_DROPPED_AFTER {
            tracing::info!("no longer a voter");
            self.unnamed_since = None;
            self.drop_part(true).await;
        }
    }

    fn stop_following(&mut self) {
        if let Some(following) = self.following.take() {
            following.task.abort();
        }
    }

    async fn keep_following(&mut self, members: &[Member]) {
        let Some(of) = self.of.clone() else { return };
        if let Some(ended) = self.following.take_if(|following| following.task.is_finished()) {
            if let Ok(why) = ended.task.await {
                tracing::info!(peer = ?ended.from.map(|peer| peer.to_string()), why, "following ended");
            }
            self.follow_after = Instant::now() + FOLLOW_AGAIN;
        }
        let Some(source) = self.best_source(&of, members) else { return };
        match &self.following {
            Some(following) if following.from == source => return,
            // A remote voter that still speaks is kept, unless our own state machine can take over.
            Some(following) if following.from.is_some() && source.is_some() && self.fresh().is_some() => {
                return;
            }
            None if Instant::now() < self.follow_after => return,
            _ => {}
        }
        self.stop_following();
        let (view, heard) = (self.view.clone(), self.heard_tx.clone());
        let task = match (source, self.voting.borrow().clone()) {
            (None, Some((group, own))) => {
                if self.view_of.as_ref() != Some(&of) {
                    let fork = own.read(|store| store.fork());
                    view.write(|store| *store = fork);
                    self.view_of = Some(of);
                }
                tokio::spawn(async move {
                    follow::follow_own(group, own, view, heard).await;
                    "this node's part ended".to_owned()
                })
            }
            (Some(peer), _) => {
                let known = self.view_of.clone().map(|of| (GroupId::new(&of.group), of.epoch));
                let known =
                    Known { of: known, wanted: GroupId::new(&of.group), revision: self.view.revision() };
                tokio::spawn(follow::follow_peer(self.transport.clone(), peer, known, view, heard))
            }
            (None, None) => return,
        };
        self.following = Some(Following { from: source, task });
    }

    /// Whom to follow: `Some(None)` is our own state machine.
    fn best_source(&self, of: &Belonging, members: &[Member]) -> Option<Option<PeerId>> {
        let me = self.me.to_string();
        let own = self.own_status();
        if own.as_ref().is_some_and(|own| own.voters.contains(&me) && own.leader.is_some() && own.quorum) {
            return Some(None);
        }
        let voters = members.iter().filter_map(|member| {
            let group = member.group.as_ref()?;
            let serves = matches!(group.role, GossipRole::Leader | GossipRole::Voter);
            let ours = group.group == of.group && group.epoch == of.epoch;
            (member.peer != self.me && member.connected && serves && ours).then_some((
                group.quorum,
                group.role == GossipRole::Leader,
                group.revision,
                member.peer,
            ))
        });
        match voters.max() {
            Some((.., peer)) => Some(Some(peer)),
            None => own.is_some().then_some(None),
        }
    }

    fn tend_electorate(&mut self, members: &[Member]) {
        if self.changing.as_ref().is_some_and(|change| !change.is_finished()) {
            return;
        }
        let Some((group, _)) = self.voting.borrow().clone() else { return };
        let status = group.status().borrow().clone();
        if status.role != Role::Leader || !status.quorum {
            return;
        }
        let ours = |member: &&Member| {
            member.peer == self.me
                || member.group.as_ref().is_some_and(|facts| facts.group == status.group.to_string())
        };
        let candidates = members.iter().filter(ours).map(|member| Candidate {
            peer: member.peer.to_string(),
            alive: member.alive,
            connected: member.connected || member.peer == self.me,
            leaving: member.node.as_ref().is_some_and(|node| node.leaving),
            started_ms: member.node.as_ref().map_or(0, |node| node.started_ms),
            steady: true,
            dead_for_ms: if member.alive { 0 } else { member.since.elapsed().as_millis() as u64 },
        });
        let input = electorate::Input {
            me: self.me.to_string(),
            voters: status.voters.iter().cloned().collect(),
            candidates: candidates.collect(),
            config: electorate::Config::lan(),
        };
        let Some(change) = electorate::next_change(&input) else { return };
        tracing::info!(voters = ?change.voters, why = change.why, "changing the electorate");
        self.changing = Some(tokio::spawn(async move {
            if let Err(error) = group.set_voters(change.voters).await {
                tracing::warn!(%error, "the electorate did not change");
            }
        }));
    }

    fn publish(&mut self) {
        let me = self.me.to_string();
        let own = self.own_status();
        let heard = self.fresh();
        let part = match &own {
            Some(own) if own.role == Role::Leader => Part::Leader,
            Some(own) if own.voters.contains(&me) => Part::Voter,
            _ => Part::Follower,
        };
        let peers = |names: &[String]| names.iter().filter_map(|name| PeerId::from_str(name).ok()).collect();
        let status = match (&self.of, heard) {
            (Some(of), Some(heard)) => FlockStatus {
                group: of.group.clone(),
                epoch: heard.epoch,
                term: heard.term,
                leader: heard.leader.as_ref().and_then(|leader| PeerId::from_str(leader).ok()),
                voters: peers(&heard.voters),
                part,
                quorum: heard.quorum && heard.leader.is_some(),
                current: heard.leader.is_some(),
                why: self.why.clone(),
            },
            (Some(of), None) => FlockStatus {
                group: of.group.clone(),
                epoch: of.epoch,
                part,
                why: match self.why.is_empty() {
                    true => format!("no voter of group {} can be reached", of.group),
                    false => self.why.clone(),
                },
                ..FlockStatus::default()
            },
            (None, _) => FlockStatus { why: self.why.clone(), ..FlockStatus::default() },
        };
        let lead = own
            .filter(|own| own.role == Role::Leader && own.quorum && part == Part::Leader)
            .map(|own| Lead { group: own.group.to_string(), epoch: own.epoch, term: own.term });
        self.lead.send_if_modified(|now| std::mem::replace(now, lead.clone()) != lead);
        self.membership.publish_group(GroupFacts {
            group: status.group.clone(),
            epoch: status.epoch,
            term: status.term,
            revision: self.view.revision().0,
            role: match (&self.of, part) {
                (None, _) => GossipRole::None,
                (_, Part::Leader) => GossipRole::Leader,
                (_, Part::Voter) => GossipRole::Voter,
                (_, Part::Follower) => GossipRole::Follower,
            },
            leader: status.leader.map(|leader| leader.to_string()),
            members: self.roster(),
            quorum: status.quorum,
        });
        self.status.send_if_modified(|now| std::mem::replace(now, status.clone()) != status);
    }

    /// A follower writes down what it has seen; a voter's log is its memory.
    fn save(&mut self) {
        let (at, revision) = self.saved;
        let now = self.view.revision();
        if at.elapsed() < SAVE_EVERY || now == revision || self.voting.borrow().is_some() {
            return;
        }
        self.saved = (Instant::now(), now);
        let (path, view, of) = (self.config.view.clone(), self.view.clone(), self.view_of.clone());
        let Some(of) = of else { return };
        tokio::task::spawn_blocking(move || {
            if let Err(error) = raft::save_view(&path, &view, &GroupId::new(&of.group), of.epoch) {
                tracing::warn!(%error, "the view could not be saved");
            }
        });
    }

    async fn end(&mut self, forget: bool) {
        self.drop_part(forget).await;
        self.stop_following();
        if forget {
            let _ = std::fs::remove_file(&self.config.view);
        } else if let Some(of) = &self.view_of
            && let Err(error) =
                raft::save_view(&self.config.view, &self.view, &GroupId::new(&of.group), of.epoch)
        {
            tracing::warn!(%error, "the view could not be saved");
        }
    }
}

fn seen_group(facts: &GroupFacts) -> SeenGroup {
    SeenGroup {
        group: facts.group.clone(),
        epoch: facts.epoch,
        members: facts.members,
        leader: facts.role == GossipRole::Leader,
        quorum: facts.quorum,
    }
}

/// Waits for a change of a status that may not be there.
async fn changed(status: &mut Option<watch::Receiver<raft::Status>>) -> Result<(), watch::error::RecvError> {
    match status {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}
