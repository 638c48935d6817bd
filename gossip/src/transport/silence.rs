//! A connection on which nothing is heard for too long is dead.
//!
//! A desktop whose plug is pulled says no goodbye, and the kernel would go on sending to it for a quarter of an
//! hour. Both ends ping every second, so silence means death. The deadline sits below everything else: its error
//! ends the connection and all streams on it at once, also while the send buffer is full.
//!
//! Unless it was this process that did not listen, because it was frozen or starved: whoever notices the silence late
//! listens for a little longer first.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

/// A silence that is noticed this much after it was too long was not listened to.
const LATE: Duration = Duration::from_millis(500);
/// What is listened for then, once for each silence.
const EXTRA: Duration = Duration::from_millis(1500);

/// A byte stream that fails to read with `TimedOut` after a silence.
pub(super) struct Watched<S> {
    inner: S,
    longest: Duration,
    heard: Instant,
    /// Whether this silence was forgiven once.
    forgiven: bool,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, longest: Duration) -> Self {
        Self {
            inner,
            longest,
            heard: Instant::now(),
            forgiven: false,
            alarm: Box::pin(tokio::time::sleep(longest)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            // The alarm is set anew when it rings, not at every read.
            this.heard = Instant::now();
            this.forgiven = false;
            return Poll::Ready(read);
        }
        while this.alarm.as_mut().poll(cx).is_ready() {
            let (deadline, now) = (this.heard + this.longest, Instant::now());
            if now.saturating_duration_since(deadline) >= LATE && !this.forgiven {
                this.forgiven = true;
                this.alarm.as_mut().reset(now + EXTRA);
                continue;
            }
            if deadline <= now {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "nothing heard for too long",
                )));
            }
            this.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    #[tokio::test]
    async fn a_peer_that_falls_silent_is_noticed_and_one_that_speaks_is_not() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut theirs, longest) = (theirs.compat(), Duration::from_millis(300));
        let mut ours = Watched::new(ours.compat(), longest);
        let started = Instant::now();
        let speak = async {
            for _ in 0..8 {
                theirs.write_all(b"x").await.unwrap();
                tokio::time::sleep(longest / 4).await;
            }
            theirs
        };
        let hear = async {
            let mut heard = 0;
            let mut byte = [0u8; 1];
            loop {
                match ours.read(&mut byte).await {
                    Ok(read) => heard += read,
                    Err(error) => return (heard, error.kind()),
                }
            }
        };
        let (_kept_open, (heard, kind)) = tokio::join!(speak, hear);
        assert_eq!((heard, kind), (8, io::ErrorKind::TimedOut));
        assert!(started.elapsed() >= longest * 2);
    }

    #[tokio::test]
    async fn who_was_frozen_itself_listens_once_more_before_it_gives_up() {
        let (ours, theirs) = tokio::io::duplex(64);
        let (mut theirs, longest) = (theirs.compat(), Duration::from_millis(100));
        let mut ours = Watched::new(ours.compat(), longest);
        let mut byte = [0u8; 1];
        // All of this process stands still, which is what freezing a desktop does.
        std::thread::sleep(longest + LATE);
        // The other side speaks after this one has looked at the clock.
        let speak = async {
            tokio::task::yield_now().await;
            theirs.write_all(b"x").await.unwrap();
            theirs
        };
        let (read, _kept_open) = tokio::join!(ours.read(&mut byte), speak);
        assert_eq!(read.unwrap(), 1);
        let silent = Instant::now();
        assert_eq!(ours.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(silent.elapsed() < EXTRA, "nothing to forgive this time");
    }
}
