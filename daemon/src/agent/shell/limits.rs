//! How much the engine is asked to do at once, and what goes first. It must never know what the work is for.

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit, watch};

/// How many containers are created and started at once. An engine does not get faster beyond it (measured: four
/// to five in flight give its best rate), and every one more makes each of them slower.
const STARTS_AT_ONCE: usize = 5;

/// Removals give way to starts, which somebody waits for.
const REMOVALS_AT_ONCE: usize = 2;

/// What tasks share, so that the engine and the disk are not overrun.
pub struct Limits {
    starts: Semaphore,
    removals: Semaphore,
    /// Containers that wait for their start.
    waiting: watch::Sender<usize>,
}

impl Limits {
    pub fn new() -> Self {
        Self {
            starts: Semaphore::new(STARTS_AT_ONCE),
            removals: Semaphore::new(REMOVALS_AT_ONCE),
            waiting: watch::Sender::new(0),
        }
    }

    /// Before a container of a pod that has its sandbox.
    pub async fn container(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        let _waiting = Waiting::new(&self.waiting);
        self.starts.acquire().await
    }

    /// Before a sandbox: pods that are begun come first, so that of many some are done soon, and few sandboxes
    /// stand idle.
    pub async fn sandbox(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        let mut waiting = self.waiting.subscribe();
        loop {
            // The sender is our own, so it is there.
            let _ = waiting.wait_for(|containers| *containers == 0).await;
            let permit = self.starts.acquire().await?;
            if *self.waiting.borrow() == 0 {
                return Ok(permit);
            }
        }
    }

    pub async fn removal(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.removals.acquire().await
    }
}

/// One that waits, for as long as this lives.
struct Waiting<'w>(&'w watch::Sender<usize>);

impl<'w> Waiting<'w> {
    fn new(count: &'w watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_container_goes_before_sandboxes_that_have_waited_longer() {
        let limits = Limits::new();
        let mut held = Vec::new();
        for _ in 0..STARTS_AT_ONCE {
            held.push(limits.sandbox().await.unwrap());
        }
        let mut sandbox = std::pin::pin!(limits.sandbox());
        assert!(sandbox.as_mut().now_or_never().is_none());
        let mut container = std::pin::pin!(limits.container());
        assert!(container.as_mut().now_or_never().is_none());
        held.pop();
        assert!(sandbox.as_mut().now_or_never().is_none(), "it gives way");
        held.push(container.await.unwrap());
        assert!(sandbox.as_mut().now_or_never().is_none());
        held.pop();
        let _permit = sandbox.await.unwrap();
    }
}
