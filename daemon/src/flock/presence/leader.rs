//! The leader's side: it asks everybody, counts leases, and says whether it may act. The roster, by which it counts, is
//! its own to change.

use super::{Answer, LeaseAsk, PRESENCE, Promises, Request, ask};
use crate::boottime::boottime_ms;
use crate::flock::roster;
use crate::flock::rpc::Rpc;
use crate::flock::tell::Tell;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{Member, Membership};
use gaggle_gossip::transport::Transport;
use gaggle_sched::electorate::presence::{self, ASK_EVERY_MS, LEASE_MS, NoLease, STEP_ASIDE_MS, Standing};
use gaggle_sched::electorate::roster::{Count, Roster};
use gaggle_sched::raft::{self, Gate, Group, Role};
use gaggle_sched::state::{Lineage, Revision, View};
use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

/// A leader that may not act for this long, although more than half of the roster lives, lets the others elect another:
/// perhaps they hear each other better than they hear it.
const RESIGN_AFTER: Duration = Duration::from_secs(6);
/// How long it stays silent then; twice as long each time, up to the bound, so that a flock in which nobody can lead is
/// not kept busy with electing.
const RESIGN_MIN: Duration = Duration::from_secs(2);
const RESIGN_MAX: Duration = Duration::from_secs(60);
/// A change of the roster that was refused is not tried again sooner.
const CHANGE_AGAIN: Duration = Duration::from_millis(100);
/// What is ordered is committed within this, or at least before anybody else may act: nothing is begun in the last moment
/// of a lease. Beyond it there is what a node holds still longer than a lease lasts.
const COMMIT_MARGIN_MS: u64 = 500;
/// Far beyond anything that still matters; the timer for it is never due.
const NEVER: Duration = Duration::from_secs(3600);

/// Whether this node leads and may act, as others may watch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::flock) struct Leading {
    /// The lineage and the term that this node leads.
    pub of: Option<(Lineage, u64)>,
    pub acts: bool,
    pub count: Option<Count>,
    /// Whose leases count now.
    pub held: Arc<BTreeSet<String>>,
}

/// What the leases say, for whoever has to know at this very moment.
#[derive(Clone)]
pub(in crate::flock) struct Leases {
    until: Arc<Mutex<Option<(Lineage, u64, u64)>>>,
    leading: watch::Receiver<Leading>,
}

impl Leases {
    /// Opens for the lineage and the term that this node may act for now.
    pub fn gate(&self) -> Gate {
        let until = self.until.clone();
        Gate::new(move |lineage, term| {
            let until = until.lock().unwrap_or_else(PoisonError::into_inner);
            until.as_ref().is_some_and(|(of, in_term, until_ms)| {
                of == lineage && *in_term == term && boottime_ms() + COMMIT_MARGIN_MS < *until_ms
            })
        })
    }

    pub fn leading(&self) -> watch::Receiver<Leading> {
        self.leading.clone()
    }
}

/// One task: idle unless this node leads.
pub(in crate::flock) struct Leader {
    me: PeerId,
    rpc: Rpc,
    view: View,
    membership: Membership,
    tell: Tell,
    promises: Option<Promises>,
    until: Arc<Mutex<Option<(Lineage, u64, u64)>>>,
    leading: watch::Sender<Leading>,
    /// The lead that `leases` were given for.
    lead: Option<(Lineage, u64)>,
    leases: presence::Leases,
    lead_since: Instant,
    /// Whether it may order writes in this lead. What is begun goes on: see [`presence::may_order`].
    orders: bool,
    voters: usize,
    most_voters: usize,
    roster: (Roster, Revision),
    asking: BTreeSet<PeerId>,
    answers: JoinSet<Heard>,
    changing: Option<JoinHandle<()>>,
    change_after: Instant,
    waits_since: Option<Instant>,
    /// Until then ([`boottime_ms`]) nobody is asked, so that the group can be founded anew with everybody.
    aside_until_ms: Option<u64>,
    resigns_for: Duration,
}

