//! The task that owns this node's place in the flock.

use super::raft_net::{Invitation, RaftNetwork, serve_group};
use super::{FlockStatus, Part, ToLeader, follow};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{GroupFacts, Member, Membership, Role as GossipRole};
use gaggle_gossip::transport::Transport;
use gaggle_sched::controller::node;
use gaggle_sched::electorate::assembly::{
    self, AssemblyRules, Claim, Contest, Decision, Mine, Seen, Situation,
};
use gaggle_sched::electorate::{self, Candidate, VoterRules};
use gaggle_sched::raft::{self, Group, GroupConfig, GroupId, Role, Timings};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Lineage, Object, Resource, Revision, Store, View};
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
/// A voter that is no longer named drops its part after this: the change may be one of several.
const VOTED_OUT_AFTER: Duration = Duration::from_millis(500);
/// A newcomer that was invited and is still not named gives up after this; it may be invited again.
const NEVER_VOTED_AFTER: Duration = Duration::from_secs(15);
/// A follower writes down what it has seen this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// A change of the electorate that failed is not tried again sooner.
const CHANGE_AGAIN: Duration = Duration::from_millis(500);
/// A part whose core or files failed is taken up again from the disk after this.
const REVIVE_AFTER: Duration = Duration::from_secs(1);
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

/// A status of the group, as the voter that is followed told it.
pub(super) struct Heard {
    pub from: PeerId,
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
    from: PeerId,
    task: JoinHandle<String>,
}

struct Shell {
    config: FlockConfig,
    me: PeerId,
    transport: Transport,
    membership: Membership,
    view: View,
    network: Arc<RaftNetwork>,
    rules: AssemblyRules,
    /// This node's part in the electorate.
    part: watch::Sender<Option<Group>>,
    /// The group that this node is of.
    of: Option<Lineage>,
    /// Whether a quorum of it was heard since this node started.
    confirmed: bool,
    without_quorum_since: Instant,
    heard: Option<(Heard, Instant)>,
    heard_tx: mpsc::Sender<Heard>,
    following: Option<Following>,
    follow_after: Instant,
    status: watch::Sender<FlockStatus>,
    lead: watch::Sender<Option<Lead>>,
    started: Instant,
    live: BTreeSet<PeerId>,
    live_since: Instant,
    contest: Option<(Lineage, Instant)>,
    unnamed_since: Option<Instant>,
    /// Whether this node's present part has been named as a voter.
    has_voted: bool,
    changing: Option<JoinHandle<()>>,
    change_after: Instant,
    failed_since: Option<Instant>,
    saved: (Instant, Revision),
    why: String,
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
        let raft_config = raft_config(&config, transport.local());
        let resumed = Group::resume(raft_config, network.clone(), view.clone()).await?;
        let of = match &resumed {
            Some(group) => Some(Lineage { group: group.id().to_string(), epoch: group.epoch() }),
            None => view.read(|store| store.lineage().cloned()),
        };

        let (part_tx, part) = watch::channel(resumed);
        let (status_tx, status) = watch::channel(FlockStatus::default());
        let (lead_tx, lead) = watch::channel(None);
        let (heard_tx, heard) = mpsc::channel(64);
        let (invitations_tx, invitations) = mpsc::channel(16);
        let (stop_tx, stop) = mpsc::channel(1);
        let now = Instant::now();

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
        let shell = Shell {
            config,
            me: transport.local(),
            transport,
            membership: membership.clone(),
            view: view.clone(),
            network,
            rules: AssemblyRules::default(),
            part: part_tx,
            of,
            confirmed: false,
            without_quorum_since: now,
            heard: None,
            heard_tx,
            following: None,
            follow_after: now,
            status: status_tx,
            lead: lead_tx,
            started: now,
            live: BTreeSet::new(),
            live_since: now,
            contest: None,
            unnamed_since: None,
            has_voted: false,
            changing: None,
            change_after: now,
            failed_since: None,
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
        let mut own_status: Option<watch::Receiver<raft::Status>> = None;
        loop {
            if own_status.is_none() {
                // A status whose sender is gone says nothing any more.
                let status = self.part.borrow().as_ref().map(Group::status);
                own_status = status.filter(|status| status.has_changed().is_ok());
            }
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
            let now = members.borrow_and_update().clone();
            self.tick(&now).await;
        }
    }

