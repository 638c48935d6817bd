//! Who votes, and which group a node belongs to.
//!
//! Pure rules: what is known goes in, what should happen comes out, with the reason. They know no clock (time is an
//! argument), no network and no Raft; whoever calls them acts on the answer.

pub mod assembly;
pub mod attempts;
pub mod founding;
pub mod presence;
pub mod roster;
mod steadiness;
mod tenure;
mod voters;

pub use steadiness::{Steadiness, SteadinessRules};
pub use tenure::{Own, Tenure, TenureRules, Theirs};
pub use voters::{Candidate, Input, Need, VoterChange, VoterRules, next_change, size_for};
