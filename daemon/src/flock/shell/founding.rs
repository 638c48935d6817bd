//! Founding the group anew, when nobody leads it and more than half of its roster is here: the shell around
//! `sched::electorate::founding`.
//!
//! First everybody is asked whether they would pledge themselves, which changes nothing. If more than half would, this
//! node gives up its own part, pledges itself, and asks the others for their word. With the word of more than half it
//! founds. Each step is on the disk before the next, and an interruption anywhere leaves something that goes on: until
//! the new group's log is there, the old files or the saved view hold everything.

use super::{Shell, millis};
use crate::flock::orphans;
use crate::flock::presence::{Answer, Errand, MAX_EPOCH, Request, Unkept, ask, position_in};
use crate::flock::rpc::Rpc;
use crate::flock::tell::Begun;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_sched::electorate::attempts::Attempts;
use gaggle_sched::electorate::founding::{self, Ask, NoPledge, Position, Situation, Step, Survivor};
use gaggle_sched::electorate::roster::{Count, Roster};
use gaggle_sched::raft::{Group, GroupId, Salvaged, Tail};
use gaggle_sched::state::{Lineage, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long others may take to say what they would do.
const PREVIEW_WITHIN: Duration = Duration::from_millis(1_000);
/// How long they may take to end their part, look into their log and write their word down.
const PLEDGE_WITHIN: Duration = Duration::from_secs(5);

/// How far this node has come with founding its group anew.
#[derive(Default)]
pub(super) struct Founding {
    campaign: Option<Campaign>,
    attempts: Attempts,
    /// What peers said of themselves when they refused: newer than what gossip says.
    corrected: BTreeMap<String, Position>,
    /// What this node's log holds beyond its view, while its part runs and nobody leads, and up to where.
    held: Option<(Tail, Option<Known>)>,
    /// How many are here, when nobody leads.
    pub here: Option<Count>,
    /// For people; empty while there is nothing to say.
    pub why: String,
}

impl Founding {
    /// Gives up what is under way: this node is of another lineage now, and may have dropped the log that it asked with. To
    /// found from less than that would lose what those who pledged themselves have seen. What peers said was about it, too.
    pub fn abandon(&mut self) {
        if let Some(campaign) = self.campaign.take() {
            campaign.tally.abort();
        }
        *self = Self::default();
    }
}

struct Campaign {
    ask: Ask,
    roster: Roster,
    stage: Stage,
    tally: JoinHandle<Tally>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preview,
    Pledge,
}

#[derive(Default)]
struct Tally {
    granted: BTreeSet<String>,
    refused: Vec<(String, NoPledge)>,
}

/// What a node knows best of its group: its view, or what its own log holds beyond that.
#[derive(Clone)]
pub(super) struct Known {
    pub position: Position,
    pub roster: Roster,
    pub roster_revision: Revision,
}

impl Shell {
    pub(super) async fn tend_founding(&mut self, members: &[Member]) {
        if let Some(done) = self.founding.campaign.take_if(|campaign| campaign.tally.is_finished()) {
            let Campaign { ask, roster, stage, tally } = done;
            let tally = tally.await.unwrap_or_default();
            return self.weigh(ask, roster, stage, tally, members).await;
        }
        if self.founding.campaign.is_some() {
            return;
        }
        if self.acting().is_some() {
            self.founding = Founding::default();
            return;
        }
        let mut rules = self.founding_rules.clone();
        if !self.confirmed {
            rules = rules.after_start();
        }
        let unled_ms = self.promises.unled_ms().await;
        if unled_ms >= rules.wait_ms {
            self.look_into_log().await;
        }
        let Some(known) = self.best_known() else { return };
        let survivors = self.survivors(members);
        let me = self.me.to_string();
        let situation = Situation {
            me: &me,
            position: known.position,
            roster: &known.roster,
            survivors: &survivors,
            unled_ms,
            rules: &rules,
        };
        let there = |peer: &str| peer == me || survivors.iter().any(|survivor| survivor.peer == peer);
        self.founding.here = Some(known.roster.count(there));
        match founding::next(&situation) {
            Step::Stay => self.founding.why.clear(),
            Step::TooFew(count) => {
                self.founding.why = format!(
                    "{} of {} desktops are here: more than half are needed (gaggle recover goes on with those who are)",
                    count.there, count.of
                );
                let after = self.config.autonomy.map(|after| after.as_millis() as u64);
                if after.is_some_and(|after_ms| founding::is_left_alone(&situation, after_ms)) {
                    self.go_on_alone(members).await;
                }
            }
            Step::Wait { founder } => {
                self.founding.why = format!("founding anew: {} begins", name_of(members, &founder));
            }
            Step::Ask { why } => {
                if self.founding.attempts.is_due(millis(self.started)) {
                    self.preview(known, why, members).await;
                }
            }
        }
    }

    /// What this node would found with.
    pub(super) fn best_known(&self) -> Option<Known> {
        let of = self.of.borrow().clone()?;
        let in_view = self.view.read(|store| (position_in(&of.group, store), Roster::of(store)));
        let left = self.aside.as_ref().filter(|left| left.lineage.group == of.group);
        let in_log = left.map(|left| (left.position(), Roster::of(&left.store)));
        let (position, roster) = in_log.into_iter().chain([in_view]).max_by_key(|(position, _)| *position)?;
        let known = roster.filter(|_| position != Position::default());
        let known = known.map(|(roster, roster_revision)| Known { position, roster, roster_revision });
        let held = self
            .founding
            .held
            .as_ref()
            .filter(|_| self.part.borrow().is_some())
            .and_then(|(_, held)| held.clone());
        held.into_iter().chain(known).max_by_key(|known| known.position)
    }

    /// Who holds more in its log than in its view must not ask as if it held less: it would be refused by those whose views
    /// hold more, and refuse them.
    async fn look_into_log(&mut self) {
        let group = self.part.borrow().clone();
        let Some((group, tail)) = group.and_then(|group| Some((group.clone(), group.has_tail()?))) else {
            self.founding.held = None;
            return;
        };
        if self.founding.held.as_ref().is_some_and(|(looked, _)| *looked == tail) {
            return;
        }
        // One that cannot be read is not read again before it has grown.
        let known = match group.salvage().await {
            Ok(held) => Roster::of(&held.store).map(|(roster, roster_revision)| Known {
                position: held.position(),
                roster,
                roster_revision,
            }),
            Err(error) => {
                tracing::warn!(%error, "what this desktop's log holds beyond its view is not known");
                None
            }
        };
        self.founding.held = Some((tail, known));
    }

    /// The others of this group who can be reached, as gossip says, or as they said themselves.
    pub(super) fn survivors(&self, members: &[Member]) -> Vec<Survivor> {
        let Some(of) = self.of.borrow().clone() else { return Vec::new() };
        let there =
            members.iter().filter(|member| member.alive && member.connected && member.peer != self.me);
        let survivors = there.filter_map(|member| {
            let facts = member.group.as_ref().filter(|facts| facts.group == of.group)?;
            let (epoch, term) = (facts.epoch, facts.revision_term);
            let said = Position { epoch, term, revision: Revision(facts.revision) };
            let peer = member.peer.to_string();
            let position = self.founding.corrected.get(&peer).map_or(said, |corrected| said.max(*corrected));
            Some(Survivor { peer, position })
        });
        survivors.collect()
    }

    async fn preview(&mut self, known: Known, why: String, members: &[Member]) {
        let Some(of) = self.of.borrow().clone() else { return };
        let told = members.iter().filter_map(|member| member.group.as_ref());
        let told = told.filter(|facts| facts.group == of.group).map(|facts| facts.epoch);
        let reached = self.promises.reached(&of.group).await;
        let highest =
            told.chain([of.epoch, reached, self.founding.attempts.reached()]).max().unwrap_or_default();
        if highest >= MAX_EPOCH {
            self.founding.why = format!(
                "the group's epochs are used up, the last is {MAX_EPOCH}: gaggle recover begins a new group"
            );
            return;
        }
        let lineage = Lineage { group: of.group, epoch: highest + 1 };
        let ask = Ask { lineage, position: known.position, roster: known.roster_revision };
        self.founding.attempts.begin(rand::random(), millis(self.started));
        if let Err(no_pledge) = self.promises.preview(self.me, &ask).await {
            tracing::debug!(%no_pledge, "this desktop would not pledge itself");
            return;
        }
        self.founding.why = format!("founding anew: {why}");
        tracing::info!(epoch = ask.lineage.epoch, why, "asking whether the group should be founded anew");
        self.campaign(ask, known.roster, Stage::Preview);
    }

    fn campaign(&mut self, ask: Ask, roster: Roster, stage: Stage) {
        let others = self.survivors(&self.membership.members().borrow());
        let others = others.into_iter().map(|survivor| survivor.peer).filter(|peer| roster.names(peer));
        let tally = collect(self.rpc.clone(), ask.clone(), stage, roster.clone(), self.me, others.collect());
        self.founding.campaign = Some(Campaign { ask, roster, stage, tally: tokio::spawn(tally) });
    }

    /// A round of asking is over.
    async fn weigh(&mut self, mut ask: Ask, roster: Roster, stage: Stage, tally: Tally, members: &[Member]) {
        for (peer, no_pledge) in tally.refused {
            tracing::info!(peer = name_of(members, &peer), ?stage, %no_pledge, "no pledge");
            match no_pledge {
                NoPledge::Newer(position) => _ = self.founding.corrected.insert(peer, position),
                NoPledge::Passed(epoch) => {
                    self.founding.attempts.passed(epoch.min(MAX_EPOCH), millis(self.started));
                }
                NoPledge::OtherGroup | NoPledge::Led | NoPledge::Unsure | NoPledge::NewerRoster(_) => {}
            }
        }
        let me = self.me.to_string();
        if self.acting().is_some() || !roster.has_majority(|peer| peer == me || tally.granted.contains(peer))
        {
            return;
        }
        if stage == Stage::Pledge {
            return self.found_anew(ask, &roster, members).await;
        }
        self.stop_following();
        self.set_aside().await;
        let Some(known) = self.best_known() else { return };
        (ask.position, ask.roster) = (known.position, known.roster_revision);
        match self.promises.pledge(self.me, &ask, known.position).await {
            Ok(()) => {
                tracing::info!(
                    epoch = ask.lineage.epoch,
                    "pledged to founding the group anew, and asking the others"
                );
                self.campaign(ask, known.roster, Stage::Pledge);
            }
            Err(unkept) => {
                tracing::info!(%unkept, "this desktop does not found the group anew");
                self.take_up_again().await;
            }
        }
    }

    /// More than half of the roster has given its word.
    async fn found_anew(&mut self, ask: Ask, roster: &Roster, members: &[Member]) {
        let Ok(id) = ask.lineage.group.parse::<GroupId>() else { return };
        tracing::warn!(group = %id, epoch = ask.lineage.epoch, revision = %ask.position.revision, "founding the group anew: its voters are lost, and more than half of the desktops are here");
        if let Err(why) = self.settle_on_best().await {
            tracing::error!(why, "the group cannot be founded anew");
            return;
        }
        let here = self.here(members);
        let begun = Begun {
            of: ask.lineage.clone(),
            reason: "GroupFoundedAnew",
            why: std::mem::take(&mut self.founding.why),
            missing: roster.members.difference(&here).cloned().collect(),
        };
        if self.begin_group(id, ask.lineage.epoch).await {
            self.begun = Some(begun);
        }
    }

    /// The peers of this group who are here, this node among them.
    pub(super) fn here(&self, members: &[Member]) -> BTreeSet<String> {
        let survivors = self.survivors(members).into_iter().map(|survivor| survivor.peer);
        survivors.chain([self.me.to_string()]).collect()
    }

    /// Makes the newest state that this node holds its view, and brings it to the disk apart from the old log.
    pub(super) async fn settle_on_best(&mut self) -> Result<(), String> {
        self.stop_following();
        self.set_aside().await;
        orphans::keep_intent_of_view(&self.view, &self.intent).await;
        if let Some(Salvaged { lineage, store }) = self.aside.take() {
            orphans::keep_intent(&store, &self.intent).await;
            let left = Salvaged { lineage, store };
            if left.position() > self.view.read(|store| position_in(&left.lineage.group, store)) {
                self.view.write(|store| store.replace(left.store, left.lineage));
            }
        }
        self.save_now().await
    }

    /// Founds a group with the view, in place of what the disk holds of another.
    pub(super) async fn begin_group(&mut self, id: GroupId, epoch: u64) -> bool {
        if let Err(error) = self.forget_part().await {
            tracing::error!(error, "the old group's files are in the way");
            return false;
        }
        let config = super::part::raft_config(&self.config, self.me, self.leases.gate());
        let founded = Group::found(config, self.network.clone(), self.view.clone(), id.clone(), epoch).await;
        match founded {
            Ok(group) => {
                self.founding = Founding::default();
                self.turn_to(Lineage { group: id.to_string(), epoch }, String::new());
                self.part.send_replace(Some(group));
                true
            }
            Err(error) => {
                tracing::error!(%error, "the group cannot be founded");
                false
            }
        }
    }

    /// What a peer asked, and only the shell can answer.
    pub(super) async fn run_errand(&mut self, errand: Errand) {
        let Errand { from, request, answer } = errand;
        let reply = match request {
            Request::Lease(ask) => return self.summoned(from, ask.lineage).await,
            Request::Pledge(ask) => self.pledge_to(from, ask).await,
            Request::Recover { group } => self.recover_for_peer(&group).await,
            Request::Join { from: old, to } => self.join(from, &old, to).await,
            Request::Preview(_) => Answer::Unable("that is answered elsewhere".into()),
        };
        // Whoever asked may have given up.
        let _ = answer.send(reply);
    }

    /// Somebody leads a newer founding of this node's group.
    async fn summoned(&mut self, from: PeerId, lineage: Lineage) {
        let of = self.of.borrow().clone();
        if of.is_some_and(|of| of.group == lineage.group && lineage.epoch > of.epoch) {
            self.yield_to(lineage, "the group was founded anew".into()).await;
            self.told_by = Some(from);
        }
    }

    /// From the moment on in which this node gives its word it takes no part in what was before: nothing may be
    /// acknowledged with its help that the founder does not know.
    async fn pledge_to(&mut self, from: PeerId, ask: Ask) -> Answer {
        let name = from.to_string();
        let may_ask = |known: Known| founding::may_ask(&name, &ask, &known.roster, known.roster_revision);
        if !self.best_known().is_none_or(may_ask) {
            return Answer::Stranger;
        }
        self.stop_following();
        self.set_aside().await;
        let position = self.best_known().map(|known| known.position).unwrap_or_default();
        match self.promises.pledge(from, &ask, position).await {
            Ok(()) => {
                tracing::info!(peer = %from, epoch = ask.lineage.epoch, "pledged to a founding of the group anew");
                Answer::Pledged
            }
            Err(unkept) => {
                let of = self.of.borrow().clone();
                let passed = match of {
                    Some(of) => self.promises.has_passed(&of).await,
                    None => false,
                };
                if !passed {
                    self.take_up_again().await;
                }
                match unkept {
                    Unkept::NoPledge(no_pledge) => Answer::NoPledge(no_pledge),
                    Unkept::Disk(why) => Answer::Unable(why),
                }
            }
        }
    }
}

fn name_of(members: &[Member], peer: &str) -> String {
    let member = members.iter().find(|member| member.peer.to_string() == peer);
    let named = member.and_then(|member| Some(member.node.as_ref()?.name.clone()));
    named.unwrap_or_else(|| peer.to_owned())
}

/// Asks all at once, until enough have said yes or all have answered.
async fn collect(
    rpc: Rpc,
    question: Ask,
    stage: Stage,
    roster: Roster,
    me: PeerId,
    others: Vec<String>,
) -> Tally {
    let (request, limit) = match stage {
        Stage::Preview => (Request::Preview(question), PREVIEW_WITHIN),
        Stage::Pledge => (Request::Pledge(question), PLEDGE_WITHIN),
    };
    let me = me.to_string();
    let mut asked: FuturesUnordered<_> = others
        .into_iter()
        .filter_map(|name| name.parse::<PeerId>().ok().map(|peer| (name, peer)))
        .map(|(name, peer)| {
            let (rpc, request) = (rpc.clone(), request.clone());
            async move { (name, ask(&rpc, peer, &request, limit).await) }
        })
        .collect();
    let mut tally = Tally::default();
    while let Some((peer, answer)) = asked.next().await {
        match answer {
            Ok(Answer::Pledged) => _ = tally.granted.insert(peer),
            Ok(Answer::NoPledge(no_pledge)) => tally.refused.push((peer, no_pledge)),
            other => tracing::debug!(peer, ?other, "no answer about a founding"),
        }
        if roster.has_majority(|peer| peer == me || tally.granted.contains(peer)) {
            break;
        }
    }
    tally
}
