//! What the daemon tells its guard: eight bytes each time, written at once or not at all.
//!
//! Both are always of the same build (the guard is the daemon's own program), so the form has no version.

use super::watch::Watch;
use nix::fcntl::OFlag;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe::Receiver;

const MESSAGE_BYTES: usize = size_of::<u64>();
/// In place of a moment: the daemon ends in order. No clock ever shows it.
const FAREWELL: u64 = u64::MAX;
/// Messages read at once.
const AT_ONCE: usize = 64;

/// Both ends. Neither blocks, and neither is inherited unless it is given on.
pub fn pipe() -> io::Result<(OwnedFd, Teller)> {
    let (reading, writing) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((reading, Teller(File::from(writing))))
}

/// The daemon's end.
pub struct Teller(File);

impl Teller {
    /// The agent heeds the hold, and a leader was heard at this moment (0: never).
    pub fn heard(&mut self, moment_ms: u64) -> io::Result<()> {
        self.tell(moment_ms.min(FAREWELL - 1))
    }

    pub fn farewell(&mut self) -> io::Result<()> {
        self.tell(FAREWELL)
    }

    fn tell(&mut self, message: u64) -> io::Result<()> {
        self.0.write_all(&message.to_le_bytes())
    }
}

/// The guard's end.
pub struct Listener {
    pipe: Receiver,
    open: bool,
}

impl Listener {
    pub fn new(end: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(end)?, open: true })
    }

    /// Takes in what was told since the last time.
    pub fn listen(&mut self, watch: &mut Watch) {
        let mut buffer = [0; MESSAGE_BYTES * AT_ONCE];
        while self.open {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(bytes) => {
                    // What is written at once is read at once: no message is cut in two.
                    for message in buffer[..bytes].chunks_exact(MESSAGE_BYTES) {
                        match message.try_into().map(u64::from_le_bytes) {
                            Ok(FAREWELL) => watch.farewell(),
                            Ok(moment_ms) => watch.heard(moment_ms),
                            Err(_) => {}
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.open = false,
            }
        }
        watch.closed();
    }

    /// Waits until there is something to take in; for ever once the daemon has closed its end.
    pub async fn told(&self) -> io::Result<()> {
        if !self.open {
            std::future::pending::<()>().await;
        }
        self.pipe.readable().await
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Step;
    use super::*;

    #[tokio::test]
    async fn what_was_told_arrives_and_so_does_the_end() {
        let (reading, mut teller) = pipe().unwrap();
        let (mut listener, mut watch) = (Listener::new(reading).unwrap(), Watch::new(0));
        assert_eq!(watch.next(1_000_000), Step::Kill);
        for moment_ms in 1..=1000 {
            teller.heard(1_000_000 + moment_ms).unwrap();
        }
        listener.told().await.unwrap();
        listener.listen(&mut watch);
        assert!(!watch.is_over(1_008_000) && watch.is_over(1_010_000) && !watch.is_orphan());
        teller.farewell().unwrap();
        drop(teller);
        listener.told().await.unwrap();
        listener.listen(&mut watch);
        assert_eq!(watch.next(1_000_000), Step::Look);
        assert!(watch.is_orphan());
    }

    #[test]
    fn nobody_waits_for_a_guard_that_does_not_listen() {
        let (reading, mut teller) = pipe().unwrap();
        let full = (0..u64::from(u16::MAX)).find_map(|moment_ms| teller.heard(moment_ms).err());
        assert_eq!(full.unwrap().kind(), ErrorKind::WouldBlock);
        drop(reading);
        assert_eq!(teller.heard(1).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