    async fn tick(&mut self, members: &[Member]) {
        self.observe(members);
        match self.decide(members) {
            Decision::Stay => self.why.clear(),
            Decision::Wait { why } => self.why = why,
            Decision::Found { why } => self.found(why).await,
            Decision::Follow { lineage, why, .. } => self.turn_to(lineage, why),
            Decision::Yield { to, why } => {
                tracing::warn!(group = to.group, epoch = to.epoch, why, "this group yields to another");
                self.drop_part().await;
                self.turn_to(to, why);
            }
        }
        self.keep_following(members).await;
        self.tell_part();
        self.revive_failed_part().await;
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
        if self.known().is_some_and(|status| status.quorum) {
            self.confirmed = true;
            self.without_quorum_since = Instant::now();
        }
    }

    fn decide(&mut self, members: &[Member]) -> Decision {
        let others = members.iter().filter(|member| member.peer != self.me).map(|member| Seen {
            peer: member.peer.to_string(),
            alive: member.alive,
            connected: member.connected,
            group: member.group.as_ref().and_then(claim),
        });
        let others: Vec<Seen> = others.collect();
        let mine = self.of.clone().map(|lineage| Mine {
            lineage,
            members: self.roster(),
            quorum: self.known().is_some_and(|status| status.quorum),
            heard: self.confirmed,
            without_quorum_ms: millis(self.without_quorum_since),
        });
        let me = self.me.to_string();
        let mut situation = Situation {
            me: &me,
            quiet_for_ms: millis(self.live_since),
            up_for_ms: millis(self.started),
            mine: mine.as_ref(),
            others: &others,
            contest: None,
            rules: &self.rules,
        };
        self.contest = match (assembly::rival(&situation), self.contest.take()) {
            (None, _) => None,
            (Some(rival), Some((same, since))) if rival == same => Some((same, since)),
            (Some(rival), _) => Some((rival, Instant::now())),
        };
        let contest = self.contest.as_ref();
        let contest =
            contest.map(|(lineage, since)| Contest { lineage: lineage.clone(), for_ms: millis(*since) });
        situation.contest = contest.as_ref();
        assembly::decide(&situation)
    }

    fn own_status(&self) -> Option<raft::Status> {
        self.part.borrow().as_ref().map(|group| group.status().borrow().clone())
    }

    /// What is known of the group now: from our own part if it hears a leader, else from the voter that we follow.
    fn known(&self) -> Option<raft::Status> {
        let me = self.me.to_string();
        let own = self.own_status().filter(|own| own.failed.is_none() && own.voters.contains(&me));
        if let Some(own) = own.as_ref().filter(|own| own.leader.is_some()) {
            return Some(own.clone());
        }
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        heard.map(|(heard, _)| heard.status.clone()).or(own)
    }

    /// The peers of the nodes that belong, alive or not.
    fn roster_peers(&self) -> BTreeSet<String> {
        let peer = |object: &Object| object.annotation(node::PEER).map(str::to_owned);
        self.view.read(|store| {
            store.list(&Resource::fixed("nodes"), None).filter_map(|(_, object)| peer(object)).collect()
        })
    }

    fn roster(&self) -> usize {
        self.view.read(|store| store.list(&Resource::fixed("nodes"), None).count())
    }

    /// Frames of newer voters are accepted although our own log, which may be behind, does not name them.
    fn tell_part(&self) {
        let heard = self.heard.as_ref().filter(|(_, at)| at.elapsed() < STALE);
        if let (Some(group), Some((heard, _))) = (&*self.part.borrow(), heard) {
            group.tell(heard.status.voters.clone());
        }
    }

