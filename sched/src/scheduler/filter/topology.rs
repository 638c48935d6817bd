//! PodTopologySpread (`DoNotSchedule`) and InterPodAffinity (required): where a pod may be beside others.
//!
//! What the placed pods mean for the pod at hand is worked out once, by domain; asking about a node is then a
//! look-up.

use super::{Rejection, affinity, taints};
use crate::controller::pods;
use crate::controller::selector::{self, Labels};
use crate::scheduler::cluster::{Cluster, Machine};
use crate::scheduler::demand::Demand;
use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::{BTreeMap, BTreeSet};

/// What the pods that run mean for one more.
pub(in crate::scheduler) struct Topology<'a> {
    spreads: Vec<Spread<'a>>,
    /// Per required affinity term: its key, and the domains that have a pod it asks for; `None` when the pod
    /// may be the first of its kind.
    near: Vec<(&'a str, Option<BTreeSet<String>>)>,
    /// Domains that required anti-affinity of the pod itself rules out.
    away: BTreeSet<(&'a str, String)>,
    /// Domains that anti-affinity of pods that run rules out.
    unwelcome: BTreeSet<(&'a str, String)>,
}

struct Spread<'a> {
    key: &'a str,
    max_skew: i64,
    counts: BTreeMap<String, i64>,
    least: i64,
    /// The pod itself counts in its domain once it is there.
    own: i64,
}

impl<'a> Topology<'a> {
    pub(in crate::scheduler) fn new(demand: &'a Demand, cluster: &'a Cluster) -> Self {
        let constraints = demand.spec().and_then(|spec| spec.topology_spread_constraints.as_deref());
        let hard =
            constraints.unwrap_or_default().iter().filter(|one| one.when_unsatisfiable == "DoNotSchedule");
        let near = near_terms(demand).iter().map(|term| {
            let domains = domains_with(cluster, demand, term);
            // The first of a group that wants to be together has nobody to be near to.
            let first = domains.is_empty() && covers(cluster, demand, term, demand);
            (term.topology_key.as_str(), (!first).then_some(domains))
        });
        let away = anti_terms(demand).iter().flat_map(|term| {
            domains_with(cluster, demand, term).into_iter().map(|domain| (term.topology_key.as_str(), domain))
        });
        let mut unwelcome = BTreeSet::new();
        for (machine, placed) in cluster.placed() {
            for term in anti_terms(placed) {
                let domain = machine.labels.get(&term.topology_key);
                if let Some(domain) = domain.filter(|_| covers(cluster, placed, term, demand)) {
                    unwelcome.insert((term.topology_key.as_str(), domain.clone()));
                }
            }
        }
        Self {
            spreads: hard.map(|constraint| Spread::new(constraint, demand, cluster)).collect(),
            near: near.collect(),
            away: away.collect(),
            unwelcome,
        }
    }

    pub(super) fn check(&self, machine: &Machine) -> Result<(), Rejection> {
        for spread in &self.spreads {
            spread.check(machine)?;
        }
        for (key, domains) in &self.near {
            let here = machine.labels.get(*key);
            let fits = here.is_some_and(|here| domains.as_ref().is_none_or(|domains| domains.contains(here)));
            if !fits {
                return Err(Rejection::fixed("node(s) didn't match pod affinity rules"));
            }
        }
        let hit = |ruled_out: &BTreeSet<(&str, String)>| {
            ruled_out.iter().any(|(key, domain)| machine.labels.get(*key) == Some(domain))
        };
        if hit(&self.away) {
            return Err(Rejection::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        if hit(&self.unwelcome) {
            return Err(Rejection::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

impl<'a> Spread<'a> {
    fn new(constraint: &'a TopologySpreadConstraint, demand: &Demand, cluster: &Cluster) -> Self {
        let key = constraint.topology_key.as_str();
        let wanted =
            with_keys(constraint.label_selector.as_ref(), constraint.match_label_keys.as_deref(), demand);
        let honours_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        let honours_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let mut counts = BTreeMap::new();
        for machine in &cluster.machines {
            let Some(domain) = machine.labels.get(key) else { continue };
            // Dead desktops stay on the list for a day: as an empty domain they would block everything.
            let excluded = !machine.ready
                || (honours_affinity && !affinity::wants(demand, machine))
                || (honours_taints && taints::taints(demand, machine).is_err());
            if excluded {
                continue;
            }
            let matching = machine.pods.iter().filter(|pod| {
                pod.namespace() == demand.namespace()
                    && !pods::is_terminating(&pod.pod)
                    && wanted.as_ref().is_some_and(|wanted| selector::matches(wanted, &pod.labels))
            });
            *counts.entry(domain.clone()).or_insert(0) += i64::try_from(matching.count()).unwrap_or(i64::MAX);
        }
        let too_few =
            i64::try_from(counts.len()).unwrap_or(0) < i64::from(constraint.min_domains.unwrap_or(1));
        let least = if too_few { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let own = wanted.is_some_and(|wanted| selector::matches(&wanted, &demand.labels));
        Self { key, max_skew: constraint.max_skew.into(), counts, least, own: i64::from(own) }
    }

    fn check(&self, machine: &Machine) -> Result<(), Rejection> {
        let Some(domain) = machine.labels.get(self.key) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Rejection::fixed(reason));
        };
        let here = self.counts.get(domain).copied().unwrap_or(0);
        if here + self.own - self.least > self.max_skew {
            return Err(Rejection::resolvable("node(s) didn't match pod topology spread constraints"));
        }
        Ok(())
    }
}

fn near_terms(demand: &Demand) -> &[PodAffinityTerm] {
    let terms = affinity_of(demand).and_then(|affinity| {
        affinity.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref()
    });
    terms.unwrap_or_default()
}

fn anti_terms(demand: &Demand) -> &[PodAffinityTerm] {
    let terms = affinity_of(demand).and_then(|affinity| {
        affinity.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_deref()
    });
    terms.unwrap_or_default()
}

fn affinity_of(demand: &Demand) -> Option<&Affinity> {
    demand.spec()?.affinity.as_ref()
}

/// The domains of the term's key that have a pod it speaks of.
fn domains_with(cluster: &Cluster, owner: &Demand, term: &PodAffinityTerm) -> BTreeSet<String> {
    let spoken_of = cluster.placed().filter(|(_, pod)| covers(cluster, owner, term, pod));
    spoken_of.filter_map(|(machine, _)| machine.labels.get(&term.topology_key).cloned()).collect()
}

/// Whether a term of `owner` speaks of `pod`.
fn covers(cluster: &Cluster, owner: &Demand, term: &PodAffinityTerm, pod: &Demand) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match &term.namespace_selector {
        None if listed.is_empty() => pod.namespace() == owner.namespace(),
        None => listed.iter().any(|name| name == pod.namespace()),
        Some(wanted) => {
            let labels = cluster.namespaces.get(pod.namespace()).cloned().unwrap_or_default();
            listed.iter().any(|name| name == pod.namespace()) || selector::matches(wanted, &labels)
        }
    };
    in_namespace
        && with_keys(term.label_selector.as_ref(), term.match_label_keys.as_deref(), owner)
            .is_some_and(|wanted| selector::matches(&wanted, &pod.labels))
}

/// A selector narrowed to the owner's own values of some labels. No selector speaks of nothing.
fn with_keys(
    wanted: Option<&LabelSelector>,
    keys: Option<&[String]>,
    owner: &Demand,
) -> Option<LabelSelector> {
    let mut wanted = wanted?.clone();
    let labels: &Labels = &owner.labels;
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            wanted.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: "In".into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Some(wanted)
}
