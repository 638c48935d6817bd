//! One rule: what it allows, and whether rules that somebody has cover a rule that he wants to hand out.

use super::attributes::{Asked, Attributes};
use k8s_openapi::api::rbac::v1::PolicyRule;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The smallest pieces that rules are broken into to be compared; a role of more pieces can be handed out only by who
/// has a rule that covers each of its rules as a whole.
const PIECES: usize = 1 << 16;
/// Rules that are named in a refusal.
const SHOWN: usize = 32;

type List = Option<Vec<String>>;

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|one| one == word)
}

fn of(list: &List) -> &[String] {
    list.as_deref().unwrap_or_default()
}

/// Whether a rule allows what is asked.
pub fn allows(rule: &PolicyRule, attributes: &Attributes) -> bool {
    let any_or = |list: &[String], word: &str| has(list, "*") || has(list, word);
    if !any_or(&rule.verbs, &attributes.verb) {
        return false;
    }
    match &attributes.asked {
        Asked::Path(path) => of(&rule.non_resource_urls).iter().any(|one| path_matches(one, path)),
        Asked::Objects { group, resource, subresource, name, .. } => {
            any_or(of(&rule.api_groups), group)
                && resource_matches(of(&rule.resources), resource, subresource)
                && (of(&rule.resource_names).is_empty() || has(of(&rule.resource_names), name))
        }
    }
}

fn resource_matches(resources: &[String], resource: &str, subresource: &str) -> bool {
    resources.iter().any(|one| match one.split_once('/') {
        _ if one == "*" => true,
        None => subresource.is_empty() && one == resource,
        Some(("*", part)) => !subresource.is_empty() && part == subresource,
        Some((of, part)) => of == resource && part == subresource && !part.is_empty(),
    })
}

/// `*`, the path itself, or a beginning that ends in `*`.
fn path_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|beginning| path.starts_with(beginning))
}

/// What of `wanted` is not covered by `held`; `Err` with what to say.
pub fn covered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Result<(), String> {
    let not_whole: Vec<&PolicyRule> =
        wanted.iter().filter(|rule| !held.iter().any(|own| covers(own, rule))).collect();
    let mut pieces = 0_usize;
    for rule in &not_whole {
        pieces = pieces.saturating_add(pieces_of(rule));
    }
    if pieces > PIECES {
        return Err("rules of more parts than can be compared one by one".to_owned());
    }
    // Verbs that lack for the same objects are said together.
    let mut missing: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    for piece in not_whole.into_iter().flat_map(break_down) {
        if !held.iter().any(|own| covers(own, &piece)) {
            let place = Place::of(&piece);
            let verbs = missing.entry(place).or_default();
            for verb in piece.verbs {
                if !verbs.contains(&verb) {
                    verbs.push(verb);
                }
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let more = missing.len().saturating_sub(SHOWN);
    let mut lines: Vec<String> =
        missing.iter().take(SHOWN).map(|(place, verbs)| place.with_verbs(verbs)).collect();
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    Err(lines.join("\n"))
}

/// Group, resource, name and path of a piece, each at most one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place([Vec<String>; 4]);

impl Place {
    fn of(piece: &PolicyRule) -> Self {
        let own = |list: &List| of(list).to_vec();
        Self([
            own(&piece.api_groups),
            own(&piece.resources),
            own(&piece.non_resource_urls),
            own(&piece.resource_names),
        ])
    }

    /// As Kubernetes writes a rule in a line.
    fn with_verbs(&self, verbs: &[String]) -> String {
        let mut line = String::from("{");
        for (name, list) in ["APIGroups", "Resources", "NonResourceURLs", "ResourceNames"].iter().zip(&self.0)
        {
            if !list.is_empty() {
                let _ = write!(line, "{name}:[{}], ", quoted(list));
            }
        }
        let _ = write!(line, "Verbs:[{}]}}", quoted(verbs));
        line
    }
}

pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    quoted.join(" ")
}

fn pieces_of(rule: &PolicyRule) -> usize {
    let count = |list: &List| of(list).len();
    let names = count(&rule.resource_names).max(1);
    let of_objects = count(&rule.api_groups).saturating_mul(count(&rule.resources)).saturating_mul(names);
    of_objects.saturating_add(count(&rule.non_resource_urls)).saturating_mul(rule.verbs.len())
}

/// A rule as rules of one group, one resource, one verb and at most one name, or one path and one verb.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |word: &String| Some(vec![word.clone()]);
    let names: Vec<List> = match of(&rule.resource_names) {
        [] => vec![None],
        names => names.iter().map(one).collect(),
    };
    let mut pieces = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for group in of(&rule.api_groups) {
            for resource in of(&rule.resources) {
                pieces.extend(names.iter().map(|name| PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.clone(),
                    verbs: verbs.clone(),
                    non_resource_urls: None,
                }));
            }
        }
        pieces.extend(of(&rule.non_resource_urls).iter().map(|path| PolicyRule {
            non_resource_urls: one(path),
            verbs: verbs.clone(),
            ..PolicyRule::default()
        }));
    }
    pieces
}

/// Whether one rule alone allows all that another one does.
fn covers(own: &PolicyRule, wanted: &PolicyRule) -> bool {
    let all = |own: &[String], wanted: &[String]| has(own, "*") || wanted.iter().all(|one| has(own, one));
    let (own_names, names) = (of(&own.resource_names), of(&wanted.resource_names));
    all(&own.verbs, &wanted.verbs)
        && all(of(&own.api_groups), of(&wanted.api_groups))
        && of(&wanted.resources).iter().all(|one| covers_resource(of(&own.resources), one))
        && of(&wanted.non_resource_urls)
            .iter()
            .all(|path| of(&own.non_resource_urls).iter().any(|pattern| path_matches(pattern, path)))
        && (own_names.is_empty() || !names.is_empty() && names.iter().all(|name| has(own_names, name)))
}

fn covers_resource(own: &[String], wanted: &str) -> bool {
    let of_any = || wanted.split_once('/').is_some_and(|(_, part)| has(own, &format!("*/{part}")));
    has(own, "*") || has(own, wanted) || of_any()
}
