//! Who votes, and which group a node belongs to.
//!
//! Pure rules: what is known goes in, what should happen comes out, with the reason. They know no clock (time is an
//! argument), no network and no Raft; whoever calls them acts on the answer.

pub mod assembly;
pub mod founding;
pub mod presence;
pub mod roster;
mod voters;

pub use voters::{Candidate, Input, VoterChange, VoterRules, next_change, size_for};
