//! What is asked of the documents without changing them: changes are prepared, and it is said what documents hold. It is
//! asked of what is committed, so nobody waits for a write that is under way. To unpack a document takes a while, hence a
//! thread for it.

use super::document::Conflict;
use super::guard::caught;
use super::held::Held;
use super::schema::Schema;
use super::state::{self, State, Wanted};
use super::writer::{MAX_DOCUMENTS, check_key};
use super::{Beyond, Change, DocKey, Heads, IntentError, Noted, Want};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A question, which sends its answer itself.
pub type Job = Box<dyn FnOnce(&Reader) + Send>;

/// What others lack, as far as it fits.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A key, the frame, and whether nothing is missing after it.
    pub frames: Vec<(DocKey, Vec<u8>, bool)>,
    /// How many of the wants were looked at.
    pub answered: usize,
}

pub struct Reader {
    pub held: Arc<Held>,
    pub schema: Arc<dyn Schema>,
    pub actor: String,
}

impl Reader {
    /// Answers until the last sender is gone.
    pub fn run(&self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            // Of a question that fails the asker hears that its answer is gone.
            _ = self.answer(job);
        }
    }

    /// `None` if it failed in a way that nobody has foreseen.
    pub fn answer<T>(&self, question: impl FnOnce(&Self) -> T) -> Option<T> {
        let answer = caught(|| question(self));
        if answer.is_none() {
            tracing::error!("a question to the documents failed in an unforeseen way");
        }
        answer
    }

    /// See [`state::change`].
    pub fn prepare(
        &self,
        key: &str,
        wanted: &Wanted,
        noted: Option<&Noted>,
        now_ms: u64,
    ) -> Result<Change, IntentError> {
        check_key(key)?;
        let state = self.held.state(key)?;
        // Where there is no room for another document, this one never comes, and the object goes without: it is how room is made.
        let ends = matches!(wanted, Wanted::Whole(None));
        let full = || self.held.index().len() >= MAX_DOCUMENTS;
        let noted = noted.filter(|_| !(ends && state.is_none() && full()));
        let change = state::change(state.as_deref(), &self.actor, wanted, noted, &*self.schema, now_ms);
        change.map_err(|source| IntentError::Prepare { key: key.to_owned(), source })
    }

    /// What the key's document says; `None` if it is deleted or not here.
    pub fn value(&self, key: &str) -> Result<Option<Value>, IntentError> {
        Ok(self.held.state(key)?.and_then(|state| state.value(&*self.schema)))
    }

    /// The document's heads, if it holds all of these or was begun anew since. `incarnation`: of which the heads are, as far
    /// as that is known.
    pub fn beyond(
        &self,
        key: &str,
        incarnation: Option<u32>,
        heads: &Heads,
    ) -> Result<Option<Beyond>, IntentError> {
        Ok(state::beyond(self.held.state(key)?.as_deref(), incarnation, heads))
    }

    pub fn conflicts(&self, key: &str, since: &Heads) -> Result<Vec<Conflict>, IntentError> {
        Ok(match self.held.state(key)?.as_deref() {
            Some(State::Document(document)) => document.conflicts(since),
            Some(State::Buried { .. }) | None => Vec::new(),
        })
    }

    /// What those who hold only this much lack, as far as the budget goes.
    pub fn since(&self, wants: &[Want], budget: usize) -> Result<Sent, IntentError> {
        let mut sent = Sent::default();
        let mut bytes = 0;
        for want in wants {
            if let Some(state) = self.held.state(&want.key)?
                && let Some((frame, complete)) = state::since(&state, want.incarnation, &want.heads, budget)
            {
                if bytes + frame.len() > budget && !sent.frames.is_empty() {
                    break;
                }
                bytes += frame.len() + want.key.len();
                sent.frames.push((want.key.clone(), frame, complete));
            }
            sent.answered += 1;
        }
        Ok(sent)
    }
}
