//! The task that owns this node's place in the flock: one loop, whose steps are in the files beside it.

mod following;
mod founding;
mod part;
mod publish;
mod recover;
mod voters;

pub(super) use part::take_up;

use super::FlockStatus;
use super::follow::Heard;
use super::handle::{FlockConfig, RecoverOrder, Stop};
use super::presence::{Errand, Leases, PRESENCE, Promises};
use super::raft_net::{Invitation, RaftNetwork};
use super::rpc::Rpc;
use super::tell::{Begun, Tell};
use following::Following;
use founding::Founding;
use gaggle_gossip::PeerId;
use gaggle_gossip::intent::Intent;
use gaggle_gossip::membership::{GroupFacts, Member, Membership, Role as GossipRole};
use gaggle_gossip::transport::Transport;
use gaggle_sched::electorate::Tenure;
use gaggle_sched::electorate::assembly::{
    self, AssemblyRules, Claim, Contest, Decision, Mine, Muster, Seen, Situation,
};
use gaggle_sched::electorate::founding::FoundingRules;
use gaggle_sched::electorate::roster::Roster;
use gaggle_sched::raft::{self, Group, Salvaged};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Lineage, Resource, View};
use publish::Saved;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The rules are asked again at least this often, since some of them speak of time that passed.
const TICK: Duration = Duration::from_millis(100);
/// What was heard of the group is old after this; heartbeats come every 200 ms.
const STALE: Duration = Duration::from_millis(2500);

/// How long this node's part in the electorate may know less than the leader that asks for leases: a later term is heard of
/// within a heartbeat by those who still vote.
const PASSED_AFTER: Duration = Duration::from_millis(500);

pub(super) struct Shell {
    config: FlockConfig,
    me: PeerId,
    transport: Transport,
    membership: Membership,
    view: View,
    network: Arc<RaftNetwork>,
    rules: AssemblyRules,
    founding_rules: FoundingRules,
    intent: Intent,
    promises: Promises,
    leases: Leases,
    /// To peers, about presence.
    rpc: Rpc,
    /// This node's part in the electorate.
    part: watch::Sender<Option<Group>>,
    /// What the files of a part hold that this node has given up for a founding, and still keeps.
    aside: Option<Salvaged>,
    founding: Founding,
    tell: Tell,
    /// What this node has begun and not told of yet.
    begun: Option<Begun>,
    /// The group that this node is of.
    of: watch::Sender<Option<Lineage>>,
    /// Who told of it first: gossip may not say yet that it can be followed.
    told_by: Option<PeerId>,
    /// Whether it acted since this node started.
    confirmed: bool,
    without_quorum_since: Instant,
    heard: Option<(Heard, Instant)>,
    heard_tx: mpsc::Sender<Heard>,
    heard_rx: mpsc::Receiver<Heard>,
    following: Option<Following>,
    follow_after: Instant,
    /// Why the last stream ended, until another one brings something.
    unfollowed: Option<String>,
    /// Since when a leader of a later term acts than this node's part in the electorate has heard of.
    passed_since: Option<Instant>,
    status: watch::Sender<FlockStatus>,
    lead: watch::Sender<Option<Lead>>,
    started: Instant,
    live: BTreeSet<PeerId>,
    live_since: Instant,
    contest: Option<(Lineage, Instant)>,
    muster: Muster,
    apart_since: Option<Instant>,
    /// Of this node's present part.
    tenure: Tenure,
    changing: Option<JoinHandle<()>>,
    tending: voters::Tending,
    change_after: Instant,
    /// When a part that failed is taken up again.
    revive_at: Option<Instant>,
    /// Why it cannot be, for people.
    trouble: Option<String>,
    saved: Saved,
    /// Held by whoever writes the view's file.
    view_file: Arc<Mutex<()>>,
    why: String,
}

/// What the shell works with.
pub(super) struct Surroundings {
    pub transport: Transport,
    pub membership: Membership,
    pub view: View,
    pub network: Arc<RaftNetwork>,
    pub tell: Tell,
}

/// What others want of the shell.
pub(super) struct Inlets {
    pub invitations: mpsc::Receiver<Invitation>,
    pub errands: mpsc::Receiver<Errand>,
    pub recover: mpsc::Receiver<RecoverOrder>,
    pub stop: mpsc::Receiver<Stop>,
}

/// Where the shell says what it knows.
pub(super) struct Outlets {
    pub part: watch::Sender<Option<Group>>,
    pub of: watch::Sender<Option<Lineage>>,
    pub status: watch::Sender<FlockStatus>,
    pub lead: watch::Sender<Option<Lead>>,
}

