//! One pod of a StatefulSet: its number, its name, and what it is made of.

use super::super::history::REVISION;
use super::super::loaded::Loaded;
use super::super::pods;
use crate::state::Store;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number in the name of a set's pod: `web-2`, but neither `web-02` nor `web-x`.
pub(super) fn number(set: &str, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let number = digits.parse().ok().filter(|number: &i64| *number >= 0)?;
    (digits == number.to_string()).then_some(number)
}

/// The pod of a number, of the template that `revision` names.
pub(super) fn pod(
    store: &Store,
    owner: &Loaded<StatefulSet>,
    spec: &StatefulSetSpec,
    template: &PodTemplateSpec,
    revision: &str,
    number: i64,
    now: &Time,
) -> Pod {
    let ordinal = u64::try_from(number).unwrap_or_default();
    let mut pod = pods::from_template(store, owner, template, &owner.key.name, ordinal, now);
    let name = format!("{}-{number}", owner.key.name);
    pod.metadata.generate_name = Some(format!("{}-", owner.key.name));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), number.to_string());
    labels.insert(REVISION.into(), revision.to_owned());
    let of_pod = pod.spec.get_or_insert_default();
    of_pod.hostname = Some(name.clone());
    of_pod.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_numbers() {
        for (name, expected) in [
            ("db-0", Some(0)),
            ("db-12", Some(12)),
            ("db-02", None),
            ("db--1", None),
            ("db-x", None),
            ("db-", None),
            ("dbx-1", None),
            ("web-1", None),
            ("db-99999999999999999999", None),
        ] {
            assert_eq!(number("db", name), expected, "{name}");
        }
    }
}
