//! How far the log is on the disk.
//!
//! openraft 0.9 waits for the disk before it sends to anybody what was appended, so that a write would pay for two flushes,
//! one after the other. Here an append is answered at once, and a leader's goes out while it is flushed (Ongaro's
//! dissertation, 10.2.1). What is claimed of it waits here instead: a voter's word that it holds an entry, a leader's that one
//! is committed, and the commit itself before it is applied. So nobody counts on what only this node's memory holds.

use std::collections::VecDeque;
use tokio::sync::watch;

/// Entries as they are stored, by their indices.
pub(super) type Records = Vec<(u64, Vec<u8>)>;

/// Appends that are not on the disk: one is written, the others wait. A further append waits for room.
const APPENDS: usize = 2;

/// What was appended will not be on the disk: nothing is written any more until the log is opened again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was appended did not reach the disk: {0}")]
pub struct Unwritten(String);

#[derive(Debug, Default)]
pub(in super::super) struct Flushed {
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// First and last index of each append that is not on the disk, the one that is written first.
    pending: VecDeque<(u64, u64)>,
    /// Those behind the one that is written.
    waiting: VecDeque<Records>,
    failed: Option<Unwritten>,
}

impl State {
    fn is_on_disk(&self, index: u64) -> bool {
        self.pending.front().is_none_or(|(first, _)| *first > index)
    }
}

impl Flushed {
    /// Waits until every entry up to this one is on the disk; one that was never appended counts as there.
    pub async fn up_to(&self, index: u64) -> Result<(), Unwritten> {
        self.wait(|state| state.is_on_disk(index)).await
    }

    /// Waits for everything that has been appended so far.
    pub async fn all(&self) -> Result<(), Unwritten> {
        let last = self.state.borrow().pending.back().map(|(_, last)| *last);
        match last {
            Some(last) => self.up_to(last).await,
            None => self.wait(|_| true).await,
        }
    }

    async fn wait(&self, reached: impl Fn(&State) -> bool) -> Result<(), Unwritten> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| state.failed.is_some() || reached(state)).await;
        // The sender is this one's own.
        state.map_or(Ok(()), |state| state.failed.clone().map_or(Ok(()), Err))
    }

    /// Why nothing is written any more.
    pub fn failure(&self) -> Option<Unwritten> {
        self.state.borrow().failed.clone()
    }

    pub(super) async fn room(&self) -> Result<(), Unwritten> {
        self.wait(|state| state.pending.len() < APPENDS).await
    }

    /// Takes what was appended, which is not empty. What is to be written at once comes back: nothing is being written, and
    /// whoever writes it goes on with [`Self::written`].
    pub(super) fn append(&self, records: Records) -> Option<Records> {
        let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) else { return None };
        let range = (*first, *last);
        let mut now = None;
        self.state.send_modify(|state| {
            match state.pending.is_empty() {
                true => now = Some(records),
                false => state.waiting.push_back(records),
            }
            state.pending.push_back(range);
        });
        now
    }

    /// One append is on the disk: the next one to be written.
    pub(super) fn written(&self) -> Option<Records> {
        let mut next = None;
        self.state.send_modify(|state| {
            state.pending.pop_front();
            next = state.waiting.pop_front();
        });
        next
    }

    pub(super) fn fail(&self, why: &dyn std::error::Error) {
        let mut text = why.to_string();
        let mut source = why.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.state.send_modify(|state| {
            state.waiting.clear();
            state.failed = Some(Unwritten(text));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, poll};

    fn records(range: std::ops::RangeInclusive<u64>) -> Records {
        range.map(|index| (index, Vec::new())).collect()
    }

    #[tokio::test]
    async fn who_speaks_of_an_entry_waits_for_it_and_not_for_later_ones() {
        let flushed = Flushed::default();
        assert_eq!(flushed.all().now_or_never(), Some(Ok(())));
        assert_eq!(flushed.append(records(1..=2)), Some(records(1..=2)));
        assert_eq!(flushed.append(records(3..=3)), None, "one after the other");
        let (mut two, mut room, mut all) =
            (Box::pin(flushed.up_to(2)), Box::pin(flushed.room()), Box::pin(flushed.all()));
        assert_eq!(flushed.up_to(0).now_or_never(), Some(Ok(())));
        assert!(poll!(&mut two).is_pending() && poll!(&mut room).is_pending());
        assert!(poll!(&mut all).is_pending());
        assert_eq!(flushed.written(), Some(records(3..=3)));
        assert_eq!((two.await, room.await), (Ok(()), Ok(())));
        assert_eq!(flushed.append(records(4..=4)), None);
        assert!(poll!(&mut all).is_pending());
        assert_eq!(flushed.written(), Some(records(4..=4)));
        assert_eq!(all.await, Ok(()), "the fourth came after the question");
        assert_eq!(flushed.up_to(4).now_or_never(), None);
        assert_eq!(flushed.written(), None);
        assert_eq!(flushed.append(records(5..=5)), Some(records(5..=5)));
    }

    #[tokio::test]
    async fn after_a_failure_nobody_is_told_that_anything_is_there() {
        let flushed = Flushed::default();
        flushed.append(records(1..=1));
        let mut one = Box::pin(flushed.up_to(1));
        assert!(poll!(&mut one).is_pending());
        flushed.fail(&std::io::Error::other("the disk is full"));
        let error = one.await.unwrap_err();
        assert_eq!(flushed.failure(), Some(error.clone()));
        assert_eq!(error.to_string(), "what was appended did not reach the disk: the disk is full");
        for later in
            [flushed.up_to(0).now_or_never(), flushed.all().now_or_never(), flushed.room().now_or_never()]
        {
            assert_eq!(later, Some(Err(error.clone())));
        }
    }
}
