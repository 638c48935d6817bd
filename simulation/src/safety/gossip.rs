//! Who is there, as each node hears it; and the way of every message to what handles it.

use super::message::Message;
use super::node::{Facts, Place, Role};
use super::world::World;
use gaggle_sched::electorate::assembly::Muster;
use std::rc::Rc;

const GOSSIP_EVERY_MS: u64 = 300;
/// Nothing new was heard of a node for this long, from anybody: it is dead.
const DEAD_AFTER_MS: u64 = 1_500;
/// It said nothing to this node itself for this long.
const UNREACHED_AFTER_MS: u64 = 1_000;

impl World<'_> {
    pub fn receive(&mut self, from: usize, node: usize, message: Message) {
        match message {
            Message::Gossip(all) => self.on_gossip(from, node, &all),
            Message::Append { lineage, term, head, commit } => {
                self.on_append(from, node, lineage, term, (head, commit));
            }
            Message::Appended { lineage, term, head } => self.on_appended(from, node, &lineage, term, head),
            Message::Vote { lineage, term, last } => self.on_vote(from, node, lineage, term, last),
            Message::Voted { lineage, term, granted } => self.on_voted(from, node, &lineage, term, granted),
            Message::Poll => self.on_poll(from, node),
            Message::Served { view, lineage, leader, voters } => {
                self.on_served(node, view, lineage, leader, voters);
            }
            Message::Lease { lineage, term, acting, holds, asked_ms } => {
                self.on_lease(from, node, (lineage, term), (acting, holds), asked_ms);
            }
            Message::Leased { lineage, term, asked_ms, noted } => {
                self.on_leased(from, node, (lineage, term), asked_ms, noted);
            }
            Message::Preview { number, ask } => {
                let answer = Some(self.would_pledge(node, from, &ask));
                self.send(node, from, Message::Answer { number, answer });
            }
            Message::Pledge { number, ask } => self.on_pledge(from, node, number, &ask),
            Message::Answer { number, answer } => self.on_answer(from, node, number, answer),
            Message::Evict(peer) => self.order_eviction(node, &peer),
            Message::Work(message) => self.receive_work(from, node, &message),
        }
    }

    pub fn gossip(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if now_ms < self.process(node).next.gossip_ms {
            return;
        }
        self.process(node).next.gossip_ms = now_ms + GOSSIP_EVERY_MS;
        let facts = Rc::new(self.my_facts(node));
        self.machines[node].said += 1;
        let version = self.machines[node].said;
        let process = self.process(node);
        process.known[node].facts = Some(facts);
        process.known[node].version = version;
        process.known[node].news_ms = now_ms;
        let all = process.known.iter().map(|known| (known.facts.clone(), known.version));
        let all = Rc::new(all.collect::<Vec<_>>());
        for peer in (0..self.plan.nodes).filter(|peer| *peer != node) {
            self.send(node, peer, Message::Gossip(all.clone()));
        }
    }

    fn on_gossip(&mut self, from: usize, node: usize, all: &[(Option<Rc<Facts>>, u64)]) {
        let now_ms = self.ms(node);
        let process = self.process(node);
        process.known[from].direct_ms = Some(now_ms);
        for (peer, (facts, version)) in all.iter().enumerate() {
            let known = &mut process.known[peer];
            if peer != node && *version > known.version {
                (known.facts, known.version, known.news_ms) = (facts.clone(), *version, now_ms);
            }
        }
    }

    fn my_facts(&self, node: usize) -> Facts {
        let machine = &self.machines[node];
        let process = machine.process.as_ref().expect("only a process gossips");
        let of = process.of.clone();
        let voters = self.voters(node);
        let role = match (&of, &process.role) {
            (None, _) => Place::None,
            (_, Role::Leader(_)) => Place::Leader,
            _ if voters.is_some_and(|voters| voters.names(node)) => Place::Voter,
            _ => Place::Follower,
        };
        let position = of.as_ref().map(|of| self.position_in(&of.group, process.view)).unwrap_or_default();
        let acting = self.acting(node);
        let counted = self.known_status(node).1.is_some_and(|voters| voters.names(node));
        Facts {
            position,
            role,
            members: self.count_members(node),
            acting: acting.is_some(),
            started_ms: process.started_ms,
            leaving: process.leaving_since_ms.is_some(),
            lost: counted && of.as_ref().is_some_and(|of| machine.disk.gave_up.contains(&**of)),
            could_act: process.muster != Muster::Few,
            of,
        }
    }

    pub fn is_alive(&self, node: usize, peer: usize) -> bool {
        let now_ms = self.ms(node);
        let known = self.machines[node].process.as_ref().map(|process| &process.known[peer]);
        known.is_some_and(|known| {
            peer == node || (known.facts.is_some() && now_ms.saturating_sub(known.news_ms) < DEAD_AFTER_MS)
        })
    }

    /// Whether messages pass in both directions, as a connection needs.
    pub fn is_connected(&self, node: usize, peer: usize) -> bool {
        let now_ms = self.ms(node);
        let known = self.machines[node].process.as_ref().map(|process| &process.known[peer]);
        let heard = known.and_then(|known| known.direct_ms);
        let cut = self.network.is_cut(node, peer);
        !cut && heard.is_some_and(|heard| now_ms.saturating_sub(heard) < UNREACHED_AFTER_MS)
    }
}
