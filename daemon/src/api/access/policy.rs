//! Which rules somebody has, by the bindings and roles of a store.

use super::attributes::Attributes;
use super::{MASTERS, rules};
use crate::api::auth::User;
use gaggle_sched::state::Store;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use std::ops::ControlFlow;

/// Roles that are not there, named in a verdict.
const MISSING_SHOWN: usize = 8;
/// How the user of a ServiceAccount is called: `system:serviceaccount:NAMESPACE:NAME`.
pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What is allowed by what a store holds.
#[derive(Clone, Copy)]
pub struct Policy<'a>(pub &'a Store);

/// Whether somebody may, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(String),
    /// The reason is empty where there is none but that nothing allows it.
    Denied(String),
}

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Allowed(reason) | Self::Denied(reason) => reason,
        }
    }
}

/// All rules that somebody has in a namespace, and the roles that were not found.
#[derive(Debug, Default)]
pub struct Held {
    pub rules: Vec<PolicyRule>,
    pub missing: Vec<String>,
}

impl Policy<'_> {
    pub fn decide(self, user: &User, attributes: &Attributes) -> Verdict {
        if is_master(user) {
            return Verdict::Allowed(String::new());
        }
        let mut missing = Vec::new();
        let found =
            self.visit(user, attributes.namespace(), &mut missing, |source, rule| {
                match rules::allows(rule, attributes) {
                    true => ControlFlow::Break(source()),
                    false => ControlFlow::Continue(()),
                }
            });
        match found {
            ControlFlow::Break(why) => Verdict::Allowed(format!("RBAC: allowed by {why}")),
            ControlFlow::Continue(()) if missing.is_empty() => Verdict::Denied(String::new()),
            ControlFlow::Continue(()) => Verdict::Denied(format!("RBAC: {}", told(&missing))),
        }
    }

    /// The rules that somebody has: everywhere, and in `namespace` if that is not empty.
    pub fn held(self, user: &User, namespace: &str) -> Held {
        let mut held = Held::default();
        if is_master(user) {
            held.rules = everything();
            return held;
        }
        let Held { rules, missing } = &mut held;
        let _ = self.visit(user, namespace, missing, |_, rule| {
            rules.push(rule.clone());
            ControlFlow::<()>::Continue(())
        });
        held
    }

    /// The rules of a role; what to say where it is not there.
    pub fn rules_of(self, role: &RoleRef, namespace: &str) -> Result<Vec<PolicyRule>, String> {
        let found = match role.kind.as_str() {
            "Role" => self
                .0
                .get_as::<Role>(namespace, &role.name)
                .map(|role| role.rules.clone().unwrap_or_default()),
            _ => self
                .0
                .get_as::<ClusterRole>("", &role.name)
                .map(|role| role.rules.clone().unwrap_or_default()),
        };
        found.ok_or_else(|| {
            let kind = role.kind.to_ascii_lowercase();
            format!("{kind}.{} \"{}\" not found", super::GROUP, role.name)
        })
    }

    /// Shows every rule that somebody has, with the words for where it is from, until one is enough.
    fn visit<B>(
        self,
        user: &User,
        namespace: &str,
        missing: &mut Vec<String>,
        mut each: impl FnMut(&dyn Fn() -> String, &PolicyRule) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let mut of_binding = |kind: &str, name: &str, namespace: &str, role: &RoleRef, subject: &Subject| {
            let source = || {
                let (at, role_kind) = (if namespace.is_empty() { "" } else { "/" }, &role.kind);
                let to = match subject.kind.as_str() {
                    "ServiceAccount" => {
                        let of = subject.namespace.as_deref().unwrap_or(namespace);
                        format!("{}/{of}", subject.name)
                    }
                    _ => subject.name.clone(),
                };
                let name = format!("{name}{at}{namespace}");
                format!("{kind} {name:?} of {role_kind} {:?} to {} {to:?}", role.name, subject.kind)
            };
            let rules = match self.rules_of(role, namespace) {
                Ok(rules) => rules,
                Err(why) => {
                    if missing.len() < MISSING_SHOWN {
                        missing.push(why);
                    }
                    return ControlFlow::Continue(());
                }
            };
            rules.iter().try_for_each(|rule| each(&source, rule))
        };
        for binding in self.0.list_as::<ClusterRoleBinding>(None) {
            if let Some(subject) = of_user(binding.subjects.as_deref(), user, "") {
                let name = binding.metadata.name.as_deref().unwrap_or_default();
                of_binding("ClusterRoleBinding", name, "", &binding.role_ref, subject)?;
            }
        }
        if namespace.is_empty() {
            return ControlFlow::Continue(());
        }
        for binding in self.0.list_as::<RoleBinding>(Some(namespace)) {
            if let Some(subject) = of_user(binding.subjects.as_deref(), user, namespace) {
                let name = binding.metadata.name.as_deref().unwrap_or_default();
                of_binding("RoleBinding", name, namespace, &binding.role_ref, subject)?;
            }
        }
        ControlFlow::Continue(())
    }
}

pub fn is_master(user: &User) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

/// The rules of whoever may do everything.
pub fn everything() -> Vec<PolicyRule> {
    let any = || Some(vec!["*".to_owned()]);
    let verbs = vec!["*".to_owned()];
    vec![
        PolicyRule { api_groups: any(), resources: any(), verbs: verbs.clone(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: any(), verbs, ..PolicyRule::default() },
    ]
}

/// As Kubernetes tells several errors at once.
pub fn told(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// The subject that is the user, or a group that the user is in.
fn of_user<'s>(subjects: Option<&'s [Subject]>, user: &User, namespace: &str) -> Option<&'s Subject> {
    subjects.unwrap_or_default().iter().find(|subject| match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.groups.contains(&subject.name),
        "ServiceAccount" => {
            let of = subject.namespace.as_deref().filter(|of| !of.is_empty()).unwrap_or(namespace);
            !of.is_empty()
                && user.name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'))
                    == Some((of, &subject.name))
        }
        _ => false,
    })
}
