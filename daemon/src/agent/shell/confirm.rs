//! The loop's part of the hold: noticing that identities must stop, and asking the group whether the view is true.

use super::Shell;
use crate::agent::hold::slept;
use crate::boottime::boottime_ms;
use futures::FutureExt;
use futures::future::BoxFuture;
use gaggle_sched::state::{Revision, Txn};
use std::time::Duration;

/// While identities are here, or the group is yet to be heard, the loop looks this often: that time has passed is
/// told by nobody, and a desktop that wakes up must notice before it does anything else.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A question that failed is asked again after this.
const ASK_AGAIN_MS: u64 = 1_000;

/// What came of a question: when it was asked, and what the group had ordered by then.
pub struct Confirmed {
    asked_ms: u64,
    revision: Option<Revision>,
}

/// The answer to a question, if one is asked.
pub async fn answer(confirming: &mut Option<BoxFuture<'static, Confirmed>>) -> Confirmed {
    match confirming {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

impl Shell {
    /// The uids of the identities that are, or should be, here.
    pub fn singles(&self) -> Vec<String> {
        self.entries.iter().filter(|(_, entry)| entry.is_single()).map(|(uid, _)| uid.clone()).collect()
    }

    pub fn longest_wait(&self, idle: Duration) -> Duration {
        let watchful =
            !self.inputs.hold.was_confirmed() || self.entries.values().any(|entry| entry.is_single());
        if watchful { LOOK_EVERY } else { idle }
    }

    /// First of all in every round: whether identities may still run.
    pub fn heed_the_hold(&mut self) {
        let now_ms = boottime_ms();
        let singles = self.singles();
        // Without identities the loop sleeps for long, and nothing rests on it.
        let slept = slept(self.looked_ms, now_ms) && self.had_singles;
        (self.looked_ms, self.had_singles) = (now_ms, !singles.is_empty());
        let over = self.inputs.hold.is_over() || slept;
        if over {
            self.inputs.hold.lapse();
        }
        if over != self.over || slept {
            if over && !singles.is_empty() {
                tracing::warn!(
                    pods = singles.len(),
                    slept,
                    "no leader has been heard for too long: pods of which at most one may run are stopped"
                );
            }
            self.over = over;
            self.dirty.extend(singles.iter().cloned());
        }
        if slept {
            self.stop_singles();
        }
        if self.confirming.is_none()
            && now_ms >= self.ask_at_ms
            && self.inputs.hold.wants_confirmation(!singles.is_empty())
        {
            self.ask_at_ms = now_ms + ASK_AGAIN_MS;
            let propose = self.inputs.propose.clone();
            let question = async move {
                let ordered = propose.propose(Txn::default()).await;
                let revision = ordered.ok().and_then(Result::ok).map(|applied| applied.revision);
                Confirmed { asked_ms: now_ms, revision }
            };
            self.confirming = Some(question.boxed());
        }
    }

    pub fn confirmed(&mut self, Confirmed { asked_ms, revision }: Confirmed) {
        self.confirming = None;
        let Some(revision) = revision else { return };
        if self.inputs.view.revision() < revision {
            // The view is on its way there; it is asked again.
            return;
        }
        let first = !self.inputs.hold.was_confirmed();
        self.inputs.hold.confirm(asked_ms);
        self.follow_all();
        if first {
            tracing::debug!(%revision, "the group tells what belongs here");
        }
    }
}
