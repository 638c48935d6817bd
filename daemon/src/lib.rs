//! The daemon that every desktop runs, and its command line.

pub mod agent;
pub mod api;
pub mod app;
pub mod cli;
pub mod documents;
pub mod flock;
pub mod options;
pub mod pods;
