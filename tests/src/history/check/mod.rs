//! The judgement of a history. Pure: the same history is always judged the same.
//!
//! What is promised for which answer:
//!
//! | answer | promise | judged by |
//! |---|---|---|
//! | acknowledged, no warning | it happened once, between request and answer, in one order with all others | [`linear`], [`order`] |
//! | the same | it is never missing afterwards: not in a later revision of the same epoch, not at the end | [`durable`] |
//! | acknowledged with a `Warning:` | it happens at some later moment, field by field; a field that somebody else writes meanwhile may go either way, and a deletion wins over edits | [`durable`] |
//! | refused (409, 404, 503, never sent) | it did not happen, and never will | [`agreement`] |
//! | 504, 500, no answer | it happened wholly or not at all | [`linear`], [`durable`] |
//! | a read from a named revision on | nothing older than what the client was shown, or 410 | [`sessions`] |
//! | any read or event | one revision of an object is the same everywhere, and somebody wrote it | [`agreement`] |
//! | a watch | every change in its order, without a gap, until it says 410 | [`watches`] |
//!
//! Beside the clients' history, what containers wrote down themselves is judged: by [`work`] and [`lives`].

pub mod agreement;
pub mod durable;
pub mod linear;
pub mod lives;
pub mod operations;
pub mod order;
pub mod sessions;
pub mod watches;
pub mod work;

#[cfg(test)]
mod tests;

use super::record::History;
use operations::{Operation, Operations};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What a user has lost.
    pub what: String,
    /// The operations that show it.
    pub operations: Vec<usize>,
}

impl Violation {
    /// A violation that these operations show.
    #[must_use]
    pub fn new(what: String, operations: impl IntoIterator<Item = usize>) -> Self {
        let mut operations: Vec<_> = operations.into_iter().collect();
        operations.sort_unstable();
        operations.dedup();
        Self { what, operations }
    }
}

/// How many violations of one rule are told: the first ones say most.
const TOLD: usize = 5;
/// How many operations of one violation are told.
const SHOWN: usize = 24;

/// Everything that is wrong with a history of objects, and how much was looked at.
#[must_use]
pub fn judge(history: &History) -> Vec<Violation> {
    let operations = match Operations::of(history) {
        Ok(operations) => operations,
        Err(violation) => return vec![violation],
    };
    let rules: [fn(&Operations) -> Vec<Violation>; 6] =
        [agreement::check, order::check, linear::check, sessions::check, watches::check, durable::check];
    rules
        .into_iter()
        .flat_map(|rule| {
            let mut violations = rule(&operations);
            let more = violations.len().saturating_sub(TOLD);
            violations.truncate(TOLD);
            if let (Some(last), 1..) = (violations.last_mut(), more) {
                last.what.push_str(&format!(" (and {more} more of this kind)"));
            }
            violations
        })
        .collect()
}

/// Violations as a person reads them: each with the operations that show it, in order.
#[must_use]
pub fn describe(history: &History, violations: &[Violation]) -> String {
    let operations = Operations::of(history);
    let mut text = String::new();
    for violation in violations {
        text.push_str(&format!("\n* {}\n", violation.what));
        let Ok(operations) = &operations else { continue };
        let mut shown: Vec<&Operation> =
            violation.operations.iter().filter_map(|id| operations.all.get(*id)).collect();
        shown.sort_by_key(|operation| operation.invoked_us);
        let left_out = shown.len().saturating_sub(SHOWN);
        if left_out > 0 {
            text.push_str(&format!("    ({left_out} earlier ones left out)\n"));
        }
        for operation in &shown[left_out..] {
            text.push_str(&format!("    {operation}\n"));
        }
    }
    text
}
