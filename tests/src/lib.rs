//! Several desktops on one machine, and what the suites need to talk to them.
//!
//! A desktop is a set of Linux namespaces with its own network interface and its own Docker engine; a bench is some
//! of them on one switch. Nothing here knows how gaggle works inside: the suites see what a user sees, the
//! `gaggle` and `kubectl` commands, the engines and the files.

pub mod bench;
pub mod client;
pub mod comparison;
pub mod corpus;
pub mod engine;
pub mod history;
pub mod http;
pub mod kube;
pub mod nemesis;
pub mod script;
pub mod seed;