impl Shell {
    pub fn new(
        config: FlockConfig,
        surroundings: Surroundings,
        intent: Intent,
        promises: Promises,
        leases: Leases,
        outlets: Outlets,
        aside: Option<Salvaged>,
    ) -> Self {
        let Surroundings { transport, membership, view, network, tell } = surroundings;
        let now = Instant::now();
        // The channel lives as long as the shell: its own tasks send, it receives.
        let (heard_tx, heard_rx) = mpsc::channel(64);
        Self {
            config,
            me: transport.local(),
            rpc: Rpc::new(transport.clone(), PRESENCE, super::presence::FRAME_LIMIT),
            transport,
            membership,
            saved: Saved::at_start(&view, now),
            view_file: Arc::default(),
            view,
            network,
            rules: AssemblyRules::default(),
            founding_rules: FoundingRules::default(),
            intent,
            promises,
            leases,
            part: outlets.part,
            aside,
            founding: Founding::default(),
            tell,
            begun: None,
            of: outlets.of,
            told_by: None,
            confirmed: false,
            without_quorum_since: now,
            heard: None,
            heard_tx,
            heard_rx,
            following: None,
            follow_after: now,
            unfollowed: None,
            passed_since: None,
            status: outlets.status,
            lead: outlets.lead,
            started: now,
            live: BTreeSet::new(),
            live_since: now,
            contest: None,
            muster: Muster::Few,
            apart_since: None,
            tenure: Tenure::default(),
            changing: None,
            tending: voters::Tending::default(),
            change_after: now,
            revive_at: None,
            trouble: None,
            why: "looking for other desktops".into(),
        }
    }

