//! The agent: the real planner of pods over an engine in memory. The loop around it is that of the daemon's `agent::shell`.

use super::engine::{Engine, owner};
use super::propose::Purpose;
use super::{Bend, Later, objects};
use crate::safety::MS;
use crate::safety::world::{World, name};
use gaggle::agent::engine::{Image, RunState};
use gaggle::agent::hold::{Heard, May, slept};
use gaggle::agent::identity::{Attempt, Observed, PodId, Role, attempt_of};
use gaggle::agent::offer::{self, OWNER_APPEARS_WITHIN, Offer};
use gaggle::agent::planner::{self, Action, ImageIndex, Input, Memory};
use gaggle::agent::spec::{Context, Desktop};
use gaggle_sched::controller::deletion;
use gaggle_sched::controller::identity::is_single;
use gaggle_sched::state::{Key, Object, Revision, Seen, Store, Txn, Write};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

const FIRST_RETRY_MS: u64 = 200;
const LONGEST_RETRY_MS: u64 = 5_000;
const ASK_AGAIN_MS: u64 = 1_000;

static IMAGES: LazyLock<ImageIndex> = LazyLock::new(|| {
    let names = vec![objects::IMAGE.to_owned()];
    ImageIndex::new(&[Image { id: "sha256:1".into(), names, digests: Vec::new(), bytes: 1 }])
});

/// A pod as the loop keeps it.
struct Entry {
    id: PodId,
    wanted: Option<(Arc<Object>, Arc<Pod>)>,
    attempt: Attempt,
    memory: Memory,
    busy: bool,
    wake_at: Option<Timestamp>,
    forgotten: bool,
    flying: bool,
    refusals: u32,
    retry_ms: u64,
    of_group: Option<String>,
    offered: Option<(Arc<Object>, Timestamp)>,
}

pub struct Agent {
    entries: BTreeMap<String, Entry>,
    dirty: BTreeSet<String>,
    seen: Option<Seen>,
    pub hold: Heard,
    confirming: bool,
    ask_at_ms: u64,
    looked_ms: u64,
    over: bool,
    had_singles: bool,
    was_current: bool,
    linked: bool,
    desktop: Desktop,
}

impl Agent {
    pub fn new(now_ms: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            seen: None,
            hold: Heard { started_ms: now_ms, ..Heard::default() },
            confirming: false,
            ask_at_ms: 0,
            looked_ms: now_ms,
            over: true,
            had_singles: false,
            was_current: false,
            linked: false,
            desktop: Desktop::default(),
        }
    }

    pub fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        self.entries.get(uid)?.wanted.as_ref().map(|(_, pod)| pod.clone())
    }

    pub fn ended(&mut self, observed: &Observed) {
        let uid = &observed.pod.uid;
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.memory.ended(observed);
            self.dirty.insert(uid.clone());
        }
    }

    pub fn gone(&mut self, uid: &str, id: &str) {
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.memory.gone(id);
            self.dirty.insert(uid.to_owned());
        }
    }
}

impl Entry {
    fn new(id: PodId, now: Timestamp) -> Self {
        Self {
            id,
            wanted: None,
            attempt: Attempt::default(),
            memory: Memory::new(now),
            busy: false,
            wake_at: None,
            forgotten: false,
            flying: false,
            refusals: 0,
            retry_ms: 0,
            of_group: None,
            offered: None,
        }
    }

    fn is_single(&self, engine: &Engine) -> bool {
        engine.of_pod(&self.id.uid).any(|container| container.single)
            || self.wanted.as_ref().is_some_and(|(_, pod)| is_single(pod))
    }

    fn key(&self) -> Key {
        Key::of::<Pod>(self.id.namespace.clone(), self.id.name.clone())
    }
}

fn retry_after_ms(refusals: u32) -> u64 {
    FIRST_RETRY_MS.saturating_mul(1 << refusals.min(8)).min(LONGEST_RETRY_MS)
}

