//! Numbered streams within one connection, whichever protocol carries them.

use tokio::sync::mpsc;

/// What is done on a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    Send(Vec<u8>),
    /// Nothing more will be sent.
    End,
    /// Nothing more comes or goes.
    Reset,
}

/// For whoever writes the connection: a lane's number, and what is done on it.
pub type Command = (u32, Act);

/// Commands that wait to be written. Beyond them the lanes wait.
pub const COMMANDS_WAITING: usize = 8;

/// The connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The sending side of one stream.
#[derive(Clone, Debug)]
pub struct Lane {
    id: u32,
    commands: mpsc::Sender<Command>,
}

impl Lane {
    pub fn new(id: u32, commands: mpsc::Sender<Command>) -> Self {
        Self { id, commands }
    }

    /// Returns when there is room for it, which is as fast as the client reads.
    pub async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.act(Act::Send(bytes)).await
    }

    pub async fn end(&self) {
        // Where nobody is left to be told, it has ended.
        let _ = self.act(Act::End).await;
    }

    pub async fn reset(&self) {
        let _ = self.act(Act::Reset).await;
    }

    async fn act(&self, act: Act) -> Result<(), Gone> {
        self.commands.send((self.id, act)).await.map_err(|_| Gone)
    }
}
