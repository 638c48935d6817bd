//! What a controller makes in one plan: admitted by its namespace's rules, told of, and written together with what is
//! charged for it.

use super::loaded::{create, to_json};
use super::{Note, Plan, pods};
use crate::admission::Ledger;
use crate::state::{Key, Store, Write, resource_of};
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use std::time::Duration;

/// When to ask again for what a namespace's rules forbade: they may be others by then, and nothing says so.
pub(super) const FORBIDDEN_WAIT: Duration = Duration::from_secs(10);

/// What makes an object that is no pod: what is charged for it and the object, or why it is forbidden.
pub(super) fn charged<T>(store: &Store, object: &T) -> Result<Vec<Write>, String>
where
    T: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + Serialize,
{
    let mut ledger = Ledger::new(store);
    charge(&mut ledger, object)?;
    let mut writes = ledger.writes();
    writes.push(create(object));
    Ok(writes)
}

fn charge<T>(ledger: &mut Ledger<'_>, object: &T) -> Result<(), String>
where
    T: k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + Serialize,
{
    let metadata = object.metadata();
    let (name, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
    let resource = resource_of::<T>();
    let allowed = ledger.charge(&resource, namespace.unwrap_or_default(), &to_json(object));
    allowed.map_err(|why| format!("{resource} \"{}\" is forbidden: {why}", name.unwrap_or_default()))
}

pub(super) struct Births<'a> {
    owner: &'a Key,
    controller: &'static str,
    ledger: Ledger<'a>,
    pods: usize,
    writes: Vec<Write>,
    refused: Option<String>,
}

impl<'a> Births<'a> {
    pub(super) fn new(store: &'a Store, owner: &'a Key, controller: &'static str) -> Self {
        let ledger = Ledger::new(store);
        Self { owner, controller, ledger, pods: 0, writes: Vec::new(), refused: None }
    }

    /// How many pods.
    pub(super) fn pods(&self) -> usize {
        self.pods
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Why something that was to be made was not.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Takes a pod among those to be made, and tells of it; `false`, told as well, where it is forbidden: then the next
    /// one of its kind is, too.
    pub(super) fn add(&mut self, pod: Pod, plan: &mut Plan) -> bool {
        let name = pod.metadata.name.clone().unwrap_or_default();
        self.add_told(pod, format!("Created pod: {name}"), plan)
    }

    /// The same, with the words of the controller.
    pub(super) fn add_told(&mut self, mut pod: Pod, message: String, plan: &mut Plan) -> bool {
        let name = pod.metadata.name.clone().unwrap_or_default();
        match self.ledger.admit(&mut pod) {
            Ok(()) => {
                // What the namespace filled in counts.
                let class = pod.spec.as_ref().map(|spec| pods::qos_class(spec).to_owned());
                pod.status.get_or_insert_default().qos_class = class;
                self.pods += 1;
                self.writes.push(create(&pod));
                plan.events.push(Note::normal(self.owner, self.controller, "SuccessfulCreate", message));
                true
            }
            Err(why) => self.refuse(format!("pods \"{name}\" is forbidden: {why}"), plan),
        }
    }

    /// Takes a template of the owner's history; `false`, told as well, where it is forbidden.
    pub(super) fn add_revision(&mut self, revision: &ControllerRevision, plan: &mut Plan) -> bool {
        match charge(&mut self.ledger, revision) {
            Ok(()) => {
                self.writes.push(create(revision));
                true
            }
            Err(why) => self.refuse(why, plan),
        }
    }

    fn refuse(&mut self, why: String, plan: &mut Plan) -> bool {
        let message = format!("Error creating: {why}");
        plan.events.push(Note::warning(self.owner, self.controller, "FailedCreate", message));
        plan.requeue(FORBIDDEN_WAIT);
        self.refused = Some(why);
        false
    }

    pub(super) fn into_writes(self) -> Vec<Write> {
        let mut writes = self.ledger.writes();
        writes.extend(self.writes);
        writes
    }
}
