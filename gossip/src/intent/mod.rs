//! Intent: what people asked for, as one automerge document per object, on every node.

mod document;
mod frame;
mod guard;
mod order;
#[cfg(test)]
mod samples;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod vet;

pub use schema::{KeyField, KubernetesLists, Schema};

pub type Heads = Vec<[u8; 32]>;
