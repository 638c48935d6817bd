//! Following: how a node that does not vote gets every committed change from one that does.
//!
//! One stream, any transport. The follower says what it has, the voter sends what is missing (changes, or the whole
//! state when its history does not reach back that far), then each change as it is committed, and a beat with its
//! status in between.

mod follower;
mod frame;
mod server;

pub use follower::{FollowError, follow};
pub use server::{ServeError, serve};

use std::time::Duration;

/// A voter says something at least this often.
pub const BEAT: Duration = Duration::from_millis(200);

/// A voter that has said nothing for this long is given up: ten beats, since desktops are busy with their owners.
pub const SILENCE: Duration = Duration::from_secs(2);
