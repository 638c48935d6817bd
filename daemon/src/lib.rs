//! The daemon that every desktop runs, and its command line.
//!
//! `app` wires the parts together; `api`, `agent`, `flock`, `remote` and `control` are the parts; `guard` is the process
//! beside it; `cli` is what a person types. The parts know each other only through the traits in `documents` and `pods`, through
//! the view, and through `sched`'s `Propose`.

pub mod agent;
pub mod api;
pub mod app;
pub mod boottime;
pub mod cli;
pub mod control;
pub mod datadir;
pub mod documents;
pub mod flock;
pub mod guard;
pub mod jsonpath;
pub mod kubeconfig;
pub mod options;
pub mod owner;
pub mod pki;
pub mod pods;
pub mod remote;
pub mod tokens;
pub mod usage;
pub mod wire;