/// What a peer answered to a question of this lead.
struct Heard {
    peer: PeerId,
    lead: (Lineage, u64),
    asked_ms: u64,
    answer: Result<Answer, String>,
}

impl Leader {
    /// `most_voters`: how large the electorate may become.
    pub fn new(
        transport: Transport,
        view: View,
        membership: Membership,
        tell: Tell,
        most_voters: usize,
    ) -> (Self, Leases) {
        let (leading, watching) = watch::channel(Leading::default());
        let until = Arc::default();
        let leases = Leases { until: Arc::clone(&until), leading: watching };
        let leader = Self {
            me: transport.local(),
            rpc: Rpc::new(transport, PRESENCE, super::FRAME_LIMIT),
            view,
            membership,
            tell,
            promises: None,
            until,
            leading,
            lead: None,
            leases: presence::Leases::default(),
            lead_since: Instant::now(),
            orders: false,
            voters: 0,
            most_voters,
            roster: (Roster::default(), Revision::default()),
            asking: BTreeSet::new(),
            answers: JoinSet::new(),
            changing: None,
            change_after: Instant::now(),
            waits_since: None,
            aside_until_ms: None,
            resigns_for: RESIGN_MIN,
        };
        (leader, leases)
    }

    /// Runs until this node's part in the electorate has no owner any more.
    pub async fn run(mut self, promises: Promises, mut part: watch::Receiver<Option<Group>>) {
        self.promises = Some(promises);
        let mut tick = tokio::time::interval(Duration::from_millis(ASK_EVERY_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revisions = self.view.subscribe();
        let mut status = part.borrow().as_ref().map(Group::status);
        loop {
            let expiry = Instant::now() + self.left();
            let (mut ask_now, mut look) = (false, true);
            tokio::select! {
                _ = tick.tick() => ask_now = true,
                Some(heard) = self.answers.join_next() => if let Ok(heard) = heard { self.hear(heard) },
                changed = part.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    status = part.borrow_and_update().as_ref().map(Group::status);
                }
                changed = next_status(&mut status) => if changed.is_err() { status = None },
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    look = self.roster_moved();
                }
                () = tokio::time::sleep_until(expiry) => {}
            }
            if !look {
                continue;
            }
            let group = part.borrow().clone();
            let lead = status.as_ref().and_then(|status| lead_of(&status.borrow()));
            self.voters = status.as_ref().map_or(0, |status| status.borrow().voters.len());
            if lead != self.lead {
                self.begin(lead);
                ask_now = true;
            }
            self.step_aside();
            self.recompute();
            if self.lead.is_some() && self.aside_until_ms.is_none() && ask_now {
                self.ask_all();
            }
            if let Some(group) = group.filter(|_| self.lead.is_some()) {
                self.tend_roster(&group, ask_now);
                self.resign_if_forlorn(&group);
            }
        }
    }

    /// Another lead: what was given for the last one does not count.
    fn begin(&mut self, lead: Option<(Lineage, u64)>) {
        self.lead = lead;
        (self.lead_since, self.orders) = (Instant::now(), false);
        self.leases = presence::Leases::default();
        self.waits_since = None;
        self.aside_until_ms = None;
        self.roster_moved();
    }

    /// Stops asking while members have gone beyond this leader's epoch; begins anew when they had time to found the next.
    fn step_aside(&mut self) {
        let now_ms = boottime_ms();
        match self.aside_until_ms {
            Some(until_ms) if now_ms >= until_ms => {
                self.aside_until_ms = None;
                self.leases = presence::Leases::default();
            }
            None if self.lead.is_some() && self.leases.steps_aside(&self.roster.0, now_ms) => {
                tracing::warn!(
                    "desktops have pledged themselves beyond this epoch: this leader steps aside for them"
                );
                self.aside_until_ms = Some(now_ms + STEP_ASIDE_MS);
            }
            _ => {}
        }
    }

    /// Whether another roster is in force than a moment ago.
    fn roster_moved(&mut self) -> bool {
        let known = self.roster.1;
        let now = self.view.read(|store| {
            let revision = store.get(&Roster::key()).map_or(Revision::default(), |object| object.revision());
            (revision != known).then(|| Roster::of(store).unwrap_or_default())
        });
        now.map(|roster| self.roster = roster).is_some()
    }

