//! Pods on this desktop.

mod engine;
mod identity;
mod planner;
mod spec;
