//! Who may do what: role-based access control, as Kubernetes has it.
//!
//! `attributes` says what a request is about, `rules` whether a rule allows it, `policy` which rules somebody has, all
//! pure; `gate` is the one place through which every request comes in, and `grants` keeps people from handing out what
//! they do not have. Who somebody is was found out before.
//! (Kubernetes, "Authorization Overview" and "Using RBAC Authorization".)

mod attributes;
mod gate;
mod grants;
mod impersonation;
mod policy;
mod rules;

pub use attributes::{Asked, Attributes};
pub use gate::{authorize, guard};
pub use grants::{check as check_grants, is_judged};
pub use policy::{Policy, Verdict};

/// Whoever is in this group may do everything, whatever the store holds or lacks.
pub const MASTERS: &str = "system:masters";
/// Everybody who has shown who it is.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Where roles and their bindings are.
pub const GROUP: &str = "rbac.authorization.k8s.io";

#[cfg(test)]
mod tests;
