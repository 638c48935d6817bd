//! What a namespace's rules and a pod's class say about a new object: the rules are [`gaggle_sched::admission`]'s, this
//! is their place in a request.

use super::ApiState;
use super::definition;
use super::kinds::Kind;
use super::status::ApiError;
use super::value::{remove, set, text};
use gaggle_sched::admission::{self, Ledger};
use gaggle_sched::state::Write;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Fills what the namespace and the class say about a pod that does not say it itself.
pub fn complete(state: &ApiState, kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    if !kind.is("", "Pod") {
        return Ok(());
    }
    let mut pod: Pod = typed(object)?;
    let given = pod.clone();
    let forbidden = |why: String| ApiError::forbidden(kind, text(object, "/metadata/name"), &why);
    state.view.read(|store| admission::complete(store, &mut pod)).map_err(forbidden)?;
    if pod != given {
        let completed = serde_json::to_value(&pod).map_err(ApiError::internal)?;
        for part in ["metadata", "spec"] {
            match completed.get(part) {
                Some(completed) => set(object, part, completed.clone()),
                None => drop(remove(object, part)),
            }
        }
    }
    Ok(())
}

/// Whether the namespace allows a new object, and what has to be written together with it.
pub fn admit(state: &ApiState, kind: &Kind, object: &Value) -> Result<Vec<Write>, ApiError> {
    if kind.is("scheduling.k8s.io", "PriorityClass") {
        return check_class(state, kind, object).map(|()| Vec::new());
    }
    if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        return check_room(state, kind, object).map(|()| Vec::new());
    }
    // Events tell of what happens, also of refusals.
    if !kind.is_namespaced() || kind.is("", "Event") {
        return Ok(Vec::new());
    }
    let admitted = state.view.read(|store| -> Result<Result<Vec<Write>, String>, ApiError> {
        let mut ledger = Ledger::new(store);
        if kind.is("", "Pod") {
            let pod: Pod = typed(object)?;
            let allowed = admission::check_limits(store, &pod).and_then(|()| ledger.charge_pod(&pod));
            return Ok(allowed.map(|()| ledger.writes()));
        }
        if kind.is("", "PersistentVolumeClaim") {
            let claim: PersistentVolumeClaim = typed(object)?;
            if let Err(why) = admission::check_claim(store, &claim) {
                return Ok(Err(why));
            }
        }
        let namespace = text(object, "/metadata/namespace");
        Ok(ledger.charge(&kind.resource(), namespace, object).map(|()| ledger.writes()))
    })?;
    admitted.map_err(|why| ApiError::forbidden(kind, text(object, "/metadata/name"), &why))
}

/// Whether the namespace allows a change of an object, and what has to be written together with it: for what the object
/// takes more than before.
pub fn admit_change(
    state: &ApiState,
    kind: &Kind,
    before: &Value,
    after: &Value,
) -> Result<Vec<Write>, ApiError> {
    if kind.is("scheduling.k8s.io", "PriorityClass") {
        return check_class(state, kind, after).map(|()| Vec::new());
    }
    if kind.is("apiextensions.k8s.io", "CustomResourceDefinition") && before.get("spec") != after.get("spec")
    {
        return check_room(state, kind, after).map(|()| Vec::new());
    }
    let is_claim = kind.is("", "PersistentVolumeClaim");
    if !is_claim && !kind.is("", "Service") {
        return Ok(Vec::new());
    }
    let forbidden = |why: String| ApiError::forbidden(kind, text(after, "/metadata/name"), &why);
    let claim: Option<PersistentVolumeClaim> = is_claim.then(|| typed(after)).transpose()?;
    let admitted = state.view.read(|store| {
        if let Some(claim) = claim.filter(|_| before.get("spec") != after.get("spec")) {
            admission::check_claim(store, &claim)?;
        }
        let mut ledger = Ledger::new(store);
        let namespace = text(after, "/metadata/namespace");
        ledger.charge_growth(&kind.resource(), namespace, (before, after))?;
        Ok(ledger.writes())
    });
    admitted.map_err(forbidden)
}

fn check_room(state: &ApiState, kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let name = text(object, "/metadata/name");
    let fits = state.view.read(|store| {
        let others = store.list(&kind.resource(), None).filter(|(key, _)| key.name != name);
        definition::fits(object, others.map(|(_, other)| other.value()))
    });
    fits.map_err(|why| ApiError::forbidden(kind, name, &why))
}

fn check_class(state: &ApiState, kind: &Kind, object: &Value) -> Result<(), ApiError> {
    let class: PriorityClass = typed(object)?;
    let forbidden = |why: String| ApiError::forbidden(kind, text(object, "/metadata/name"), &why);
    state.view.read(|store| admission::check_global_default(store, &class)).map_err(forbidden)
}

fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, ApiError> {
    T::deserialize(object).map_err(ApiError::internal)
}
