//! Deleting objects: at once, or step by step where finalizers, owners' dependents or running containers hold them.

use super::ApiState;
use super::commit::{CommitError, Done, Intent, Pending, commit};
use super::contention::Patience;
use super::kinds::Kind;
use super::query::{Query, Run};
use super::read;
use super::selector::Selector;
use super::status::ApiError;
use super::target::Target;
use super::update::may_go;
use super::value::{as_map, child, int, is_set, items, set, text};
use crate::tokens::Revocations;
use futures::StreamExt;
use gaggle_sched::controller::{DISRUPTION_TARGET, disruption, namespace};
use gaggle_sched::state::{Expect, Object, Refused, Write};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

/// How often a deletion is computed anew because another write came between.
const TRIES: usize = 5;
/// Deletions of one collection under way at once.
const AT_ONCE: usize = 32;
/// A pod's grace period when neither it nor the client names one.
const GRACE_S: i64 = 30;

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    /// They follow after it.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// `DeleteOptions`, from the body or the query.
#[derive(Clone, Debug)]
pub struct Options {
    propagation: Propagation,
    grace_s: Option<i64>,
    uid: String,
    revision: String,
    run: Run,
}

impl Options {
    pub fn of(query: &Query, body: &Value) -> Result<Self, ApiError> {
        let either = |name: &str| match query.text(name) {
            "" => text(body, &format!("/{name}")).to_owned(),
            given => given.to_owned(),
        };
        let propagation = match either("propagationPolicy").as_str() {
            "" if query.flag("orphanDependents")? || body.get("orphanDependents") == Some(&json!(true)) => {
                Propagation::Orphan
            }
            "" | "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                let message =
                    format!("invalid propagationPolicy {other:?}: expected Background, Foreground or Orphan");
                return Err(ApiError::bad_request(message));
            }
        };
        let grace_s = match query.number::<u32>("gracePeriodSeconds")? {
            Some(seconds) => Some(i64::from(seconds)),
            None => int(body, "/gracePeriodSeconds"),
        };
        if grace_s.is_some_and(|seconds| seconds < 0) {
            return Err(ApiError::bad_request("gracePeriodSeconds must not be negative"));
        }
        let dry = items(body, "/dryRun").iter().any(|dry| dry == "All");
        Ok(Self {
            propagation,
            grace_s,
            uid: text(body, "/preconditions/uid").to_owned(),
            revision: text(body, "/preconditions/resourceVersion").to_owned(),
            run: if dry { Run::Dry } else { query.run()? },
        })
    }
}

/// What a deletion has come to.
#[derive(Debug)]
pub enum Deleted {
    Gone(Done),
    /// Something still holds the object.
    Terminating(Done),
}

impl Deleted {
    fn into_done(self) -> Done {
        match self {
            Self::Gone(done) | Self::Terminating(done) => done,
        }
    }
}

/// `DELETE` of one object.
pub async fn delete(state: &ApiState, target: &Target, options: &Options) -> Result<Deleted, ApiError> {
    delete_for(Cause::Request, state, target, options).await
}

/// The deletion of a pod for the good of its desktop: what its disruption budget loses is written together with it.
pub async fn evict(state: &ApiState, target: &Target, options: &Options) -> Result<Deleted, ApiError> {
    delete_for(Cause::Eviction, state, target, options).await
}

/// Why an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Request,
    Eviction,
}

impl Cause {
    /// What has to be written together with the deletion.
    fn charges(self, state: &ApiState, current: &Object) -> Result<Vec<Write>, ApiError> {
        // Not before: what else is deleted is no pod.
        let pod = if self == Self::Eviction { current.typed::<Pod>() } else { None };
        let Some(pod) = pod else { return Ok(Vec::new()) };
        let charge = state.view.read(|store| disruption::evict(store, &pod));
        charge.map(|write| write.into_iter().collect()).map_err(|blocked| ApiError::disrupts(&blocked))
    }
}

async fn delete_for(
    cause: Cause,
    state: &ApiState,
    target: &Target,
    options: &Options,
) -> Result<Deleted, ApiError> {
    let kind = &*target.kind;
    if kind.is("", "Namespace") && namespace::ALWAYS.contains(&target.name.as_str()) {
        return Err(ApiError::forbidden(kind, &target.name, "this namespace may not be deleted"));
    }
    let key = kind.key(&target.namespace, &target.name);
    if key == Revocations::key() {
        let why = "without it every token that was revoked would be good again";
        return Err(ApiError::forbidden(kind, &target.name, why));
    }
    let (mut tries, patience) = (1, Patience::new());
    loop {
        let current = read::current(state, target)?;
        preconditions(target, &current, options)?;
        let mut object = marked(kind, current.value(), options);
        if cause == Cause::Eviction && !current.is_terminating() {
            disrupt(&mut object);
        }
        let gone = may_go(kind, &object);
        if !gone && object == *current.value() {
            return Ok(Deleted::Terminating(Done { object, warning: None }));
        }
        let pending = Pending {
            kind,
            key: key.clone(),
            object: Some(object.clone()).filter(|_| !gone),
            before: Some(&object),
            base: Some(current.value()),
            expect: Expect::Revision(current.revision()),
            // The wish ends when deletion is asked for, however long the object takes to go.
            intent: if current.is_terminating() { Intent::None } else { Intent::Drop },
            charges: cause.charges(state, &current)?,
            is_judged: false,
            run: options.run,
        };
        match commit(state, pending).await {
            Ok(done) if gone => return Ok(Deleted::Gone(done)),
            Ok(done) => return Ok(Deleted::Terminating(done)),
            // Another pod of the same budget was faster, or the budget is another one now, or gone.
            Err(CommitError::Refused(refused)) if *refused.key() != key => {
                if !patience.is_left().await {
                    return Err(ApiError::refused(kind, &refused));
                }
            }
            Err(CommitError::Refused(Refused::Conflict { .. })) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into_api(kind)),
        }
    }
}

