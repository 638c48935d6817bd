//! The fence around automerge and redb: both check their input with errors in most places and with panics in some.
//! Whatever a peer or a disk hands us must be an error of one document or file, not the end of the node.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `run` returns, `None` if it panicked. The caller drops whatever `run` may have left half done.
pub fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}