    fn hear(&mut self, news: Heard) {
        let followed = self.following.as_ref().is_some_and(|following| following.from == news.from);
        let Some(of) = self.of.as_mut().filter(|of| followed && of.group == news.status.group.as_str())
        else {
            return;
        };
        of.epoch = of.epoch.max(news.status.epoch);
        self.heard = Some((news, Instant::now()));
    }

    async fn found(&mut self, why: String) {
        let (id, epoch) = {
            let mut random = rand::rng();
            (GroupId::from_random(random.random()), random.random_range(1..FIRST_EPOCHS))
        };
        tracing::info!(group = %id, epoch, why, "founding a group");
        let config = raft_config(&self.config, self.me);
        match Group::found(config, self.network.clone(), self.view.clone(), id.clone(), epoch).await {
            Ok(group) => {
                self.of = Some(Lineage { group: id.to_string(), epoch });
                self.part.send_replace(Some(group));
            }
            Err(error) => {
                self.why = format!("cannot found a group: {error}");
                tracing::error!(%error, "cannot found a group");
            }
        }
    }

    /// From now on this node is of that group.
    fn turn_to(&mut self, lineage: Lineage, why: String) {
        if self.of.as_ref() != Some(&lineage) {
            tracing::info!(group = lineage.group, epoch = lineage.epoch, why, "following a group");
            self.stop_following();
            self.heard = None;
            self.confirmed = false;
            self.without_quorum_since = Instant::now();
            self.of = Some(lineage);
        }
        self.why = why;
    }

    /// Raft frames arrive although this node has no part: the leader that we follow makes us a voter.
    async fn accept(&mut self, from: PeerId) -> Option<Group> {
        if let Some(group) = &*self.part.borrow() {
            return Some(group.clone());
        }
        let of = self.of.clone()?;
        let status = self.known()?;
        let leads = status.leader.as_deref() == Some(from.to_string().as_str());
        if !leads || status.group.as_str() != of.group {
            tracing::debug!(peer = %from, "Raft frames from a peer that is not the leader we follow");
            return None;
        }
        let config = raft_config(&self.config, self.me);
        let mut voters = status.voters.clone();
        voters.insert(from.to_string());
        let (network, view) = (self.network.clone(), self.view.clone());
        match Group::join(config, network, view, status.group.clone(), of.epoch, voters).await {
            Ok(group) => {
                tracing::info!(leader = %from, "joining the electorate");
                self.part.send_replace(Some(group.clone()));
                self.unnamed_since = None;
                Some(group)
            }
            Err(error) => {
                tracing::error!(%error, "cannot join the electorate");
                None
            }
        }
    }

    /// Ends this node's part in the electorate, also on disk.
    async fn drop_part(&mut self) {
        let Some(group) = self.part.send_replace(None) else { return };
        self.lead.send_replace(None);
        group.stop().await;
        if let Err(error) = Group::forget(&self.config.raft) {
            tracing::warn!(%error, "the files of a group that this node no longer votes in could not be removed");
        }
    }

    /// A voter that was voted out is not always told: it sees it when the leader's voters do not name it.
    async fn drop_unnamed_part(&mut self) {
        let Some(own) = self.own_status() else {
            self.has_voted = false;
            return;
        };
        let me = self.me.to_string();
        let own_names = own.voters.contains(&me);
        self.has_voted |= own_names;
        let heard =
            self.heard.as_ref().filter(|(heard, at)| at.elapsed() < STALE && heard.status.leader.is_some());
        let unnamed = match heard {
            Some((heard, _)) if own.leader.is_none() || !own_names => !heard.status.voters.contains(&me),
            _ => !own_names,
        };
        let patience = if self.has_voted { VOTED_OUT_AFTER } else { NEVER_VOTED_AFTER };
        if !unnamed {
            self.unnamed_since = None;
        } else if self.unnamed_since.get_or_insert_with(Instant::now).elapsed() > patience {
            tracing::info!("no longer a voter");
            self.unnamed_since = None;
            self.stop_following();
            self.drop_part().await;
        }
    }

