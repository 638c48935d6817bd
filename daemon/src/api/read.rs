//! Reading: one object, and lists page by page from one revision.

use super::ApiState;
use super::kinds::Kind;
use super::negotiate::Form;
use super::page::Continue;
use super::query::Query;
use super::selector::Selector;
use super::status::{ApiError, json_response};
use super::target::Target;
use axum::http::HeaderMap;
use axum::response::Response;
use gaggle_sched::state::{Object, Revision, Store, View};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// How long a read waits for a revision that another desktop has already shown to the client.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Objects by namespace and name.
type Listing = BTreeMap<(String, String), Arc<Object>>;

pub async fn get(
    state: &ApiState,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let form = Form::of(headers, query.text("includeObject"))?;
    let asked = caught_up(&state.view, query).await?;
    let key = target.kind.key(&target.namespace, &target.name);
    let found = state.view.read(|store| still_valid(store, asked).map(|()| store.get(&key).cloned()))?;
    let object = found.ok_or_else(|| ApiError::not_found(&target.kind, &target.name))?;
    Ok(json_response(200, &form.object(&target.kind, object.value(), super::now())))
}

/// The object as this desktop sees it now.
pub fn current(state: &ApiState, target: &Target) -> Result<Arc<Object>, ApiError> {
    let key = target.kind.key(&target.namespace, &target.name);
    let found = state.view.read(|store| store.get(&key).cloned());
    found.ok_or_else(|| ApiError::not_found(&target.kind, &target.name))
}

/// Waits until this desktop has seen the revision that the request names; `None` if it names none.
pub async fn caught_up(view: &View, query: &Query) -> Result<Option<Revision>, ApiError> {
    let Some(asked) = query.number::<u64>("resourceVersion")?.filter(|asked| *asked > 0).map(Revision) else {
        return Ok(None);
    };
    if tokio::time::timeout(CATCH_UP, view.reached(asked)).await.is_err() {
        return Err(ApiError::not_yet(asked.0, view.revision().0));
    }
    view.read(|store| still_valid(store, Some(asked)))?;
    Ok(Some(asked))
}

/// A revision of which a founding of the group anew knew nothing is answered with 410: what is there now may be without
/// what was shown with it.
pub fn still_valid(store: &Store, asked: Option<Revision>) -> Result<(), ApiError> {
    match asked.filter(|asked| store.has_lost(*asked)) {
        None => Ok(()),
        Some(asked) => Err(ApiError::expired(format!(
            "too old resource version: {asked}: the group was founded anew without it; read again without a \
             resourceVersion"
        ))),
    }
}

pub async fn list(
    state: &ApiState,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let form = Form::of(headers, query.text("includeObject"))?;
    let selector = Selector::parse(&target.kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let limit = query.number::<usize>("limit")?.unwrap_or(0);
    let resumed = match query.text("continue") {
        "" => None,
        token => Some(Continue::parse(token)?),
    };
    let exact = check_revision_options(query)?;
    let asked = match &resumed {
        Some(_) => None,
        None => caught_up(&state.view, query).await?,
    };
    let wanted = match &resumed {
        Some(resumed) => Some(resumed.revision),
        None => asked.filter(|_| exact || (limit > 0 && !is_matched(query))),
    };
    let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
    let (revision, listing) = state.view.read(|store| {
        still_valid(store, asked)?;
        list_at(store, &target.kind, namespace, wanted)
    })?;
    let start = match resumed {
        Some(resumed) => Bound::Excluded((resumed.namespace, resumed.name)),
        None => Bound::Unbounded,
    };
    let mut matching =
        listing.range((start, Bound::Unbounded)).filter(|(_, object)| selector.matches(object.value()));
    let page: Vec<_> = match limit {
        0 => matching.by_ref().collect(),
        limit => matching.by_ref().take(limit).collect(),
    };
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let rest = matching.count();
    if let (Some(((namespace, name), _)), true) = (page.last(), rest > 0) {
        let token = Continue { revision, namespace: namespace.clone(), name: name.clone() };
        metadata["continue"] = token.to_string().into();
        // With selectors Kubernetes leaves the count out, and clients rely on nothing.
        if selector.is_empty() {
            metadata["remainingItemCount"] = rest.into();
        }
    }
    let objects = page.iter().map(|(_, object)| object.value());
    Ok(json_response(200, &form.list(&target.kind, objects, metadata, super::now())))
}

fn is_matched(query: &Query) -> bool {
    !query.text("resourceVersionMatch").is_empty()
}

/// Checks what a list says of revisions; whether it wants exactly the one that it names. Without a word of it, pages
/// are of the revision that is named, and a whole list is of that one or a newer one, as they always were.
fn check_revision_options(query: &Query) -> Result<bool, ApiError> {
    let (revision, resumed) = (query.text("resourceVersion"), query.has("continue"));
    if query.has("sendInitialEvents") {
        return Err(ApiError::list_options(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ));
    }
    let refuse = |why: &str| Err(ApiError::list_options(&format!("resourceVersionMatch: {why}")));
    match query.text("resourceVersionMatch") {
        "" if resumed && !matches!(revision, "" | "0") => {
            Err(ApiError::bad_request("specifying resource version is not allowed when using continue"))
        }
        "" => Ok(false),
        _ if resumed => refuse("Forbidden: resourceVersionMatch is forbidden when continue is provided"),
        _ if revision.is_empty() => {
            refuse("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        "Exact" if revision == "0" => {
            refuse("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        "Exact" => Ok(true),
        "NotOlderThan" => Ok(false),
        other => {
            refuse(&format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""))
        }
    }
}

/// The objects as they were at a revision: those of now, with every later change taken back.
pub fn list_at(
    store: &Store,
    kind: &Kind,
    namespace: Option<&str>,
    wanted: Option<Revision>,
) -> Result<(Revision, Listing), ApiError> {
    let resource = kind.resource();
    let mut listing: Listing = store
        .list(&resource, namespace)
        .map(|(key, object)| ((key.namespace, key.name), object.clone()))
        .collect();
    let Some(wanted) = wanted.filter(|wanted| *wanted != store.revision()) else {
        return Ok((store.revision(), listing));
    };
    let changes = store.changes_after(wanted).map_err(|expired| {
        ApiError::expired(format!(
            "The provided continue parameter or resourceVersion is too old to be listed ({expired}); list again \
             without it"
        ))
    })?;
    let concerns = |change: &&Arc<gaggle_sched::state::Change>| {
        change.key.resource == resource && namespace.is_none_or(|namespace| change.key.namespace == namespace)
    };
    for change in changes.iter().rev().filter(concerns) {
        let place = (change.key.namespace.clone(), change.key.name.clone());
        match &change.previous {
            Some(previous) => listing.insert(place, previous.clone()),
            None => listing.remove(&place),
        };
    }
    Ok((wanted, listing))
}

/// A namespace as the view has it.
pub fn namespace(state: &ApiState, name: &str) -> Option<Arc<Object>> {
    let kind = super::kinds::find("", "v1", "namespaces")?;
    state.view.read(|store| store.get(&kind.key("", name)).cloned())
}

/// The revision of an object as it stands in its JSON.
pub fn revision_of(object: &Value) -> &str {
    super::value::text(object, "/metadata/resourceVersion")
}
