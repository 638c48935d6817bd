//! What others ask about this desktop's pods while the loop goes on: the loop alone knows their containers.

use super::Shell;
use super::entry::Entry;
use crate::agent::logs::{self, LogTarget};
use crate::agent::talk::{self, Address, Running};
use crate::pods::{LogOptions, PodRef, StreamError};
use tokio::sync::oneshot;

/// Questions about pods that wait for the loop.
pub const QUESTIONS_WAITING: usize = 64;

/// Where the answer to a question goes.
pub type Answer<T> = oneshot::Sender<Result<T, StreamError>>;

/// What is asked about a pod on this desktop.
pub enum Question {
    /// Which container's log is meant.
    Log { pod: PodRef, options: LogOptions, answer: Answer<LogTarget> },
    /// Which running container can be talked with.
    Running { pod: PodRef, container: String, answer: Answer<Running> },
    /// Where its ports are.
    Address { pod: PodRef, answer: Answer<Address> },
}

impl Shell {
    /// Finds what is asked for among this desktop's pods. Whoever asked may have gone.
    pub fn answer(&mut self, question: Question) {
        match question {
            Question::Log { pod, options, answer } => {
                let found = self.entry_for(&pod).and_then(|entry| {
                    let status = entry.memory.status.as_ref();
                    logs::target(entry.pod(), &entry.id, &entry.containers, status, &options)
                });
                let _ = answer.send(found);
            }
            Question::Running { pod, container, answer } => {
                let found = self
                    .entry_for(&pod)
                    .and_then(|entry| talk::running(entry.pod(), &entry.id, &entry.containers, &container));
                let _ = answer.send(found);
            }
            Question::Address { pod, answer } => {
                let found = self
                    .entry_for(&pod)
                    .and_then(|entry| talk::address(entry.pod(), &entry.id, &entry.containers));
                let _ = answer.send(found);
            }
        }
    }

    /// The pod, if it is this desktop's and the engine answers.
    fn entry_for(&self, pod: &PodRef) -> Result<&Entry, StreamError> {
        let missing = || StreamError::NotFound(format!("pod \"{}\" is not on this desktop", pod.name));
        let entry = self.entries.get(&pod.uid).ok_or_else(missing)?;
        if self.linked.is_none() {
            let problem = self.inputs.engine_state.borrow().problem.clone().unwrap_or_default();
            return Err(StreamError::Unavailable(problem));
        }
        Ok(entry)
    }
}
