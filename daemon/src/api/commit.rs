//! The last step of every write: the intent change that goes with it, its place in the group's order, or its
//! keeping until there is an order again.

use super::ApiState;
use super::body::BODY_BYTES;
use super::kinds::{Keeping, Kind};
use super::query::Run;
use super::status::ApiError;
use super::value::{flag, items, set};
use crate::documents::wish_of;
use gaggle_sched::state::{Adopted, Expect, Key, Refused, Txn, Unavailable, Write};
use serde_json::Value;
use std::time::Duration;

/// How long a write may take to be ordered. Elections are over in a second; after this the client is told that
/// nobody knows.
const ORDER: Duration = Duration::from_secs(30);

/// One write of one object.
pub struct Pending<'a> {
    pub kind: &'a Kind,
    pub key: Key,
    /// `None`: the object is removed.
    pub object: Option<Value>,
    /// What is shown of an object that is removed.
    pub before: Option<&'a Value>,
    /// What the write was computed from; `None` for a new object.
    pub base: Option<&'a Value>,
    pub expect: Expect,
    pub intent: Intent,
    /// What happens together with it or not at all; not without an order.
    pub charges: Vec<Write>,
    /// It was judged by what is ordered, and may not merge with what others write elsewhere meanwhile: not without an order.
    pub is_judged: bool,
    pub run: Run,
}

/// What a write is to the documents that every desktop keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Somebody wishes the object to be so.
    Wish,
    /// Somebody wishes the object to be gone.
    Drop,
    /// Not a wish: a status, or the last steps of a removal.
    None,
}

/// A write that took place.
#[derive(Debug)]
pub struct Done {
    /// As stored, with its new revision; for a removal what was removed.
    pub object: Value,
    /// Set where the write could only be kept.
    pub warning: Option<String>,
}

#[derive(Debug)]
pub enum CommitError {
    /// Somebody was faster; the caller may compute the write again.
    Refused(Refused),
    Failed(ApiError),
}

impl From<ApiError> for CommitError {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl CommitError {
    pub fn into_api(self, kind: &Kind) -> ApiError {
        match self {
            Self::Refused(refused) => ApiError::refused(kind, &refused),
            Self::Failed(error) => error,
        }
    }
}

/// Brings a write into order, or keeps it as intent when nobody can order it now.
pub async fn commit(state: &ApiState, pending: Pending<'_>) -> Result<Done, CommitError> {
    let Pending { kind, key, object, before, base, expect, intent, charges, is_judged, run } = pending;
    let shown = object.as_ref().or(before).cloned().unwrap_or_default();
    if shown.to_string().len() > BODY_BYTES {
        return Err(ApiError::too_large(BODY_BYTES).into());
    }
    if run == Run::Dry {
        return Ok(Done { object: shown, warning: None });
    }
    let wish = object.as_ref().filter(|_| intent == Intent::Wish).map(wish_of);
    let failed = |error| CommitError::Failed(ApiError::from_documents(&error));
    let bears_intent = bears_intent(kind, &shown, intent);
    // A removal that something is charged for may only happen if it can be: kept as intent, it would happen anyhow.
    let is_conditional = is_judged || (intent == Intent::Drop && !charges.is_empty());
    let refuse = |unavailable: &Unavailable| Err(ApiError::from_unavailable(unavailable).into());
    // The same wish where nobody orders it: the object may have been edited since what is shown of it was ordered.
    let unordered = async |prepared: Option<Adopted>| {
        let change = match (base.map(wish_of), &wish) {
            _ if !bears_intent => return Ok(prepared),
            (Some(base), Some(wish)) => state.documents.prepare_edit(&key, &base, wish).await,
            (None, Some(wish)) => state.documents.prepare_made(&key, wish).await,
            (_, None) if prepared.is_some() => return Ok(prepared),
            (_, None) => state.documents.prepare(&key, None).await,
        };
        change.map(Some).map_err(failed)
    };
    if !*state.quorum.borrow() {
        let why = Unavailable::NoQuorum("less than half of the cluster's desktops can be reached".into());
        if is_conditional {
            return refuse(&why);
        }
        let adopted = unordered(None).await?;
        return keep(state, &key, shown, adopted, why).await;
    }
    let adopted = match bears_intent {
        false => None,
        true => Some(state.documents.prepare(&key, wish.as_ref()).await.map_err(failed)?),
    };
    let write = match object {
        Some(value) => Write::Put { key: key.clone(), value, expect, intent: adopted.clone() },
        None => Write::Delete { key: key.clone(), expect, intent: adopted.clone() },
    };
    let writes: Vec<Write> = charges.into_iter().chain([write]).collect();
    let proposed = tokio::time::timeout(ORDER, state.propose.propose(Txn::from(writes))).await;
    let late = || Err(Unavailable::Unknown(format!("no answer within {} seconds", ORDER.as_secs())));
    match proposed.unwrap_or_else(|_| late()) {
        Ok(Ok(applied)) => {
            let mut object = shown;
            if let Some(metadata) = object.get_mut("metadata") {
                set(metadata, "resourceVersion", applied.revision.to_string());
            }
            Ok(Done { object, warning: None })
        }
        Ok(Err(refused)) => Err(CommitError::Refused(refused)),
        Err(unavailable) if is_conditional => refuse(&unavailable),
        // Should an answer that was lost have been "yes", the documents hold the very same change: keeping it says
        // nothing twice, and whoever asked knows that their wish is not lost.
        Err(unavailable @ Unavailable::Unknown(_)) => keep(state, &key, shown, adopted, unavailable).await,
        Err(unavailable @ Unavailable::NoQuorum(_)) => {
            let adopted = unordered(adopted).await?;
            keep(state, &key, shown, adopted, unavailable).await
        }
        Err(unavailable) => refuse(&unavailable),
    }
}

async fn keep(
    state: &ApiState,
    key: &Key,
    shown: Value,
    adopted: Option<Adopted>,
    unavailable: Unavailable,
) -> Result<Done, CommitError> {
    let Some(adopted) = adopted else { return Err(ApiError::from_unavailable(&unavailable).into()) };
    let kept = state.documents.keep(key, &adopted).await;
    kept.map_err(|error| CommitError::Failed(ApiError::from_documents(&error)))?;
    tracing::info!(%key, %unavailable, "a write was kept as intent");
    let warning = match unavailable {
        Unavailable::Unknown(_) => {
            "the leader's answer was lost: kept as intent on this desktop and those it reaches, and put into effect, \
             if it was not already, by the next leader"
        }
        _ => {
            "no quorum: kept as intent on this desktop and those it reaches, and put into effect when more than half \
             of the cluster is back"
        }
    };
    Ok(Done { object: shown, warning: Some(warning.into()) })
}

/// Objects that a controller made can be made again; only what people made is kept as intent.
fn bears_intent(kind: &Kind, object: &Value, intent: Intent) -> bool {
    let controlled =
        items(object, "/metadata/ownerReferences").iter().any(|owner| flag(owner, "/controller"));
    kind.keeping == Keeping::Intent && intent != Intent::None && !controlled
}
