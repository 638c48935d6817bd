//! ResourceQuotas: what a namespace may have in all
//! (<https://kubernetes.io/docs/concepts/policy/resource-quotas/>).
//!
//! What a new object takes is charged to the quota's status in the transaction that makes the object, which expects the
//! quota's revision: two desktops cannot both hand out the last of it. What becomes free is counted by the controller.

use super::amount::{Amount, Amounts, add, amounts};
use super::usage;
use crate::controller::loaded::{Loaded, set};
use crate::state::{Key, Resource, Store, Write, resource_of};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceQuota, ScopedResourceSelectorRequirement};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PODS: Resource = Resource::fixed("pods");
/// What every container has to state once a quota bounds it.
const STATED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// The quotas that were charged while one plan was made.
pub struct Ledger<'a> {
    store: &'a Store,
    accounts: BTreeMap<Key, Account>,
    /// Namespaces whose quotas are in `accounts`.
    opened: BTreeSet<String>,
}

struct Account {
    quota: Loaded<ResourceQuota>,
    hard: Amounts,
    used: Amounts,
    is_charged: bool,
}

impl<'a> Ledger<'a> {
    pub fn new(store: &'a Store) -> Self {
        Self { store, accounts: BTreeMap::new(), opened: BTreeSet::new() }
    }

    /// Completes a pod, checks it, and charges it. Nothing is charged if it is refused.
    pub fn admit(&mut self, pod: &mut Pod) -> Result<(), String> {
        super::complete(self.store, pod)?;
        super::check_limits(self.store, pod)?;
        self.charge_pod(pod)
    }

    /// Charges a pod that was completed and checked.
    pub fn charge_pod(&mut self, pod: &Pod) -> Result<(), String> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        self.open(&namespace);
        let asked = usage::of_pod(pod);
        for account in self.accounts_of(&namespace).filter(|account| account.matches(pod)) {
            account.wants_stated(pod)?;
            account.allows(&asked)?;
        }
        self.accounts_of(&namespace).filter(|account| account.matches(pod)).for_each(|it| it.charge(&asked));
        Ok(())
    }

    /// Charges an object of another kind.
    pub fn charge(&mut self, resource: &Resource, namespace: &str, value: &Value) -> Result<(), String> {
        self.take(namespace, &usage::of_object(resource.as_str(), value))
    }

    /// Charges what an object takes more than before; a claim that grows, a Service that gets more ports.
    pub fn charge_growth(
        &mut self,
        resource: &Resource,
        namespace: &str,
        (before, after): (&Value, &Value),
    ) -> Result<(), String> {
        let asked = usage::of_growth(resource.as_str(), before, after);
        if asked.is_empty() { Ok(()) } else { self.take(namespace, &asked) }
    }

    fn take(&mut self, namespace: &str, asked: &Amounts) -> Result<(), String> {
        self.open(namespace);
        for account in self.accounts_of(namespace).filter(|account| !account.is_scoped()) {
            account.allows(asked)?;
        }
        self.accounts_of(namespace).filter(|account| !account.is_scoped()).for_each(|it| it.charge(asked));
        Ok(())
    }

    /// What has to happen together with the making of what was admitted.
    pub fn writes(self) -> Vec<Write> {
        let charged = self.accounts.into_values().filter(|account| account.is_charged);
        charged.map(|account| write_status(&account.quota, &account.hard, &account.used)).collect()
    }

    fn accounts_of(&mut self, namespace: &str) -> impl Iterator<Item = &mut Account> {
        self.accounts
            .iter_mut()
            .filter(move |(key, _)| key.namespace == namespace)
            .map(|(_, account)| account)
    }

    fn open(&mut self, namespace: &str) {
        if !self.opened.insert(namespace.to_owned()) {
            return;
        }
        for (key, object) in self.store.list(&resource_of::<ResourceQuota>(), Some(namespace)) {
            let quota = Loaded::<ResourceQuota>::from_object(key.clone(), object);
            let Some(quota) = quota.filter(|_| !object.is_terminating()) else { continue };
            let hard = hard_of(&quota);
            let told = quota.status.as_ref();
            // Counted anew where the controller has not yet seen what is bounded now.
            let used = match told.filter(|told| amounts(told.hard.as_ref()) == hard) {
                Some(told) => amounts(told.used.as_ref()),
                None => count(self.store, &quota, &hard),
            };
            self.accounts.insert(key, Account { quota, hard, used, is_charged: false });
        }
    }
}

impl Account {
    fn is_scoped(&self) -> bool {
        !scopes(&self.quota).is_empty()
    }

    fn matches(&self, pod: &Pod) -> bool {
        matches(&self.quota, pod)
    }