    /// A group whose core failed on this node (a disk error, a bug) is taken up again from what is on the disk.
    async fn revive_failed_part(&mut self) {
        let Some(group) = self.part.borrow().clone() else { return };
        let failed = group.status().borrow().failed.clone();
        let ended = group.status().has_changed().is_err();
        if failed.is_none() && !ended {
            self.failed_since = None;
            return;
        }
        if self.failed_since.get_or_insert_with(Instant::now).elapsed() < REVIVE_AFTER {
            return;
        }
        self.failed_since = None;
        tracing::error!(
            why = failed,
            "this node's part in the group failed; taking it up again from the disk"
        );
        self.part.send_replace(None);
        self.lead.send_replace(None);
        group.stop().await;
        let config = raft_config(&self.config, self.me);
        match Group::resume(config, self.network.clone(), self.view.clone()).await {
            Ok(group) => _ = self.part.send_replace(group),
            Err(error) => tracing::error!(%error, "this node's part cannot be taken up again"),
        }
    }

    fn stop_following(&mut self) {
        if let Some(following) = self.following.take() {
            following.task.abort();
        }
    }

    /// A voter's own state machine writes its view; everyone else's view follows a voter.
    async fn keep_following(&mut self, members: &[Member]) {
        if let Some(ended) = self.following.take_if(|following| following.task.is_finished()) {
            if let Ok(why) = ended.task.await {
                tracing::info!(peer = %ended.from, why, "following ended");
            }
            self.follow_after = Instant::now() + FOLLOW_AGAIN;
        }
        let me = self.me.to_string();
        let own = self.own_status();
        if own.is_some_and(|own| own.failed.is_none() && own.voters.contains(&me) && own.leader.is_some()) {
            self.stop_following();
            return;
        }
        if self.following.is_some() || Instant::now() < self.follow_after {
            return;
        }
        let Some(from) = self.of.as_ref().and_then(|of| self.best_source(of, members)) else { return };
        // While our own part holds the view we only listen: it may have been voted out without being told.
        let view = if self.view.read(Store::is_owned) { View::default() } else { self.view.clone() };
        let task = follow::follow_peer(self.transport.clone(), from, view, self.heard_tx.clone());
        self.following = Some(Following { from, task: tokio::spawn(task) });
    }

    /// Whom to follow: a voter with a quorum first, the leader before others, then who is furthest.
    fn best_source(&self, of: &Lineage, members: &[Member]) -> Option<PeerId> {
        let voters = members.iter().filter_map(|member| {
            let group = member.group.as_ref()?;
            let serves = matches!(group.role, GossipRole::Leader | GossipRole::Voter);
            let ours = group.group == of.group && group.epoch == of.epoch;
            let leads = group.role == GossipRole::Leader;
            (member.peer != self.me && member.connected && serves && ours).then_some((
                group.quorum,
                leads,
                group.revision,
                member.peer,
            ))
        });
        voters.max().map(|(.., peer)| peer)
    }

