//! What this node says of its place in the flock, to the daemon and to the other desktops, and what it writes down.

use super::{Shell, millis};
use crate::flock::{FlockStatus, Part};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{GroupFacts, Role as GossipRole};
use gaggle_sched::electorate::assembly::Muster;
use gaggle_sched::electorate::presence::LEASE_MS;
use gaggle_sched::electorate::roster::Count;
use gaggle_sched::raft::{self, Role};
use gaggle_sched::runner::Lead;
use gaggle_sched::state::{Lineage, Revision, View};
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::time::Instant;

/// What of the view is in its file.
pub(super) struct Saved {
    at: Instant,
    revision: Revision,
    lineage: Option<Lineage>,
}

impl Saved {
    /// What was read from the file when this node started.
    pub fn at_start(view: &View, now: Instant) -> Self {
        let (lineage, revision) = view.read(|store| (store.lineage().cloned(), store.revision()));
        Self { at: now, revision, lineage }
    }
}

/// A follower writes down what it has seen this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

impl Shell {
    /// The leader that acts for this node's group, if one was heard within a lease or is this node itself.
    pub(super) fn acting(&self) -> Option<PeerId> {
        let of = self.of.borrow().clone()?;
        if self.acts() {
            return Some(self.me);
        }
        let heard = self.promises.heard();
        let heard = heard.borrow();
        let heard = heard.as_ref().filter(|heard| heard.acting && heard.lineage == of && heard.is_recent());
        // What it said to itself may be older than what its leases say now.
        heard.map(|heard| heard.peer).filter(|peer| *peer != self.me)
    }

    /// Whether this node itself leads its group and may act.
    pub(super) fn acts(&self) -> bool {
        let leading = self.leases.leading();
        let leading = leading.borrow();
        let of = self.of.borrow();
        leading.acts && leading.of.as_ref().map(|(lineage, _)| lineage) == of.as_ref()
    }

    /// How many stand behind the leader, or are here while there is none.
    fn count(&self) -> Option<Count> {
        let leading = self.leases.leading();
        if let Some(count) = leading.borrow().count {
            return Some(count);
        }
        let heard = self.promises.heard();
        let heard = heard.borrow();
        let of = self.of.borrow();
        let heard = heard.as_ref().filter(|heard| Some(&heard.lineage) == of.as_ref() && heard.is_recent());
        heard.map(|heard| heard.count).or(self.founding.here)
    }

    /// What is waited for, for people; empty while the group acts.
    fn waits_for(&self, known: Option<&raft::Status>, count: Option<Count>, acts: bool) -> String {
        if let Some(failed) = known.and_then(|known| known.failed.as_ref()) {
            return format!("this node's part in the group failed: {failed}");
        }
        if acts || !self.why.is_empty() {
            return self.why.clone();
        }
        if !self.founding.why.is_empty() {
            return self.founding.why.clone();
        }
        let leads = known.is_some_and(|known| known.leader.is_some());
        match count {
            // A leader that has just begun has not been answered yet.
            Some(count)
                if leads && count.there * 2 <= count.of && millis(self.without_quorum_since) > LEASE_MS =>
            {
                format!("{} of {} desktops are here: more than half are needed", count.there, count.of)
            }
            _ if leads => "the leader gathers the desktops behind it".into(),
            _ if known.is_some() => "a leader is being elected, or waited for".into(),
            _ => "looking for the others of this group".into(),
        }
    }

    pub(super) fn publish(&mut self) {
        let me = self.me.to_string();
        let own = self.own_status();
        let known = self.known();
        let part = match &own {
            Some(own) if own.role == Role::Leader => Part::Leader,
            Some(own) if own.voters.contains(&me) => Part::Voter,
            _ => Part::Follower,
        };
        let acting = self.acting();
        let count = self.count();
        let of = self.of.borrow().clone();
        let (there, roster) = count.map_or((0, 0), |count| (count.there, count.of));
        let why = self.waits_for(known.as_ref(), count, acting.is_some());
        let peer = |name: &String| PeerId::from_str(name).ok();
        let leader = known.as_ref().and_then(|known| known.leader.as_ref()).and_then(peer).or(acting);
        let status = match (&of, known) {
            (Some(of), Some(known)) => FlockStatus {
                group: of.group.clone(),
                epoch: known.epoch,
                term: known.term,
                leader,
                voters: known.voters.iter().filter_map(peer).collect(),
                part,
                quorum: acting.is_some() && leader.is_some(),
                there,
                roster,
                current: known.leader.is_some() && self.view.read(|store| store.lineage() == Some(of)),
                why,
            },
            (Some(of), None) => FlockStatus {
                group: of.group.clone(),
                epoch: of.epoch,
                part,
                there,
                roster,
                why: match &self.unfollowed {
                    Some(why) => format!("no voter of group {} can be followed: {why}", of.group),
                    None => why,
                },
                ..FlockStatus::default()
            },
            (None, _) => FlockStatus { why: self.why.clone(), ..FlockStatus::default() },
        };
        let status = match &self.trouble {
            Some(trouble) => FlockStatus { why: trouble.clone(), ..status },
            None => status,
        };
        let acts = self.acts();
        // Who is about to yield begins nothing any more: pods of the other group's objects would run twice for a moment, and what
        // ran there all along could be what is then too much.
        let acts_on = acts && self.contest.is_none();
        let lead = own.filter(|own| acts_on && own.role == Role::Leader && own.quorum).map(|own| Lead {
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
            revision_term: self.view.read(gaggle_sched::state::Store::term),
            role: match (&of, part) {
                (None, _) => GossipRole::None,
                (_, Part::Leader) => GossipRole::Leader,
                (_, Part::Voter) => GossipRole::Voter,
                (_, Part::Follower) => GossipRole::Follower,
            },
            leader: status.leader.map(|leader| leader.to_string()),
            members: self.roster() as u32,
            quorum: status.quorum,
            lost: self.lost(),
            could_act: self.muster != Muster::Few,
        });
        self.status.send_if_modified(|now| std::mem::replace(now, status.clone()) != status);
    }

    /// A follower writes down what it has seen; a voter's log is its memory.
    pub(super) fn save(&mut self) {
        let (lineage, revision) = self.view.read(|store| (store.lineage().cloned(), store.revision()));
        let Saved { at, revision: saved, lineage: of } = &self.saved;
        // Of a group that it has just come to follow it notes at once that it is of it.
        let soon_enough = at.elapsed() < SAVE_EVERY && *of == lineage;
        if soon_enough || *saved == revision || self.part.borrow().is_some() {
            return;
        }
        self.saved = Saved { at: Instant::now(), revision, lineage };
        let (path, view, file) = (self.config.view.clone(), self.view.clone(), self.view_file.clone());
        tokio::task::spawn_blocking(move || {
            let _alone = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = raft::save_view(&path, &view) {
                tracing::warn!(%error, "the view could not be saved");
            }
        });
    }

    /// Brings the view to the disk.
    pub(super) async fn save_now(&self) -> Result<(), String> {
        let (path, view, file) = (self.config.view.clone(), self.view.clone(), self.view_file.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let _alone = file.lock().unwrap_or_else(PoisonError::into_inner);
            raft::save_view(&path, &view)
        });
        let saved = saved.await;
        let saved = saved.map_err(|error| error.to_string())?;
        saved.map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }
}
