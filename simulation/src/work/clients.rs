//! Clients of the API: what they ask of random desktops, and how the desktop answers. As `api::commit` and
//! `flock::FlockDocuments` do it.

use super::objects::{self, Kind};
use super::propose::{Purpose, Unavailable};
use super::record::{Did, Op, Outcome, field_of};
use super::{Bend, Later, Message, documents};
use crate::safety::world::{World, name};
use gaggle::documents::wish_of;
use gaggle::flock::adoption::{agree, doc_key, noted};
use gaggle_gossip::intent::{KubernetesLists, PrepareError, Wanted, replica};
use gaggle_sched::state::{Adopted, Applied, Expect, Refused, Txn, Write};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CATCH_UP_MS: u64 = 3_000;
const TRIES: u32 = 5;
const QUORUM_PATIENCE_MS: u64 = 2_500;
const FIELDS: [&str; 3] = ["first", "second", "third"];
/// Names that clients on two sides may both take.
const SHARED_NAMES: u64 = 4;

/// What a desktop is asked and has not answered.
pub struct Request {
    op: usize,
    stage: Stage,
    tries: u32,
    /// It was sent again, since an answer was lost.
    lost: bool,
    until_ms: u64,
    /// What was proposed.
    adopted: Option<Adopted>,
    scale: Option<u64>,
    /// A new object.
    made: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    CatchingUp,
    Ordering,
}

