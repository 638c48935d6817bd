//! Label selectors: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

pub type Labels = BTreeMap<String, String>;

/// Whether the labels fulfil the selector. An empty selector is fulfilled by everything.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    equal && selector.match_expressions.iter().flatten().all(|requirement| fulfilled(requirement, labels))
}

/// Whether the selector asks for nothing, so that everything would match.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn fulfilled(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let found = labels.get(&requirement.key);
    let among = |value: &String| requirement.values.iter().flatten().any(|wanted| wanted == value);
    match requirement.operator.as_str() {
        "In" => found.is_some_and(among),
        "NotIn" => !found.is_some_and(among),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        // An operator of a newer version: claiming nothing is safer than claiming everything.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_means_what_kubernetes_says() {
        let labels: Labels = [("app".to_owned(), "web".to_owned())].into();
        let cases = [
            ("app", "In", vec!["web", "db"], true),
            ("app", "In", vec!["db"], false),
            ("app", "NotIn", vec!["db"], true),
            ("tier", "NotIn", vec!["db"], true),
            ("app", "Exists", vec![], true),
            ("tier", "Exists", vec![], false),
            ("tier", "DoesNotExist", vec![], true),
            ("app", "Near", vec!["web"], false),
        ];
        for (key, operator, values, expected) in cases {
            let requirement = LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.into_iter().map(Into::into).collect()),
            };
            let selector = LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None };
            assert_eq!(matches(&selector, &labels), expected, "{key} {operator}");
        }
    }
}
