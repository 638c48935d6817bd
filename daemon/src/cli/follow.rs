//! Lists a collection and watches what becomes of it, across watches that end and versions that expire.

use super::connection::{Connection, JSON, RequestError};
use super::target::Query;
use axum::body::Bytes;
use axum::http::Method;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::core::Status;
use serde::Deserialize;
use serde_json::Value;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

/// An object is at most 1.5 MiB in Kubernetes; an event wraps one, or a table row of one.
const MAX_EVENT_BYTES: usize = 8 << 20;
/// A watch that ends at once would otherwise be asked for again without end.
const PAUSE_BETWEEN_WATCHES: Duration = Duration::from_millis(200);
/// The server sends so many objects in a piece.
const PAGE: &str = "500";

/// What is seen of a collection.
#[derive(Debug)]
pub enum Seen<'a> {
    /// The whole collection as it is now, as the server answered; at first, and again whenever the watch had to
    /// begin anew.
    Listed(&'a Value),
    Changed(&'a Value),
    Deleted(&'a Value),
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

/// Lists everything that `query` selects, in pieces put together; the answer is the server's list or table.
pub async fn list(
    connection: &Connection,
    path: &str,
    query: &Query,
    accept: &str,
) -> Result<Value, RequestError> {
    let mut all: Option<Value> = None;
    let mut token = String::new();
    loop {
        let page_query = query.clone().with("limit", PAGE);
        let page_query = page_query.with_some("continue", Some(&token).filter(|token| !token.is_empty()));
        let page = connection.get(&page_query.on(path), accept).await?;
        let next = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        match &mut all {
            None => all = Some(page),
            Some(all) => append(all, page),
        }
        if next.is_empty() || next == token {
            return Ok(all.unwrap_or_default());
        }
        token = next;
    }
}

fn append(all: &mut Value, mut page: Value) {
    for field in ["items", "rows"] {
        if let (Some(all), Some(more)) = (all[field].as_array_mut(), page[field].as_array_mut()) {
            all.append(more);
        }
    }
}

/// Shows `see` the collection and then every change, until it breaks or a request fails.
pub async fn follow<T>(
    connection: &Connection,
    path: &str,
    query: &Query,
    accept: &str,
    mut see: impl FnMut(Seen<'_>) -> anyhow::Result<ControlFlow<T>>,
) -> anyhow::Result<T> {
    loop {
        let listed = list(connection, path, query, accept).await?;
        if let ControlFlow::Break(end) = see(Seen::Listed(&listed))? {
            return Ok(end);
        }
        let mut version = listed["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        loop {
            match watch_once(connection, path, query, accept, &mut version, &mut see).await {
                Ok(ControlFlow::Break(end)) => return Ok(end),
                Ok(ControlFlow::Continue(())) => tokio::time::sleep(PAUSE_BETWEEN_WATCHES).await,
                Err(error) if error.downcast_ref().is_some_and(RequestError::is_expired) => break,
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(PAUSE_BETWEEN_WATCHES).await;
    }
}

/// One watch from `version` on, which advances with what was seen.
async fn watch_once<T>(
    connection: &Connection,
    path: &str,
    query: &Query,
    accept: &str,
    version: &mut String,
    see: &mut impl FnMut(Seen<'_>) -> anyhow::Result<ControlFlow<T>>,
) -> anyhow::Result<ControlFlow<T>> {
    let query = query
        .clone()
        .with("watch", "true")
        .with("allowWatchBookmarks", "true")
        .with("resourceVersion", version.as_str());
    let mut events = lines(connection.stream(Method::GET, &query.on(path), accept).await?);
    while let Some(line) = events.next().await {
        // A daemon that stops ends its watches in the middle: go on from where we are.
        let Ok(line) = line else { return Ok(ControlFlow::Continue(())) };
        let event: Event = serde_json::from_str(&line)
            .map_err(|source| RequestError::NotJson { address: connection.address().to_owned(), source })?;
        if event.kind == "ERROR" {
            let status: Status = serde_json::from_value(event.object).unwrap_or_default();
            return Err(RequestError::Refused(Box::new(status)).into());
        }
        if let Some(newer) = version_of(&event.object) {
            *version = newer.to_owned();
        }
        let flow = match event.kind.as_str() {
            "BOOKMARK" => continue,
            "DELETED" => see(Seen::Deleted(&event.object))?,
            _ => see(Seen::Changed(&event.object))?,
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The version of an object, or of the row that a table event carries.
fn version_of(object: &Value) -> Option<&str> {
    let row = object["rows"].as_array().and_then(|rows| rows.last()).map(|row| &row["object"]);
    [Some(object), row]
        .into_iter()
        .flatten()
        .find_map(|of| of["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()))
}

/// The lines of a streamed answer.
pub fn lines(
    pieces: BoxStream<'static, std::io::Result<Bytes>>,
) -> impl Stream<Item = std::io::Result<String>> + Unpin {
    FramedRead::new(StreamReader::new(pieces), LinesCodec::new_with_max_length(MAX_EVENT_BYTES))
        .map_err(std::io::Error::other)
}

/// One object and what becomes of it: `None` when it is not there.
pub async fn follow_one<T>(
    connection: &Connection,
    collection: &str,
    name: &str,
    mut see: impl FnMut(Option<&Value>) -> anyhow::Result<ControlFlow<T>>,
) -> anyhow::Result<T> {
    let query = Query::default().with("fieldSelector", format!("metadata.name={name}"));
    follow(connection, collection, &query, JSON, |seen| match seen {
        Seen::Listed(list) => see(list["items"].get(0)),
        Seen::Changed(object) => see(Some(object)),
        Seen::Deleted(_) => see(None),
    })
    .await
}
