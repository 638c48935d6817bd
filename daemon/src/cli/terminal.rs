//! The terminal that a command was typed in: its size, and the mode in which every key goes through.

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::stdin;

/// Gives the terminal back as it was, when it is dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// # Errors
    /// If standard input is no terminal.
    pub fn enter() -> nix::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Width and height in characters; `None` if there is no terminal.
pub fn size() -> Option<(u16, u16)> {
    console::Term::stdout().size_checked().map(|(height, width)| (width, height))
}