    fn recompute(&mut self) {
        let now_ms = boottime_ms();
        let standing = self.lead.as_ref().map(|_| self.leases.standing(&self.roster.0, now_ms));
        let until = match (&self.lead, standing) {
            (Some((lineage, term)), Some(Standing::Acts { until_ms })) => {
                Some((lineage.clone(), *term, until_ms))
            }
            _ => None,
        };
        let acts = until.is_some();
        let count = self.lead.as_ref().map(|_| self.roster.0.count(|peer| self.leases.holds(peer, now_ms)));
        let leads_for_ms = u64::try_from(self.lead_since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let there = count.map_or(0, |count| count.there);
        self.orders |= acts && presence::may_order(self.voters, there, self.most_voters, leads_for_ms);
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until.filter(|_| self.orders);
        let members = self.roster.0.members.iter();
        let held = Arc::new(members.filter(|peer| self.leases.holds(peer, now_ms)).cloned().collect());
        let leading = Leading { of: self.lead.clone(), acts, count, held };
        self.leading.send_if_modified(|last| {
            if last.acts != leading.acts {
                let (there, of) = leading.count.map_or((0, 0), |count| (count.there, count.of));
                tracing::info!(
                    acts,
                    leads = leading.of.is_some(),
                    there,
                    of,
                    "whether this desktop may act for the flock"
                );
            }
            std::mem::replace(last, leading.clone()) != leading
        });
    }

    /// How long until something runs out.
    fn left(&self) -> Duration {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.as_ref().map_or(NEVER, |(_, _, until_ms)| {
            Duration::from_millis(until_ms.saturating_sub(boottime_ms()).max(1))
        })
    }

    /// Everybody on the roster, and who follows without being on it yet; one question at a time to each.
    fn ask_all(&mut self) {
        let (Some(lead), Some(promises)) = (self.lead.clone(), self.promises.clone()) else { return };
        let leading = self.leading.borrow().clone();
        let count = leading.count.unwrap_or(Count { there: 0, of: 0 });
        let question = LeaseAsk {
            lineage: lead.0.clone(),
            term: lead.1,
            acting: leading.acts,
            holds: false,
            there: count.there,
            of: count.of,
            roster: self.roster.1,
        };
        let members = self.membership.members().borrow().clone();
        let reachable = members.iter().filter(|member| member.connected && member.peer != self.me);
        let concerned = reachable.filter(|member| self.concerns(member, &lead.0));
        let peers: Vec<PeerId> =
            std::iter::once(self.me).chain(concerned.map(|member| member.peer)).collect();
        for peer in peers {
            if !self.asking.insert(peer) {
                continue;
            }
            let holds = self.leases.holds(&peer.to_string(), boottime_ms());
            let question = LeaseAsk { holds, ..question.clone() };
            let (lead, rpc, promises) = (lead.clone(), self.rpc.clone(), promises.clone());
            let here = peer == self.me;
            self.answers.spawn(async move {
                let asked_ms = boottime_ms();
                let answer = match here {
                    true => Ok(promises.lease(peer, &question).await),
                    false => {
                        // Later than this the answer is worth nothing.
                        let deadline = Duration::from_millis(LEASE_MS);
                        ask(&rpc, peer, &Request::Lease(question), deadline).await
                    }
                };
                Heard { peer, lead, asked_ms, answer }
            });
        }
    }

    fn concerns(&self, member: &Member, lineage: &Lineage) -> bool {
        let peer = member.peer.to_string();
        let follows = member.group.as_ref().is_some_and(|group| group.group == lineage.group);
        follows || self.roster.0.names(&peer)
    }

    fn hear(&mut self, heard: Heard) {
        self.asking.remove(&heard.peer);
        if self.lead.as_ref() != Some(&heard.lead) {
            return;
        }
        let peer = heard.peer.to_string();
        match heard.answer {
            Ok(Answer::Lease { noted }) => self.leases.granted(&peer, heard.asked_ms, noted),
            Ok(Answer::NoLease(NoLease::Passed(epoch))) => {
                tracing::debug!(%peer, epoch, "no lease: it has gone beyond this epoch");
                self.leases.passed(&peer, heard.asked_ms);
            }
            Ok(Answer::NoLease(NoLease::Elsewhere(of))) if self.is_older_than(&of) => {
                tracing::debug!(%peer, epoch = of.epoch, "no lease: it follows a newer epoch");
                self.leases.passed(&peer, heard.asked_ms);
            }
            Ok(answer @ (Answer::NoLease(_) | Answer::Stranger)) => {
                tracing::debug!(%peer, ?answer, "no lease");
                self.leases.refused(&peer);
            }
            // Nothing was said about the lease that it gave before.
            Ok(answer) => tracing::debug!(%peer, ?answer, "no answer about a lease"),
            Err(error) => tracing::debug!(%peer, error, "no answer about a lease"),
        }
    }

    fn is_older_than(&self, of: &Lineage) -> bool {
        self.lead.as_ref().is_some_and(|(lead, _)| lead.group == of.group && lead.epoch < of.epoch)
    }

    /// The next step of the roster towards who belongs, if this leader could act by it.
    fn tend_roster(&mut self, group: &Group, all: bool) {
        if self.changing.take_if(|change| change.is_finished()).is_some() {
            self.change_after = Instant::now() + CHANGE_AGAIN;
        }
        let settles = self.roster.0.before.is_some();
        let acts = self.leading.borrow().acts;
        if self.changing.is_some() || Instant::now() < self.change_after || !acts || !(all || settles) {
            return;
        }
        let members = self.membership.members().borrow().clone();
        let leaving = members.iter().filter(|member| member.node.as_ref().is_some_and(|node| node.leaving));
        let leaving: BTreeSet<String> = leaving.map(|member| member.peer.to_string()).collect();
        let now_ms = boottime_ms();
        let step = self.view.read(|store| roster::step(store, &leaving, &self.leases, now_ms));
        let Some(step) = step else { return };
        tracing::info!(why = step.why, "changing the roster");
        let (group, tell) = (group.clone(), self.tell.clone());
        self.changing = Some(tokio::spawn(async move {
            match group.propose(step.txn).await {
                // The end of a joint stage is no news for people.
                Ok(Ok(_)) if settles => {}
                Ok(Ok(_)) => tell.roster(&step.why),
                Ok(Err(refused)) => tracing::debug!(%refused, "the roster did not change"),
                Err(error) => tracing::debug!(%error, "the roster did not change"),
            }
        }));
    }

    fn resign_if_forlorn(&mut self, group: &Group) {
        let acts = self.leading.borrow().acts;
        let members = self.membership.members().borrow().clone();
        let alive = |peer: &str| {
            let known = PeerId::from_str(peer).ok();
            members.iter().any(|member| Some(member.peer) == known && member.alive)
        };
        if acts {
            self.resigns_for = RESIGN_MIN;
        }
        if acts || !self.roster.0.has_majority(alive) {
            self.waits_since = None;
            return;
        }
        if self.waits_since.get_or_insert_with(Instant::now).elapsed() >= RESIGN_AFTER {
            tracing::warn!(
                "more than half of the desktops live, but they do not stand behind this one: another may lead"
            );
            group.resign(self.resigns_for);
            self.resigns_for = (self.resigns_for * 2).min(RESIGN_MAX);
            self.waits_since = None;
        }
    }
}

/// What a group's status gives this node the lead of. Not before it has everything that was ordered before its term: the
/// roster by which it counts must be the newest.
fn lead_of(status: &raft::Status) -> Option<(Lineage, u64)> {
    let leads = status.role == Role::Leader && status.quorum && status.caught_up && status.failed.is_none();
    leads.then(|| (Lineage { group: status.group.to_string(), epoch: status.epoch }, status.term))
}

/// Waits for a change of a status that may not be there.
async fn next_status(
    status: &mut Option<watch::Receiver<raft::Status>>,
) -> Result<(), watch::error::RecvError> {
    match status {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}