impl World<'_> {
    pub fn tick_agent(&mut self, node: usize) {
        if !self.work.life(node).agent.linked {
            self.link_engine(node);
        }
        self.follow_view(node);
        self.heed_the_hold(node);
        self.wake_entries(node);
        for uid in std::mem::take(&mut self.work.life(node).agent.dirty) {
            self.settle_entry(node, &uid);
        }
        self.check_identities_of(node);
    }

    /// What the engine has when the daemon starts.
    fn link_engine(&mut self, node: usize) {
        let now = self.work.wall(node, self.queue.now());
        let desk = &mut self.work.desks[node];
        let Some(life) = &mut desk.life else { return };
        life.agent.linked = true;
        for container in desk.engine.containers.values() {
            let uid = container.pod.uid.clone();
            let entry = life.agent.entries.entry(uid.clone());
            let entry = entry.or_insert_with(|| Entry::new(container.pod.clone(), now));
            entry.attempt = entry.attempt.max(container.attempt);
            life.agent.dirty.insert(uid);
        }
    }

    fn is_current(&self, node: usize) -> bool {
        let of = self.machines[node].process.as_ref().and_then(|process| process.of.as_deref());
        let life = self.work.desks[node].life.as_ref();
        self.known_status(node).0.is_some() && of.is_some() && life.and_then(|l| l.store.lineage()) == of
    }

    fn follow_view(&mut self, node: usize) {
        let current = self.is_current(node);
        let me = name(node);
        let life = self.work.life(node);
        let seen = life.agent.seen;
        let all = life.agent.was_current != current;
        life.agent.was_current = current;
        let changes = seen.map(|seen| life.store.changes_since(seen));
        let Some(Ok(changes)) = changes.filter(|_| !all) else { return self.look(node, true) };
        let mut look = false;
        for change in &changes {
            life.agent.seen = Some(Seen { revision: change.revision, ..life.store.seen() });
            match change.key.resource.as_str() {
                "pods" => {
                    let bound = change.object.as_ref().and_then(|pod| pod.value().pointer("/spec/nodeName"));
                    let here = bound.and_then(|node| node.as_str()) == Some(&me);
                    let known = life.agent.entries.values();
                    look |= here || known.into_iter().any(|entry| entry.id.name == change.key.name);
                }
                "nodes" | "replicasets.apps" => {
                    let waiting = life.agent.entries.iter().filter(|(_, entry)| entry.offered.is_some());
                    let waiting: Vec<String> = waiting.map(|(uid, _)| uid.clone()).collect();
                    life.agent.dirty.extend(waiting);
                    look |= change.key.name == me;
                }
                _ => {}
            }
        }
        if look {
            self.look(node, false);
        }
    }

    fn knows_all_wanted(&self, node: usize) -> bool {
        let life = self.work.desks[node].life.as_ref();
        self.is_current(node) && life.is_some_and(|life| life.agent.hold.ever)
    }

    /// Brings the entries in line with the pods that the view has on this node.
    fn look(&mut self, node: usize, everything: bool) {
        let knows_all = self.knows_all_wanted(node);
        let now = self.work.wall(node, self.queue.now());
        let any_attempt = self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::AnyAttempt);
        let me = name(node);
        let life = self.work.life(node);
        let (store, agent) = (&life.store, &mut life.agent);
        if everything {
            agent.seen = Some(store.seen());
            agent.dirty.extend(agent.entries.keys().cloned());
        }
        agent.desktop.host_ips = host_ips(store, &me);
        let group = store.lineage().map(|lineage| lineage.group.clone());
        let objects: Vec<Arc<Object>> =
            store.on_node(&me).filter_map(|key| store.get(key).cloned()).collect();
        let mut present = BTreeSet::new();
        for object in objects {
            let Some(pod) = object.typed::<Pod>() else { continue };
            let id = PodId::of(&pod);
            present.insert(id.uid.clone());
            let entry = agent.entries.entry(id.uid.clone()).or_insert_with(|| Entry::new(id.clone(), now));
            let attempt = attempt_of(&pod);
            if attempt < entry.attempt && !any_attempt {
                continue;
            }
            let same = entry.wanted.as_ref().is_some_and(|(known, _)| known.revision() == object.revision());
            entry.of_group.clone_from(&group);
            entry.offered = None;
            if !same {
                entry.attempt = attempt;
                entry.wanted = Some((object, pod));
                agent.dirty.insert(id.uid);
            }
        }
        if !knows_all {
            return;
        }
        for (uid, entry) in &mut agent.entries {
            if present.contains(uid) {
                continue;
            }
            let was = entry.wanted.take().filter(|_| entry.of_group != group);
            if let (Some((was, _)), Ok(until)) = (was, now.checked_add(OWNER_APPEARS_WITHIN)) {
                entry.offered = Some((was, until));
            }
            agent.dirty.insert(uid.clone());
        }
    }

    fn heed_the_hold(&mut self, node: usize) {
        let now_ms = self.ms(node);
        let ignored = self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::NoHold);
        let super::desk::Desk { engine, life: Some(life), .. } = &mut self.work.desks[node] else { return };
        let agent = &mut life.agent;
        let singles: Vec<String> = agent
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_single(engine))
            .map(|(uid, _)| uid.clone())
            .collect();
        if ignored {
            agent.hold.at_ms = now_ms;
            agent.looked_ms = now_ms;
            agent.hold.confirmed = agent.hold.ever;
        }
        let slept = slept(agent.looked_ms, now_ms) && agent.had_singles;
        (agent.looked_ms, agent.had_singles) = (now_ms, !singles.is_empty());
        let over = agent.hold.is_over(now_ms) || slept;
        if over {
            agent.hold.confirmed = false;
        }
        if over != agent.over || slept {
            agent.over = over;
            agent.dirty.extend(singles.iter().cloned());
        }
        let asks = !agent.confirming
            && now_ms >= agent.ask_at_ms
            && agent.hold.wants_confirmation(!singles.is_empty(), now_ms);
        if asks {
            agent.ask_at_ms = now_ms + ASK_AGAIN_MS;
            agent.confirming = true;
        }
        if slept {
            for uid in &singles {
                self.stop_running(node, uid);
            }
        }
        if asks {
            self.propose(node, Txn::default(), Purpose::Confirm(now_ms));
        }
    }

    /// The group has ordered something that was asked for at that moment.
    pub fn confirmed_by_group(&mut self, node: usize, asked_ms: u64, revision: Option<Revision>) {
        let now_ms = self.ms(node);
        let life = self.work.life(node);
        life.agent.confirming = false;
        if revision.is_some_and(|revision| life.store.revision() >= revision) {
            life.agent.hold.confirm(asked_ms, now_ms);
            self.look(node, true);
        }
    }

    /// A leader that acts has this node's last answer.
    pub fn work_led(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if let Some(Some(life)) = self.work.desks.get_mut(node).map(|desk| &mut desk.life) {
            life.agent.hold.at_ms = now_ms;
        }
    }

    fn wake_entries(&mut self, node: usize) {
        let (now, now_ms) = (self.work.wall(node, self.queue.now()), self.ms(node));
        let agent = &mut self.work.life(node).agent;
        for (uid, entry) in &mut agent.entries {
            let planned = entry.wake_at.is_some_and(|at| at <= now);
            let rested = entry.retry_ms != 0 && entry.retry_ms <= now_ms;
            if planned {
                entry.wake_at = None;
            }
            if rested {
                entry.retry_ms = 0;
            }
            if planned || rested {
                agent.dirty.insert(uid.clone());
            }
        }
    }

    fn settle_entry(&mut self, node: usize, uid: &str) {
        let knows_all = self.knows_all_wanted(node);
        let Some(entry) = self.work.life(node).agent.entries.get(uid) else { return };
        match &entry.wanted {
            Some((_, pod)) => {
                let older = attempt_of(pod) < entry.attempt;
                match older {
                    true => self.settle_held(node, uid),
                    false => self.settle_pod(node, uid),
                }
            }
            None if knows_all => self.settle_orphan(node, uid),
            None => self.settle_held(node, uid),
        }
    }

    fn settle_pod(&mut self, node: usize, uid: &str) {
        let (now, now_ms) = (self.work.wall(node, self.queue.now()), self.ms(node));
        let super::desk::Desk { engine, life: Some(life), .. } = &mut self.work.desks[node] else { return };
        let (store, agent) = (&life.store, &mut life.agent);
        let Some(entry) = agent.entries.get_mut(uid) else { return };
        let Some((_, pod)) = entry.wanted.clone() else { return };
        let may = agent.hold.may(entry.is_single(engine), now_ms);
        let observed: Vec<Observed> = engine.of_pod(uid).cloned().collect();
        let sandboxes = observed.iter().filter(|o| o.role == Role::Sandbox && o.is_running());
        let pod_ips = sandboxes.max_by_key(|o| o.restart_count).map(|o| o.ips.clone()).unwrap_or_default();
        let plan = planner::plan(&Input {
            context: Context {
                pod: &pod,
                store,
                owner: &owner(node),
                desktop: &agent.desktop,
                pod_ips: &pod_ips,
                dir: Path::new("/pods"),
            },
            observed: &observed,
            memory: &entry.memory,
            images: &IMAGES,
            may,
            now,
        });
        entry.memory.status = Some(plan.status);
        entry.wake_at = plan.wake_at;
        self.act(node, uid, plan.actions);
        self.report(node, uid);
    }

    /// Containers of which the view knows nothing yet.
    fn settle_held(&mut self, node: usize, uid: &str) {
        let now_ms = self.ms(node);
        let super::desk::Desk { engine, life: Some(life), .. } = &self.work.desks[node] else { return };
        let Some(entry) = life.agent.entries.get(uid) else { return };
        if entry.is_single(engine) && life.agent.hold.may(true, now_ms) == May::Stop {
            self.stop_running(node, uid);
        }
    }

    fn stop_running(&mut self, node: usize, uid: &str) {
        let super::desk::Desk { engine, life: Some(life), .. } = &self.work.desks[node] else { return };
        let Some(entry) = life.agent.entries.get(uid) else { return };
        let running = engine.of_pod(uid).filter(|container| container.is_running());
        let mut actions = planner::clear_away(running, &entry.memory);
        actions.retain(|action| matches!(action, Action::Stop { .. }));
        self.act(node, uid, actions);
    }

    fn settle_orphan(&mut self, node: usize, uid: &str) {
        let (now, now_ms) = (self.work.wall(node, self.queue.now()), self.ms(node));
        let super::desk::Desk { engine, life: Some(life), .. } = &mut self.work.desks[node] else { return };
        let agent = &mut life.agent;
        let Some(entry) = agent.entries.get_mut(uid) else { return };
        if entry.busy || entry.flying {
            return;
        }
        let empty = engine.of_pod(uid).next().is_none();
        if let Some((last, until)) = entry.offered.clone().filter(|_| !empty) {
            let made = offer::offer(&life.store, &last, entry.memory.status.as_ref(), &owner(node));
            if made != Offer::Never && now < until {
                entry.wake_at = Some(until);
                if let Offer::Make(write) = made
                    && entry.retry_ms <= now_ms
                {
                    entry.flying = true;
                    self.stats.offered += 1;
                    self.propose(node, (*write).into(), Purpose::Status(uid.to_owned()));
                }
                return;
            }
            entry.offered = None;
        }
        if empty {
            agent.entries.remove(uid);
            return;
        }
        let actions = planner::clear_away(engine.of_pod(uid), &entry.memory);
        self.act(node, uid, actions);
    }

    fn act(&mut self, node: usize, uid: &str, actions: Vec<Action>) {
        let now = self.work.wall(node, self.queue.now());
        let crashes = self.machines[node].crashes;
        let mut in_order = Vec::new();
        for action in actions {
            match action {
                Action::Stop { id, grace, .. } => {
                    let upto = (grace.as_millis() as u64).min(2_000) + 100;
                    let takes = self.work.random().within(10, upto);
                    let Some(entry) = self.work.life(node).agent.entries.get_mut(uid) else { return };
                    if grace.is_zero() {
                        entry.memory.killing.insert(id.clone());
                    }
                    let until = now.checked_add(grace).unwrap_or(Timestamp::MAX);
                    entry.memory.stopping.insert(id.clone(), until);
                    self.later(takes * MS, Later::Ends { node, crashes, id, code: 143 });
                }
                Action::Pull { .. } => {}
                other => in_order.push(other),
            }
        }
        let Some(entry) = self.work.life(node).agent.entries.get_mut(uid) else { return };
        in_order.retain(|action| !matches!(action, Action::Forget) || !entry.forgotten);
        if in_order.is_empty() || entry.busy {
            return;
        }
        entry.busy = true;
        for action in &in_order {
            if let Action::StartContainer { name, restart_count, .. } = action {
                self.remember_start(node, uid, name, *restart_count);
            }
        }
        let takes = self.work.random().within(5, 80);
        let (group, uid) = (self.group_in_view(node), uid.to_owned());
        self.later(takes * MS, Later::Performs { node, crashes, group, uid, actions: in_order });
    }

    /// Counts a restart, for the wait before the next one.
    fn remember_start(&mut self, node: usize, uid: &str, container: &str, restart_count: u32) {
        let role = Role::Container(container.to_owned());
        let super::desk::Desk { engine, life: Some(life), .. } = &mut self.work.desks[node] else { return };
        let Some(entry) = life.agent.entries.get_mut(uid) else { return };
        let before = engine.of_pod(uid).filter(|container| container.role == role);
        let ran = before.max_by_key(|container| container.restart_count).and_then(|c| match &c.state {
            RunState::Exited(exit) => exit.finished_at.duration_since(exit.started_at?).try_into().ok(),
            _ => None,
        });
        entry.memory.restarted(container, restart_count, ran);
        entry.memory.made(None);
    }

    /// A task does a pod's actions.
    pub fn perform(&mut self, node: usize, group: &str, uid: &str, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::StartSandbox { spec } => {
                    if let Some(id) = self.work.desks[node].engine.create(node, &spec) {
                        self.start_container(node, group, &id);
                    }
                }
                Action::StartContainer { name, spec, .. } => {
                    let now_ms = self.ms(node);
                    let desk = &mut self.work.desks[node];
                    let Some(id) = desk.engine.create(node, &spec) else { continue };
                    let single = desk.engine.containers.get(&id).is_some_and(|container| container.single);
                    let Some(life) = &mut desk.life else { continue };
                    // What may run elsewhere by now is not started.
                    if single && life.agent.hold.may(true, now_ms) != May::Run {
                        continue;
                    }
                    if let Some(entry) = life.agent.entries.get_mut(uid) {
                        entry.memory.made(Some(&name));
                    }
                    self.start_container(node, group, &id);
                }
                Action::Remove { id, .. } => self.remove_container(node, &id),
                Action::Forget => {
                    if let Some(entry) = self.entry(node, uid) {
                        entry.forgotten = true;
                        entry.memory.is_over();
                    }
                }
                Action::Pull { .. } | Action::Stop { .. } => {}
            }
        }
        if let Some(entry) = self.entry(node, uid) {
            entry.busy = false;
            self.work.life(node).agent.dirty.insert(uid.to_owned());
        }
    }

    fn entry(&mut self, node: usize, uid: &str) -> Option<&mut Entry> {
        self.work.desks[node].life.as_mut()?.agent.entries.get_mut(uid)
    }

    /// Sends a pod's status, or its removal, if the view does not show it yet and nothing of it is under way.
    fn report(&mut self, node: usize, uid: &str) {
        let now_ms = self.ms(node);
        let life = self.work.life(node);
        let Some(entry) = life.agent.entries.get_mut(uid) else { return };
        if entry.flying || entry.retry_ms > now_ms {
            return;
        }
        let key = entry.key();
        let Some(shown) = life.store.get(&key).filter(|shown| shown.uid() == uid) else { return };
        let mut writes = Vec::new();
        let noted = shown.typed::<Pod>().and_then(|pod| pod.status.clone());
        let status = entry.memory.status.clone().map(|status| planner::with_others(status, noted.as_ref()));
        let status = status.and_then(|status| serde_json::to_value(status).ok());
        if let Some(status) = status
            && shown.value().get("status") != Some(&status)
        {
            let (uid, seen) = (uid.to_owned(), Some(shown.revision()));
            writes.push(Write::Status { key: key.clone(), uid, status, seen });
        }
        if entry.forgotten
            && let Some(removal @ Write::Delete { .. }) = deletion::finish(&key, shown)
        {
            writes.push(removal);
        }
        if !writes.is_empty() {
            entry.flying = true;
            self.propose(node, Txn::from(writes), Purpose::Status(uid.to_owned()));
        }
    }

    pub fn report_answered(&mut self, node: usize, uid: &str, answered: bool) {
        let now_ms = self.ms(node);
        if let Some(entry) = self.entry(node, uid) {
            entry.flying = false;
            if answered {
                entry.refusals = 0;
            } else {
                entry.retry_ms = now_ms + retry_after_ms(entry.refusals);
                entry.refusals = entry.refusals.saturating_add(1);
            }
            self.work.life(node).agent.dirty.insert(uid.to_owned());
        }
    }
}

fn host_ips(store: &Store, me: &str) -> Vec<String> {
    let Some(node) = store.get_as::<Node>("", me) else { return Vec::new() };
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == "InternalIP").map(|address| address.address.clone()).collect()
}
