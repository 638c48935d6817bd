//! Histories: what clients did on a bench while desktops died, and whether what they were answered was kept.
//!
//! [`record`] says what a history is made of, [`access`] talks to the API, [`clients`] and [`watchers`] make
//! histories, [`work`] brings along pods that leave traces outside of the product, and [`check`] judges what was
//! recorded. Judging is pure: a history in a file can be judged again.

pub mod access;
pub mod check;
pub mod clients;
pub mod record;
pub mod run;
pub mod watchers;
pub mod work;
