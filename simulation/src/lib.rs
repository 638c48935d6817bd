//! The real cores in virtual time: machines, network, clocks and disks that fail by seed.
//!
//! Nothing here waits, and nothing is random but by the seed: the same seed gives the same run, and a run that fails says
//! which one it was, what was violated, and what happened last. [`safety`] asks who may act, and [`work`] what
//! becomes of what is ordered then.

pub mod clock;
pub mod faults;
pub mod network;
pub mod queue;
pub mod raft;
pub mod random;
pub mod safety;
pub mod shrink;
pub mod trace;
pub mod work;
