//! What should run where.
//!
//! This crate owns the scheduling state, the Raft group that orders it, and the pure cores that act on it
//! (controllers, scheduler, electorate). It must never know sockets, Docker or libp2p: bytes go out and come
//! in through traits.

pub mod admission;
pub mod controller;
pub mod electorate;
mod formats;
pub mod raft;
pub mod runner;
pub mod scheduler;
pub mod state;

pub use formats::Formats;