    fn tend_electorate(&mut self, members: &[Member]) {
        match self.changing.take_if(|change| change.is_finished()) {
            Some(_) => self.change_after = Instant::now() + CHANGE_AGAIN,
            None if self.changing.is_some() => return,
            None => {}
        }
        if Instant::now() < self.change_after {
            return;
        }
        let Some(group) = self.part.borrow().clone() else { return };
        let status = group.status().borrow().clone();
        if status.role != Role::Leader || !status.quorum {
            return;
        }
        // The whole roster, the dead and the just restarted too: an electorate does not shrink because nodes died.
        let mut roster = self.roster_peers();
        roster.extend(
            members.iter().filter(|member| is_of(member, &status)).map(|member| member.peer.to_string()),
        );
        roster.insert(self.me.to_string());
        let candidates = roster.into_iter().map(|peer| {
            let Some(member) = members.iter().find(|member| member.peer.to_string() == peer) else {
                let dead_for_ms = millis(self.started);
                return Candidate {
                    peer,
                    alive: false,
                    connected: false,
                    leaving: false,
                    started_ms: 0,
                    steady: true,
                    dead_for_ms,
                };
            };
            Candidate {
                peer,
                alive: member.alive && (is_of(member, &status) || member.peer == self.me),
                connected: member.connected || member.peer == self.me,
                leaving: member.node.as_ref().is_some_and(|node| node.leaving),
                started_ms: member.node.as_ref().map_or(0, |node| node.started_ms),
                steady: true,
                dead_for_ms: if member.alive { 0 } else { member.since.elapsed().as_millis() as u64 },
            }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let input = electorate::Input {
            now_ms: now_ms(),
            me: &self.me.to_string(),
            voters: &status.voters,
            candidates: &candidates,
            rules: &VoterRules::default(),
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
        let known = self.known();
        let part = match &own {
            Some(own) if own.role == Role::Leader => Part::Leader,
            Some(own) if own.voters.contains(&me) => Part::Voter,
            _ => Part::Follower,
        };
        let status = match (&self.of, known) {
            (Some(of), Some(known)) => FlockStatus {
                group: of.group.clone(),
                epoch: known.epoch,
                term: known.term,
                leader: known.leader.as_ref().and_then(|leader| PeerId::from_str(leader).ok()),
                voters: known.voters.iter().filter_map(|voter| PeerId::from_str(voter).ok()).collect(),
                part,
                quorum: known.quorum && known.leader.is_some(),
                current: known.leader.is_some() && self.view.read(|store| store.lineage() == Some(of)),
                why: match (known.failed, known.leader.is_some()) {
                    (Some(failed), _) => format!("this node's part in the group failed: {failed}"),
                    (None, false) => "waiting for enough of the voters".into(),
                    (None, true) => self.why.clone(),
                },
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
        let lead = own.filter(|own| own.role == Role::Leader && own.quorum).map(|own| Lead {
            group: own.group.to_string(),
            epoch: own.epoch,
            term: own.term,
        });
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
            members: self.roster() as u32,
            quorum: status.quorum,
        });
        self.status.send_if_modified(|now| std::mem::replace(now, status.clone()) != status);
    }

    /// A follower writes down what it has seen; a voter's log is its memory.
    fn save(&mut self) {
        let (at, revision) = self.saved;
        let now = self.view.revision();
        if at.elapsed() < SAVE_EVERY || now == revision || self.part.borrow().is_some() {
            return;
        }
        self.saved = (Instant::now(), now);
        let (path, view) = (self.config.view.clone(), self.view.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = raft::save_view(&path, &view) {
                tracing::warn!(%error, "the view could not be saved");
            }
        });
    }

    async fn end(&mut self, forget: bool) {
        self.stop_following();
        if forget {
            self.drop_part().await;
            // What is not there is as forgotten as what is removed.
            let _ = std::fs::remove_file(&self.config.view);
            return;
        }
        if let Some(group) = self.part.send_replace(None) {
            self.lead.send_replace(None);
            group.stop().await;
        } else if let Err(error) = raft::save_view(&self.config.view, &self.view) {
            tracing::warn!(%error, "the view could not be saved");
        }
    }
}

fn is_of(member: &Member, status: &raft::Status) -> bool {
    member.group.as_ref().is_some_and(|facts| facts.group == status.group.as_str())
}

fn raft_config(config: &FlockConfig, me: PeerId) -> GroupConfig {
    GroupConfig { dir: config.raft.clone(), me: me.to_string(), timings: Timings::lan() }
}

fn claim(facts: &GroupFacts) -> Option<Claim> {
    let part = match facts.role {
        GossipRole::None => return None,
        GossipRole::Leader => assembly::Part::Leader,
        GossipRole::Voter => assembly::Part::Voter,
        GossipRole::Follower => assembly::Part::Follower,
    };
    let lineage = Lineage { group: facts.group.clone(), epoch: facts.epoch };
    let members = facts.members as usize;
    (!facts.group.is_empty()).then(|| Claim {
        lineage,
        members,
        part,
        leader: facts.leader.clone(),
        quorum: facts.quorum,
    })
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// Waits for a change of a status that may not be there.
async fn changed(status: &mut Option<watch::Receiver<raft::Status>>) -> Result<(), watch::error::RecvError> {
    match status {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}
