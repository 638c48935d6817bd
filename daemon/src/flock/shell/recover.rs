//! Going on with less than half, because people (`gaggle recover`) or this desktop's owner (`--autonomy`) say so.
//!
//! Nothing makes sure that the others are dead, so this is no founding anew: it is another group, begun with what is
//! here. If the others live they may go on too; when the two meet, one yields to the other as groups do that were
//! founded apart.

use super::Shell;
use crate::flock::handle::RecoverOrder;
use crate::flock::presence::{Answer, MAX_EPOCH, Request, ask};
use crate::flock::tell::Begun;
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::Member;
use gaggle_sched::electorate::founding::Position;
use gaggle_sched::electorate::roster::{Count, Roster};
use gaggle_sched::raft::GroupId;
use gaggle_sched::state::{Expect, Lineage, Write};
use rand::Rng;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the desktop with the newest view may take to begin the group.
const BEGINS_WITHIN: Duration = Duration::from_secs(15);
/// How often and how soon again the others are asked to come along; those who are not reached come by the rules of
/// groups that meet, some seconds later.
const CALLS: u32 = 5;
const CALL_WITHIN: Duration = Duration::from_secs(10);
const CALL_AGAIN: Duration = Duration::from_millis(300);
/// What people give on any of the desktops.
const COMMAND: &str = "gaggle recover";

impl Shell {
    /// The command was given on this desktop; the one with the newest view carries it out.
    pub(super) async fn recover_for_people(&mut self, order: RecoverOrder) {
        let members = self.membership.members().borrow().clone();
        let best = match self.few_are_here(&members) {
            Ok((_, best)) => best,
            Err(why) => {
                let _ = order.answer.send(Err(why));
                return;
            }
        };
        if best == self.me {
            let _ = order.answer.send(self.recover(&members, COMMAND).await);
            return;
        }
        let group = self.of.borrow().as_ref().map(|of| of.group.clone()).unwrap_or_default();
        let rpc = self.rpc.clone();
        tokio::spawn(async move {
            let done = match ask(&rpc, best, &Request::Recover { group }, BEGINS_WITHIN).await {
                Ok(Answer::Done(done)) => done,
                Ok(other) => Err(format!("{best}, which holds the newest state, would not: {other:?}")),
                Err(error) => Err(format!("{best}, which holds the newest state, does not answer: {error}")),
            };
            // Whoever asked may have given up.
            let _ = order.answer.send(done);
        });
    }

    /// People gave the command on another desktop, and this one holds the newest view.
    pub(super) async fn recover_for_peer(&mut self, group: &str) -> Answer {
        let of = self.of.borrow().clone();
        if of.is_none_or(|of| of.group != group) {
            return Answer::Done(Err("it has turned to another group meanwhile".into()));
        }
        let members = self.membership.members().borrow().clone();
        Answer::Done(self.recover(&members, COMMAND).await)
    }

    /// Their owners wish it so, after this long.
    pub(super) async fn go_on_alone(&mut self, members: &[Member]) {
        match self.recover(members, "--autonomy").await {
            Ok(done) => {
                tracing::warn!(done, "going on with less than half of the desktops, as --autonomy says")
            }
            Err(why) => tracing::debug!(why, "not going on alone"),
        }
    }

    /// Begins a group of its own with those who are here, because of what people said.
    async fn recover(&mut self, members: &[Member], said: &str) -> Result<String, String> {
        self.few_are_here(members)?;
        let old = self.of.borrow().clone().ok_or("this desktop is in no group")?;
        self.settle_on_best().await?;
        let known = self.best_known().ok_or("this desktop knows of no roster")?;
        let mut here = self.here(members);
        let others: BTreeSet<PeerId> =
            here.iter().filter_map(|peer| peer.parse().ok()).filter(|peer| *peer != self.me).collect();
        let me = self.me.to_string();
        here.retain(|peer| *peer == me || known.roster.names(peer));
        let missing = known.roster.members.difference(&here).cloned().collect();
        let count = Count { there: here.len(), of: known.roster.members.len() };
        let roster = Roster { members: here, before: None, evicted: known.roster.evicted };
        let write =
            Write::Put { key: Roster::key(), value: roster.object(), expect: Expect::Any, intent: None };
        // Nobody else writes this view: nobody is followed, and this node takes no part in any group.
        self.view.write(|store| store.apply(&write.into())).map_err(|refused| refused.to_string())?;
        let (id, epoch) = {
            let mut random = rand::rng();
            // Above what is kept, so that no revision of those who are left behind is taken for one of this group.
            let least = (known.position.revision.epoch() + 1).min(MAX_EPOCH / 2);
            (GroupId::from_random(random.random()), random.random_range(least..=MAX_EPOCH / 2))
        };
        tracing::warn!(group = %id, epoch, there = count.there, of = count.of, "going on with less than half of the desktops in a group of its own");
        let to = Lineage { group: id.to_string(), epoch };
        if !self.begin_group(id, epoch).await {
            return Err("the group could not be begun: the daemon's log says why".into());
        }
        let why = format!("{} of {} desktops go on by themselves ({said})", count.there, count.of);
        self.begun = Some(Begun { of: to.clone(), reason: "GroupFoundedApart", why, missing });
        for peer in others {
            let (rpc, request) = (self.rpc.clone(), Request::Join { from: old.clone(), to: to.clone() });
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    match ask(&rpc, peer, &request, CALL_WITHIN).await {
                        Ok(Answer::Done(Ok(_))) => return,
                        answer => tracing::info!(%peer, ?answer, "a desktop does not come along yet"),
                    }
                    tokio::time::sleep(CALL_AGAIN).await;
                }
            });
        }
        Ok(format!("{} of {} desktops go on in group {}", count.there, count.of, to.group))
    }

    /// How many are here, and who of them holds the newest view.
    fn few_are_here(&self, members: &[Member]) -> Result<(Count, PeerId), String> {
        if let Some(leader) = self.acting() {
            return Err(format!("the flock acts, with {leader} as its leader: there is nothing to recover"));
        }
        let known = self.best_known().ok_or("this desktop is in no group that it could go on with")?;
        let survivors = self.survivors(members);
        let me = self.me.to_string();
        let there = |peer: &str| peer == me || survivors.iter().any(|survivor| survivor.peer == peer);
        let count = known.roster.count(there);
        if known.roster.has_majority(there) {
            return Err(format!(
                "{} of {} desktops are here, more than half: they go on by themselves in some seconds",
                count.there, count.of
            ));
        }
        let others = survivors.iter().map(|survivor| (survivor.position, Reverse(survivor.peer.clone())));
        let best: Option<(Position, Reverse<String>)> = others.chain([(known.position, Reverse(me))]).max();
        let best = best.and_then(|(_, Reverse(peer))| peer.parse().ok()).unwrap_or(self.me);
        Ok((count, best))
    }

    /// A peer has begun a group of its own with those who are here, this node among them.
    pub(super) async fn join(&mut self, from: PeerId, old: &Lineage, to: Lineage) -> Answer {
        let of = self.of.borrow().clone();
        if of.as_ref() == Some(&to) {
            return Answer::Done(Ok(String::new()));
        }
        if of.is_none_or(|of| of.group != old.group) {
            return Answer::Done(Err("this desktop is of another group".into()));
        }
        if self.acting().is_some() {
            return Answer::Done(Err("this desktop's group acts".into()));
        }
        self.yield_to(to, "people decided that it goes on with those who are here".into()).await;
        self.told_by = Some(from);
        Answer::Done(Ok(String::new()))
    }
}