    pub async fn run(mut self, inlets: Inlets) {
        let Inlets { mut invitations, mut errands, mut recover, mut stop } = inlets;
        let mut members = self.membership.members();
        let (mut leading, mut heard_leader) = (self.leases.leading(), self.promises.heard());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut own_status: Option<watch::Receiver<raft::Status>> = None;
        let mut known: Option<raft::Status> = None;
        loop {
            if own_status.is_none() {
                // A status whose sender is gone says nothing any more.
                let status = self.part.borrow().as_ref().map(Group::status);
                own_status = status.filter(|status| status.has_changed().is_ok());
            }
            tokio::select! {
                _ = tick.tick() => {}
                changed = members.changed() => if changed.is_err() { break },
                changed = changed(&mut own_status) => match (changed, &mut own_status) {
                    (Ok(()), Some(status)) => {
                        let now = status.borrow_and_update().clone();
                        let only_progress = known.as_ref().is_some_and(|known| known.same_but_progress(&now));
                        known = Some(now);
                        // How far it is can wait for the next tick: a busy group is further hundreds of times a second.
                        if only_progress {
                            continue;
                        }
                    }
                    _ => own_status = None,
                },
                Some(news) = self.heard_rx.recv() => self.hear(news).await,
                // The senders live as long as the tasks that this daemon is made of.
                _ = leading.changed() => {}
                _ = heard_leader.changed() => {}
                Some(errand) = errands.recv() => self.run_errand(errand).await,
                Some(order) = recover.recv() => self.recover_for_people(order).await,
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
            Decision::Yield { to, why } => self.yield_to(to, why).await,
        }
        self.tend_founding(members).await;
        self.note_passed();
        self.keep_following(members).await;
        self.tell_part();
        self.revive_failed_part().await;
        self.drop_unnamed_part().await;
        if self.acts() {
            if let Some(begun) = self.begun.take_if(|begun| self.of.borrow().as_ref() == Some(&begun.of)) {
                self.tell.begun(&begun);
            }
            self.tend_electorate(members);
        }
        self.publish();
        self.save();
    }

    fn observe(&mut self, members: &[Member]) {
        let live: BTreeSet<PeerId> =
            members.iter().filter(|member| member.alive).map(|member| member.peer).collect();
        if live != self.live {
            (self.live, self.live_since) = (live, Instant::now());
        }
        if self.acting().is_some() {
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
        self.muster = self.muster(&others);
        self.apart_since = match self.muster {
            Muster::Together => None,
            Muster::Scattered | Muster::Few => self.apart_since.or_else(|| Some(Instant::now())),
        };
        let of = self.of.borrow().clone();
        let me = self.me.to_string();
        let votes = |own: raft::Status| own.failed.is_none() && own.voters.contains(&me);
        let mine = of.map(|lineage| Mine {
            members: self.roster(),
            muster: self.muster,
            apart_for_ms: self.apart_since.map_or(0, millis),
            votes: self.own_status().is_some_and(votes),
            acting: self.acting().map(|peer| peer.to_string()),
            heard: self.confirmed,
            holds: self.holds_anything_of(&lineage),
            lineage,
            without_quorum_ms: millis(self.without_quorum_since),
        });
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

    /// What this node's part in the electorate says; it knows no leader while the others have gone on without it.
    fn own_status(&self) -> Option<raft::Status> {
        let own = self.part.borrow().as_ref().map(|group| group.status().borrow().clone())?;
        let passed = self.passed_since.is_some_and(|since| since.elapsed() > PASSED_AFTER);
        Some(if passed { raft::Status { leader: None, quorum: false, ..own } } else { own })
    }

    /// A voter that was voted out at the same time as its leader hears of neither from Raft: those who go on do not name it.
    fn note_passed(&mut self) {
        let term = self.part.borrow().as_ref().map(|group| group.status().borrow().term);
        let heard = self.promises.heard();
        let heard = heard.borrow();
        let of = self.of.borrow();
        let leads = heard.as_ref().filter(|heard| Some(&heard.lineage) == of.as_ref());
        let leads = leads.filter(|heard| heard.acting && heard.is_recent() && heard.peer != self.me);
        let passed = leads.zip(term).is_some_and(|(heard, term)| heard.term > term);
        self.passed_since = passed.then(|| self.passed_since.unwrap_or_else(Instant::now));
    }

    /// How many belong, as far as this node knows.
    fn roster(&self) -> usize {
        let listed = |store: &gaggle_sched::state::Store| store.list(&Resource::fixed("nodes"), None).count();
        self.view
            .read(|store| Roster::of(store).map_or_else(|| listed(store), |(roster, _)| roster.members.len()))
    }

    /// Whether the members of this node's group are here.
    fn muster(&self, others: &[Seen]) -> Muster {
        let known = self.of.borrow().clone().zip(self.best_known());
        let (me, few) = (self.me.to_string(), Muster::Few);
        known.map_or(few, |(of, known)| Muster::of(&me, &of.group, &known.roster, others))
    }

    /// Whether a part, what was set aside of one, or the view came here from that group.
    fn holds_anything_of(&self, lineage: &Lineage) -> bool {
        let is_it = |other: &Lineage| other.group == lineage.group;
        self.part.borrow().is_some()
            || self.aside.as_ref().is_some_and(|left| is_it(&left.lineage))
            || self.view.read(|store| store.lineage().is_some_and(is_it))
    }

    /// From now on this node is of that group.
    fn turn_to(&mut self, lineage: Lineage, why: String) {
        if self.of.borrow().as_ref() != Some(&lineage) {
            tracing::info!(group = lineage.group, epoch = lineage.epoch, why, "following a group");
            self.stop_following();
            self.founding.abandon();
            (self.muster, self.apart_since) = (Muster::Few, None);
            self.heard = None;
            self.told_by = None;
            self.confirmed = false;
            self.without_quorum_since = Instant::now();
            self.of.send_replace(Some(lineage));
        }
        self.why = why;
    }

    /// Gives up the present group for another. What its log holds for people is kept as their intent.
    async fn yield_to(&mut self, to: Lineage, why: String) {
        tracing::warn!(group = to.group, epoch = to.epoch, why, "this group yields to another");
        self.give_up_part().await;
        self.turn_to(to, why);
    }

    async fn end(&mut self, forget: bool) {
        self.stop_following();
        if forget {
            self.drop_part().await;
            // Its word stays: a leader may count on this node for a moment yet, also when it is soon back.
            // What is not there is as forgotten as what is removed.
            let _ = std::fs::remove_file(&self.config.view);
            return;
        }
        if let Some(group) = self.part.send_replace(None) {
            self.lead.send_replace(None);
            group.stop().await;
        } else if let Err(why) = self.save_now().await {
            tracing::warn!(why, "the view could not be saved");
        }
    }
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
    (!facts.group.is_empty()).then_some(Claim {
        lineage,
        members,
        part,
        quorum: facts.quorum,
        could_act: facts.could_act,
    })
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// Waits for a change of a status that may not be there.
async fn changed(status: &mut Option<watch::Receiver<raft::Status>>) -> Result<(), watch::error::RecvError> {
    match status {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}