fn preconditions(target: &Target, current: &Object, options: &Options) -> Result<(), ApiError> {
    let (kind, name) = (&*target.kind, &target.name);
    if !options.uid.is_empty() && options.uid != current.uid() {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            options.uid,
            current.uid()
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    let revision = current.revision().to_string();
    if !options.revision.is_empty() && options.revision != revision {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {revision}",
            options.revision
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    Ok(())
}

/// The object with its deletion noted on it: finalizers for its dependents, and when it should be gone.
fn marked(kind: &Kind, current: &Value, options: &Options) -> Value {
    let mut object = current.clone();
    let grace_s = grace_of(kind, current, options);
    let metadata = child(&mut object, "metadata");
    let mut finalizers: Vec<Value> = items(metadata, "/finalizers").to_vec();
    finalizers.retain(|finalizer| finalizer != "orphan" && finalizer != "foregroundDeletion");
    match options.propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push("foregroundDeletion".into()),
        Propagation::Orphan => finalizers.push("orphan".into()),
    }
    match finalizers.is_empty() {
        true => drop(as_map(metadata).remove("finalizers")),
        false => set(metadata, "finalizers", finalizers),
    }
    let earlier = int(metadata, "/deletionGracePeriodSeconds");
    if let (false, Some(generation)) = (is_set(metadata, "/deletionTimestamp"), int(metadata, "/generation"))
    {
        set(metadata, "generation", generation + 1);
    }
    // A second request may hasten the end, never put it off.
    if !is_set(metadata, "/deletionTimestamp") || earlier.is_some_and(|earlier| grace_s < earlier) {
        let by =
            super::now().checked_add(SignedDuration::from_secs(grace_s)).unwrap_or_else(|_| super::now());
        set(metadata, "deletionTimestamp", by.to_string());
        set(metadata, "deletionGracePeriodSeconds", grace_s);
    }
    if kind.is("", "Namespace") {
        set(child(&mut object, "status"), "phase", "Terminating");
    }
    object
}

/// Notes on a pod that it goes for reasons that are not its own: its Job does not count it as a failure.
fn disrupt(pod: &mut Value) {
    let status = child(pod, "status");
    let mut conditions = items(status, "/conditions").to_vec();
    conditions.retain(|condition| condition["type"] != DISRUPTION_TARGET);
    conditions.push(json!({
        "type": DISRUPTION_TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": super::now().to_string(),
    }));
    set(status, "conditions", conditions);
}

/// Only pods that some desktop runs need time to end.
fn grace_of(kind: &Kind, object: &Value, options: &Options) -> i64 {
    let runs = kind.is("", "Pod")
        && !text(object, "/spec/nodeName").is_empty()
        && !matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if !runs {
        return 0;
    }
    options.grace_s.or(int(object, "/spec/terminationGracePeriodSeconds")).unwrap_or(GRACE_S).max(0)
}

/// `DELETE` of a collection: every object that the selectors name. The list of what was deleted.
pub async fn delete_collection(
    state: &ApiState,
    target: &Target,
    query: &Query,
    options: &Options,
) -> Result<(Vec<Value>, Option<String>), ApiError> {
    let kind = &*target.kind;
    if kind.is_namespaced() && target.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let (_, listing) = state.view.read(|store| read::list_at(store, kind, namespace, None))?;
    let targets = listing.into_iter().filter(|(_, object)| selector.matches(object.value())).map(
        |((namespace, name), _)| Target { kind: target.kind.clone(), namespace, name, subresource: None },
    );
    let mut deletions = futures::stream::iter(targets.collect::<Vec<_>>())
        .map(|target| async move { delete(state, &target, options).await })
        .buffered(AT_ONCE);
    let (mut objects, mut warning) = (Vec::new(), None);
    while let Some(deleted) = deletions.next().await {
        match deleted.map(Deleted::into_done) {
            Ok(done) => {
                warning = warning.or(done.warning);
                objects.push(done.object);
            }
            // Another request was faster, and the object is gone as was wished.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok((objects, warning))
}