impl World<'_> {
    pub fn some_client_writes(&mut self) {
        let Some(load) = &self.plan.work else { return };
        let (every, now) = (load.every, self.queue.now());
        if now >= self.plan.until || self.work.record.ops.len() >= load.writes {
            return;
        }
        let wait = self.work.random().within(every / 4, every * 7 / 4);
        self.later(wait, Later::Writes);
        let node = self.work.random().below(self.plan.nodes);
        if self.machines[node].acts() && self.work.desks[node].life.is_some() {
            self.ask(node);
        }
    }

    fn ask(&mut self, node: usize) {
        let now = self.queue.now();
        let number = self.work.record.ops.len();
        let shown: Vec<(Kind, String)> = {
            let store = &self.work.life(node).store;
            let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::Job, Kind::ConfigMap];
            let of = |kind: Kind| {
                let keys = store.list(&kind.key("").resource, Some(objects::NAMESPACE));
                keys.map(move |(key, _)| (kind, key.name)).collect::<Vec<_>>()
            };
            kinds.into_iter().flat_map(of).collect()
        };
        let random = self.work.random();
        let (mut fields, mut scale, mut made) = (BTreeMap::new(), None, None);
        let creates = shown.is_empty() || random.permille(300);
        let (key, what) = if creates {
            let kinds = [
                Kind::Deployment,
                Kind::StatefulSet,
                Kind::Job,
                Kind::IndexedJob,
                Kind::ConfigMap,
                Kind::ConfigMap,
            ];
            let kind = *random.pick(&kinds);
            let shared = random.permille(150);
            let name = match (kind, shared) {
                (Kind::ConfigMap | Kind::Deployment, true) => {
                    format!("shared-{}", random.within(0, SHARED_NAMES))
                }
                _ => format!("{}-{number}", format!("{kind:?}").to_lowercase()),
            };
            let uid = format!("{:08x}-0000-4000-8000-{:012x}", random.draw() as u32, number);
            let born = self.work.time(node, now).0.to_string();
            made = Some(objects::object(kind, &name, &uid, &born, self.work.random()));
            (kind.key(&name), Did::Create)
        } else {
            let (kind, name) = random.pick(&shown).clone();
            match random.permille(100) {
                true => (kind.key(&name), Did::Delete),
                false => {
                    if matches!(kind, Kind::Deployment | Kind::StatefulSet) && random.permille(400) {
                        scale = Some(random.within(0, 5));
                    }
                    (kind.key(&name), Did::Edit)
                }
            }
        };
        if what != Did::Delete {
            let field = *self.work.random().pick(&FIELDS);
            fields.insert(field, format!("w{number}"));
        }
        self.note(node, || format!("is asked: {what:?} {key} {fields:?} {scale:?}"));
        let (saw, outcome, holders) = (BTreeMap::new(), Outcome::Open, Vec::new());
        self.work.record.ops.push(Op { node, key, what, fields, saw, outcome, holders });
        let until_ms = self.ms(node) + CATCH_UP_MS;
        let request = Request {
            op: number,
            stage: Stage::CatchingUp,
            tries: 0,
            lost: false,
            until_ms,
            adopted: None,
            scale,
            made,
        };
        self.work.life(node).requests.push(request);
    }

    pub fn tick_requests(&mut self, node: usize) {
        let now_ms = self.ms(node);
        if self.acting(node).is_some() && self.known_status(node).0.or(self.acting(node)).is_some() {
            self.work.life(node).quorum_until_ms = now_ms + QUORUM_PATIENCE_MS;
        }
        let waiting = std::mem::take(&mut self.work.life(node).requests);
        for request in waiting {
            if request.stage == Stage::CatchingUp
                && (self.has_caught_up(node, &request) || now_ms >= request.until_ms)
            {
                self.attempt(node, request);
            } else {
                self.work.life(node).requests.push(request);
            }
        }
    }

    fn has_quorum(&mut self, node: usize) -> bool {
        self.ms(node) < self.work.life(node).quorum_until_ms
    }

    /// The document and the object are of one mind.
    fn has_caught_up(&mut self, node: usize, request: &Request) -> bool {
        let quorum = self.has_quorum(node);
        let key = &self.work.record.ops[request.op].key;
        let super::desk::Desk { documents, life: Some(life), .. } = &self.work.desks[node] else {
            return false;
        };
        let (adopted, held) = (life.store.adopted(key), documents.get(&doc_key(key)));
        let covers = adopted.is_none_or(|adopted| replica::beyond(held, adopted).is_some());
        agree(covers, quorum, &documents::said(held), adopted)
    }

    /// Computes the write from what the view shows, and brings it into order or keeps it.
    fn attempt(&mut self, node: usize, mut request: Request) {
        let quorum = self.has_quorum(node);
        let op = &self.work.record.ops[request.op];
        let (key, what, fields) = (op.key.clone(), op.what, op.fields.clone());
        let current = self.work.life(node).store.get(&key).cloned();
        let base = current.as_ref().map(|object| object.value().clone());
        let terminating = current.as_ref().is_some_and(|object| object.is_terminating());
        let object = match (what, &base) {
            (Did::Create, None) => request.made.clone().map(|made| edited(made, &fields, None)),
            (Did::Edit, Some(base)) if !terminating => Some(edited(base.clone(), &fields, request.scale)),
            (Did::Delete, Some(_)) => None,
            _ => return self.end_request(node, request.op, request.refused()),
        };
        let wish = object.as_ref().map(wish_of);
        if !quorum {
            return self.keep_unordered(node, request, base, wish);
        }
        let Some(adopted) = self.prepare(node, &request, &Wanted::Whole(wish)) else {
            return self.end_request(node, request.op, Outcome::Failed);
        };
        let expect = match &current {
            None => Expect::Absent,
            Some(object) => Expect::Revision(object.revision()),
        };
        let write = match object {
            Some(value) => Write::Put { key, value, expect, intent: Some(adopted.clone()) },
            None => Write::Delete { key, expect, intent: Some(adopted.clone()) },
        };
        let saw = base.as_ref().map(|base| seen(base, &fields)).unwrap_or_default();
        self.work.record.ops[request.op].saw = saw;
        let op = request.op;
        (request.stage, request.adopted) = (Stage::Ordering, Some(adopted));
        request.tries += 1;
        self.work.life(node).requests.push(request);
        self.propose(node, Txn::from(write), Purpose::Request(op));
    }

    fn prepare(&mut self, node: usize, request: &Request, wanted: &Wanted) -> Option<Adopted> {
        let now_ms = documents::now_ms(self.queue.now());
        let key = &self.work.record.ops[request.op].key;
        let super::desk::Desk { documents, life, .. } = &self.work.desks[node];
        let noted = life.as_ref().and_then(|life| noted(&life.store, key));
        let held = documents.get(&doc_key(key));
        match replica::prepare(held, &name(node), wanted, noted.as_ref(), &KubernetesLists, now_ms) {
            Ok(change) => Some(documents::adopted(change)),
            // What no client ever wrote leaves nothing to take back.
            Err(PrepareError::Missing) => Some(Adopted { change: Vec::new(), heads: Vec::new(), base: None }),
            Err(_) => None,
        }
    }

    /// Where nobody orders the write, it goes into this desktop's documents.
    fn keep_unordered(&mut self, node: usize, request: Request, base: Option<Value>, wish: Option<Value>) {
        let wanted = match (base.as_ref().map(wish_of), wish) {
            (Some(before), Some(after)) => Wanted::Edit { before, after },
            (None, Some(made)) => Wanted::Made(made),
            (_, None) => Wanted::Whole(None),
        };
        let op = &self.work.record.ops[request.op];
        let (doc, fields) = (doc_key(&op.key), op.fields.clone());
        let held = self.work.desks[node].documents.get(&doc);
        let said = held.and_then(|held| replica::value(held, &KubernetesLists));
        let adopted = self.prepare(node, &request, &wanted);
        let Some(adopted) = adopted else { return self.end_request(node, request.op, Outcome::Failed) };
        self.work.record.ops[request.op].saw = said.map(|said| seen(&said, &fields)).unwrap_or_default();
        self.keep(node, request.op, &adopted);
    }

    fn keep(&mut self, node: usize, op: usize, adopted: &Adopted) {
        let doc = doc_key(&self.work.record.ops[op].key);
        let bent = self.plan.work.as_ref().is_some_and(|load| load.bend == Bend::NotKept);
        if !bent || self.work.random().permille(500) {
            self.apply_change(node, &doc, &adopted.change);
            for peer in self.connected_peers(node) {
                self.send_work(node, peer, Message::Push(doc.clone(), adopted.change.clone()));
            }
        }
        self.work.record.ops[op].holders.push((node, self.work.desks[node].forgot));
        self.end_request(node, op, Outcome::Kept);
    }

    /// What became of a proposal of a request; `lost`: it was sent again, since an answer was lost.
    pub fn request_answered(
        &mut self,
        node: usize,
        op: usize,
        result: Result<Result<Applied, Refused>, Unavailable>,
        lost: bool,
    ) {
        let requests = &mut self.work.life(node).requests;
        let Some(at) = requests.iter().position(|request| request.op == op) else { return };
        let mut request = requests.remove(at);
        request.lost |= lost;
        match result {
            Ok(Ok(_)) => self.end_request(node, op, Outcome::Ordered),
            Ok(Err(Refused::Conflict { .. })) if request.tries < TRIES && request.made.is_none() => {
                request.stage = Stage::CatchingUp;
                request.until_ms = self.ms(node) + CATCH_UP_MS;
                self.work.life(node).requests.push(request);
            }
            Ok(Err(_)) => self.end_request(node, op, request.refused()),
            Err(Unavailable::Unknown) => {
                let adopted = request.adopted.take();
                self.work.record.ops[op].holders.clear();
                if let Some(adopted) = adopted {
                    self.keep(node, op, &adopted);
                }
            }
            Err(Unavailable::NoQuorum) => {
                let key = self.work.record.ops[op].key.clone();
                let fields = self.work.record.ops[op].fields.clone();
                let base = self.work.life(node).store.get(&key).map(|object| object.value().clone());
                let object = match (&base, &request.made, self.work.record.ops[op].what) {
                    (_, Some(made), _) => Some(edited(made.clone(), &fields, None)),
                    (Some(base), _, Did::Edit) => Some(edited(base.clone(), &fields, request.scale)),
                    (Some(_), _, Did::Delete) => None,
                    _ => return self.end_request(node, op, Outcome::Failed),
                };
                let base = base.filter(|_| request.made.is_none());
                self.keep_unordered(node, request, base, object.as_ref().map(wish_of));
            }
        }
    }

    fn end_request(&mut self, node: usize, op: usize, outcome: Outcome) {
        self.note(node, || format!("has answered w{op}: {outcome:?}"));
        match outcome {
            Outcome::Ordered => self.stats.acknowledged += 1,
            Outcome::Kept => self.stats.kept += 1,
            Outcome::Open | Outcome::Failed | Outcome::Unknown => {}
        }
        self.work.record.ops[op].outcome = outcome;
    }
}

impl Request {
    /// What a refusal says. What stands in the way of one that was sent again may be itself: its leader had it in the log alone,
    /// and that was brought to the next group.
    fn refused(&self) -> Outcome {
        if self.lost { Outcome::Unknown } else { Outcome::Failed }
    }

    pub fn op(&self) -> usize {
        self.op
    }
}

fn edited(mut object: Value, fields: &BTreeMap<&'static str, String>, scale: Option<u64>) -> Value {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    for (field, value) in fields {
        object["metadata"]["annotations"][*field] = json!(value);
    }
    if let Some(replicas) = scale.filter(|replicas| object["spec"]["replicas"] != json!(replicas)) {
        object["spec"]["replicas"] = json!(replicas);
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(1);
        object["metadata"]["generation"] = json!(generation + 1);
    }
    object
}

/// What the fields that are about to be written say.
fn seen(object: &Value, fields: &BTreeMap<&'static str, String>) -> BTreeMap<&'static str, String> {
    let values = fields.keys().filter_map(|field| Some((*field, field_of(object, field)?.to_owned())));
    values.collect()
}
