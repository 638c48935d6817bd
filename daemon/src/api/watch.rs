//! Watches: changes as they are committed, one JSON object a line, until the client's time is up.
//!
//! A watch holds no queue of its own: it reads the view's history from where it stands, as fast as the client
//! takes it. A client that is too slow falls off the history's end and is told so (410).

use super::ApiState;
use super::kinds::{Kind, Kinds};
use super::negotiate::Form;
use super::query::Query;
use super::read;
use super::selector::Selector;
use super::status::ApiError;
use super::target::Target;
use super::value::set;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use gaggle_sched::state::{Change, Object, Revision, Seen, View};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a watch goes on when the client does not say, and at most.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// How often a client that likes bookmarks is told how far the quiet has gone.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Events in one chunk of the answer; a chunk is held in memory until the client takes it.
const CHUNK: usize = 64;

struct Watch {
    view: View,
    kinds: Kinds,
    kind: Arc<Kind>,
    namespace: Option<String>,
    /// Empty for a collection.
    name: String,
    selector: Selector,
    form: Form,
    /// Everything up to here has been told.
    seen: Seen,
    /// Objects that were there at the start, still to be told.
    initial: VecDeque<Arc<Object>>,
    pending: VecDeque<Arc<Change>>,
    bell: tokio::sync::watch::Receiver<Revision>,
    deadline: Instant,
    bookmarks: Bookmarks,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bookmarks {
    No,
    Yes,
    /// The next one says that all initial objects have been told.
    InitialEnd,
}

pub async fn watch(
    state: &ApiState,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let form = Form::of(headers, query.text("includeObject"))?;
    let selector = Selector::parse(&target.kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let timeout = query.number::<u64>("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let timeout = timeout.map_or(TIMEOUT, |seconds| Duration::from_secs(seconds).min(TIMEOUT));
    let namespace = (!target.namespace.is_empty()).then(|| target.namespace.clone());
    check_initial_options(query)?;
    let all_first = query.flag("sendInitialEvents")?;
    let none_first = query.has("sendInitialEvents") && !all_first;
    let bookmarks = match (query.flag("allowWatchBookmarks")?, all_first) {
        (true, true) => Bookmarks::InitialEnd,
        (true, false) => Bookmarks::Yes,
        (false, _) => Bookmarks::No,
    };
    // Subscribed before anything is read, so that no ring is missed.
    let bell = state.view.subscribe();
    let mut seen = state.view.seen();
    let asked = read::caught_up(&state.view, query).await?;
    let (cursor, initial) = match asked.filter(|_| !all_first) {
        Some(revision) => (revision, VecDeque::new()),
        None if none_first => (seen.revision, VecDeque::new()),
        None => {
            let listed = state.view.read(|store| {
                read::still_valid(store, asked)?;
                read::list_at(store, &target.kind, namespace.as_deref(), None)
            })?;
            let objects = listed.1.into_iter().filter(|((_, name), object)| {
                (target.name.is_empty() || *name == target.name) && selector.matches(object.value())
            });
            (listed.0, objects.map(|(_, object)| object).collect())
        }
    };
    seen.revision = cursor;
    let watch = Watch {
        view: state.view.clone(),
        kinds: state.kinds.clone(),
        kind: target.kind.clone(),
        namespace,
        name: target.name.clone(),
        selector,
        form,
        seen,
        initial,
        pending: VecDeque::new(),
        bell,
        deadline: Instant::now() + timeout,
        bookmarks,
        ended: false,
    };
    let lines = futures::stream::unfold(watch, async |mut watch| {
        let chunk = watch.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watch))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// Who wants to be told, or not told, of what is there says also that it may be newer than the revision it names.
fn check_initial_options(query: &Query) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::list_options(&format!("resourceVersionMatch: {why}")));
    match (query.has("sendInitialEvents"), query.text("resourceVersionMatch")) {
        (false, "") | (true, "NotOlderThan") => Ok(()),
        (true, _) => {
            refuse("Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (false, _) => refuse(
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    }
}

impl Watch {
    /// Whether the kind is another one by now, or none: what this watch shows would be by a schema that is none any more.
    fn is_redefined(&self) -> bool {
        self.kind.definition().is_some() && {
            let now = self.kinds.find(&self.kind.group, &self.kind.version, &self.kind.plural);
            now.is_none_or(|now| !Arc::ptr_eq(&now, &self.kind))
        }
    }

    /// The next lines; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut bookmark_at = Instant::now() + BOOKMARK;
        loop {
            if self.ended {
                return None;
            }
            if !self.initial.is_empty() {
                let count = self.initial.len().min(CHUNK);
                let objects: Vec<_> = self.initial.drain(..count).collect();
                let lines: String = objects.iter().map(|object| self.line("ADDED", object.value())).collect();
                return Some(lines.into());
            }
            if self.bookmarks == Bookmarks::InitialEnd {
                self.bookmarks = Bookmarks::Yes;
                return Some(self.bookmark(json!({"k8s.io/initial-events-end": "true"})).into());
            }
            if self.pending.is_empty() {
                self.bell.mark_unchanged();
                if self.is_redefined() {
                    return None;
                }
                match self.view.changes_after(self.seen) {
                    Ok(changes) => self.pending = changes.into(),
                    Err(_) => {
                        self.ended = true;
                        let error =
                            ApiError::expired(format!("too old resource version: {}", self.seen.revision));
                        let event = json!({"type": "ERROR", "object": error.to_status()});
                        return Some(format!("{event}\n").into());
                    }
                }
            }
            let lines = self.take_pending();
            if !lines.is_empty() {
                return Some(lines.into());
            }
            if !self.pending.is_empty() {
                continue;
            }
            tokio::select! {
                rung = self.bell.changed() => self.ended |= rung.is_err(),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    if self.bookmarks == Bookmarks::Yes {
                        return Some(self.bookmark(Value::Null).into());
                    }
                }
                () = tokio::time::sleep_until(bookmark_at), if self.bookmarks == Bookmarks::Yes => {
                    bookmark_at += BOOKMARK;
                    return Some(self.bookmark(Value::Null).into());
                }
            }
        }
    }

    fn take_pending(&mut self) -> String {
        let mut lines = String::new();
        for _ in 0..CHUNK {
            let Some(change) = self.pending.pop_front() else { break };
            self.seen.revision = change.revision;
            if let Some(line) = self.tell(&change) {
                lines.push_str(&line);
            }
        }
        lines
    }

    /// What a change is to this watch. An object that the selector lets in or out is added or deleted.
    fn tell(&self, change: &Change) -> Option<String> {
        let key = &change.key;
        let concerned = key.resource == self.kind.resource()
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && (self.name.is_empty() || self.name == key.name);
        if !concerned {
            return None;
        }
        let selected = |object: &Option<Arc<Object>>| {
            object.clone().filter(|object| self.selector.matches(object.value()))
        };
        match (selected(&change.previous), selected(&change.object)) {
            (None, None) => None,
            (None, Some(new)) => Some(self.line("ADDED", new.value())),
            (Some(_), Some(new)) => Some(self.line("MODIFIED", new.value())),
            (Some(old), None) => {
                let mut last = old.value().clone();
                if let Some(metadata) = last.get_mut("metadata") {
                    set(metadata, "resourceVersion", change.revision.to_string());
                }
                Some(self.line("DELETED", &last))
            }
        }
    }

    fn line(&self, kind: &str, object: &Value) -> String {
        let object = self.form.object(&self.kind, object, super::now());
        format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
    }

    fn bookmark(&self, annotations: Value) -> String {
        let mut metadata =
            json!({"resourceVersion": self.seen.revision.to_string(), "creationTimestamp": null});
        if annotations.is_object() {
            metadata["annotations"] = annotations;
        }
        let object = match self.form {
            Form::Object => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            form => form.list(&self.kind, [], metadata, super::now()),
        };
        format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}\n")
    }
}
