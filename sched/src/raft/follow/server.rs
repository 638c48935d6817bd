//! The voter's side of a follow stream.

use super::super::codec;
use super::super::snapshot::BorrowedState;
use super::super::status::{Role, Status};
use super::frame::{self, Hello, Message, PART_BYTES};
use super::{BEAT, SILENCE};
use crate::state::{Change, Expired, Lineage, Revision, View};
use serde_bytes::ByteBuf;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

/// A leader with a quorum has every committed change within this time of its election. A follower that claims to
/// be further has something that was never committed, and gets the state anew.
const AHEAD_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the follow stream broke")]
    Stream(#[from] io::Error),
    #[error("the state does not encode: {0}")]
    Encode(String),
}

/// Serves one follower until its stream breaks or this node no longer votes (then it is told so, and `Ok`).
///
/// # Errors
/// When the stream breaks or the follower sends nonsense.
pub async fn serve<S>(view: View, status: watch::Receiver<Status>, mut stream: S) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let hello: Hello = match frame::read(&mut stream, SILENCE).await {
        Ok(hello) => hello,
        Err(error) => {
            // One of another version reads the number of ours, and can say what is wrong on its side too.
            if error.kind() == io::ErrorKind::InvalidData {
                frame::write(&mut stream, &Message::Refused(error.to_string())).await?;
            }
            return Err(error.into());
        }
    };
    let (lineage, revision) = (hello.lineage, hello.revision);
    let mut served = Served { view, status, stream, lineage, revision, term: 0 };
    served.run().await
}

/// One follower and what it has.
struct Served<S> {
    view: View,
    status: watch::Receiver<Status>,
    stream: S,
    lineage: Option<Lineage>,
    revision: Revision,
    /// The term that the follower was told of last.
    term: u64,
}

/// What a follower needs now.
enum Next {
    Snapshot(Lineage),
    /// With the term of the last one.
    Changes(u64, Vec<Arc<Change>>),
    /// It is further than this node, which will get there.
    Wait,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Served<S> {
    async fn run(&mut self) -> Result<(), ServeError> {
        let mut revisions = self.view.subscribe();
        let mut told: Option<Status> = None;
        let mut beat_due = Instant::now();
        let mut ahead_since = None;
        loop {
            let status = self.status.borrow_and_update().clone();
            revisions.borrow_and_update();
            if status.role == Role::Learner || status.failed.is_some() {
                return self.refuse("this node does not vote").await;
            }
            let next = self.next();
            if !matches!(next, Some(Next::Wait)) {
                ahead_since = None;
            }
            match next {
                None => return self.refuse("this node is in no group").await,
                Some(Next::Snapshot(lineage)) => self.send_snapshot(lineage).await?,
                Some(Next::Changes(term, changes)) => self.send_changes(term, &changes).await?,
                Some(Next::Wait) => {
                    let since: Instant = *ahead_since.get_or_insert_with(Instant::now);
                    if status.role != Role::Leader || !status.quorum {
                        ahead_since = None;
                    } else if since.elapsed() > AHEAD_LIMIT {
                        self.lineage = None;
                        continue;
                    }
                }
            }
            let news = told.as_ref().is_none_or(|told| !told.same_but_progress(&status));
            if news || Instant::now() >= beat_due {
                self.beat(&status).await?;
                beat_due = Instant::now() + BEAT;
                told = Some(status);
            }
            loop {
                tokio::select! {
                    changed = revisions.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return self.refuse("this node is stopping").await,
                    },
                    changed = self.status.changed() => {
                        if changed.is_err() {
                            return self.refuse("this node is stopping").await;
                        }
                        let news = told.as_ref().is_none_or(|told| !told.same_but_progress(&self.status.borrow()));
                        if news {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(beat_due) => break,
                }
            }
        }
    }

    fn next(&self) -> Option<Next> {
        self.view.read(|store| {
            let lineage = store.lineage()?;
            if self.lineage.as_ref() != Some(lineage) {
                return Some(Next::Snapshot(lineage.clone()));
            }
            if self.revision > store.revision() {
                return Some(Next::Wait);
            }
            Some(match store.changes_after(self.revision) {
                Ok(changes) => Next::Changes(store.term(), changes),
                Err(Expired { .. }) => Next::Snapshot(lineage.clone()),
            })
        })
    }

    async fn send_changes(&mut self, term: u64, changes: &[Arc<Change>]) -> Result<(), ServeError> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for change in changes {
            let item = frame::item(change).map_err(|error| ServeError::Encode(error.to_string()))?;
            if bytes + item.len() > PART_BYTES && !items.is_empty() {
                // Only with the last part it has all that the term stands for.
                let (term, items) = (self.term, std::mem::take(&mut items));
                frame::write(&mut self.stream, &Message::Changes { term, items }).await?;
                bytes = 0;
            }
            bytes += item.len();
            items.push(item);
        }
        // A new leader's first entry changes nothing but the term, by which of two copies the newer one is told.
        if !items.is_empty() || term != self.term {
            frame::write(&mut self.stream, &Message::Changes { term, items }).await?;
            self.term = term;
        }
        self.revision = changes.last().map_or(self.revision, |change| change.revision);
        Ok(())
    }

    async fn send_snapshot(&mut self, lineage: Lineage) -> Result<(), ServeError> {
        let state = self.view.read(|store| (store.lineage() == Some(&lineage)).then(|| store.freeze()));
        // The view changed hands between two looks at it: the next look begins anew.
        let Some(state) = state else { return Ok(()) };
        let (revision, term) = (state.revision, state.term);
        let mut encoding = tokio::task::spawn_blocking(move || codec::encode(&BorrowedState::from(&state)));
        let bytes = loop {
            tokio::select! {
                bytes = &mut encoding => break bytes,
                () = tokio::time::sleep(BEAT) => {
                    let status = self.status.borrow().clone();
                    self.beat(&status).await?;
                }
            }
        };
        let bytes = bytes.map_err(|error| ServeError::Encode(error.to_string()))?;
        let bytes = bytes.map_err(|error| ServeError::Encode(error.to_string()))?;
        let announce = Message::Snapshot { lineage: lineage.clone(), bytes: bytes.len() as u64 };
        frame::write(&mut self.stream, &announce).await?;
        for part in bytes.chunks(PART_BYTES) {
            frame::write(&mut self.stream, &Message::Part(ByteBuf::from(part))).await?;
        }
        (self.lineage, self.revision, self.term) = (Some(lineage), revision, term);
        Ok(())
    }

    async fn beat(&mut self, status: &Status) -> Result<(), ServeError> {
        let status = Status { revision: self.view.revision(), ..status.clone() };
        Ok(frame::write(&mut self.stream, &Message::Beat(status)).await?)
    }

    async fn refuse(&mut self, why: &str) -> Result<(), ServeError> {
        Ok(frame::write(&mut self.stream, &Message::Refused(why.into())).await?)
    }
}