    fn wants_stated(&self, pod: &Pod) -> Result<(), String> {
        let wanted: Vec<&str> = STATED.into_iter().filter(|name| self.hard.contains_key(*name)).collect();
        let Some(spec) = pod.spec.as_ref().filter(|_| !wanted.is_empty()) else { return Ok(()) };
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            for name in wanted.iter().filter(|name| !states(container, name)) {
                missing.entry(*name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let parts = missing.into_iter().map(|(name, containers)| {
            format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
        });
        let parts = parts.collect::<Vec<_>>().join("; ");
        Err(format!("failed quota: {}: must specify {parts}", self.quota.key.name))
    }

    fn allows(&self, asked: &Amounts) -> Result<(), String> {
        let zero = Amount::count(0);
        let used = |name: &String| self.used.get(name).copied().unwrap_or(zero);
        let exceeded: Vec<&String> = asked
            .iter()
            .filter(|(_, amount)| amount.millis > 0)
            .filter(|(name, amount)| {
                self.hard.get(*name).is_some_and(|hard| used(name).plus(**amount).millis > hard.millis)
            })
            .map(|(name, _)| name)
            .collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let list = |amount: &dyn Fn(&String) -> Amount| {
            exceeded.iter().map(|name| format!("{name}={}", amount(name))).collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            self.quota.key.name,
            list(&|name| asked[name]),
            list(&used),
            list(&|name| self.hard[name])
        ))
    }

    fn charge(&mut self, asked: &Amounts) {
        let counted: Amounts = asked
            .iter()
            .filter(|(name, _)| self.hard.contains_key(*name))
            .map(|(n, a)| (n.clone(), *a))
            .collect();
        self.is_charged |= !counted.is_empty();
        add(&mut self.used, &counted);
    }
}

/// Whether a container says how much of it it wants.
fn states(container: &Container, name: &str) -> bool {
    let resources = container.resources.as_ref();
    let (field, name) = match name.split_once('.') {
        Some(("limits", name)) => (resources.and_then(|resources| resources.limits.as_ref()), name),
        Some((_, name)) => (resources.and_then(|resources| resources.requests.as_ref()), name),
        None => (resources.and_then(|resources| resources.requests.as_ref()), name),
    };
    field.is_some_and(|given| given.contains_key(name))
}

pub(crate) fn hard_of(quota: &ResourceQuota) -> Amounts {
    amounts(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

/// What is in use of everything that a quota bounds, counted object by object.
pub(crate) fn count(store: &Store, quota: &Loaded<ResourceQuota>, hard: &Amounts) -> Amounts {
    let namespace = quota.key.namespace.as_str();
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Amount::count(0))).collect();
    let mut take = |amounts: Amounts| {
        let counted: Amounts = amounts.into_iter().filter(|(name, _)| hard.contains_key(name)).collect();
        add(&mut used, &counted);
    };
    let scopes = scopes(quota);
    for resource in resources(hard.keys()) {
        for (_, object) in store.list(&resource, Some(namespace)) {
            if resource == PODS {
                let pod = object.typed::<Pod>().filter(|pod| scopes.iter().all(|scope| is_in(scope, pod)));
                pod.into_iter().for_each(|pod| take(usage::of_pod(&pod)));
            } else if scopes.is_empty() {
                take(usage::of_object(resource.as_str(), object.value()));
            }
        }
    }
    used
}

/// Whether the objects of a resource count in a quota.
pub(crate) fn counts(quota: &ResourceQuota, resource: &Resource) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    resources(hard.into_iter().flat_map(BTreeMap::keys)).contains(resource)
}

/// The resources whose objects count.
fn resources<'a>(hard: impl Iterator<Item = &'a String>) -> BTreeSet<Resource> {
    let of = |name: &str| -> String {
        match name {
            "configmaps" | "replicationcontrollers" | "resourcequotas" | "secrets" => name.into(),
            "services" | "services.nodeports" | "services.loadbalancers" => "services".into(),
            "persistentvolumeclaims" | "requests.storage" => "persistentvolumeclaims".into(),
            name if name.contains(usage::OF_CLASS) => "persistentvolumeclaims".into(),
            name => name.strip_prefix("count/").unwrap_or("pods").into(),
        }
    };
    let resource = |name: String| match name.split_once('.') {
        Some((plural, group)) => Resource::new(group, plural),
        None => Resource::new("", &name),
    };
    hard.map(|name| resource(of(name))).collect()
}

pub(crate) fn write_status(quota: &Loaded<ResourceQuota>, hard: &Amounts, used: &Amounts) -> Write {
    let told = |amounts: &Amounts| -> Value {
        amounts.iter().map(|(name, amount)| (name.clone(), json!(amount.to_string()))).collect()
    };
    let status = json!({"hard": told(hard), "used": told(used)});
    quota.edit(|value| set(value, &["status"], status))
}

fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let selected =
        spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    plain.chain(selected.cloned()).collect()
}

/// Whether a pod is of all the quota's scopes.
fn matches(quota: &ResourceQuota, pod: &Pod) -> bool {
    scopes(quota).iter().all(|scope| is_in(scope, pod))
}

fn is_in(scope: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let best_effort = || crate::controller::pods::qos_class(spec) == "BestEffort";
    match scope.scope_name.as_str() {
        "Terminating" => spec.active_deadline_seconds.is_some(),
        "NotTerminating" => spec.active_deadline_seconds.is_none(),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().unwrap_or_default();
            let listed = || scope.values.iter().flatten().any(|value| value == class);
            match scope.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => names_other_namespaces(pod),
        // A scope of a newer version: nothing is of it.
        _ => false,
    }
}

fn names_other_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else { return false };
    let (near, away) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = near
        .and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(away.and_then(|away| away.required_during_scheduling_ignored_during_execution.as_ref()))
        .flatten();
    let preferred = near
        .and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(away.and_then(|away| away.preferred_during_scheduling_ignored_during_execution.as_ref()))
        .flatten()
        .map(|term| &term.pod_affinity_term);
    required.chain(preferred).any(|term| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
    })
}
