//! What this node says of its place in the flock, to the daemon and to the other desktops, and what it writes down.

use super::Shell;
use crate::flock::{FlockStatus, Part};
use gaggle_gossip::PeerId;
use gaggle_gossip::membership::{GroupFacts, Role as GossipRole};
use gaggle_sched::raft::{self, Role};
use gaggle_sched::runner::Lead;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;

/// A follower writes down what it has seen this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

impl Shell {
    pub(super) fn publish(&mut self) {
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
                    true => match &self.unfollowed {
                        Some(why) => format!("no voter of group {} can be followed: {why}", of.group),
                        None => format!("no voter of group {} can be reached", of.group),
                    },
                    false => self.why.clone(),
                },
                ..FlockStatus::default()
            },
            (None, _) => FlockStatus { why: self.why.clone(), ..FlockStatus::default() },
        };
        let status = match &self.trouble {
            Some(trouble) => FlockStatus { why: trouble.clone(), ..status },
            None => status,
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
            lost: self.lost(),
        });
        self.status.send_if_modified(|now| std::mem::replace(now, status.clone()) != status);
    }

    /// A follower writes down what it has seen; a voter's log is its memory.
    pub(super) fn save(&mut self) {
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
}
